"""The process behind `umux up`: host, control server and services under one roof, until a signal."""

import argparse
import contextlib
import logging
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import trio

from tun.errors import NameTaken
from umuxstack.cli import output
from umuxstack.cli.common import INTERRUPTED, OK, USAGE, Failure, refused_device
from umuxstack.cli.services import serve
from umuxstack.cli.settings import Settings, settings
from umuxstack.control import place
from umuxstack.control.server import Access, ControlServer
from umuxstack.core.wire.address import to_text
from umuxstack.driver.runtime import Host, settle_garbage_collector
from umuxstack.host import open_host

_MANY: Final = 1000  # sessions: their tasks, cancelled at one moment, would be a pause that is noticed
_MOST_NAMES: Final = 4096
_NOT_STARTED: Final = "the stack cannot start: "
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(arguments: argparse.Namespace) -> int:
    """Runs until it is told to end; everything that was made is removed then."""
    wanted = settings(arguments)
    _log(quiet=arguments.quiet)
    _allow_many_descriptors()
    access = Access(uids=frozenset(_user_id(user) for user in wanted.users), gids=_group_ids(wanted.group))
    kernel_cores: frozenset[int] = frozenset()
    if wanted.core is not None:
        kernel_cores = frozenset(os.sched_getaffinity(0) - {wanted.core})
        os.sched_setaffinity(0, {wanted.core})
    path = wanted.socket or os.environ.get("UMUX_SOCKET")
    for tun in [wanted.tun] if wanted.tun else _free_names():
        name = wanted.name or tun
        where = Path(path) if path else place.default_path(name, os.environ, os.geteuid())
        try:
            bound = place.BoundSocket(where, group=wanted.group, open_to_all=bool(wanted.users))
        except place.PlaceTaken:
            if wanted.tun or wanted.name or path:
                raise
            continue
        try:
            return trio.run(_run, wanted, tun, name, bound, access, kernel_cores, arguments)
        except NameTaken as error:
            if wanted.tun:
                raise refused_device(error, _NOT_STARTED) from error
        finally:
            bound.close()
    raise Failure("every name from umux0 on is taken", "`ip link` shows them; choose another with --tun")


def _log(*, quiet: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )


def _allow_many_descriptors() -> None:
    """Every session in the hands of another process needs one; the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _free_names() -> Iterator[str]:
    """Names to try. Whether one is free is known only once it is ours: another stack may start at the same moment,
    and a device in another namespace is not seen from here, while its control socket is.
    """
    for number in range(_MOST_NAMES):
        if not Path(f"/sys/class/net/umux{number}").exists():
            yield f"umux{number}"


def _user_id(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        if user.isdecimal() and int(user) < place.LARGEST_ID:
            return int(user)
        raise Failure(f"there is no user {user!r}", "`getent passwd` lists them", USAGE) from None


def _group_ids(group: str | None) -> frozenset[int]:
    number = place.group_id(group)
    return frozenset() if number is None else frozenset({number})


async def _run(
    wanted: Settings,
    tun: str,
    name: str,
    bound: place.BoundSocket,
    access: Access,
    kernel_cores: frozenset[int],
    arguments: argparse.Namespace,
) -> int:
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with contextlib.AsyncExitStack() as opened:
            try:
                host = await opened.enter_async_context(
                    open_host(
                        config=wanted.config,
                        tun_name=tun,
                        namespace=wanted.namespace,
                        mtu=wanted.mtu,
                        offload=wanted.offload,
                        kernel_cores=kernel_cores,
                        kernel_address=wanted.kernel_address,
                        key_file=wanted.key_file,
                        congestion=wanted.algorithms,
                        capture=sys.stdout.fileno() if wanted.capture == "-" else wanted.capture,
                        qlog=wanted.qlog,
                        record=wanted.record,
                    )
                )
            except NameTaken:
                raise
            except OSError as error:
                raise refused_device(error, _NOT_STARTED) from error
            return await _live(host, wanted, tun, name, bound, access, signals, arguments)


async def _live(
    host: Host,
    wanted: Settings,
    tun: str,
    name: str,
    bound: place.BoundSocket,
    access: Access,
    signals: AsyncIterator[int],
    arguments: argparse.Namespace,
) -> int:
    server = ControlServer(host, bound, name=name, link_name=tun, access=access)
    code = OK
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        for service in wanted.serve:
            await nursery.start(serve, host, service)
        settle_garbage_collector()
        with contextlib.suppress(BrokenPipeError):  # nobody wants to know
            quiet = arguments.quiet or wanted.capture == "-"  # standard output is the capture's then
            _tell(host, wanted, tun, name, bound.path, as_json=arguments.json and not quiet, quiet=quiet)

        async def end() -> None:
            if len(list(host.stack.sessions())) > _MANY:
                await host.end_sessions()
            nursery.cancel_scope.cancel()

        async def until_shutdown() -> None:
            await server.shutdown_requested.wait()
            await end()

        nursery.start_soon(until_shutdown)
        async for number in signals:
            code = INTERRUPTED if number == signal.SIGINT else OK
            await end()
            break
    return code


def _tell(host: Host, wanted: Settings, tun: str, name: str, path: Path, *, as_json: bool, quiet: bool) -> None:
    config = host.config
    prefix = f"{to_text(config.prefix)}/{config.prefix_length}"
    if as_json:
        output.say_json_line(
            {
                "name": name,
                "pid": os.getpid(),
                "socket": str(path),
                "tun": tun,
                "prefix": prefix,
                "mtu": config.link.mtu,
                "segmentation": config.link.segmentation,
                "checksum": config.link.checksum,
                "scheme": config.scheme,
                "shared": [to_text(address) for address in config.shared],
                "listeners": [listener.name for listener in host.stack.listeners()],
            }
        )
        return
    if quiet:
        return
    offload = "with offload" if config.link.segmentation else "without offload"
    keys = f", key file {wanted.key_file}" if wanted.key_file else ""
    option = "" if place.default_path(name, os.environ, os.geteuid()) == path else f" --socket {path}"
    lines = [
        f"stack {name} is up",
        f"  link       {tun}, mtu {config.link.mtu}, {offload}"
        + (f", namespace {wanted.namespace}" if wanted.namespace else ""),
        f"  prefix     {prefix}, routed to {tun}; addresses {config.scheme}{keys}",
        f"  strangers  meet {'silence' if config.silence else 'the answers of RFC 9293 and 4443'}",
        f"  control    {path}",
        *(f"  shared     {to_text(address)}" for address in config.shared),
        *(f"  service    {service} stands in LISTEN_0: nobody can reach it yet" for service in wanted.serve),
        "try, in another terminal:",
        *_suggestions(wanted, option),
    ]
    if wanted.namespace is None and not _kernel_has_a_source(host):
        lines.append("note: this machine has no IPv6 address to come from; --kernel-address fd00:75::1 gives it one")
    output.say(*lines, "Ctrl-C ends the stack and removes all this.")


def _suggestions(wanted: Settings, option: str) -> list[str]:
    inside = f"ip netns exec {wanted.namespace} " if wanted.namespace else ""
    if "hello" in wanted.serve:
        first = [f'  {inside}curl "http://[$(umux das add hello{option})]/"']
    elif "echo" in wanted.serve:
        first = [f"  umux das add echo{option}"]
    else:
        first = [f"  umux nc -l --das{option}", f"  umux das add NAME{option}"]
    return [*first, f"  umux ss{option}", f"  umux events{option}"]


def _kernel_has_a_source(host: Host) -> bool:
    """Whether the kernel would find an address to reach the stack from. Sends nothing."""
    target = bytearray(host.config.prefix)
    target[-1] |= 1
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((socket.inet_ntop(socket.AF_INET6, bytes(target)), 9))
        return str(probe.getsockname()[0]) != "::1"
    return False
