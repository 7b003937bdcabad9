"""`umux nc` and `umux ping`, as processes with pipes."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.cli.conftest import PEER_SHARED, RunningStack, Umux
from umuxstack.cli.common import FAILED, INTERRUPTED, NO_STACK, OK, USAGE
from umuxstack.core.units import Micros
from umuxstack.driver.listeners import UmuxListener
from umuxstack.testing import builders

WORDS = (sys.executable, "-W", "error", "-m", "umuxstack")


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [*WORDS, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        for pipe in (started.stdin, started.stdout, started.stderr):
            assert pipe is not None
            pipe.close()


def line(started: subprocess.Popen[bytes]) -> str:
    """The next line on standard error."""
    assert started.stderr is not None
    return started.stderr.readline().decode().rstrip()


@pytest.fixture
def far(stack: RunningStack) -> UmuxListener:
    return stack.enter(stack.wait(lambda: stack.peer.listen(80, address=PEER_SHARED)))


def addresses(stack: RunningStack, kind: str) -> list[str]:
    return stack.call(lambda: [lease.state_name for lease in stack.host.stack.leases() if lease.kind == kind])


def until(condition: Callable[[], bool]) -> None:
    """At most 5 s."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nc_carries_a_pipe_there_and_back_with_half_close(stack: RunningStack, far: UmuxListener) -> None:
    """All of standard input arrives, then our FIN; what the peer sends afterwards comes out."""
    data = bytes(range(256)) * 20_000  # 5 MB

    async def serve() -> bytes:
        async with await far.accept() as stream:
            received = bytearray()
            while chunk := await stream.receive_some():
                received += chunk
            await stream.send_all(b"late " * 100_000)
            return bytes(received)

    with process("nc", "-q", PEER_SHARED, "80") as nc:
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(stack.wait(serve)))
        thread.start()
        out, err = nc.communicate(data, timeout=10)
        thread.join(10)
    assert (nc.returncode, err) == (OK, b"")
    assert received == [data]
    assert out == b"late " * 100_000


def test_nc_goes_on_sending_when_the_peer_has_finished_first(stack: RunningStack, far: UmuxListener) -> None:
    with process("nc", "-q", PEER_SHARED, "80") as nc:
        assert nc.stdin is not None
        assert nc.stdout is not None
        stream = stack.enter(stack.wait(far.accept))
        stack.wait(lambda: stream.send_all(b"all I have"))
        stack.wait(stream.send_eof)
        assert nc.stdout.read(10) == b"all I have"
        nc.stdin.write(b"and me")
        assert stack.wait(stream.receive_some) == b"and me"
        nc.stdin.close()
        assert stack.wait(stream.receive_some) == b""
        assert nc.wait(5) == OK


def test_nc_listens_in_listen_0_until_das(stack: RunningStack, umux: Umux) -> None:
    with process("nc", "-l", "80", "--listener", "web") as nc:
        assert line(nc) == "web stands in LISTEN_0; open an address for it: umux das add web"
        address = umux("das", "add", "web").out.strip()
        visitor = stack.enter(stack.wait(lambda: stack.peer.connect(address, 80)))
        assert line(nc).startswith(f"session ssa.web.1: {address} to ")
        assert umux("ss", "--json").json["listeners"] == []  # it took the one it wanted
        stack.wait(lambda: visitor.send_all(b"hello"))
        stack.wait(visitor.send_eof)
        assert nc.stdout is not None
        assert nc.stdout.read(5) == b"hello"
        out, err = nc.communicate(b"good bye", timeout=5)
        assert (nc.returncode, out, err) == (OK, b"", b"")
        assert stack.wait(visitor.receive_some) == b"good bye"


def test_nc_can_open_its_address_itself(stack: RunningStack) -> None:
    with process("nc", "-l", "--das") as nc:
        address = line(nc)
        visitor = stack.enter(stack.wait(lambda: stack.peer.connect(address, 80)))
        stack.wait(lambda: visitor.send_all(b"hello"))
        stack.wait(visitor.aclose)
        out, _ = nc.communicate(b"", timeout=5)
        assert (nc.returncode, out) == (OK, b"hello")


@pytest.mark.rule("UM-17", "UM-27")
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_a_listener_that_is_interrupted_leaves_nothing(stack: RunningStack, how: str) -> None:
    with process("nc", "-l", "--das") as nc:
        line(nc)
        assert addresses(stack, "SSA") == ["VALID"]
        nc.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        assert nc.wait(5) == (INTERRUPTED if how == "interrupt" else -9)
        assert nc.stderr is not None
        assert nc.stderr.read() == b""
    until(lambda: addresses(stack, "SSA") == [])
    assert stack.call(lambda: stack.host.stack.listeners()) == []


def test_a_reset_is_told_and_is_a_failure(stack: RunningStack, far: UmuxListener) -> None:
    with process("nc", "-q", PEER_SHARED, "80") as nc:
        stream = stack.wait(far.accept)
        stack.call(stream.abort)
        _, err = nc.communicate(timeout=5)
        assert (nc.returncode, err.decode()) == (FAILED, "umux: the session ended: reset\n")


def test_a_refusal_is_told_and_is_a_failure(stack: RunningStack) -> None:
    with process("nc", PEER_SHARED, "81") as nc:
        _, err = nc.communicate(timeout=5)
        assert nc.returncode == FAILED
        assert "Connection refused" in err.decode()
        assert "Traceback" not in err.decode()


def test_waiting_has_an_end(stack: RunningStack) -> None:
    with process("nc", "-w", "200ms", "2001:db8:2::bad", "80") as nc:
        _, err = nc.communicate(timeout=5)
        assert (nc.returncode, err.decode()) == (FAILED, "umux: the peer does not answer (--wait 200ms)\n")
    until(lambda: addresses(stack, "EA") == [])
    with process("nc", "-l", "--das", "-w", "200ms") as nc:
        _, err = nc.communicate(timeout=5)
        assert nc.returncode == FAILED
        assert "nobody came" in err.decode()


def test_a_reader_that_has_had_enough_ends_nc_in_silence(stack: RunningStack, far: UmuxListener) -> None:
    with process("nc", "-q", PEER_SHARED, "80") as nc:
        stream = stack.enter(stack.wait(far.accept))
        assert nc.stdout is not None
        nc.stdout.close()
        stack.wait(lambda: stream.send_all(bytes(100_000)))
        assert nc.wait(5) == 141
        assert nc.stderr is not None
        assert nc.stderr.read() == b""


def test_the_stack_that_goes_takes_nc_with_it(stack: RunningStack, far: UmuxListener) -> None:
    with process("nc", "-q", PEER_SHARED, "80") as nc:
        stack.enter(stack.wait(far.accept))
        stack.stop()
        _, err = nc.communicate(timeout=5)
        assert nc.returncode == NO_STACK
        assert "Traceback" not in err.decode()


@pytest.mark.parametrize(
    "words", [("nc",), ("nc", "::1", "80", "x"), ("nc", "::1", "http"), ("nc", "::1", "0"), ("nc", "-l", "1", "2")]
)
def test_wrong_usage_of_nc(stack: RunningStack, umux: Umux, words: tuple[str, ...]) -> None:
    wrong = umux(*words)
    assert wrong.code == USAGE
    assert wrong.err.startswith("umux: ")


@pytest.mark.rule("UM-38")
def test_ping_prints_each_answer_and_a_summary(stack: RunningStack, umux: Umux) -> None:
    shown = umux("ping", "-c", "3", "-i", "10ms", PEER_SHARED)
    assert shown.code == OK
    assert len([text for text in shown.lines if text.startswith("56 bytes: seq ")]) == 3
    assert shown.lines[-1].startswith("3 sent, 3 answered, 0 % lost, time min/avg/max ")
    as_json = umux("ping", "-c", "2", "-i", "10ms", PEER_SHARED, "--json")
    assert [json.loads(text)["sequence"] for text in as_json.lines] == [1, 2]


def test_ping_without_an_answer_fails(stack: RunningStack, umux: Umux) -> None:
    shown = umux("ping", "-c", "2", "-i", "0s", "-W", "50ms", "2001:db8:2::bad")
    assert shown.code == FAILED
    assert shown.lines[-1] == "2 sent, 0 answered, 100 % lost"
    stack.wait(lambda: trio.sleep(0))


def test_ping_tells_an_icmp_error_from_an_answer(stack: RunningStack, umux: Umux) -> None:
    """ "No route to host" was an answer of 0 bytes, and the exit code was 0."""

    def refuse() -> None:
        session = next(s for s in stack.host.stack.sessions() if s.remote == builders.packed("2001:db8:2::bad"))
        request = builders.echo_request(session.local, session.remote, 1, 1, bytes(56))
        stack.host.stack.receive(builders.unreachable("2001:db8:2::fe", request), 0, 0, False, Micros(stack.host.now()))
        stack.host.kick()

    async def soon() -> None:
        while not any(s.remote == builders.packed("2001:db8:2::bad") for s in stack.host.stack.sessions()):
            await trio.sleep(0.01)
        await trio.sleep(0.05)
        refuse()

    stack.call(lambda: stack.host.start_soon(soon))
    shown = umux("ping", "-c", "1", "-W", "5s", "2001:db8:2::bad")
    assert shown.code == FAILED
    assert "unreachable: seq 1" in shown.out
    assert "1 sent, 0 answered, 100 % lost" in shown.out
