"""Personalities: whole TCP policies that behave as a known stack does where the RFCs leave a choice.

`rfc` takes each SHOULD and recommended value literally; `linux` and `freebsd` choose as those kernels do in
their default configuration. Useful to reproduce what such a host would send; the scripts of
`umux drill` are written against them.
"""

from types import MappingProxyType
from typing import Final

from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import millis, seconds

RFC: Final = TcpPolicy(
    congestion="newreno",  # RFC 5681
    rto_initial=seconds(1),  # RFC 6298 2.1
    rto_min=seconds(1),  # RFC 6298 2.4
    syn_retries=7,  # 183 s: RFC 9293 MUST-23 asks for at least 3 minutes
    delayed_ack=millis(200),  # RFC 5681 4.2: within 500 ms
    time_wait=seconds(240),  # RFC 9293 3.4.2: 2 MSL, MSL being 2 minutes
    soft_errors_abort=False,  # RFC 9293 MUST-56
    transit_errors_abort=False,
)

LINUX: Final = TcpPolicy(
    congestion="cubic",
    rto_min=millis(200),
    rto_max=seconds(120),
    rto_variance_min=millis(200),  # tcp_rto_min bounds the variance term, not the sum
    syn_retries=6,
    syn_linear_timeouts=4,
    synack_retries=5,
    retries=15,
    delayed_ack=millis(40),
    time_wait=seconds(60),
    fin_wait_2=seconds(60),
    receive_buffer=65_536,  # tcp_rmem is 131072, of which half is offered
    receive_buffer_max=6 * 1024 * 1024,
    quick_acks=16,
    delays_fin_ack=True,
    answers_early_acks=False,
    takes_beyond_window=True,
    whole_segments=True,
    fin_ends_sack=True,
    grows_by_sack=True,
    reduces_window=True,
    counts_segments=True,
    window_in_resets=True,
    resets_given_up=1,
    rack_by_sequence=True,
    checks_syn_echo=True,
    sacks_whole_segments=True,
    resets_by_ack=True,
    tolerate_missing_timestamps=True,
    remember_refusals=False,
    ecn=True,
    ecn_asks=False,  # tcp_ecn = 2
    ect_everywhere=True,
    ecn_proportional=True,
)

FREEBSD: Final = TcpPolicy(
    congestion="cubic",
    bsd_options=True,
    announce_path_mtu=True,
    rto_initial=seconds(1),
    rto_min=millis(30),
    rto_max=seconds(64),
    rto_slop=millis(200),
    syn_retries=12,
    synack_retries=3,
    retries=12,
    delayed_ack=millis(40),
    time_wait=seconds(60),
    receive_buffer=65_536,
    receive_buffer_max=2 * 1024 * 1024,
    round_receive_buffer=True,
    early_window_updates=True,
    send_buffer=32_768,
    connect_timeout=seconds(75),
    repeats_fin=True,
    soft_errors_abort=False,
    tail_loss_probe=False,
    ecn=True,
    ecn_asks=False,  # ecn.enable = 2
    ecn_syn_retries=1,
    accurate_ecn_option=False,
    ecn_validates=False,
    delays_marked=True,
    cwr_repairs=True,
    unread_resets=False,
    forward_rto=False,
    syn_fin=True,  # drop_synfin = 0
    bsd_time_wait=True,
    keepalive_count=8,
    resets_given_up=2,
)

PERSONALITIES: Final = MappingProxyType({"default": TcpPolicy(), "rfc": RFC, "linux": LINUX, "freebsd": FREEBSD})


def personality(name: str) -> TcpPolicy:
    """The policy called `name`. Raises BadArgument naming those there are."""
    policy = PERSONALITIES.get(name)
    if policy is None:
        raise BadArgument(f"no personality is called {name!r}; there are: {', '.join(PERSONALITIES)}")
    return policy
