"""The control protocol's layout declared in construct: for readers, for other languages, and for the tests.

Nothing imports this at run time; `tests/control/test_specification.py` proves
that `messages.py` and `protocol.py` produce and accept exactly this. All
numbers are in network order; addresses are 16 packed bytes; times are signed
microseconds, 2^62 standing for "never"; a text is UTF-8 and printable.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from construct import (
    Bytes,
    Const,
    Construct,
    Flag,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64sb,
    Int64ub,
    Prefixed,
    Rebuild,
    StringEncoded,
    Struct,
    Terminated,
    this,
)

ADDRESS: Final = Bytes(16)
TIME: Final = Int64sb
TEXT: Final = "a text: its length (u16) among the fixed fields, its bytes after all of them"


def record(**fields: Any) -> Construct:
    """The fixed fields in order, each text as its length; then the texts themselves in the same order."""
    fixed = [
        name / kind if isinstance(kind, Construct) else f"{name}_length" / Rebuild(Int16ub, _length_of(name))
        for name, kind in fields.items()
    ]
    texts = [
        name / StringEncoded(Bytes(this[f"{name}_length"]), "utf-8") for name, kind in fields.items() if kind == TEXT
    ]
    return Struct(*fixed, *texts)


def _length_of(name: str) -> Any:
    return lambda context: len(context[name].encode("utf-8"))


# verb; kind: 0 request, 1 reply (last page), 2 page, 3 error; code: of an error, else 0; tag: chosen by the client and
# repeated in the answer; then the body, whose length stands before it.
MESSAGE: Final = Struct(
    "verb" / Int8ub,
    "kind" / Int8ub,
    "code" / Int16ub,
    "tag" / Int32ub,
    "body" / Prefixed(Int32ub, GreedyBytes),
    Terminated,
)

REQUESTS: Final[Mapping[int, tuple[str, Construct]]] = MappingProxyType(
    {
        1: ("Hello", record(magic=Const(0x554D5558, Int32ub), lowest=Int16ub, highest=Int16ub)),
        2: ("GetStatus", record()),
        3: ("Listeners", record()),
        4: ("Sessions", record()),
        5: ("Addresses", record(reveal=Flag)),
        6: ("Pool", record()),
        7: ("Statistics", record()),
        8: ("Telescope", record()),
        9: ("Events", record(reveal=Flag)),
        16: (
            "DasAdd",
            record(
                listener=TEXT,
                ssa=ADDRESS,
                peer=ADDRESS,
                peer_length=Int8ub,
                default_lifetime=Flag,
                lifetime=TIME,
                pin=Int8ub,
                grain=TEXT,
                label=TEXT,
            ),
        ),
        17: ("DasList", record(reveal=Flag)),
        18: ("DasRevoke", record(what=TEXT)),
        32: ("Ping", record(peer=ADDRESS, count=Int32ub, interval=TIME, timeout=TIME, size=Int16ub)),
        33: ("Connect", record(peer=ADDRESS, port=Int16ub, source=ADDRESS, unified=Int8ub, label=TEXT)),
        34: ("Listen", record(port=Int16ub, backlog=Int16ub, address=ADDRESS, name=TEXT)),
        35: ("GetOutcome", record(id=Int64ub)),
        48: ("Shutdown", record()),
    }
)

FAILURE: Final = record(reason=Int8ub, message=TEXT)

ANSWERS: Final[Mapping[str, Construct]] = MappingProxyType(
    {
        "Done": record(),
        "Welcome": record(version=Int16ub, pid=Int32ub, uid=Int32ub, name=TEXT, software=TEXT),
        "Status": record(
            prefix=ADDRESS,
            prefix_length=Int8ub,
            fixed_port=Int16ub,
            silence=Flag,
            up=Flag,
            mtu=Int32ub,
            segmentation=Flag,
            checksum=Flag,
            uptime=TIME,
            sessions=Int64ub,
            listeners=Int64ub,
            leases=Int64ub,
            memory_used=Int64ub,
            memory_limit=Int64ub,
            name=TEXT,
            link=TEXT,
            scheme=TEXT,
            congestion=TEXT,
            version=TEXT,
        ),
        "ListenerRow": record(
            id=Int64ub,
            address=ADDRESS,
            port=Int16ub,
            backlog=Int32ub,
            queued=Int32ub,
            waiting=Int32ub,
            name=TEXT,
            kind=TEXT,
        ),
        "Waiter": record(
            lease_id=Int64ub,
            address=ADDRESS,
            peer=ADDRESS,
            peer_length=Int8ub,
            expires=TIME,
            candidates=Int32ub,
            port=Int16ub,
            name=TEXT,
            listener=TEXT,
            state=TEXT,
            grain=TEXT,
            label=TEXT,
        ),
        "LeaseRow": record(
            id=Int64ub,
            address=ADDRESS,
            hidden=Flag,
            age=TIME,
            name=TEXT,
            kind=TEXT,
            state=TEXT,
            grain=TEXT,
            label=TEXT,
        ),
        "SessionRow": record(
            local=ADDRESS,
            remote=ADDRESS,
            local_port=Int16ub,
            remote_port=Int16ub,
            receive_queue=Int64ub,
            send_queue=Int64ub,
            srtt=TIME,
            rttvar=TIME,
            min_rtt=TIME,
            rto=TIME,
            mss=Int32ub,
            cwnd=Int64ub,
            ssthresh=Int64ub,
            in_flight=Int64ub,
            lost=Int64ub,
            retransmitted=Int64ub,
            send_window=Int64ub,
            receive_window=Int64ub,
            send_scale=Int8ub,
            receive_scale=Int8ub,
            sack=Flag,
            timestamps=Flag,
            ecn=Flag,
            protocol=TEXT,
            state=TEXT,
            lease=TEXT,
            kind=TEXT,
            grain=TEXT,
            role=TEXT,
            congestion=TEXT,
            label=TEXT,
        ),
        "PoolRow": record(
            level=Int64ub,
            low=Int64ub,
            high=Int64ub,
            hits=Int64ub,
            misses=Int64ub,
            issued=Int64ub,
            scheme=TEXT,
        ),
        "Figure": record(value=Int64ub, name=TEXT),
        "Knock": record(source=ADDRESS, packets=Int64ub, age=TIME, quiet=TIME),
        "EventRow": record(
            time=TIME,
            address=ADDRESS,
            peer=ADDRESS,
            reason=Int8ub,
            lost=Int32ub,
            kind=TEXT,
            name=TEXT,
            label=TEXT,
        ),
        "Echo": record(sequence=Int32ub, rtt=TIME, size=Int32ub, hop_limit=Int8ub, reason=Int8ub, lease=TEXT),
        "Opened": record(
            id=Int64ub,
            local=ADDRESS,
            remote=ADDRESS,
            local_port=Int16ub,
            remote_port=Int16ub,
            lease=TEXT,
        ),
        "Outcome": record(ended=Flag, reason=Int8ub),
    }
)
