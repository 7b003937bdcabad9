"""The one loop around a stack: batch in, timers, output, wake, sleep.

Owns the link and the only sleep. One task per link (and, while the link
refuses output, a second one that waits to write the rest). Whoever calls a verb
of the core from the trio thread calls `kick` afterwards: output leaves from the
caller's task, without waking the pump. Invariant: while the pump sleeps, its
cancel scope expires at the stack's next deadline or earlier.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import attrs
import trio

from umuxstack.core.counters import Counters
from umuxstack.core.errors import Drop
from umuxstack.core.events import Event
from umuxstack.core.network import offload
from umuxstack.core.network.endpoint import Waitable
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.units import NEVER, Micros, millis, seconds
from umuxstack.driver.clock import Clock
from umuxstack.driver.link import Link
from umuxstack.driver.readiness import Owner

logger = logging.getLogger("umuxstack")

BATCH: Final = 64  # packets read before anything else is done
END_BATCH: Final = 100  # sessions ended before anything else is done: some 2 ms, and as many tasks that hear of it
PENDING_LIMIT: Final = 1024  # packets kept for a link that takes no more
EMPTY_WAKES: Final = 32  # "readable" without a packet, in a row, before we stop believing and look only now and then
EMPTY_PAUSE: Final = 0.05  # seconds between those looks
EVENTS: Final = 65536  # that one turn may bring; what is beyond is lost, the oldest first
LINK_ERRORS: Final = (OSError, trio.ClosedResourceError)
RETRY_FIRST: Final = millis(50)
RETRY_LAST: Final = seconds(2)


@attrs.frozen(slots=True)
class LinkState:
    """What is known of the link. `since`: microseconds of the host's clock; `error`: text of what went wrong last."""

    up: bool
    since: Micros
    error: str = ""
    outages: int = 0


class Closeable(Protocol):
    """A session, listener or socket of the core."""

    def close(self, now: Micros) -> None: ...


class Pump:
    """Drives one stack over one link. `run` is its task."""

    def __init__(self, link: Link, stack: Stack, clock: Clock) -> None:
        self.stack = stack
        self.link_state = LinkState(up=True, since=clock.now())
        self.faults = 0  # exceptions out of the core: bugs of ours, survived and logged
        self.stopped = False
        self.after_flush: Callable[[], None] | None = None  # looks at the stack after each turn; must not raise
        self._link = link
        self._clock = clock
        self._token = trio.lowlevel.current_trio_token()
        self._finish_in_software = not (link.caps.checksum and link.caps.segmentation)
        self._pending: list[Outgoing] = []
        self._writer_wanted = False
        self._nursery: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._armed: Micros = NEVER
        self._retry_at: Micros = NEVER
        self._backoff: Micros = RETRY_FIRST
        self._collecting = False  # applications were woken and run now; their output leaves together afterwards
        self._woken = False  # the link itself ended the last sleep
        self._empty_wakes = 0
        self._subscribers: list[trio.MemorySendChannel[Event]] = []
        stack.keep_events(0)  # as long as nobody subscribes

    def now(self) -> Micros:
        return self._clock.now()

    @trio.lowlevel.enable_ki_protection
    def kick(self) -> None:
        """After verbs on the core: sends what they caused, wakes who became ready, re-arms the sleep."""
        if not (self.stopped or self._collecting):
            self._flush(self._clock.now())
            self._arm()

    def close_later(self, endpoint: Closeable) -> None:
        """Closes `endpoint` as soon as the trio thread is free to. May be called from anywhere, `__del__` included."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._close_endpoint, endpoint)

    def _close_endpoint(self, endpoint: Closeable) -> None:
        if not self.stopped:
            try:
                endpoint.close(self._clock.now())
            except Exception:
                self._on_fault("closing what was forgotten")
            self.kick()

    def subscribe(self, limit: int) -> trio.MemoryReceiveChannel[Event]:
        """A channel of everything that happens from now on; what a slow reader leaves no room for is lost to it."""
        sender, receiver = trio.open_memory_channel[Event](limit)
        if self.stopped:
            sender.close()
            return receiver
        if not self._subscribers:
            self.stack.keep_events(EVENTS)
        self._subscribers.append(sender)
        return receiver

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Until cancelled or stopped. Ctrl-C goes to another task: it must not land in the middle of a segment."""
        async with trio.open_nursery() as self._nursery:
            if self._pending:
                self._want_writer()
            while not self.stopped:
                # One scope serves many sleeps: its deadline only ever moves earlier. When it expires we may be
                # early (the deadline was put off meanwhile), which costs one more turn.
                with trio.CancelScope() as self._scope:
                    self._armed = NEVER
                    try:
                        await self._run_until_deadline()
                    finally:
                        self._collecting = False

    async def _run_until_deadline(self) -> None:
        while not self.stopped:
            more = self._turn()
            if self._collecting:
                # Two passes of trio's scheduler: in the second everybody who was woken has had a turn.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                self._collecting = False
                self._flush(self._clock.now())
            if more:
                await trio.lowlevel.checkpoint()  # applications come first
                continue
            self._arm()
            if not self.link_state.up:
                await trio.sleep_forever()  # until the scope expires: at the retry or a timer
            elif self._empty_wakes > EMPTY_WAKES:
                await trio.sleep(EMPTY_PAUSE)
            else:
                try:
                    await self._link.wait_readable()
                except LINK_ERRORS as error:
                    self._on_link_error(error, self._clock.now())
                else:
                    self._woken = True

    async def end_sessions(self) -> None:
        """What `stop` does to sessions, some at a time: other tasks have their turns meanwhile."""
        while not self.stopped and self._end_some():
            await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    def _end_some(self) -> bool:
        now = self._clock.now()
        try:
            more = self.stack.end_some(now, END_BATCH)
        except Exception:
            self._on_fault("the end")
            more = False  # `stop` tries once more
        self._flush(now)
        return more

    @trio.lowlevel.enable_ki_protection
    def stop(self) -> None:
        """Ends every session (RST where due), sends what that causes, closes the link. Idempotent."""
        if self.stopped:
            return
        now = self._clock.now()
        try:
            self.stack.close(now)
        except Exception:
            self._on_fault("the end")
        self._flush(now)
        self.stopped = True
        for sender in self._subscribers:
            sender.close()
        self._link.close()

    # in

    def _turn(self) -> bool:
        """One batch in, its timers, its output. True if there is more to do: the batch was full, the pool is not."""
        now = self._clock.now()
        stack = self.stack
        count = 0
        if self.link_state.up or now >= self._retry_at:
            try:
                packets = self._link.read_batch(BATCH)
            except LINK_ERRORS as error:
                self._on_link_error(error, now)
            else:
                count = len(packets)
                for buf, base, gso_size, csum_ok in packets:
                    try:
                        stack.receive(buf, base, gso_size, csum_ok, now)
                    except Exception:
                        self._on_fault("a received packet")
                self._on_read(count, now)
        filling = stack.pool.filling
        if stack.is_due(now):
            try:
                stack.advance(now)
            except Exception:
                self._on_fault("a timer")
        ready = stack.take_ready()
        if len(ready) > 1:
            # Their answers will carry our acknowledgements, and all of it leaves in one batch.
            self._collecting = True
            self._wake(ready)
            self._report()
            return True
        self._flush(now, ready)
        return filling or count >= BATCH

    def _on_read(self, count: int, now: Micros) -> None:
        if count:
            self._empty_wakes = 0
        elif self._woken:
            self._empty_wakes += 1
            if self._empty_wakes == EMPTY_WAKES:
                logger.warning("umuxstack: the link says that it is readable, but there is nothing to read")
        self._woken = False
        if not self.link_state.up:
            self._try_again(now)

    def _on_fault(self, what: str) -> None:
        """Bytes from the network must not end the host (house rule), even where the core is wrong about them.

        Logged the first time, the second, the fourth, the eighth: whoever can cause it cannot fill a disk with it.
        """
        self.faults += 1
        if self.faults & (self.faults - 1) == 0:
            logger.exception("umuxstack: %s met a bug (number %d)", what, self.faults)

    # out

    def _flush(self, now: Micros, ready: Sequence[Waitable] = ()) -> None:
        stack = self.stack
        try:
            output = stack.take_output(now)
        except Exception:
            self._on_fault("output")
            output = []
        if output:
            self._send(output, now)
        self._wake(ready)
        self._wake(stack.take_ready())
        self._report()

    def _report(self) -> None:
        """Tells who watches what has happened."""
        if self._subscribers:
            self._publish(self.stack.take_events())
        if self.after_flush is not None:
            self.after_flush()

    @staticmethod
    def _wake(ready: Sequence[Waitable]) -> None:
        for endpoint in ready:
            owner = endpoint.owner
            if isinstance(owner, Owner):
                owner.on_ready(endpoint)

    def _send(self, output: list[Outgoing], now: Micros) -> None:
        if not self.link_state.up:
            self._drop(Drop.LINK_DOWN, len(output))
            return
        if self._finish_in_software:
            output = [(packet, b"", 0, 0) for outgoing in output for packet in offload.finish(outgoing)]
        if self._pending:
            room = PENDING_LIMIT - len(self._pending)
            self._pending += output[:room]
            self._drop(Drop.QUEUE_FULL, max(0, len(output) - room))
        else:
            self._pending = output
            self._write(now)

    def _write(self, now: Micros) -> bool:
        """Gives the link what is pending. False if the link failed."""
        try:
            taken = self._link.write_batch(self._pending)
        except LINK_ERRORS as error:
            self._pending = self._pending[getattr(error, "taken", 0) :]
            self._on_link_error(error, now)
            return False
        if taken == len(self._pending):
            self._pending = []
        else:
            self._pending = self._pending[taken:]
            self._want_writer()
        return True

    def _want_writer(self) -> None:
        if not self._writer_wanted and self._nursery is not None:
            self._writer_wanted = True
            self._nursery.start_soon(self._write_rest)

    @trio.lowlevel.enable_ki_protection
    async def _write_rest(self) -> None:
        try:
            while self._pending and self.link_state.up and not self.stopped:
                await self._link.wait_writable()
                self._write(self._clock.now())
        except LINK_ERRORS as error:
            self._on_link_error(error, self._clock.now())
        finally:
            self._writer_wanted = False

    def _drop(self, reason: Drop, count: int) -> None:
        counters: Counters = self.stack.counters
        counters.drops[reason] += count

    def _publish(self, events: list[Event]) -> None:
        for sender in tuple(self._subscribers):
            try:
                for event in events:
                    sender.send_nowait(event)
            except trio.WouldBlock:
                continue
            except trio.BrokenResourceError:
                sender.close()
                self._subscribers.remove(sender)
        if not self._subscribers:
            self.stack.keep_events(0)

    # the link's health

    def _on_link_error(self, error: Exception, now: Micros) -> None:
        """The link is down, or still is: sessions stay, output is dropped, one packet is kept to try with."""
        if self.stopped:
            return
        state = self.link_state
        if state.up:
            logger.warning("umuxstack: link down: %s", error)
            self.link_state = LinkState(up=False, since=now, error=str(error), outages=state.outages + 1)
            self._backoff = RETRY_FIRST
        else:
            self.link_state = attrs.evolve(state, error=str(error))
            self._backoff = Micros(min(self._backoff * 2, RETRY_LAST))
        self._retry_at = Micros(now + self._backoff)
        self._drop(Drop.LINK_DOWN, max(0, len(self._pending) - 1))
        self._pending = self._pending[:1]
        self._arm()

    def _try_again(self, now: Micros) -> None:
        """Reading worked after an outage. The link is up when writing works too, if there is something to write."""
        self._retry_at = NEVER
        if not self._pending or self._write(now):
            logger.warning("umuxstack: link up again after %.1f s", (now - self.link_state.since) / 1e6)
            self.link_state = attrs.evolve(self.link_state, up=True, since=now)

    # the sleep

    def _arm(self) -> None:
        """Lets the pump's sleep end in time. Only ever earlier; see `run`."""
        deadline = Micros(0) if self.stack.pool.filling else min(self.stack.next_deadline(), self._retry_at)
        if deadline < self._armed and self._scope is not None:
            self._armed = Micros(deadline)
            self._scope.deadline = self._clock.to_trio(self._armed)
