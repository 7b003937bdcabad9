"""The socket's file: its mode, what it replaces and what it refuses to touch."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from umuxstack.control import place
from umuxstack.control.place import BoundSocket, PlaceError, answers, candidates, default_path, directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.rule("UM-29.a")
def test_only_the_owner_may_connect_by_default(tmp_path: Path) -> None:
    bound = BoundSocket(tmp_path / "a.sock")
    assert mode(bound.path) == 0o600
    bound.close()
    assert not bound.path.exists()


def test_a_generous_umask_widens_nothing_and_a_narrow_one_takes_nothing(tmp_path: Path) -> None:
    for umask in (0o000, 0o777):
        previous = os.umask(umask)
        try:
            bound = BoundSocket(tmp_path / "a.sock", open_to_all=umask == 0o777)
            assert mode(bound.path) == (0o666 if umask else 0o600)
            bound.close()
        finally:
            os.umask(previous)


@pytest.mark.rule("UM-29.a")
def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    bound = BoundSocket(tmp_path / "a.sock", group=os.getegid())
    assert mode(bound.path) == 0o660
    assert bound.path.stat().st_gid == os.getegid()
    bound.close()


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="no group 'no-such-group'"):
        BoundSocket(tmp_path / "a.sock", group="no-such-group")
    assert list(tmp_path.iterdir()) == []


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    assert not answers(path)
    bound = BoundSocket(path)
    assert answers(path)
    bound.close()


def test_a_running_stack_is_left_alone(tmp_path: Path) -> None:
    first = BoundSocket(tmp_path / "a.sock")
    with pytest.raises(PlaceError, match="already running"):
        BoundSocket(tmp_path / "a.sock")
    assert answers(first.path)
    first.close()


def test_a_socket_of_another_kind_that_is_alive_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(PlaceError, match="already running"):
            BoundSocket(path)
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
            dead.bind(str(tmp_path / "b.sock"))
        path.symlink_to(tmp_path / "b.sock")
    with pytest.raises(PlaceError, match="no socket"):
        BoundSocket(path)
    assert os.path.lexists(path)


def test_close_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    first = BoundSocket(tmp_path / "a.sock")
    first.path.unlink()
    second = BoundSocket(tmp_path / "a.sock")
    first.close()
    assert answers(second.path)
    second.close()
    second.close()


def test_a_directory_that_others_can_change_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(PlaceError, match="chmod go-w"):
        BoundSocket(shared / "a.sock")
    shared.chmod(0o1777)  # as /tmp: nobody can remove what is another's
    BoundSocket(shared / "a.sock").close()


def test_a_missing_directory_is_made_and_a_missing_parent_is_named(tmp_path: Path) -> None:
    bound = BoundSocket(tmp_path / "umux" / "a.sock")
    assert mode(bound.path.parent) & 0o022 == 0
    bound.close()
    with pytest.raises(PlaceError, match="cannot make the directory"):
        BoundSocket(tmp_path / "no" / "where" / "a.sock")


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="too long"):
        BoundSocket(tmp_path / ("x" * 120))


def test_two_stacks_that_start_at_once_do_not_both_get_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    outcomes: list[BoundSocket | PlaceError] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        try:
            outcomes.append(BoundSocket(path))
        except PlaceError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, BoundSocket)]
    assert answers(path)
    winner.close()


def test_a_directory_that_was_made_for_the_socket_goes_with_it(tmp_path: Path) -> None:
    """/tmp/umux-1000, empty, stayed after every stack of a user who has no XDG_RUNTIME_DIR."""
    made, given = tmp_path / "umux", tmp_path / "given"
    given.mkdir()
    one, two = BoundSocket(made / "a.sock"), BoundSocket(given / "a.sock")
    one.close()
    two.close()
    assert not made.exists()
    assert given.exists()


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual directory of a user who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "umux"


def test_the_last_of_a_user_s_stacks_removes_the_usual_directory(usual: Path) -> None:
    first, second = BoundSocket(usual / "a.sock"), BoundSocket(usual / "b.sock")
    first.close()
    assert usual.exists()
    second.close()
    assert not usual.exists()
    third = BoundSocket(usual / "a.sock")
    (usual / "notes").write_text("somebody's")
    third.close()
    assert usual.exists()


def test_nothing_is_left_when_it_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="too long"):
        BoundSocket(tmp_path / "umux" / ("x" * 120))
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_starts_while_another_ends_finds_its_directory(usual: Path) -> None:
    """The directory may go between two steps of the one that starts; it makes it again."""
    failures: list[PlaceError] = []

    def come_and_go(name: str) -> None:
        for _ in range(100):
            try:
                bound = BoundSocket(usual / f"{name}.sock")
            except PlaceError as error:
                failures.append(error)
                return
            assert answers(bound.path)
            bound.close()

    threads = [threading.Thread(target=come_and_go, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not usual.exists()


def test_the_usual_places() -> None:
    assert default_path("umux0", {}, 0) == Path("/run/umux/umux0.sock")
    assert default_path("umux0", {"XDG_RUNTIME_DIR": "/run/user/1000"}, 1000) == Path("/run/user/1000/umux/umux0.sock")
    assert directory({}, 1000) == Path("/tmp/umux-1000")


def test_candidates_are_sockets_only_and_the_user_s_own_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, system = tmp_path / "umux", tmp_path / "system"
    system.mkdir()
    monkeypatch.setattr(place, "SYSTEM_DIRECTORY", system)
    mine, theirs = BoundSocket(own / "mine.sock"), BoundSocket(system / "theirs.sock")
    (own / "not.sock").write_text("")
    (own / "other").write_text("")
    assert candidates({"XDG_RUNTIME_DIR": str(tmp_path)}, 1000) == [mine.path, theirs.path]
    mine.close()
    theirs.close()


@pytest.mark.rule("UM-29.b")
def test_the_kernel_names_the_caller() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        who = place.caller(ours)
    assert (who.pid, who.uid, who.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert set(os.getgroups()) <= who.groups
