"""From a name to an algorithm: the built-in ones, and those registered with one stack.

Owns the frozen table of built-in algorithms. What a stack was given beyond it
is a mapping of that stack, passed in: two stacks in one process share nothing.
Must not read files: loading "mine.py:Mine" is the driver's (congestion_loader).
"""

import inspect
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import Final, cast

from umuxstack.core.errors import BadArgument
from umuxstack.core.tcp.congestion.base import CongestionControl, RateSample
from umuxstack.core.tcp.congestion.bbr import Bbr
from umuxstack.core.tcp.congestion.cubic import Cubic
from umuxstack.core.tcp.congestion.newreno import NewReno
from umuxstack.core.units import Micros

BUILT_IN: Final[Mapping[str, type[CongestionControl]]] = MappingProxyType(
    {algorithm.name: algorithm for algorithm in (NewReno, Cubic, Bbr)}
)

# The kernel's word, so that programs which say TCP_CONGESTION need no change.
_ALSO: Final[Mapping[str, str]] = MappingProxyType({"reno": "newreno"})

# How TCP calls an algorithm: positionally, with these many arguments.
_CALLS: Final[Mapping[str, tuple[object, ...]]] = MappingProxyType(
    {
        "increase": (1440, 20_000, 0),
        "decrease": (1440, 0),
        "on_ack": (1440, 20_000, 0, 0, True, None),
        "on_loss": (1440, 0),
        "on_rto": (1440, 0),
        "on_recovery_end": (0,),
        "on_ecn": (1440, 0),
        "on_idle": (1, 1),
        "undo": (),
        "on_mss": (1440,),
        "pacing_rate": (20_000,),
        "state": (),
    }
)


def find(name: str, registered: Mapping[str, type]) -> type[CongestionControl]:
    """The algorithm called `name`. Raises `BadArgument` naming those there are."""
    algorithm = BUILT_IN.get(_ALSO.get(name, name)) or registered.get(name)
    if algorithm is None:
        known = ", ".join(sorted({*BUILT_IN, *registered}))
        raise BadArgument(f"no congestion control is called {name!r}; there are: {known}")
    return cast("type[CongestionControl]", algorithm)


def make(
    name: str, mss: int, initial_window_bytes: int, registered: Mapping[str, type] = MappingProxyType({})
) -> CongestionControl:
    """A controller for one new session. Raises `BadArgument` if there is no such algorithm."""
    return find(name, registered)(mss, initial_window_bytes)


def register(name: str, algorithm: object, registered: MutableMapping[str, type]) -> None:
    """Adds an algorithm to a stack's own mapping. Raises `BadArgument` if it does not fit the interface.

    Registering another class under the same name replaces it for sessions to come; a built-in name is taken.
    """
    if not (name.isascii() and name.isprintable() and " " not in name):
        raise BadArgument(f"an algorithm cannot be registered as {name!r}: its name is a word of printable ASCII")
    if not name or name in BUILT_IN or name in _ALSO:
        raise BadArgument(f"an algorithm cannot be registered as {name!r}; choose a name of its own")
    registered[name] = check(algorithm)


def check(algorithm: object) -> type[CongestionControl]:
    """`algorithm`, if TCP can use it: a subclass whose methods take what TCP passes, and which survives a trial.

    Raises `BadArgument` saying what is wrong.
    """
    if not isinstance(algorithm, type) or not issubclass(algorithm, CongestionControl):
        raise BadArgument(f"{algorithm!r} is not a subclass of CongestionControl")
    name = algorithm.__name__
    for method, arguments in _CALLS.items():
        function = getattr(algorithm, method)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise BadArgument(f"{name}.{method} is no plain function: TCP would call it, and nothing in it would run")
        signature = inspect.signature(function)
        try:
            signature.bind(None, *arguments)
        except TypeError as error:
            expected = str(inspect.signature(getattr(CongestionControl, method)))
            raise BadArgument(f"{name}.{method}{signature}: {error}; TCP calls {method}{expected}") from None
    try:
        _trial(algorithm)
    except Exception as error:
        raise BadArgument(f"{name} fails when TCP uses it: {type(error).__name__}: {error}") from error
    return algorithm


def _trial(algorithm: type[CongestionControl]) -> None:
    """A short life of a session: slow start, a loss, a timeout, idleness."""
    control = algorithm(1440, 14_400)
    sample = RateSample()
    sample.delivered, sample.interval, sample.rtt = 14_400, 20_000, 20_000
    now = Micros(0)
    for event in (control.on_loss, control.on_ecn, control.on_rto):
        for _ in range(3):
            control.on_ack(1440, 20_000, 14_400, now, True, sample)
            now = Micros(now + 20_000)
        event(14_400, now)
        control.on_recovery_end(now)
        control.ssthresh = min(control.ssthresh, control.cwnd)  # so that congestion avoidance has its turn
    control.on_idle(1_000_000, 200_000)
    control.on_mss(1280)
    control.undo()
    control.state()
    sizes = (control.cwnd, control.ssthresh, control.pacing_rate(20_000))
    if not all(isinstance(size, int) for size in sizes):
        raise TypeError(f"cwnd, ssthresh and the pacing rate must be whole bytes, not {sizes}")
    if control.cwnd < 1:
        raise ValueError(f"cwnd fell to {control.cwnd} bytes")
