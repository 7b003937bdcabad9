"""How the requirement matrix looks: as text, as JSON, and as the page docs/requirements.md."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from umuxstack.conformance.matrix import DESIGN, MET, NOT_APPLICABLE, NOT_MET, RFCS, UNEXPLAINED, Matrix, Requirement
from umuxstack.conformance.places import Place

PAGE: Final = Path("docs/requirements.md")
_SHOWN: Final = 3  # files in one field of the page: so it changes when something moves, not with every new test

_INTRODUCTION: Final = """\
# Requirements: where each is implemented, and which tests show it

Written by `umux drill --matrix --write` from the tables in `docs/requirements/`, the rules in `docs/rules.toml`, and
the markers in code and tests; a test fails when it is not what that command writes. `umux drill --matrix 8200-4.5`
shows a part with every test and the lines, `--json` all for programs.

The tables paraphrase. They hold what concerns a host; what an RFC demands of routers, of protocol designers or of
registries is left out, unless a host could be taken for it. RFC 8200 and 8201 write their musts in lower case. Where an
ICMPv6 answer is required, it is given for shared addresses, and for all with `silence` off: a unified address that
expects nobody stays silent (UM-31), which is the design's deliberate deviation from RFC 4443 and RFC 9293.

**met**: tests show it. **not met**: a deviation, listed below. **not applicable**: the reason is in the last column."""


def as_json(matrix: Matrix) -> str:
    return json.dumps([attrs.asdict(r) for r in matrix.requirements], indent=2)


def as_text(matrix: Matrix) -> str:
    lines: list[str] = []
    heading = ""
    for r in matrix.requirements:
        above = f"{_title(r.source)}, {r.section}"
        if above != heading:
            heading = above
            lines += ["", above]
        lines.append(f"  {r.id:12} {r.level:10} {r.status:15} {r.feature}")
        if r.code:
            lines.append(f"{'':15}in {', '.join(map(str, r.code))}")
        lines += [f"{'':15}{test}" for test in r.tests]
        if r.reason:
            lines.append(f"{'':15}{r.reason}")
    lines.append("")
    for source, row in matrix.counts().items():
        lines.append(f"{_title(source)}: " + ", ".join(f"{n} {status}" for status, n in row.items() if n))
    return "\n".join(lines[1:])


def as_markdown(matrix: Matrix) -> str:
    lines = [_INTRODUCTION, "", f"| | {MET} | {NOT_MET} | {NOT_APPLICABLE} |", "|---|---|---|---|"]
    for source, row in matrix.counts().items():
        lines.append(f"| {_title(source)} | {row[MET]} | {row[NOT_MET]} | {row[NOT_APPLICABLE]} |")
    lines += ["", "## Not met", ""]
    unmet = [r for r in matrix.requirements if r.status in (NOT_MET, UNEXPLAINED)]
    for r in unmet:
        why = r.reason.partition(": ")[2] or r.reason or "no test, and no reason is given"
        lines.append(f"- **{r.id}** ({r.level}) {r.feature}: {why}.")
    if not unmet:
        lines.append("Nothing.")
    for source in matrix.counts():
        lines += ["", f"## {_title(source)}", ""]
        lines += ["| id | level | what | where | shown by | status |", "|---|---|---|---|---|---|"]
        lines += _rows(r for r in matrix.requirements if r.source == source)
    return "\n".join(lines) + "\n"


def _title(source: str) -> str:
    return "Unified Multiplex" if source == DESIGN else f"RFC {source} {RFCS[source]}"


def _rows(requirements: Iterator[Requirement]) -> Iterator[str]:
    for r in requirements:
        where = _shown([_link(place.file, "umuxstack/") + _part(place) for place in r.code])
        files = sorted({test.partition("::")[0] for test in r.tests})
        shown = _shown([_link(file, "tests/") for file in files])
        status = r.status if not r.reason else r.reason
        yield f"| {r.id} | {r.level} | {_escaped(r.feature)} | {where} | {shown} | {_escaped(status)} |"


def _link(file: str, stem: str) -> str:
    return f"[{file.removeprefix(stem)}](../{file})"


def _part(place: Place) -> str:
    """Without the line: the page would be out of date after every edit."""
    return f" `{place.name}`" if place.name else ""


def _shown(entries: Sequence[str]) -> str:
    return "<br>".join([*entries[:_SHOWN], *(["…"] if len(entries) > _SHOWN else [])])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*  ", "").replace("<", "&lt;")
