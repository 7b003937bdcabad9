"""The command line's grammar: every group adds its commands; nothing else is loaded to print a help text."""

import argparse
from collections.abc import Sequence
from typing import Final

from umuxstack.cli import das, drill, link, machine, show, talk, trace, up
from umuxstack.cli.common import EXIT_CODES

_DESCRIPTION: Final = """\
Unified Multiplex: a TCP/IPv6 stack in which every session has an address of its own.
`umux up` runs a stack; the other commands talk to it over its control socket."""

_EPILOG: Final = f"""\
a first walk:
  umux demo                                     see it all in 15 seconds
  umux doctor                                   what this machine allows
  sudo umux up --prefix 2001:db8:1::/64 --serve hello
  umux das add hello                            in another terminal: prints an address
  curl "http://[ADDRESS]/"                      works once, for whoever has the address

`umux COMMAND --help` explains each command. {EXIT_CODES}"""


def build() -> argparse.ArgumentParser:
    """The whole grammar."""
    parser = argparse.ArgumentParser(
        prog="umux", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=False)
    up.add(commands)
    das.add(commands)
    show.add(commands)
    talk.add(commands)
    link.add(commands)
    trace.add(commands)
    drill.add(commands)
    machine.add(commands)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments with `run` set. Leaves by SystemExit(2) after a usage message, SystemExit(0) after a help text."""
    if argv and argv[0] == "demo":
        # The demo has a parser of its own; its options, --help included, go there as they are.
        return argparse.Namespace(run=machine.demo, rest=list(argv[1:]))
    parser = build()
    arguments = parser.parse_args(argv)
    if arguments.version:
        arguments.run = machine.version
    elif not hasattr(arguments, "run"):
        parser.print_help()
        raise SystemExit(2)
    return arguments
