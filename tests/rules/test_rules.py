"""Every clause of every rule has a test, or a reason why not; and the page that shows it is up to date."""

from pathlib import Path

import pytest

from umuxstack.conformance import matrix, matrix_page
from umuxstack.testing.rules import MARKDOWN, Table, as_markdown, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> Table:
    return load(ROOT)


def test_every_clause_has_a_test(table: Table) -> None:
    assert table.missing() == []


def test_what_is_put_off_is_not_there_already(table: Table) -> None:
    assert table.overdue() == []


def test_only_these_rules_are_put_off_whole(table: Table) -> None:
    assert {name for name in table.later if name in table.rules} == {"UM-10", "UM-14", "UM-40", "UM-41"}


def test_the_page_is_up_to_date(table: Table) -> None:
    page = "\n".join(as_markdown(table)) + "\n"
    assert (ROOT / MARKDOWN).read_text() == page, "make rules ARGS=--markdown writes it anew"


def test_the_page_of_requirements_is_up_to_date() -> None:
    page = matrix_page.as_markdown(matrix.load(ROOT))
    assert (ROOT / matrix_page.PAGE).read_text() == page, "umux drill --matrix --write writes it anew"
