"""What a running stack shows: captures, logs, recordings, and metrics under the names that other tools know."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import dpkt
import pytest
import trio

from umuxstack import Impairment, open_host, to_text
from umuxstack.analyze.plot import draw
from umuxstack.cli.metrics import SNMP, Exporter, as_prometheus, as_snmp
from umuxstack.core.counters import Counters
from umuxstack.core.errors import BadArgument
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.driver.qlog import read
from umuxstack.driver.replay import replay

CLIENT, SERVER = "2001:db8:a::/64", "2001:db8:b::/64"
CONTENT = bytes(range(256)) * 400


async def one_transfer(folder: Path, congestion: str | None = None) -> str:
    """100 KB over a wire with loss; the client is captured, logged and recorded. Returns its algorithm's name."""
    fault = Impairment(loss=0.02, seed=4)
    ours, theirs = memory_link_pair(fault, fault)
    async with (
        open_host(prefix=SERVER, link=theirs) as server,
        open_host(
            prefix=CLIENT,
            link=ours,
            seed=bytes(32),
            congestion=congestion,
            capture=folder / "link.pcapng",
            qlog=folder / "logs",
            record=None if congestion else folder / "run.jsonl",
        ) as client,
    ):
        listener = await server.listen(name="web")
        ssa = server.das(listener, label="order").address
        with trio.fail_after(60):
            stream = await client.connect(to_text(ssa))
            accepted = await listener.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, CONTENT)
                got = b""
                while len(got) < len(CONTENT):
                    got += await accepted.receive_some()
        assert got == CONTENT
        name = stream.statistics().congestion
        await stream.aclose()
        await accepted.aclose()
    return name


@pytest.mark.plain
async def test_a_run_leaves_a_capture_logs_and_a_recording_that_repeats(tmp_path: Path) -> None:
    assert await one_transfer(tmp_path) == "cubic"
    with open(tmp_path / "link.pcapng", "rb") as file:
        packets = [packet for _, packet in dpkt.pcapng.Reader(file)]
    assert len(packets) > 10  # super-segments are written whole
    header, events = read(tmp_path / "logs" / "ea.1.qlog")
    assert header["title"] == "ea.1"
    assert any(event["name"] == "transport:packet_sent" for event in events)
    assert draw(sorted((tmp_path / "logs").glob("*.qlog")), tmp_path / "all.html") == 5
    result = replay(tmp_path / "run.jsonl")
    assert result.difference is None
    assert result.packets_in > 5


async def test_a_host_runs_an_algorithm_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from umuxstack.core.tcp.congestion.base import CongestionControl\n"
        "class Mine(CongestionControl):\n"
        "    name = 'mine'\n"
        "    def increase(self, acked, rtt, now):\n"
        "        self.add_per_window(acked, 2 * self.mss)\n"
    )
    assert await one_transfer(tmp_path, f"{path}:Mine") == "mine"
    with pytest.raises(BadArgument):
        async with open_host(prefix=CLIENT, link=memory_link_pair()[0], congestion=f"{path}:Other"):
            pass


def test_every_snmp_name_stands_for_a_counter_that_exists() -> None:
    figures = Counters().snapshot()
    assert set(SNMP) <= set(figures)
    assert len(set(SNMP.values())) == len(SNMP)
    assert as_snmp({**figures, "segments_in": 7})["tcpHCInSegs"] == 7


def test_prometheus_reads_every_line_and_sees_no_address() -> None:
    text = as_prometheus({"packets_in": 5, "drop.no_owner": 2, "sessions": 3}, 'a"b')
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+\{stack="a\\"b"(,reason="\w+")?\} \d+', line), line
    assert 'umux_packets_in_total{stack="a\\"b"} 5' in text
    assert 'umux_drops_total{stack="a\\"b",reason="no_owner"} 2' in text
    assert "# TYPE umux_sessions gauge" in text
    assert ":" not in re.sub(r"# HELP.*", "", text)


def test_the_exporter_answers_metrics_and_nothing_else() -> None:
    broken = False

    def render() -> str:
        if broken:
            raise RuntimeError("no stack")
        return "umux_up 1\n"

    with Exporter(0, render) as exporter:
        Thread(target=exporter.serve_forever, daemon=True).start()
        try:
            base = f"http://127.0.0.1:{exporter.port}"
            with urllib.request.urlopen(f"{base}/metrics") as answer:
                assert answer.read() == b"umux_up 1\n"
            with pytest.raises(urllib.error.HTTPError, match="404") as missing:
                urllib.request.urlopen(f"{base}/other")
            missing.value.close()
            broken = True
            with pytest.raises(urllib.error.HTTPError, match="503") as gone:
                urllib.request.urlopen(f"{base}/metrics")
            gone.value.close()
        finally:
            exporter.shutdown()


@pytest.mark.plain
def test_replay_says_what_it_compared(tmp_path: Path) -> None:
    trio.run(one_transfer, tmp_path)
    command = [sys.executable, "-m", "umuxstack", "replay", str(tmp_path / "run.jsonl")]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["difference"] is None
    (tmp_path / "bad").write_text("{}\n")
    done = subprocess.run([*command[:-1], str(tmp_path / "bad")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not a recording" in done.stderr
