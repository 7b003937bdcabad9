"""The reader of markers: what counts as naming a rule, and what does not."""

from pathlib import Path

import pytest

from umuxstack.testing.rules import RuleError, in_script, in_source, load, main

RULES = """
[rules.UM-1]
title = "first"
source = "D"
a = "one clause only"

[rules.UM-2]
title = "second"
source = "O"
a = "this"
b = "that"
c = "later"

[later]
"UM-2.c" = "needs more"
"""


def repository(directory: Path, test: str, rules: str = RULES) -> Path:
    """A repository with one test module and one script."""
    (directory / "docs").mkdir()
    (directory / "docs/rules.toml").write_text(rules)
    (directory / "tests/scripts").mkdir(parents=True)
    (directory / "tests/test_it.py").write_text(test)
    return directory


def named(source: str) -> list[tuple[str, str]]:
    return list(in_source(source, "t.py"))


def test_a_function_names_rules() -> None:
    source = "@pytest.mark.rule('UM-1', 'RFC 9293 3.5')\ndef test_a(): ...\n"
    assert named(source) == [("t.py::test_a", "UM-1"), ("t.py::test_a", "RFC 9293 3.5")]


def test_an_async_function_names_rules() -> None:
    assert named("@pytest.mark.rule('UM-1')\nasync def test_a(): ...\n") == [("t.py::test_a", "UM-1")]


def test_a_class_names_rules_for_its_tests_and_not_for_its_helpers() -> None:
    source = (
        "@pytest.mark.rule('UM-1')\nclass TestIt:\n  pytestmark = pytest.mark.rule('UM-2')\n"
        "  def test_a(self): ...\n  def helper(self): ...\n"
    )
    assert named(source) == [("t.py::TestIt::test_a", "UM-1"), ("t.py::TestIt::test_a", "UM-2")]


@pytest.mark.parametrize("mark", ["pytest.mark.rule('UM-1')", "[pytest.mark.trio, pytest.mark.rule('UM-1')]"])
def test_a_module_names_rules_for_all_its_tests(mark: str) -> None:
    assert named(f"pytestmark = {mark}\ndef test_a(): ...\n") == [("t.py::test_a", "UM-1")]


def test_a_parameter_names_rules() -> None:
    source = "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.rule('UM-1'))])\ndef test_a(x): ...\n"
    assert named(source) == [("t.py::test_a", "UM-1")]


def test_a_test_that_is_always_skipped_shows_nothing() -> None:
    assert named("@pytest.mark.skip('broken')\n@pytest.mark.rule('UM-1')\ndef test_a(): ...\n") == []


def test_a_rule_that_is_not_a_literal_is_refused() -> None:
    with pytest.raises(RuleError, match="literal string, not by RULE"):
        named("@pytest.mark.rule(RULE)\ndef test_a(): ...\n")


def test_a_script_names_rules_in_its_opening_comment_only() -> None:
    text = "// Half-close.\n// rule: UM-1, RFC 9293 3.6\n\n# rules: UM-2.a\n+0 < S 0:0(0)\n// rule: UM-2.b\n"
    assert list(in_script(text)) == ["UM-1", "RFC 9293 3.6", "UM-2.a"]


def test_scripts_are_found(tmp_path: Path) -> None:
    root = repository(tmp_path, "")
    (root / "tests/scripts/close.pkt").write_text("// rule: UM-2.b\n")
    assert load(root).tests == {"UM-2.b": ["tests/scripts/close.pkt"]}


def test_a_whole_rule_does_not_cover_its_clauses_unless_there_is_one(tmp_path: Path) -> None:
    table = load(repository(tmp_path, "@pytest.mark.rule('UM-1', 'UM-2')\ndef test_a(): ...\n"))
    assert table.of_clause("UM-1.a") == ["tests/test_it.py::test_a"]
    assert table.of_clause("UM-2.a") == []
    assert table.of_rule(table.rules["UM-2"]) == ["tests/test_it.py::test_a"]
    assert table.missing() == ["UM-2.a", "UM-2.b"]


def test_what_is_under_later_need_not_have_a_test_but_must_leave_the_list_when_it_has(tmp_path: Path) -> None:
    root = repository(tmp_path, "@pytest.mark.rule('UM-1', 'UM-2.a', 'UM-2.b', 'UM-2.c')\ndef test_a(): ...\n")
    table = load(root)
    assert table.missing() == []
    assert table.overdue() == ["UM-2.c"]


def test_an_unknown_rule_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"tests/test_it.py::test_a names UM-2.z"):
        load(repository(tmp_path, "@pytest.mark.rule('UM-2.z')\ndef test_a(): ...\n"))


def test_later_must_name_what_exists(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="UM-9, which is no rule"):
        load(repository(tmp_path, "", RULES + 'UM-9 = "never"\n'))


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ("@pytest.mark.rule('UM-1.a', 'UM-2.a', 'UM-2.b')\ndef test_a(): ...\n", 0),
        ("@pytest.mark.rule('UM-1.a')\ndef test_a(): ...\n", 1),
        ("@pytest.mark.rule('UM-77')\ndef test_a(): ...\n", 2),
    ],
)
def test_the_exit_status_says_whether_something_is_missing_or_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str, status: int
) -> None:
    monkeypatch.chdir(repository(tmp_path, test) / "tests/scripts")
    assert main(["--missing"]) == status


def test_missing_clauses_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository(tmp_path, "@pytest.mark.rule('UM-1')\ndef test_a(): ...\n"))
    main(["--missing"])
    assert capsys.readouterr().out.splitlines() == [
        "UM-2.a this",
        "UM-2.b that",
        "2 rules, 4 clauses: 1 later, 2 without a test",
    ]
