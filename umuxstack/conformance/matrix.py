"""The requirement matrix: RFC 9293 appendix B, where each line is implemented, and which tests show it.

Made of markers alone: `MUST-5` in the comments of the code, `RFC 9293 MUST-5` in the tests' markers
(umuxstack/testing/rules.py). What has no test needs a reason in docs/rfc9293-gaps.toml; a MUST without either is a
problem, and so is a reason for what has a test.
"""

import csv
import json
import re
import tomllib
from pathlib import Path
from typing import Final

import attrs

from umuxstack.testing import rules

REQUIREMENTS: Final = Path("docs/rfc9293-requirements.csv")
GAPS: Final = Path("docs/rfc9293-gaps.toml")
_NAME: Final = re.compile(r"\b((?:MUST|SHLD|MAY|REC)-\d+)\b")


@attrs.frozen(slots=True)
class Requirement:
    id: str
    level: str
    section: str
    feature: str
    code: tuple[str, ...]  # files that name it
    tests: tuple[str, ...]
    reason: str  # why there is no test; "not applicable: ..." or "not met: ..."

    @property
    def status(self) -> str:
        if self.tests:
            return "met"
        return self.reason.partition(":")[0] if self.reason else "unexplained"


@attrs.frozen(slots=True)
class Matrix:
    requirements: tuple[Requirement, ...]
    stale: tuple[str, ...]  # reasons for what has a test, or for what does not exist

    def problems(self) -> list[str]:
        """What fails the build."""
        out = [
            f"{r.id} ({r.section}: {r.feature}) has no test, and {GAPS} does not say why"
            for r in self.requirements
            if r.level.startswith("MUST") and r.status == "unexplained"
        ]
        return out + [f"{GAPS} explains {name}, which has a test or does not exist" for name in self.stale]

    def as_json(self) -> str:
        return json.dumps([{**attrs.asdict(r), "status": r.status} for r in self.requirements], indent=2)

    def as_text(self) -> str:
        lines = []
        section = ""
        for r in self.requirements:
            if r.section != section:
                section = r.section
                lines += ["", section]
            shown = f"{len(r.tests)} tests, first {r.tests[0]}" if r.tests else r.reason or "unexplained"
            lines.append(f"  {r.id:8} {r.level:10} {r.status:15} {r.feature}: {shown}")
        counts: dict[str, int] = {}
        for r in self.requirements:
            counts[r.status] = counts.get(r.status, 0) + 1
        return "\n".join([*lines[1:], "", ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))])


def load(root: Path) -> Matrix:
    """The matrix of the repository at `root`. Raises OSError, rules.RuleError."""
    tests: dict[str, set[str]] = {}
    for test, name in rules.found(root / "tests"):
        for found in _NAME.findall(name):
            tests.setdefault(found, set()).add(test)
    code: dict[str, set[str]] = {}
    for path in sorted((root / "umuxstack/core").rglob("*.py")):
        for found in _NAME.findall(path.read_text()):
            code.setdefault(found, set()).add(path.relative_to(root).as_posix())
    gaps: dict[str, str] = tomllib.loads((root / GAPS).read_text())["gaps"]
    with (root / REQUIREMENTS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {row["id"] for row in rows}
    return Matrix(
        tuple(
            Requirement(
                row["id"],
                row["level"],
                row["sec"],
                row["feature"],
                tuple(sorted(code.get(row["id"], ()))),
                tuple(sorted(tests.get(row["id"], ()))),
                gaps.get(row["id"], ""),
            )
            for row in rows
        ),
        tuple(sorted(name for name in gaps if name in tests or name not in known)),
    )
