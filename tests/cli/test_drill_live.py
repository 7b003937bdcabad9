"""`umux drill --live`: this machine's kernel as the stack under test, in real time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dpkt
import pytest

from tests.cli.conftest import Result, Umux
from tun import netns
from tun.errors import PermissionDenied
from umuxstack.cli.common import FAILED, INTERRUPTED, OK, USAGE

system = pytest.mark.system
SCRIPTS = Path(__file__).parents[1] / "conformance"
PROGRAM = (sys.executable, "-W", "error", "-m", "umuxstack")

OPENING = """\
--umux=legacy
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 5) = 0
+0 < S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop>
"""
OPEN = (
    OPENING
    + """\
+0 > S. 0:0(0) ack 1 <mss 1440,nop,nop,sackOK>
+.01 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
"""
)


def play(umux: Umux, directory: Path, text: str, *words: str) -> tuple[Result, dict[str, Any]]:
    path = directory / "script.pkt"
    path.write_text(text)
    result = umux("drill", "--live", str(path), "--json", *words)
    return result, result.json["scripts"][0]


@system
@pytest.mark.parametrize(
    "name",
    [
        "rfc9293/established/syn-outside-the-window",  # a passive open, a challenge ACK, the kernel's state
        "rfc9293/syn-sent/syn-ack",  # an active open
        "rfc9293/closed/data-ack",  # nobody listens: a reset
        "rfc9293/established/no-route",  # an ICMP error, and silence
        "rfc3168/active",  # a setting of ours that is a sysctl
        "rfc9293/close-wait/without-ack",  # with a question about our counters, which is passed over
        "udp/sends",
    ],
)
def test_the_kernel_does_what_our_script_says(umux: Umux, name: str) -> None:
    result = umux("drill", "--live", str(SCRIPTS / f"{name}.pkt"), "--json")
    script = result.json["scripts"][0]
    assert (script["status"], script["details"]) == ("same", [])
    assert result.code == OK


@system
def test_a_script_for_linux_over_ipv4_is_played_as_it_is(umux: Umux, tmp_path: Path) -> None:
    """Its shell's preparations are the namespace's sysctls; its MSS of 1460 stays 1460."""
    text = """\
`../common/defaults.sh`
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 32792 <mss 1000,sackOK,nop,nop,nop,wscale 7>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK,nop,wscale 8>
  +.1 < . 1:1(0) ack 1 win 257
   +0 accept(3, ..., ...) = 4
   +0 getsockopt(4, SOL_TCP, TCP_CONGESTION, ["cubic"], [5]) = 0
   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 read(4, ..., 1) = -1 EAGAIN (Resource temporarily unavailable)
   +0 write(4, ..., 2000) = 2000
   +0 > P. 1:2001(2000) ack 1
   +0 %{ assert tcpi_snd_cwnd == 10 and tcpi_state == TCP_ESTABLISHED, tcpi_snd_cwnd }%
  +.1 < P. 1:101(100) ack 2001 win 257
   +0 > . 2001:2001(0) ack 101
   +0 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 0) = 1
   +0 recvmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 200}], msg_flags=0}, 0) = 100
   +0 close(4) = 0
   +0 > F. 2001:2001(0) ack 101
  +.1 < F. 101:101(0) ack 2002 win 257
   +0 > . 2002:2002(0) ack 102
"""
    _, script = play(umux, tmp_path, text)
    assert (script["status"], script["message"], script["details"]) == ("same", "", [])


@system
@pytest.mark.parametrize("name", ["udp", "echo", "tos-and-ttl", "frag-needed", "own-addresses", "mapped"])
def test_a_script_for_ipv4_meets_the_kernels_own(umux: Umux, tmp_path: Path, name: str) -> None:
    """Nothing is translated: the namespace has an address of IPv4, and so have the packets."""
    path = SCRIPTS / "ipv4" / f"{name}.pkt"
    result = umux("drill", "--live", str(path), "--json", "--pcap", str(tmp_path / "captures"))
    script = result.json["scripts"][0]
    assert (script["status"], script["details"]) == ("same", [])
    (capture,) = (tmp_path / "captures").iterdir()
    with capture.open("rb") as file:
        packets = [raw for _, raw in dpkt.pcap.Reader(file)]
    assert packets
    assert {raw[0] >> 4 for raw in packets} == {4}


@system
def test_the_state_of_a_connection_over_ipv4(umux: Umux, tmp_path: Path) -> None:
    """It stands in another table, and for a socket with mapped addresses in that of IPv6."""
    for version in ("ipv4", "ipv4-mapped-ipv6"):
        text = (
            f"--ip_version={version}\n"
            + OPEN.replace("1440", "1460")
            + "+0 %{ assert state == 'ESTABLISHED', state }%\n"
        )
        _, script = play(umux, tmp_path, text)
        assert (script["status"], script["message"], script["details"]) == ("same", "", [])


@system
def test_what_differs_is_shown_field_by_field(umux: Umux, tmp_path: Path) -> None:
    result, script = play(umux, tmp_path, OPEN + "+0 write(4, ..., 10) = 10\n+0 > F. 1:9(8) ack 1\n")
    assert result.code == FAILED
    assert (script["status"], script["line"]) == ("differs", 10)
    assert script["message"] == "the packet differs in flags, length"
    marked = [line.split() for line in script["details"] if "→" in line]
    assert marked == [["→", "flags", "F.", "P."], ["→", "length", "8", "10"]]
    plain = umux("drill", "--live", str(tmp_path / "script.pkt"))
    assert "script.pkt:10: differs at 0.0" in plain.out
    assert plain.lines[-2].split() == ["DIRECTORY", "same", "differs", "left", "out", "error"]
    assert plain.lines[-1].split()[1:] == ["0", "1", "0", "0"]


@system
def test_a_time_that_differs_counts_and_the_tolerance_is_an_option(umux: Umux, tmp_path: Path) -> None:
    """A SYN is repeated after a second, not after half of one."""
    text = """\
--umux=legacy
0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
+0 connect(3, ..., ...) = -1 EINPROGRESS
+0 > S 0:0(0) <...>
+1 > S 0:0(0) <...>
"""
    assert play(umux, tmp_path, text)[1]["status"] == "same"
    early = text.replace("+1 ", "+.5 ")
    _, script = play(umux, tmp_path, early)
    assert (script["status"], script["message"]) == ("differs", "no packet came")
    assert play(umux, tmp_path, early, "--tolerance", "600")[1]["status"] == "same"


@system
def test_sysctls_reach_the_namespace_and_no_further(umux: Umux, tmp_path: Path) -> None:
    before = Path("/proc/sys/net/ipv4/tcp_sack").read_text()
    text = (
        OPENING.replace("0 socket", "`sysctl -q net.ipv4.tcp_sack=0`\n0 socket") + "+0 > S. 0:0(0) ack 1 <mss 1440>\n"
    )
    _, script = play(umux, tmp_path, text)
    assert (script["status"], script["details"]) == ("same", [])
    assert Path("/proc/sys/net/ipv4/tcp_sack").read_text() == before


@system
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("--umux=unified\n0 `true`\n", "unified sessions: no kernel has them"),
        ("--umux=legacy\n`umux set mss=1000`\n0 `true`\n", "umux set mss"),
        ("--umux=legacy\n`sysctl -q net.ipv4.tcp_nonsense=1`\n0 `true`\n",
         "the kernel does not take net/ipv4/tcp_nonsense=1"),
        (OPEN + "+9 < . 1:1(0) ack 1 win 9\n+9 < . 1:1(0) ack 1 win 9\n", "longer than 10 s"),
    ],
)  # fmt: skip
def test_a_script_that_makes_no_sense_is_left_out_by_name(umux: Umux, tmp_path: Path, text: str, reason: str) -> None:
    result, script = play(umux, tmp_path, text)
    assert (script["status"], script["message"]) == ("left out", reason)
    assert result.json["left_out"] == {reason: 1}
    assert result.code == OK


@system
def test_the_limit_is_an_option(umux: Umux, tmp_path: Path) -> None:
    text = OPEN + "+.3 < . 1:1(0) ack 1 win 9\n"
    assert play(umux, tmp_path, text, "--live-limit", "0.2")[1]["message"] == "longer than 0.2 s"
    assert play(umux, tmp_path, text)[1]["status"] == "same"


@system
def test_what_has_no_time_is_waited_for_until_the_limit(umux: Umux, tmp_path: Path) -> None:
    """Nobody can say that a packet never comes: the script is left out, not called different."""
    _, script = play(umux, tmp_path, OPEN + "* > F. 1:1(0) ack 1\n", "--live-limit", "0.5")
    assert (script["status"], script["message"]) == ("left out", "longer than 0.5 s")


@system
@pytest.mark.parametrize(
    "call",
    ["accept(3, ..., ...) = 5", "read(4, ..., 1) = 1", "poll([{fd=4, events=POLLIN}], 1, -1) = 1"],
)
def test_a_call_that_hangs_is_a_difference_and_ends_with_the_script(umux: Umux, tmp_path: Path, call: str) -> None:
    began = time.monotonic()
    result, script = play(umux, tmp_path, OPEN + f"+0...0.1 {call}\n")
    assert script["status"] == "differs"
    assert script["message"].endswith("has not returned in its time")
    assert time.monotonic() - began < 5
    assert result.code == FAILED


@system
def test_several_at_a_time_in_their_order(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.pkt").write_text(OPEN + f"+.{9 - number} < . 1:1(0) ack 1 win 9\n")
    (tmp_path / "3.pkt").write_text(OPEN + "+0 > F. 1:1(0) ack 1\n")
    report = tmp_path / "report.xml"
    command = [*PROGRAM, "drill", "--live", str(tmp_path), "--jobs", "3", "--json", "--junit", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (FAILED, "")
    scripts = json.loads(done.stdout)["scripts"]
    assert [Path(script["path"]).stem for script in scripts] == ["0", "1", "2", "3", "4", "5"]
    assert [script["status"] for script in scripts] == ["same"] * 3 + ["differs"] + ["same"] * 2
    assert 'tests="6" failures="1" errors="0" skipped="0"' in report.read_text()


@system
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_it_leaves_nothing(tmp_path: Path, jobs: str) -> None:
    for name in "abc":
        (tmp_path / f"{name}.pkt").write_text(OPEN + "+0...9 read(4, ..., 1) = 1\n")
    process = subprocess.Popen(
        [*PROGRAM, "drill", "--live", str(tmp_path), "--jobs", jobs], start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    calm = 0  # looks in a row that found ours and one for each script: those made on the way are gone
    while calm < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
        calm = calm + 1 if len(namespaces(process.pid)) == int(jobs) + 1 else 0
    assert calm
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (INTERRUPTED, b"")
    assert namespaces(process.pid) == set()
    assert not [name for name in netns.names() if f"-{process.pid}-" in name]  # others may have theirs meanwhile


def namespaces(group: int) -> set[str]:
    """The network namespaces in which the threads of a process group live."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                found |= {os.readlink(thread / "ns/net") for thread in (process / "task").iterdir()}
        except (OSError, ValueError):
            continue  # it has ended
    return found


def test_without_the_right_the_way_out_is_named(umux: Umux, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str | None = None) -> None:
        raise PermissionDenied(1, "making a network namespace needs CAP_SYS_ADMIN: run it as root (`sudo ...`)")

    monkeypatch.setattr(netns, "create", refuse)
    result = umux("drill", "--live", str(SCRIPTS / "rfc9293/closed"))
    assert result.code == FAILED
    assert "no kernel can be asked: making a network namespace needs CAP_SYS_ADMIN: run it as root" in result.err


@pytest.mark.parametrize(
    "words",
    [("--live", "--mutants"), ("--live", "--live-limit", "0"), ("--live", "--tolerance", "-1")],
)
def test_wrong_usage(umux: Umux, words: tuple[str, ...]) -> None:
    assert umux("drill", str(SCRIPTS), *words).code == USAGE
