"""`umux drill --matrix`: which requirement is implemented where, and shown by which test."""

from pathlib import Path

import pytest

from tests.cli.conftest import Umux
from tests.conformance.test_matrix import marked, repository
from umuxstack.cli.common import FAILED, OK, USAGE
from umuxstack.conformance.matrix_page import PAGE

ROOT = Path(__file__).parents[2]


def test_all_of_it_or_a_part(umux: Umux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    every = umux("drill", "--matrix")
    assert every.code == OK
    for title in ("RFC 9293 TCP", "RFC 8200 IPv6", "RFC 4443 ICMPv6", "RFC 8201 ", "RFC 8504 ", "Unified Multiplex"):
        assert any(line.startswith(title) and " met" in line for line in every.lines), title
    part = umux("drill", "--matrix", "8200-4.5", "UM-23")
    assert part.code == OK
    assert {line.split()[0].rsplit("-", 1)[0] for line in part.lines if line.startswith("  8200")} == {"8200-4.5"}
    assert "tests/core/network/test_rfc8200.py::test_fragments_fit_the_path_and_meet_without_overlap" in part.out
    assert len(part.lines) < len(every.lines) / 5


def test_for_programs(umux: Umux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rows = umux("drill", "--matrix", "4443", "--json").json
    assert {row["source"] for row in rows} == {"4443"}
    assert set(rows[0]) == {"source", "id", "level", "section", "feature", "code", "tests", "reason", "status"}
    assert {row["status"] for row in rows} <= {"met", "not met", "not applicable"}
    place = next(place for row in rows for place in row["code"])
    assert set(place) == {"file", "line", "name"}


def test_the_page_is_written(umux: Umux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = repository(tmp_path, test=marked("8200-3-1"), code="# 8200-3-1\n")
    monkeypatch.chdir(root)
    assert umux("drill", "--matrix", "--write").code == OK
    page = (root / PAGE).read_text()
    assert "| 8200-3-1 | MUST | A thing | [core/it.py](../umuxstack/core/it.py) |" in page
    assert "[test_it.py](../tests/test_it.py) | met |" in page


def test_problems_are_named_and_fail(umux: Umux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(repository(tmp_path))
    result = umux("drill", "--matrix", "8200")
    assert result.code == FAILED
    assert "PROBLEM: 8200-3-1 (3: A thing) has no test" in result.err


@pytest.mark.parametrize("words", [("nonsense",), ("8200-99",)])
def test_what_is_not_there_is_wrong_usage(umux: Umux, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(ROOT)
    assert umux("drill", "--matrix", *words).code == USAGE


def test_outside_of_the_source_tree_it_says_so(umux: Umux, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = umux("drill", "--matrix")
    assert result.code == USAGE
    assert "source tree" in result.err
