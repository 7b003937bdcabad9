"""Where a control socket lives, how it is opened safely, and who is at its other end.

Owns the rules of the file system: a stale file is removed only when nobody
answers behind it, the mode is right from the first moment on, and a directory
that others could change is not trusted. Knows nothing of messages.
"""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import attrs

SYSTEM_DIRECTORY: Final = Path("/run/umux")
SUFFIX: Final = ".sock"
BACKLOG: Final = 128
_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (socket(7), SO_PEERCRED)
_SO_PEERGROUPS: Final = 59  # Linux 4.13: the supplementary groups; not in Python's socket module
LARGEST_ID: Final = (1 << 32) - 1  # -1 as the kernel counts users and groups: nobody
_LOCK_PATIENCE: Final = 2.0  # seconds; somebody else starts a stack in the same directory, or has just ended one

_PAUSE: Final = 0.01  # seconds between two looks at a lock
_TRIES: Final = 10  # looks, when all that is at stake is an empty directory


class PlaceError(Exception):
    """The socket cannot be opened there; the message says why and what helps."""


class PlaceTaken(PlaceError):
    """A stack that runs has its socket there."""


class BadPlace(PlaceError):
    """No socket can ever be there: the path or the group was a mistake."""


@attrs.frozen(slots=True)
class Caller:
    """Who connected, by the kernel's word (SO_PEERCRED at the time of connect)."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


class HasOptions(Protocol):
    """A socket, the standard library's or trio's."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def directory(environment: Mapping[str, str], uid: int) -> Path:
    """The directory for this user's sockets: /run/umux for root, else under XDG_RUNTIME_DIR."""
    if uid == 0:
        return SYSTEM_DIRECTORY
    runtime = environment.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "umux" if runtime else Path(f"/tmp/umux-{uid}")  # noqa: S108  # checked before use


def default_path(name: str, environment: Mapping[str, str], uid: int) -> Path:
    """Where the stack called `name` has its socket."""
    return directory(environment, uid) / f"{name}{SUFFIX}"


def candidates(environment: Mapping[str, str], uid: int) -> list[Path]:
    """The socket files a client of this user may mean: its own directory's, then the system's."""
    found: list[Path] = []
    for place in dict.fromkeys((directory(environment, uid), SYSTEM_DIRECTORY)):
        with contextlib.suppress(OSError):
            found += sorted(path for path in place.iterdir() if path.suffix == SUFFIX and path.is_socket())
    return found


def caller(connection: HasOptions) -> Caller:
    """The process at the other end."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = frozenset({gid})
    with contextlib.suppress(OSError):  # before Linux 4.13, or more groups than fit: the primary one remains
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4096)
        groups |= frozenset(value for (value,) in struct.iter_unpack("I", packed))
    return Caller(pid=pid, uid=uid, gid=gid, groups=groups)


class BoundSocket:
    """A listening SOCK_SEQPACKET socket with its file, which it removes on close if the file is still its own.

    The directory goes too, once it is empty, if it was made for the socket or is the user's usual one.
    """

    __slots__ = ("_identity", "_made", "path", "socket")

    def __init__(self, path: Path, *, group: str | int | None = None, open_to_all: bool = False) -> None:
        """The file is its owner's alone (0600), unless a `group` may connect too (0660), or everybody (0666): the
        server then decides by the caller's credentials.
        """
        self.path = path.absolute()
        gid = group_id(group)
        mode = 0o666 if open_to_all else 0o600 if gid is None else 0o660
        self._made = False
        self._identity: tuple[int, int] | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with self._held_directory():
                _remove_stale(self.path)
                # Linux takes the mode of the file from the socket's own inode: so it is never wider than asked for.
                os.fchmod(self.socket.fileno(), mode)
                _bind(self.socket, self.path)
                if gid is not None:
                    os.chown(self.path, -1, gid)
                os.chmod(self.path, mode)  # bind applied the umask
                self.socket.listen(BACKLOG)
                self._identity = _identity(self.path)
        except OSError as error:
            self.close()
            if error.errno == errno.ENAMETOOLONG:
                raise BadPlace(f"the name of the control socket {self.path} is too long") from error
            raise PlaceError(f"cannot open the control socket {self.path}: {error.strerror}") from error
        except PlaceError:
            self.close()
            raise
        self.socket.setblocking(False)

    @contextlib.contextmanager
    def _held_directory(self) -> Iterator[None]:
        """The directory is there, and nobody else looks at what is in it, binds there or removes it."""
        place = self.path.parent
        limit = time.monotonic() + _LOCK_PATIENCE
        while True:
            self._made = _prepare_directory(place) or self._made
            with _locked(place) as held:
                if held:
                    yield
                    return
            if time.monotonic() > limit:
                raise PlaceError(f"another process holds {place} locked; is a stack just starting there?")
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Idempotent."""
        self.socket.close()
        identity, self._identity = self._identity, None
        if identity is not None and _identity(self.path) == identity:
            with contextlib.suppress(OSError):
                self.path.unlink()
        place, uid = self.path.parent, os.geteuid()
        usual = identity is not None and uid != 0 and place == directory(os.environ, uid)
        if self._made or usual:
            _remove_if_empty(place)
        self._made = False


def group_id(group: str | int | None) -> int | None:
    """The number of a group given by name or number. `PlaceError` if there is none."""
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isdecimal() and int(group) < LARGEST_ID:
            return int(group)
        raise BadPlace(f"there is no group {group!r}; `getent group` lists them") from None


def _prepare_directory(place: Path) -> bool:
    """Makes it if need be, and says so; refuses one in which another user could swap the socket for his own."""
    made = False
    try:
        place.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700)
        made = True
    except FileExistsError:
        pass
    except OSError as error:
        raise PlaceError(
            f"cannot make the directory {place}: {error.strerror}; choose another with --socket or UMUX_SOCKET"
        ) from error
    try:
        status = place.stat()
    except FileNotFoundError:
        if not place.is_symlink():
            return made  # it went just now; whoever looks for it next sees that
        raise BadPlace(f"{place} leads nowhere; choose another with --socket or UMUX_SOCKET") from None
    except OSError as error:
        raise PlaceError(f"cannot use the directory {place}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise BadPlace(f"{place} is no directory; choose another with --socket or UMUX_SOCKET")
    sticky = status.st_mode & stat.S_ISVTX
    if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not sticky):
        raise PlaceError(
            f"other users can change the directory {place}, so the control socket would not be safe there; "
            f"run `chmod go-w {place}` or choose another with --socket"
        )
    return made


def _remove_if_empty(place: Path) -> None:
    """Who is just starting there holds it, and will remove it in turn; or finds that it is gone, and makes it again."""
    with contextlib.suppress(OSError):
        for _ in range(_TRIES):
            with _locked(place) as held:
                if held:
                    place.rmdir()
                    return
            if not place.exists():
                return
            time.sleep(_PAUSE)


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[bool]:
    """Whether the directory is locked, and is still there: False if another process has it, or it was removed."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        held = False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            held = _identity(place.resolve()) == (status.st_dev, status.st_ino)
        yield held
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise BadPlace(f"{path} exists and is no socket; it is left alone: choose another with --socket")
    if status.st_uid not in (0, os.geteuid()):
        raise PlaceError(f"{path} belongs to uid {status.st_uid}; choose another with --socket")
    if answers(path):
        raise PlaceTaken(f"a stack is already running behind {path}; `umux down` ends it, --name starts one beside it")
    path.unlink()


def answers(path: Path) -> bool:
    """Whether some process listens behind the file. A full backlog is an answer as well."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            # EPROTOTYPE: a socket of another type listens there. Only a refusal proves that nobody does.
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    return True


def _bind(bound: socket.socket, path: Path) -> None:
    try:
        bound.bind(str(path))
    except OSError as error:
        if "too long" in str(error):
            raise BadPlace(
                f"the path {path} is too long for a socket (107 bytes); choose another with --socket"
            ) from error
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
