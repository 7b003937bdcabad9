"""What the control socket shows of the core's objects: rows, made page by page while the client reads.

Keeps UM-34: the address of an SSA that waits for somebody leaves only by
`das add`, `das list`, or where the client asked for it. Changes nothing.
"""

import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from umuxstack.control.messages import (
    ANY_LENGTH,
    EventRow,
    Figure,
    Knock,
    LeaseRow,
    ListenerRow,
    PoolRow,
    SessionRow,
    Status,
    Waiter,
)
from umuxstack.control.protocol import printable
from umuxstack.core.address.lease import EA, SHARED
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.events import Event
from umuxstack.core.legacy.ports import PortListener
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.listener import Listener
from umuxstack.core.listen.service import ServiceListener
from umuxstack.core.listen.states import WAITING
from umuxstack.core.stack import AnySession, Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.tcp.state import SYN_RECEIVED
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import NEVER, UNSPECIFIED, Address, Micros
from umuxstack.driver.runtime import Host

_WORD: Final = 24
_NAME: Final = 96
_LABEL: Final = 128


def status(host: Host, name: str, link_name: str) -> Status:
    config, stack = host.config, host.stack
    return Status(
        prefix=config.prefix,
        prefix_length=config.prefix_length,
        fixed_port=config.fixed_port,
        silence=config.silence,
        up=host.link_state.up,
        mtu=config.link.mtu,
        segmentation=config.link.segmentation,
        checksum=config.link.checksum,
        uptime=host.now(),
        sessions=sum(1 for _ in stack.sessions()),
        listeners=len(stack.listeners()),
        leases=sum(1 for _ in stack.leases()),
        memory_used=stack.memory_used(),
        memory_limit=config.memory,
        name=printable(name, _NAME),
        link=printable(link_name, _NAME),
        scheme=printable(config.scheme, _WORD),
        congestion=printable(config.tcp.congestion, _WORD),
        version=printable(version("umuxstack"), _WORD),
    )


def listener(door: Listener | UdpSocket) -> ListenerRow:
    if isinstance(door, UdpSocket):
        kind, backlog, queued, waiting, address = "UDP", 0, len(door.queue), len(door.doors), door.address
    else:
        kind, backlog, queued = door.kind, door.backlog, len(door.queue)
        waiting = len(door.children) if isinstance(door, Listen0) else 0
        address = None
        if isinstance(door, ServiceListener):
            address = door.lease.address
        elif isinstance(door, PortListener):
            address = door.mux.address
    return ListenerRow(
        id=door.id,
        address=address or UNSPECIFIED,
        port=door.port,
        backlog=backlog,
        queued=queued,
        waiting=waiting,
        name=printable(door.name, _NAME),
        kind=kind,
    )


def listeners(stack: Stack) -> Iterator[ListenerRow]:
    return (listener(door) for door in stack.listeners())


def waiter(door: ListenU | UdpDoor, now: Micros, *, reveal: bool) -> Waiter:
    hidden = not reveal and door.state == WAITING
    return Waiter(
        lease_id=door.lease.id,
        address=UNSPECIFIED if hidden else door.lease.address,
        peer=UNSPECIFIED if door.peer is None else door.peer[0],
        peer_length=ANY_LENGTH if door.peer is None else door.peer[1],
        expires=NEVER if door.expires >= NEVER else Micros(max(0, door.expires - now)),
        candidates=len(door.candidates) if isinstance(door, ListenU) else 0,
        port=door.parent.port,
        name=printable(door.lease.name, _NAME),
        listener=printable(door.parent.name, _NAME),
        state=door.state_name,
        grain=door.grain,
        label=printable(door.lease.label, _LABEL),
    )


def waiters(stack: Stack, now: Micros, *, reveal: bool) -> Iterator[Waiter]:
    return (waiter(door, now, reveal=reveal) for door in stack.doors())


def _unseen(stack: Stack) -> set[bytes]:
    """The addresses that wait for somebody and were not found yet."""
    return {door.lease.address for door in stack.doors() if door.state == WAITING}


def leases(stack: Stack, now: Micros, *, reveal: bool) -> Iterator[LeaseRow]:
    unseen = set() if reveal else _unseen(stack)
    for lease in stack.leases():
        yield LeaseRow(
            id=lease.id,
            address=UNSPECIFIED if lease.address in unseen else lease.address,
            hidden=lease.address in unseen,
            age=Micros(now - lease.opened),
            name=printable(lease.name, _NAME),
            kind=lease.kind,
            state=lease.state_name,
            grain=lease.grain,
            label=printable(lease.label, _LABEL),
        )


def sessions(stack: Stack) -> Iterator[SessionRow]:
    unseen = _unseen(stack)
    return (_session(session, hidden=session.local in unseen) for session in stack.sessions())


def _session(session: AnySession, *, hidden: bool) -> SessionRow:
    lease = session.lease
    protocol, state, role = "udp", "OPEN", "client" if lease.kind == EA else "server"
    tcp = session.statistics() if isinstance(session, TcpSession) else None
    if isinstance(session, TcpSession):
        protocol, state = "tcp", session.state_name
        if lease.kind == SHARED and session.door is None and session.state != SYN_RECEIVED:
            role = "client"
    elif isinstance(session, EchoSession):
        protocol, role = "echo", "client"
    return SessionRow(
        local=UNSPECIFIED if hidden else session.local,
        remote=session.remote,
        local_port=session.local_port,
        remote_port=session.remote_port,
        receive_queue=tcp.unread if tcp else 0,
        send_queue=tcp.unacked + tcp.notsent if tcp else 0,
        srtt=Micros(tcp.srtt if tcp else 0),
        rttvar=Micros(tcp.rttvar if tcp else 0),
        min_rtt=Micros(tcp.min_rtt if tcp else 0),
        rto=Micros(tcp.rto if tcp else 0),
        mss=tcp.snd_mss if tcp else 0,
        cwnd=_window(tcp.snd_cwnd) if tcp else 0,
        ssthresh=_window(tcp.snd_ssthresh) if tcp else 0,
        in_flight=tcp.in_flight if tcp else 0,
        lost=tcp.lost if tcp else 0,
        retransmitted=tcp.total_retrans if tcp else 0,
        send_window=tcp.snd_wnd if tcp else 0,
        receive_window=tcp.rcv_wnd if tcp else 0,
        send_scale=tcp.snd_wscale if tcp else 0,
        receive_scale=tcp.rcv_wscale if tcp else 0,
        sack=tcp.sack if tcp else False,
        timestamps=tcp.timestamps if tcp else False,
        ecn=tcp.ecn if tcp else False,
        protocol=protocol,
        state=printable(state, _WORD),
        lease=printable(lease.name, _NAME),
        kind=lease.kind,
        grain=printable(lease.grain, _WORD),
        role=role,
        congestion=printable(tcp.congestion, _WORD) if tcp else "",
        label=printable(lease.label, _LABEL),
    )


def _window(size: float) -> int:
    """A window as a field can hold it: a user's congestion control sets it, to what it likes. No limit is 0."""
    return int(size) if 0 <= size < NEVER else 0


def pool(stack: Stack) -> PoolRow:
    figures = stack.pool_statistics()
    return PoolRow(
        level=figures.level,
        low=figures.low,
        high=figures.high,
        hits=figures.hits,
        misses=figures.misses,
        issued=figures.issued,
        scheme=printable(figures.scheme, _WORD),
    )


def figures(stack: Stack) -> Iterator[Figure]:
    return (Figure(value=value, name=printable(name, _NAME)) for name, value in stack.counters.snapshot().items())


def knocks(stack: Stack, now: Micros) -> Iterator[Knock]:
    return (
        Knock(source=one.source, packets=one.packets, age=Micros(now - one.first), quiet=Micros(now - one.last))
        for one in stack.knocks()
    )


def event(host: Host, happened: Event, lost: int, *, reveal: bool) -> EventRow:
    address = happened.address
    if address is None or (not reveal and address in _unseen(host.stack)):
        address = UNSPECIFIED
    since_1970 = int(time.time() * 1e6) - (host.now() - happened.time)
    return EventRow(
        time=Micros(since_1970),
        address=address,
        peer=happened.peer or UNSPECIFIED,
        reason=happened.reason,
        lost=lost,
        kind=printable(happened.kind, _WORD),
        name=printable(happened.name, _NAME),
        label=printable(happened.label, _LABEL),
    )


def lease_name(stack: Stack, what: Address | str) -> str:
    """The name by which logs may call a lease that a client gave by address or by name (UM-34)."""
    if isinstance(what, str):
        return what
    return next((lease.name for lease in stack.leases() if lease.address == what), "(none)")
