"""The system calls of scripts, all of them: descriptors, options, waiting, names, beside data and naming."""

import errno
import fcntl
import os

from umuxstack.conformance import polling, sockopt
from umuxstack.conformance.datacalls import DataCalls
from umuxstack.conformance.naming import number
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.subject import Steps
from umuxstack.conformance.symbols import ANY, OWN, Value
from umuxstack.core.units import Address


class Calls(DataCalls):
    """All sockets of one script."""

    # Descriptors

    def call_fcntl(self, descriptor: Value, command: Value, value: Value = 0) -> int:
        socket = self.table.get(descriptor)
        if command == fcntl.F_GETFL:
            return os.O_RDWR | (0 if socket.blocking else os.O_NONBLOCK)
        if command == fcntl.F_SETFL:
            socket.blocking = not number(value) & os.O_NONBLOCK
            return 0
        raise UnsupportedConstruct(f"fcntl {command!r}")

    def call_ioctl(self, descriptor: Value, command: Value, value: Value = ANY) -> int:
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
            raise UnsupportedConstruct(f"ioctl {command!r}")
        wanted = value[0] if isinstance(value, list) and value else ANY
        if wanted is not ANY and wanted != actual:
            raise Mismatch(f"ioctl says {actual}, expected {wanted!r}")
        return 0

    # Options, waiting: in their own modules

    def call_setsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> int:
        socket = self._socket(descriptor)
        sockopt.set_option(self, socket, number(level), number(name), value)
        self._apply_policy(socket)
        return 0

    def call_getsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> int:
        socket = self._socket(descriptor)
        sockopt.check_option(self, socket, number(level), number(name), value)
        return 0

    def call_poll(self, entries: Value, count: Value, timeout: Value) -> Steps:
        return (yield from polling.poll(self, entries, number(timeout)))

    def call_epoll_create(self, size: Value) -> int:
        return self.table.open("epoll").descriptor

    def call_epoll_create1(self, flags: Value) -> int:
        return self.table.open("epoll").descriptor

    def call_epoll_ctl(self, epoll: Value, operation: Value, descriptor: Value, event: Value = ANY) -> int:
        polling.control(self, self.table.get(epoll), number(operation), self.table.get(descriptor), event)
        return 0

    def call_epoll_wait(self, epoll: Value, events: Value, most: Value, timeout: Value) -> Steps:
        return (yield from polling.wait(self, self.table.get(epoll), events, number(most, 1), number(timeout)))

    # Names

    def call_getsockname(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        socket = self._socket(descriptor)
        if socket.session is not None:
            self._check_name(address, socket.session.local, socket.session.port)
        elif socket.bound is not None:
            self._check_name(address, socket.bound[0] or Address(bytes(16)), socket.bound[1])
        return 0

    def call_getpeername(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        socket = self._socket(descriptor)
        if not socket.established or socket.session is None:
            raise CallError(errno.ENOTCONN)
        self._check_name(address, socket.session.remote, socket.session.remote_port)
        return 0

    def _check_name(self, expected: Value, host: Address, port: int) -> None:
        if not isinstance(expected, dict):
            return
        wanted_host, wanted_port = self._address(expected, host, port)
        if (wanted_host, wanted_port) != (host, port):
            raise Mismatch(f"the name is {host.hex()}:{port}, expected {(wanted_host or b'').hex()}:{wanted_port}")


__all__ = ["Calls", "Steps", "number"]
