"""Which scripts are not put to a kernel, and why: decided before anything is run, by what the script says."""

import ast
import builtins
from typing import Final

from umuxstack.conformance import tcpinfo
from umuxstack.conformance.live import info
from umuxstack.conformance.live.calls import KernelCalls
from umuxstack.conformance.live.settings import orders
from umuxstack.conformance.live.wire import too_long
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.script import Code, Command, Event, Script, SystemCall, TimeKind
from umuxstack.conformance.subject import Setup
from umuxstack.conformance.symbols import evaluate
from umuxstack.core.units import Micros

ANSWERED: Final = info.NAMES | tcpinfo.CONSTANTS.keys() | {"state", "isn"}  # what code may ask of a kernel
LEAST_MTU: Final = 1280  # of a `TunDevice`
# Our own counters and reasons. A script that asks for them is played, and the question is passed over.
UNASKED: Final = frozenset(("drop", "counter", "reason", "soft_error", "sessions", "records", "leftovers", "memory"))


def check(setup: Setup, limit: Micros) -> None:
    """Raises UnsupportedConstruct naming the reason. `limit`: how long a script may take."""
    if setup.unified:
        raise UnsupportedConstruct("unified sessions: no kernel has them")
    if setup.personality == "freebsd":
        raise UnsupportedConstruct("it states what FreeBSD does")
    if setup.mtu < LEAST_MTU:
        raise UnsupportedConstruct(f"--mtu={setup.mtu}: a TUN carries {LEAST_MTU} octets at least")
    known = set(ANSWERED)
    for action in (*setup.script.init, *(event.action for event in setup.script.events), *setup.script.cleanup):
        if isinstance(action, Command):
            orders(action.text)
        elif isinstance(action, SystemCall):
            _check_call(action)
        elif isinstance(action, Code):
            known |= _check_code(action, known)
    if duration(setup.script) > limit:
        raise too_long(limit)


def _check_call(call: SystemCall) -> None:
    if call.name != "silence":
        if getattr(KernelCalls, f"call_{call.name}", None) is None:
            raise UnsupportedConstruct(f"system call {call.name}")
        for argument in call.arguments:
            evaluate(argument)


def _check_code(code: Code, known: set[str]) -> set[str]:
    """The names that the code defines. What is no Python is for the runner to say."""
    try:
        tree = ast.parse("\n".join(line.strip() for line in code.text.strip().splitlines()))
    except SyntaxError:
        return set()
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    made = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    for node in names:
        if isinstance(node.ctx, ast.Load) and node.id not in known | made | UNASKED and not hasattr(builtins, node.id):
            raise UnsupportedConstruct(f"code asks for {node.id}")
    return made


def duration(script: Script) -> Micros:
    """How long the script takes if everything happens in its time. `*` counts nothing."""
    at = longest = 0
    for event in script.events:
        at = _moment(event, at)
        action = event.action
        end = at
        if isinstance(action, SystemCall) and action.end is not None:
            end = at - event.time.start + action.end
            if action.name == "silence":
                at = end
        longest = max(longest, at, end)
    return Micros(longest)


def _moment(event: Event, before: int) -> int:
    match event.time.kind:
        case TimeKind.ANY:
            return before
        case TimeKind.ABSOLUTE | TimeKind.ABSOLUTE_RANGE:
            return event.time.start
    return before + event.time.start
