"""The programs in the documents do what is written beside them, not only compile."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import umuxstack
from tests.core.tcp.congestion import simulation
from umuxstack.core.entropy import Entropy
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.congestion.cubic import Cubic
from umuxstack.core.units import Micros
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.testing import Network

ROOT = Path(__file__).parents[2]


def programs(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def test_the_readmes_program_serves_whoever_has_its_address_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = programs("README.md")
    ours, theirs = memory_link_pair()
    mains: list[Callable[[], Any]] = []
    monkeypatch.setattr(umuxstack, "open_host", partial(umuxstack.open_host, link=ours))
    with monkeypatch.context() as while_it_is_read:
        while_it_is_read.setattr(trio, "run", mains.append)
        exec(compile(program, "README.md", "exec"), {})

    async def visit() -> None:
        async with (
            umuxstack.Host(theirs, umuxstack.make_config("2001:db8:2::/64")) as host,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(mains[0])
            await trio.sleep(1)
            address = capsys.readouterr().out.strip()
            async with await host.connect(address) as stream:
                assert b"".join([data async for data in stream]) == b"hello, and goodbye: this address was for you\n"
            with pytest.raises(TimeoutError):
                await host.connect(address)
            nursery.cancel_scope.cancel()

    trio.run(visit, clock=MockClock(autojump_threshold=0))


def test_the_twenty_lines_are_a_congestion_control_in_all_the_ways_that_are_shown(tmp_path: Path) -> None:
    twenty_lines, ways, trying = programs("docs/congestion.md")
    names: dict[str, Any] = {"config": umuxstack.make_config("2001:db8:1::/64"), "entropy": Entropy(b"any")}
    names |= {"now": Micros(0), "Stack": Stack, "Network": Network, "TcpPolicy": umuxstack.TcpPolicy, "Cubic": Cubic}
    exec(twenty_lines, names)
    file = tmp_path / "aimd_cc.py"
    file.write_text(twenty_lines)
    lines = ways.replace("apps/aimd_cc.py", str(file)).splitlines()
    opened = next(line for line in lines if "open_host(" in line)
    for line in lines:
        if "Stack(" in line or "Network()" in line:
            exec(line, names)

    async def one_session() -> str:
        ours, theirs = memory_link_pair()
        seen: list[str] = []
        async with umuxstack.Host(theirs, umuxstack.make_config("2001:db8:2::/64")) as peer:
            listener = await peer.listen()
            address = umuxstack.to_text(peer.das(listener).address)

            async def use(host: umuxstack.Host) -> None:
                async with await host.connect(address) as stream:
                    seen.append(stream.statistics().congestion)
                    exec(next(line for line in lines if line.startswith("stream.")), {"stream": stream})
                    seen.append(stream.statistics().congestion)

            shown = {"use": use, "umuxstack": umuxstack, "ours": ours}
            line = opened.replace("prefix=", "link=ours, prefix=").replace(": ...", ": await use(host)")
            exec(f"async def main():\n    {line}", shown)
            await shown["main"]()  # type: ignore[operator]
            await listener.aclose()
        return " ".join(seen)

    assert trio.run(one_session, clock=MockClock(autojump_threshold=0)) == "aimd newreno"
    printed: list[list[float]] = []
    exec(trying, names | vars(simulation) | {"print": printed.append})
    assert min(printed[0]) > 100_000
