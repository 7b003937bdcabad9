"""The findings of the doctor: right here, and with an advice wherever something is missing."""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tun import netns, openers, probe, vnet
from tun.probe import Finding


def by_name() -> dict[str, Finding]:
    return {finding.name: finding for finding in probe.probe()}


@pytest.mark.system
def test_as_root_everything_but_the_ordinary_users_ways_is_fine() -> None:
    links = os.listdir("/sys/class/net")
    descriptors = len(os.listdir("/proc/self/fd"))
    findings = probe.probe()
    assert len(findings) == 8
    for finding in findings:
        assert finding.ok or finding.name == "unprivileged user namespaces", finding
        assert bool(finding.fix) != finding.ok, finding
    assert os.listdir("/sys/class/net") == links
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.system
def test_in_a_user_namespace_all_is_fine() -> None:
    program = "from tun.probe import probe; print(*[finding.name for finding in probe() if not finding.ok])"
    assert subprocess.check_output(["unshare", "-Urn", sys.executable, "-c", program], text=True).strip() == ""


def refuse(code: int) -> Any:
    def refusing(*_args: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    return refusing


def test_without_the_control_file_the_fix_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openers, "CONTROL_PATH", "/dev/net/nothing")
    monkeypatch.setattr(probe, "CONTROL_PATH", "/dev/net/nothing")
    findings = by_name()
    file = findings["/dev/net/nothing can be opened"]
    assert not file.ok
    assert "modprobe tun" in file.fix
    assert not findings["a TUN device can be made"].ok
    assert "modprobe tun" in findings["a TUN device can be made"].fix
    assert findings["vnet header and TSO6 offload"][1:] == (False, "not tried: no device", "see above")


@pytest.mark.parametrize(("mask", "held"), [("0000000000000000", False), ("0000000000001000", True)])
def test_the_right_is_read_from_the_effective_set(monkeypatch: pytest.MonkeyPatch, mask: str, held: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: f"CapPrm:\tffffffffffffffff\nCapEff:\t{mask}\n")
    finding = probe._capability()
    assert finding.ok is held
    assert ("sudo" in finding.fix) is not held


def test_the_opener_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytun", None)
    assert probe._opener() == ("opener", True, "python-pytun is not here; our own system calls are used", "")
    monkeypatch.setitem(sys.modules, "pytun", SimpleNamespace())
    assert probe._opener().detail == "python-pytun"


@pytest.mark.system
def test_a_kernel_without_offload_is_told_apart_from_one_without_tun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnet, "set_offload", lambda _fd, *, wanted: (False, wanted))
    device, offload = probe._device()
    assert device.ok
    assert not offload.ok
    assert "no super-segments, partial checksums granted" in offload.detail


@pytest.mark.parametrize(
    ("value", "ok", "fix"),
    [("0", True, ""), ("1", False, "disable_ipv6=0"), (None, False, "ipv6.disable=1")],
)
def test_ipv6_may_be_off_in_two_ways(monkeypatch: pytest.MonkeyPatch, value: str | None, ok: bool, fix: str) -> None:
    def read_text(_path: Path) -> str:
        if value is None:
            raise FileNotFoundError
        return value

    monkeypatch.setattr(Path, "read_text", read_text)
    finding = probe._ipv6()
    assert finding.ok is ok
    assert fix in finding.fix


def test_namespaces_that_are_refused_get_an_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_libc", SimpleNamespace(unshare=lambda _: -1))
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EPERM)
    finding = probe._namespaces()
    assert not finding.ok
    assert "CAP_SYS_ADMIN" in finding.detail
    assert "sudo" in finding.fix


@pytest.mark.parametrize(
    ("answer", "ok", "detail", "fix"),
    [
        ("ok 0", True, "unshare -Urn", ""),
        ("inside 0", True, "runs in one", ""),
        (f"tun {errno.EACCES}", False, "Permission denied", "chmod 666 /dev/net/tun"),
        (f"unshare {errno.EPERM}", False, "Operation not permitted", "user.max_user_namespaces=10000"),
        ("nonsense", False, "could not be tried", "unshare -Urn true"),
    ],
)
def test_the_ordinary_users_way_is_judged_by_the_step_that_fails(
    monkeypatch: pytest.MonkeyPatch, answer: str, ok: bool, detail: str, fix: str
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: SimpleNamespace(stdout=answer))
    monkeypatch.setattr(Path, "read_text", lambda path: "0" if path.name == "max_user_namespaces" else "good")
    finding = probe._user_namespaces()
    assert finding.ok is ok
    assert detail in finding.detail
    assert fix in finding.fix


@pytest.mark.parametrize(("code", "fix"), [(errno.ENOSYS, "CONFIG_USER_NS"), (errno.EPERM, "root")])
def test_a_refusal_without_a_known_switch_still_has_an_advice(
    monkeypatch: pytest.MonkeyPatch, code: int, fix: str
) -> None:
    monkeypatch.setattr(Path, "read_text", refuse(errno.ENOENT))
    assert fix in probe._user_namespace_fix(code)
