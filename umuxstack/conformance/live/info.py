"""The kernel's `struct tcp_info` by name, as far as the kernel filled it in (Linux 6.18's fields)."""

import socket
import struct
from typing import Final

_BYTES: Final = ("state", "ca_state", "retransmits", "probes", "backoff", "options")
_FIELDS: Final = (
    *(("I", name) for name in ("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets")),
    *(("I", name) for name in ("last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv")),
    *(("I", name) for name in ("pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss")),
    *(("I", name) for name in ("reordering", "rcv_rtt", "rcv_space", "total_retrans")),
    *(("Q", name) for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
    *(("I", name) for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out")),
    *(("Q", name) for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
    *(("I", name) for name in ("delivered", "delivered_ce")),
    *(("Q", name) for name in ("bytes_sent", "bytes_retrans")),
    *(("I", name) for name in ("dsack_dups", "reord_seen", "rcv_ooopack", "snd_wnd", "rcv_wnd", "rehash")),
)
NAMES: Final = frozenset(
    f"tcpi_{name}" for name in (*_BYTES, "snd_wscale", "rcv_wscale", *(name for _, name in _FIELDS))
)
SIZE: Final = 512


def read(raw: bytes) -> dict[str, object]:
    """Every `tcpi_*` in `raw`."""
    found: dict[str, object] = {f"tcpi_{name}": raw[at] for at, name in enumerate(_BYTES)}
    found["tcpi_snd_wscale"], found["tcpi_rcv_wscale"] = raw[6] & 15, raw[6] >> 4
    at = 8
    for kind, name in _FIELDS:
        size = struct.calcsize(f"={kind}")
        if at + size > len(raw):
            break
        (found[f"tcpi_{name}"],) = struct.unpack_from(f"={kind}", raw, at)
        at += size
    return found


def of(made: socket.socket) -> dict[str, object]:
    """Every `tcpi_*` of a TCP socket; {} of another."""
    if made.type & 0xF != socket.SOCK_STREAM:
        return {}
    return read(made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE))
