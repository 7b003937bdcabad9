"""System calls that make, name and end sockets; what all calls share.

A call that may block is a generator: it yields the time until which it may sleep, and returns its result. Others
return it at once. Either raises CallError. What it hands back (addresses, lengths, structs) is compared here with
what the script says.
"""

import errno
import socket as stdlib
from collections.abc import Callable
from typing import Final

from umuxstack.conformance.addresses import address_of
from umuxstack.conformance.ends import HERE, PEERS
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.script import SystemCall
from umuxstack.conformance.sockets import CallError, Socket, Table
from umuxstack.conformance.subject import Steps
from umuxstack.conformance.symbols import ANY, OWN, Value, evaluate
from umuxstack.conformance.target import Target
from umuxstack.core.errors import LocalError, Reason
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Address, Micros
from umuxstack.driver.errno_map import local_error


def number(value: Value, default: int = 0) -> int:
    return value if isinstance(value, int) else default


FAST_CONNECT: Final = (stdlib.IPPROTO_TCP, OWN["TCP_FASTOPEN_CONNECT"])


class NamingCalls:
    """All sockets of one script."""

    def __init__(
        self,
        target: Target,
        *,
        bind_port: int,
        connect_port: int,
        doubles_buffers: bool,
        errnos: dict[Reason, int] | None = None,
        bsd: bool = False,
        tolerance: Micros = Micros(4000),  # noqa: B008
    ) -> None:
        self.target = target
        self.tolerance = tolerance  # of timestamps
        self.bsd = bsd  # TCP_INFO tells windows in octets; accept() hands down who does not block
        self.table = Table(errnos or {})
        self.bind_port = bind_port
        self.connect_port = connect_port
        self.doubles_buffers = doubles_buffers  # SO_RCVBUF and SO_SNDBUF read back twice what was set (Linux)
        self.current: Socket | None = None  # the last one that was made or used
        self.started: Micros = target.now
        self.began: Micros = target.now  # the script

    def start(self, call: SystemCall) -> Steps:
        """The call, not yet begun. Raises UnsupportedConstruct."""
        handler: Callable[..., Steps | int] | None = getattr(self, f"call_{call.name}", None)
        if handler is None:
            raise UnsupportedConstruct(f"system call {call.name}")
        arguments = [evaluate(argument) for argument in call.arguments]
        self.started = self.target.now
        return self._guarded(handler, arguments)

    def _guarded(self, handler: Callable[..., Steps | int], arguments: list[Value]) -> Steps:
        try:
            result = handler(*arguments)
            return result if isinstance(result, int) else (yield from result)
        except LocalError as error:
            raise CallError(local_error(error).errno or errno.EINVAL) from None
        except TypeError as error:
            if handler.__name__ in str(error):
                raise UnsupportedConstruct(f"arguments of {handler.__name__[5:]}") from None
            raise

    def _socket(self, descriptor: Value) -> Socket:
        socket = self.table.get(descriptor)
        if socket.kind in ("stream", "datagram"):
            self.current = socket
        return socket

    # Making and naming

    def call_socket(self, domain: Value, kind: Value, protocol: Value) -> int:
        plain = number(kind) & 0xF
        if plain not in (stdlib.SOCK_STREAM, stdlib.SOCK_DGRAM):
            raise UnsupportedConstruct(f"socket type {plain}")
        if number(protocol) not in (0, stdlib.IPPROTO_TCP, stdlib.IPPROTO_UDP):
            raise UnsupportedConstruct(f"protocol {number(protocol)}")
        if number(protocol) not in (0, stdlib.IPPROTO_TCP if plain == stdlib.SOCK_STREAM else stdlib.IPPROTO_UDP):
            raise CallError(errno.EPROTONOSUPPORT)
        socket = self.table.open("stream" if plain == stdlib.SOCK_STREAM else "datagram")
        socket.blocking = not number(kind) & stdlib.SOCK_NONBLOCK
        if self.target.flow is not None and self.target.session_of(self.target.flow) is None:
            self.target.flow = None  # whatever comes now belongs to a new connection
        self.current = socket
        return socket.descriptor

    def call_bind(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        socket = self._socket(descriptor)
        if socket.bound is not None:
            raise CallError(errno.EINVAL)
        host, port = self._address(address, None if self.target.unified else HERE, self.bind_port)
        if host is not None and host in PEERS.values():
            raise CallError(errno.EADDRNOTAVAIL)
        if socket.kind == "stream" and any(
            other.listener is not None and other.bound is not None and other.bound[1] == port for other in self.table
        ):
            raise CallError(errno.EADDRINUSE)
        socket.bound = (host, port)
        if socket.kind == "datagram":
            socket.udp = self.target.stack.udp(self.target.now, address=host, port=port)
        return 0

    def _address(self, given: Value, default: Address | None, port: int) -> tuple[Address | None, int]:
        host, port = address_of(given, default, port, self.target.meaning, None if self.target.unified else HERE)
        return None if host is None else Address(host), port

    def call_listen(self, descriptor: Value, backlog: Value) -> int:
        socket = self._socket(descriptor)
        if socket.session is not None:
            raise CallError(errno.EINVAL)
        if socket.listener is not None:
            socket.listener.backlog = max(number(backlog), 1)
            return 0
        host, port = socket.bound or (None if self.target.unified else HERE, 0)
        # A vendor's backlog of n admits n + 1 (Linux) or 3n/2 (FreeBSD); none of the scripts counts on the limit.
        places = max(number(backlog), 1) + (0 if self.target.unified else 1)
        socket.listener = self.target.stack.listen(
            self.target.now, address=host, port=port, backlog=places, name=f"fd{socket.descriptor}"
        )
        self._apply_policy(socket)
        if host is not None:
            self.target.flow = None
        return 0

    def _apply_policy(self, socket: Socket) -> None:
        if socket.listener is not None:
            import attrs

            # The stack's own, if nothing was changed: sessions with another never sleep.
            changed = attrs.evolve(self.target.policy, **socket.policy) if socket.policy else self.target.policy  # type: ignore[arg-type]
            socket.listener.set_policy(changed)

    def call_accept(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        listener = socket.listener
        if listener is None:
            raise CallError(errno.EINVAL)
        while True:
            session = listener.accept()
            if session is not None:
                break
            if listener.closed:
                raise CallError(errno.EINVAL)
            if not socket.blocking:
                raise CallError(errno.EAGAIN)
            yield NEVER
        accepted = self.table.open("stream")
        accepted.session = session
        accepted.bound = socket.bound
        accepted.blocking = socket.blocking or not self.bsd
        accepted.policy = dict(socket.policy)
        accepted.remembered = dict(socket.remembered)
        self.current = accepted
        return accepted.descriptor

    def call_accept4(self, descriptor: Value, address: Value, length: Value, flags: Value) -> Steps:
        result = yield from self.call_accept(descriptor, address, length)
        self.table.get(result).blocking = not number(flags) & stdlib.SOCK_NONBLOCK
        return result

    def call_connect(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        host, port = self._address(address, PEERS["peer"], self.connect_port)
        if isinstance(address, int):
            return self._disconnect(socket)
        if host is None:
            raise UnsupportedConstruct("AF_UNSPEC")
        if socket.kind == "datagram":
            if socket.udp is None:
                socket.udp = self.target.stack.udp(self.target.now, address=None if self.target.unified else HERE)
            socket.udp.connect(host, port, self.target.now)
            self.target.begin(socket.udp.address or HERE, socket.udp.port, host, port)
            return 0
        if socket.listener is not None:
            raise CallError(errno.EISCONN)
        if socket.deferred is not None:
            raise CallError(errno.EISCONN)
        if socket.session is None:
            if socket.remembered.get(FAST_CONNECT) and self.target.room_in_syn(host, socket.policy.get("mss")):  # type: ignore[arg-type]
                socket.deferred = (host, port)
                return 0
            self._open(socket, host, port)
        elif not socket.connecting:
            raise CallError(socket.take_error() or errno.EISCONN)
        elif not socket.blocking and not socket.established and not socket.session.ended:
            raise CallError(errno.EALREADY)
        session = socket.session
        assert session is not None
        while not session.established and not session.ended:
            if not socket.blocking:
                raise CallError(errno.EINPROGRESS)
            yield NEVER
        socket.connecting = False
        problem = socket.take_error()
        if problem:
            raise CallError(problem)
        return 0

    def _disconnect(self, socket: Socket) -> int:
        """To connect to nothing at all (AF_UNSPEC) ends what there is at once; the socket may connect again."""
        if socket.kind != "stream" or socket.listener is not None:
            raise UnsupportedConstruct("AF_UNSPEC")
        if socket.session is not None:
            socket.session.abort(self.target.now)
        socket.session, socket.connecting, socket.told, socket.queue = None, False, False, None
        return 0

    def _open(self, socket: Socket, host: Address, port: int, early: bytes = b"") -> TcpSession:
        import attrs

        target = self.target
        policy = attrs.evolve(target.policy, **socket.policy)  # type: ignore[arg-type]
        if target.unified and (socket.bound is None or socket.bound[0] is None):
            socket.session = target.connect_from_ea(host, port, policy if socket.policy else None)
            target.names.setdefault("ea", socket.session.local)
        else:
            local_port = 0 if socket.bound is None else socket.bound[1]
            source = HERE if socket.bound is None or socket.bound[0] is None else socket.bound[0]
            socket.session = target.connect(host, port, source, local_port, policy, socket.ports, early)
        socket.connecting = True
        session = socket.session
        target.written[session] = len(early)
        target.begin(session.local, session.local_port, host, session.remote_port)
        return session

    def call_close(self, descriptor: Value) -> int:
        socket = self.table.get(descriptor)
        now = self.target.now
        if socket.session is not None:
            if socket.linger[0] and not socket.linger[1]:
                socket.session.abort(now)
            else:
                socket.session.close(now)
        if socket.listener is not None:
            socket.listener.close(now)
        if socket.udp is not None:
            socket.udp.close(now)
        self.table.close(socket)
        return 0

    def call_shutdown(self, descriptor: Value, how: Value) -> int:
        socket = self._socket(descriptor)
        session = socket.session
        if session is None or session.ended or (not session.established and session.state < 3):
            raise CallError(errno.ENOTCONN)
        if how in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            socket.read_shut = True
        if how in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            session.shutdown(self.target.now)
        return 0
