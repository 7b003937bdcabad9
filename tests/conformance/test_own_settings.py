"""`umux set`: a word that is no yes was taken for a no, `True` among them."""

from umuxstack.conformance.outcome import Status
from umuxstack.conformance.runner import run_text

SCRIPT = """--umux=legacy
    0 `umux set nodelay={value}`
   +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
"""


def test_a_setting_may_be_said_as_python_says_it() -> None:
    for value in ("1", "on", "true", "True", "0", "off", "False"):
        assert run_text(SCRIPT.format(value=value)).passed, value


def test_what_is_neither_yes_nor_no_is_an_error() -> None:
    outcome = run_text(SCRIPT.format(value="maybe"))
    assert outcome.status is not Status.PASSED
    assert "neither yes nor no" in outcome.message
