"""Configuration of a stack: validated once, here, and frozen.

Times are microseconds, sizes bytes, addresses 16 packed bytes.
"""

# RFC 9293 appendix B: MUST-21, MUST-25, MUST-27, MUST-28, MUST-48, SHLD-11; UM-35.u, UM-35.y

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from umuxstack.core.errors import BadArgument
from umuxstack.core.units import FIXED_PORT, Address, Micros, millis, minutes, seconds

_KINDS: Final[dict[type, str]] = {
    bool: "True or False",
    int: "a whole number",
    str: "text",
    bytes: "packed bytes",
}


def _check_kind(name: str, value: object, kind: type) -> None:
    """Said here, not when the first packet comes: a compiled core takes no 1 for True, and no 2.0 for 2."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadArgument(f"{name} is {value!r}; it must be {_KINDS.get(kind, f'a {kind.__name__}')}")


def _within(low: int, high: int) -> "attrs._ValidatorType[int]":
    def check(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
        _check_kind(attribute.name, value, int)
        if not low <= value <= high:
            raise BadArgument(f"{attribute.name} is {value}; allowed is {low} to {high}")

    return check


# What a field must at least be; every other number must not be negative.
_TCP_LEAST: Final = {
    "rto_initial": 1,
    "rto_min": 1,
    "rto_max": 1000,
    "receive_buffer": 256,
    "receive_buffer_max": 256,
    "send_buffer": 256,
    "send_buffer_max": 256,
    "keepalive_idle": 1000,
    "keepalive_interval": 1000,
    "keepalive_count": 1,
    "time_wait": 1,
    "fin_wait_2": 1,
}
_STACK_LEAST: Final = {
    "das_lifetime": 1,
    "client_grain_linger": 1,
    "udp_idle": 1,
    "retiring": 1,
    "memory": 1024,
    "path_mtu_lifetime": minutes(5),
}


def _check_fields(
    config: "LinkCaps | PoolPolicy | TcpPolicy | StackConfig", least: Mapping[str, int] = MappingProxyType({})
) -> None:
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        kind = bytes if field.default is attrs.NOTHING else type(field.default)
        _check_kind(field.name, value, kind)
        if kind is int and value < least.get(field.name, 0):
            raise BadArgument(f"{field.name} is {value}; it is at least {least.get(field.name, 0)}")


@attrs.frozen(slots=True)
class LinkCaps:
    """What the link below can do for us."""

    mtu: int = attrs.field(default=1500, validator=_within(1280, 65575))  # the longest packet: 40 + 65535
    segmentation: bool = True  # takes and gives TCP super-segments of up to 64 KB
    checksum: bool = True  # completes transport checksums on the way out

    def __attrs_post_init__(self) -> None:
        _check_fields(self)


@attrs.frozen(slots=True)
class PoolPolicy:
    """How many ready addresses are kept (UM-9): below `low` the pool is refilled up to `high`."""

    low: int = attrs.field(default=64, validator=_within(0, 1 << 20))
    high: int = attrs.field(default=256, validator=_within(0, 1 << 20))

    def __attrs_post_init__(self) -> None:
        _check_fields(self)


@attrs.frozen(slots=True)
class TcpPolicy:
    """What a TCP may choose. The defaults are ours; presets imitate other stacks."""

    congestion: str = "cubic"
    initial_window: int = attrs.field(default=10, validator=_within(1, 1000))  # segments, RFC 6928
    rto_initial: Micros = seconds(1)  # RFC 6298 2.1
    rto_min: Micros = millis(200)  # RFC 6298 2.4 says SHOULD 1 s; every large stack uses 200 ms
    rto_max: Micros = seconds(60)
    syn_retries: int = attrs.field(default=7, validator=_within(0, 100))  # over 3 minutes: RFC 9293 MUST-23
    synack_retries: int = attrs.field(default=5, validator=_within(0, 100))
    retries: int = attrs.field(default=15, validator=_within(1, 100))  # RFC 9293 3.8.3's R2, counted
    orphan_retries: int = attrs.field(default=8, validator=_within(0, 100))
    delayed_ack: Micros = millis(40)  # RFC 9293 MUST-58: under 0.5 s
    time_wait: Micros = seconds(60)  # UM-36
    fin_wait_2: Micros = seconds(60)  # after a full close by the application
    receive_buffer: int = 256 * 1024  # first limit; grows to receive_buffer_max
    receive_buffer_max: int = 6 * 1024 * 1024
    send_buffer: int = 512 * 1024
    send_buffer_max: int = 4 * 1024 * 1024
    nodelay: bool = False  # True switches Nagle's algorithm off
    urgent_inline: bool = False  # SO_OOBINLINE: the urgent byte stays in the stream, and reading stops before it
    sack: bool = True
    timestamps: bool = True
    window_scaling: bool = True
    ecn: bool = False
    keepalive: bool = False
    keepalive_idle: Micros = seconds(7200)
    keepalive_interval: Micros = seconds(75)
    keepalive_count: int = 9
    user_timeout: Micros = Micros(0)  # RFC 5482; 0: count retries instead
    challenge_acks_per_second: int = attrs.field(
        default=10, validator=_within(1, 1_000_000)
    )  # per session, never global: a global limit is a side channel

    # What mature stacks choose differently (core/personality.py); the defaults are again ours.
    bsd_options: bool = False  # the order of a SYN's options: BSD's, instead of Linux's
    announce_mss: bool = True  # RFC 9293 MAY-3; without the option the peer assumes the default
    announce_path_mtu: bool = (
        False  # and no more than the path is believed to carry (BSD); MUST-67: what we can receive
    )
    mss: int = 0  # TCP_MAXSEG: announce and send no larger segment; 0: what the link carries
    rto_variance_min: Micros = millis(1)  # RFC 6298 2.3: RTO = SRTT + max(G, 4 * RTTVAR); this is G
    rto_slop: Micros = Micros(0)  # added to a measured RTO
    syn_options_dropped_after: int = 0  # SYNs after so many retransmissions carry an MSS alone; 0: never
    syn_linear_timeouts: int = 0  # so many more SYNs go out before their timeout begins to double, in the same time
    repeats_fin: bool = False  # as long as our FIN is not acknowledged, our ACKs carry it again (BSD)
    connect_timeout: Micros = Micros(0)  # of the handshake; 0: syn_retries alone decides
    quick_acks: int = 0  # so many segments at a connection's begin are acknowledged at once
    round_receive_buffer: bool = False  # up to whole segments, once the handshake is complete
    early_window_updates: bool = False  # once a quarter of the buffer was read, though over half is still offered (BSD)
    fast_open: bool = False  # RFC 7413, as a client: asks for cookies, and sends early data with the SYN
    fast_open_queue: int = (
        0  # as a server: so many connections are accepted before their handshake is complete; 0: none
    )
    fast_open_cookies: bool = True  # and a SYN's data is taken, and sent, only with a cookie; False: in closed networks
    fast_open_key: str = ""  # in hexadecimal, for the cookies of servers that share an address; "": the stack's own
    remember_refusals: bool = True  # RFC 7413 4.1.3: and asks no server again for a while that gave none (Linux does)
    icmp_aborts: bool = True  # RFC 9293 3.9.2.2: hard errors abort a connection that is being opened
    soft_errors_abort: bool = True  # and so do "no route" and "address unreachable" (RFC 5461 4.1)
    transit_errors_abort: bool = True  # and so do "hop limit exceeded" and "unknown next header" (the same)
    tolerate_missing_timestamps: bool = False  # RFC 7323 3.2 says SHOULD drop
    cork: bool = False  # TCP_CORK: nothing below a full segment is sent before the retransmission timeout
    delays_fin_ack: bool = False  # a FIN behind data that was acknowledged waits as a segment does
    answers_early_acks: bool = True  # RFC 9293 3.10.7.4: of what was not sent; False: only while closing (Linux)
    resets_by_ack: bool = False  # data after the application's close: answered as if the connection were gone
    resets_given_up: int = attrs.field(
        default=0, validator=_within(0, 2)
    )  # who answers no more is told by RST; 1: after keep-alive probes (Linux), 2: always (BSD)
    window_in_resets: bool = False  # a reset that we begin says our window (Linux); RFC 9293 gives it no meaning
    rack_by_sequence: bool = False  # RACK.rtt of the last range acknowledged (Linux); RFC 8985 6.2: of the latest sent
    checks_syn_echo: bool = False  # a SYN-ACK must echo a timestamp that was sent (Linux); else it is answered by RST
    sacks_whole_segments: bool = False  # SACK of a part of a segment says nothing (Linux); RFC 6675 counts octets
    counts_segments: bool = False  # a window of n segments stays one of n when the path MTU shrinks (Linux)
    takes_beyond_window: bool = False  # what ends beyond the window, if nothing waits to be read (Linux); else cut
    whole_segments: bool = False  # what a SYN offers is a number of full segments (Linux)
    fin_ends_sack: bool = False  # behind the peer's FIN nothing is reported, not even what came twice (Linux)
    grows_by_sack: bool = False  # the window, once order was seen to change (Linux); RFC 5681 3.2: it MUST NOT
    reduces_window: bool = False  # RFC 9438 4.6: ssthresh from the window, as Linux does, not from what is in flight
    restart_after_idle: bool = True  # RFC 5681 4.1
    tail_loss_probe: bool = True  # RFC 8985 7
    forward_rto: bool = True  # RFC 5682, where there are no timestamps to tell a needless timeout
    ecn_asks: bool = True  # with `ecn`: our own SYNs ask for it; False: it is only granted
    ecn_syn_retries: int = 0  # so many retransmissions of such a SYN ask again (RFC 3168 6.1.1.1)
    accurate_ecn: int = attrs.field(default=0, validator=_within(0, 2))  # RFC 9768; 1: granted, 2: and asked for
    accurate_ecn_option: bool = True  # and octets as well, by an option of every segment
    ecn_validates: bool = True  # who says that a SYN was marked that was not shows that marks are mangled on the way
    ect_everywhere: bool = (
        False  # where marks are counted, ACKs and repairs may be marked (Linux); RFC 3168 6.1.4, 6.1.5
    )
    ecn_plus: int = attrs.field(default=0, validator=_within(0, 2))  # 1: SYN-ACKs may be marked (RFC 5562), 2: and all
    ecn_proportional: bool = False  # a reduction for marks is spread over a round trip (RFC 6937; Linux); else at once
    delays_marked: bool = False  # a segment marked CE waits for its acknowledgement as any (RFC 3168 6.1.3 allows it)
    cwr_repairs: bool = False  # CWR goes out with a retransmission already (BSD); RFC 3168 6.1.2: with new data
    unread_resets: bool = True  # RFC 1122 4.2.2.13: closing before all is read tells the peer by RST (SHOULD)
    rst_in_window: bool = False  # RFC 793: any RST in the window resets; RFC 5961 3.2 wants the exact number
    syn_in_window: bool = False  # RFC 793: so does a SYN there; RFC 5961 4.2 answers it with a challenge ACK
    syn_fin: bool = False  # a SYN that carries a FIN as well opens a connection; the FIN is not looked at
    bsd_time_wait: bool = False  # TIME-WAIT answers no segment without ACK, and yields to no SYN but a later one
    traffic_class: int = attrs.field(default=0, validator=_within(0, 255))  # of every segment; ECN bits are TCP's
    hop_limit: int = attrs.field(default=0, validator=_within(0, 255))  # of every segment; 0: the stack's
    report_after: int = attrs.field(default=3, validator=_within(0, 100))  # RFC 9293 3.8.3's R1, counted; 0: never

    def __attrs_post_init__(self) -> None:
        _check_fields(self, _TCP_LEAST)
        try:
            usable = len(bytes.fromhex(self.fast_open_key)) <= 64
        except ValueError:
            usable = False
        if not usable:
            raise BadArgument("fast_open_key is not up to 64 octets in hexadecimal")
        if self.rto_min > self.rto_max:
            raise BadArgument("rto_min is above rto_max")


@attrs.frozen(slots=True)
class StackConfig:
    """A stack's configuration. `prefix` is routed to us whole; `shared` are its legacy addresses (UM-6)."""

    prefix: Address
    prefix_length: int = attrs.field(default=64, validator=_within(8, 120))
    scheme: str = attrs.field(default="sealed")  # or "random" (UM-13)
    pool: PoolPolicy = PoolPolicy()
    link: LinkCaps = LinkCaps()
    tcp: TcpPolicy = TcpPolicy()
    shared: tuple[Address, ...] = ()
    fixed_port: int = attrs.field(default=FIXED_PORT, validator=_within(1, 65535))  # never 0 (UM-4)
    unified_peers: tuple[tuple[Address, int], ...] = ()  # prefixes known to be unified (UM-5)
    silence: bool = True  # UM-31; False gives the answers of RFC 9293 and 4443
    reset_second_syn: bool = True  # UM-33: RST to a SYN on a live pair with other ports; False: silence
    hop_limit: int = attrs.field(default=64, validator=_within(1, 255))
    extension_headers: int = attrs.field(default=16, validator=_within(1, 10_000))  # of a packet that is taken, and …
    header_options: int = attrs.field(default=8, validator=_within(0, 10_000))  # … options in them (RFC 8504 5.3)
    icmp_rate: int = attrs.field(default=100, validator=_within(0, 1_000_000))  # errors a second; 0: none
    icmp_burst: int = attrs.field(default=20, validator=_within(1, 1_000_000))  # of them at once (RFC 4443 2.4 (f))
    path_mtu_lifetime: Micros = minutes(10)  # RFC 8201 4: not less than 5; NEVER: what was learnt once holds
    das_lifetime: Micros = seconds(60)  # of a waiting SSA (UM-24)
    candidates: int = attrs.field(default=8, validator=_within(1, 1024))  # per LISTEN_U (UM-23)
    client_grain_linger: Micros = seconds(60)  # UM-26
    udp_idle: Micros = seconds(120)  # UM-18
    retiring: Micros = seconds(60)  # UM-31
    telescope: int = 1024  # sources remembered that knocked where nobody is
    memory: int = 1 << 30  # bytes that all buffers together may hold

    def __attrs_post_init__(self) -> None:
        _check_fields(self, _STACK_LEAST)
        if len(self.prefix) != 16:
            raise BadArgument("prefix must be 16 packed bytes")
        host_bits = 128 - self.prefix_length
        if int.from_bytes(self.prefix, "big") & ((1 << host_bits) - 1):
            raise BadArgument(f"prefix has bits set beyond its length of {self.prefix_length}")
        if self.prefix[0] == 0xFF:
            raise BadArgument("a multicast prefix cannot hold sessions")
        if not any(self.prefix):
            raise BadArgument(
                f"::/{self.prefix_length} holds the unspecified and the loopback address; it cannot hold sessions"
            )
        if self.prefix[0] == 0xFE and self.prefix[1] & 0xC0 == 0x80:
            raise BadArgument("a link-local prefix cannot be routed to a stack; choose a global or a unique local one")
        for address in self.shared:
            _check_kind("a shared address", address, bytes)
            if len(address) != 16 or address[0] == 0xFF or not any(address[:15]):
                raise BadArgument("a shared address must be a unicast one: not unspecified, loopback or multicast")
        if len(set(self.shared)) != len(self.shared):
            raise BadArgument("a shared address is named twice")
        for peers in self.unified_peers:
            match peers:
                case (bytes(network), int(length)) if len(network) == 16 and 0 <= length <= 128:
                    pass
                case _:
                    raise BadArgument(f"{peers!r} is no prefix of unified peers: 16 packed bytes, a length of 0 to 128")
        if self.scheme not in ("sealed", "random"):
            raise BadArgument(f"scheme is {self.scheme!r}; it is 'sealed' or 'random'")
        if self.pool.low > self.pool.high:
            raise BadArgument("pool: low watermark above the high one")
