"""`umux drill`: packetdrill scripts against the stack, in virtual time."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from umuxstack.cli.common import FAILED, OK, USAGE, Commands, Failure, add_command

if TYPE_CHECKING:
    from umuxstack.conformance.outcome import Outcome

_DESCRIPTION: Final = """\
Each .pkt script is a table of times, packets and system calls; the stack runs it in this process, on a clock of its
own, so hours pass at once and every run is the same. What a script asks for and this stack does not have is counted
as unsupported, by name. The language, its extension for unified sessions, and the personalities: docs/drill.md."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "drill",
        _drill,
        "run packetdrill scripts against the stack",
        _DESCRIPTION,
        """\
  umux drill tests/conformance
  umux drill tests/conformance -k "rfc5961 and not window" --explain
  umux drill somebody/elses/suite --jobs 2 --personality freebsd --junit report.xml
  umux drill --matrix                            which requirement is shown by which test
  umux drill --matrix 8200-4.5 UM-23             a part of that: RFCs, "UM", beginnings of ids
  umux drill --mutants tests/conformance         flip one behaviour at a time: who notices?""",
        stack=False,
    )
    parser.add_argument("paths", nargs="*", metavar="FILE|DIR", help="scripts, or directories with .pkt files")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument(
        "--personality",
        choices=("default", "rfc", "linux", "freebsd"),
        default="",
        help="whose choices the stack makes (default: guessed from each script)",
    )
    parser.add_argument("--explain", action="store_true", help="also name what each unsupported script asks for")
    parser.add_argument("--pcap", metavar="DIR", type=Path, help="write each script's packets into a capture there")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a JUnit report")
    parser.add_argument("-k", dest="expression", metavar="EXPR", default="", help="only paths that fit: `a and not b`")
    parser.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME=VALUE", help="define a symbol")
    parser.add_argument("--seed", default="1", help="for initial sequence numbers and ports (default 1)")
    parser.add_argument("--matrix", action="store_true", help="print the requirement matrix instead, or a part of it")
    parser.add_argument("--write", action="store_true", help="with --matrix: write docs/requirements.md anew")
    parser.add_argument("--mutants", action="store_true", help="flip one behaviour of the stack at a time instead")


def _drill(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.conformance import suite
    from umuxstack.conformance.runner import Settings

    if arguments.matrix:
        return _matrix(arguments)
    if not arguments.paths:
        raise Failure("no script was named", "name .pkt files or directories", USAGE)
    if arguments.jobs < 1:
        raise Failure("--jobs is at least 1", "", USAGE)
    defines = {}
    for definition in arguments.defines:
        name, equals, value = definition.partition("=")
        if not equals or not name.isidentifier():
            raise Failure(f"-D {definition} is no NAME=VALUE", "", USAGE)
        defines[name] = value
    try:
        files = suite.collect(arguments.paths)
        chosen = suite.selector(arguments.expression) if arguments.expression else None
    except (FileNotFoundError, suite.BadExpression) as error:
        raise Failure(str(error), "", USAGE) from None
    files = [file for file in files if chosen is None or chosen(file)]
    if not files:
        raise Failure("no script was found", "directories are searched for *.pkt", USAGE)
    if arguments.mutants:
        from umuxstack.conformance import mutants

        return OK if mutants.report(files, output.say) else FAILED
    settings = Settings(arguments.personality, arguments.seed, defines, capture=arguments.pcap is not None)
    outcomes = _run(arguments, files, settings)
    if arguments.pcap is not None:
        suite.write_captures(outcomes, arguments.pcap)
    if arguments.junit is not None:
        suite.write_junit(outcomes, arguments.junit)
    if arguments.json:
        output.say(suite.write_json(outcomes))
    else:
        _report(arguments, outcomes)
    failed = any(outcome.status.value in ("failed", "error") for outcome in outcomes)
    return FAILED if failed else OK


def _run(arguments: argparse.Namespace, files: list[Path], settings: object) -> "list[Outcome]":
    from umuxstack.conformance import suite
    from umuxstack.conformance.runner import Settings

    assert isinstance(settings, Settings)
    show = sys.stderr.isatty() and len(files) > 50
    outcomes = []
    for number, outcome in enumerate(suite.run(files, settings, arguments.jobs), 1):
        outcomes.append(outcome)
        if show and number % 10 == 0:
            sys.stderr.write(f"\r{number} of {len(files)}")
            sys.stderr.flush()
    if show:
        sys.stderr.write("\r" + " " * 30 + "\r")
    return outcomes


def _report(arguments: argparse.Namespace, outcomes: "list[Outcome]") -> None:
    from umuxstack.cli import output
    from umuxstack.conformance import suite
    from umuxstack.conformance.outcome import Status

    for outcome in outcomes:
        if outcome.status in (Status.FAILED, Status.ERROR) or (
            arguments.explain and outcome.status is Status.UNSUPPORTED
        ):
            output.say(*suite.explain(outcome), "")
    output.say(*suite.table(outcomes))
    asked = suite.constructs(outcomes)
    if asked:
        output.say("", "unsupported:", *(f"  {count:5}  {construct}" for construct, count in asked))


def _matrix(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.conformance import matrix, matrix_page

    root = Path.cwd()
    if not (root / matrix.REQUIREMENTS).exists():
        raise Failure(
            f"there is no {matrix.REQUIREMENTS} here", "the matrix is made of the source tree: go there", USAGE
        )
    found = matrix.load(root)
    if arguments.write:
        (root / matrix_page.PAGE).write_text(matrix_page.as_markdown(found))
    else:
        shown = found.only(arguments.paths) if arguments.paths else found
        if not shown.requirements:
            raise Failure("no requirement is called so", "name an RFC, UM, or the beginning of ids", USAGE)
        output.say(matrix_page.as_json(shown) if arguments.json else matrix_page.as_text(shown))
    for problem in found.problems():
        sys.stderr.write(f"PROBLEM: {problem}\n")
    return FAILED if found.problems() else OK
