"""`umux drill`: packetdrill scripts against the stack, in virtual time."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from umuxstack.cli.common import FAILED, OK, USAGE, Commands, Failure, add_command, cannot_use
from umuxstack.core import is_compiled, use_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from umuxstack.conformance.outcome import Outcome, Status
    from umuxstack.conformance.runner import Settings

_DESCRIPTION: Final = """\
Each .pkt script is a table of times, packets and system calls; the stack runs it in this process, on a clock of its
own, so hours pass at once and every run is the same. What a script asks for and this stack does not have is counted
as unsupported, by name. With --live the same scripts are played against this machine's kernel, in real time, in a
network namespace (root); what differs from the script is shown. The language, its extension for unified sessions,
the personalities, and how a kernel fares: docs/drill.md.

Exit code 1 if a script failed, or with --live if the kernel differs from one; 0 if not, whatever was left out."""

_TOLERANCE: Final = 20  # milliseconds; a kernel's timers tick every 4, and this machine does other things, too
_PERCENT: Final = 15.0  # a timer of a kernel may be late by an eighth: its wheel has coarser steps farther out
_LIMIT: Final = 10.0  # seconds


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
  sudo umux drill --live tests/conformance/rfc9293 --jobs 4
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
    parser.add_argument("--live", action="store_true", help="against this machine's kernel instead, in real time")
    parser.add_argument(
        "--live-limit",
        type=float,
        metavar="SECONDS",
        help=f"with --live: leave out scripts that take longer (default {_LIMIT:g})",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="MS",
        help=f"accept times that are off by this much, at least (default: as a script says; with --live {_TOLERANCE})",
    )
    parser.add_argument("--matrix", action="store_true", help="print the requirement matrix instead, or a part of it")
    parser.add_argument("--write", action="store_true", help="with --matrix: write docs/requirements.md anew")
    parser.add_argument("--mutants", action="store_true", help="flip one behaviour of the stack at a time instead")


def _drill(arguments: argparse.Namespace) -> int:
    _check_combination(arguments)
    from umuxstack.cli import output
    from umuxstack.conformance import suite
    from umuxstack.conformance.runner import Settings

    if arguments.matrix:
        return _matrix(arguments)
    if not arguments.paths:
        raise Failure("no script was named", "name .pkt files or directories", USAGE)
    if arguments.jobs < 1:
        raise Failure("--jobs is at least 1", "", USAGE)
    if arguments.live_limit is None:
        arguments.live_limit = _LIMIT
    if not arguments.live_limit > 0 or (arguments.tolerance is not None and not arguments.tolerance >= 0):
        raise Failure("--live-limit and --tolerance are times", "write seconds and milliseconds, as 2.5", USAGE)
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
    _prepare(arguments)
    tolerance = arguments.tolerance if arguments.tolerance is not None else _TOLERANCE if arguments.live else 0
    settings = Settings(
        arguments.personality,
        arguments.seed,
        defines,
        capture=arguments.pcap is not None,
        tolerance=int(tolerance * 1000),
        tolerance_percent=_PERCENT if arguments.live else 0.0,
    )
    results = suite.LIVE_RESULTS if arguments.live else suite.RESULTS
    outcomes = _run(arguments, files, settings)
    try:
        if arguments.pcap is not None:
            suite.write_captures(outcomes, arguments.pcap)
        if arguments.junit is not None:
            suite.write_junit(outcomes, arguments.junit, results)
    except OSError as error:
        raise cannot_use(error.filename or arguments.junit or arguments.pcap, error) from None
    if arguments.json:
        output.say(suite.write_json(outcomes, results))
    else:
        _report(arguments, outcomes, results)
    failed = any(outcome.status.value in ("failed", "error") for outcome in outcomes)
    return FAILED if failed else OK


def _check_combination(arguments: argparse.Namespace) -> None:
    """An option that would have no effect is a mistake, and says so."""
    if arguments.live and arguments.mutants:
        raise Failure("--live and --mutants exclude each other", "no kernel lets us flip its behaviour", USAGE)
    if arguments.matrix and (arguments.live or arguments.mutants):
        raise Failure("--matrix runs no scripts", "leave --live and --mutants away", USAGE)
    if arguments.write and not arguments.matrix:
        raise Failure("--write is for --matrix", "umux drill --matrix --write", USAGE)
    if arguments.live_limit is not None and not arguments.live:
        raise Failure("--live-limit is for --live", "on the stack's own clock hours pass at once", USAGE)
    for option in ("json", "junit", "pcap"):
        if arguments.mutants and getattr(arguments, option):
            raise Failure(f"--{option} is not for --mutants", "its report is the list on standard output", USAGE)
    for option in ("junit", "pcap"):
        if arguments.matrix and getattr(arguments, option):
            raise Failure(f"--{option} is not for --matrix", "it runs no scripts; --json is for programs", USAGE)
    if arguments.mutants:
        use_sources()  # nothing of a compiled core can be flipped
    if arguments.mutants and is_compiled():
        raise Failure("mutants need a core in plain Python", "start with UMUX_CORE=python in the environment", USAGE)


def _prepare(arguments: argparse.Namespace) -> None:
    """What cannot be written afterwards is said before hundreds of scripts are run."""
    junit, pcap = arguments.junit, arguments.pcap
    if junit is not None and (junit.is_dir() or not junit.absolute().parent.is_dir()):
        raise Failure(f"--junit {junit}: there is no such folder, or it is a folder itself", "name a file", USAGE)
    if pcap is not None and pcap.exists() and not pcap.is_dir():
        raise Failure(f"--pcap {pcap}: it is no folder", "captures go into a folder: name one", USAGE)


def _run(arguments: argparse.Namespace, files: list[Path], settings: "Settings") -> "list[Outcome]":
    from umuxstack.conformance import suite

    show = sys.stderr.isatty() and len(files) > 50
    outcomes = []
    running = _live(arguments, files, settings) if arguments.live else suite.run(files, settings, arguments.jobs)
    for number, outcome in enumerate(running, 1):
        outcomes.append(outcome)
        if show and number % 10 == 0:
            sys.stderr.write(f"\r{number} of {len(files)}")
            sys.stderr.flush()
    if show:
        sys.stderr.write("\r" + " " * 30 + "\r")
    return outcomes


def _live(arguments: argparse.Namespace, files: list[Path], settings: "Settings") -> "Iterator[Outcome]":
    from tun.errors import TunError
    from umuxstack.cli import drill_live
    from umuxstack.core.units import Micros

    try:
        yield from drill_live.run(files, settings, Micros(int(arguments.live_limit * 1_000_000)), arguments.jobs)
    except TunError as error:
        raise Failure(
            f"no kernel can be asked: {error.strerror or error}", "`umux doctor` says what is missing"
        ) from None


def _report(arguments: argparse.Namespace, outcomes: "list[Outcome]", results: "Mapping[Status, str]") -> None:
    from umuxstack.cli import output
    from umuxstack.conformance import suite
    from umuxstack.conformance.outcome import Status

    for outcome in outcomes:
        if outcome.status in (Status.FAILED, Status.ERROR) or (
            arguments.explain and outcome.status is Status.UNSUPPORTED
        ):
            output.say(*suite.explain(outcome, results), "")
    output.say(*suite.table(outcomes, results))
    asked = suite.constructs(outcomes)
    if asked:
        output.say("", f"{results[Status.UNSUPPORTED]}:", *(f"  {count:5}  {construct}" for construct, count in asked))


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
