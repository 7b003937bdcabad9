"""The requirement matrix holds: no MUST without a test or a reason, and no reason that is out of date."""

from pathlib import Path

import pytest

from umuxstack.conformance import matrix

ROOT = Path(__file__).parents[2]


def test_no_must_is_without_a_test_or_a_reason() -> None:
    assert matrix.load(ROOT).problems() == []


def test_a_must_without_either_is_a_problem() -> None:
    bare = matrix.Requirement("MUST-1", "MUST", "Window", "Treat as unsigned number", (), (), "")
    assert "MUST-1" in matrix.Matrix((bare,), ()).problems()[0]


def test_a_should_may_be_missing() -> None:
    bare = matrix.Requirement("SHLD-1", "SHOULD", "ISN", "PRF", (), (), "")
    assert matrix.Matrix((bare,), ()).problems() == []


@pytest.mark.parametrize("reason", ["MUST-99", "MUST-5"])
def test_a_stale_reason_is_a_problem(reason: str) -> None:
    assert reason in matrix.Matrix((), (reason,)).problems()[0]
