"""The composition root: from a prefix in text to a running host on a TUN device.

The only module that opens devices. Puts together link, configuration, key file
and host, in that order, and takes them apart in the reverse one, whatever
happens; nothing is left behind but the key file.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv6Interface
from typing import Any, Final

import attrs
import trio

from tun import netns
from tun.device import TunDevice
from tun.errors import AlreadyExists
from tun.netlink import Netlink
from tun.watch import LinkWatch
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import Scheme
from umuxstack.core.config import StackConfig
from umuxstack.core.errors import AddressMalformed, BadArgument
from umuxstack.core.units import Address
from umuxstack.core.wire.address import in_prefix, to_text
from umuxstack.driver.addresses import several, to_address, to_prefix
from umuxstack.driver.congestion_loader import register_spec
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.link import Link
from umuxstack.driver.links.pcap import PcapLink
from umuxstack.driver.links.pcapng import Sink
from umuxstack.driver.qlog import QlogWriter
from umuxstack.driver.readiness import Seat
from umuxstack.driver.record import Recorder
from umuxstack.driver.runtime import Host
from umuxstack.keyfile import KeyFile, Ledger

logger = logging.getLogger("umuxstack")

GRANT_RETRY: Final = 1.0  # seconds after the key file could not be written


def make_config(
    prefix: str, *, shared: Iterable[str] = (), unified_peers: Iterable[str] = (), **settings: Any
) -> StackConfig:
    """A `StackConfig` out of text: "2001:db8:1::/64", shared (legacy) addresses, prefixes of unified peers.

    `settings` are other fields of StackConfig. Raises BadArgument and AddressMalformed.
    """
    network, length = to_prefix(prefix)
    try:
        return StackConfig(
            prefix=network,
            prefix_length=length,
            shared=tuple(to_address(text) for text in several(shared, "shared")),
            unified_peers=tuple(to_prefix(text) for text in several(unified_peers, "unified_peers")),
            **settings,
        )
    except TypeError as error:
        raise BadArgument(f"no such setting: {error}") from None


@attrs.frozen
class _TunSettings:
    """How the device is made; also when it has to be made again."""

    name: str | None
    namespace: netns.Namespace | None
    mtu: int
    offload: bool
    kernel_cores: tuple[int, ...]
    routes: tuple[str, ...]
    kernel_address: str | None

    def restore(self, name: str) -> None:
        """Puts back the routes and the address that the kernel took away when somebody set the link down."""
        try:
            with Netlink(self.namespace) as netlink:
                self._lead_to(netlink, name)
        except OSError as error:
            logger.warning("umuxstack: what leads to %s is not as it was: %s", name, error)

    def _lead_to(self, netlink: Netlink, name: str) -> None:
        for prefix in self.routes:
            _add_route(netlink, prefix, name)
        if self.kernel_address is not None:
            with suppress(AlreadyExists):
                netlink.add_address(name, self.kernel_address)

    def open(self) -> TunDevice:
        """Makes the device and brings it up, with its routes. Raises TunError; nothing is left then."""
        make = partial(TunDevice, self.name, mtu=self.mtu, offload=self.offload, kernel_cores=self.kernel_cores)
        device = make() if self.namespace is None else self.namespace.run(make)
        try:
            with Netlink(self.namespace) as netlink:
                netlink.quiet(device.name)
                netlink.up(device.name)
                self._lead_to(netlink, device.name)
        except BaseException:
            device.close()
            raise
        return device


def _check_device(
    config: StackConfig,
    texts: Mapping[str, object],
    flags: Mapping[str, object],
    mtu: object,
    kernel_cores: object,
    kernel_address: object,
) -> None:
    """Raises BadArgument and AddressMalformed for what can be no device's; the rest is the kernel's to refuse."""
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise BadArgument(f"{name} is {value!r}; it is text")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise BadArgument(f"{name} is {value!r}; it is True or False")
    if not isinstance(mtu, int) or isinstance(mtu, bool):
        raise BadArgument(f"mtu is {mtu!r}; it is a number of bytes")
    if not isinstance(kernel_cores, Collection):
        raise BadArgument(f"kernel_cores is {kernel_cores!r}; it is a list, of one if there is one alone")
    last = (os.cpu_count() or 1) - 1
    for core in kernel_cores:
        if not isinstance(core, int) or not 0 <= core <= last:
            raise BadArgument(f"kernel_cores names core {core!r}; this machine has 0 to {last}")
    if kernel_address is None:
        return
    try:
        kernel = to_address(IPv6Interface(str(kernel_address)).ip)
    except ValueError:
        raise AddressMalformed(f"kernel_address is {kernel_address!r}, not an IPv6 address") from None
    if in_prefix(kernel, config.prefix, config.prefix_length) or kernel in config.shared:
        raise BadArgument(
            f"kernel_address {kernel_address} is one of the stack's own addresses; "
            "choose one outside of the prefix, like fd00:75::1"
        )


def _add_route(netlink: Netlink, prefix: str, name: str) -> None:
    try:
        netlink.add_route(prefix, device=name)
    except AlreadyExists:
        if all((route.prefix, route.device) != (prefix, name) for route in netlink.routes()):
            raise  # it leads elsewhere


@asynccontextmanager
async def open_host(
    *,
    prefix: str = "",
    config: StackConfig | None = None,
    link: Link | None = None,
    tun_name: str | None = None,
    namespace: str | None = None,
    mtu: int = 1500,
    offload: bool = True,
    kernel_cores: Collection[int] = (),
    route: bool = True,
    kernel_address: str | None = None,
    key_file: str | os.PathLike[str] | None = None,
    congestion: str | Mapping[str, type] | None = None,
    capture: str | os.PathLike[str] | int | None = None,
    qlog: str | os.PathLike[str] | None = None,
    record: str | os.PathLike[str] | None = None,
    seed: bytes | None = None,
    linger: float = 1.0,
    **settings: Any,
) -> AsyncIterator[Host]:
    """A running host: `async with open_host(prefix="2001:db8:1::/64") as host`.

    Either `prefix` and other arguments of `make_config`, or a finished `config`. The link is a new TUN device, brought
    up, with a route of the prefix and the shared addresses to it (unless `route` is false), in the network
    namespace of that name if one is given; or `link`, whatever it is.

    `kernel_cores`: on which cores this machine's kernel receives what we send; (): on ours, within our writing. With
    the process on a core of its own and the kernel on the others, small packets cost it less (docs/speed.md).
    `tun_name`: up to 15 bytes, "umux%d" by default. `mtu` in bytes. `kernel_address`: one more address outside of the
    prefix, given to the kernel's side of the TUN, so that the kernel itself has a source to talk to us from. A device
    that was deleted is made again; one that was set down gets routes and address back with the link.
    `key_file`: keeps the sealed scheme's key, so that no address is issued twice over restarts (UM-13).
    `congestion`: the algorithm of all sessions by name or as "mine.py:Mine" (docs/congestion.md), or algorithms to
    choose from, by name. `capture`: a file or descriptor for a pcapng capture of the link; `qlog`: a folder for the
    logs of sessions; `record`: a file for `umux replay`, which will hold the stack's secrets.
    `seed` and `linger` are `Host`'s.

    Raises LocalError (arguments, key file) and OSError (device, with the way out in the message).
    """
    if config is None and not prefix:
        raise AddressMalformed(
            'which addresses are the stack\'s? Give a prefix, like prefix="2001:db8:1::/64", or a config'
        )
    if config is None:
        config = make_config(prefix, **settings)
    elif prefix or settings:
        raise BadArgument("either a finished config, or a prefix and settings")
    if key_file is not None and config.scheme != "sealed":
        raise BadArgument(f"a key file is for the scheme 'sealed', not {config.scheme!r}")
    _check_device(
        config,
        {"tun_name": tun_name, "namespace": namespace},
        {"offload": offload, "route": route},
        mtu,
        kernel_cores,
        kernel_address,
    )
    algorithms: dict[str, type] = {}
    if isinstance(congestion, Mapping):
        algorithms.update(congestion)
    elif congestion is not None:
        name = register_spec(congestion, algorithms)
        config = attrs.evolve(config, tcp=attrs.evolve(config.tcp, congestion=name))
    watch: LinkWatch | None = None
    async with AsyncExitStack() as opened:
        if link is None:
            where = None if namespace is None else opened.enter_context(netns.open_named(namespace))
            routes = _routes(config) if route else ()
            tun = _TunSettings(tun_name, where, mtu, offload, tuple(kernel_cores), routes, kernel_address)
            device = tun.open()
            link = FdLink(device, reopen=attrs.evolve(tun, name=device.name).open)
            opened.callback(link.close)
            watch = opened.enter_context(LinkWatch(where))
        ledger: Ledger | None = None
        scheme: Scheme | None = None
        if key_file is not None:
            file = opened.enter_context(KeyFile.open(key_file))
            ledger = file.ledger(Prefix(config.prefix, config.prefix_length))
            scheme = ledger.scheme()
        tap = None
        if capture is not None:
            link = tap = PcapLink(link, Sink(capture), name=tun_name or "umux")
            opened.callback(tap.close)
        logs = opened.enter_context(ExitStack())  # outlives the host, whose last turn is logged too
        recorder = None if record is None else opened.enter_context(Recorder(record))
        host = await opened.enter_async_context(
            Host(link, config, seed, scheme=scheme, linger=linger, congestion=algorithms, recorder=recorder)
        )
        if watch is not None:
            host.start_soon(_keep_led_to, watch, device.name, tun.restore)
        if tap is not None:
            tap.follow(host)
        if ledger is not None:
            _use_ledger(host, ledger)
        if qlog is not None:
            log = QlogWriter(host.stack, qlog)
            logs.callback(log.close)
            _keep_log(host, log)
        yield host


async def _keep_led_to(watch: LinkWatch, name: str, restore: Callable[[str], None]) -> None:
    """A link that is set down and up again keeps its routes, also if the host has nothing to send meanwhile."""
    down = False
    while True:
        await trio.lowlevel.wait_readable(watch.fileno())
        for link, up in watch.changes():
            if link == name:
                if up and down:
                    await trio.to_thread.run_sync(restore, name)
                down = not up


def _keep_log(host: Host, log: QlogWriter) -> None:
    """After each turn of the pump what the sessions did is written, and what became of leases."""
    before = host.pump.after_flush
    events = host.subscribe_events(1 << 16)

    def drain() -> None:
        if before is not None:
            before()
        log.drain()
        try:
            while True:
                log.note(events.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass

    host.pump.after_flush = drain


def _routes(config: StackConfig) -> tuple[str, ...]:
    return (f"{to_text(config.prefix)}/{config.prefix_length}", *(f"{to_text(a)}/128" for a in config.shared))


def _use_ledger(host: Host, ledger: Ledger) -> None:
    """The key file runs ahead of the stack: what is not recorded there is not issued (UM-13)."""
    pool = host.stack.pool
    wanted = Seat()

    def look() -> None:
        if pool.scheme.wants_grant:
            wanted.wake()

    async def keep_granted() -> None:
        while True:
            while not pool.scheme.wants_grant:
                await wanted.wait()
            try:
                ceiling = await trio.to_thread.run_sync(ledger.grant)
            except OSError as error:
                logger.warning("umuxstack: the key file cannot be written, addresses may run out: %s", error)
                await trio.sleep(GRANT_RETRY)
            else:
                pool.grant(ceiling)
                host.kick()

    def admit(address: Address) -> None:
        ledger.admit(pool, address)

    host.pump.after_flush = look
    host.before_choice = admit
    host.start_soon(keep_granted)
