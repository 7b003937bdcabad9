"""One `trio.socket` socket on a host.

A thin state machine over a stream, a listener or a datagram socket of the
driver; it translates their failures to OSError (`errno_map`). `bind` to `::`
and `listen` is LISTEN_0 (UM-20). Waiting, closing and cancelling are as in
trio's own sockets.
"""

from __future__ import annotations

import errno
import socket as stdlib
import struct
from collections.abc import Iterable
from socket import AddressFamily, SocketKind
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, overload

import trio
from trio.lowlevel import checkpoint

from umuxstack.core.errors import Reason
from umuxstack.core.udp.datagram import Datagram
from umuxstack.core.units import UNSPECIFIED, Address
from umuxstack.core.wire.address import LOOPBACK, to_text
from umuxstack.driver.ancillary import Ancillary, chosen_source, told
from umuxstack.driver.datagrams import UmuxDatagramSocket
from umuxstack.driver.errno_map import REASON_ERRNO, os_error, os_errors
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.message_flags import MSG_OOB, check_receiving, check_sending
from umuxstack.driver.resolving import resolve
from umuxstack.driver.socket_options import SocketOptions
from umuxstack.driver.streams import UmuxStream

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from umuxstack.driver.runtime import Host

SocketAddress: TypeAlias = tuple[str, int, int, int]

_NO_FILE: Final = 0x7F000000  # no descriptor is that high: whoever passes our number to the kernel gets EBADF
_INT: Final = struct.Struct("=i")


class UmuxSocket(trio.socket.SocketType):
    """A `trio.socket.SocketType` of family AF_INET6, for TCP or UDP. Made by `trio.socket.socket` and `accept`."""

    def __init__(self, host: Host, kind: SocketKind, proto: int, number: int) -> None:
        super().__init__()
        self._host = host
        self._type = kind
        self._proto = proto or (stdlib.IPPROTO_TCP if kind == stdlib.SOCK_STREAM else stdlib.IPPROTO_UDP)
        self._number = number
        self._stream: UmuxStream | None = None
        self._listener: UmuxListener | None = None
        self._datagrams: UmuxDatagramSocket | None = None
        self._bound: tuple[Address, int] | None = None
        self._peer: tuple[Address, int] | None = None  # of a connected UDP socket
        self._connecting: trio.CancelScope | None = None
        self._closed = False
        self._wrote_eof = False
        self._peeked = b""  # read by MSG_PEEK, not yet by anybody else
        self._urgent_read = -1  # the pointer of the urgent byte that was read out of band
        self._peeked_datagram: Datagram | None = None
        self.options = SocketOptions(kind, host.config.tcp, host.config.hop_limit, host.congestion)

    def __repr__(self) -> str:
        state = "closed" if self._closed else repr(self._stream or self._listener or self._datagrams or "unbound")
        return f"<UmuxSocket {self._type.name}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # what it is

    @property
    def family(self) -> AddressFamily:
        return stdlib.AF_INET6

    @property
    def type(self) -> SocketKind:
        return self._type

    @property
    def proto(self) -> int:
        return self._proto

    @property
    def _sock(self) -> Self:
        """Where trio's own sockets keep the standard library's: anyio asks there for the names of both ends."""
        return self

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - the interface's name
        return self._wrote_eof

    def fileno(self) -> int:
        """-1 once closed, as trio's own streams ask; before, a number that is nobody's descriptor."""
        return -1 if self._closed else _NO_FILE + self._number

    def detach(self) -> int:
        raise os_error(errno.EOPNOTSUPP, "there is no descriptor to detach")

    def dup(self) -> trio.socket.SocketType:
        raise os_error(errno.EOPNOTSUPP, "there is no descriptor to duplicate")

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        if inheritable:
            raise os_error(errno.EOPNOTSUPP, "a session lives in this process")

    def getsockname(self) -> SocketAddress:
        """Our address, with the port that the application bound or dialled to (UM-5).

        Where it left the choice to us (port 0) and any would do, it is the fixed one: programs tell it to others.
        """
        self._check_open()
        address, port = self._bound or (UNSPECIFIED, 0)
        if self._stream is not None:
            session = self._stream.session
            return to_text(session.local), port or session.port, 0, 0
        if self._listener is not None:
            port = self._listener.port
        elif self._datagrams is not None:
            port = self._datagrams.socket.port
        elif self._bound is None:
            return "::", 0, 0, 0
        return to_text(address), port or self._host.config.fixed_port, 0, 0

    def getpeername(self) -> SocketAddress:
        """As the kernel's: a connection that has ended has no peer, whoever ended it."""
        self._check_open()
        if self._stream is not None and not self._stream.session.ended:
            return _name(self._stream)
        if self._peer is not None:
            return to_text(self._peer[0]), self._peer[1], 0, 0
        raise os_error(errno.ENOTCONN)

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...
    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...
    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        self._check_open()
        if level == stdlib.SOL_SOCKET and optname == stdlib.SO_ERROR:
            value: int | bytes = self._take_error()
        elif level == stdlib.SOL_SOCKET and optname == stdlib.SO_ACCEPTCONN:
            value = int(self._listener is not None)
        else:
            value = self.options.get(level, optname)
        if buflen is None:
            return value if isinstance(value, int) else _INT.unpack(value[:4].ljust(4, b"\0"))[0]
        return (_INT.pack(value) if isinstance(value, int) else value)[:buflen]

    @overload
    def setsockopt(self, level: int, optname: int, value: int | Buffer) -> None: ...
    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int) -> None: ...
    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None) -> None:
        self._check_open()
        if value is None:
            if optlen is None:
                raise TypeError("value must not be None without optlen")
            value = bytes(optlen)
        elif optlen is not None:
            raise TypeError("value must be None when optlen is given")
        with os_errors():
            self.options.set(level, optname, value if isinstance(value, int) else bytes(value))
            if self._stream is not None:
                self._host.pump.kick()  # as `UmuxStream.configure` does
            if self._datagrams is not None:
                self._datagrams.socket.set_hop_limit(self.options.hop_limit)

    def _take_error(self) -> int:
        if self._stream is not None:
            reason = self._stream.session.end_reason
            return 0 if reason == Reason.CLOSED else REASON_ERRNO[reason]
        if self._datagrams is not None:
            return REASON_ERRNO[self._datagrams.socket.take_error()]
        return 0

    # opening

    async def bind(self, address: Any) -> None:
        self._check_open()
        resolved = await self._resolve(address, local=True)
        await checkpoint()
        if self._bound is not None or self._stream is not None or self._listener is not None:
            raise os_error(errno.EINVAL, "already bound")
        with os_errors():
            if self._type == stdlib.SOCK_DGRAM:
                self._datagrams = self._open_datagrams(resolved)
            elif resolved[0] != UNSPECIFIED and not self._host.owns(resolved[0]):
                raise os_error(errno.EADDRNOTAVAIL)
        self._bound = resolved

    def listen(self, backlog: int = 128) -> None:
        self._check_open()
        self._check_stream()
        if self._stream is not None or self._connecting is not None:
            raise os_error(errno.EINVAL, "a connected socket cannot listen")
        if self._listener is not None:
            return
        address, port = self._bound or (UNSPECIFIED, 0)
        host = self._host
        with os_errors():
            listener = host.running().listen(
                host.now(),
                address=None if address == UNSPECIFIED else address,
                port=port,
                backlog=min(max(backlog, 1), 0xFFFF),
            )
        self.options.listen(listener)
        self._listener = UmuxListener(listener, host.pump)
        host.kick()

    async def accept(self) -> tuple[trio.socket.SocketType, SocketAddress]:
        self._check_open()
        self._check_stream()
        if self._listener is None:
            raise os_error(errno.EINVAL, "not listening")
        try:
            with os_errors():
                stream = await self._listener.accept()
        except trio.ClosedResourceError:
            if self._closed:
                raise
            raise os_error(errno.EINVAL, "not listening any more") from None
        return self._host.socket_factory.wrap(stream, self.options), _name(stream)

    async def connect(self, address: Any) -> None:
        self._check_open()
        peer, port = await self._resolve(address, local=False)
        if self._type == stdlib.SOCK_DGRAM:
            await checkpoint()
            await self._connect_datagrams(peer, port)
            return
        if self._connecting is not None:
            raise os_error(errno.EALREADY)
        if self._stream is not None or self._listener is not None:
            raise os_error(errno.EISCONN)
        if peer in (UNSPECIFIED, LOOPBACK) or port == 0:
            raise os_error(errno.ECONNREFUSED, "nobody can be reached there")
        source = None if self._bound is None or self._bound[0] == UNSPECIFIED else self._bound[0]
        stream: UmuxStream | None = None
        self._connecting = attempt = trio.CancelScope()
        try:
            with attempt, os_errors():
                stream = await self._host.connect_packed(peer, port, source=source, policy=self.options.policy)
        except trio.Cancelled:
            self.close()  # as trio's own: what a cancelled connect has done is not known
            raise
        finally:
            self._connecting = None
        if stream is None or attempt.cancel_called:  # by `close` or `shutdown`
            if stream is not None:
                stream.close()
            if self._closed:
                raise trio.ClosedResourceError("this socket was closed")
            raise os_error(errno.ECONNRESET, "it was shut down meanwhile")
        self.attach(stream)

    def attach(self, stream: UmuxStream, inherited: SocketOptions | None = None) -> None:
        """This is `stream`'s socket from now on, with the options that its listener had."""
        self._stream = stream
        if inherited is not None:
            self.options.inherit(inherited)
        self.options.attach(stream.session)

    async def _connect_datagrams(self, peer: Address, port: int) -> None:
        with os_errors():
            datagrams = self._datagrams = self._datagrams or self._open_datagrams((UNSPECIFIED, 0))
            if peer == UNSPECIFIED:
                datagrams.socket.disconnect(self._host.now())
                self._peer = None
            else:
                datagrams.socket.connect(peer, port, self._host.now())
                self._peer = (peer, port)
        self._host.kick()

    def _open_datagrams(self, local: tuple[Address, int]) -> UmuxDatagramSocket:
        address, port = local
        host = self._host
        socket = host.running().udp(host.now(), address=None if address == UNSPECIFIED else address, port=port)
        if self.options.hop_limit:
            socket.set_hop_limit(self.options.hop_limit)
        return UmuxDatagramSocket(socket, host.pump)

    # closing

    def shutdown(self, flag: int) -> None:
        """As the kernel's: it also ends an attempt to connect, and listening; what has ended is not connected."""
        self._check_open()
        if flag not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise os_error(errno.EINVAL)
        if self._connecting is not None and not self._connecting.cancel_called:
            self._connecting.cancel()
        elif self._listener is not None:
            if flag != stdlib.SHUT_WR:  # a listener writes nothing; it may listen again afterwards
                self._listener.close()
                self._listener = None
        elif self._stream is not None and not self._stream.session.ended:
            if flag != stdlib.SHUT_WR:
                self._stream.end_reading()
            if flag != stdlib.SHUT_RD:
                with os_errors():
                    self._stream.send_eof_nowait()
                self._wrote_eof = True
        elif self._peer is not None:
            self._wrote_eof |= flag != stdlib.SHUT_RD  # datagrams arrive all the same
        else:
            raise os_error(errno.ENOTCONN)

    def close(self) -> None:
        """As the kernel: what was sent is still delivered, unless SO_LINGER says 0 seconds."""
        if self._closed:
            return
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._stream is not None:
            if self.options.aborts_on_close:
                self._stream.abort()
            else:
                self._stream.close()
        if self._listener is not None:
            self._listener.close()
        if self._datagrams is not None:
            self._datagrams.close()

    # waiting

    def is_readable(self) -> bool:
        holder = self._stream or self._listener or self._datagrams
        return bool(self._peeked or self._peeked_datagram) or (holder is not None and holder.readable())

    async def wait_writable(self) -> None:
        self._check_open()
        if self._stream is None:
            await checkpoint()
            return
        with os_errors():
            await self._stream.wait_send_all_might_not_block()

    # in

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        return (await self._receive(buflen, flags))[0]

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        return (await self._receive_into([buffer], nbytes, flags))[0]

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        data, datagram, _ = await self._receive(bufsize, flags)
        return data, _sender(datagram)

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        count, datagram, _ = await self._receive_into([buffer], nbytes, flags)
        return count, _sender(datagram)

    async def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, Ancillary, int, Any]:
        data, datagram, message_flags = await self._receive(bufsize, flags)
        return data, self._ancillary(datagram, ancbufsize), message_flags, _sender(datagram)

    async def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, Ancillary, int, Any]:
        count, datagram, message_flags = await self._receive_into(list(buffers), 0, flags)
        return count, self._ancillary(datagram, ancbufsize), message_flags, _sender(datagram)

    async def _receive(self, limit: int, flags: int) -> tuple[bytes, Datagram | None, int]:
        """Data, the datagram it is from (UDP), and MSG_TRUNC if that was longer."""
        if limit < 0:
            raise ValueError("negative buffersize in recv")
        self._check_open()
        check_receiving(flags, stream=self._type == stdlib.SOCK_STREAM)
        peek = bool(flags & stdlib.MSG_PEEK)
        with os_errors():
            if flags & MSG_OOB:
                return (await self._receive_urgent(peek))[:limit], None, 0
            if self._type == stdlib.SOCK_STREAM:
                return await self._receive_bytes(limit, peek), None, 0
            datagram = await self._receive_datagram(peek)
        data = bytes(datagram.data)
        return data[:limit], datagram, stdlib.MSG_TRUNC if len(data) > limit else 0

    async def _receive_bytes(self, limit: int, peek: bool) -> bytes:
        if self._stream is None:
            raise os_error(errno.ENOTCONN)
        if limit == 0:
            await checkpoint()
            return b""
        if self._peeked:
            await checkpoint()
            self._check_open()
            data = self._peeked
            if len(data) < limit:
                data += self._stream.receive_nowait(limit - len(data))
        else:
            data = await self._stream.receive_some(limit)
        self._peeked = data if peek else data[limit:]
        return data[:limit]

    async def _receive_urgent(self, peek: bool) -> bytes:
        """As Linux: EINVAL where there is none, where it was read, and with SO_OOBINLINE."""
        if self._stream is None:
            raise os_error(errno.ENOTCONN)
        session = self._stream.session
        found = b"" if session.policy.urgent_inline else await self._stream.receive_urgent()
        pointer = session.urgent_pointer
        if not found or pointer == self._urgent_read:
            raise os_error(errno.EINVAL, "no urgent data to read out of band")
        self._urgent_read = self._urgent_read if peek else pointer
        return found

    async def _receive_datagram(self, peek: bool) -> Datagram:
        if self._datagrams is None:
            raise os_error(errno.ENOTCONN, "nothing can arrive: neither bound nor sent from")
        if self._peeked_datagram is not None:
            await checkpoint()
        datagram = self._peeked_datagram or await self._datagrams.receive()
        self._peeked_datagram = datagram if peek else None
        return datagram

    async def _receive_into(self, buffers: list[Buffer], nbytes: int, flags: int) -> tuple[int, Datagram | None, int]:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        total = sum(map(len, views))
        if nbytes < 0 or nbytes > total:
            raise ValueError("nbytes is negative, or greater than the length of the buffer")
        data, datagram, message_flags = await self._receive(nbytes or total, flags)
        at = 0
        for view in views:
            piece = data[at : at + len(view)]
            view[: len(piece)] = piece
            at += len(piece)
        return len(data), datagram, message_flags

    def _ancillary(self, datagram: Datagram | None, room: int) -> Ancillary:
        return [] if datagram is None else told(datagram, self.options, room)

    # out

    async def send(self, data: Buffer, flags: int = 0, /) -> int:
        return await self._send(data, flags, None, None)

    @overload
    async def sendto(self, data: Buffer, address: tuple[object, ...] | str | Buffer, /) -> int: ...
    @overload
    async def sendto(self, data: Buffer, flags: int, address: tuple[object, ...] | str | Buffer, /) -> int: ...
    async def sendto(self, *args: Any) -> int:
        if len(args) == 2:
            return await self._send(args[0], 0, args[1], None)
        if len(args) == 3:
            return await self._send(args[0], args[1], args[2], None)
        raise TypeError(f"sendto() takes 2 or 3 arguments ({len(args)} given)")

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        source = chosen_source((level, kind, bytes(value)) for level, kind, value in ancdata)
        return await self._send(b"".join(buffers), flags, address, source)

    async def _send(self, buffer: Buffer, flags: int, address: Any, source: Address | None) -> int:
        data = buffer if isinstance(buffer, bytes) else memoryview(buffer).cast("B")
        self._check_open()
        check_sending(flags, stream=self._type == stdlib.SOCK_STREAM)
        if self._wrote_eof:
            raise os_error(errno.EPIPE)
        if self._type == stdlib.SOCK_STREAM:
            if self._stream is None:
                raise os_error(errno.EPIPE)
            try:
                with os_errors():
                    return await self._stream.send_some(data, flags)
            except trio.ClosedResourceError:
                if self._closed:
                    raise
                raise os_error(errno.EPIPE) from None  # shut while it waited
        to = None if address is None else await self._resolve(address, local=False)
        if to is None and self._peer is None:
            raise os_error(errno.EDESTADDRREQ)
        with os_errors():
            if self._datagrams is None:
                self._datagrams = self._open_datagrams((UNSPECIFIED, 0))
            await self._datagrams.send_packed(data, to, source)
        return len(data)

    # checks

    def _check_open(self) -> None:
        if self._closed:
            raise os_error(errno.EBADF)

    def _check_stream(self) -> None:
        if self._type != stdlib.SOCK_STREAM:
            raise os_error(errno.EOPNOTSUPP)

    async def _resolve(self, address: Any, *, local: bool) -> tuple[Address, int]:
        return await resolve(address, self._type, self._proto, local=local)


def _name(stream: UmuxStream) -> SocketAddress:
    return *stream.remote_address, 0, 0


def _sender(datagram: Datagram | None) -> SocketAddress | None:
    return None if datagram is None else (to_text(datagram.peer), datagram.peer_port, 0, 0)
