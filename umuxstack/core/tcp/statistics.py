"""What a TCP session tells about itself."""

import attrs


@attrs.frozen(slots=True)
class TcpStatistics:
    """Times in microseconds, sizes in bytes; names after Linux's `struct tcp_info` where the meaning is the same."""

    state: str
    rto: int
    srtt: int
    rttvar: int
    min_rtt: int
    snd_mss: int
    snd_cwnd: int
    snd_ssthresh: int
    congestion: str
    in_flight: int
    unacked: int
    notsent: int
    sacked: int
    lost: int
    retransmits: int
    total_retrans: int
    snd_wnd: int
    rcv_wnd: int
    rcv_space: int
    unread: int
    timestamps: bool
    sack: bool
    ecn: bool
    syn_data: bool
    snd_wscale: int
    rcv_wscale: int
