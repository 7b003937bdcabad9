"""What this machine allows, for `umux doctor`: each finding with its cause and the command that mends it.

Changes nothing that stays: a device and a namespace are made and given back.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from tun import netns
from tun.device import TunDevice
from tun.errors import PRIVILEGE_FIX, TunError, opening_failed
from tun.openers import CONTROL_PATH, pytun_is_importable

CAP_NET_ADMIN: Final = 12  # <linux/capability.h>

# A process with several threads may not make a user namespace, so a fresh interpreter tries.
# It prints which step failed, and with which errno.
TRY_USER_NAMESPACE: Final = """
import ctypes, fcntl, os, struct
if os.geteuid() == 0:
    try:
        os.setgroups([]), os.setgid(65534), os.setuid(65534)  # to ask for somebody who is not root
    except OSError:
        print("inside", 0)  # a root who may not become another user is that of a user namespace
        raise SystemExit
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x40000000):  # CLONE_NEWUSER | CLONE_NEWNET
    print("unshare", ctypes.get_errno())
else:
    try:
        fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), 0x400454CA, struct.pack("16sH22x", b"umux%d", 0x5001))
        print("ok", 0)
    except OSError as error:
        print("tun", error.errno)
"""


class Finding(NamedTuple):
    """`fix` is a command or an advice, empty when there is nothing to mend."""

    name: str
    ok: bool
    detail: str
    fix: str


def probe() -> list[Finding]:
    """All findings, in the order in which a newcomer meets them. Takes about a fifth of a second."""
    device, offload = _device()
    return [
        _control_file(),
        _capability(),
        _opener(),
        device,
        offload,
        _ipv6(),
        _namespaces(),
        _user_namespaces(),
    ]


def _control_file() -> Finding:
    name = f"{CONTROL_PATH} can be opened"
    try:
        os.close(os.open(CONTROL_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return _failed(name, opening_failed(error, CONTROL_PATH))
    return Finding(name, True, "present", "")


def _capability() -> Finding:
    name = "CAP_NET_ADMIN"
    status = Path("/proc/thread-self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if effective >> CAP_NET_ADMIN & 1:
        return Finding(name, True, f"held (uid {os.geteuid()})", "")
    return Finding(name, False, f"not held (uid {os.geteuid()})", PRIVILEGE_FIX)


def _opener() -> Finding:
    # Both ways are good, so this is never a failure.
    detail = "python-pytun" if pytun_is_importable() else "python-pytun is not here; our own system calls are used"
    return Finding("opener", True, detail, "")


def _device() -> tuple[Finding, Finding]:
    made = "a TUN device can be made"
    offloaded = "vnet header and TSO6 offload"
    try:
        with TunDevice() as device:
            segmentation, checksum, name = device.segmentation, device.checksum, device.name
    except TunError as error:
        return _failed(made, error), Finding(offloaded, False, "not tried: no device", "see above")
    if segmentation:
        offload = Finding(offloaded, True, "granted: super-segments of up to 64 KB", "")
    else:
        detail = (
            f"no super-segments, partial checksums {'granted' if checksum else 'neither'}: works, about 20 times slower"
        )
        offload = Finding(offloaded, False, detail, "use a Linux kernel that grants TUNSETOFFLOAD with TSO6")
    return Finding(made, True, f"{name} was made and removed", ""), offload


def _ipv6() -> Finding:
    name = "IPv6"
    path = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    try:
        disabled = path.read_text().strip()
    except OSError:
        return Finding(
            name, False, "the kernel runs without IPv6", "boot without `ipv6.disable=1` (or `modprobe ipv6`)"
        )
    if disabled != "0":
        return Finding(name, False, "switched off by sysctl", "sudo sysctl net.ipv6.conf.all.disable_ipv6=0")
    return Finding(name, True, "enabled", "")


def _namespaces() -> Finding:
    name = "network namespaces"
    try:
        netns.create().close()
    except TunError as error:
        return _failed(name, error)
    return Finding(name, True, "can be made", "")


def _user_namespaces() -> Finding:
    name = "unprivileged user namespaces"
    try:
        answer = subprocess.run(  # noqa: S603, a constant program
            [sys.executable, "-I", "-S", "-c", TRY_USER_NAMESPACE],
            capture_output=True,
            text=True,
            timeout=10,
            cwd="/",
            check=True,
        ).stdout.split()
        step, code = answer[0], int(answer[1])
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        return Finding(name, False, f"could not be tried: {error}", "run `unshare -Urn true` as an ordinary user")
    if step == "ok":
        return Finding(name, True, "`unshare -Urn` gives an ordinary user a namespace with a TUN", "")
    if step == "inside":
        return Finding(name, True, "this program runs in one", "")
    if step == "tun":
        return Finding(
            name,
            False,
            f"can be made, but {CONTROL_PATH} fails in them: {os.strerror(code)}",
            f"sudo chmod 666 {CONTROL_PATH}",
        )
    return Finding(name, False, f"refused: {os.strerror(code)}", _user_namespace_fix(code))


def _user_namespace_fix(code: int) -> str:
    switches = (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
    )
    for path, bad, good in switches:
        file = Path("/proc/sys") / path
        try:
            value = file.read_text().strip()
        except OSError:
            continue
        if value == bad:
            return f"sudo sysctl {path.replace('/', '.')}={good}"
    if code == errno.ENOSYS:
        return "use a kernel with CONFIG_USER_NS"
    return "use root instead: `sudo umux ...`"


def _failed(name: str, error: TunError) -> Finding:
    """The message of our errors is "cause: fix"."""
    detail, _, fix = (error.strerror or str(error)).partition(": ")
    return Finding(name, False, detail, fix)
