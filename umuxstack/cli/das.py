"""`umux das`: Delayed Address Setting from outside the listening program (UM-21, UM-24)."""

import argparse
from typing import Final

from umuxstack.cli.common import OK, USAGE, Commands, Failure, add_command, running_stack

_DESCRIPTION: Final = """\
A program that listens without an address stands in LISTEN_0 and accepts nothing. `das add` opens one address
(an SSA) for one session of it: whoever you tell that address can come, once. Nobody else can find it."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "das", _list, "open, list and revoke addresses for listeners", _DESCRIPTION, stack=False, json=False
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    parser = add_command(
        actions,
        "add",
        _add,
        "open one address for one session of a listener, and print it",
        "The address is printed to standard output, alone, so that a script can take it.",
        """\
  umux das add httpd                              mint an address for the listener called httpd
  curl "http://[$(umux das add httpd)]/"          … and use it at once
  umux das add httpd --peer 2001:db8:7::/64 --lifetime 10m --label "order 17"
  umux das add 3 --ssa 2001:db8:1::cafe           an address of one's own choice, for the listener with the id 3""",
    )
    parser.add_argument("listener", help="the listener's name or id, as `umux ss` shows it")
    parser.add_argument("--ssa", metavar="ADDRESS", help="this address, instead of a minted one")
    parser.add_argument("--peer", metavar="ADDRESS[/LENGTH]", help="only this address or prefix may come")
    parser.add_argument(
        "--lifetime",
        metavar="TIME",
        help="how long to wait: 90, 90s, 10m, 2h, or `unlimited` (default 60s)",
    )
    parser.add_argument("--label", default="", help="what this address stands for; shown in lists and logs")
    parser.add_argument(
        "--grain",
        choices=("session", "client"),
        default="session",
        help="`session`: one connection (default). `client`: all connections of the first peer, for browsers",
    )
    parser.add_argument(
        "--pin",
        type=int,
        choices=(64, 128),
        default=128,
        help="`client` grain: who counts as the first peer, its address (128, default) or its /64",
    )

    parser = add_command(
        actions,
        "list",
        _list,
        "show the addresses that wait for somebody",
        "This list shows waiting addresses in full: whoever knows one can use it.",
        "  umux das list\n  umux das list --json",
    )
    parser = add_command(
        actions,
        "revoke",
        _revoke,
        "close an address that waits for somebody",
        "",
        "  umux das revoke ssa.httpd.2\n  umux das revoke 2001:db8:1::cafe",
        json=False,
    )
    parser.add_argument("what", nargs="+", help="the address, or its lease's name as `umux das list` shows it")


def _add(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output, values
    from umuxstack.control.messages import ANY_LENGTH, DasAdd
    from umuxstack.core.units import NEVER, UNSPECIFIED

    if not arguments.listener:
        raise Failure("an empty name was given", "`umux ss` shows listeners' names and ids", USAGE)
    if arguments.pin != 128 and arguments.grain != "client":
        raise Failure("--pin is for --grain client", "a session's grain has one peer anyway", USAGE)
    peer, length = (UNSPECIFIED, ANY_LENGTH) if arguments.peer is None else values.prefix(arguments.peer, "--peer")
    lifetime = None if arguments.lifetime is None else values.lifetime(arguments.lifetime, "--lifetime")
    request = DasAdd(
        listener=arguments.listener,
        ssa=UNSPECIFIED if arguments.ssa is None else values.address(arguments.ssa, "--ssa"),
        peer=peer,
        peer_length=length,
        default_lifetime=lifetime is None,
        lifetime=NEVER if lifetime is None else lifetime,
        pin=arguments.pin,
        grain=arguments.grain,
        label=arguments.label,
    )
    with running_stack(arguments) as stack:
        waiter = stack.call(request)
    if arguments.json:
        output.say_json(output.as_json(waiter))
    else:
        output.say(output.address(waiter.address))
    return OK


def _list(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import DasList

    with running_stack(arguments) as stack:
        waiters = list(stack.rows(DasList(reveal=True)))
    if arguments.json:
        output.say_json([output.as_json(waiter) for waiter in waiters])
        return OK
    output.say(
        *output.table(
            ("NAME", "ADDRESS", "STATE", "GRAIN", "ENDS IN", "PEER", "LABEL"),
            [
                (
                    waiter.name,
                    output.address(waiter.address),
                    waiter.state,
                    waiter.grain,
                    output.duration(waiter.expires),
                    output.peer(waiter),
                    waiter.label,
                )
                for waiter in waiters
            ],
        )
    )
    return OK


def _revoke(arguments: argparse.Namespace) -> int:
    from umuxstack.control.messages import DasRevoke

    if not all(arguments.what):
        raise Failure("an empty name was given", "name the lease or its address", USAGE)
    with running_stack(arguments) as stack:
        for what in arguments.what:
            stack.call(DasRevoke(what=what))
    return OK
