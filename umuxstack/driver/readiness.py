"""Who waits for an endpoint: what the driver keeps in the `owner` slot.

One task may wait to read and one to write. Nothing is remembered: readiness is
a level, so whoever is woken looks at the endpoint again.
"""

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task

from umuxstack.core.network.endpoint import Waitable


class Seat:
    """A place where one task may sleep until it is woken. Waking an empty seat does nothing."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    async def wait(self) -> None:
        assert self._task is None, "two tasks in one seat; a conflict detector is missing"
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._on_cancel)

    def wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    def _on_cancel(self, _raise_cancel: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


class Owner:
    """The base class of what may stand in `Waitable.owner`."""

    __slots__ = ()

    def on_ready(self, endpoint: Waitable) -> None:
        """`endpoint` has changed; called by the pump, must not raise and must not call the core."""
        raise AssertionError(f"{type(self).__name__} owns no endpoint")


class Waiters(Owner):
    """A reader's and a writer's seat. A woken task that finds nothing sits down again."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader = Seat()
        self.writer = Seat()

    def on_ready(self, endpoint: Waitable) -> None:
        self.reader.wake()
        self.writer.wake()


class OneTask:
    """`with` it around an operation that two tasks must not perform at once; the second gets BusyResourceError."""

    __slots__ = ("_held", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(f"another task is already {self._what}")
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
