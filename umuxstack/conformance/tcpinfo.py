"""`tcpi_*`: what a script's code asks of the connection, in Linux's units, and what a unified script may ask.

Segments and octets on the wire are counted by the runner, not by the stack.
"""

from typing import TYPE_CHECKING, Final

from umuxstack.conformance.reordering import Reordering
from umuxstack.conformance.spent import Spent
from umuxstack.conformance.symbols import LINUX_OF_NAME, LINUX_STATES, TCPI_STATES, Value
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.accurate_ecn import CE, ECT0, ECT1, INITIAL, AccurateEcn
from umuxstack.core.tcp.congestion.base import PHASES, UNLIMITED
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.tcp.tcb import IN_FLIGHT, PERSIST, Tcb

if TYPE_CHECKING:
    from umuxstack.conformance.calls import Calls
    from umuxstack.conformance.sockets import Socket

INFINITE: Final = 0x7FFFFFFF
DEFAULT_RCV_MSS: Final = 536
CONSTANTS: Final[dict[str, int]] = {
    **LINUX_STATES,
    **TCPI_STATES,
    "TCPI_OPT_TIMESTAMPS": 1,
    "TCPI_OPT_SACK": 2,
    "TCPI_OPT_WSCALE": 4,
    "TCPI_OPT_ECN": 8,
    "TCPI_OPT_ECN_SEEN": 16,
    "TCPI_OPT_SYN_DATA": 32,
    "TCPI_OPT_USEC_TS": 64,
    "TCP_CA_Open": 0,
    "TCP_CA_Disorder": 1,
    "TCP_CA_CWR": 2,
    "TCP_CA_Recovery": 3,
    "TCP_CA_Loss": 4,
    "TCP_INFINITE_SSTHRESH": INFINITE,
}
_CA: Final = {"open": 0, "recovery": 3, "loss": 4}
_CWR: Final = 2


def _path_mtu(calls: "Calls", tcb: Tcb) -> int:
    """Of the script's link: the stack's own is wider where packets are translated (siit.py)."""
    wider = 0 if calls.target.translator is None else 20
    return tcb.ctx.pmtu.get(tcb.pair[:16], calls.target.now) - wider


def of(calls: "Calls", socket: "Socket | None") -> dict[str, Value]:
    """Every `tcpi_*` that this stack can tell, of the socket's session; {} without one."""
    if socket is None:
        return {}
    if socket.session is None:
        return {"tcpi_state": LINUX_OF_NAME["LISTEN" if socket.listener is not None else "CLOSED"]}
    session = socket.session
    known = session.statistics()
    tcb = session.tcb
    mss = max(known.snd_mss, 1)
    unit = 1 if calls.bsd else mss
    ended = session.ended and session.state != st.TIME_WAIT
    # Window scale counts as an option when both sides sent it; a scale of 0 is one, too.
    scaled = tcb.policy.window_scaling and tcb.rcv_wscale > 0
    phase, window = _congestion(tcb)
    persisting = tcb.rto_kind == PERSIST
    # What was lost and sent again counts as lost until it is acknowledged.
    early = calls.target.early.get(session, 0)  # what had gone with a SYN, in vain, counts as well
    repaired = sum(
        sent.end - sent.start for sent in tcb.board if (sent.rexmit or sent.start < early) and sent.state == IN_FLIGHT
    )
    info: dict[str, Value] = {
        "tcpi_state": LINUX_OF_NAME["CLOSED" if ended else session.state_name],
        "tcpi_ca_state": phase,
        "tcpi_retransmits": 0 if persisting else known.retransmits,
        "tcpi_probes": known.retransmits if persisting else 0,
        "tcpi_backoff": known.retransmits,
        "tcpi_options": known.timestamps | known.sack << 1 | scaled << 2 | known.ecn << 3 | known.syn_data << 5,
        "tcpi_snd_wscale": max(known.snd_wscale, 0),
        "tcpi_rcv_wscale": max(known.rcv_wscale, 0),
        "tcpi_rto": known.rto << min(known.retransmits, 16),
        "tcpi_snd_mss": known.snd_mss,
        "tcpi_unacked": -(-known.unacked // mss),
        "tcpi_sacked": -(-known.sacked // mss),
        "tcpi_lost": -(-(known.lost + repaired) // mss),
        "tcpi_retrans": -(-repaired // mss),
        "tcpi_rtt": known.srtt,
        "tcpi_rttvar": known.rttvar,
        "tcpi_snd_ssthresh": INFINITE if known.snd_ssthresh >= UNLIMITED else known.snd_ssthresh // unit,
        "tcpi_snd_cwnd": window // unit,
        "tcpi_total_retrans": known.total_retrans,
        "tcpi_notsent_bytes": known.notsent,
        "tcpi_min_rtt": known.min_rtt,
        "tcpi_snd_wnd": known.snd_wnd,
        "tcpi_rcv_wnd": known.rcv_wnd,
        "tcpi_bytes_acked": max(tcb.snd_una - tcb.iss - 1, 0) if tcb.iss else 0,
        "tcpi_pmtu": _path_mtu(calls, tcb),
        # FreeBSD's and our own names
        "tcpi_snd_zerowin": 0,
        "tcpi_snd_rexmitpack": known.total_retrans,
        "tcpi_snd_nxt": tcb.snd_nxt & MASK,
        "tcpi_rcv_nxt": tcb.rcv_nxt & MASK,
    }
    if calls.bsd:  # a Linux means something else by it: what the application has come to read in a round trip
        info["tcpi_rcv_space"] = known.rcv_wnd
    return info | _observed(calls, session)


def _congestion(tcb: Tcb) -> tuple[int, int]:
    """`TCP_CA_...`, and the congestion window in octets: under PRR for marks it is what that allows, as on a Linux."""
    cc, loss = tcb.cc, tcb.loss
    window = 0 if cc is None else cc.cwnd
    phase = 0
    if loss is not None:
        if loss.steers(tcb.snd_una) and not loss.phase:
            return _CWR, loss.window
        phase = _CA[PHASES[loss.phase]] or (1 if loss.sacked or loss.dup_acks else 0)
    if not phase and cc is not None and tcb.cwr_due:
        phase = _CWR
    return phase, window


def _observed(calls: "Calls", session: TcpSession) -> dict[str, Value]:
    """What the runner has counted and timed itself."""
    target = calls.target
    segments = target.segments
    mss = session.statistics().snd_mss
    spent = target.spent.get(session, Spent())
    order = target.orders.get(session, Reordering())
    return {
        "tcpi_segs_out": segments["out"],
        "tcpi_segs_in": segments["in"],
        "tcpi_data_segs_out": segments["data_out"],
        "tcpi_bytes_sent": segments["bytes_out"],
        "tcpi_bytes_received": _received(calls, session.tcb.rcv_nxt),
        "tcpi_rcv_mss": min(target.largest_in or DEFAULT_RCV_MSS, mss),
        "tcpi_advmss": min(target.mtu - (40 if target.ipv4 else 60), session.policy.mss or target.mtu),
        "tcpi_last_data_recv": (target.now - target.data_in_at) // 1000,
        "tcpi_reordering": order.degree,
        "tcpi_reord_seen": order.seen,
        "tcpi_delivered": order.delivered + (session.state >= st.ESTABLISHED),
        **_marks(session.tcb.accurate),
        "tcpi_busy_time": spent.busy,
        "tcpi_rwnd_limited": spent.window,
        "tcpi_sndbuf_limited": spent.buffer,
    }


def _marks(accurate: AccurateEcn | None) -> dict[str, Value]:
    """What was counted of marks (RFC 9768), without the counters' first values."""
    if accurate is None:
        return {}
    sent, came = accurate.s_bytes, accurate.r_bytes
    return {
        "tcpi_delivered_ce": accurate.s_packets - INITIAL,
        "tcpi_received_ce": accurate.r_packets - INITIAL,
        "tcpi_delivered_e1_bytes": sent[ECT1],
        "tcpi_delivered_e0_bytes": sent[ECT0],
        "tcpi_delivered_ce_bytes": sent[CE],
        "tcpi_received_e1_bytes": came[ECT1],
        "tcpi_received_e0_bytes": came[ECT0],
        "tcpi_received_ce_bytes": came[CE],
    }


def _received(calls: "Calls", rcv_nxt: int) -> int:
    flow = calls.target.flow
    return 0 if flow is None or flow.live_remote is None else max((rcv_nxt - flow.live_remote - 1) & 0xFFFFFFFF, 0)


def of_stack(calls: "Calls") -> dict[str, object]:
    """What a script of ours may ask beside: drops, leases, pool, doors, counters, by name."""
    stack = calls.target.stack
    snapshot = stack.counters.snapshot()
    names = {calls.target.to_stack(address): name for name, address in calls.target.names.items()}
    return {
        "drop": {key[5:]: value for key, value in snapshot.items() if key.startswith("drop.")},
        "counter": {key: value for key, value in snapshot.items() if not key.startswith("drop.")},
        "lease": {names.get(lease.address, lease.name): _state_name(lease) for lease in stack.leases()},
        "pool": stack.pool_statistics(),
        "waiting": [names.get(door.lease.address, door.lease.name) for door in stack.doors()],
        "sessions": len(list(stack.sessions())),
        "records": sum(len(queue) for queue in stack._ctx.quiet.values()),
        "memory": stack.memory_used(),
        "telescope": {names.get(source, source.hex()): count for source, count in stack.telescope()},
        "leftovers": stack.leftovers(),
    }


def _state_name(lease: object) -> str:
    name = getattr(lease, "state_name", None)
    if isinstance(name, str):
        return name
    from umuxstack.core.address.lease import STATE_NAMES

    return str(STATE_NAMES[lease.state])  # type: ignore[attr-defined]
