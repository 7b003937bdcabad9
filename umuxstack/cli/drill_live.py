"""`umux drill --live`: scripts against the kernel, each in a namespace of its own, several at a time.

Namespaces have no names and devices end with their descriptors, so whatever ends a process leaves nothing behind; a
process that is told to end closes its connections before, which would keep a namespace for a while.
"""

import ctypes
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from umuxstack.conformance.ends import HERE
from umuxstack.conformance.live import leftout
from umuxstack.conformance.live.kernel import KernelStack
from umuxstack.conformance.outcome import Outcome, Status
from umuxstack.conformance.runner import Settings, run_file
from umuxstack.conformance.subject import Setup, Subject
from umuxstack.core.units import Micros
from umuxstack.kernel import open_kernel

MTU: Final = 1500  # of the namespace that is only made to see whether it can be
PR_SET_PDEATHSIG: Final = 1


def play(path: Path, settings: Settings, limit: Micros) -> Outcome:
    """One script, and once more if the kernel differs: a machine that did something else is late only once."""
    outcome = _play_once(path, settings, limit)
    return _play_once(path, settings, limit) if outcome.status is Status.FAILED else outcome


def _play_once(path: Path, settings: Settings, limit: Micros) -> Outcome:
    """One script against a new kernel. Raises TunError if there can be none."""
    with ExitStack() as opened:

        def make(setup: Setup) -> Subject:
            leftout.check(setup, limit)
            kernel = opened.enter_context(open_kernel(str(ip_address(setup.names["here"])), mtu=setup.mtu))
            return KernelStack(setup, kernel, limit)

        return run_file(path, settings, make)


def run(files: Sequence[Path], settings: Settings, limit: Micros, jobs: int) -> Iterator[Outcome]:
    """Every script, in the order of `files`. Raises TunError before the first if this machine does not allow it."""
    with open_kernel(str(ip_address(HERE)), mtu=MTU):
        pass
    one = partial(play, settings=settings, limit=limit)
    if jobs <= 1 or len(files) < 2:
        yield from map(one, files)
        return
    yield from _spread(one, files, min(jobs, len(files)))


def _spread(one: Callable[[Path], Outcome], files: Sequence[Path], jobs: int) -> Iterator[Outcome]:
    """In `jobs` processes with a pipe each: they share no lock that one of them could hold when it is ended."""
    processes = []
    todo = iter(enumerate(files))
    busy: dict[Connection, int] = {}  # pipe -> the number of the script that is being played behind it
    done: dict[int, Outcome] = {}
    try:
        for _ in range(jobs):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_serve, args=(theirs, one), daemon=True)
            process.start()
            theirs.close()
            processes.append((process, ours))
            _hand_out(ours, todo, busy)
        for number in range(len(files)):
            while number not in done:
                for pipe in wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    done[busy.pop(pipe)] = pipe.recv()
                    _hand_out(pipe, todo, busy)
            yield done.pop(number)
    finally:
        for process, pipe in processes:
            process.terminate()
            pipe.close()
        for process, _ in processes:
            process.join()


def _hand_out(pipe: Connection, todo: Iterator[tuple[int, Path]], busy: dict[Connection, int]) -> None:
    for number, path in todo:
        busy[pipe] = number
        pipe.send(path)
        return


def _serve(pipe: Connection, one: Callable[[Path], Outcome]) -> None:
    """In each process. Ctrl-C is the parent's, which then tells us to end; so does the kernel if the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(one(pipe.recv()))
