"""The requirement matrix: each line of five RFCs and of the design, where it is implemented, which tests show it.

Made of markers alone: a line's id (`MUST-5`, `8200-4.5-3`, `UM-23.c`) in comments of the code, or for the code the
section (`RFC 8200 4.5`), and the id in the tests' markers (umuxstack/testing/rules.py). What has no test needs a reason
in docs/requirements/gaps.toml; a MUST without either is a problem, and so are a reason that has become wrong and what
is met nowhere in the code.
"""

import csv
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from umuxstack.conformance.places import ID, Place, named_in_code
from umuxstack.testing import rules

REQUIREMENTS: Final = Path("docs/requirements")
GAPS: Final = REQUIREMENTS / "gaps.toml"
RFCS: Final = {
    "9293": "TCP",
    "8200": "IPv6",
    "4443": "ICMPv6",
    "8201": "Path MTU discovery",
    "8504": "IPv6 node requirements",
}
DESIGN: Final = "UM"  # the rules of Unified Multiplex stand beside the RFCs

MET: Final = "met"
NOT_MET: Final = "not met"
NOT_APPLICABLE: Final = "not applicable"
UNEXPLAINED: Final = "unexplained"
SEE: Final = "see RFC "  # a reason: as well as that table's lines are met
Code = Mapping[str, Mapping[str, Place]]  # id, file -> where
_STATUSES: Final = (MET, NOT_MET, NOT_APPLICABLE, UNEXPLAINED)


@attrs.frozen(slots=True)
class Requirement:
    """One line. `reason`: why there is no test ("not applicable: ...", "not met: ..."), "see RFC ...", or beside tests
    "met: ...", how far.
    """

    source: str  # a key of RFCS, or DESIGN
    id: str
    level: str
    section: str
    feature: str
    code: tuple[Place, ...]  # that name it, one in each file; those in a function or class first
    tests: tuple[str, ...]
    reason: str
    status: str


@attrs.frozen(slots=True)
class Matrix:
    requirements: tuple[Requirement, ...]
    stale: tuple[str, ...]  # what is wrong with reasons and markers

    def problems(self) -> list[str]:
        """What fails the build."""
        out = [
            f"{r.id} ({r.section}: {r.feature}) has no test, and {GAPS} does not say why"
            for r in self.requirements
            if r.level.startswith("MUST") and r.status == UNEXPLAINED
        ]
        out += [
            f"{r.id} ({r.section}: {r.feature}) is met, but no comment in the code says where"
            for r in self.requirements
            if r.status == MET and r.tests and not r.code
        ]
        return out + list(self.stale)

    def only(self, names: Sequence[str]) -> "Matrix":
        """The lines that `names` select: an RFC's number, "UM", or the beginning of ids ("8200-4.5", "UM-23")."""
        wanted = tuple(name.upper().removeprefix("RFC").strip() for name in names)
        kept = [r for r in self.requirements if r.source in wanted or any(_begins(r.id, name) for name in wanted)]
        return Matrix(tuple(kept), self.stale)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many lines of each source have each status."""
        table: dict[str, dict[str, int]] = {}
        for r in self.requirements:
            row = table.setdefault(r.source, dict.fromkeys(_STATUSES, 0))
            row[r.status] += 1
        return table


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or (name.startswith(beginning) and name[len(beginning)] in ".-")


def load(root: Path) -> Matrix:
    """The matrix of the repository at `root`. Raises OSError, rules.RuleError."""
    table = rules.load(root)
    tests: dict[str, set[str]] = {}
    for name, found in table.tests.items():
        for marked in ID.findall(name):
            tests.setdefault(marked, set()).update(found)
    code = named_in_code(root)
    gaps: dict[str, str] = tomllib.loads((root / GAPS).read_text())["gaps"]
    lines = [line for rfc in RFCS for line in _of_rfc(root, rfc, code, tests, gaps)]
    lines = [_referred(line, lines) for line in lines]
    lines += _of_design(table, code)
    return Matrix(tuple(lines), tuple(_stale(lines, gaps, tests, code)))


def _of_rfc(
    root: Path, rfc: str, code: Code, tests: Mapping[str, set[str]], gaps: Mapping[str, str]
) -> Iterator[Requirement]:
    with (root / REQUIREMENTS / f"rfc{rfc}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name, section = row["id"], row["sec"]
            shown = tests.get(name, set())
            reason = gaps.get(name, "")
            status = MET if shown else reason.partition(":")[0] if reason else UNEXPLAINED
            where = code.get(name) or (code.get(f"{rfc} {section}") if status == MET else None) or {}
            places, proofs = _sorted(where), tuple(sorted(shown))
            yield Requirement(rfc, name, row["level"], section, row["feature"], places, proofs, reason, status)


def _sorted(where: Mapping[str, Place]) -> tuple[Place, ...]:
    return tuple(sorted(where.values(), key=lambda place: (not place.name, place)))


def _referred(line: Requirement, lines: Sequence[Requirement]) -> Requirement:
    """A line that says "support RFC n" is met when that table's MUSTs are."""
    if not line.status.startswith(SEE):
        return line
    other = line.status.removeprefix(SEE)
    musts = [r for r in lines if r.source == other and r.level.startswith("MUST") and not r.status.startswith(SEE)]
    met = bool(musts) and all(r.status in (MET, NOT_APPLICABLE) for r in musts)
    return attrs.evolve(line, status=MET if met else NOT_MET)


def _of_design(table: rules.Table, code: Code) -> Iterator[Requirement]:
    for rule in table.rules.values():
        for clause, text in rule.clauses.items():
            shown = tuple(table.of_clause(clause))
            later = table.reason_for_later(clause)
            reason = "" if shown or not later else f"not met: {later}"
            status = MET if shown else NOT_MET if later else UNEXPLAINED
            where = _sorted(code.get(clause) or code.get(rule.id) or {}) if shown else ()
            yield Requirement(DESIGN, clause, f"MUST [{rule.source}]", rule.title, text, where, shown, reason, status)


def _stale(
    lines: Sequence[Requirement],
    gaps: Mapping[str, str],
    tests: Mapping[str, set[str]],
    code: Code,
) -> Iterator[str]:
    known = {line.id for line in lines}
    for name, reason in gaps.items():
        if name not in known:
            yield f"{GAPS} explains {name}, which does not exist"
        elif (name in tests) != (reason.partition(":")[0] == MET):
            shown = f"has a test: {min(tests[name])}" if name in tests else "has no test"
            yield f"{GAPS} says of {name} {reason!r}, which {shown}"
        if reason.partition(":")[0] not in (MET, NOT_MET, NOT_APPLICABLE) and reason.removeprefix(SEE) not in RFCS:
            yield f"{GAPS} says of {name} {reason!r}; it must begin with met:, not met:, not applicable: or see RFC"
    known |= {name.partition(".")[0] for name in known if name.startswith(DESIGN)}
    for name in sorted(tests):
        if name not in known:
            yield f"{min(tests[name])} names {name}, which is in no table"
    for name in sorted(code):
        if " " not in name and name not in known:
            yield f"{min(code[name])} names {name}, which is in no table"
