"""Looking at what was kept: `umux plot` draws logs, `umux replay` repeats recordings."""

import argparse
from pathlib import Path

from umuxstack.cli.common import FAILED, OK, USAGE, Commands, Failure, add_command, cannot_use


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "plot",
        _plot,
        "draw what a session's log shows",
        "Sequence numbers over time, windows, round-trip time and goodput of each session; from `leases.qlog` the\n"
        "lives of addresses. `umux up --qlog DIR` writes the logs. The ending says the kind: .html (one page\n"
        "that needs nothing else), .svg, or .png (needs matplotlib).",
        "  umux plot logs/ea.1.qlog -o ea1.html\n  umux plot logs -o all.svg",
        stack=False,
        json=False,
    )
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a .qlog file, or a folder of them")
    parser.add_argument("-o", "--output", metavar="FILE", default="umux-plot.html", help="default %(default)s")
    parser = add_command(
        commands,
        "replay",
        _replay,
        "repeat a recorded run in the core alone, and compare every byte",
        "`umux up --record FILE` makes a recording; so does a random test that fails. It holds the stack's secrets.\n"
        "Exit code 0 if the run repeated, 1 if it differed: then the first difference is shown.",
        "  umux replay run.jsonl\n  umux replay run.jsonl --cc mine.py:Mine",
        stack=False,
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--cc",
        metavar="FILE.py:CLASS",
        action="append",
        default=[],
        help="the congestion control of its own that the run had; may be repeated",
    )


def _plot(arguments: argparse.Namespace) -> int:
    from umuxstack.analyze.plot import draw
    from umuxstack.cli import output
    from umuxstack.core.errors import BadArgument

    logs: list[Path] = []
    for name in arguments.logs:
        path = Path(name)
        found = sorted(path.glob("*.qlog")) if path.is_dir() else [path]
        if not found:
            raise Failure(f"no .qlog file in {path}", "`umux up --qlog DIR` writes them", USAGE)
        logs += found
    try:
        count = draw(logs, Path(arguments.output))
    except BadArgument as error:
        raise Failure(str(error), code=USAGE) from None
    except OSError as error:
        raise cannot_use(error.filename or arguments.output, error) from None
    output.say(f"{count} pictures in {arguments.output}")
    return OK


def _replay(arguments: argparse.Namespace) -> int:
    import attrs

    from umuxstack.cli import output
    from umuxstack.core.errors import BadArgument
    from umuxstack.driver.congestion_loader import register_spec
    from umuxstack.driver.replay import NotARecording, replay

    algorithms: dict[str, type] = {}
    try:
        for spec in arguments.cc:
            register_spec(spec, algorithms)
        result = replay(arguments.file, algorithms)
    except BadArgument as error:
        raise Failure(str(error), code=USAGE) from None
    except NotARecording as error:
        raise Failure(f"{arguments.file}: {error}", code=USAGE) from None
    except OSError as error:
        raise cannot_use(arguments.file, error) from None
    difference = result.difference
    if arguments.json:
        facts = {"lines": result.lines, "packets_in": result.packets_in, "packets_out": result.packets_out}
        output.say_json({**facts, "difference": None if difference is None else attrs.asdict(difference)})
    else:
        output.say(f"{result.lines} lines, {result.packets_in} packets in, {result.packets_out} out")
        if difference is None:
            output.say("identical")
        else:
            output.say(
                f"line {difference.line}, {difference.what}:",
                f"  recorded  {difference.expected}",
                f"  now       {difference.found}",
            )
    return OK if difference is None else FAILED
