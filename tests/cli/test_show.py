"""The commands that look at a stack: tables for people, JSON for programs."""

import json
from typing import Any

import pytest
import trio

from tests.cli.conftest import PEER_SHARED, RunningStack, Umux
from umuxstack.cli.common import USAGE
from umuxstack.core.units import Address
from umuxstack.core.wire.address import to_text
from umuxstack.driver.streams import UmuxStream

LISTS = [("ss",), ("addr",), ("pool",), ("status",), ("stats",), ("telescope",), ("das", "list")]


def open_session(stack: RunningStack) -> UmuxStream:
    """A listener `web` with an SSA that waits and one that has its session; a connection of ours to the peer."""
    web = stack.enter(stack.wait(lambda: stack.host.listen(80, name="web")))
    stack.call(lambda: stack.host.das(web, label="waits"))
    found = stack.call(lambda: stack.host.das(web, label="order 17").lease.address)
    far = stack.enter(stack.wait(lambda: stack.peer.listen(80, address=PEER_SHARED)))
    stack.enter(stack.wait(lambda: stack.peer.connect(to_text(found), 80)))
    stack.enter(stack.wait(web.accept))
    ours = stack.enter(stack.wait(lambda: stack.host.connect(PEER_SHARED, 80, label="fetch")))
    stack.enter(stack.wait(far.accept))
    return ours


def knock(stack: RunningStack, sources: int) -> None:
    """So many addresses of the peer try an address of the stack that nobody holds."""

    def send() -> None:
        prefix = stack.host.config.prefix
        for _ in range(sources):
            stack.peer.stack.connect(Address(prefix[:15] + b"\x99"), 80, stack.peer.now())
        stack.peer.kick()

    stack.call(send)
    stack.wait(lambda: trio.sleep(0.05))


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_every_list_is_readable_at_100_columns_and_has_json(stack: RunningStack, umux: Umux, words: list[str]) -> None:
    open_session(stack)
    knock(stack, 1)
    table = umux(*words)
    assert (table.code, table.err) == (0, "")
    assert table.lines
    assert max(map(len, table.lines)) <= 100
    assert all(line == line.rstrip() for line in table.lines)
    as_json = umux(*words, "--json")
    assert as_json.code == 0
    assert as_json.json


def test_ss_shows_listeners_with_their_children_and_sessions(stack: RunningStack, umux: Umux) -> None:
    ours = open_session(stack)
    lines = umux("ss").lines
    assert lines[0].split()[:2] == ["STATE", "NAME"]
    assert lines[1].split()[:3] == ["LISTEN_0", "web", "*"]
    assert lines[2].split()[:2] == ["LISTEN_U", "ssa.web.1"]
    assert "'waits'" in lines[2]
    text = "\n".join(lines)
    assert ["ESTABLISHED", "ea.1", to_text(ours.session.local), PEER_SHARED] in [line.split() for line in lines]
    for part in ("tcp client", "tcp server", "ports 1:80", "grain session", "'order 17'", "cubic", "rtt ", "cwnd "):
        assert part in text
    assert [line.split()[:2] for line in umux("ss", "-l").lines] == [line.split()[:2] for line in lines[:3]]
    assert len(umux("ss", "--brief").lines) == 5


@pytest.mark.rule("UM-34")
def test_only_das_list_and_reveal_show_a_waiting_address(stack: RunningStack, umux: Umux) -> None:
    open_session(stack)
    (waiting,) = [row["address"] for row in umux("das", "list", "--json").json]
    for words in (("ss",), ("ss", "--json"), ("addr",), ("addr", "--json"), ("status",), ("telescope",)):
        assert waiting not in umux(*words).out
    assert waiting in umux("addr", "--reveal").out
    assert waiting in umux("das", "list").out


def test_json_names_its_units_and_has_null_for_what_is_not(stack: RunningStack, umux: Umux) -> None:
    open_session(stack)
    shown = umux("ss", "--json").json
    (listener,) = shown["listeners"]
    (waiter,) = shown["waiting"]
    sessions: dict[str, Any] = {row["lease"]: row for row in shown["sessions"]}
    assert listener["address"] is None
    assert waiter["address"] is None
    assert waiter["peer"] is None
    assert 0 < waiter["expires_us"] <= 60_000_000
    assert sessions["ea.1"]["remote"] == PEER_SHARED
    assert sessions["ea.1"]["srtt_us"] >= 0


def test_stats_can_be_searched_and_leave_out_what_is_zero(stack: RunningStack, umux: Umux) -> None:
    open_session(stack)
    names = [line.split()[0] for line in umux("stats").lines[1:]]
    assert "packets_in" in names
    assert "drop.no_owner" not in names
    everything = [line.split()[0] for line in umux("stats", "--all").lines[1:]]
    assert "drop.no_owner" in everything
    assert umux("stats", "drop", "--all").lines[1].startswith("drop.")
    wrong = umux("stats", "--watch", "often")
    assert wrong.code == USAGE
    assert "'often' is not a time" in wrong.err
    assert set(umux("stats", "packets", "--json").json) == {"packets_in", "packets_out"}


def test_the_telescope_shows_the_loudest_and_says_how_many_more(stack: RunningStack, umux: Umux) -> None:
    knock(stack, 5)
    stack.wait(lambda: trio.sleep(1.5))  # each SYN comes again after a second
    lines = umux("telescope", "--limit", "2").lines
    assert len(lines) == 4
    assert lines[0].split() == ["SOURCE", "PACKETS", "RATE", "FIRST", "LAST"]
    assert lines[1].split()[1] == "2"
    assert 0.5 < float(lines[1].split()[2].removesuffix("/s")) < 1.1
    assert lines[-1] == "… and 3 more; --limit 0 shows all"
    shown = umux("telescope", "--limit", "0", "--json").json
    assert len(shown) == 5
    assert all(0.5 < one["per_second"] < 1.1 and one["age_us"] > one["quiet_us"] >= 0 for one in shown)


def test_events_are_lines_until_the_stack_ends(stack: RunningStack, umux: Umux) -> None:
    async def happen() -> None:
        await trio.sleep(0.2)  # until the command is there
        async with await stack.host.listen(name="web") as listener:
            stack.host.das(listener, label="order 17")
        stack.host.pump.stop()

    stack.call(lambda: stack.host.start_soon(happen))
    shown = umux("events", "--json")
    assert shown.code == 1
    assert [json.loads(line)["kind"] for line in shown.lines][:3] == ["listen", "lease_opened", "das"]
