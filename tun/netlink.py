"""Links, addresses and routes of one network namespace, by netlink; IPv6's, and IPv4's where it is said.

Owns a thread: it lives in the namespace, and holds pyroute2, which runs an
asyncio loop of its own, away from the caller's trio. Calls block for about a
millisecond. Knows names and text addresses, as an administrator writes them.
"""

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

import attrs
from pyroute2 import IPRoute, NetlinkError

from tun.errors import (
    PRIVILEGE_FIX,
    AlreadyExists,
    LinkMissing,
    MtuOutOfRange,
    NetlinkRefused,
    NotThere,
    PermissionDenied,
    SysctlFailed,
    TunError,
)
from tun.netns import Namespace

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

IFF_UP: Final = 1
IFA_F_NODAD: Final = 2
ADDR_GEN_MODE_NONE: Final = "1"  # no link-local address by itself
ADDRESS_PATIENCE: Final = 2.0  # seconds
ADDRESS_PAUSE: Final = 0.002  # seconds
SYSCTL: Final = Path("/proc/sys/net")
OPERSTATES: Final = {
    0: "UNKNOWN", 1: "NOTPRESENT", 2: "DOWN", 3: "LOWERLAYERDOWN", 4: "TESTING", 5: "DORMANT", 6: "UP",
}  # fmt: skip
ROUTE_TYPES: Final = {1: "unicast", 2: "local", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable"}


@attrs.frozen
class LinkState:
    """One interface as the kernel shows it. `up`: set up by the administrator; `operstate`: what came of it.

    A TUN that is up has the operstate UNKNOWN until somebody reads it, and is fit for use.
    """

    index: int
    name: str
    up: bool
    operstate: str
    mtu: int  # bytes
    txqueuelen: int  # packets


@attrs.frozen
class Route:
    """One IPv6 route. `prefix` as text; `gateway` None: on the link itself."""

    prefix: str
    device: str | None
    gateway: str | None
    kind: str  # unicast, local, ...
    table: int
    metric: int


class Netlink:
    """Changes and shows one namespace; None: that of the calling thread when this is made.

    All of it raises `PermissionDenied`, `LinkMissing`, or `NetlinkRefused` with the kernel's words.
    Close it, or use it in a `with`.
    """

    __slots__ = ("_closed", "_executor", "_ipr")

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._closed = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="umux-netlink")
        try:
            # A new thread starts in the namespace of the thread that starts it.
            self._ipr: Any = self._executor.submit(_open, namespace).result()
        except BaseException:
            self._executor.shutdown()
            raise

    def close(self) -> None:
        """Ends the thread and its socket. Again: nothing."""
        if not self._closed:
            self._closed = True
            try:
                self._executor.submit(self._ipr.close).result()
            finally:
                self._executor.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Links

    def exists(self, name: str) -> bool:
        """Whether there is an interface by this name."""
        try:
            self.index(name)
        except LinkMissing:
            return False
        return True

    def index(self, name: str) -> int:
        """The interface's number in this namespace."""
        return self._call(_index, name)

    def links(self) -> list[LinkState]:
        """All interfaces, by index."""
        return self._ask("listing links", lambda: [_link_state(message) for message in self._ipr.get_links()])

    def link(self, name: str) -> LinkState:
        """One interface."""
        index = self.index(name)
        return self._ask(
            f"looking at {name}", lambda: [_link_state(message) for message in self._ipr.get_links(index)]
        )[0]

    def up(self, name: str) -> None:
        """Brings the link up. A link's routes are not kept while it is down: add them afterwards."""
        self._change_link(name, state="up")

    def down(self, name: str) -> None:
        """Takes the link down; the kernel forgets its IPv6 addresses and routes."""
        self._change_link(name, state="down")

    def set_mtu(self, name: str, mtu: int) -> None:
        """In bytes. `MtuOutOfRange` when the device does not take it, or IPv6 (1280) would not run on it."""
        if mtu < 1280:
            raise MtuOutOfRange(errno.EINVAL, f"MTU {mtu} of {name}: IPv6 needs at least 1280 (RFC 8200 section 5)")
        try:
            self._change_link(name, mtu=mtu)
        except NetlinkRefused as error:
            if error.errno not in (errno.EINVAL, errno.ERANGE):
                raise
            raise MtuOutOfRange(errno.EINVAL, f"{name} does not take an MTU of {mtu}: choose a smaller one") from error

    def set_txqueuelen(self, name: str, packets: int) -> None:
        """How many packets may wait for the device's reader."""
        self._change_link(name, txqlen=packets)

    def add_veth(self, name: str, peer: str, peer_namespace: Namespace | None = None) -> None:
        """A pair of Ethernet ends joined by a wire, both down; the peer in the given namespace, or in this one."""
        far: dict[str, Any] = {"ifname": peer}
        if peer_namespace is not None:
            far["net_ns_fd"] = peer_namespace.fileno()
        self._ask(
            f"making the veth pair {name} and {peer}",
            lambda: self._ipr.link("add", ifname=name, kind="veth", peer=far),
        )

    def delete_link(self, name: str) -> None:
        """Removes an interface; a veth takes its peer along."""
        index = self.index(name)
        self._ask(f"deleting {name}", lambda: self._ipr.link("del", index=index))

    def quiet(self, name: str) -> None:
        """No link-local address, no router advertisements, no duplicate address detection. To be done before `up`.

        Without it the kernel sends MLD and router solicitations into the device, and addresses take a second or two.
        """
        if self.sysctl(f"ipv6/conf/{name}/disable_ipv6") == "1":
            self.set_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0")
        self.set_sysctl(f"ipv6/conf/{name}/addr_gen_mode", ADDR_GEN_MODE_NONE)
        self.set_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
        self.set_sysctl(f"ipv6/conf/{name}/accept_dad", "0")

    # Addresses

    def add_address(self, name: str, address: str) -> None:
        """Gives the link an address ("2001:db8::1/64"; without a length: /128), usable at once (nodad). Or one of IPv4.

        The kernel makes its route in the background, on a link that is up; we wait for that (up to 70 ms were seen).
        """
        interface = ipaddress.ip_interface(address)
        index = self.index(name)
        self._ask(
            f"adding {interface} to {name}",
            lambda: self._ipr.addr(
                "add",
                index=index,
                family=_family(interface),
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                flags=IFA_F_NODAD if interface.version == 6 else 0,
            ),
        )
        deadline = time.monotonic() + ADDRESS_PATIENCE
        while self.link(name).up and not self._is_local(interface.ip, index) and time.monotonic() < deadline:
            time.sleep(ADDRESS_PAUSE)

    def _is_local(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, index: int) -> bool:
        """Whether the kernel would take a packet to this address for its own. `index`: the link that it is on."""
        request: dict[str, Any] = {"family": _family(address), "dst": str(address)}
        if address.is_link_local:
            request["oif"] = index
        try:
            found = self._ask(f"looking for the route to {address}", lambda: list(self._ipr.route("get", **request)))
        except NetlinkRefused:
            return False
        return any(ROUTE_TYPES.get(message["type"]) == "local" for message in found)

    def remove_address(self, name: str, address: str) -> None:
        """Takes an address from the link. `NotThere` if it has none such."""
        interface = ipaddress.IPv6Interface(address)
        index = self.index(name)
        self._ask(
            f"removing {interface} from {name}",
            lambda: self._ipr.addr(
                "del",
                index=index,
                family=socket.AF_INET6,
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
            ),
        )

    def addresses(self, name: str) -> list[str]:
        """The link's IPv6 addresses, with prefix length."""
        index = self.index(name)

        def collect() -> list[str]:
            return [
                f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
                for message in self._ipr.get_addr(family=socket.AF_INET6)
                if message["index"] == index
            ]

        return self._ask(f"listing the addresses of {name}", collect)

    # Routes

    def add_route(
        self, prefix: str, *, device: str | None = None, gateway: str | None = None, mtu: int | None = None
    ) -> None:
        """Sends `prefix` ("2001:db8:1::/64", "::/0" or "0.0.0.0/0" for the default) to a device, a gateway, or a
        gateway on a device.

        `mtu` in bytes is what TCP of the kernel may assume to these destinations. `AlreadyExists` when the prefix
        has a route of the same metric: nothing is replaced.
        """
        if device is None and gateway is None:
            raise NetlinkRefused(errno.EINVAL, f"a route to {prefix} needs a device or a gateway")
        request = self._route(prefix, device, gateway)
        if mtu is not None:
            request["metrics"] = {"mtu": mtu}
        self._ask(f"adding the route to {prefix}", lambda: self._ipr.route("add", **request))

    def add_local_route(self, prefix: str, device: str = "lo") -> None:
        """Makes every address of `prefix` this namespace's own, for kernel sockets (`ip -6 route add local`).

        Sockets bound to `::` receive on all of them; binding to one of them needs IPV6_FREEBIND.
        """
        request = self._route(prefix, device, None) | {"type": "local", "table": 255}
        self._ask(f"adding the local route to {prefix}", lambda: self._ipr.route("add", **request))

    def remove_route(self, prefix: str, *, device: str | None = None, gateway: str | None = None) -> None:
        """Removes one route to `prefix`. `NotThere` when there is none such."""
        request = self._route(prefix, device, gateway)
        self._ask(f"removing the route to {prefix}", lambda: self._ipr.route("del", **request))

    def routes(self) -> list[Route]:
        """All IPv6 routes, those of the local table included."""

        def collect() -> list[Route]:
            devices = {message["index"]: message.get_attr("IFLA_IFNAME") for message in self._ipr.get_links()}
            return [_route(message, devices) for message in self._ipr.get_routes(family=socket.AF_INET6)]

        return self._ask("listing routes", collect)

    # The namespace as a whole

    def set_forwarding(self, *, on: bool) -> None:
        """Whether the kernel passes IPv6 packets on between links. On, it ignores router advertisements on all."""
        self.set_sysctl("ipv6/conf/all/forwarding", "1" if on else "0")

    def sysctl(self, path: str) -> str:
        """A setting under net, in this namespace ("ipv6/conf/all/forwarding")."""
        return self._call(_read_sysctl, path)

    def set_sysctl(self, path: str, value: str) -> None:
        """Changes a setting under net, in this namespace. Raises `SysctlFailed`, `PermissionDenied`."""
        self._call(_write_sysctl, path, value)

    def _call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        if self._closed:
            raise NetlinkRefused(errno.EBADF, "this Netlink is closed: make a new one")
        return self._executor.submit(function, *args, **kwargs).result()

    def _ask(self, what: str, function: Callable[[], Result]) -> Result:
        try:
            return self._call(function)
        except NetlinkError as error:
            raise _explained(what, int(error.code)) from error

    def _change_link(self, name: str, **values: Any) -> None:
        index = self.index(name)
        self._ask(f"setting {name}", lambda: self._ipr.link("set", index=index, **values))

    def _route(self, prefix: str, device: str | None, gateway: str | None) -> dict[str, Any]:
        # The family must be named: for "default" an IPv4 route would be made, silently.
        network = ipaddress.ip_network(prefix)
        request: dict[str, Any] = {"family": _family(network), "dst": str(network)}
        if device is not None:
            request["oif"] = self.index(device)
        if gateway is not None:
            request["gateway"] = str(ipaddress.ip_address(gateway))
        return request


def _family(what: Any) -> int:
    """Of something that `ipaddress` made."""
    return socket.AF_INET6 if what.version == 6 else socket.AF_INET


def _open(namespace: Namespace | None) -> Any:
    if namespace is not None:
        namespace.enter_for_good()
    return IPRoute()


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise LinkMissing(
            errno.ENODEV, f"there is no interface {name!r} here: `ip link` lists those there are"
        ) from error


def _read_sysctl(path: str) -> str:
    try:
        return (SYSCTL / path).read_text().strip()
    except OSError as error:
        raise _sysctl_explained(path, error) from error


def _write_sysctl(path: str, value: str) -> None:
    try:
        (SYSCTL / path).write_text(value)
    except OSError as error:
        raise _sysctl_explained(path, error) from error


def _sysctl_explained(path: str, error: OSError) -> TunError:
    code = error.errno or errno.EIO
    file = SYSCTL / path
    if code == errno.ENOENT and path.startswith("ipv6/") and not (SYSCTL / "ipv6").exists():
        return SysctlFailed(code, f"{file}: this kernel runs without IPv6: boot without `ipv6.disable=1`")
    if code == errno.EROFS:
        return SysctlFailed(
            code, f"{file} is read-only: `mount -o remount,rw /proc/sys`, or a container with `--privileged`"
        )
    if code in (errno.EACCES, errno.EPERM):
        return PermissionDenied(code, f"{file} may not be changed: {PRIVILEGE_FIX}")
    return SysctlFailed(code, f"{file}: {os.strerror(code)}")


def _link_state(message: Any) -> LinkState:
    state = message.get_attr("IFLA_OPERSTATE")
    return LinkState(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        up=bool(message["flags"] & IFF_UP),
        operstate=OPERSTATES.get(state, str(state)) if isinstance(state, int) else str(state),
        mtu=message.get_attr("IFLA_MTU"),
        txqueuelen=message.get_attr("IFLA_TXQLEN"),
    )


def _route(message: Any, devices: dict[int, str]) -> Route:
    destination = message.get_attr("RTA_DST") or "::"
    oif = message.get_attr("RTA_OIF")
    return Route(
        prefix=f"{destination}/{message['dst_len']}",
        device=None if oif is None else devices.get(oif, str(oif)),
        gateway=message.get_attr("RTA_GATEWAY"),
        kind=ROUTE_TYPES.get(message["type"], str(message["type"])),
        table=message.get_attr("RTA_TABLE") or message["table"],
        metric=message.get_attr("RTA_PRIORITY") or 0,
    )


def _explained(what: str, code: int) -> TunError:
    words = f"{what}: {os.strerror(code)}"
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(code, f"{what} needs CAP_NET_ADMIN: {PRIVILEGE_FIX}")
    if code == errno.ENODEV:
        return LinkMissing(code, f"{words}: `ip link` lists the interfaces there are")
    if code == errno.EEXIST:
        return AlreadyExists(code, f"{words}: see `ip -6 route`, `ip -6 address`, `ip link`, and remove it or keep it")
    if code in (errno.ESRCH, errno.EADDRNOTAVAIL):
        return NotThere(code, f"{words}: see `ip -6 route` and `ip -6 address` for what there is")
    if code in (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH):
        return NetlinkRefused(code, f"{words}: bring the link up first, and give the gateway a route")
    return NetlinkRefused(code, words)
