"""Every option of every command with values that cannot be: exit code 2, cause and fix in words, nothing changed."""

import contextlib
import os
import shlex
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import RunningStack, Umux
from umuxstack.cli.common import NO_STACK, REFUSED, USAGE

LONG = "x" * 300
UP = "up --prefix 2001:db8:1::/64"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one: with a text, a folder, and algorithms that are none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UMUX_SOCKET", str(tmp_path / "umux.sock"))
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "private.txt").touch(mode=0o600)
    (tmp_path / "private.txt").write_text("no key file\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "none.py").write_text("class Mine:\n    pass\n")
    (tmp_path / "broken.py").write_text("class (:\n")
    return tmp_path


def contents(folder: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_size) for path in folder.rglob("*"))


def open_files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def refused(umux: Umux, words: str, folder: Path) -> str:
    """Runs it; what it said, which was a sentence and wrong usage, and nothing is there that was not before."""
    before = contents(folder)
    shown = umux(*shlex.split(words))
    assert shown.code == USAGE, shown
    assert "Traceback" not in shown.err
    assert "Errno" not in shown.err
    assert shown.err.startswith(("umux: ", "usage: "))
    assert shown.out == ""
    assert contents(folder) == before
    assert "/dev/net/tun" not in open_files()
    return shown.err


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("up", "no prefix"),
        ("up --prefix ''", "empty"),
        ("up --prefix nonsense", "not an IPv6 address"),
        ("up --prefix 10.0.0.0/8", "not an IPv6 address"),
        ("up --prefix 2001:db8:1::1/64", "bits set beyond"),
        ("up --prefix 2001:db8:1::/129", "allowed is 0 to 128"),
        ("up --prefix 2001:db8:1::", "allowed is 8 to 120"),
        ("up --prefix ff05::/64", "multicast"),
        ("up --prefix fe80::/64", "link-local"),
        ("up --prefix ::/64", "loopback"),
        (f"{UP} --mtu 100", "1280 to 65535"),
        (f"{UP} --mtu 70000", "1280 to 65535"),
        (f"{UP} --mtu many", "invalid int"),
        (f"{UP} --cc nope", "there are: bbr, cubic, newreno"),
        (f"{UP} --cc ''", "empty"),
        (f"{UP} --cc nowhere.py:Mine", "no file"),
        (f"{UP} --cc none.py:Mine", "not a subclass"),
        (f"{UP} --cc none.py:Other", "defines no"),
        (f"{UP} --cc broken.py:Mine", "SyntaxError"),
        (f"{UP} --tun {LONG}", "at most 15"),
        (f"{UP} --tun a/b", "interface name"),
        (f"{UP} --tun 'a b'", "interface name"),
        (f"{UP} --tun all", "interface name"),
        (f"{UP} --tun ''", "empty"),
        (f"{UP} --name a/b", "cannot be a stack's name"),
        (f"{UP} --name .hidden", "cannot be a stack's name"),
        (f"{UP} --name {LONG}", "cannot be a stack's name"),
        (f"{UP} --namespace ../x", "namespace name"),
        (f"{UP} --namespace ''", "empty"),
        (f"{UP} --kernel-address nonsense", "not an IPv6 address"),
        (f"{UP} --kernel-address 10.0.0.1", "not an IPv6 address"),
        (f"{UP} --kernel-address ff02::1", "nobody's"),
        (f"{UP} --kernel-address ::1", "nobody's"),
        (f"{UP} --kernel-address 2001:db8:1::5", "outside of the prefix"),
        (f"{UP} --kernel-address fd00::5 --shared fd00::5", "outside of the prefix"),
        (f"{UP} --scheme nope", "invalid choice"),
        (f"{UP} --key-file nowhere/key", "no folder"),
        (f"{UP} --key-file folder", "is a folder"),
        (f"{UP} --key-file key --scheme random", "sealed"),
        (f"{UP} --key-file notes.txt", "may be used by others"),
        (f"{UP} --key-file private.txt", "cannot be trusted"),
        (f"{UP} --shared nonsense", "not an IPv6 address"),
        (f"{UP} --shared ff02::1", "unicast"),
        (f"{UP} --shared ::", "unicast"),
        (f"{UP} --shared ::1", "unicast"),
        (f"{UP} --shared 2001:db8:1:: ", "reserved"),
        (f"{UP} --shared fd00::1 --shared fd00::1", "twice"),
        (f"{UP} --unified-peers nonsense", "not an IPv6 address"),
        (f"{UP} --unified-peers 2001:db8::1/64", "bits set beyond"),
        (f"{UP} --serve nope", "no service"),
        (f"{UP} --capture nowhere/file", "no folder"),
        (f"{UP} --capture folder", "is a folder"),
        (f"{UP} --qlog notes.txt", "no folder"),
        (f"{UP} --record nowhere/file", "no folder"),
        (f"{UP} --record folder", "is a folder"),
        (f"{UP} --record run --key-file key", "cannot be recorded"),
        (f"{UP} --socket folder", "no socket"),
        (f"{UP} --socket notes.txt", "no socket"),
        (f"{UP} --socket {LONG}", "too long"),
        (f"{UP} --socket notes.txt/socket", "no directory"),
        (f"{UP} --group nope", "no group"),
        (f"{UP} --group 99999999999", "no group"),
        (f"{UP} --user nope", "no user"),
        (f"{UP} --user 99999999999999", "no user"),
        ("up --config nowhere.toml", "cannot read"),
        ("up --config folder", "cannot read"),
        ("up --config notes.txt", "not TOML"),
        ("up --config /dev/zero", "no settings file"),
    ],
)
def test_up(umux: Umux, folder: Path, words: str, cause: str) -> None:
    """Some of these were a traceback, some came only after the device had been made, some were taken."""
    assert cause in refused(umux, words, folder)


@pytest.mark.parametrize(
    "text",
    [
        "mtu = 99",
        "kernel_address = 'nonsense'",
        "tun = ''",
        "das_lifetime = nan",
        "das_lifetime = inf",
        "das_lifetime = 1e30",
        "das_lifetime = -1",
        "fixed_port = 0",
        "serve = ['']",
        "[tcp]\ncongestion = 'nope'",
        "[tcp]\nrto_min = '1e9'",
        "[pool]\nlow = 9\nhigh = 1",
    ],
)
def test_settings_in_a_file(umux: Umux, folder: Path, text: str) -> None:
    (folder / "up.toml").write_text(f'prefix = "2001:db8:1::/64"\n{text}\n')
    refused(umux, "up --config up.toml", folder)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("das add ''", "empty name"),
        ("das add web --ssa ''", "not an IPv6 address"),
        ("das add web --ssa ::", "nobody's"),
        ("das add web --ssa ff02::1", "nobody's"),
        ("das add web --ssa 2001:db8:1::", "reserved"),
        ("das add web --peer ::", "nobody's"),
        ("das add web --peer ff02::1", "nobody's"),
        ("das add web --peer 10.0.0.1", "not an IPv6 prefix"),
        ("das add web --lifetime ''", "not a time"),
        ("das add web --lifetime 0", "more than 0"),
        ("das add web --lifetime 99999999999999999999999h", "longer than"),
        ("das add web --pin 64", "--grain client"),
        (f"das add web --label {LONG}", "bytes"),
        (f"das add {LONG}", "bytes"),
        ("das revoke ''", "empty name"),
        ("das revoke 2001:zz::1", "not an IPv6 address"),
        ("telescope --limit -1", "--limit is -1"),
        ("stats --watch 0", "more than 0"),
        ("stats --watch ''", "not a time"),
        ("stats --port 9464", "for --prometheus"),
        ("stats --prometheus --port 99999", "0 to 65535"),
        ("stats --prometheus --json", "form"),
        ("stats --prometheus --watch 1", "form"),
        ("stats nonsense", "no counter"),
        ("nc", "wants an address"),
        ("nc '' 80", "empty"),
        ("nc 10.0.0.1 80", "IPv4"),
        ("nc :: 80", "nobody's"),
        ("nc ff02::1 80", "nobody's"),
        ("nc 2001:db8:2::1 0", "not a port"),
        ("nc 2001:db8:2::1 80 --source ''", "not an IPv6 address"),
        ("nc 2001:db8:2::1 80 --source ::", "nobody's"),
        ("nc 2001:db8:2::1 80 --wait 0", "more than 0"),
        ("nc 2001:db8:2::1 80 --das", "without -l"),
        ("nc 2001:db8:2::1 80 --listener web", "without -l"),
        ("nc 2001:db8:2::1 80 --address 2001:db8:1::5", "without -l"),
        ("nc -l --source 2001:db8:1::5", "with -l"),
        ("nc -l --unified", "with -l"),
        ("nc -l --no-unified", "with -l"),
        ("nc -l --label x", "without --das"),
        ("nc -l --das --address 2001:db8:1::5", "with --das"),
        ("nc -l --das --wait 0", "more than 0"),
        ("nc -l --wait soon", "not a time"),
        ("nc -l --address 2001:db8:1::", "reserved"),
        ("nc -l --address 2001:db8:1::80", "needs a port"),
        ("ping 10.0.0.1", "IPv4"),
        ("ping ::", "nobody's"),
        ("ping 2001:db8:2::1 -W 0", "more than 0"),
        ("ping 2001:db8:2::1 -W 2h", "more than 3600 s"),
        ("ping 2001:db8:2::1 -i 2h", "more than 3600 s"),
        ("ping 2001:db8:2::1 -c 0", "--count is 0"),
    ],
)
def test_commands_of_a_running_stack(umux: Umux, stack: RunningStack, tmp_path: Path, words: str, cause: str) -> None:
    listener = stack.enter(stack.wait(lambda: stack.host.listen(80, name="web")))
    before = stack.call(lambda: (stack.host.stack.leftovers(), stack.host.stack.pool_statistics().issued))
    assert cause in refused(umux, words, tmp_path)
    after = stack.call(lambda: (stack.host.stack.leftovers(), stack.host.stack.pool_statistics().issued))
    assert after == before
    assert not listener.listener.closed


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("link --a ''", "interface name"),
        ("link --a a/b", "interface name"),
        (f"link --a {LONG}", "at most 15"),
        ("link --a same --b same", "two ends"),
        ("link --mtu 5", "1280 to 65535"),
        ("link --mtu 100000", "1280 to 65535"),
        ("link --a-address ff02::1/64", "nobody's"),
        ("link --a-address ::/64", "nobody's"),
        ("link --a-address 10.0.0.1/8", "IPv6"),
        ("link --a-route 2001:db8::1/64", "host bits"),
        ("link --loss 2", "between 0 and 1"),
        ("link --reorder nan", "between 0 and 1"),
        ("link --burst 0.1", "--burst: '0.1' is one share of two"),
        ("link --burst 0.1/", "no share"),
        ("link --rate fast", "no number"),
        ("link --queue 10", "needs a rate"),
        ("link --for nan", "no time"),
        ("plot nowhere.qlog", "nowhere.qlog: No such file"),
        ("plot folder", "no .qlog file"),
        ("plot notes.txt", "no qlog"),
        ("replay nowhere", "nowhere: No such file"),
        ("replay folder", "folder: Is a directory"),
        ("replay notes.txt", "damaged"),
        ("replay noise --cc nowhere.py:Mine", "there is no file 'nowhere.py'"),
        ("replay noise", "noise: line 1 is damaged"),
        ("plot noise", "noise"),
        ("drill nowhere", "no file or directory"),
        ("drill --write one.pkt", "--write is for --matrix"),
        ("drill --live-limit 3 one.pkt", "--live-limit is for --live"),
        ("drill --matrix --live", "runs no scripts"),
        ("drill --matrix --junit report.xml", "not for --matrix"),
        ("drill --mutants --json one.pkt", "not for --mutants"),
        ("drill --mutants --pcap folder one.pkt", "not for --mutants"),
        ("drill --mutants --live one.pkt", "exclude each other"),
        ("analyze birthday --rate -1", "rate -1.0; it must"),
        ("drill folder", "no script"),
        ("drill --pcap notes.txt one.pkt", "no folder"),
        ("drill --junit nowhere/report one.pkt", "no such folder"),
        ("drill --junit folder one.pkt", "no such folder"),
        ("demo --no-root --pcap folder", "no such folder"),
        ("demo --no-root --pcap nowhere/file", "no such folder"),
        ("analyze birthday --bits 0", "1 to 128"),
        ("analyze birthday --rate nan", "above 0"),
        ("analyze birthday --plot picture.gif", ".png or an .svg"),
        ("analyze birthday --plot nowhere/picture.svg", "No such file"),
    ],
)
def test_commands_that_need_no_stack(umux: Umux, folder: Path, words: str, cause: str) -> None:
    (folder / "one.pkt").write_text("--umux=legacy\n+0 `true`\n")
    (folder / "noise").write_bytes(bytes(range(128, 256)))
    assert cause in refused(umux, words, folder)


@pytest.mark.system
def test_a_namespace_that_is_not_there(umux: Umux, folder: Path) -> None:
    for words in (f"{UP} --namespace umux-nowhere", "link --a umuxa@umux-nowhere --b umuxb"):
        assert "ip netns add" in refused(umux, words, folder)


def test_what_the_stack_refuses_is_no_wrong_usage(umux: Umux, stack: RunningStack) -> None:
    for words in ("das add nobody", "das revoke ssa.nobody.1", "nc 2001:db8:2::1 80 --source 2001:db8:9::1"):
        assert umux(*shlex.split(words)).code == REFUSED


def test_what_is_no_socket_is_said_to_be_none(umux: Umux, folder: Path) -> None:
    for name in ("notes.txt", "folder"):
        shown = umux("status", "--socket", name)
        assert shown.code == NO_STACK
        assert "no socket" in shown.err
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gone:
        gone.bind(str(folder / "left.sock"))
    assert "a left-over" in umux("status", "--socket", "left.sock").err
