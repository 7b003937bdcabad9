"""Our own calls in scripts, beyond the sockets': Delayed Address Setting, silence, echo.

    das(3, "door") = 0                             a LISTEN_U on a minted SSA, which packets call [to door]
    das(3, {name="door", peer="peer", peer_length=64, lifetime=10, grain="client", ssa="fd00:db8:5::7"}) = 0
    revoke("door") = 0                             by the name that das() gave it
    +0...5 silence() = 0                           for five seconds the stack sends nothing
    ping("peer") = 0                               an echo request from an EA of its own
    address("ssa", "fd00:db8:5::9") = 0            a name for an address, for packets

Documented for authors in docs/drill.md.
"""

import errno
from ipaddress import AddressValueError

from umuxstack.conformance.calls import Calls, Steps, number
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.symbols import Value
from umuxstack.core.errors import NotListening
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.units import NEVER, Address, Micros


def text(value: Value) -> str:
    if not isinstance(value, bytes):
        raise UnsupportedConstruct("a name that is no string")
    return value.decode()


class ExtendedCalls(Calls):
    """The system calls, and ours."""

    def call_das(self, descriptor: Value, how: Value) -> int:
        socket = self._socket(descriptor)
        fields = how if isinstance(how, dict) else {"name": how}
        name = text(fields["name"])
        peer = None
        if "peer" in fields:
            length = number(fields.get("peer_length", 128))
            whole = int.from_bytes(self._place(text(fields["peer"])), "big")
            peer = (Address((whole >> (128 - length) << (128 - length)).to_bytes(16, "big")), length)
        lifetime = fields.get("lifetime")
        door = socket.udp if socket.udp is not None else socket.listener
        if door is None or not (isinstance(door, Listen0) or socket.udp is not None):
            raise NotListening("DAS needs a socket that listens on no address")
        made = self.target.stack.das(
            door,
            self.target.now,
            ssa=self._place(text(fields["ssa"])) if "ssa" in fields else None,
            peer=peer,
            lifetime=None
            if lifetime is None
            else NEVER
            if lifetime == -1
            else Micros(int(float(lifetime) * 1_000_000)),  # type: ignore[arg-type]
            label=text(fields["label"]) if "label" in fields else "",
            grain=text(fields["grain"]) if "grain" in fields else "session",
            pin=number(fields.get("pin", 128)),
        )
        self.target.names[name] = made.lease.address
        return 0

    def call_revoke(self, name: Value) -> int:
        self.target.stack.revoke(self._place(text(name)), self.target.now)
        return 0

    def call_silence(self) -> Steps:
        """Blocks until its end; the runner sees to that nothing is sent meanwhile."""
        if self.target.sent:
            raise Mismatch("there is no silence: a packet was sent before")
        yield NEVER
        raise AssertionError("the runner ends it")

    def call_ping(self, name: Value) -> int:
        session = self.target.stack.ping(self._place(text(name)), self.target.now)
        session.send(b"umux", self.target.now)
        self.target.names["echo"] = session.lease.address
        return 0

    def call_address(self, name: Value, place: Value) -> int:
        self.target.names[text(name)] = self._on_link(text(place))
        return 0

    def _place(self, name: str) -> Address:
        """The stack's address of whom the script means."""
        return self.target.to_stack(self._on_link(name))

    def _on_link(self, name: str) -> bytes:
        known = self.target.names.get(name)
        if known is not None:
            return known
        try:
            return self.target.parse(name)
        except AddressValueError:
            raise CallError(errno.EINVAL) from None
