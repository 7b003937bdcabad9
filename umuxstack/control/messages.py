"""What the control protocol says: each request, and the rows that answer it.

One class per message, its fields in the order in which they travel. All times
are microseconds, all sizes bytes unless a field says otherwise. How a class
becomes bytes is `layout.py`; how messages are framed is `protocol.py`.
"""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, TypeVar

import attrs

from umuxstack.control.layout import (
    U8,
    U16,
    U32,
    U64,
    Addr,
    Flag,
    Label,
    Layout,
    Message,
    Name,
    Record,
    Time,
    Word,
)
from umuxstack.core.units import NEVER, UNSPECIFIED, Micros

VERSION: Final = 1
MAGIC: Final = 0x554D5558  # "UMUX"
ANY_LENGTH: Final = 255  # a peer's prefix length: any peer may come
_SECOND: Final = Micros(1_000_000)


class Verb(IntEnum):
    HELLO = 1
    STATUS = 2
    LISTENERS = 3
    SESSIONS = 4
    ADDRESSES = 5
    POOL = 6
    STATISTICS = 7
    TELESCOPE = 8
    EVENTS = 9
    DAS_ADD = 16
    DAS_LIST = 17
    DAS_REVOKE = 18
    PING = 32
    CONNECT = 33
    LISTEN = 34
    OUTCOME = 35
    SHUTDOWN = 48


Answer = TypeVar("Answer", bound=Record)


@attrs.frozen(slots=True)
class Request(Record, Generic[Answer]):
    """Base of what a client asks; `Answer` is the class of the rows it gets."""

    VERB: ClassVar[Verb]
    ANSWER: ClassVar[type[Record]]


@attrs.frozen(slots=True)
class Done(Record):
    """It is done; there is nothing to tell."""


@attrs.frozen(slots=True)
class Failure(Record):
    """The body of an ERROR."""

    reason: U8
    message: Message


@attrs.frozen(slots=True)
class Welcome(Record):
    """The answer to HELLO."""

    version: U16
    pid: U32
    uid: U32
    name: Name
    software: Word


@attrs.frozen(slots=True)
class Status(Record):
    """The stack and its link."""

    prefix: Addr
    prefix_length: U8
    fixed_port: U16
    silence: Flag
    up: Flag
    mtu: U32
    segmentation: Flag
    checksum: Flag
    uptime: Time
    sessions: U64
    listeners: U64
    leases: U64
    memory_used: U64
    memory_limit: U64
    name: Name
    link: Name
    scheme: Word
    congestion: Word
    version: Word


@attrs.frozen(slots=True)
class ListenerRow(Record):
    """A listener: LISTEN_0, LISTEN_SERVICE, LISTEN (legacy), or UDP for a bound datagram socket."""

    id: U64
    address: Addr
    port: U16
    backlog: U32
    queued: U32  # completed connections not yet accepted
    waiting: U32  # LISTEN_U under it
    name: Name
    kind: Word


@attrs.frozen(slots=True)
class Waiter(Record):
    """A LISTEN_U: one SSA, waiting. Its address is in `das add` and `das list` only (UM-34)."""

    lease_id: U64
    address: Addr
    peer: Addr
    peer_length: U8  # ANY_LENGTH: whoever comes
    expires: Time  # microseconds from now; NEVER
    candidates: U32
    port: U16  # what a legacy client may dial; any other does as well (UM-5)
    name: Name
    listener: Name
    state: Word
    grain: Word
    label: Label


@attrs.frozen(slots=True)
class LeaseRow(Record):
    """A live address. `hidden`: it waits for somebody, so `address` is left out (UM-34)."""

    id: U64
    address: Addr
    hidden: Flag
    age: Time
    name: Name
    kind: Word
    state: Word
    grain: Word
    label: Label


@attrs.frozen(slots=True)
class SessionRow(Record):
    """A session, with the figures of `ss -tine` (zero where the protocol has none).

    `local` is left out while it waits for somebody (UM-34). `retransmitted` counts segments; windows, `cwnd`,
    `ssthresh` (0: not set yet), `in_flight`, `lost` and the queues are bytes.
    """

    local: Addr
    remote: Addr
    local_port: U16
    remote_port: U16
    receive_queue: U64
    send_queue: U64
    srtt: Time
    rttvar: Time
    min_rtt: Time
    rto: Time
    mss: U32
    cwnd: U64
    ssthresh: U64
    in_flight: U64
    lost: U64
    retransmitted: U64
    send_window: U64
    receive_window: U64
    send_scale: U8
    receive_scale: U8
    sack: Flag
    timestamps: Flag
    ecn: Flag
    protocol: Word
    state: Word
    lease: Name
    kind: Word
    grain: Word
    role: Word
    congestion: Word
    label: Label


@attrs.frozen(slots=True)
class PoolRow(Record):
    """The address pool (UM-9)."""

    level: U64
    low: U64
    high: U64
    hits: U64
    misses: U64
    issued: U64
    scheme: Word


@attrs.frozen(slots=True)
class Figure(Record):
    """One counter."""

    value: U64
    name: Name


@attrs.frozen(slots=True)
class Knock(Record):
    """A source whose packets met nobody, and how many: `age` is how long ago the first came, `quiet` the newest."""

    source: Addr
    packets: U64
    age: Time
    quiet: Time


@attrs.frozen(slots=True)
class EventRow(Record):
    """Something happened. `time` counts from 1970; `lost`: events this client was too slow for, just before."""

    time: Time
    address: Addr
    peer: Addr
    reason: U8
    lost: U32
    kind: Word
    name: Name
    label: Label


@attrs.frozen(slots=True)
class Echo(Record):
    """One echo: its answer, its loss (`rtt` is NEVER), or why it could not arrive (`reason`: an ICMPv6 error came)."""

    sequence: U32
    rtt: Time
    size: U32
    hop_limit: U8
    reason: U8
    lease: Name


@attrs.frozen(slots=True)
class Opened(Record):
    """A session in the hands of another process: one end of a stream pair comes with it."""

    id: U64
    local: Addr
    remote: Addr
    local_port: U16
    remote_port: U16
    lease: Name


@attrs.frozen(slots=True)
class Outcome(Record):
    """Whether a session handed out is over (`ended`), and why."""

    ended: Flag
    reason: U8


@attrs.frozen(slots=True)
class Hello(Request[Welcome]):
    """The first message; the same in every version."""

    VERB = Verb.HELLO
    ANSWER = Welcome
    magic: U32 = MAGIC
    lowest: U16 = VERSION
    highest: U16 = VERSION


@attrs.frozen(slots=True)
class GetStatus(Request[Status]):
    VERB = Verb.STATUS
    ANSWER = Status


@attrs.frozen(slots=True)
class Listeners(Request[ListenerRow]):
    VERB = Verb.LISTENERS
    ANSWER = ListenerRow


@attrs.frozen(slots=True)
class Sessions(Request[SessionRow]):
    VERB = Verb.SESSIONS
    ANSWER = SessionRow


@attrs.frozen(slots=True)
class Addresses(Request[LeaseRow]):
    """`reveal`: with the addresses that wait for somebody."""

    VERB = Verb.ADDRESSES
    ANSWER = LeaseRow
    reveal: Flag = False


@attrs.frozen(slots=True)
class Pool(Request[PoolRow]):
    VERB = Verb.POOL
    ANSWER = PoolRow


@attrs.frozen(slots=True)
class Statistics(Request[Figure]):
    VERB = Verb.STATISTICS
    ANSWER = Figure


@attrs.frozen(slots=True)
class Telescope(Request[Knock]):
    VERB = Verb.TELESCOPE
    ANSWER = Knock


@attrs.frozen(slots=True)
class Events(Request[EventRow]):
    """Pages of events from now on, until either side closes."""

    VERB = Verb.EVENTS
    ANSWER = EventRow
    reveal: Flag = False


@attrs.frozen(slots=True)
class DasAdd(Request[Waiter]):
    """Delayed Address Setting (UM-21, UM-24). An unspecified `ssa` asks the stack to mint one."""

    VERB = Verb.DAS_ADD
    ANSWER = Waiter
    listener: Name
    ssa: Addr = UNSPECIFIED
    peer: Addr = UNSPECIFIED
    peer_length: U8 = ANY_LENGTH
    default_lifetime: Flag = True  # else `lifetime`, which may be NEVER
    lifetime: Time = NEVER
    pin: U8 = 128  # client grain: the leading bits of the first peer's address that further ones must share
    grain: Word = "session"
    label: Label = ""


@attrs.frozen(slots=True)
class DasList(Request[Waiter]):
    """All that waits. Without `reveal` the addresses are left out (for tables that others may see)."""

    VERB = Verb.DAS_LIST
    ANSWER = Waiter
    reveal: Flag = False


@attrs.frozen(slots=True)
class DasRevoke(Request[Done]):
    """By the SSA's text or by its lease's name."""

    VERB = Verb.DAS_REVOKE
    ANSWER = Done
    what: Name


@attrs.frozen(slots=True)
class Ping(Request[Echo]):
    """`count` echoes to `peer`, `interval` apart, each waited for `timeout`."""

    VERB = Verb.PING
    ANSWER = Echo
    peer: Addr
    count: U32 = 4
    interval: Time = _SECOND
    timeout: Time = _SECOND
    size: U16 = 56


class Unified(IntEnum):
    """Whether the peer is known to be unified (UM-5)."""

    BY_CONFIGURATION = 0
    NO = 1
    YES = 2


@attrs.frozen(slots=True)
class Connect(Request[Opened]):
    """Opens a session; its stream comes as a descriptor. An unspecified `source` takes an EA (UM-15)."""

    VERB = Verb.CONNECT
    ANSWER = Opened
    peer: Addr
    port: U16
    source: Addr = UNSPECIFIED
    unified: U8 = Unified.BY_CONFIGURATION
    label: Label = ""


@attrs.frozen(slots=True)
class Listen(Request[ListenerRow]):
    """Opens a listener. The descriptor that comes is a SOCK_SEQPACKET socket: on it each accepted connection arrives
    framed like the answer to a CONNECT with the tag 0, with its stream's descriptor. Closing it closes the listener."""

    VERB = Verb.LISTEN
    ANSWER = ListenerRow
    port: U16 = 0
    backlog: U16 = 128
    address: Addr = UNSPECIFIED
    name: Name = ""


@attrs.frozen(slots=True)
class GetOutcome(Request[Outcome]):
    """How the session with this id, handed out before, ended: the pair of sockets alone cannot tell FIN from RST."""

    VERB = Verb.OUTCOME
    ANSWER = Outcome
    id: U64


@attrs.frozen(slots=True)
class Shutdown(Request[Done]):
    """Ends the stack and every session in it."""

    VERB = Verb.SHUTDOWN
    ANSWER = Done


REQUESTS: Final[Mapping[int, type[Request[Any]]]] = MappingProxyType(
    {
        cls.VERB: cls
        for cls in (
            Hello, GetStatus, Listeners, Sessions, Addresses, Pool, Statistics, Telescope, Events, DasAdd, DasList,
            DasRevoke, Ping, Connect, Listen, GetOutcome, Shutdown,
        )
    }
)  # fmt: skip
ANSWERS: Final = tuple(dict.fromkeys(cls.ANSWER for cls in REQUESTS.values()))
LAYOUTS: Final[Mapping[type[Record], Layout[Any]]] = MappingProxyType(
    {cls: Layout(cls) for cls in (*REQUESTS.values(), *ANSWERS, Failure)}
)
