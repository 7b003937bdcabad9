"""Commands that need no running stack: doctor, analyze, demo, version."""

import argparse
import platform
from typing import Final

from umuxstack.cli.common import FAILED, OK, USAGE, Commands, Failure, add_command, cannot_use
from umuxstack.core import is_compiled

_NEEDED: Final = ("a TUN device can be made", "IPv6")  # without these, `umux up` cannot work


def add(commands: Commands) -> None:
    add_command(
        commands,
        "doctor",
        _doctor,
        "say what this machine allows, and the command that mends what it does not",
        "Exit code 0 if `umux up` can work here as this user, 1 if not. Changes nothing.",
        "  umux doctor\n  sudo umux doctor --json",
        stack=False,
    )
    parser = add_command(
        commands, "analyze", _birthday, "calculate what the addresses are worth", stack=False, json=False
    )
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    parser = add_command(
        subjects,
        "birthday",
        _birthday,
        "how soon a randomly chosen address is met again",
        "The design's two cases (one address a second; 100,000,000 a year) over 64 random bits, by the exact product,\n"
        "beside the figures that the design's slides print; then any rate and any number of bits. The `sealed` scheme\n"
        "repeats nothing before the whole space is used up; this is the arithmetic of the `random` one.",
        """\
  umux analyze birthday
  umux analyze birthday --bits 48 --rate 3.17
  umux analyze birthday --plot birthday.svg""",
        stack=False,
    )
    parser.add_argument("--bits", type=int, metavar="N", help="random bits in an address, instead of both cases' 64")
    parser.add_argument("--rate", type=float, metavar="R", help="addresses a second, instead of both cases'")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves into a PNG or SVG file (needs matplotlib)")
    commands.add_parser("demo", help="see it all in 15 seconds, as root on a TUN or without root in memory")
    add_command(commands, "version", version, "print the version", stack=False, json=False)


def _doctor(arguments: argparse.Namespace) -> int:
    from tun import probe
    from umuxstack.cli import output

    findings = probe.probe()
    able = all(finding.ok for finding in findings if finding.name in _NEEDED)
    if arguments.json:
        output.say_json({"able": able, "findings": [finding._asdict() for finding in findings]})
        return OK if able else FAILED
    for finding in findings:
        output.say(f"{'ok  ' if finding.ok else 'NO  '} {finding.name}: {finding.detail}")
        if not finding.ok and finding.fix:
            output.say(output.wrapped(finding.fix.split(" "), indent="       ", separator=" "))
    output.say("", "`umux up` can run a stack here." if able else "`umux up` cannot run a stack here as things are.")
    return OK if able else FAILED


def _birthday(arguments: argparse.Namespace) -> int:
    from umuxstack.analyze import birthday
    from umuxstack.core.errors import BadArgument

    try:
        return birthday.report(bits=arguments.bits, rate=arguments.rate, json=arguments.json, plot=arguments.plot)
    except BadArgument as error:
        raise Failure(str(error), "`umux analyze birthday --help` shows examples", USAGE) from error
    except OSError as error:
        raise cannot_use(error.filename or arguments.plot, error) from error


def demo(arguments: argparse.Namespace) -> int:
    """`umux demo`, with whatever options its own parser knows."""
    from umuxstack.cli import demo as story

    return story.main(arguments.rest)


def version(_arguments: argparse.Namespace) -> int:
    """The version of this program, and of what it runs on."""
    from importlib.metadata import version as installed

    from umuxstack.cli import output

    core = "compiled" if is_compiled() else "in Python"
    mine = f"umuxstack {installed('umuxstack')}, core {core}"
    output.say(f"{mine}, Python {platform.python_version()}, Linux {platform.release()}")
    return OK
