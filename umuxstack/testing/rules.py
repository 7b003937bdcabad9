"""Which test shows which rule: `python -m umuxstack.testing.rules`.

Reads docs/rules.toml (rules and their clauses) and the markers of the tests, by AST, so that nothing is imported
or run: `@pytest.mark.rule("UM-23.c", "RFC 9293 3.10.7.4")` on a function or class, in `pytestmark` or in
`pytest.param(marks=...)`, and lines `// rule: UM-23.c` in the opening comment of a .pkt script.
A test that is always skipped shows nothing.
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

RULES: Final = Path("docs/rules.toml")
MARKDOWN: Final = Path("docs/rules.md")
SOURCES: Final = {"D": "the design deck", "K": "its author's drafts", "O": "our decision"}
SCRIPT_LINE: Final = re.compile(r"\s*(?://|#)\s*rules?:(.*)")
OF_A_TABLE: Final = re.compile(r"\d{4}-|RFC 9293 (MUST|SHLD|MAY|REC)-")  # docs/requirements/
COMMENT: Final = re.compile(r"\s*(?://|#|$)")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class RuleError(Exception):
    """A marker or docs/rules.toml says something impossible; the message names the place."""


@attrs.frozen
class Rule:
    """One rule of the design. `clauses` maps ids ("UM-23.c") to what they say."""

    id: str
    title: str
    source: str
    clauses: dict[str, str]


@attrs.frozen
class Table:
    """Rules and the tests that name them. `tests` is keyed by rule, clause or RFC reference as the marker has it."""

    rules: dict[str, Rule]
    later: dict[str, str]
    tests: dict[str, list[str]]

    def of_clause(self, clause: str) -> list[str]:
        """Tests that name this clause; for a rule with one clause, also those that name the rule."""
        rule = self.rules[clause.partition(".")[0]]
        named = self.tests.get(clause, [])
        return sorted({*named, *self.tests.get(rule.id, [])}) if len(rule.clauses) == 1 else named

    def of_rule(self, rule: Rule) -> list[str]:
        """Tests that name the rule or any clause of it."""
        return sorted({test for name in (rule.id, *rule.clauses) for test in self.tests.get(name, [])})

    def reason_for_later(self, clause: str) -> str:
        """Why this clause may be without a test; empty if it may not."""
        return self.later.get(clause) or self.later.get(clause.partition(".")[0], "")

    def missing(self) -> list[str]:
        """Clauses that must have a test and have none."""
        return [
            clause
            for rule in self.rules.values()
            for clause in rule.clauses
            if not self.of_clause(clause) and not self.reason_for_later(clause)
        ]

    def overdue(self) -> list[str]:
        """What stands under [later] although every clause of it has a test."""
        return [name for name in self.later if all(self.of_clause(clause) for clause in self._clauses(name))]

    def references(self) -> dict[str, list[str]]:
        """Markers that name something else than a rule of ours: RFC sections."""
        return {name: tests for name, tests in sorted(self.tests.items()) if not name.startswith("UM-")}

    def _clauses(self, name: str) -> list[str]:
        return list(self.rules[name].clauses) if name in self.rules else [name]


def load(root: Path) -> Table:
    """The table of the repository at `root`. Raises RuleError."""
    document = tomllib.loads((root / RULES).read_text())
    rules = {
        name: Rule(
            id=name,
            title=entry.pop("title"),
            source=entry.pop("source"),
            clauses={f"{name}.{letter}": text for letter, text in entry.items()},
        )
        for name, entry in document["rules"].items()
    }
    known = {*rules, *(clause for rule in rules.values() for clause in rule.clauses)}
    for name in document["later"]:
        if name not in known:
            raise RuleError(f"{RULES}: [later] names {name}, which is no rule or clause")
    tests: dict[str, list[str]] = {}
    for test, name in found(root / "tests"):
        if name.startswith("UM-") and name not in known:
            raise RuleError(f"{test} names {name}, which is not in {RULES}")
        tests.setdefault(name, []).append(test)
    return Table(rules, document["later"], {name: sorted(set(names)) for name, names in tests.items()})


def found(tests: Path) -> Iterator[tuple[str, str]]:
    """(test, what it names) for everything below `tests`. Raises RuleError."""
    for path in sorted(tests.rglob("test_*.py")):
        place = path.relative_to(tests.parent).as_posix()
        yield from in_source(path.read_text(), place)
    for path in sorted(tests.rglob("*.pkt")):
        place = path.relative_to(tests.parent).as_posix()
        yield from ((place, name) for name in in_script(path.read_text()))


def in_source(source: str, place: str) -> Iterator[tuple[str, str]]:
    """(test, what it names) in a test module."""
    module = ast.parse(source, place)
    common = [node.value for node in module.body if isinstance(node, ast.Assign) and _assigns(node, "pytestmark")]
    yield from _in_body(module.body, common, place)


def in_script(text: str) -> Iterator[str]:
    """What a .pkt script names in its opening comment."""
    for line in text.splitlines():
        if not COMMENT.match(line):
            return
        if match := SCRIPT_LINE.match(line):
            yield from (name.strip() for name in match[1].split(",") if name.strip())


def _in_body(body: Sequence[ast.stmt], marks: Sequence[ast.expr], place: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            own = [item.value for item in node.body if isinstance(item, ast.Assign) and _assigns(item, "pytestmark")]
            yield from _in_body(node.body, [*marks, *node.decorator_list, *own], f"{place}::{node.name}")
        elif isinstance(node, FunctionNode) and node.name.startswith("test"):
            all_marks = [*marks, *node.decorator_list]
            if not any(_is_mark(mark, "skip") for mark in all_marks):
                test = f"{place}::{node.name}"
                yield from ((test, name) for mark in all_marks for name in _named(mark, test))


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _is_mark(node: ast.AST, name: str) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    return isinstance(called, ast.Attribute) and called.attr == name and ast.unparse(called.value) == "pytest.mark"


def _named(mark: ast.expr, test: str) -> Iterator[str]:
    for node in ast.walk(mark):
        if isinstance(node, ast.Call) and _is_mark(node, "rule"):
            for argument in node.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise RuleError(f"{test}: a rule is named by a literal string, not by {ast.unparse(argument)}")
                yield argument.value


def as_json(table: Table) -> dict[str, object]:
    return {
        "rules": [
            {
                "id": rule.id,
                "title": rule.title,
                "source": rule.source,
                "tests": table.of_rule(rule),
                "clauses": [
                    {
                        "id": clause,
                        "text": text,
                        "tests": table.of_clause(clause),
                        "later": table.reason_for_later(clause) or None,
                    }
                    for clause, text in rule.clauses.items()
                ],
            }
            for rule in table.rules.values()
        ],
        "references": table.references(),
        "missing": table.missing(),
    }


def as_text(table: Table) -> Iterator[str]:
    for rule in table.rules.values():
        yield f"{rule.id} [{rule.source}] {rule.title}"
        for clause, text in rule.clauses.items():
            yield f"  .{clause.partition('.')[2]} {text}"
            tests = table.of_clause(clause)
            yield from (f"       {test}" for test in tests)
            if not tests:
                reason = table.reason_for_later(clause)
                yield f"       later: {reason}" if reason else "       NO TEST"
        if len(rule.clauses) > 1:
            yield from (f"     whole rule: {test}" for test in table.tests.get(rule.id, []))


def as_markdown(table: Table) -> Iterator[str]:
    yield "# Rules and the tests that show them"
    yield ""
    yield "Generated by `make rules ARGS=--markdown` from [rules.toml](rules.toml) and the tests' markers."
    yield "Sources: " + ", ".join(f"{letter} {meaning}" for letter, meaning in SOURCES.items()) + "."
    for rule in table.rules.values():
        yield ""
        yield f"## {rule.id} {rule.title} [{rule.source}]"
        yield ""
        yield "| clause | what it says | shown by |"
        yield "|---|---|---|"
        for clause, text in rule.clauses.items():
            yield f"| {clause} | {text} | {_cell(table, clause)} |"
    yield ""
    yield "## RFC clauses that tests name"
    yield ""
    yield "Beside the lines of five RFCs that [requirements.md](requirements.md) has, each with its tests:"
    yield ""
    yield ", ".join(name for name in table.references() if not OF_A_TABLE.match(name)) + "."


def _cell(table: Table, clause: str) -> str:
    """The files, not the tests in them: so the page changes when something moves, and not with every new test."""
    files = sorted({test.partition("::")[0] for test in table.of_clause(clause)})
    if not files:
        reason = table.reason_for_later(clause)
        return f"later: {reason}" if reason else "**no test**"
    return "<br>".join(f"[{file.removeprefix('tests/')}](../{file})" for file in files)


def _root(start: Path) -> Path:
    for directory in (start, *start.parents):
        if (directory / RULES).exists():
            return directory
    raise RuleError(f"no {RULES} in {start} or above: run this inside the repository")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all clauses have tests or a reason; 1 some have not; 2 a marker is wrong."""
    parser = argparse.ArgumentParser(prog="python -m umuxstack.testing.rules", description=__doc__.splitlines()[0])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--missing", action="store_true", help="only the clauses that lack a test")
    how.add_argument("--json", action="store_true", help="everything, for programs")
    how.add_argument("--markdown", action="store_true", help=f"write {MARKDOWN}")
    options = parser.parse_args(arguments)
    try:
        root = _root(Path.cwd())
        table = load(root)
    except RuleError as error:
        print(error, file=sys.stderr)
        return 2
    missing = table.missing()
    if options.json:
        print(json.dumps(as_json(table), indent=2))
    elif options.markdown:
        (root / MARKDOWN).write_text("\n".join(as_markdown(table)) + "\n")
    else:
        lines = [] if options.missing else [*as_text(table), ""]
        lines += [f"{clause} {table.rules[clause.partition('.')[0]].clauses[clause]}" for clause in missing]
        clauses = sum(len(rule.clauses) for rule in table.rules.values())
        later = sum(bool(table.reason_for_later(clause)) for rule in table.rules.values() for clause in rule.clauses)
        lines.append(f"{len(table.rules)} rules, {clauses} clauses: {later} later, {len(missing)} without a test")
        print("\n".join(lines))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
