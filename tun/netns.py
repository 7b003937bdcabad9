"""Network namespaces: make, enter, run and spawn in, list, remove, sweep.

Owns the descriptor of a namespace and, if it is named, its file under
/run/netns, laid out as `ip netns` does it, so that both tools see the same.
An anonymous namespace is gone with its last descriptor and process, whatever
happens to us; a named one must be removed, so its name holds its owner's process
id (`umux-<pid>-<label>`) and `sweep` finds those that a crash left behind.
A namespace belongs to a *thread*: none of this forks.
"""

import contextlib
import ctypes
import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from tun.errors import PRIVILEGE_FIX, NameInvalid, NamespaceFailed, NamespaceMissing, PermissionDenied, TunError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

DIRECTORY: Final = Path("/run/netns")
LABEL_PREFIX: Final = "umux-"
OWNED: Final = re.compile(r"umux-(\d+)-.*")
GRACE: Final = 2.0  # seconds between SIGTERM and SIGKILL for processes that we spawned

CLONE_NEWNET: Final = 0x40000000

# setcap is no way out: CAP_NET_ADMIN alone makes no namespace
_FIX: Final = (
    "run it as root (`sudo ...`), or in namespaces of its own (`unshare -Urn ...`); "
    "in a container: `--cap-add SYS_ADMIN`"
)
MNT_DETACH: Final = 2
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_SHARED: Final = 1 << 20
OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace that we hold open. Made by `create` or `open_named`.

    `name` is None for an anonymous one. `close` ends what `spawn` started, and removes the name if we made it.
    """

    __slots__ = ("_fd", "_owns_name", "_processes", "name")

    def __init__(self, fd: int, name: str | None, *, owns_name: bool) -> None:
        self._fd = fd
        self.name = name
        self._owns_name = owns_name
        self._processes: list[subprocess.Popen[Any]] = []

    def fileno(self) -> int:
        """The descriptor that keeps the namespace; -1 when closed."""
        return self._fd

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """The current thread is in this namespace inside the `with`. Never `await` there: other tasks share the thread.

        Sockets and devices belong to the namespace in which they were made, for ever, so they can be used outside.
        Threads started inside stay there.
        """
        back = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.enter_for_good()
            try:
                yield
            finally:
                _set_namespace(back)
        finally:
            os.close(back)

    def enter_for_good(self) -> None:
        """Moves the current thread here, without a way back: for a thread that was made for it."""
        if self._fd < 0:
            raise NamespaceMissing(errno.EBADF, f"namespace {self.name or 'without a name'} was closed: make a new one")
        _set_namespace(self._fd)

    def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """The function's result, called in this namespace in a thread of its own; its exception is raised here.

        `namespace.run(TunDevice, "tun0", mtu=1400)` opens a device there.
        """

        def inside() -> Result:
            self.enter_for_good()
            return function(*args, **kwargs)

        return _in_thread(inside)

    def spawn(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process in this namespace; `options` are those of `subprocess.Popen`. `close` ends it if it still runs."""
        process: subprocess.Popen[Any] = self.run(
            lambda: subprocess.Popen(command, **options)  # noqa: S603, the command is the caller's
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Ends spawned processes, removes the name if we made it, lets go. Again: nothing.

        Devices, links and routes in it vanish when nothing else (a process, a device of ours) holds it.
        """
        try:
            self._end_processes()
        finally:
            fd, self._fd = self._fd, -1
            try:
                if self._owns_name and self.name is not None:
                    self._owns_name = False
                    remove(self.name)
            finally:
                if fd >= 0:
                    os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A forgotten anonymous namespace must not outlive its object; a named one is left to `sweep`.
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def _end_processes(self) -> None:
        processes, self._processes = self._processes, []
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # unsent input to a process that has ended
                        stream.close()


def create(name: str | None = None) -> Namespace:
    """A new, empty namespace (`lo` exists and is down). None: anonymous, seen by nobody else, never left over.

    Raises `PermissionDenied`, `NameInvalid`, `NamespaceFailed` (the name exists, or the kernel has none to give).
    """
    if name is not None:
        check_name(name)
    fd = _in_thread(lambda: _create_here(name))
    return Namespace(fd, name, owns_name=name is not None)


def open_named(name: str) -> Namespace:
    """A namespace that somebody else made (`ip netns add`); closing it leaves it there. Raises `NamespaceMissing`."""
    check_name(name)
    try:
        fd = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NamespaceMissing(
            errno.ENOENT, f"there is no network namespace {name!r}: `sudo ip netns add {name}`; `ip netns` lists them"
        ) from error
    except PermissionError as error:
        raise PermissionDenied(errno.EACCES, f"namespace {name!r} may not be opened: {PRIVILEGE_FIX}") from error
    return Namespace(fd, name, owns_name=False)


def owned_name(label: str) -> str:
    """The name by which `sweep` knows that a namespace was this process's: `umux-<pid>-<label>`."""
    return f"{LABEL_PREFIX}{os.getpid()}-{label}"


def names() -> list[str]:
    """All named namespaces, ours and others', sorted."""
    try:
        return sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return []


def remove(name: str) -> bool:
    """Takes the name away; False if there was none. The namespace itself ends with the last that uses it.

    Raises `PermissionDenied`, `NamespaceFailed`.
    """
    check_name(name)
    path = DIRECTORY / name
    # Something else may have mounted over it again; each layer must go before the file can.
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise PermissionDenied(errno.EPERM, f"namespace {name!r} may not be removed: {PRIVILEGE_FIX}") from error
    except OSError as error:
        raise NamespaceFailed(
            error.errno or errno.EIO,
            f"namespace {name!r} cannot be removed ({error.strerror}): `sudo ip netns delete {name}`",
        ) from error
    return True


def sweep() -> list[str]:
    """Removes the namespaces of ours whose process is gone, and names them. Those of live processes stay.

    A number that a new process has taken over since is left for later. Processes inside are not touched.
    """
    removed = []
    for name in names():
        match = OWNED.fullmatch(name)
        if match and not _is_alive(int(match[1])) and remove(name):
            removed.append(name)
    return removed


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _create_here(name: str | None) -> int:
    """Moves the current thread, which ends soon, into a new namespace; its descriptor."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise _failed("making a network namespace", ctypes.get_errno())
    fd = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    if name is not None:
        try:
            _bind(name)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _bind(name: str) -> None:
    """Gives the current thread's namespace a name, as `ip netns add` does."""
    path = DIRECTORY / name
    try:
        DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        _share_directory()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise NamespaceFailed(
            errno.EEXIST, f"namespace {name!r} exists: choose another name, or `sudo ip netns delete {name}`"
        ) from error
    except TunError:
        raise
    except OSError as error:
        raise _failed(f"naming the network namespace {name!r}", error.errno or errno.EIO) from error
    if _libc.mount(OWN_NAMESPACE.encode(), os.fsencode(path), b"none", MS_BIND, None) != 0:
        code = ctypes.get_errno()
        path.unlink()
        raise _failed(f"naming the network namespace {name!r}", code)


def _share_directory() -> None:
    """A shared mount, so that the names are seen in every mount namespace, as with iproute2.

    Left out, the first `ip netns add` would mount the directory over itself, and our names could not be removed.
    """
    directory = os.fsencode(DIRECTORY)
    if _libc.mount(b"", directory, b"none", MS_SHARED | MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:
        raise _failed(f"sharing {DIRECTORY}", ctypes.get_errno())
    # EINVAL: not a mount point yet.
    if (
        _libc.mount(directory, directory, b"none", MS_BIND | MS_REC, None) != 0
        or _libc.mount(b"", directory, b"none", MS_SHARED | MS_REC, None) != 0
    ):
        raise _failed(f"sharing {DIRECTORY}", ctypes.get_errno())


def _set_namespace(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise _failed("entering a network namespace", ctypes.get_errno())


def _failed(what: str, code: int) -> TunError:
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDenied(code, f"{what} needs CAP_SYS_ADMIN: {_FIX}")
    if code in (errno.ENOSPC, errno.EUSERS):
        return NamespaceFailed(
            code, f"{what}: the limit is reached: `sudo sysctl user.max_net_namespaces=10000`, or remove unused ones"
        )
    return NamespaceFailed(
        code, f"{what}: {os.strerror(code)}: the kernel needs CONFIG_NET_NS; `umux doctor` tells more"
    )


def check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name or name in (".", "..") or len(os.fsencode(name)) > 255:
        raise NameInvalid(
            errno.EINVAL, f"namespace name {name!r}: use 1 to 255 letters, digits, '-', '_' or '.', and no '/'"
        )


def _in_thread(function: Callable[[], Result]) -> Result:
    """The function's result from a thread of its own, which ends then; its exception is raised here."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call, name="umux-netns")
    thread.start()
    thread.join()
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()  # the exception's traceback holds this frame: no reference cycle
    return results[0]
