"""Algorithms from a user's file: what loads, and what each mistake is told."""

import sys
from pathlib import Path

import pytest

from tests.core.tcp.congestion.simulation import MSS
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.tcp.congestion.registry import make
from umuxstack.core.units import Micros
from umuxstack.driver.congestion_loader import load_spec, register_spec
from umuxstack.testing import Network

APPS = Path(__file__).parents[2] / "apps"

HEAD = """
from umuxstack.core.tcp.congestion.base import CongestionControl
class Mine(CongestionControl):
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return f"{path}:Mine"


def test_the_worked_example_is_aimd_with_its_two_numbers() -> None:
    registered: dict[str, type] = {}
    assert register_spec(f"{APPS}/aimd_cc.py:Aimd", registered) == "aimd"
    control = make("aimd", MSS, 10 * MSS, registered)
    control.cwnd = control.ssthresh = 100 * MSS
    for _ in range(5):
        control.on_ack(control.cwnd, 20_000, 0, Micros(0), True)
    assert control.cwnd == 101 * MSS  # a fifth of a segment each round trip
    control.on_loss(104 * MSS, Micros(0))
    assert control.cwnd == round(101 * MSS * 0.875)


def test_a_class_without_a_name_goes_by_its_class(tmp_path: Path) -> None:
    registered: dict[str, type] = {}
    assert register_spec(written(tmp_path, HEAD + "    beta = 0.9\n"), registered) == "mine"
    assert [*registered] == ["mine"]


def test_a_plain_name_is_checked_and_passed_through() -> None:
    assert register_spec("cubic", {}) == "cubic"
    with pytest.raises(BadArgument, match="no congestion control is called 'cubbic'"):
        register_spec("cubbic", {})


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", ":Mine", ""])
def test_what_has_not_the_form_is_refused(spec: str) -> None:
    with pytest.raises(BadArgument, match=r"not of the form path/to/file\.py:Class"):
        load_spec(spec)


def test_a_missing_file_and_a_missing_class_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="there is no file"):
        load_spec(f"{tmp_path}/none.py:Mine")
    with pytest.raises(BadArgument, match="defines no 'Mine'"):
        load_spec(written(tmp_path, "x = 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine: pass\n", "not a subclass of CongestionControl"),
        ("Mine = 3\n", "not a subclass of CongestionControl"),
        ("def broken(:\n", "running the file fails: SyntaxError"),
        ("import no_such_module_anywhere\n", "running the file fails: ModuleNotFoundError"),
        (HEAD + "    def on_ack(self, acked): pass\n", r"Mine\.on_ack\(self, acked\).*TCP calls on_ack"),
        (HEAD + "    def increase(self, acked, rtt, now): self.cwnd += 0.5\n", "whole bytes|int object expected"),
        (HEAD + "    async def increase(self, acked, rtt, now): pass\n", "increase is no plain function"),
        (HEAD + "    def on_idle(self, idle, rto): yield\n", "on_idle is no plain function"),
    ],
)
def test_each_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadArgument, match=message) as caught:
        load_spec(written(tmp_path, text))
    assert "mine.py:Mine" in str(caught.value)


def test_a_file_that_is_not_python_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("hello")
    with pytest.raises(BadArgument, match="not a Python file"):
        load_spec(f"{path}:Mine")


def test_loading_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    text = "from __future__ import annotations\nimport dataclasses\n" + HEAD.strip().replace(
        "class Mine", "@dataclasses.dataclass\nclass Limits:\n    share: int = 1\nclass Mine"
    )
    load_spec(written(tmp_path, text + "\n    pass\n"))
    assert not [name for name in set(sys.modules) - before if "mine" in name]


def test_a_file_that_ends_the_program_is_told_so(tmp_path: Path) -> None:
    """SystemExit went through: `umux up` ended without a word, with whatever code the file chose."""
    with pytest.raises(BadArgument, match=r"running the file fails: SystemExit: 3"):
        load_spec(written(tmp_path, "import sys\nsys.exit(3)\n"))


@pytest.mark.parametrize("name", ["5", "('a', 'b')", "'a b'", "'red \\x1b[31m'", "'wide\\u00e9'"])
def test_a_name_that_nobody_could_ask_for_is_refused(tmp_path: Path, name: str) -> None:
    """A number as name ended `umux up` with a TypeError in a comparison; control characters reached the terminal."""
    registered: dict[str, type] = {}
    with pytest.raises(BadArgument, match=r"its name is a word of printable ASCII|str object expected"):
        register_spec(written(tmp_path, HEAD + f"    name = {name}\n"), registered)
    assert registered == {}


def test_a_session_says_the_name_by_which_its_algorithm_was_picked(tmp_path: Path) -> None:
    """Of a class without `name` it said none, and of one made out of Cubic "cubic"."""
    for base in ("CongestionControl", "Cubic"):
        text = HEAD.replace("class", "from umuxstack.core.tcp.congestion.cubic import Cubic\nclass")
        spec = written(tmp_path, text.replace("Mine(CongestionControl)", f"Mine({base})") + "    beta = 0.9\n")
        registered: dict[str, type] = {}
        assert register_spec(spec, registered) == "mine"
        net = Network(seed=1)
        server, client = net.hosts("server", "client", congestion=registered, tcp=TcpPolicy(congestion="mine"))
        session = client.connect(server.das(server.listen()).address)
        net.run_until_idle()
        assert session.statistics().congestion == "mine"
