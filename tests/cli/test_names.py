"""What a stack is called that was given no name, when others start beside it."""

import errno
from pathlib import Path
from typing import Any

import pytest

from tun.errors import NameTaken
from umuxstack.cli import running
from umuxstack.cli.common import Failure
from umuxstack.cli.parser import parse
from umuxstack.control import place


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names with which a stack tried to start here; umux1 has become somebody else's device meanwhile."""
    names: list[str] = []

    async def run(_wanted: Any, tun: str, name: str, *_: Any) -> int:
        names.append(f"{tun} as {name}")
        if tun == "umux1":
            raise NameTaken(errno.EBUSY, "'umux1' is in use by a running process")
        return 0

    monkeypatch.setattr(running, "_run", run)
    monkeypatch.setattr(running, "_free_names", lambda: (f"umux{number}" for number in range(4)))
    monkeypatch.setattr(running, "_allow_many_descriptors", lambda: None)
    monkeypatch.setattr(place, "directory", lambda *_: tmp_path)
    monkeypatch.delenv("UMUX_SOCKET", raising=False)
    return names


def up(*words: str) -> int:
    return running.up(parse(["up", "--prefix", "2001:db8:1::/64", "--quiet", *words]))


def test_stacks_that_start_at_once_get_different_names(tried: list[str], tmp_path: Path) -> None:
    """Both had found umux0 free; the second ended, and was advised to choose no name. A stack in another namespace
    has a device that is not seen from here, but its control socket stood in the way.
    """
    other = place.BoundSocket(tmp_path / "umux0.sock")
    try:
        assert up() == 0
    finally:
        other.close()
    assert tried == ["umux1 as umux1", "umux2 as umux2"]
    assert not list(tmp_path.glob("*.sock"))


def test_a_name_of_its_own_keeps_while_the_device_is_numbered(tried: list[str], tmp_path: Path) -> None:
    other = place.BoundSocket(tmp_path / "umux0.sock")
    try:
        assert up("--name", "lab") == 0
    finally:
        other.close()
    assert tried == ["umux0 as lab"]


def test_what_was_asked_for_is_not_exchanged(tried: list[str], tmp_path: Path) -> None:
    with pytest.raises(Failure, match="umux1"):
        up("--tun", "umux1")
    other = place.BoundSocket(tmp_path / "lab.sock")
    try:
        with pytest.raises(place.PlaceTaken):
            up("--name", "lab")
    finally:
        other.close()
    assert tried == ["umux1 as umux1"]
