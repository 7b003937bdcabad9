"""Record and replay: a run repeats, byte for byte, and a difference is found where it is."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_INET6, SO_RCVBUF, SOCK_STREAM, SOL_SOCKET
from typing import Any

import attrs
import pytest
import trio

from apps.aimd_cc import Aimd
from tests.driver.conftest import CLIENT_PREFIX, SERVER_PREFIX, SHARED, config
from tests.driver.wires import fake_wire
from umuxstack.core.config import StackConfig, TcpPolicy
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import AddressNotOurs
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros, millis
from umuxstack.core.wire.address import parse
from umuxstack.driver.addresses import to_address
from umuxstack.driver.links.impair import Impairment, Pipe
from umuxstack.driver.pump import END_BATCH
from umuxstack.driver.qlog import QlogWriter
from umuxstack.driver.record import Recorder
from umuxstack.driver.replay import NotARecording, main, replay
from umuxstack.driver.runtime import Host
from umuxstack.host import _keep_log


def record_a_lossy_transfer(path: Path) -> bytes:
    """A recorded server that receives 300 KB through a bad wire; returns what it read."""
    fault = Impairment(loss=0.05, reorder=0.02, duplicate=0.02, delay=millis(5), seed=3)
    there, back = Pipe(fault, name="there"), Pipe(fault, name="back")
    now = Micros(0)
    client = Stack(StackConfig(prefix=parse("2001:db8:a::")), Entropy(b"client"), now)
    content = bytes(range(256)) * 1200
    with Recorder(path) as recorder:
        server = recorder.make_stack(StackConfig(prefix=parse("2001:db8:b::")), b"server", now)
        listener = server.listen(now, name="web")
        with pytest.raises(AddressNotOurs):
            server.das(listener, now, ssa=parse("2001:db8:c::1"))
        ssa = server.das(listener, now, label="order").lease.address
        session = client.connect(ssa, 80, now)
        accepted, got, written = None, b"", 0
        while now < 60_000_000 and len(got) < len(content):
            accepted = accepted or listener.accept()
            if session.established and written < len(content):
                written += session.write(content[written:], now)
            if accepted is not None:
                got += accepted.read(1 << 20, now)
            for outgoing in client.take_output(now):
                there.send_outgoing(outgoing, now)
            for outgoing in server.take_output(now):
                back.send_outgoing(outgoing, now)
            now = Micros(now + 500)
            for packet in there.receive_due(now):
                server.receive(*packet, now)
            for packet in back.receive_due(now):
                client.receive(*packet, now)
            client.advance(now)
            server.advance(now)
        server.close(now)
        server.take_output(now)
    assert got == content
    return got


@pytest.mark.plain
def test_a_recorded_run_repeats_in_the_core_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    record_a_lossy_transfer(path)
    result = replay(path)
    assert result.difference is None
    assert result.packets_in > 100
    assert result.packets_out > 20
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.plain
def test_a_changed_input_is_found_where_it_first_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    record_a_lossy_transfer(path)
    lines = path.read_text().splitlines()
    victim = next(number for number, line in enumerate(lines) if '"receive"' in line and number > 200)
    del lines[victim]
    path.write_text("\n".join(lines) + "\n")
    result = replay(path)
    assert result.difference is not None
    assert result.difference.line > victim
    assert main([str(path)]) == 1
    assert "recorded" in capsys.readouterr().out


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"something": "else"}\n')
    with pytest.raises(NotARecording):
        replay(path)
    path.write_text("not json\n")
    with pytest.raises(NotARecording):
        replay(path)
    assert main([str(path)]) == 2


@pytest.mark.plain
@pytest.mark.parametrize(
    "line",
    ["[1]", '"x"', "5", "[]", '[1,"receive","zz",0,1]', '[1,"receive","60",null,1]', '[1,"nothing"]',
     '["receive",0,[],{},1]', '["connect",9,[],{},1]', '["connect",0,5,{},1]', '["__class__",0,[],{},1]',
     '["close",0,[{"object":7}],{},null]'],
)  # fmt: skip
def test_a_line_of_another_shape_is_damaged_and_no_traceback(tmp_path: Path, line: str) -> None:
    """What was JSON, and nothing that a recorder writes, ended `umux replay` with a traceback."""
    path = tmp_path / "run.jsonl"
    record_a_lossy_transfer(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:20], line + "\n", *lines[20:]]))
    with pytest.raises(NotARecording, match="line 21 is damaged"):
        replay(path)


@pytest.mark.plain
def test_what_a_killed_process_left_repeats_up_to_its_last_whole_line(tmp_path: Path) -> None:
    """The cut line made the whole file unusable, just when somebody wants to know what happened."""
    path = tmp_path / "run.jsonl"
    record_a_lossy_transfer(path)
    text = path.read_text()
    cut = text.index('"receive"', len(text) // 2) + 30
    path.write_text(text[:cut])
    result = replay(path)
    assert result.difference is None
    assert result.lines == text[:cut].count("\n") - 1
    path.write_text(text[:100])
    with pytest.raises(NotARecording, match="line 1 is damaged"):
        replay(path)


class Faulty(Aimd):
    """Whoever writes an algorithm makes mistakes; this one shows itself only after a while."""

    name = "faulty"
    __slots__ = ("calls",)

    def on_ack(self, *args: Any, **kwargs: Any) -> None:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls % 16 == 15:
            raise ZeroDivisionError
        super().on_ack(*args, **kwargs)

    def pacing_rate(self, srtt: int) -> int:
        if getattr(self, "calls", 0) % 16 == 12:
            self.calls += 1
            raise KeyError
        return 0


@pytest.mark.plain
def test_a_fault_that_the_driver_survived_is_repeated_too(tmp_path: Path) -> None:
    """A replay ended with the algorithm's traceback, and an output that had raised was in no line at all."""
    tuned = StackConfig(prefix=parse("2001:db8:b::"), tcp=TcpPolicy(congestion="faulty"))
    client = Stack(StackConfig(prefix=parse("2001:db8:a::")), Entropy(b"client"), Micros(0))
    faults = []
    with Recorder(tmp_path / "run.jsonl") as recorder:
        server = recorder.make_stack(tuned, b"server", Micros(0), congestion={"faulty": Faulty})
        listener = server.listen(Micros(0), name="web")
        session = client.connect(server.das(listener, Micros(0)).lease.address, 80, Micros(0))
        accepted = None
        for turn in range(2000):
            now = Micros(turn * 1000)
            for stack, other in (client, server), (server, client):
                stack.advance(now)
                try:
                    batch = stack.take_output(now)
                except (KeyError, ZeroDivisionError) as error:
                    faults.append(type(error))
                    continue
                for header, payload, _, _ in batch:
                    try:
                        other.receive(header + payload, 0, 0, True, now)
                    except (KeyError, ZeroDivisionError) as error:
                        faults.append(type(error))
            accepted = accepted or listener.accept()
            if accepted is not None:
                accepted.write(bytes(5000), now)
                session.read(1 << 20, now)
    assert {*faults} == {KeyError, ZeroDivisionError}
    assert replay(tmp_path / "run.jsonl", {"faulty": Faulty}).difference is None
    assert replay(tmp_path / "run.jsonl", {"faulty": Aimd}).difference is not None


@pytest.mark.plain
async def test_a_full_disk_ends_a_recording_and_the_logs_but_not_the_stack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error went through the core's verbs: sessions were aborted, and `umux up` ended with a traceback."""
    left, right = fake_wire(offload=False)
    with short_files(20_000):
        async with Host(left, config(CLIENT_PREFIX)) as client:
            with Recorder(tmp_path / "run.jsonl") as recorder:
                async with Host(right, config(SERVER_PREFIX, SHARED), recorder=recorder) as server:
                    log = QlogWriter(server.stack, tmp_path / "logs")
                    _keep_log(server, log)
                    async with (
                        await server.listen(80, address=SHARED) as listener,
                        await client.connect(SHARED, 80) as stream,
                        await listener.accept() as accepted,
                        trio.open_nursery() as nursery,
                    ):
                        nursery.start_soon(accepted.send_all, bytes(6_000_000))
                        got = 0
                        while got < 6_000_000:
                            got += len(await stream.receive_some())
                    log.close()
                    assert server.pump.faults == 0
    assert recorder.error is not None
    assert log.error is not None
    assert caplog.text.count("the recording ended: [Errno 27]") == 1
    assert caplog.text.count("the logs of sessions ended: [Errno 27]") == 1
    assert replay(tmp_path / "run.jsonl").difference is None


@contextmanager
def short_files(size: int) -> Iterator[None]:
    """No file of this process may become longer: what a full disk does, as another error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.plain
async def test_the_end_of_a_host_with_live_sessions_repeats_too(tmp_path: Path) -> None:
    left, right = fake_wire()
    async with (
        Host(right, config(SERVER_PREFIX, SHARED)) as server,
        await server.listen(80, address=SHARED, backlog=3 * END_BATCH),
    ):
        with Recorder(tmp_path / "run.jsonl") as recorder:
            async with Host(left, config(CLIENT_PREFIX), recorder=recorder) as client:
                sessions = [client.stack.connect(to_address(SHARED), 80, client.now()) for _ in range(2 * END_BATCH)]
                client.kick()
                await trio.sleep(1)
                assert all(session.established for session in sessions)
    result = replay(tmp_path / "run.jsonl")
    assert result.difference is None
    assert result.stack is not None
    assert list(result.stack.sessions()) == []
    assert result.packets_out >= 4 * END_BATCH  # a SYN and a RST of each at least


@pytest.mark.plain
async def test_what_is_set_on_a_listener_and_tails_and_records_repeat_too(tmp_path: Path) -> None:
    """Of what a program writes, only `write` and `write_urgent` were recorded."""
    left, right = fake_wire()
    async with Host(left, config(CLIENT_PREFIX)) as client:
        with Recorder(tmp_path / "run.jsonl") as recorder:
            async with Host(right, config(SERVER_PREFIX, SHARED), recorder=recorder) as server:
                with server.socket_factory.socket(AF_INET6, SOCK_STREAM, 0) as listening:
                    await listening.bind((SHARED, 80))
                    listening.listen()
                    listening.setsockopt(SOL_SOCKET, SO_RCVBUF, 5000)
                    async with await client.connect(SHARED, 80) as stream:
                        accepted = server.stack.listeners()[0].accept()  # type: ignore[union-attr]
                        assert isinstance(accepted, TcpSession)
                        accepted.write_more(b"and ", server.now())
                        accepted.write_record(b"so on", server.now())
                        server.kick()
                        assert await stream.receive_some() == b"and so on"
    assert replay(tmp_path / "run.jsonl").difference is None


@pytest.mark.plain
async def test_a_run_with_an_algorithm_of_ones_own_repeats_with_it_and_says_if_it_is_missing(tmp_path: Path) -> None:
    """It could not be recorded at all: just what a researcher wants to see once more."""
    algorithms: dict[str, type] = {"aimd": Aimd}
    left, right = fake_wire()
    async with Host(left, config(CLIENT_PREFIX)) as client:
        with Recorder(tmp_path / "run.jsonl") as recorder:
            tuned = attrs.evolve(config(SERVER_PREFIX, SHARED), tcp=TcpPolicy(congestion="aimd"))
            async with (
                Host(right, tuned, congestion=algorithms, recorder=recorder) as server,
                await server.listen(80, address=SHARED) as listener,
                await client.connect(SHARED, 80) as stream,
                await listener.accept() as accepted,
            ):
                await accepted.send_all(bytes(100_000))
                await accepted.send_eof()
                assert len(b"".join([part async for part in stream])) == 100_000
    with pytest.raises(NotARecording, match="'aimd': say where it is"):
        replay(tmp_path / "run.jsonl")
    assert replay(tmp_path / "run.jsonl", algorithms).difference is None
