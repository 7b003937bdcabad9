"""Commands that look at a running stack: ss, addr, pool, status, stats, telescope, events."""

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from umuxstack.cli.common import FAILED, OK, USAGE, Commands, Failure, add_command, running_stack

if TYPE_CHECKING:
    from umuxstack.control.layout import Record
    from umuxstack.control.messages import Knock, ListenerRow, SessionRow, Waiter
    from umuxstack.core.units import Address

_HIDDEN: Final = "(waits unseen)"  # UM-34


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ss",
        _ss,
        "show listeners and sessions, as `ss -tine` does",
        "LISTEN_0 accepts nothing; a LISTEN_U under it waits on one address for one session. A session is its pair\n"
        "of addresses; the ports in the second line carry no meaning for it. Addresses that still wait for somebody\n"
        "are left out: `umux das list` shows them.",
        "  umux ss\n  umux ss --listening\n  umux ss --json | jq '.sessions[] | {lease, srtt_us}'",
    )
    parser.add_argument("-l", "--listening", action="store_true", help="listeners only")
    parser.add_argument("-b", "--brief", action="store_true", help="one line for each session")
    parser = add_command(
        commands,
        "addr",
        _addr,
        "show the addresses that are alive, and what each is for",
        "An EA belongs to a session that we opened, an SSA to one that came (or may come) to us.",
        "  umux addr\n  umux addr --reveal",
    )
    parser.add_argument("--reveal", action="store_true", help="also the addresses that still wait for somebody")
    add_command(commands, "pool", _pool, "show the pool of ready addresses", "", "  umux pool --json")
    add_command(commands, "status", _status, "show the stack and its link", "", "  umux status")
    parser = add_command(
        commands,
        "stats",
        _stats,
        "show the counters",
        "Counters that are zero are left out of the table. `drop.…` counts packets by the reason they went no further.",
        "  umux stats\n  umux stats drop\n  umux stats --watch 1 --snmp\n  umux stats --prometheus --port 9464",
    )
    parser.add_argument("match", nargs="?", default="", help="only counters whose name contains this")
    parser.add_argument("-a", "--all", action="store_true", help="also those that are zero")
    parser.add_argument("--snmp", action="store_true", help="only what a MIB names, under those names")
    parser.add_argument("--prometheus", action="store_true", help="in the text format that Prometheus reads")
    parser.add_argument(
        "--port", type=int, metavar="N", help="with --prometheus: serve /metrics on 127.0.0.1 until Ctrl-C"
    )
    parser.add_argument("--watch", metavar="TIME", help="again and again, with the change per second; Ctrl-C ends it")
    parser = add_command(
        commands,
        "telescope",
        _telescope,
        "show who knocked where nobody is",
        "Packets to addresses that nobody holds meet silence; who sends them is counted. RATE: between first and last.",
        "  umux telescope\n  umux telescope --limit 0 --json",
    )
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="the N loudest sources; 0 for all (default 20)"
    )
    parser = add_command(
        commands,
        "events",
        _events,
        "follow what happens: addresses and sessions as they come and go",
        "One line for each event until Ctrl-C. With --json, one object a line.",
        "  umux events\n  umux events --json | jq -r .kind",
    )
    parser.add_argument("--reveal", action="store_true", help="also the addresses that still wait for somebody")


def _ss(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import DasList, Listeners, Sessions

    with running_stack(arguments) as stack:
        listeners = list(stack.rows(Listeners()))
        waiters = list(stack.rows(DasList()))
        sessions = [] if arguments.listening else list(stack.rows(Sessions()))
    if arguments.json:
        shown: dict[str, Sequence[Record]] = {"listeners": listeners, "waiting": waiters, "sessions": sessions}
        output.say_json({name: [output.as_json(row) for row in rows] for name, rows in shown.items()})
        return OK
    lines = output.table(
        ("STATE", "NAME", "LOCAL ADDRESS", "REMOTE ADDRESS"),
        [
            *(line for listener in listeners for line in _listener_lines(listener, waiters)),
            *(
                (session.state, session.lease, _local(session.local), output.address(session.remote))
                for session in sessions
            ),
        ],
    )
    head = len(lines) - len(sessions)
    output.say(*lines[:head])
    for line, session in zip(lines[head:], sessions, strict=True):
        output.say(line)
        if not arguments.brief:
            output.say(output.wrapped(_details(session)))
    return OK


def _local(address: "Address") -> str:
    from umuxstack.cli import output
    from umuxstack.core.units import UNSPECIFIED

    return _HIDDEN if address == UNSPECIFIED else output.address(address)


def _listener_lines(listener: "ListenerRow", waiters: "list[Waiter]") -> list[tuple[str, str, str, str]]:
    from umuxstack.cli import output
    from umuxstack.core.units import NEVER, UNSPECIFIED

    local = "*" if listener.address == UNSPECIFIED else output.address(listener.address)
    queue = f", {listener.queued} to accept" if listener.queued else ""
    port = f", port {listener.port}" if listener.port else ""
    lines = [(listener.kind, listener.name, local, f"*  (id {listener.id}{port}{queue})")]
    for waiter in waiters:
        if waiter.listener == listener.name:
            label = f", {waiter.label!r}" if waiter.label else ""
            ends = "" if waiter.expires >= NEVER else f", {output.duration(waiter.expires)} left"
            peer = "*" if output.peer(waiter) == "any" else output.peer(waiter)
            state = "" if waiter.state == "WAITING" else f", {waiter.state.lower()}"
            local = _HIDDEN if waiter.address == UNSPECIFIED else output.address(waiter.address)
            lines.append(("  LISTEN_U", waiter.name, local, f"{peer}  ({waiter.grain}{state}{ends}{label})"))
    return lines


def _details(session: "SessionRow") -> list[str]:
    from umuxstack.cli.output import duration

    parts = [f"{session.protocol} {session.role}", f"ports {session.local_port}:{session.remote_port}"]
    parts += [f"grain {session.grain}"]
    if session.label:
        parts.append(f"label {session.label!r}")
    if session.protocol == "tcp":
        parts += [
            session.congestion,
            f"wscale {session.send_scale},{session.receive_scale}",
            f"rtt {session.srtt / 1000:.3g}/{session.rttvar / 1000:.3g} ms",
            f"rto {duration(session.rto)}",
            f"mss {session.mss}",
            f"cwnd {session.cwnd} ({session.cwnd / max(1, session.mss):.3g} mss)",
            *([f"ssthresh {session.ssthresh}"] if session.ssthresh else []),
            f"in flight {session.in_flight}",
            f"retransmitted {session.retransmitted}",
            *([f"lost {session.lost}"] if session.lost else []),
            f"window {session.send_window} out, {session.receive_window} in",
            f"queued {session.send_queue} out, {session.receive_queue} in",
        ]
        options = (("sack", session.sack), ("ts", session.timestamps), ("ecn", session.ecn))
        parts += [name for name, used in options if used]
    return parts


def _addr(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import Addresses

    with running_stack(arguments) as stack:
        leases = list(stack.rows(Addresses(reveal=arguments.reveal)))
    if arguments.json:
        output.say_json([output.as_json(lease) for lease in leases])
        return OK
    output.say(
        *output.table(
            ("NAME", "ADDRESS", "KIND", "STATE", "GRAIN", "AGE", "LABEL"),
            [
                (
                    lease.name,
                    _HIDDEN if lease.hidden else output.address(lease.address),
                    lease.kind,
                    lease.state,
                    lease.grain,
                    output.duration(lease.age),
                    lease.label,
                )
                for lease in leases
            ],
        )
    )
    return OK


def _pool(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import Pool

    with running_stack(arguments) as stack:
        pool = stack.call(Pool())
    if arguments.json:
        output.say_json(output.as_json(pool))
        return OK
    output.say(
        f"{pool.level} addresses are ready (refilled below {pool.low}, up to {pool.high}; scheme {pool.scheme})",
        f"{pool.hits} taken from the pool, {pool.misses} made on the spot, {pool.issued} issued in all",
    )
    return OK


def _status(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import GetStatus

    with running_stack(arguments) as stack:
        status = stack.call(GetStatus())
        pid = stack.welcome.pid
    if arguments.json:
        output.say_json({**output.as_json(status), "pid": pid})
        return OK
    offload = [name for name, on in (("segmentation", status.segmentation), ("checksum", status.checksum)) if on]
    output.say(
        f"stack {status.name}, pid {pid}, up for {output.duration(status.uptime)}, umuxstack {status.version}",
        f"prefix {output.address(status.prefix)}/{status.prefix_length}, addresses {status.scheme}, "
        f"fixed port {status.fixed_port}, {'silence' if status.silence else 'answers'} for strangers",
        f"link {status.link or '(none)'} {'up' if status.up else 'DOWN'}, mtu {status.mtu}, "
        f"offload {' and '.join(offload) or 'none'}",
        f"sessions {status.sessions}, listeners {status.listeners}, live addresses {status.leases}, "
        f"buffers {output.size(status.memory_used)} of {output.size(status.memory_limit)}, {status.congestion}",
    )
    return OK


def _stats(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import metrics, output, values
    from umuxstack.control.messages import Statistics

    pause = 0.0 if arguments.watch is None else values.pause(arguments.watch, "--watch") / 1e6
    if arguments.port is not None:
        values.whole(arguments.port, "--port", 0, 65535)
    if not arguments.prometheus and arguments.port is not None:
        raise Failure("--port is for --prometheus", "umux stats --prometheus --port 9464", USAGE)
    if arguments.prometheus and (arguments.json or arguments.snmp or arguments.match or arguments.watch):
        raise Failure(
            "--prometheus has its own form, with all counters, once", "leave the others away, or leave it away", USAGE
        )
    if arguments.prometheus:
        return _prometheus(arguments)
    with running_stack(arguments) as stack:
        before: dict[str, int] = {}
        then = 0.0
        while True:
            now = time.monotonic()
            figures = {row.name: row.value for row in stack.rows(Statistics())}
            if arguments.snmp:
                figures = metrics.as_snmp(figures)
            figures = {name: value for name, value in figures.items() if arguments.match in name}
            if not figures:
                raise Failure(
                    f"no counter's name contains {arguments.match!r}", "`umux stats --all` shows their names", USAGE
                )
            if arguments.json:
                (output.say_json_line if pause else output.say_json)(figures)
            else:
                lines = []
                for name, value in figures.items():
                    change = (value - before.get(name, value)) / (now - then) if before else 0.0
                    if value or arguments.all:
                        lines.append((name, value, f"{change:+,.0f}/s" if before else ""))
                output.say(*output.table(("COUNTER", "VALUE", "CHANGE" if before else ""), lines, right=(1, 2)))
            if arguments.watch is None:
                return OK
            before, then = figures, now
            time.sleep(pause)
            if not arguments.json:
                output.say("")


def _prometheus(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import metrics, output
    from umuxstack.control.messages import GetStatus, Statistics

    def render() -> str:
        with running_stack(arguments) as stack:
            status = stack.call(GetStatus())
            figures = {row.name: row.value for row in stack.rows(Statistics())}
        figures |= {"sessions": status.sessions, "listeners": status.listeners, "leases": status.leases}
        figures |= {"memory_used": status.memory_used, "memory_limit": status.memory_limit}
        return metrics.as_prometheus(figures, status.name)

    if arguments.port is None:
        output.say(render().rstrip("\n"))
        return OK
    try:
        exporter = metrics.Exporter(arguments.port, render)
    except (OSError, OverflowError) as error:
        raise Failure(f"--port {arguments.port}: {error}", "another port may be free", USAGE) from None
    with exporter:
        output.say(f"http://127.0.0.1:{exporter.port}/metrics")
        exporter.serve_forever()
    return OK


def _telescope(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output, values
    from umuxstack.control.messages import Telescope

    values.whole(arguments.limit, "--limit", 0, 1_000_000)
    with running_stack(arguments) as stack:
        knocks = sorted(stack.rows(Telescope()), key=lambda knock: -knock.packets)
    shown = knocks[: arguments.limit] if arguments.limit > 0 else knocks
    if arguments.json:
        output.say_json([output.as_json(knock) | {"per_second": _rate(knock)} for knock in shown])
        return OK
    rows = []
    for knock in shown:
        rate = _rate(knock)
        seen = (output.duration(knock.age), output.duration(knock.quiet))
        rows.append((output.address(knock.source), knock.packets, "-" if rate is None else f"{rate:.3g}/s", *seen))
    output.say(*output.table(("SOURCE", "PACKETS", "RATE", "FIRST", "LAST"), rows, right=(1, 2, 3, 4)))
    if len(shown) < len(knocks):
        output.say(f"… and {len(knocks) - len(shown)} more; --limit 0 shows all")
    return OK


def _rate(knock: "Knock") -> float | None:
    """Packets a second; None where there was one packet, or one moment."""
    span = knock.age - knock.quiet
    return round((knock.packets - 1) / span * 1e6, 3) if span > 0 else None


def _events(arguments: argparse.Namespace) -> int:
    from umuxstack.cli import output
    from umuxstack.control.messages import Events
    from umuxstack.core.errors import Reason

    with running_stack(arguments) as stack:
        for event in stack.rows(Events(reveal=arguments.reveal), patient=True):
            if arguments.json:
                output.say_json_line(output.as_json(event))
                continue
            if event.lost:
                output.say(f"… {event.lost} events were lost: this reader was too slow")
            clock = time.strftime("%H:%M:%S", time.localtime(event.time / 1e6))
            parts = [f"{clock}.{event.time // 1000 % 1000:03}", f"{event.kind:20}", f"{event.name:16}"]
            parts.append(output.address(event.address))
            if event.peer != bytes(16):
                parts.append(f"peer {output.address(event.peer)}")
            if event.reason:
                parts.append(Reason(event.reason).name.lower())
            if event.label:
                parts.append(repr(event.label))
            output.say("  ".join(parts))
    return FAILED  # the stack ended it, not the user
