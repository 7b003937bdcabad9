"""One stack on a bare wire: throw packets at it, look at what it says, move its time.

For tests of single rules. Every packet that comes out is finished, decoded by
dpkt and checked; a packet that nobody expected fails the next expectation.
"""

from collections import deque
from typing import Any, Final

from umuxstack.core.config import LinkCaps, StackConfig
from umuxstack.core.network.offload import finish
from umuxstack.core.units import NEVER, Address, Micros, seconds
from umuxstack.driver.addresses import to_prefix
from umuxstack.testing.checks import Check, require
from umuxstack.testing.decode import Seen, verify
from umuxstack.testing.entropy import seed_of, seed_of_run
from umuxstack.testing.recording import make_stack

PREFIX: Final = "2001:db8:1::/64"
STUCK: Final = 100_000  # timers at one instant


class Wire:
    """A stack with `prefix`, and its time. Further arguments are those of `StackConfig`.

    Without offload, unless `link` says otherwise. The seed is UMUX_SEED's unless given, and printed.
    """

    def __init__(self, prefix: str = PREFIX, *, seed: int | None = None, **config: Any) -> None:
        self.seed = seed_of_run() if seed is None else seed
        print(f"UMUX_SEED={self.seed}")
        network, length = to_prefix(prefix)
        config.setdefault("link", LinkCaps(segmentation=False, checksum=False))
        self.now: Micros = seconds(1000)
        settings = StackConfig(prefix=network, prefix_length=length, **config)
        self.stack = make_stack(self, settings, seed_of(self.seed, prefix), self.now)
        self.sent: list[Seen] = []  # everything the stack ever sent
        self._unseen: deque[Seen] = deque()

    def send(self, *packets: bytes, gso_size: int = 0, csum_ok: bool = False) -> None:
        """The stack receives `packets`, one batch."""
        for packet in packets:
            self.stack.receive(packet, 0, gso_size, csum_ok, self.now)
        self.flush()

    def flush(self) -> None:
        """Collects what the stack has to say after verbs. Every other method here does it by itself."""
        for outgoing in self.stack.take_output(self.now):
            for packet in finish(outgoing):
                verify(packet, mtu=self.stack.config.link.mtu)
                seen = Seen(packet, self.now)
                self.sent.append(seen)
                self._unseen.append(seen)

    def advance(self, duration: int) -> None:
        """Lets `duration` microseconds pass; every timer fires at its time."""
        self.flush()
        target = Micros(self.now + duration)
        while self._step(target):
            pass
        self.now = target

    def _step(self, target: Micros) -> bool:
        """To the next timer, if it comes by `target`."""
        due = self.stack.next_deadline()
        if due > target or due >= NEVER:
            return False
        for _ in range(STUCK):
            self.now = Micros(max(self.now, due))
            self.stack.advance(self.now)
            self.flush()
            due = self.stack.next_deadline()
            if due > self.now:
                return True
        raise AssertionError("the stack's deadline does not move on")

    def expect(self, *checks: Check, within: int = 0) -> Seen:
        """The next packet, which must satisfy `checks`; waited for `within` microseconds, timer by timer."""
        self.flush()
        target = Micros(self.now + within)
        while not self._unseen and self._step(target):
            pass
        if not self._unseen:
            self.now = target
            raise AssertionError(f"nothing was sent within {within} µs")
        return require(self._unseen.popleft(), *checks)

    def expect_silence(self, duration: int = 0) -> None:
        """Nothing is sent now, nor in the next `duration` microseconds."""
        self.advance(duration)
        assert not self._unseen, f"expected silence, but it sent {list(self._unseen)}"

    def take(self) -> list[Seen]:
        """Everything sent and not seen yet."""
        self.flush()
        taken = list(self._unseen)
        self._unseen.clear()
        return taken

    def minted(self, *, peer: tuple[Address, int] | None = None, **listen: Any) -> Address:
        """An SSA where the stack waits for one connection: LISTEN_0 and DAS in one go."""
        return self.stack.das(self.stack.listen(self.now, **listen), self.now, peer=peer).address
