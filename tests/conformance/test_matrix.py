"""The requirement matrix holds: no MUST without a test or a reason, no reason out of date, no marker of nothing."""

from pathlib import Path

import attrs
import pytest

from umuxstack.conformance import matrix, matrix_page
from umuxstack.conformance.matrix import Matrix, Requirement
from umuxstack.conformance.places import Place

ROOT = Path(__file__).parents[2]
BARE = Requirement("9293", "MUST-1", "MUST", "Window", "Treat as unsigned", (), (), "", matrix.UNEXPLAINED)

CSV = "id,level,sec,feature\n"
RULES = """
[rules.UM-1]
title = "first"
source = "D"
a = "this"
b = "that"

[later]
"UM-1.b" = "needs more"
"""


def repository(
    directory: Path, *, test: str = "", code: str = "", gaps: str = "", rows: str = "8200-3-1,MUST,3,A thing\n"
) -> Path:
    """A repository with a table of one RFC, and one file of each kind."""
    (directory / "docs/requirements").mkdir(parents=True)
    for rfc in matrix.RFCS:
        (directory / f"docs/requirements/rfc{rfc}.csv").write_text(CSV + (rows if rfc == "8200" else ""))
    (directory / matrix.GAPS).write_text("[gaps]\n" + gaps)
    (directory / "docs/rules.toml").write_text(RULES)
    for package in ("tests", "umuxstack/core", "umuxstack/testing", "tun"):
        (directory / package).mkdir(parents=True)
    (directory / "tests/test_it.py").write_text("@pytest.mark.rule('UM-1.a')\ndef test_rule(): ...\n" + test)
    (directory / "umuxstack/core/it.py").write_text("# UM-1.a\n" + code)
    (directory / "umuxstack/testing/tool.py").write_text("# 8200-3-1: a tool implements nothing\n")
    return directory


def line(directory: Path, name: str = "8200-3-1") -> Requirement:
    return next(r for r in matrix.load(directory).requirements if r.id == name)


def marked(*names: str) -> str:
    return f"@pytest.mark.rule({', '.join(map(repr, names))})\ndef test_a(): ...\n"


@pytest.fixture(scope="module")
def ours() -> Matrix:
    """This repository's."""
    return matrix.load(ROOT)


def test_the_matrix_of_this_repository_holds(ours: Matrix) -> None:
    assert ours.problems() == []


def test_every_should_is_explained_as_well(ours: Matrix) -> None:
    assert [r.id for r in ours.requirements if r.status == matrix.UNEXPLAINED and r.level != "MAY"] == []


def test_no_line_is_there_twice_but_what_the_rfc_s_own_appendix_repeats(ours: Matrix) -> None:
    ids = [r.id for r in ours.requirements if r.source != "9293"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("level", ["MUST", "MUST NOT", "MUST [D]"])
def test_a_must_without_either_is_a_problem(level: str) -> None:
    assert "MUST-1" in Matrix((attrs.evolve(BARE, level=level),), ()).problems()[0]


def test_a_should_may_be_missing() -> None:
    assert Matrix((attrs.evolve(BARE, level="SHOULD"),), ()).problems() == []


def test_a_must_that_is_met_nowhere_is_a_problem() -> None:
    met = attrs.evolve(BARE, status=matrix.MET, tests=("tests/test_it.py::test_a",))
    assert "where" in Matrix((met,), ()).problems()[0]
    assert Matrix((attrs.evolve(met, code=(Place("umuxstack/core/it.py", 1, ""),)),), ()).problems() == []


def test_markers_make_a_line_met(tmp_path: Path) -> None:
    root = repository(tmp_path, test=marked("8200-3-1"), code="# 8200-3-1: as the RFC says\n")
    found = line(root)
    assert (found.status, [str(place) for place in found.code]) == ("met", ["umuxstack/core/it.py:2"])
    assert found.tests == ("tests/test_it.py::test_a",)
    assert matrix.load(root).problems() == []


def test_a_section_or_a_range_in_the_code_will_do(tmp_path: Path) -> None:
    rows = "8200-4.5-1,MUST,4.5,One\n8200-4.5-2,MUST,4.5,Two\n8200-3-1,MUST,3,Three\n"
    root = repository(
        tmp_path,
        rows=rows,
        test=marked("8200-4.5-1", "8200-4.5-2", "8200-3-1"),
        code="# RFC 8200 3: so it says\n# 8200-4.5-1 to 8200-4.5-2\n",
    )
    assert matrix.load(root).problems() == []


CODE = """
# 8200-3-1 is what all of this is about

# 8200-4.5-2: as long as a fragment may be
LONGEST: int = 1


# RFC 8200 4.6, and
@decorated
class Receiver:
    \"\"\"8200-4.5-1 in its docstring.\"\"\"

    def on_data(self) -> None:
        pass  # 8200-3-1, again

    # 8200-4.5-3 to 8200-4.5-4
    async def send(self) -> None:
        def inner() -> None:
            pass  # 8200-4.5-5


def after() -> None:
    pass  # 8200-3-1, and again
"""


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("8200-3-1", "Receiver.on_data"),
        ("8200-4.5-1", "Receiver"),
        ("8200-4.5-2", "LONGEST"),
        ("8200-4.5-3", "Receiver.send"),
        ("8200-4.5-4", "Receiver.send"),
        ("8200-4.5-5", "Receiver.send"),
        ("8200-4.6-1", "Receiver"),
    ],
)
def test_where_is_a_line_and_the_function_or_class_around_it(tmp_path: Path, name: str, where: str) -> None:
    """A file of 500 lines was the whole answer to "where?"."""
    ids = [*(f"8200-4.5-{number}" for number in range(1, 6)), "8200-4.6-1"]
    rows = "8200-3-1,MUST,3,A thing\n" + "".join(f"{one},MUST,{one[5:8]},A thing\n" for one in ids)
    root = repository(tmp_path, rows=rows, test=marked("8200-3-1", *ids), code=CODE)
    (root / "umuxstack/core/another.py").write_text("# 8200-3-1\n")
    found = line(root, name)
    lines = (root / "umuxstack/core/it.py").read_text().splitlines()
    assert found.code[0].name == where
    assert f"8200{name[4:8]}".replace("-", " ") in lines[found.code[0].line - 1].replace("-", " ")
    page = matrix_page.as_markdown(matrix.load(root))
    assert f"| {name} | MUST | A thing | [core/it.py](../umuxstack/core/it.py) `{where}`" in page
    assert ":1" not in page.partition("## RFC 8200")[2]
    if name == "8200-3-1":
        assert [str(place) for place in found.code[1:]] == ["umuxstack/core/another.py:1"]
    assert f"in umuxstack/core/it.py:{found.code[0].line} ({where})" in matrix_page.as_text(matrix.load(root))


@pytest.mark.parametrize(
    ("gaps", "complaint"),
    [
        ("", "8200-3-1 (3: A thing) has no test"),
        ("\"8200-3-1\" = 'because'", "must begin with"),
        ("\"8200-3-1\" = 'see RFC 1'", "must begin with"),
        ("\"8200-3-1\" = 'met: partly'", "which has no test"),
        ("\"8200-3-1\" = 'not met: too hard'\n\"8200-3-9\" = 'not met: too hard'", "8200-3-9, which does not exist"),
    ],
)
def test_gaps_are_judged(tmp_path: Path, gaps: str, complaint: str) -> None:
    problems = matrix.load(repository(tmp_path, gaps=gaps)).problems()
    assert len(problems) == 1
    assert complaint in problems[0]


def test_a_reason_for_what_has_a_test_is_stale(tmp_path: Path) -> None:
    root = repository(tmp_path, test=marked("8200-3-1"), code="# 8200-3-1\n", gaps='"8200-3-1" = "not met: too hard"')
    assert "which has a test: tests/test_it.py::test_a" in matrix.load(root).problems()[0]


@pytest.mark.parametrize(
    ("test", "code"), [(marked("8200-3-1", "8200-3-2"), "# 8200-3-1"), (marked("8200-3-1"), "# 8200-3-1, 8200-3-2")]
)
def test_a_marker_of_nothing_is_a_problem(tmp_path: Path, test: str, code: str) -> None:
    assert "8200-3-2, which is in no table" in matrix.load(repository(tmp_path, test=test, code=code)).problems()[0]


def test_support_for_an_rfc_is_as_good_as_its_table(tmp_path: Path) -> None:
    root = repository(tmp_path, test=marked("8200-3-1"), code="# 8200-3-1\n", gaps='"8504-1-1" = "see RFC 8200"')
    (root / "docs/requirements/rfc8504.csv").write_text(CSV + "8504-1-1,MUST,1,Support RFC 8200\n")
    assert line(root, "8504-1-1").status == "met"
    (root / "docs/requirements/rfc8200.csv").write_text(CSV + "8200-3-1,MUST,3,One\n8200-3-2,MUST,3,Two\n")
    (root / matrix.GAPS).write_text('[gaps]\n"8504-1-1" = "see RFC 8200"\n"8200-3-2" = "not met: too hard"\n')
    assert line(root, "8504-1-1").status == "not met"


def test_what_is_put_off_of_the_design_is_not_met(tmp_path: Path) -> None:
    root = repository(tmp_path, gaps='"8200-3-1" = "not met: too hard"')
    assert (line(root, "UM-1.a").status, line(root, "UM-1.a").code) == ("met", (Place("umuxstack/core/it.py", 1, ""),))
    assert (line(root, "UM-1.b").status, line(root, "UM-1.b").reason) == ("not met", "not met: needs more")
    page = matrix_page.as_markdown(matrix.load(root))
    assert "- **UM-1.b** (MUST [D]) that: needs more." in page
    assert "- **8200-3-1** (MUST) A thing: too hard." in page


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["8200"], "8200-2-1"),
        (["RFC 4443"], "4443-1-1"),
        (["um"], "UM-1.a"),
        (["UM-23"], "UM-23.a"),
        (["8200-4"], "8200-4-1"),
    ],
)
def test_a_part_can_be_asked_for(ours: Matrix, names: list[str], first: str) -> None:
    found = ours.only(names).requirements
    assert found[0].id == first
    assert not any(r.id.startswith("UM-2.") for r in found) or names == ["um"]
