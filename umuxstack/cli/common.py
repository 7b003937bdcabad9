"""What all commands share: exit codes, failures in words, and the way to the running stack.

Imports nothing heavy: every command is parsed before any of it is loaded.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from umuxstack.control.client import Client

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_STACK: Final = 3
REFUSED: Final = 4
INTERRUPTED: Final = 130  # 128 + SIGINT
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE

EXIT_CODES: Final = """\
exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no stack is running or it cannot be reached,
4 the stack refused, 130 interrupted by Ctrl-C"""

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any


class Failure(Exception):
    """What went wrong, and what helps: printed without a traceback."""

    def __init__(self, cause: str, fix: str = "", code: int = FAILED) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix
        self.code = code


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str = "",
    examples: str = "",
    *,
    stack: bool = True,
    json: bool = True,
) -> argparse.ArgumentParser:
    """A subcommand with the options that all have. `run` gets the parsed arguments and returns the exit code."""
    epilog = f"examples:\n{examples.rstrip()}\n\n{EXIT_CODES}" if examples else EXIT_CODES
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}".rstrip(),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, command=name)
    if json:
        parser.add_argument("--json", action="store_true", help="JSON instead of a table; times in microseconds")
    if stack:
        parser.add_argument("--socket", metavar="PATH", help="the stack's control socket (or set UMUX_SOCKET)")
        parser.add_argument("--name", metavar="NAME", help="which stack, when several run (see `umux up --name`)")
    return parser


def socket_path(arguments: argparse.Namespace) -> Path:
    """The control socket that the options, the environment or the only running stack name."""
    from umuxstack.control import place

    if arguments.socket:
        return Path(arguments.socket)
    if arguments.name:
        known = [path for path in place.candidates(os.environ, os.geteuid()) if path.stem == arguments.name]
        return known[0] if known else place.default_path(arguments.name, os.environ, os.geteuid())
    if os.environ.get("UMUX_SOCKET"):
        return Path(os.environ["UMUX_SOCKET"])
    found = place.candidates(os.environ, os.geteuid())
    if len(found) > 1:  # a stack that was killed leaves its file
        found = [path for path in found if place.answers(path)] or found[:1]
    if not found:
        where = place.directory(os.environ, os.geteuid())
        raise Failure(
            f"no stack is running: there is no control socket in {where}",
            "start one with `umux up --prefix PREFIX`, or name its socket with --socket or UMUX_SOCKET",
            NO_STACK,
        )
    if len(found) > 1:
        names = ", ".join(path.stem for path in found)
        raise Failure(f"{len(found)} stacks are running: {names}", "choose one with --name", USAGE)
    return found[0]


@contextlib.contextmanager
def running_stack(arguments: argparse.Namespace) -> Iterator["Client"]:
    """A connected client of the stack that the arguments mean."""
    from umuxstack.control.client import Client

    with Client(socket_path(arguments)) as client:
        yield client


def explain(error: Exception) -> Failure | None:
    """The failure in words; None for an error that is a bug of ours."""
    if type(error) is ImportError and error.name == "umuxstack.core":  # UMUX_CORE names none: nothing else loads
        return Failure(str(error), code=USAGE)

    from umuxstack.control.layout import ProtocolError
    from umuxstack.control.place import BadPlace, PlaceError
    from umuxstack.control.protocol import Busy, Forbidden, NoStack, SessionFailed, StackBug, WrongVersion
    from umuxstack.core.errors import AddressMalformed, BadArgument, LocalError, MessageTooLong
    from umuxstack.keyfile import KeyFileCorrupt, KeyFileInUse, KeyFileUnsafe

    if isinstance(error, Failure):
        return error
    if isinstance(error, NoStack):
        return Failure(str(error), "`umux up --prefix PREFIX` starts one", NO_STACK)
    if isinstance(error, WrongVersion):
        return Failure(str(error), "use the umux of the same installation as the stack", NO_STACK)
    if isinstance(error, Forbidden | Busy):
        return Failure(str(error), "", REFUSED)
    if isinstance(error, AddressMalformed | BadArgument | MessageTooLong):
        return Failure(str(error), "`umux COMMAND --help` says what each option takes", USAGE)
    if isinstance(error, BadPlace | KeyFileUnsafe | KeyFileCorrupt):
        return Failure(str(error), "", USAGE)
    if isinstance(error, KeyFileInUse):
        return Failure(str(error))
    if isinstance(error, LocalError):
        return Failure(str(error), _FIXES.get(type(error).__name__, ""), REFUSED)
    if isinstance(error, SessionFailed | PlaceError):
        return Failure(str(error))
    if isinstance(error, StackBug):
        return Failure(f"the stack failed on this request: {error}", "its log has the details; please report them")
    if isinstance(error, ProtocolError):
        return Failure(f"the control socket's answer makes no sense: {error}", "is it a umux stack of this version?")
    return None


def cannot_use(path: object, error: OSError) -> Failure:
    """A file that was named and cannot be read or written: wrong usage, unless it is a question of rights or room."""
    wrong = isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError)
    return Failure(f"{path}: {error.strerror or error}", "name another file", USAGE if wrong else FAILED)


def refused_device(error: OSError, before: str = "") -> Failure:
    """What the kernel or the file system refused: wrong usage, where a word of the user's cannot be."""
    from tun.errors import MtuOutOfRange, NameInvalid, NamespaceMissing, TunError

    if error.filename is not None and not isinstance(error, TunError):
        return cannot_use(error.filename, error)
    code = USAGE if isinstance(error, MtuOutOfRange | NameInvalid | NamespaceMissing) else FAILED
    return Failure(f"{before}{error.strerror or error}", "" if code == USAGE else "`umux doctor` looks further", code)


_FIXES: Final = {
    "AddressUsed": "let the stack mint a fresh one: leave --ssa away",
    "AddressNotOurs": "`umux status` shows the stack's prefix",
    "AddressInUse": "`umux addr` shows who holds which address",
    "NoSuchObject": "`umux ss` and `umux das list` show the names that exist",
    "BacklogFull": "revoke what nobody will use (`umux das revoke`), or listen with a larger backlog",
    "PoolExhausted": "`umux pool` shows the pool; a wider prefix or another key file helps",
}
