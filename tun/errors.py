"""What can go wrong between us and the kernel, each with the way out.

Every message names the cause and the exact fix, because most of these meet
somebody who has just installed the program. All are `OSError`s with `errno` set.
"""

import errno
import os
import shlex
import sys
from typing import Final

# The interpreter that runs, not the one that `python3` names in another shell; of a venv the file that it links to.
_WITHOUT_ROOT: Final = (
    "give the interpreter the right once "
    f"(`sudo setcap cap_net_admin+ep {shlex.quote(os.path.realpath(sys.executable))}`), "
    "or use a private network namespace (`unshare -Urn ...`)"
)
_IN_CONTAINERS: Final = "in a container: `--cap-add NET_ADMIN --device /dev/net/tun`"
PRIVILEGE_FIX: Final = f"run it as root (`sudo ...`), or {_WITHOUT_ROOT}; {_IN_CONTAINERS}"


class TunError(OSError):
    """The kernel refused; `errno` says how, the message says why and what to do."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)


class PermissionDenied(TunError):
    """CAP_NET_ADMIN (devices, links, routes) or CAP_SYS_ADMIN (namespaces) is missing."""


class DeviceMissing(TunError):
    """There is no usable /dev/net/tun."""


class NameTaken(TunError):
    """An interface of this name exists and cannot be attached to."""


class NameInvalid(TunError):
    """The kernel would not accept this as an interface's or a namespace's name."""


class MtuOutOfRange(TunError):
    """Below what IPv6 needs, or above what the device takes."""


class LinkDown(TunError):
    """The link is down or gone; `errno` is ENETDOWN. `taken`: how many packets of the batch went out before."""

    def __init__(self, message: str, taken: int = 0) -> None:
        super().__init__(errno.ENETDOWN, message)
        self.taken = taken


class LinkMissing(TunError):
    """No interface by this name in this namespace."""


class AlreadyExists(TunError):
    """The address, route or link is there already."""


class NotThere(TunError):
    """The address or route to be removed is not there."""


class NetlinkRefused(TunError):
    """The kernel refused a change of links, addresses or routes for another reason."""


class SysctlFailed(TunError):
    """A file under /proc/sys/net could not be read or written."""


class NamespaceMissing(TunError):
    """No network namespace by this name."""


class NamespaceFailed(TunError):
    """A network namespace could not be made, entered or left."""


def opening_failed(error: OSError, path: str) -> TunError:
    """The error of `open(path)` for a TUN control device, explained."""
    code = error.errno or errno.EIO
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceMissing(
            code,
            f"{path} is missing, so no TUN device can be made: `sudo modprobe tun`; if the file is still not there, "
            f"`sudo mkdir -p /dev/net && sudo mknod -m 666 {path} c 10 200`; in a container: `--device {path}`",
        )
    if code in (errno.EACCES, errno.EPERM):
        # Neither a capability nor a namespace of one's own opens a file that is root's alone.
        return PermissionDenied(
            code,
            f"{path} may not be opened: run it as root (`sudo ...`); or open it to all users (`sudo chmod 666 {path}`) "
            f"and then {_WITHOUT_ROOT}; {_IN_CONTAINERS}",
        )
    return TunError(code, f"opening {path}: {os.strerror(code)}")
