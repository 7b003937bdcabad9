"""Two ways to get a TUN descriptor, behind one signature.

python-pytun is the usual one. It has wheels for x86-64 only and is not asked for
elsewhere; where it cannot be imported the same three system calls are made here. Whoever opens the device
some other way (a descriptor handed over by a service manager) writes a third.
"""

import errno
import fcntl
import importlib
import os
import socket
import struct
from typing import Final, Protocol

from tun.errors import PRIVILEGE_FIX, NameTaken, PermissionDenied, TunError, opening_failed
from tun.vnet import IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TUNSETIFF

CONTROL_PATH: Final = "/dev/net/tun"
FLAGS: Final = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
IFREQ: Final = struct.Struct("16sH22x")  # struct ifreq, 40 bytes: name, flags


class Opener(Protocol):
    """Makes a TUN device; called in the thread whose namespace it shall live in."""

    def __call__(self, name: str) -> tuple[int, str]:
        """A descriptor that is the caller's to close, not inherited by children, and the name that the kernel chose.

        `name` may contain `%d`, once. `TunError` when the kernel refuses.
        """
        ...


def open_with_pytun(name: str) -> tuple[int, str]:
    """By python-pytun. `ImportError` where it is not installed."""
    pytun = importlib.import_module("pytun")
    # pytun opens and configures in one step, and its error does not tell which of the two failed.
    _check_control_path()
    try:
        device = pytun.TunTapDevice(name=name, flags=FLAGS)
    except OSError as error:
        raise _refused(error, name) from error
    try:
        # Its object closes the descriptor when it is collected, and the descriptor would be inherited by children.
        # The copy is not, and it keeps the device alive alone.
        return os.dup(device.fileno()), device.name
    finally:
        device.close()


def open_with_ioctl(name: str) -> tuple[int, str]:
    """By /dev/net/tun itself."""
    try:
        fd = os.open(CONTROL_PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise opening_failed(error, CONTROL_PATH) from error
    try:
        answer = fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), FLAGS))
    except OSError as error:
        os.close(fd)
        raise _refused(error, name) from error
    return fd, IFREQ.unpack(answer)[0].rstrip(b"\0").decode()


def pytun_is_importable() -> bool:
    """Whether python-pytun is installed and its compiled part loads here."""
    try:
        importlib.import_module("pytun")
    except ImportError:
        return False
    return True


def default_opener() -> Opener:
    """pytun where it can be imported, the plain system calls elsewhere."""
    return open_with_pytun if pytun_is_importable() else open_with_ioctl


def _check_control_path() -> None:
    try:
        os.close(os.open(CONTROL_PATH, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise opening_failed(error, CONTROL_PATH) from error


def _refused(error: OSError, name: str) -> TunError:
    """The error of TUNSETIFF, explained."""
    code = error.errno or errno.EIO
    if code == errno.EPERM:
        return PermissionDenied(code, f"making the TUN device {name!r} needs CAP_NET_ADMIN: {PRIVILEGE_FIX}")
    if code == errno.EBUSY:
        return NameTaken(
            code,
            f"{name!r} is in use by a running process: choose another name, or none (the kernel numbers one), "
            f"or find the holder with `sudo grep -l 'iff:\\s{name}$' /proc/*/fdinfo/*`",
        )
    if code == errno.EINVAL and _exists(name):
        return NameTaken(
            code,
            f"{name!r} exists and is no TUN device that we could attach to: choose another name, "
            f"or remove it with `sudo ip link delete {name}`",
        )
    if code == errno.EINVAL:
        return TunError(
            code, f"the kernel refused the TUN device {name!r}: it needs Linux 2.6.27 or later (vnet header)"
        )
    return TunError(code, f"making the TUN device {name!r}: {os.strerror(code)}")


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
