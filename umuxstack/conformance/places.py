"""Where the product's code names a requirement: in which file, at which line, in which function or class.

An id counts wherever it stands, in a comment or a docstring. A comment belongs to what it stands in, or right above;
the list at the head of a file belongs to no part of it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

ID: Final = re.compile(
    r"\b((?:MUST|SHLD|MAY|REC)-\d+|(?:8200|4443|8201|8504)-[\d.]+-\d+|UM-\d+(?:\.[a-z])?)(?![\w.]*\d)"
)
_RANGE: Final = re.compile(r"\b(\d{4}-[\d.]+)-(\d+) to \1-(\d+)\b")
_SECTION: Final = re.compile(r"\bRFC (8200|4443|8201|8504) ((?:\d+)(?:\.\d+)*)")
_TOOLS: Final = ("umuxstack/conformance", "umuxstack/testing")  # they test, they do not implement


@attrs.frozen(slots=True, order=True)
class Place:
    """`name`: the function, class or constant at `line` of `file`, "" at the file's head."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.name})" if self.name else "")


def named_in_code(root: Path) -> dict[str, dict[str, Place]]:
    """id, or "8200 4.5" for a section -> by file, the first place that names it; one inside of something is better than
    the file's head."""
    named: dict[str, dict[str, Place]] = {}
    for package in ("umuxstack", "tun"):
        for path in sorted((root / package).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if file.startswith(_TOOLS):
                continue
            text = path.read_text()
            names = _names(text)
            for number, line in enumerate(text.splitlines(), 1):
                for found in _ids(line):
                    place = Place(file, number, names.get(number, ""))
                    known = named.setdefault(found, {}).get(file)
                    if known is None or (place.name and not known.name):
                        named[found][file] = place
    return named


def _ids(line: str) -> Iterator[str]:
    yield from ID.findall(line)
    for stem, first, last in _RANGE.findall(line):
        yield from (f"{stem}-{number}" for number in range(int(first), int(last) + 1))
    yield from (f"{rfc} {section}" for rfc, section in _SECTION.findall(line))


def _names(text: str) -> dict[int, str]:
    """For each line, what it is a part of: "Connection._segment"; lines of nothing are left out."""
    names: dict[int, str] = {}
    lines = text.splitlines()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            name = _name(node)
            if not name:
                continue
            first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])
            while first > 1 and lines[first - 2].lstrip().startswith("#"):
                first -= 1  # the comment above it
            assert node.end_lineno is not None
            names.update(dict.fromkeys(range(first, node.end_lineno + 1), prefix + name))
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{name}.")

    walk(ast.parse(text).body, "")
    return names


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    target = (
        node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
    )
    return target.id if isinstance(target, ast.Name) else ""
