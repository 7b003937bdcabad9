"""Every reason to drop a packet that the core knows is provoked by a test, and asserted by its counter."""

import ast
from pathlib import Path

import pytest

from tests.core.scene import end
from umuxstack.core.errors import Drop
from umuxstack.testing.wire import Wire

ROOT = Path(__file__).parents[2]


def named(folder: Path) -> set[str]:
    """The members of Drop that the Python files below `folder` name."""
    return {
        node.attr
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Drop"
    }


@pytest.mark.rule("UM-31.b")
def test_every_reason_that_the_core_counts_is_asserted_by_some_test() -> None:
    assert named(ROOT / "umuxstack" / "core") - named(ROOT / "tests" / "core") == set()


def test_each_reason_has_a_counter_of_its_own_with_its_name() -> None:
    wire = Wire()
    for reason in Drop:
        wire.stack._ctx.drop(reason)
        assert wire.stack.counters.snapshot()[f"drop.{reason.name.lower()}"] == 1
    assert sum(wire.stack.counters.drops) == len(Drop)
    end(wire)
