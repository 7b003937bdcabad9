"""Sessions by state name: a stack's session in that state, and the peer that brought it there.

The stack is the client (an EA) unless the name says otherwise. Nothing waits to be
seen on the wire when a builder returns.
"""

from typing import Any, Final

from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address
from umuxstack.testing.builders import packed
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

SERVER_PORT: Final = 80  # that the peer listens on

Built = tuple[TcpSession, Peer]


def _is_fin(flags: str) -> bool:
    return flags in ("FA", "FPA")  # RFC 9293 3.9.1.2 leaves PSH beside FIN to the sender


def _in_state(built: Built, state: int) -> Built:
    session = built[0]
    assert session.state == state, f"the session is in {st.NAMES[session.state]}, not in {st.NAMES[state]}"
    return built


def syn_sent(wire: Wire, **peer: Any) -> Built:
    """The SYN is under way, and was seen."""
    session = wire.stack.connect(Address(packed(PEER)), SERVER_PORT, wire.now)
    remote = Peer(wire, session.local, port=SERVER_PORT, **peer)
    remote.expect("S")
    return _in_state((session, remote), st.SYN_SENT)


def syn_received(wire: Wire, ssa: Address | None = None, *, options: bytes = b"", **peer: Any) -> Built:
    """A candidate for `ssa` (one is minted if not given); its SYN-ACK was seen."""
    remote = Peer(wire, ssa or wire.minted(), **peer)
    remote.send("S", options=options)
    remote.expect("SA")
    session = next(s for s in wire.stack.sessions() if s.pair == remote.address + remote.remote)
    assert isinstance(session, TcpSession)
    return _in_state((session, remote), st.SYN_RECEIVED)


def established(wire: Wire, *, options: bytes = b"", **peer: Any) -> Built:
    """The stack connected to the peer. `options` are those of the peer's SYN-ACK."""
    session = wire.stack.connect(Address(packed(PEER)), SERVER_PORT, wire.now)
    remote = Peer(wire, session.local, port=SERVER_PORT, **peer)
    remote.accept(options)
    return _in_state((session, remote), st.ESTABLISHED)


def established_server(wire: Wire, *, options: bytes = b"", **peer: Any) -> Built:
    """The peer connected to an SSA, and the session was accepted."""
    door = wire.stack.listen(wire.now)
    assert isinstance(door, Listen0)
    remote = Peer(wire, wire.stack.das(door, wire.now).address, **peer)
    remote.connect(options)
    session = door.accept()
    assert session is not None
    return _in_state((session, remote), st.ESTABLISHED)


def close_wait(wire: Wire, **peer: Any) -> Built:
    """The peer has finished, the application has not."""
    session, remote = established(wire, **peer)
    remote.send("FA")
    remote.expect("A", ack=remote.snd_nxt, within=500_000)
    return _in_state((session, remote), st.CLOSE_WAIT)


def last_ack(wire: Wire, **peer: Any) -> Built:
    """Both have finished, the peer first; our FIN is not acknowledged yet."""
    session, remote = close_wait(wire, **peer)
    session.close(wire.now)
    remote.expect(_is_fin)
    return _in_state((session, remote), st.LAST_ACK)


def fin_wait_1(wire: Wire, *, half: bool = False, **peer: Any) -> Built:
    """The application has closed, or with `half` shut down; the FIN is not acknowledged yet."""
    session, remote = established(wire, **peer)
    if half:
        session.shutdown(wire.now)
    else:
        session.close(wire.now)
    remote.expect(_is_fin)
    return _in_state((session, remote), st.FIN_WAIT_1)


def fin_wait_2(wire: Wire, *, half: bool = False, **peer: Any) -> Built:
    """Our FIN is acknowledged, the peer may still send."""
    session, remote = fin_wait_1(wire, half=half, **peer)
    remote.send("A")
    return _in_state((session, remote), st.FIN_WAIT_2)


def closing(wire: Wire, *, half: bool = False, **peer: Any) -> Built:
    """Both closed at once; our FIN is not acknowledged yet."""
    session, remote = fin_wait_1(wire, half=half, **peer)
    remote.send("FA", ack=remote.rcv_nxt - 1)
    remote.expect("A", ack=remote.snd_nxt)
    return _in_state((session, remote), st.CLOSING)


def time_wait(wire: Wire, **peer: Any) -> Built:
    """All is finished and acknowledged; the pair still answers a FIN that comes again."""
    session, remote = fin_wait_2(wire, **peer)
    remote.send("FA")
    remote.expect("A", ack=remote.snd_nxt)
    return session, remote
