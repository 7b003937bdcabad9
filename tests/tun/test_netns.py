"""Namespaces: what runs inside is inside, and nothing is left behind."""

import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tun import netns
from tun.errors import NameInvalid, NamespaceFailed, NamespaceMissing, PermissionDenied
from tun.netlink import Netlink
from tun.netns import Namespace

pytestmark = pytest.mark.system


def current() -> int:
    """The inode number of the calling thread's namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def inode(namespace: Namespace) -> int:
    return os.fstat(namespace.fileno()).st_ino


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def name() -> Iterator[str]:
    made = netns.owned_name("test")
    try:
        yield made
    finally:
        netns.remove(made)


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_an_anonymous_namespace_is_new_and_has_no_name() -> None:
    before = netns.names()
    with netns.create() as namespace:
        assert inode(namespace) != current()
        assert namespace.name is None
        assert netns.names() == before


def test_a_named_namespace_is_seen_by_the_ip_command_and_removed_on_close(name: str) -> None:
    with netns.create(name) as namespace:
        assert name in netns.names()
        assert name in subprocess.check_output(["ip", "netns"], text=True)
        with netns.open_named(name) as same:
            assert inode(same) == inode(namespace)
        assert name in netns.names()  # who opened it did not make it
    assert name not in netns.names()
    namespace.close()
    assert namespace.fileno() == -1


def test_a_namespace_made_by_the_ip_command_can_be_opened_and_removed(name: str) -> None:
    subprocess.check_call(["ip", "netns", "add", name])
    with netns.open_named(name) as namespace:
        assert namespace.run(current) == inode(namespace)
    assert netns.remove(name) is True
    assert netns.remove(name) is False


def test_a_name_is_given_once(name: str) -> None:
    with netns.create(name):
        before = descriptors()
        with pytest.raises(NamespaceFailed, match=f"{name}' exists: .*ip netns delete"):
            netns.create(name)
        assert descriptors() == before
        assert name in netns.names()


def test_the_name_goes_when_the_block_is_left_by_an_exception(name: str) -> None:
    def fail_inside() -> None:
        with netns.create(name):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_inside()
    assert name not in netns.names()


def test_removing_the_name_elsewhere_does_not_disturb_close(name: str) -> None:
    with netns.create(name):
        assert netns.remove(name) is True


def test_a_missing_namespace_is_named() -> None:
    with pytest.raises(NamespaceMissing, match=r"no network namespace 'umux-nowhere'.*ip netns add umux-nowhere"):
        netns.open_named("umux-nowhere")


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a\0b", "x" * 256])
def test_a_name_that_is_no_file_name_is_refused(bad: str) -> None:
    for request in (netns.create, netns.open_named, netns.remove):
        with pytest.raises(NameInvalid, match="namespace name"):
            request(bad)


def test_entering_is_for_this_thread_and_ends_with_the_block(namespace: Namespace) -> None:
    outside = current()
    entered = threading.Event()
    seen: list[int] = []

    def other_thread() -> None:
        entered.wait()
        seen.append(current())

    other = threading.Thread(target=other_thread)
    other.start()
    with namespace.enter():
        entered.set()
        other.join()
        assert current() == inode(namespace)
    assert seen == [outside]
    assert current() == outside


def test_entering_is_undone_by_an_exception(namespace: Namespace) -> None:
    outside = current()
    before = descriptors()

    def fail_inside() -> None:
        with namespace.enter():
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_inside()
    assert current() == outside
    assert descriptors() == before


def test_namespaces_nest(namespace: Namespace) -> None:
    with netns.create() as inner, namespace.enter():
        with inner.enter():
            assert current() == inode(inner)
        assert current() == inode(namespace)


def test_a_function_runs_inside_and_its_socket_stays_there(namespace: Namespace) -> None:
    outside = current()
    assert namespace.run(current) == inode(namespace)
    assert current() == outside
    with namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as made:
        assert made.connect_ex(("::1", 9)) != 0  # lo is down there
        with Netlink(namespace) as netlink:
            netlink.up("lo")
        assert made.connect_ex(("::1", 9)) == 0


def test_what_a_function_raises_inside_is_raised_outside(namespace: Namespace) -> None:
    with pytest.raises(ZeroDivisionError):
        namespace.run(lambda: 1 // 0)


def test_a_process_runs_inside_and_ends_with_the_namespace() -> None:
    with netns.create() as namespace:
        shown = namespace.spawn(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE, text=True)
        assert shown.communicate()[0].strip() == f"net:[{inode(namespace)}]"
        sleeper = namespace.spawn(["sleep", "1000"], stdout=subprocess.PIPE)
        assert sleeper.poll() is None
    assert sleeper.returncode == -15
    assert sleeper.stdout is not None
    assert sleeper.stdout.closed


def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "GRACE", 0.05)
    with netns.create() as namespace:
        stubborn = namespace.spawn(["sh", "-c", "trap '' TERM; echo ready; exec sleep 1000"], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
    assert stubborn.returncode == -9


def test_a_command_that_does_not_exist_is_reported(namespace: Namespace) -> None:
    with pytest.raises(FileNotFoundError):
        namespace.spawn(["/nonexistent/program"])


def test_a_closed_namespace_cannot_be_entered() -> None:
    namespace = netns.create()
    namespace.close()
    namespace.close()
    with pytest.raises(NamespaceMissing, match="was closed"):
        namespace.run(current)


def test_a_forgotten_namespace_lets_go_of_its_descriptor() -> None:
    before = descriptors()
    netns.create()
    assert descriptors() == before


def test_the_sweep_takes_those_whose_process_is_gone_and_no_others(name: str, dead_pid: int) -> None:
    stale = f"umux-{dead_pid}-test"
    foreign = f"other-{dead_pid}-test"
    try:
        for made in (name, stale, foreign):
            subprocess.check_call(["ip", "netns", "add", made])
        removed = netns.sweep()
        assert stale in removed
        assert name not in removed
        assert {name, foreign} <= set(netns.names())
        assert stale not in netns.names()
        assert stale not in netns.sweep()
    finally:
        for made in (stale, foreign):
            netns.remove(made)


def test_a_crash_leaves_a_name_that_the_sweep_removes() -> None:
    program = "import os; from tun import netns; n = netns.create(netns.owned_name('crash')); os.abort()"
    crashed = subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False)
    left = [name for name in netns.names() if name.endswith("-crash")]
    try:
        assert crashed.returncode == -6
        assert len(left) == 1
        assert set(left) <= set(netns.sweep())
    finally:
        for name in left:
            netns.remove(name)
    assert set(left).isdisjoint(netns.names())


@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [
        (errno.EPERM, PermissionDenied, "CAP_SYS_ADMIN.*sudo.*unshare -Urn"),
        (errno.ENOSPC, NamespaceFailed, "max_net_namespaces"),
        (errno.EINVAL, NamespaceFailed, "CONFIG_NET_NS"),
    ],
)
def test_a_refusal_of_the_kernel_is_explained(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], fix: str
) -> None:
    class Refusing:
        def unshare(self, _flags: int) -> int:
            return -1

    monkeypatch.setattr(netns, "_libc", Refusing())
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    with pytest.raises(kind, match=fix) as caught:
        netns.create()
    assert "cap_net_admin" not in str(caught.value)  # it was advised, and does not help


def test_a_name_that_cannot_be_mounted_leaves_no_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    real = netns._libc

    class Refusing:
        unshare = real.unshare
        umount2 = real.umount2

        def mount(self, source: bytes, *rest: object) -> int:
            if source == b"/proc/thread-self/ns/net":
                ctypes.set_errno(errno.EPERM)
                return -1
            return int(real.mount(source, *rest))

    monkeypatch.setattr(netns, "_libc", Refusing())
    with pytest.raises(PermissionDenied, match="naming the network namespace"):
        netns.create(name)
    assert not (Path("/run/netns") / name).exists()
    assert descriptors() == before


def test_the_directory_of_names_is_made_a_shared_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `ip netns` does it; a directory that is no mount point yet is first bound to itself."""
    calls: list[int] = []

    class Fresh:
        def mount(self, _source: bytes, target: bytes, _kind: bytes, flags: int, _data: None) -> int:
            assert target == os.fsencode(tmp_path)
            calls.append(flags)
            ctypes.set_errno(errno.EINVAL)
            return -1 if len(calls) == 1 else 0

    monkeypatch.setattr(netns, "_libc", Fresh())
    monkeypatch.setattr(netns, "DIRECTORY", tmp_path)
    netns._share_directory()
    shared, bound = 1 << 20 | 16384, 4096 | 16384
    assert calls == [shared, bound, shared]


@pytest.mark.parametrize(
    ("failures", "code", "kind"),
    [(1, errno.EPERM, PermissionDenied), (2, errno.EINVAL, NamespaceFailed), (3, errno.EINVAL, NamespaceFailed)],
)
def test_a_directory_that_cannot_be_shared_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int, code: int, kind: type[Exception]
) -> None:
    calls: list[int] = []

    class Refusing:
        def mount(self, _source: bytes, _target: bytes, _kind: bytes, flags: int, _data: None) -> int:
            calls.append(flags)
            ctypes.set_errno(code)
            return 0 if failures == 3 and len(calls) == 2 else -1

    monkeypatch.setattr(netns, "_libc", Refusing())
    monkeypatch.setattr(netns, "DIRECTORY", tmp_path)
    with pytest.raises(kind, match=f"sharing {tmp_path}"):
        netns._share_directory()
    assert len(calls) == failures


@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [(errno.EPERM, PermissionDenied, "may not be removed: .*sudo"), (errno.EBUSY, NamespaceFailed, "ip netns delete")],
)
def test_a_name_that_cannot_be_removed_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, kind: type[Exception], fix: str
) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(netns, "DIRECTORY", tmp_path)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(kind, match=fix):
        netns.remove("some")


def test_a_namespace_that_may_not_be_opened_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionDenied, match=r"may not be opened: .*sudo"):
        netns.open_named("some")


def test_without_any_names_the_list_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(netns, "DIRECTORY", tmp_path / "none")
    assert netns.names() == []
    assert netns.sweep() == []
    assert netns.remove("some") is False
