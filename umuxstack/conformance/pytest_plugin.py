"""For pytest: a .pkt file is a test. A conftest.py imports `pytest_collect_file` for its directory.

A script that asks for something unsupported is skipped, naming it; anything else but passing fails with the
runner's explanation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from umuxstack.conformance.outcome import Outcome, Status
from umuxstack.conformance.runner import Settings, run_file
from umuxstack.conformance.suite import explain


class ScriptFailed(Exception):
    """The script's outcome, as an exception for pytest."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class ScriptItem(pytest.Item):
    """One script."""

    obj: object = None  # pytest-trio asks every item for its function

    def runtest(self) -> None:
        outcome = run_file(self.path, Settings(seed=os.environ.get("UMUX_SEED", "1")))
        if outcome.status is Status.UNSUPPORTED:
            pytest.skip(f"unsupported: {outcome.message}")
        if not outcome.passed:
            raise ScriptFailed(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        if isinstance(excinfo.value, ScriptFailed):
            return "\n".join(explain(excinfo.value.outcome))
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.path.stem


class ScriptFile(pytest.File):
    """A .pkt file: one item."""

    def collect(self) -> Iterator[ScriptItem]:
        yield ScriptItem.from_parent(self, name=self.path.stem)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScriptFile | None:
    """The hook."""
    return ScriptFile.from_parent(parent, path=file_path) if file_path.suffix == ".pkt" else None
