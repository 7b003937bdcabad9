"""What a test run may leave behind on the machine, and how it is found: namespaces, links, control sockets, processes.

Processes are known by an environment variable that they inherit; namespaces by the process id in their name. What
has no owner's mark (links, sockets) is compared with what was there before: a difference may be another run's.
"""

import os
import time
from pathlib import Path
from typing import Final

import attrs

from tun import netns
from umuxstack.control import place

SESSION_VARIABLE: Final = "UMUX_TEST_SESSION"
PATIENCE: Final = 2.0  # seconds that processes which were told to end may take


@attrs.frozen
class Scene:
    """What can be seen of us on the machine at one time."""

    links: frozenset[str]
    sockets: frozenset[str]


def look() -> Scene:
    """The links called umux* in this namespace, and the control sockets at their usual places."""
    links = frozenset(name for name in os.listdir("/sys/class/net") if name.startswith("umux"))
    sockets = frozenset(str(path) for path in place.candidates(os.environ, os.geteuid()))
    return Scene(links, sockets)


def begin() -> Scene:
    """Sweeps what crashed runs left, and marks the processes that this one starts."""
    if os.geteuid() == 0:
        netns.sweep()
    os.environ[SESSION_VARIABLE] = str(os.getpid())
    return look()


def certain() -> list[str]:
    """What is ours beyond doubt: processes that inherited our mark, namespaces that bear our number."""
    deadline = time.monotonic() + PATIENCE
    while (processes := _processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    named = [f"namespace {name}" for name in netns.names() if name.startswith(netns.owned_name(""))]
    return [f"process {process}" for process in processes] + named


def likely(before: Scene) -> list[str]:
    """What was not there before; removes the namespaces among it. Ours, if nobody else uses the machine."""
    now = look()
    swept = netns.sweep() if os.geteuid() == 0 else []
    return (
        [f"namespace {name}" for name in swept]
        + [f"link {name}" for name in sorted(now.links - before.links)]
        + [f"control socket {path}" for path in sorted(now.sockets - before.sockets)]
    )


def _processes() -> list[str]:
    mark = f"{SESSION_VARIABLE}={os.getpid()}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        if directory.name == str(os.getpid()):
            continue
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{directory.name} ({command.strip()})")
        except OSError:  # it has ended, or is another user's
            continue
    return found
