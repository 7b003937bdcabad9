"""What a packetdrill script says, as frozen nodes: options, commands, and a list of timed events.

Owns no behaviour: a runner reads these, the parser makes them, `format.py` writes them again.
Times are microseconds, sequence numbers are as written (relative unless `absolute`).
Invariant: a node holds everything its text said; what a runner cannot play is an `UnsupportedPacket`
or an `UnknownOption` that names its construct, never a silent omission.
"""

from enum import Enum, IntFlag
from pathlib import Path

import attrs

from umuxstack.conformance.value import Expression
from umuxstack.core.units import Micros


class ScriptError(Exception):
    """The text is not a script. `str()` shows file, line, column, the line itself and a caret below the place."""

    def __init__(self, message: str, path: str, line: int, column: int, source: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.line = line  # from 1
        self.column = column  # from 1, in characters
        self.source = source  # the line's text

    def __str__(self) -> str:
        # Tabs before the caret are kept, so that it stands below its character whatever a tab's width.
        indent = "".join("\t" if character == "\t" else " " for character in self.source[: self.column - 1])
        return f"{self.path}:{self.line}:{self.column}: {self.message}\n  {self.source}\n  {indent}^"


@attrs.frozen(slots=True)
class Position:
    line: int  # from 1
    column: int  # from 1


NOWHERE = Position(0, 0)

# Two nodes are equal when they say the same thing, wherever they stand.
_position = attrs.field(default=NOWHERE, eq=False, repr=False, kw_only=True)


# --- packets ---------------------------------------------------------------------------------------------------


class Direction(Enum):
    IN = "<"  # injected: towards the stack under test
    OUT = ">"  # expected from it


class TcpFlags(IntFlag):
    """The nine flag bits as they stand in the header. A number 0 to 7 in a script is AE, CWR and ECE (RFC 9768)."""

    NONE = 0
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80
    AE = 0x100


@attrs.frozen(slots=True)
class IpFields:
    """What stands in `[...]` before the transport part; None: not said (any value will do)."""

    ecn: str | None = None  # "noecn", "ect0", "ect1", "ce", or "ect01" (either ECT)
    tos: int | None = None  # the whole octet
    dscp: int | None = None  # six bits
    flow_label: int | None = None
    hop_limit: int | None = None
    source: str | None = None  # our extension: [from NAME-OR-ADDRESS]
    destination: str | None = None  # our extension: [to NAME-OR-ADDRESS]


@attrs.frozen(slots=True)
class Ports:
    source: int
    destination: int


@attrs.frozen(slots=True)
class Encapsulation:
    """One outer header. `kind`: ipv4, ipv6, gre, mpls, psp."""

    kind: str
    text: str  # the header as written, without the colon
    source: str | None = None
    destination: str | None = None
    ip: IpFields = IpFields()


@attrs.frozen(slots=True)
class Sequence:
    """`1:1001(1000)`; with `!` absolute; `...(1000)`, any number, when `ignored`."""

    start: int
    length: int  # payload octets; SYN and FIN are not counted
    absolute: bool = False
    ignored: bool = False

    @property
    def end(self) -> int:
        return (self.start + self.length) & 0xFFFFFFFF


@attrs.frozen(slots=True)
class Nop:
    pass


@attrs.frozen(slots=True)
class EndOfOptions:
    pass


@attrs.frozen(slots=True)
class Mss:
    value: int


@attrs.frozen(slots=True)
class WindowScale:
    shift: int


@attrs.frozen(slots=True)
class SackPermitted:
    pass


@attrs.frozen(slots=True)
class Sack:
    blocks: tuple[tuple[int, int], ...]


@attrs.frozen(slots=True)
class Timestamps:
    """`value` or `echo` None: any. `echo_absolute`: written with `!`, not mapped to the live clock."""

    value: int | None
    echo: int | None
    echo_absolute: bool = False


@attrs.frozen(slots=True)
class FastOpen:
    cookie: bytes  # empty: a request
    experimental: bool = False  # option 254 with the magic, not option 34


@attrs.frozen(slots=True)
class Md5:
    """`md5 0011...`, `md5 valid`, `md5 invalid` (to be computed with the secret, or wrong), or just `md5`."""

    digest: bytes | None = None
    valid: bool | None = None


@attrs.frozen(slots=True)
class AccEcn:
    """`order` 0: E0B first, 1: E1B first, None: as the counters stand. Names are "e0b", "ceb", "e1b"."""

    order: int | None
    counters: tuple[tuple[str, int], ...]
    experimental: bool = False


@attrs.frozen(slots=True)
class AckRateRequest:
    rate: int | None  # draft-gomez-tcpm-ack-rate-request


@attrs.frozen(slots=True)
class UnknownOption:
    """An option that we do not model; its text as written."""

    name: str
    text: str


TcpOption = (
    Nop
    | EndOfOptions
    | Mss
    | WindowScale
    | SackPermitted
    | Sack
    | Timestamps
    | FastOpen
    | Md5
    | AccEcn
    | AckRateRequest
    | UnknownOption
)


@attrs.frozen(slots=True)
class TcpPacket:
    direction: Direction
    flags: TcpFlags
    sequence: Sequence
    ack: int | None = None
    ack_absolute: bool = False
    window: int | None = None
    urgent: int | None = None
    options: tuple[TcpOption, ...] | None = ()  # None: `<...>`, any
    ip: IpFields = IpFields()
    ports: Ports | None = None
    udp_ports: Ports | None = None  # carried in UDP: `/udp(9899 > 1234)`
    encapsulations: tuple[Encapsulation, ...] = ()
    ace: bool = False  # the flags were given with a number
    position: Position = _position


@attrs.frozen(slots=True)
class UdpPacket:
    direction: Direction
    length: int  # payload octets
    coverage: int | None = None  # UDP-Lite's checksum coverage; None: it is plain UDP
    ip: IpFields = IpFields()
    ports: Ports | None = None
    encapsulations: tuple[Encapsulation, ...] = ()
    position: Position = _position


@attrs.frozen(slots=True)
class Quoted:
    """The packet inside an ICMP error. `protocol`: tcp, udp, udplite, sctp or raw (octets of any kind)."""

    protocol: str
    length: int
    sequence: Sequence | None = None
    coverage: int | None = None
    tag: int | None = None
    udp_ports: Ports | None = None


@attrs.frozen(slots=True)
class IcmpPacket:
    """`type_name` and `code` as written: `unreachable port_unreachable`, `type_3 code_1`; the IP version decides."""

    direction: Direction
    type_name: str
    code: str | None = None
    mtu: int | None = None
    identifier: int | None = None
    quoted: Quoted | None = None
    ip: IpFields = IpFields()
    encapsulations: tuple[Encapsulation, ...] = ()
    position: Position = _position


@attrs.frozen(slots=True)
class UnsupportedPacket:
    """A packet of a kind that is recognized and not modelled; `construct` names it for the report."""

    direction: Direction
    construct: str
    text: str
    position: Position = _position


Packet = TcpPacket | UdpPacket | IcmpPacket | UnsupportedPacket


# --- events ----------------------------------------------------------------------------------------------------


class TimeKind(Enum):
    ABSOLUTE = "absolute"  # since the script's start
    RELATIVE = "relative"  # since the event before
    ANY = "any"
    ABSOLUTE_RANGE = "absolute range"
    RELATIVE_RANGE = "relative range"


@attrs.frozen(slots=True)
class Time:
    kind: TimeKind
    start: Micros
    end: Micros  # equal to `start` unless it is a range


@attrs.frozen(slots=True)
class SystemCall:
    """`end` is set for a blocking call: when it returns, on the same scale as the event's start."""

    name: str
    arguments: tuple[Expression, ...]
    result: Expression
    errno: str | None = None
    note: str | None = None  # what stood in parentheses behind the result; for the reader only
    end: Micros | None = None
    position: Position = _position


@attrs.frozen(slots=True)
class Command:
    """A shell command in backquotes; `text` is what stood between them."""

    text: str
    position: Position = _position


@attrs.frozen(slots=True)
class Code:
    """`%{ ... }%`: Python that asserts things of the connection's TCP_INFO."""

    text: str
    position: Position = _position


Action = TcpPacket | UdpPacket | IcmpPacket | UnsupportedPacket | SystemCall | Command | Code


@attrs.frozen(slots=True)
class Event:
    time: Time
    action: Action
    position: Position = _position


@attrs.frozen(slots=True)
class Option:
    name: str  # without the dashes
    value: str | None = None
    position: Position = _position


KNOWN_OPTIONS = frozenset(
    (
        "bind_port",
        "code_command",
        "code_format",
        "code_sockopt",
        "connect_port",
        "debug",
        "define",
        "dry_run",
        "gateway_ip",
        "init_scripts",
        "ip_version",
        "is_anyip",
        "local_ip",
        "mss",
        "mtu",
        "netmask_ip",
        "non_fatal",
        "persistent_tun_dev",
        "psp_udp_port",
        "remote_ip",
        "send_omit_free",
        "so_filename",
        "so_flags",
        "speed",
        "strict_segments",
        "tcp_md5_secret",
        "tcp_ts_ecr_scaled",
        "tcp_ts_tick_usecs",
        "tolerance_percent",
        "tolerance_usecs",
        "tun_dev",
        "udp_encaps",
        "udp_encapsulation",
        "use_expect",
        "verbose",
        "wire_client",
        "wire_client_dev",
        "wire_server",
        "wire_server_at",
        "wire_server_dev",
        "wire_server_ip",
        "wire_server_port",
    )
)


@attrs.frozen(slots=True)
class Script:
    path: str = attrs.field(eq=False)
    options: tuple[Option, ...]
    init: tuple[Command, ...]
    events: tuple[Event, ...]
    cleanup: tuple[Command, ...]

    def option(self, name: str) -> str | None:
        """The value of the last option of this name; "" if it has none, None if it is not there."""
        for option in reversed(self.options):
            if option.name == name:
                return option.value if option.value is not None else ""
        return None

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def unknown_options(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if option.name not in KNOWN_OPTIONS)

    def unsupported(self) -> list[tuple[Position, str]]:
        """Where a construct stands that was recognized and is not modelled, and its name."""
        found: list[tuple[Position, str]] = []
        for event in self.events:
            action = event.action
            if isinstance(action, UnsupportedPacket):
                found.append((action.position, action.construct))
            elif isinstance(action, TcpPacket):
                found += [
                    (action.position, f"TCP option {o.name}")
                    for o in action.options or ()
                    if isinstance(o, UnknownOption)
                ]
        return found
