"""Commands that open sessions of the running stack from this process: nc and ping."""

import argparse
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

from umuxstack.cli.common import FAILED, OK, Commands, Failure, add_command, running_stack

if TYPE_CHECKING:
    import socket
    import threading

    from umuxstack.control.client import Client
    from umuxstack.control.messages import Opened

_LONGEST_ECHO: Final = 3600  # seconds between two requests, or until an answer: the stack takes no more
_CHUNK: Final = 65536


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "nc",
        _nc,
        "join standard input and output to a session, for pipes",
        "As a client it opens a session from an address of its own. With -l it listens: the listener stands in\n"
        "LISTEN_0 until somebody gives it an address with `umux das add`, or at once with --das.\n"
        "The end of standard input ends our direction only; it goes on until the peer has ended its own.",
        """\
  umux nc 2001:db8::7 80                    to a legacy server's port 80
  tar c . | umux nc 2001:db8:1::cafe        to a unified peer: no port
  umux nc -l --das > file                   listen, print the address to tell the peer, take one session
  umux nc -l 80 --listener web              listen in LISTEN_0 as `web`; then elsewhere: umux das add web""",
        json=False,
    )
    parser.add_argument("-l", "--listen", action="store_true", help="wait for a session instead of opening one")
    parser.add_argument("target", nargs="*", metavar="[ADDRESS] [PORT]", help="where to (client), and the port")
    parser.add_argument("--source", metavar="ADDRESS", help="from this address of ours instead of a fresh one (UM-16)")
    parser.add_argument(
        "--unified", action=argparse.BooleanOptionalAction, help="whether the peer is known to need no port (UM-5)"
    )
    parser.add_argument("--label", default="", help="client: what this session is for; shown in lists")
    parser.add_argument("--listener", metavar="NAME", default="", help="with -l: the listener's name")
    parser.add_argument("--address", metavar="ADDRESS", help="with -l: a service address or a shared one, for any peer")
    parser.add_argument("--das", action="store_true", help="with -l: open an address for one session, and print it")
    parser.add_argument("-q", "--quiet", action="store_true", help="nothing on standard error but errors")
    parser.add_argument("-w", "--wait", metavar="TIME", help="give up if no session is open after this time")

    parser = add_command(
        commands,
        "ping",
        _ping,
        "send echo requests, from an address of their own",
        "Exit code 0 if at least one was answered.",
        "  umux ping 2001:db8::7\n  umux ping -c 3 -i 200ms 2001:db8::7 --json",
    )
    parser.add_argument("peer", help="an IPv6 address, or a name that has one")
    parser.add_argument("-c", "--count", type=int, default=4, help="how many (default 4)")
    parser.add_argument("-i", "--interval", default="1s", metavar="TIME", help="between two (default 1s)")
    parser.add_argument("-W", "--timeout", default="2s", metavar="TIME", help="how long to wait for each (default 2s)")
    parser.add_argument("-s", "--size", type=int, default=56, metavar="BYTES", help="payload (default 56)")


def _nc(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import values

    if arguments.wait is not None:
        values.pause(arguments.wait, "--wait")  # now, before there is a listener
    return _nc_listen(arguments) if arguments.listen else _nc_connect(arguments)


def _refuse(arguments: argparse.Namespace, when: str, *options: str) -> None:
    """Options that would mean nothing are a mistake: somebody expects something of them."""
    from umuxstack.cli.common import USAGE

    for option in options:
        if getattr(arguments, option) not in (None, "", False) or (option == "unified" and arguments.unified is False):
            raise Failure(f"--{option} means nothing {when}", "`umux nc --help` shows what goes together", USAGE)


def _port(text: str) -> int:
    from umuxstack.cli.common import USAGE

    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Failure(f"{text!r} is not a port", "a port is 1 to 65535; unified peers need none", USAGE)
    return int(text)


def _nc_connect(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import values
    from umuxstack.cli.common import USAGE
    from umuxstack.control.messages import Connect, GetStatus, Unified
    from umuxstack.core.units import UNSPECIFIED

    if not 1 <= len(arguments.target) <= 2:
        raise Failure("umux nc wants an address, and perhaps a port", "umux nc ADDRESS [PORT], or umux nc -l", USAGE)
    _refuse(arguments, "without -l", "listener", "address", "das")
    peer = values.resolve(arguments.target[0])
    source = UNSPECIFIED if arguments.source is None else values.address(arguments.source, "--source")
    unified = {None: Unified.BY_CONFIGURATION, False: Unified.NO, True: Unified.YES}[arguments.unified]
    with running_stack(arguments) as stack:
        port = _port(arguments.target[1]) if len(arguments.target) == 2 else stack.call(GetStatus()).fixed_port
        request = Connect(peer=peer, port=port, source=source, unified=unified, label=arguments.label)
        with _patience(arguments, "the peer does not answer"):
            opened, stream = stack.open(request)
        with stream:
            _announce(arguments, f"session {opened.lease}", opened)
            return _join(stream, stack, opened)


def _nc_listen(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output, values
    from umuxstack.cli.common import USAGE
    from umuxstack.control.client import accept
    from umuxstack.control.messages import DasAdd, Listen
    from umuxstack.core.units import NEVER, UNSPECIFIED

    if len(arguments.target) > 1:
        raise Failure("umux nc -l wants a port at most", "an address is given with --address", USAGE)
    _refuse(arguments, "with -l", "source", "unified")
    if arguments.das:
        _refuse(arguments, "with --das", "address")
    else:
        _refuse(arguments, "with -l and without --das", "label")
    request = Listen(
        port=_port(arguments.target[0]) if arguments.target else 0,
        backlog=1,
        address=UNSPECIFIED if arguments.address is None else values.address(arguments.address, "--address"),
        name=arguments.listener,
    )
    with running_stack(arguments) as stack:
        row, listener = stack.open(request)
        with listener:
            if arguments.das:
                lifetime = NEVER if arguments.wait is None else values.pause(arguments.wait, "--wait")
                waiter = stack.call(
                    DasAdd(listener=row.name, label=arguments.label, default_lifetime=False, lifetime=lifetime)
                )
                print(output.address(waiter.address), file=sys.stderr, flush=True)
            elif not arguments.quiet:
                hint = "" if arguments.address else f"; open an address for it: umux das add {row.name}"
                print(f"{row.name} stands in {row.kind}{hint}", file=sys.stderr, flush=True)
            with _patience(arguments, "nobody came"):
                accepted = accept(listener)
        if accepted is None:
            raise Failure("the listener was closed: the stack is gone, or somebody closed it")
        opened, stream = accepted
        with stream:
            _announce(arguments, f"session {opened.lease}", opened)
            return _join(stream, stack, opened)


@contextlib.contextmanager
def _patience(arguments: argparse.Namespace, what: str) -> Any:
    """Ends the wait inside after --wait, by a signal: it may be in any system call."""
    from umuxstack.cli import values

    def give_up(_signal: int, _frame: object) -> None:
        raise Failure(f"{what} (--wait {arguments.wait})")

    if arguments.wait is None:
        yield
        return
    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(values.pause(arguments.wait, "--wait") / 1e6, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _announce(arguments: argparse.Namespace, what: str, opened: "Opened") -> None:
    from umuxstack.cli import output

    if not arguments.quiet:
        ends = f"{output.address(opened.local)} to {output.address(opened.remote)} port {opened.remote_port}"
        print(f"{what}: {ends}", file=sys.stderr, flush=True)


def _join(stream: "socket.socket", stack: "Client", opened: "Opened") -> int:
    """Both directions at once: standard input in a thread of its own, so that neither waits for the other."""
    import threading

    output_lost = False
    feeder = threading.Thread(target=_feed, args=(stream,), daemon=True)
    feeder.start()
    try:
        while data := stream.recv(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except BrokenPipeError:
        output_lost = True  # whoever reads our output has had enough
    except ConnectionResetError:
        pass  # the outcome says more
    if not (output_lost or (sys.stdin is not None and sys.stdin.isatty())):
        _wait_for(feeder, stream)
    stream.close()
    if output_lost:
        raise BrokenPipeError
    return _outcome(stack, opened)


def _wait_for(feeder: "threading.Thread", stream: "socket.socket") -> None:
    """The peer has ended its direction; ours goes on until standard input ends or the session does."""
    import select

    poll = select.poll()
    poll.register(stream, 0)  # hang-ups only
    while feeder.is_alive() and not poll.poll(100):
        pass


def _feed(stream: "socket.socket") -> None:
    import socket

    with contextlib.suppress(OSError):  # the session is over: the main thread finds out why
        while sys.stdin is not None and (data := os.read(0, _CHUNK)):
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)


def _outcome(stack: "Client", opened: "Opened") -> int:
    from umuxstack.control.messages import GetOutcome
    from umuxstack.core.errors import Reason

    reason = Reason(stack.call(GetOutcome(id=opened.id)).reason)
    if reason in (Reason.NONE, Reason.CLOSED):
        return OK
    raise Failure(f"the session ended: {reason.name.lower().replace('_', ' ')}")


def _ping(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output, values
    from umuxstack.control.messages import Ping
    from umuxstack.core.errors import Reason
    from umuxstack.core.units import NEVER

    peer = values.resolve(arguments.peer)
    request = Ping(
        peer=peer,
        count=values.whole(arguments.count, "--count", 1, 1_000_000),
        interval=values.time(arguments.interval, "--interval", _LONGEST_ECHO),
        timeout=values.pause(arguments.timeout, "--timeout", _LONGEST_ECHO),
        size=values.whole(arguments.size, "--size", 0, 65_000),
    )
    times: list[int] = []
    sent = 0
    with running_stack(arguments) as stack:
        if not arguments.json:
            output.say(f"ping {output.address(peer)}: {arguments.size} bytes of data, from an address of its own")
        try:
            for echo in stack.rows(request, patient=True):
                sent += 1
                answered = echo.rtt < NEVER and echo.reason == Reason.NONE
                if answered:
                    times.append(echo.rtt)
                if arguments.json:
                    output.say_json_line(output.as_json(echo))
                elif answered:
                    output.say(
                        f"{echo.size} bytes: seq {echo.sequence}, hop limit {echo.hop_limit}, "
                        f"time {echo.rtt / 1000:.3f} ms ({echo.lease})"
                    )
                else:
                    why = "no answer" if echo.rtt >= NEVER else Reason(echo.reason).name.lower().replace("_", " ")
                    output.say(f"{why}: seq {echo.sequence} ({echo.lease})")
        except KeyboardInterrupt:
            if not arguments.json:
                output.say("")
    if not arguments.json:
        lost = f"{100 * (sent - len(times)) / sent:.0f} % lost" if sent else "none sent"
        spread = ""
        if times:
            figures = (min(times), sum(times) / len(times), max(times))
            spread = ", time min/avg/max " + "/".join(f"{figure / 1000:.3f}" for figure in figures) + " ms"
        output.say(f"{sent} sent, {len(times)} answered, {lost}{spread}")
    return OK if times else FAILED
