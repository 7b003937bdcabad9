"""System calls that move data: write, send, read, recv and their kin."""

import errno
import socket as stdlib
from collections.abc import Callable
from typing import Final

from umuxstack.conformance import notices
from umuxstack.conformance.ends import HERE, PEERS
from umuxstack.conformance.naming import NamingCalls, number
from umuxstack.conformance.notices import ZEROCOPY
from umuxstack.conformance.octets import check, octets
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.send_queue import LEAST, ROOMY, SendQueue
from umuxstack.conformance.sockets import CallError, Socket
from umuxstack.conformance.subject import Steps
from umuxstack.conformance.symbols import ANY, OWN, Value
from umuxstack.core.address.lease import EA
from umuxstack.core.errors import SessionClosed
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Address, Micros
from umuxstack.driver.errno_map import REASON_ERRNO

LOWAT: Final = (stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT)
FRAGMENTS: Final = 17  # of a packet of Linux's: what is not copied takes one for each piece of memory


class DataCalls(NamingCalls):
    """Data in and out."""

    # Data out

    def _send(self, socket: Socket, size: int, flags: int, to: tuple[Address | None, int] | None = None) -> Steps:
        if socket.kind == "datagram":
            if flags & OWN["MSG_ZEROCOPY"] and socket.remembered.get(ZEROCOPY):
                raise UnsupportedConstruct("MSG_ZEROCOPY of a datagram")
            return self._send_datagram(socket, size, to)
        done = yield from self._write(socket, size, flags, to)
        copies = bool(flags & OWN["MSG_ZEROCOPY"] and socket.remembered.get(ZEROCOPY))
        if done and socket.session is not None and (copies or socket.notices.stamps):
            socket.notices.wrote(socket.session, copies=copies)
            self.target.notices[socket.session] = socket.notices
        return done

    def _write(self, socket: Socket, size: int, flags: int, to: tuple[Address | None, int] | None) -> Steps:
        session = socket.session
        if session is None:
            if socket.listener is not None:
                raise CallError(errno.EPIPE)
            if socket.deferred is not None:
                to, socket.deferred = socket.deferred, None
                return (yield from self._fast_open(socket, size, flags | OWN["MSG_FASTOPEN"], to))
            if flags & OWN["MSG_FASTOPEN"] and not self.target.fast_open:
                raise CallError(errno.EOPNOTSUPP)
            if flags & OWN["MSG_FASTOPEN"] or socket.policy.get("fast_open", self.target.policy.fast_open):
                return (yield from self._fast_open(socket, size, flags, to))
            raise CallError(errno.EPIPE if self.doubles_buffers else errno.ENOTCONN)
        blocking = socket.blocking and not flags & stdlib.MSG_DONTWAIT
        if flags & OWN["MSG_FASTOPEN"] and socket.connecting and not session.established and not session.ended:
            raise CallError(errno.EALREADY)
        done = 0
        while True:
            problem = socket.take_error()
            if problem:
                if done:
                    return done
                raise CallError(problem)
            if not session.established and not session.ended:
                if flags & OWN["MSG_FASTOPEN"]:
                    raise CallError(errno.EALREADY)
                if not blocking:
                    raise CallError(errno.EAGAIN)
                yield NEVER
                continue
            queue = self._queue(socket)
            if queue is not None and done and not queue.writable(session.tcb):
                yield NEVER
                continue
            try:
                write = session.write
                if flags & stdlib.MSG_OOB:
                    write = session.write_urgent
                elif flags & OWN["MSG_EOR"]:
                    write = session.write_record
                elif flags & OWN["MSG_MORE"]:
                    write = session.write_more
                if queue is not None and write == session.write:
                    while done < size and (piece := queue.room(session.tcb, size - done)):
                        done += self._put(session, write, piece)
                        self.target.push()
                else:
                    done += self._put(session, write, size - done) if size else 0
            except SessionClosed:
                raise CallError(errno.EPIPE) from None
            if done >= size:
                return done
            if not blocking:
                if done:
                    return done
                raise CallError(errno.EAGAIN)
            yield NEVER

    def _put(self, session: TcpSession, write: Callable[[bytes, Micros], int], size: int) -> int:
        """Writes the next `size` octets of the stream, or what there is room for."""
        before = self.target.written.get(session, 0)
        taken = write(octets(before, size), self.target.now)
        self.target.written[session] = before + taken
        return taken

    def _take(self, session: TcpSession, size: int) -> int:
        """Reads what there is, and looks at it. Who steps over an urgent octet has read one more of the stream."""
        urgent = session.urgent_pending
        chunk = session.read(size, self.target.now)
        if chunk:
            at = self.target.read.get(session, 0)
            if urgent and chunk[:1] == octets(at + 1, 1):
                at += 1
            check("data was read", at, chunk)
            self.target.read[session] = at + len(chunk)
        return len(chunk)

    def _send_datagram(self, socket: Socket, size: int, to: tuple[Address | None, int] | None) -> int:
        if socket.udp is None:
            socket.udp = self.target.stack.udp(self.target.now, address=None if self.target.unified else HERE)
        known = None if to is None or to[0] is None else (to[0], to[1])
        if socket.udp.connected is None and getattr(socket.udp.binding, "peer", None) is None:
            host, port = known or (PEERS["peer"], self.connect_port)
            known = (host, port)
            if self.target.flow is None and socket.udp.address is not None:
                self.target.begin(socket.udp.address, socket.udp.port, host, port)
        socket.udp.send(octets(0, size), self.target.now, to=known)
        for session in socket.udp.sessions:
            if session.lease.kind == EA:
                self.target.names.setdefault("ea", session.local)
        return size

    def _queue(self, socket: Socket) -> SendQueue | None:
        """How much Linux would take; None where the stack's own buffer decides."""
        session = socket.session
        if not self.doubles_buffers or session is None or session.ended:
            return None
        if socket.queue is None:
            set_by_hand = socket.policy.get("send_buffer")
            given = set_by_hand if isinstance(set_by_hand, int) else 0
            socket.queue = SendQueue(max(2 * given, LEAST) if given else session.policy.send_buffer, fixed=bool(given))
            self.target.queues[session] = socket.queue
        socket.queue.lowat = number(socket.remembered.get(LOWAT)) or self.target.notsent_lowat  # type: ignore[arg-type]
        if session.policy.send_buffer < ROOMY:
            session.configure(send_buffer=ROOMY, send_buffer_max=ROOMY)
        return socket.queue

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
        if number(flags) & OWN["MSG_FASTOPEN"] and isinstance(address, int):
            raise CallError(errno.EOPNOTSUPP)  # AF_UNSPEC
        to = self._address(address, PEERS["peer"], self.connect_port) if isinstance(address, dict) else None
        return (yield from self._send(socket, self._buffer(buffer, size), number(flags), to))

    def _fast_open(self, socket: Socket, size: int, flags: int, to: tuple[Address | None, int] | None) -> Steps:
        """Connects, and sends what it can with the SYN (RFC 7413): BSD after TCP_FASTOPEN, Linux by a flag."""
        host, port = to or (None, self.connect_port)
        host = host or PEERS["peer"]
        if not flags & OWN["MSG_FASTOPEN"]:
            return self._open(
                socket, host, port, octets(0, size)
            ).unsent  # BSD keeps the rest for later, and does not wait
        socket.policy["fast_open"] = True
        done = min(size, self.target.room_in_syn(host, socket.policy.get("mss")))  # type: ignore[arg-type]
        session = self._open(socket, host, port, octets(0, done))
        while not session.established and not session.ended:
            if not socket.blocking or flags & stdlib.MSG_DONTWAIT:
                if done:
                    return done
                raise CallError(errno.EINPROGRESS)
            self.target.eager = True
            yield NEVER
        self.target.eager = False
        socket.connecting = False
        problem = socket.take_error()
        if problem:
            raise CallError(problem)
        if done < size:
            done += yield from self._write(socket, size - done, flags, None)
        return done

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
        socket, vector = self._socket(descriptor), message.get("msg_iov", [])
        if number(flags) & OWN["MSG_ZEROCOPY"] and socket.remembered.get(ZEROCOPY):
            if isinstance(vector, list) and len(vector) > FRAGMENTS:
                raise UnsupportedConstruct("MSG_ZEROCOPY of more pieces than a packet of Linux's holds")
        return (yield from self._send(socket, self._vector(vector), number(flags)))

    def call_sendfile(self, out: Value, source: Value, offset: Value, size: Value) -> Steps:
        file = self.table.get(source)
        start = number(offset[0]) if isinstance(offset, list) and offset else 0
        count = max(0, min(number(size), file.size - start)) if file.size else number(size)
        return (yield from self._send(self._socket(out), count, 0))

    def call_pipe(self, ends: Value) -> int:
        """The script names both ends. What is in the pipe is known to either by its size alone."""
        if not isinstance(ends, list) or len(ends) != 2:
            raise CallError(errno.EFAULT)
        read, write = self.table.open("pipe"), self.table.open("sink")
        read.pipe = write.pipe = [0]
        for end, name in reversed(list(zip((read, write), ends, strict=True))):
            if isinstance(name, int) and name != end.descriptor:
                self.table.rename(end.descriptor, name)
        return 0

    def call_splice(
        self, source: Value, begin: Value, target: Value, end: Value, size: Value, flags: Value = 0
    ) -> Steps:
        """Between a socket and a pipe. At urgent data, which no pipe takes, nothing goes in."""
        out, into = self.table.get(source), self.table.get(target)
        if begin or end:
            raise UnsupportedConstruct("splice with an offset")
        if into.kind == "sink" and into.pipe is not None and out.kind == "stream":
            session = out.session
            if session is not None and not session.asleep:
                tcb = session.tcb
                position = tcb.rcv_nxt - (0 if tcb.rx is None else tcb.rx.size)
                if tcb.urgent is not None and position == tcb.urgent.pointer - 1:
                    return 0
            moved = yield from self._receive(out, number(size), 0)
            into.pipe[0] += moved
            return moved
        if out.kind == "pipe" and out.pipe is not None and into.kind == "stream":
            moved = yield from self._send(into, min(number(size), out.pipe[0]), 0)
            out.pipe[0] -= moved
            return moved
        raise CallError(errno.EBADF if out.kind == "sink" or into.kind == "pipe" else errno.EINVAL)

    def call_open(self, path: Value, flags: Value, mode: Value = 0) -> int:
        return self.table.open("file").descriptor

    # Data in

    def _receive(self, socket: Socket, size: int, flags: int) -> Steps:
        if flags & stdlib.MSG_ERRQUEUE:
            raise UnsupportedConstruct("MSG_ERRQUEUE without recvmsg")
        blocking = socket.blocking and not flags & stdlib.MSG_DONTWAIT
        if socket.kind == "datagram":
            while socket.udp is not None:
                datagram = socket.udp.receive_datagram()
                if datagram is not None:
                    check("a datagram was read", 0, datagram.data)
                    return min(len(datagram.data), size)
                reason = socket.udp.take_error()
                if reason:
                    raise CallError(REASON_ERRNO[reason])
                if not blocking:
                    raise CallError(errno.EAGAIN)
                yield NEVER
            raise CallError(errno.ENOTCONN)
        session = socket.session
        if socket.deferred is not None:
            raise CallError(errno.EAGAIN)
        if session is None or (socket.connecting and not session.established and not session.ended and not blocking):
            raise CallError(errno.ENOTCONN if session is None else errno.EAGAIN)
        if flags & stdlib.MSG_OOB:
            urgent = session.read_urgent()
            if not urgent:
                raise CallError(errno.EAGAIN if session.urgent_pending else errno.EINVAL)
            return len(urgent)
        want = size if flags & stdlib.MSG_WAITALL else socket.least(size)
        done = 0
        while size:
            if flags & stdlib.MSG_PEEK:
                there = 0 if session.asleep or session.tcb.rx is None else session.tcb.rx.size
                if there >= min(want, size):
                    return min(there, size)
            taken = 0 if flags & stdlib.MSG_PEEK else self._take(session, size - done)
            while taken:
                done += taken
                taken = self._take(session, size - done) if done < size and not session.urgent_pending else 0
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
        if number(flags) & stdlib.MSG_ERRQUEUE:
            return self._receive_notice(socket, message)
        result = yield from self._receive(socket, self._vector(message.get("msg_iov", [])), number(flags))
        control = message.get("msg_control")
        if isinstance(control, list) and control:
            self._check_control(socket, control)
        return result

    def _receive_notice(self, socket: Socket, message: dict[str, Value]) -> int:
        """Of the error queue, which never blocks."""
        if self._vector(message.get("msg_iov", [])):
            raise UnsupportedConstruct("MSG_ERRQUEUE with room for the packet")
        if not socket.notices.queue:
            raise CallError(errno.EAGAIN)
        notices.check(socket.notices.queue.pop(0), message, self.began, self.tolerance)
        return 0

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
                raise Mismatch(f"TCP_CM_INQ says {actual}, expected {entry.get('cmsg_data')!r}")
