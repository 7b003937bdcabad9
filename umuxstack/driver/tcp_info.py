"""Linux's `struct tcp_info`, as `getsockopt(TCP_INFO)` gives it, out of a session's statistics.

The first 104 bytes, which every kernel since 2.6 has. Times are microseconds.
What this stack does not keep is 0.
"""

import struct
from typing import Final

from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession

TCP_INFO: Final = struct.Struct("=8B24I")

# <net/tcp_states.h>
LINUX_STATE: Final[dict[int, int]] = {
    st.ESTABLISHED: 1,
    st.SYN_SENT: 2,
    st.SYN_RECEIVED: 3,
    st.FIN_WAIT_1: 4,
    st.FIN_WAIT_2: 5,
    st.TIME_WAIT: 6,
    st.CLOSED: 7,
    st.CLOSE_WAIT: 8,
    st.LAST_ACK: 9,
    st.LISTEN: 10,
    st.CLOSING: 11,
}
OPTION_TIMESTAMPS: Final = 1
OPTION_SACK: Final = 2
OPTION_WINDOW_SCALE: Final = 4
OPTION_ECN: Final = 8


def tcp_info(session: TcpSession) -> bytes:
    """`struct tcp_info` of `session`; segments where Linux counts segments."""
    known = session.statistics()
    mss = max(known.snd_mss, 1)
    scaled = known.snd_wscale > 0 or known.rcv_wscale > 0
    options = (
        OPTION_TIMESTAMPS * known.timestamps
        | OPTION_SACK * known.sack
        | OPTION_WINDOW_SCALE * scaled
        | OPTION_ECN * known.ecn
    )
    return TCP_INFO.pack(
        LINUX_STATE[session.state],
        0,  # ca_state
        min(known.retransmits, 255),
        0,  # probes
        0,  # backoff
        options,
        max(known.snd_wscale, 0) | max(known.rcv_wscale, 0) << 4,
        0,  # delivery_rate_app_limited, fastopen_client_fail
        known.rto,
        0,  # ato
        known.snd_mss,
        known.snd_mss,  # rcv_mss: the path is taken to be the same
        -(-known.unacked // mss),
        -(-known.sacked // mss),
        -(-known.lost // mss),
        0,  # retrans: retransmitted and still in flight
        0,  # fackets
        0,  # last_data_sent
        0,  # last_ack_sent
        0,  # last_data_recv
        0,  # last_ack_recv
        0,  # pmtu
        known.rcv_space,  # rcv_ssthresh
        known.srtt,
        known.rttvar,
        min(-(-known.snd_ssthresh // mss), 0x7FFFFFFF),
        known.snd_cwnd // mss,
        known.snd_mss,  # advmss
        3,  # reordering: Linux's default, RACK needs none
        0,  # rcv_rtt
        known.rcv_space,
        min(known.total_retrans, 0xFFFFFFFF),
    )
