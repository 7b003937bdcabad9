"""The system calls of scripts, on the stack under test.

A call is a generator: it yields the time until which it may sleep while it would block, and returns its result, or
raises CallError. What it hands back (addresses, lengths, structs) is compared here with what the script says.
"""

import errno
import fcntl
import os
import socket as stdlib
from collections.abc import Callable, Generator
from typing import Final

from umuxstack.conformance import polling, sockopt
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.script import SystemCall
from umuxstack.conformance.sockets import CallError, Socket, Table
from umuxstack.conformance.symbols import ANY, OWN, Value, evaluate
from umuxstack.conformance.target import HERE, PEERS, Target
from umuxstack.core.errors import LocalError, SessionClosed
from umuxstack.core.units import NEVER, Address, Micros
from umuxstack.driver.errno_map import local_error

Steps = Generator[Micros, None, int]

_UNSUPPORTED_FLAGS: Final = {
    OWN["MSG_FASTOPEN"]: "TCP Fast Open",
    OWN["MSG_ZEROCOPY"]: "MSG_ZEROCOPY",
    stdlib.MSG_ERRQUEUE: "MSG_ERRQUEUE",
    stdlib.MSG_PEEK: "MSG_PEEK",
    OWN["MSG_MORE"]: "MSG_MORE",
}


def number(value: Value, default: int = 0) -> int:
    return value if isinstance(value, int) else default


class Calls:
    """All sockets of one script."""

    def __init__(self, target: Target, *, bind_port: int, connect_port: int, doubles_buffers: bool) -> None:
        self.target = target
        self.table = Table()
        self.bind_port = bind_port
        self.connect_port = connect_port
        self.doubles_buffers = doubles_buffers  # SO_RCVBUF and SO_SNDBUF read back twice what was set (Linux)
        self.current: Socket | None = None  # the last one that was made or used
        self.started: Micros = target.now

    def start(self, call: SystemCall) -> Steps:
        """The call, not yet begun. Raises UnsupportedConstruct."""
        handler: Callable[..., Steps] | None = getattr(self, f"call_{call.name}", None)
        if handler is None:
            raise UnsupportedConstruct(f"system call {call.name}")
        arguments = [evaluate(argument) for argument in call.arguments]
        self.started = self.target.now
        return self._guarded(handler, arguments)

    def _guarded(self, handler: Callable[..., Steps], arguments: list[Value]) -> Steps:
        try:
            return (yield from handler(*arguments))
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

    def call_socket(self, domain: Value, kind: Value, protocol: Value) -> Steps:
        plain = number(kind) & 0xF
        if plain not in (stdlib.SOCK_STREAM, stdlib.SOCK_DGRAM):
            raise UnsupportedConstruct(f"socket type {plain}")
        if number(protocol) not in (0, stdlib.IPPROTO_TCP, stdlib.IPPROTO_UDP):
            raise UnsupportedConstruct(f"protocol {number(protocol)}")
        socket = self.table.open("stream" if plain == stdlib.SOCK_STREAM else "datagram")
        socket.blocking = not number(kind) & stdlib.SOCK_NONBLOCK
        if self.target.flow is not None and self.target.session_of(self.target.flow) is None:
            self.target.flow = None  # whatever comes now belongs to a new connection
        self.current = socket
        return socket.descriptor
        yield

    def call_bind(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> Steps:
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
        yield

    def _address(self, given: Value, default: Address | None, port: int) -> tuple[Address | None, int]:
        """An address as a script writes it; the names of the vendors' test network mean the two ends here."""
        if not isinstance(given, dict):
            return default, port
        host = default
        family = given.get("sa_family")
        if family == stdlib.AF_UNSPEC:
            raise UnsupportedConstruct("AF_UNSPEC")
        for key in ("sin_port", "sin6_port"):
            port = number(given.get(key, port), port)
        for key in ("sin_addr", "sin6_addr"):
            value = given.get(key)
            if isinstance(value, bytes) and value.decode() in self.target.names:
                host = self.target.names[value.decode()]
            elif isinstance(value, bytes) and value in (b"0.0.0.0", b"::"):
                host = None if self.target.unified else HERE
            elif isinstance(value, bytes):
                host = self._known_host(value.decode(), default)
        return host, port

    def _known_host(self, text: str, default: Address | None) -> Address | None:
        from ipaddress import ip_address

        try:
            address = ip_address(text)
        except ValueError:
            raise CallError(errno.EINVAL) from None
        if address.version == 6 and Address(address.packed) in (HERE, *self.target.names.values()):
            return Address(address.packed)
        if address.is_multicast or str(address) == "255.255.255.255":
            return Address(b"\xff\x0e" + bytes(13) + b"\1")
        return default

    def call_listen(self, descriptor: Value, backlog: Value) -> Steps:
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
        yield

    def _apply_policy(self, socket: Socket) -> None:
        if socket.listener is not None:
            import attrs

            socket.listener.policy = attrs.evolve(self.target.policy, **socket.policy)  # type: ignore[arg-type]

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
        if host is None or isinstance(address, int):
            raise UnsupportedConstruct("AF_UNSPEC")
        if socket.kind == "datagram":
            if socket.udp is None:
                socket.udp = self.target.stack.udp(self.target.now, address=None if self.target.unified else HERE)
            socket.udp.connect(host, port, self.target.now)
            self.target.flow = self.target.open_flow(socket.udp.address or HERE, socket.udp.port, host, port)
            return 0
        if socket.listener is not None:
            raise CallError(errno.EISCONN)
        if socket.session is None:
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

    def _open(self, socket: Socket, host: Address, port: int) -> None:
        import attrs

        target = self.target
        policy = attrs.evolve(target.policy, **socket.policy)  # type: ignore[arg-type]
        if target.unified and (socket.bound is None or socket.bound[0] is None):
            socket.session = target.connect_from_ea(host, port)
            if socket.policy:
                socket.session.configure(**socket.policy)
            target.names.setdefault("ea", socket.session.local)
        else:
            local_port = 0 if socket.bound is None else socket.bound[1]
            source = HERE if socket.bound is None or socket.bound[0] is None else socket.bound[0]
            socket.session = target.connect(host, port, source, local_port, policy)
        socket.connecting = True
        session = socket.session
        target.flow = target.open_flow(session.local, session.local_port, host, session.remote_port)

    def call_close(self, descriptor: Value) -> Steps:
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
        yield

    def call_shutdown(self, descriptor: Value, how: Value) -> Steps:
        socket = self._socket(descriptor)
        session = socket.session
        if session is None or session.ended or (not session.established and session.state < 3):
            raise CallError(errno.ENOTCONN)
        if how in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            socket.read_shut = True
        if how in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            session.shutdown(self.target.now)
        return 0
        yield

    # Data out

    def _send(self, socket: Socket, size: int, flags: int, to: tuple[Address | None, int] | None = None) -> Steps:
        for flag, construct in _UNSUPPORTED_FLAGS.items():
            if flags & flag:
                raise UnsupportedConstruct(construct)
        if socket.kind == "datagram":
            if socket.udp is None:
                socket.udp = self.target.stack.udp(self.target.now, address=None if self.target.unified else HERE)
            known = None if to is None or to[0] is None else (to[0], to[1])
            if socket.udp.connected is None and getattr(socket.udp.binding, "peer", None) is None:
                host, port = known or (PEERS["peer"], self.connect_port)
                known = (host, port)
                if self.target.flow is None and socket.udp.address is not None:
                    self.target.flow = self.target.open_flow(socket.udp.address, socket.udp.port, host, port)
            socket.udp.send(bytes(size), self.target.now, to=known)
            return size
        session = socket.session
        if session is None:
            raise CallError(errno.ENOTCONN if socket.listener is None else errno.EPIPE)
        blocking = socket.blocking and not flags & stdlib.MSG_DONTWAIT
        done = 0
        while True:
            problem = socket.take_error()
            if problem:
                if done:
                    return done
                raise CallError(problem)
            if not session.established and not session.ended:
                if not blocking:
                    raise CallError(errno.EAGAIN)
                yield NEVER
                continue
            try:
                write = session.write_urgent if flags & stdlib.MSG_OOB else session.write
                done += write(bytes(size - done), self.target.now) if size else 0
            except SessionClosed:
                raise CallError(errno.EPIPE) from None
            if done >= size:
                return done
            if not blocking:
                if done:
                    return done
                raise CallError(errno.EAGAIN)
            yield NEVER

    @staticmethod
    def _buffer(buffer: Value, size: Value) -> int:
        if buffer == 0 and number(size):
            raise CallError(errno.EFAULT)
        return number(size)

    def call_write(self, descriptor: Value, buffer: Value, size: Value) -> Steps:
        socket = self._socket(descriptor)
        return (yield from self._send(socket, self._buffer(buffer, size), 0))

    def call_send(self, descriptor: Value, buffer: Value, size: Value, flags: Value) -> Steps:
        socket = self._socket(descriptor)
        return (yield from self._send(socket, self._buffer(buffer, size), number(flags)))

    def call_sendto(
        self, descriptor: Value, buffer: Value, size: Value, flags: Value, address: Value = ANY, length: Value = ANY
    ) -> Steps:
        socket = self._socket(descriptor)
        to = self._address(address, PEERS["peer"], self.connect_port) if isinstance(address, dict) else None
        return (yield from self._send(socket, self._buffer(buffer, size), number(flags), to))

    @staticmethod
    def _vector(vector: Value) -> int:
        if vector == 0:
            raise CallError(errno.EFAULT)
        if not isinstance(vector, list):
            raise UnsupportedConstruct("an iovec that is no array")
        total = 0
        for entry in vector:
            values = list(entry.values()) if isinstance(entry, dict) else []
            if not values:
                raise UnsupportedConstruct("an iovec entry of another form")
            if values[0] == 0 and number(values[-1]):
                raise CallError(errno.EFAULT)
            total += number(values[-1])
        return total

    def call_writev(self, descriptor: Value, vector: Value, count: Value) -> Steps:
        return (yield from self._send(self._socket(descriptor), self._vector(vector), 0))

    def call_sendmsg(self, descriptor: Value, message: Value, flags: Value) -> Steps:
        if not isinstance(message, dict):
            raise UnsupportedConstruct("a message that is no struct")
        if message.get("msg_control") not in (None, ANY, 0):
            raise UnsupportedConstruct("msg_control on sending")
        return (
            yield from self._send(self._socket(descriptor), self._vector(message.get("msg_iov", [])), number(flags))
        )

    def call_sendfile(self, out: Value, source: Value, offset: Value, size: Value) -> Steps:
        file = self.table.get(source)
        start = number(offset[0]) if isinstance(offset, list) and offset else 0
        count = max(0, min(number(size), file.size - start)) if file.size else number(size)
        return (yield from self._send(self._socket(out), count, 0))

    def call_open(self, path: Value, flags: Value, mode: Value = 0) -> Steps:
        return self.table.open("file").descriptor
        yield

    # Data in

    def _receive(self, socket: Socket, size: int, flags: int) -> Steps:
        for flag, construct in _UNSUPPORTED_FLAGS.items():
            if flags & flag:
                raise UnsupportedConstruct(construct)
        blocking = socket.blocking and not flags & stdlib.MSG_DONTWAIT
        if socket.kind == "datagram":
            while socket.udp is not None:
                datagram = socket.udp.receive_datagram()
                if datagram is not None:
                    return min(len(datagram.data), size)
                reason = socket.udp.take_error()
                if reason:
                    from umuxstack.driver.errno_map import REASON_ERRNO

                    raise CallError(REASON_ERRNO[reason])
                if not blocking:
                    raise CallError(errno.EAGAIN)
                yield NEVER
            raise CallError(errno.ENOTCONN)
        session = socket.session
        if session is None or (socket.connecting and not session.established and not session.ended and not blocking):
            raise CallError(errno.ENOTCONN if session is None else errno.EAGAIN)
        if flags & stdlib.MSG_OOB:
            urgent = session.read_urgent()
            if not urgent:
                raise CallError(errno.EAGAIN if session.urgent_pending else errno.EINVAL)
            return len(urgent)
        want = size if flags & stdlib.MSG_WAITALL else 1
        done = 0
        while size:
            chunk = session.read(size - done, self.target.now)
            while chunk:
                done += len(chunk)
                chunk = (
                    session.read(size - done, self.target.now) if done < size and not session.urgent_pending else b""
                )
            if done >= min(want, size):
                return done
            problem = 0 if done else socket.take_error()
            if problem:
                raise CallError(problem)
            if session.eof or socket.read_shut:
                return done
            if not blocking:
                if done:
                    return done
                raise CallError(errno.EAGAIN)
            yield NEVER
        return done

    def call_read(self, descriptor: Value, buffer: Value, size: Value) -> Steps:
        socket = self._socket(descriptor)
        return (yield from self._receive(socket, self._buffer(buffer, size), 0))

    def call_recv(self, descriptor: Value, buffer: Value, size: Value, flags: Value) -> Steps:
        socket = self._socket(descriptor)
        return (yield from self._receive(socket, self._buffer(buffer, size), number(flags)))

    def call_recvfrom(
        self, descriptor: Value, buffer: Value, size: Value, flags: Value, address: Value = ANY, length: Value = ANY
    ) -> Steps:
        socket = self._socket(descriptor)
        return (yield from self._receive(socket, self._buffer(buffer, size), number(flags)))

    def call_readv(self, descriptor: Value, vector: Value, count: Value) -> Steps:
        return (yield from self._receive(self._socket(descriptor), self._vector(vector), 0))

    def call_recvmsg(self, descriptor: Value, message: Value, flags: Value) -> Steps:
        if not isinstance(message, dict):
            raise UnsupportedConstruct("a message that is no struct")
        socket = self._socket(descriptor)
        result = yield from self._receive(socket, self._vector(message.get("msg_iov", [])), number(flags))
        control = message.get("msg_control")
        if isinstance(control, list) and control:
            self._check_control(socket, control)
        return result

    def _check_control(self, socket: Socket, control: list[Value]) -> None:
        """TCP_CM_INQ: how much more there is to read, the end counting as one."""
        for entry in control:
            if not isinstance(entry, dict) or entry.get("cmsg_type") != OWN["TCP_CM_INQ"]:
                raise UnsupportedConstruct("a control message of this type")
            session = socket.session
            assert session is not None
            rx = None if session.asleep else session.tcb.rx
            left = 0 if rx is None else rx.size
            ended = not session.asleep and 0 <= session.tcb.peer_fin < session.tcb.rcv_nxt
            actual = left + (1 if ended and not left else 0)
            if entry.get("cmsg_data") not in (ANY, actual):
                raise Mismatch(f"TCP_CM_INQ says {actual}, expected {entry.get('cmsg_data')}")

    # Descriptors

    def call_fcntl(self, descriptor: Value, command: Value, value: Value = 0) -> Steps:
        socket = self.table.get(descriptor)
        if command == fcntl.F_GETFL:
            return os.O_RDWR | (0 if socket.blocking else os.O_NONBLOCK)
        if command == fcntl.F_SETFL:
            socket.blocking = not number(value) & os.O_NONBLOCK
            return 0
        raise UnsupportedConstruct(f"fcntl {command}")
        yield

    def call_ioctl(self, descriptor: Value, command: Value, value: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        session = socket.session
        if session is None:
            raise CallError(errno.EINVAL)
        if command == OWN["SIOCINQ"]:
            actual = 0 if session.asleep or session.tcb.rx is None else session.tcb.rx.size
        elif command == OWN["SIOCOUTQ"]:
            actual = session.unsent
        elif command == OWN["SIOCOUTQNSD"]:
            actual = session.statistics().notsent
        else:
            raise UnsupportedConstruct(f"ioctl {command}")
        wanted = value[0] if isinstance(value, list) and value else ANY
        if wanted is not ANY and wanted != actual:
            raise Mismatch(f"ioctl says {actual}, expected {wanted}")
        return 0
        yield

    # Options, waiting: in their own modules

    def call_setsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        sockopt.set_option(self, socket, number(level), number(name), value)
        self._apply_policy(socket)
        return 0
        yield

    def call_getsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        sockopt.check_option(self, socket, number(level), number(name), value)
        return 0
        yield

    def call_poll(self, entries: Value, count: Value, timeout: Value) -> Steps:
        return (yield from polling.poll(self, entries, number(timeout)))

    def call_epoll_create(self, size: Value) -> Steps:
        return self.table.open("epoll").descriptor
        yield

    def call_epoll_create1(self, flags: Value) -> Steps:
        return self.table.open("epoll").descriptor
        yield

    def call_epoll_ctl(self, epoll: Value, operation: Value, descriptor: Value, event: Value = ANY) -> Steps:
        polling.control(self, self.table.get(epoll), number(operation), self.table.get(descriptor), event)
        return 0
        yield

    def call_epoll_wait(self, epoll: Value, events: Value, most: Value, timeout: Value) -> Steps:
        return (yield from polling.wait(self, self.table.get(epoll), events, number(timeout)))

    # Names

    def call_getsockname(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        if socket.session is not None:
            self._check_name(address, socket.session.local, socket.session.port)
        elif socket.bound is not None:
            self._check_name(address, socket.bound[0] or Address(bytes(16)), socket.bound[1])
        return 0
        yield

    def call_getpeername(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> Steps:
        socket = self._socket(descriptor)
        if not socket.established or socket.session is None:
            raise CallError(errno.ENOTCONN)
        self._check_name(address, socket.session.remote, socket.session.remote_port)
        return 0
        yield

    def _check_name(self, expected: Value, host: Address, port: int) -> None:
        if not isinstance(expected, dict):
            return
        wanted_host, wanted_port = self._address(expected, host, port)
        if (wanted_host, wanted_port) != (host, port):
            raise Mismatch(f"the name is {host.hex()}:{port}, expected {(wanted_host or b'').hex()}:{wanted_port}")
