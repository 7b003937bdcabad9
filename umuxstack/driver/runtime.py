"""Host: one running stack on one link, and its verbs for trio programs.

    async with Host(link, config) as host:
        stream = await host.connect("2001:db8::1", 80)

Several hosts may live in one process; nothing is shared. The arguments of the
verbs are text and seconds; inside they are packed addresses and microseconds.
Wrong arguments raise `LocalError`s, what the network does raises `OSError`s, and so does
the end of the host (ENETDOWN).
"""

import gc
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv6Address
from math import isinf
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVarTuple, Unpack

import attrs
import trio

from umuxstack.core.address.scheme import Scheme
from umuxstack.core.config import StackConfig, TcpPolicy
from umuxstack.core.echo.reply import EchoReply
from umuxstack.core.echo.session import LARGEST
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import BadArgument, NotListening, Reason
from umuxstack.core.events import Event
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.listener import Listener
from umuxstack.core.names import check_number, check_seconds
from umuxstack.core.stack import Stack
from umuxstack.core.tcp import state as st
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import NEVER, Address, Micros, seconds
from umuxstack.core.wire.address import in_prefix, to_text
from umuxstack.driver.addresses import to_address, to_prefix
from umuxstack.driver.clock import Clock
from umuxstack.driver.datagrams import UmuxDatagramSocket
from umuxstack.driver.echo import UmuxPing
from umuxstack.driver.errno_map import reason_error
from umuxstack.driver.link import Link
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.pump import LinkState, Pump
from umuxstack.driver.record import Recorder
from umuxstack.driver.streams import UmuxStream
from umuxstack.driver.trio_sockets import UmuxHostnameResolver, UmuxSocketFactory

Arguments = TypeVarTuple("Arguments")


LINGER_PAUSE: Final = 0.01  # seconds between looks at what is still to be delivered


class Host:
    """One stack, its link and the task between them: `async with Host(…) as host`.

    `seed` (32 bytes, from the operating system by default) is all the randomness of the stack. `scheme`: the one that
    makes addresses, if not the one that `config` names. When the context ends without an exception, sessions that the
    application has closed get `linger` seconds to deliver what was written; then everything that is left is aborted,
    and the link is closed. `congestion`: algorithms of its own, by name (docs/congestion.md).
    `recorder`: writes all that goes in, for `umuxstack.driver.replay`.
    """

    def __init__(
        self,
        link: Link,
        config: StackConfig,
        seed: bytes | None = None,
        *,
        scheme: Scheme | None = None,
        linger: float = 1.0,
        congestion: Mapping[str, type] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        if recorder is not None and scheme is not None:
            raise BadArgument("a run with a key file cannot be recorded")
        check_seconds(linger, "linger")
        if seed is not None and not isinstance(seed, bytes):
            raise BadArgument(f"seed is a {type(seed).__name__}; it is bytes")
        self._recorder = recorder
        self.congestion: Mapping[str, type] = congestion or {}
        self.config = attrs.evolve(config, link=link.caps)
        self._link = link
        self._seed = os.urandom(32) if seed is None else seed
        self._scheme = scheme
        self._linger = linger
        self.before_choice: Callable[[Address], None] | None = None
        """Called with an SSA that a user chose, before the stack sees it: a key file records it here (UM-13)."""
        self._opened = False
        self._failed = False

    async def __aenter__(self) -> Self:
        if self._opened:
            raise RuntimeError("a Host runs once; make another")
        self._opened = True
        clock = Clock()
        if self._recorder is None:
            self.stack = Stack(
                self.config, Entropy(self._seed), clock.now(), scheme=self._scheme, congestion=self.congestion
            )
        else:
            self.stack = self._recorder.make_stack(self.config, self._seed, clock.now(), congestion=self.congestion)
        self.pump = Pump(self._link, self.stack, clock)
        self.socket_factory = UmuxSocketFactory(self)
        self.hostname_resolver = UmuxHostnameResolver(self.config.prefix)
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        self.start_soon(self.pump.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            if error is None and not self._failed:
                await self._deliver_rest()
        finally:
            try:
                with trio.CancelScope(shield=True):
                    await self.pump.end_sessions()
            finally:
                self.pump.stop()
            self._nursery.cancel_scope.cancel()
            if not self._failed:
                # The body's exception is not the nursery's: so it leaves as it is, not wrapped in a group.
                self._nursery.cancel_scope.shield = True
                await self._nursery_manager.__aexit__(None, None, None)
        if self._failed:
            return await self._nursery_manager.__aexit__(kind, error, traceback)
        return None

    async def end_sessions(self) -> None:
        """An end to all sessions, some at a time, after up to `linger` seconds for those that were closed.

        For a program with very many of them and a task for each: called before these tasks are cancelled, it lets
        them end a few at a time as well. Cancelled all at once they are a pause of seconds.
        """
        await self._deliver_rest()
        await self.pump.end_sessions()

    async def _deliver_rest(self) -> None:
        with trio.move_on_after(self._linger):
            while finishing := self.stack.finishing():
                while finishing:  # looking at all sessions each time would take longer than the pause, were they many
                    await trio.sleep(LINGER_PAUSE)
                    finishing = [
                        session for session in finishing if not session.ended and session.state != st.FIN_WAIT_2
                    ]

    def start_soon(self, function: Callable[[Unpack[Arguments]], Awaitable[object]], *arguments: *Arguments) -> None:
        """Runs a task beside the pump; it is cancelled when the host ends. If it fails, the host fails."""
        self._nursery.start_soon(self._watch, function, arguments)

    async def _watch(
        self, function: Callable[[Unpack[Arguments]], Awaitable[object]], arguments: tuple[*Arguments]
    ) -> None:
        try:
            await function(*arguments)
        except Exception:
            self._failed = True
            raise

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            why = ""
            if name in ("stack", "pump", "socket_factory", "hostname_resolver"):
                why = "; a Host runs, and has it, from `async with` on"
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{why}", name=name, obj=self)

    def running(self) -> Stack:
        """The stack, for a verb that begins something. Raises OSError once it has ended: nothing would ever come."""
        if self.pump.stopped:
            raise reason_error(Reason.STACK_CLOSED)
        return self.stack

    # the stack's time and output

    def now(self) -> Micros:
        """The stack's time: microseconds since the host started."""
        return self.pump.now()

    def kick(self) -> None:
        """After calling verbs of `stack` directly, from the trio thread: sends, wakes and re-arms. Never waits."""
        self.pump.kick()

    @property
    def link_state(self) -> LinkState:
        return self.pump.link_state

    def subscribe_events(self, limit: int = 1024) -> trio.MemoryReceiveChannel[Event]:
        """What happens from now on. A reader more than `limit` events behind loses some; close the channel to end."""
        return self.pump.subscribe(limit)

    def owns(self, address: Address) -> bool:
        """Whether `address` lies in our prefix or is one of our shared addresses."""
        config = self.config
        return in_prefix(address, config.prefix, config.prefix_length) or address in config.shared

    def shared_source(self, peer: str | IPv6Address) -> str:
        """The shared address to reach `peer` from (RFC 6724): a `source` for `connect` and `ping`."""
        return to_text(self.stack.shared_source(to_address(peer)))

    # verbs

    async def connect(
        self,
        peer: str | IPv6Address,
        port: int | None = None,
        *,
        source: str | IPv6Address | None = None,
        unified: bool | None = None,
        label: str = "",
        early: bytes = b"",
    ) -> UmuxStream:
        """A session with `peer`, from a fresh EA unless `source` is given (UM-15, UM-16).

        `port`: what a legacy server listens on; by default the fixed port. `unified`: whether the peer needs no
        port; by default as configured. `early`: the first data, sent with the SYN where TCP Fast Open can (the policy's
        `fast_open`; RFC 7413). Raises ConnectionRefusedError, TimeoutError and other OSErrors if the
        handshake fails. Cancelled, it leaves nothing.
        """
        if unified is not None and not isinstance(unified, bool):
            raise BadArgument(f"unified is {unified!r}; it is True, False, or None for as configured")
        return await self.connect_packed(
            to_address(peer),
            self.config.fixed_port if port is None else port,
            source=None if source is None else to_address(source),
            unified=unified,
            label=label,
            early=early,
        )

    async def connect_packed(
        self,
        peer: Address,
        port: int,
        *,
        source: Address | None,
        unified: bool | None = None,
        label: str = "",
        policy: TcpPolicy | None = None,
        early: bytes = b"",
    ) -> UmuxStream:
        """`connect` with packed addresses, and a policy of the session's own."""
        await trio.lowlevel.checkpoint_if_cancelled()
        stack = self.running()
        if (
            source is not None
            and self.before_choice is not None
            and in_prefix(source, self.config.prefix, self.config.prefix_length)
            and not self.stack.joins(source)
        ):
            self.before_choice(source)
        session = stack.connect(
            peer, port, self.now(), source=source, unified=unified, label=label, policy=policy, early=early
        )
        taken = session.unsent
        stream = UmuxStream(session, self.pump)
        self.kick()
        try:
            await stream.wait_connected()
            if taken < len(early):
                await stream.send_all(early[taken:])
        except BaseException:
            stream.abort()
            raise
        return stream

    async def listen(
        self, port: int = 0, *, address: str | IPv6Address | None = None, backlog: int = 128, name: str = ""
    ) -> UmuxListener:
        """A LISTEN_0 that accepts nothing until `das` (UM-20); with `address`, a service or a legacy listener."""
        await trio.lowlevel.checkpoint()
        concrete = None if address is None else to_address(address)
        listener = self.running().listen(self.now(), address=concrete, port=port, backlog=backlog, name=name)
        self.kick()
        return UmuxListener(listener, self.pump)

    def das(
        self,
        listener: UmuxListener | UmuxDatagramSocket | Listener | str | int,
        *,
        ssa: str | IPv6Address | None = None,
        peer: str | None = None,
        lifetime: float | None = None,
        label: str = "",
        grain: str = "session",
        pin: int = 128,
    ) -> ListenU | UdpDoor:
        """Delayed Address Setting (UM-21): opens one address for one session of `listener` (object, name or id).

        `ssa`: an address of ours, or None to mint one. `peer`: the address or prefix that alone may come.
        `lifetime`: seconds to wait for it; infinity is allowed, None is as configured. `grain`: "session" or
        "client", which `pin`s the first peer by its address (128) or its /64 (64) (UM-26). The address is in the
        result's `lease.address`.
        """
        stack = self.running()
        door: object = listener
        if isinstance(listener, UmuxListener):
            door = listener.listener
        elif isinstance(listener, UmuxDatagramSocket):
            door = listener.socket
        elif isinstance(listener, str | int):
            door = stack.find_listener(listener)
        if not isinstance(door, Listen0 | UdpSocket):
            raise NotListening("DAS needs a listener in LISTEN_0, or a UDP socket: one that is bound to no address")
        if lifetime is not None and not (isinstance(lifetime, int | float) and lifetime > 0):
            raise BadArgument(f"lifetime is {lifetime!r}; it is seconds, more than 0, and unlimited with infinity")
        chosen = None if ssa is None else to_address(ssa)
        if chosen is not None and self.before_choice is not None:
            self.before_choice(chosen)
        waiting = stack.das(
            door,
            self.now(),
            ssa=chosen,
            peer=None if peer is None else to_prefix(peer),
            lifetime=None if lifetime is None else NEVER if isinf(lifetime) else seconds(lifetime),
            label=label,
            grain=grain,
            pin=pin,
        )
        self.kick()
        return waiting

    def revoke(self, what: str | IPv6Address) -> None:
        """Ends a waiting SSA, given by its address or its name. Raises NoSuchObject."""
        named = isinstance(what, str) and ":" not in what
        self.running().revoke(str(what) if named else to_address(what), self.now())
        self.kick()

    async def datagram_socket(
        self, *, address: str | IPv6Address | None = None, port: int = 0, name: str = ""
    ) -> UmuxDatagramSocket:
        """A UDP socket. Without `address` it waits like a LISTEN_0 (UM-28), and sends from EAs (UM-18)."""
        await trio.lowlevel.checkpoint()
        concrete = None if address is None else to_address(address)
        socket = self.running().udp(self.now(), address=concrete, port=port, name=name)
        self.kick()
        return UmuxDatagramSocket(socket, self.pump)

    def open_ping(self, peer: str | IPv6Address, *, source: str | IPv6Address | None = None) -> UmuxPing:
        """An echo session with `peer`: requests as one likes. Close it when done."""
        concrete = None if source is None else to_address(source)
        return UmuxPing(self.running().ping(to_address(peer), self.now(), source=concrete), self.pump)

    async def ping(
        self,
        peer: str | IPv6Address,
        *,
        count: int = 1,
        interval: float = 1.0,
        timeout: float = 2.0,
        size: int = 56,
        source: str | IPv6Address | None = None,
    ) -> list[EchoReply | None]:
        """`count` echo requests of `size` bytes, one after another; for each its reply, or None after `timeout`."""
        check_number(count, "count", 0, 1 << 31)
        check_number(size, "size", 0, LARGEST)
        check_seconds(interval, "interval")
        check_seconds(timeout, "timeout")
        replies: list[EchoReply | None] = []
        async with self.open_ping(peer, source=source) as ping:
            for number in range(count):
                if number:
                    await trio.sleep(interval)
                replies.append(await ping.request(bytes(size), timeout=timeout))
        return replies

    @contextmanager
    def as_trio_network(self) -> Iterator[None]:
        """While this is open, trio's own sockets (`trio.open_tcp_stream`, `trio.serve_tcp`, …) live on this host.

        For the whole `trio.run`: trio keeps one socket factory and one resolver per run.
        """
        factory = trio.socket.set_custom_socket_factory(self.socket_factory)
        resolver = trio.socket.set_custom_hostname_resolver(self.hostname_resolver)
        try:
            yield
        finally:
            trio.socket.set_custom_socket_factory(factory)
            trio.socket.set_custom_hostname_resolver(resolver)


def settle_garbage_collector() -> None:
    """For a process that is a stack and nothing else (the command line): call once, after start.

    A full collection over a million sessions stops everything for 0.3 to 0.6 s. What exists now is never looked
    at again, and full collections become rare. In a library this would be the program's business, not ours.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
