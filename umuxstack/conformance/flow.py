"""From a script's numbers to live ones and back, for one four-tuple.

Owns the two initial sequence numbers, as written and as they are, and the timestamps that were seen. As in
packetdrill: the number in a SYN is as written, and everything after is relative to the initial sequence number.
"""

from umuxstack.conformance.script import Sack, TcpOption, Timestamps

MASK = 0xFFFFFFFF


class Flow:
    """`local` is the stack's end, `remote` the script's."""

    __slots__ = (
        "live_local",
        "live_remote",
        "local",
        "local_port",
        "mss",
        "pending_syn",
        "remote",
        "remote_port",
        "script_local",
        "script_remote",
        "stamp_base",
        "stamps",
    )

    def __init__(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> None:
        self.local = local
        self.local_port = local_port
        self.remote = remote
        self.remote_port = remote_port
        # None: not seen yet; numbers are then taken as they stand
        self.live_local: int | None = None
        self.script_local = 0
        self.live_remote: int | None = None
        self.script_remote = 0
        self.pending_syn: tuple[int, int] | None = None  # number in the last SYN we injected: as written, live
        self.stamps: dict[int, int] = {}  # the stack's timestamps: as written -> live
        self.stamp_base: tuple[int, int] | None = None  # the first of them
        self.mss = 0  # what the script's end announced

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        return self.local, self.local_port, self.remote, self.remote_port

    def to_live(self, number: int, *, local: bool, syn: bool) -> int:
        """`local`: it counts the stack's octets."""
        live, script = (self.live_local, self.script_local) if local else (self.live_remote, self.script_remote)
        if live is None:
            return number & MASK
        return (number + live - (script if syn else 0)) & MASK

    def to_script(self, number: int, *, local: bool, syn: bool) -> int:
        live, script = (self.live_local, self.script_local) if local else (self.live_remote, self.script_remote)
        if live is None:
            return number
        return (number - live + (script if syn else 0)) & MASK

    def options_to_live(self, options: tuple[TcpOption, ...]) -> tuple[TcpOption, ...]:
        """Options of an injected segment: SACK blocks count the stack's octets, echoes its timestamps."""
        out: list[TcpOption] = []
        for option in options:
            match option:
                case Sack(blocks):
                    out.append(
                        Sack(
                            tuple(
                                (
                                    self.to_live(first, local=True, syn=False),
                                    self.to_live(last, local=True, syn=False),
                                )
                                for first, last in blocks
                            )
                        )
                    )
                case Timestamps(value, echo, absolute):
                    live = (echo or 0) if absolute or not echo else self.echo_to_live(echo)
                    out.append(Timestamps(value or 0, live))
                case _:
                    out.append(option)
        return tuple(out)

    def echo_to_live(self, echo: int) -> int:
        """A timestamp of the stack's, as the script calls it. One never seen is placed by its distance."""
        if echo in self.stamps:
            return self.stamps[echo]
        if self.stamp_base is None:
            return echo
        written, live = self.stamp_base
        return (live + echo - written) & MASK

    def options_to_script(self, options: tuple[TcpOption, ...]) -> tuple[TcpOption, ...]:
        """Options of a segment from the stack: SACK blocks count the script's octets."""
        return tuple(
            Sack(
                tuple(
                    (self.to_script(first, local=False, syn=False), self.to_script(last, local=False, syn=False))
                    for first, last in option.blocks
                )
            )
            if isinstance(option, Sack)
            else option
            for option in options
        )

    def learn_stamp(self, written: int, live: int) -> None:
        self.stamps[written] = live
        if self.stamp_base is None:
            self.stamp_base = (written, live)
