"""`umux das` from the command line."""

from ipaddress import IPv6Address, IPv6Network

import pytest
import trio

from tests.cli.conftest import PREFIX, RunningStack, Umux
from umuxstack.cli.common import OK, REFUSED, USAGE
from umuxstack.core.errors import BadArgument
from umuxstack.driver.listeners import UmuxListener


@pytest.fixture
def web(stack: RunningStack) -> UmuxListener:
    return stack.enter(stack.wait(lambda: stack.host.listen(80, name="web", backlog=4)))


@pytest.mark.rule("UM-21")
def test_add_prints_the_address_alone_and_one_session_may_come(
    stack: RunningStack, umux: Umux, web: UmuxListener
) -> None:
    added = umux("das", "add", "web")
    assert (added.code, added.err) == (OK, "")
    address = added.out.strip()
    assert IPv6Address(address) in IPv6Network(PREFIX)
    stack.enter(stack.wait(lambda: stack.peer.connect(address, 80)))
    stack.enter(stack.wait(web.accept))
    assert umux("das", "list", "--json").json == []


@pytest.mark.rule("UM-24")
def test_every_option_of_add_arrives(umux: Umux, web: UmuxListener) -> None:
    words = ("--ssa", "2001:db8:1::cafe", "--peer", "2001:db8:7::/64", "--lifetime", "10m", "--label", "order 17")
    added = umux("das", "add", str(web.id), *words, "--grain", "client", "--pin", "64", "--json").json
    assert added["address"] == "2001:db8:1::cafe"
    assert added["peer"] == "2001:db8:7::/64"
    assert added["label"] == "order 17"
    assert added["grain"] == "client"
    assert 599_000_000 < added["expires_us"] <= 600_000_000
    line = umux("das", "list").lines[1]
    for part in ("ssa.web.1", "2001:db8:1::cafe", "WAITING", "client", "10 min", "2001:db8:7::/64", "order 17"):
        assert part in line


def test_an_unlimited_wait_never_ends(umux: Umux, web: UmuxListener) -> None:
    assert umux("das", "add", "web", "--lifetime", "unlimited", "--json").json["expires_us"] is None
    assert "never" in umux("das", "list").lines[1]


def test_revoke_takes_names_and_addresses(umux: Umux, web: UmuxListener) -> None:
    first, second = (umux("das", "add", "web", "--json").json for _ in range(2))
    assert umux("das", "revoke", first["name"], second["address"]).code == OK
    assert umux("das", "list", "--json").json == []


@pytest.mark.parametrize(
    ("words", "cause", "fix"),
    [
        (("add", "nobody"), "no listener is called 'nobody'; there are: web", "umux ss"),
        (("add", "web", "--ssa", "2001:db8:9::1"), "", "umux status"),
        (("revoke", "ssa.web.9"), "no SSA waits", "umux das list"),
    ],
)
def test_a_refusal_has_cause_and_fix_and_exit_code_4(
    umux: Umux, web: UmuxListener, words: tuple[str, ...], cause: str, fix: str
) -> None:
    refused = umux("das", *words)
    assert refused.code == REFUSED
    assert refused.out == ""
    assert cause in refused.err
    assert fix in refused.err
    assert "Traceback" not in refused.err


def test_a_full_backlog_says_what_helps(umux: Umux, web: UmuxListener) -> None:
    codes = [umux("das", "add", "web").code for _ in range(5)]
    assert codes == [OK] * 4 + [REFUSED]
    assert "revoke" in umux("das", "add", "web").err


@pytest.mark.parametrize(
    "words",
    [
        ("add",),
        ("add", "web", "--ssa", "10.0.0.1"),
        ("add", "web", "--peer", "2001:db8::1/64"),
        ("add", "web", "--lifetime", "soon"),
        ("add", "web", "--grain", "service"),
        ("add", "web", "--label", "x" * 129),
        ("revoke",),
        (),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_refused_before_it_is_sent(
    umux: Umux, web: UmuxListener, words: tuple[str, ...]
) -> None:
    wrong = umux("das", *words)
    assert wrong.code == USAGE
    assert wrong.err
    assert "Traceback" not in wrong.err
    assert umux("das", "list", "--json").json == []


def test_a_name_with_escape_sequences_cannot_be_given_or_sent(stack: RunningStack, umux: Umux) -> None:
    with pytest.raises(BadArgument, match="cannot be printed"):
        stack.wait(lambda: stack.host.listen(name="\x1b[31mred\n"))
    assert umux("das", "add", "\x1b[31mred\n").code == USAGE
    assert umux("das", "add", "red", "--label", "\x1b[31m").code == USAGE
    stack.wait(lambda: trio.sleep(0))
