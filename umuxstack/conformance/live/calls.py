"""A script's system calls, made at the kernel: real sockets under the script's descriptor numbers.

What a call hands back is compared with the script here, as for our own stack. Everything runs in the worker's thread
and may block. An errno becomes CallError. What cannot be asked of a kernel raises UnsupportedConstruct.
"""

import fcntl
import select
import socket as stdlib
from collections.abc import Callable
from typing import Final

import attrs

from umuxstack.conformance.addresses import address_of
from umuxstack.conformance.ends import Ends
from umuxstack.conformance.live import options
from umuxstack.conformance.live.wire import MAPPED, unmapped
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.sockets import FIRST_DESCRIPTOR, CallError
from umuxstack.conformance.symbols import ANY, FIRST_FOREIGN, Value

_POLL_SLICE: Final = 100  # milliseconds: a poll that waits for ever looks up now and then


def number(value: Value) -> int:
    if not isinstance(value, int):
        raise UnsupportedConstruct("an argument that is no number")
    return value


@attrs.define(slots=True, eq=False)
class Held:
    """One descriptor: a socket or an epoll instance. The ends outlive the kernel's socket: a close does not end it."""

    socket: stdlib.socket | None = None
    epoll: select.epoll | None = None
    watched: dict[int, int] = attrs.field(factory=dict)  # file descriptor -> data, of an epoll instance
    local: tuple[bytes, int] | None = None
    remote: tuple[bytes, int] | None = None
    closed: bool = False


class KernelCalls:
    """All descriptors of one script. `family` is its sockets': IPv6's may be on a link that speaks IPv4."""

    def __init__(self, ends: Ends, *, bind_port: int, connect_port: int, family: int) -> None:
        self.ends = ends
        self.family = family
        self.bind_port = bind_port
        self.connect_port = connect_port
        self.table: dict[int, Held] = {}
        self.current: Held | None = None  # the last socket that was made or used
        self.congestion = ""  # of sockets to come; "": the kernel's default
        self.over = False

    def handler(self, name: str) -> Callable[..., int]:
        """Raises UnsupportedConstruct."""
        found: Callable[..., int] | None = getattr(self, f"call_{name}", None)
        if found is None:
            raise UnsupportedConstruct(f"system call {name}")
        return found

    def perform(self, name: str, arguments: list[Value]) -> int:
        """Makes the call. Raises CallError, Mismatch, UnsupportedConstruct."""
        try:
            return self.handler(name)(*arguments)
        except OSError as error:
            raise CallError(error.errno or 0) from None
        except TypeError as error:
            if f"call_{name}" in str(error):
                raise UnsupportedConstruct(f"arguments of {name}") from None
            raise

    def let_go(self) -> None:
        """The script is over: calls that wait return, and no connection outlives its socket."""
        self.over = True
        for held in self.table.values():
            if held.socket is not None:
                options.abort_on_close(held.socket)
                try:
                    held.socket.shutdown(stdlib.SHUT_RDWR)
                except OSError:
                    continue  # it was not connected

    def close_all(self) -> None:
        for held in self.table.values():
            for file in (held.socket, held.epoll):
                if file is not None:
                    file.close()
        self.table.clear()

    # Descriptors

    def rename(self, descriptor: int, name: int) -> None:
        self.table[name] = self.table.pop(descriptor)

    def _add(self, held: Held) -> int:
        descriptor = FIRST_DESCRIPTOR
        while descriptor in self.table:
            descriptor += 1
        self.table[descriptor] = held
        if held.socket is not None:
            self.current = held
        return descriptor

    def _held(self, descriptor: Value) -> Held:
        held = self.table.get(descriptor) if isinstance(descriptor, int) else None
        if held is None:
            raise UnsupportedConstruct("a descriptor that is not open")
        return held

    def _socket(self, descriptor: Value) -> stdlib.socket:
        held = self._held(descriptor)
        if held.socket is None:
            raise UnsupportedConstruct("a descriptor that is no socket")
        self.current = held
        return held.socket

    def _learn_ends(self, held: Held) -> None:
        """Both ends of a connection that has begun; the flow that packets without addresses belong to."""
        assert held.socket is not None
        held.local = _packed(held.socket.getsockname())
        try:
            held.remote = _packed(held.socket.getpeername())
        except OSError:
            return  # not connected yet

    def call_socket(self, domain: Value, kind: Value, protocol: Value) -> int:
        made = stdlib.socket(self.family, number(kind), number(protocol))  # whatever else the script calls it
        if made.type & 0xF == stdlib.SOCK_STREAM and self.congestion:
            made.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, self.congestion.encode())
        if self.ends.flow is not None and not self.ends.is_known(self.ends.flow):
            self.ends.flow = None  # whatever comes now belongs to a new connection
        return self._add(Held(made))

    def call_close(self, descriptor: Value) -> int:
        held = self._held(descriptor)
        del self.table[number(descriptor)]
        held.closed = True
        for file in (held.socket, held.epoll):
            if file is not None:
                file.close()
        return 0

    def call_shutdown(self, descriptor: Value, how: Value) -> int:
        self._socket(descriptor).shutdown(number(how))
        return 0

    def call_fcntl(self, descriptor: Value, command: Value, value: Value = 0) -> int:
        return fcntl.fcntl(self._socket(descriptor), number(command), number(value))

    def call_ioctl(self, descriptor: Value, command: Value, value: Value = ANY) -> int:
        if number(command) >= FIRST_FOREIGN:
            raise UnsupportedConstruct(f"ioctl {command!r}")
        buffer = bytearray(4)
        fcntl.ioctl(self._socket(descriptor), number(command), buffer)
        actual = int.from_bytes(buffer, options.ORDER)
        wanted = value[0] if isinstance(value, list) and value else ANY
        if wanted is not ANY and wanted != actual:
            raise Mismatch(f"ioctl says {actual}, expected {wanted!r}")
        return 0

    # Names

    def _address(self, given: Value, default: bytes, port: int) -> tuple[str, int]:
        host, found = address_of(given, default, port, self.ends.meaning, self.ends.here)
        return self._text(host or default), found

    def _text(self, host: bytes) -> str:
        mapped = self.ends.ipv4 and self.family == stdlib.AF_INET6
        return stdlib.inet_ntop(self.family, MAPPED + host if mapped else host)

    def call_bind(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        self._socket(descriptor).bind(self._address(address, self.ends.here, self.bind_port))
        return 0

    def call_listen(self, descriptor: Value, backlog: Value) -> int:
        self._socket(descriptor).listen(number(backlog))
        self.ends.flow = None
        return 0

    def call_accept(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        made, _ = self._socket(descriptor).accept()
        held = Held(made)
        self._learn_ends(held)
        return self._add(held)

    def call_accept4(self, descriptor: Value, address: Value, length: Value, flags: Value) -> int:
        result = self.call_accept(descriptor, address, length)
        if number(flags) & stdlib.SOCK_NONBLOCK:
            made = self.table[result].socket
            assert made is not None
            made.setblocking(False)
        return result

    def call_connect(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        if isinstance(address, int):
            raise UnsupportedConstruct("AF_UNSPEC")
        made = self._socket(descriptor)
        held = self._held(descriptor)
        where = self._address(address, self.ends.peer, self.connect_port)
        before = held.local is not None and held.remote is not None
        if not before:
            # The kernel chooses the port on connecting; a blocking connect returns too late to learn it from.
            if not made.getsockname()[1]:
                made.bind((self._text(self.ends.here), 0))
            held.local = _packed(made.getsockname())
            held.remote = _packed(where)
            self.ends.flow = self.ends.open_flow(*held.local, *held.remote)
        made.connect(where)
        return 0

    def call_getsockname(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        self._check_name(address, _packed(self._socket(descriptor).getsockname()))
        return 0

    def call_getpeername(self, descriptor: Value, address: Value = ANY, length: Value = ANY) -> int:
        self._check_name(address, _packed(self._socket(descriptor).getpeername()))
        return 0

    def _check_name(self, expected: Value, actual: tuple[bytes, int]) -> None:
        if isinstance(expected, dict):
            wanted = address_of(expected, actual[0], actual[1], self.ends.meaning, self.ends.here)
            if wanted != actual:
                raise Mismatch(
                    f"the name is {actual[0].hex()}:{actual[1]}, expected {(wanted[0] or b'').hex()}:{wanted[1]}"
                )

    # Data

    def call_write(self, descriptor: Value, buffer: Value, size: Value) -> int:
        return self._socket(descriptor).send(_data(buffer, size))

    def call_send(self, descriptor: Value, buffer: Value, size: Value, flags: Value) -> int:
        return self._socket(descriptor).send(_data(buffer, size), options.flags(number(flags)))

    def call_sendto(
        self, descriptor: Value, buffer: Value, size: Value, flags: Value, address: Value = ANY, length: Value = ANY
    ) -> int:
        made = self._socket(descriptor)
        data, chosen = _data(buffer, size), options.flags(number(flags))
        if made.type != stdlib.SOCK_DGRAM and not isinstance(address, dict):
            return made.send(data, chosen)
        return made.sendto(data, chosen, self._address(address, self.ends.peer, self.connect_port))

    def call_writev(self, descriptor: Value, vector: Value, count: Value) -> int:
        return self._socket(descriptor).sendmsg([bytes(size) for size in _vector(vector)])

    def call_sendmsg(self, descriptor: Value, message: Value, flags: Value) -> int:
        if not isinstance(message, dict) or message.get("msg_control") not in (None, ANY, 0):
            raise UnsupportedConstruct("msg_control on sending")
        parts = [bytes(size) for size in _vector(message.get("msg_iov", []))]
        return self._socket(descriptor).sendmsg(parts, [], options.flags(number(flags)))

    def call_read(self, descriptor: Value, buffer: Value, size: Value) -> int:
        return len(self._socket(descriptor).recv(len(_data(buffer, size))))

    def call_recv(self, descriptor: Value, buffer: Value, size: Value, flags: Value) -> int:
        return len(self._socket(descriptor).recv(len(_data(buffer, size)), options.flags(number(flags))))

    def call_recvfrom(
        self, descriptor: Value, buffer: Value, size: Value, flags: Value, address: Value = ANY, length: Value = ANY
    ) -> int:
        return self.call_recv(descriptor, buffer, size, flags)

    def call_readv(self, descriptor: Value, vector: Value, count: Value) -> int:
        return len(self._socket(descriptor).recv(sum(_vector(vector))))

    def call_recvmsg(self, descriptor: Value, message: Value, flags: Value) -> int:
        if not isinstance(message, dict) or message.get("msg_control"):
            raise UnsupportedConstruct("msg_control on receiving")
        return self.call_recv(descriptor, ANY, sum(_vector(message.get("msg_iov", []))), flags)

    # Options

    def call_setsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> int:
        options.set_option(self._socket(descriptor), number(level), number(name), value, ipv4=self.ends.ipv4)
        return 0

    def call_getsockopt(self, descriptor: Value, level: Value, name: Value, value: Value, length: Value = ANY) -> int:
        options.check_option(self._socket(descriptor), number(level), number(name), value, ipv4=self.ends.ipv4)
        return 0

    # Waiting

    def call_poll(self, entries: Value, count: Value, timeout: Value) -> int:
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UnsupportedConstruct("poll without an array of structs")
        poll = select.poll()
        wanted: dict[int, tuple[int, Value]] = {}
        for entry in entries:
            assert isinstance(entry, dict)
            descriptor = number(entry.get("fd", ANY))
            file = self._socket(descriptor).fileno()
            poll.register(file, number(entry.get("events", 0)))
            wanted[file] = (descriptor, entry.get("revents", ANY))
        found = dict(self._wait(poll.poll, number(timeout)))
        for file, (descriptor, revents) in wanted.items():
            if revents is not ANY and revents != found.get(file, 0):
                raise Mismatch(f"poll: revents of {descriptor} are {found.get(file, 0):#x}, expected {revents!r}")
        return len(found)

    def call_epoll_create(self, size: Value) -> int:
        return self._add(Held(epoll=select.epoll()))

    def call_epoll_create1(self, flags: Value) -> int:
        return self._add(Held(epoll=select.epoll()))

    def call_epoll_ctl(self, epoll: Value, operation: Value, descriptor: Value, event: Value = ANY) -> int:
        held = self._held(epoll)
        if held.epoll is None:
            raise UnsupportedConstruct("a descriptor that is no epoll instance")
        file = self._socket(descriptor).fileno()
        fields = event if isinstance(event, dict) else {}
        events = number(fields.get("events", 0)) & 0xFFFFFFFF
        if operation == 2:
            held.epoll.unregister(file)
        elif operation == 1:
            held.epoll.register(file, events)
        else:
            held.epoll.modify(file, events)
        return 0

    def call_epoll_wait(self, epoll: Value, events: Value, most: Value, timeout: Value) -> int:
        held = self._held(epoll)
        if held.epoll is None:
            raise UnsupportedConstruct("a descriptor that is no epoll instance")
        instance, limit = held.epoll, max(number(most), 1)
        found = self._wait(lambda milliseconds: instance.poll(milliseconds / 1000, limit), number(timeout))
        expected = events[0] if isinstance(events, list) and events else events
        if isinstance(expected, dict) and len(found) == 1:
            wanted = expected.get("events", ANY)
            if wanted is not ANY and wanted != found[0][1]:
                raise Mismatch(f"epoll: events are {found[0][1]:#x}, expected {wanted!r}")
        return len(found)

    def _wait(self, look: Callable[[int], list[tuple[int, int]]], timeout: int) -> list[tuple[int, int]]:
        """`timeout` in milliseconds, negative: for ever, or until the script is over."""
        if timeout >= 0:
            return look(timeout)
        while True:
            found = look(_POLL_SLICE)
            if found or self.over:
                return found


def _packed(name: object) -> tuple[bytes, int]:
    assert isinstance(name, tuple)
    family = stdlib.AF_INET6 if ":" in name[0] else stdlib.AF_INET
    return unmapped(stdlib.inet_pton(family, name[0].partition("%")[0])), name[1]


def _data(buffer: Value, size: Value) -> bytes:
    if buffer == 0 and number(size):
        raise UnsupportedConstruct("a NULL buffer")
    return bytes(number(size))


def _vector(vector: Value) -> list[int]:
    if not isinstance(vector, list):
        raise UnsupportedConstruct("an iovec that is no array")
    sizes = []
    for entry in vector:
        values = list(entry.values()) if isinstance(entry, dict) else []
        if not values or values[0] == 0:
            raise UnsupportedConstruct("an iovec entry of another form")
        sizes.append(number(values[-1]))
    return sizes
