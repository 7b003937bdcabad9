"""UDP for trio programs: a socket of the core, awaited.

Sending never waits for the network. An ICMPv6 error that came back is raised
as OSError by the next call, as a kernel socket does.
"""

import warnings
from ipaddress import IPv6Address

import trio
from trio import ClosedResourceError
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from umuxstack.core.errors import AddressMalformed, Reason
from umuxstack.core.udp.datagram import Datagram
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address
from umuxstack.core.wire.address import to_text
from umuxstack.driver.addresses import to_address
from umuxstack.driver.errno_map import reason_error
from umuxstack.driver.pump import Pump
from umuxstack.driver.readiness import OneTask, Waiters


class UmuxDatagramSocket(trio.abc.AsyncResource):
    """One UDP socket. Made by `Host.datagram_socket`.

    Unconnected, every destination is a session with an address of its own (UM-18), so what the socket is
    called locally depends on whom it talks to: see `Datagram.local`.
    """

    def __init__(self, socket: UdpSocket, pump: Pump) -> None:
        self.socket = socket
        self._pump = pump
        self._waiters = Waiters()
        self._receiving = OneTask("receiving from this socket")
        self._closed = False
        socket.owner = self._waiters

    def __repr__(self) -> str:
        return f"<UmuxDatagramSocket {self.socket.name}>"

    def readable(self) -> bool:
        """Whether `receive` would return or raise at once."""
        return self._closed or self.socket.readable

    async def connect(self, peer: str | IPv6Address, port: int) -> None:
        """From now on only datagrams from there arrive, and `send` goes there."""
        await checkpoint()
        self._check_open()
        self.socket.connect(to_address(peer), port, self._pump.now())
        self._pump.kick()

    async def disconnect(self) -> None:
        """Ends the session that `connect` began, and its address."""
        await checkpoint()
        self._check_open()
        self.socket.disconnect(self._pump.now())
        self._pump.kick()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """To the connected peer. Raises NotConnected, MessageTooLong, PoolExhausted; OSError for one sent before."""
        await self.send_packed(data, None)

    async def send_to(
        self, data: bytes | bytearray | memoryview, to: tuple[str | IPv6Address, int], *, source: str | None = None
    ) -> None:
        """To any peer; a reply leaves from the address that was spoken to, or from `source`. Raises as `send` does."""
        if not isinstance(to, tuple | list) or not 2 <= len(to) <= 4:
            raise AddressMalformed(f"{to!r} is not an address and a port")
        host, port, *_ = to
        await self.send_packed(data, (to_address(host), port), None if source is None else to_address(source))

    async def send_packed(
        self,
        data: bytes | bytearray | memoryview,
        to: tuple[Address, int] | None,
        source: Address | None = None,
    ) -> None:
        """`send` (`to` None) or `send_to` with packed addresses."""
        await checkpoint_if_cancelled()
        self._check_open()
        self._check_error()
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # without the view, a number would be so many zeros
        self.socket.send(data, self._pump.now(), to=to, source=source)
        self._pump.kick()
        await cancel_shielded_checkpoint()

    async def receive(self) -> Datagram:
        """The next datagram with all that is known of it; addresses are packed."""
        with self._receiving:
            await checkpoint_if_cancelled()
            datagram = self._take()
            if datagram is not None:
                await cancel_shielded_checkpoint()
                return datagram
            while datagram is None:
                await self._waiters.reader.wait()
                datagram = self._take()
            return datagram

    async def receive_from(self) -> tuple[bytes, tuple[str, int]]:
        """The next datagram and the (address, port) that it came from."""
        datagram = await self.receive()
        return bytes(datagram.data), (to_text(datagram.peer), datagram.peer_port)

    def _take(self) -> Datagram | None:
        self._check_open()
        self._check_error()
        return self.socket.receive_datagram()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this socket was closed")
        if self._pump.stopped:
            raise reason_error(Reason.STACK_CLOSED)

    def _check_error(self) -> None:
        reason = self.socket.take_error()
        if reason != Reason.NONE:
            raise reason_error(reason)

    def close(self) -> None:
        """Ends the socket, its sessions and their addresses. Idempotent; never waits."""
        if not self._closed:
            if not self._pump.stopped:
                self.socket.close(self._pump.now())
            self._closed = True
            self.socket.owner = None
            self._waiters.reader.wake()
            self._pump.kick()

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def __del__(self) -> None:
        if not self._closed and not self._pump.stopped:
            self._pump.close_later(self.socket)
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
