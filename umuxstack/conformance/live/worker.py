"""A thread in the kernel's namespace that makes system calls, one at a time, so that one may block.

Knows no calls. Nobody can take a thread out of a system call: whoever ends the script shuts its sockets down first.
"""

import queue
import threading
from collections.abc import Callable
from typing import Final

END_PATIENCE: Final = 0.5  # seconds that a call may still take when the script is over


class Job:
    """One call, on its way or done."""

    def __init__(self, function: Callable[[], int]) -> None:
        self._function = function
        self._result = 0
        self._error: BaseException | None = None
        self.done = False

    def perform(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        self.done = True

    def result(self) -> int:
        """What the call returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result


class Worker:
    """`enter` brings the thread into the namespace; `wake` is told after every call."""

    def __init__(self, enter: Callable[[], None], wake: Callable[[], None]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._enter = enter
        self._wake = wake
        self._thread = threading.Thread(target=self._run, name="umux-drill", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], int]) -> Job:
        job = Job(function)
        self._jobs.put(job)
        return job

    def end(self) -> bool:
        """False: it hangs in a call, and ends with the call or with the process."""
        self._jobs.put(None)
        self._thread.join(END_PATIENCE)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._enter()
        while (job := self._jobs.get()) is not None:
            job.perform()
            self._wake()
