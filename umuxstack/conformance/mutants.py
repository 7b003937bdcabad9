"""One behaviour of the stack flipped at a time: which scripts notice? A mutant that survives is a missing script.

Each mutant is a patch of one attribute or a change of every personality, undone afterwards. It runs in this process,
script by script, until the first notices; a scripts' own policy commands still apply on top.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs

from umuxstack.conformance import runner
from umuxstack.conformance.outcome import Status
from umuxstack.core import personality as personalities
from umuxstack.core.listen import listen_u
from umuxstack.core.session.receive_buffer import Assembler
from umuxstack.core.tcp import connection, forward_rto, quiet, recovery, send, tcb
from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.tcp.emit import Emitter
from umuxstack.core.units import NEVER, Micros, millis, minutes, seconds
from umuxstack.core.wire import tcp_options

Patch = Callable[[], contextlib.AbstractContextManager[Any]]


@attrs.frozen(slots=True)
class Mutant:
    name: str
    what: str  # what is flipped
    apply: Patch
    hint: str = ""  # a word in the paths of the scripts that should notice: they are tried first


@attrs.frozen(slots=True)
class Verdict:
    mutant: Mutant
    noticed_by: str  # a script's path; empty: it survived


@contextlib.contextmanager
def _policy(**changes: object) -> Iterator[None]:
    """Every personality with these fields changed."""
    flipped = {name: attrs.evolve(p, **changes) for name, p in personalities.PERSONALITIES.items()}  # type: ignore[arg-type]
    with mock.patch.object(personalities, "PERSONALITIES", flipped):
        yield


def _set(owner: object, name: str, value: object) -> Patch:
    return lambda: mock.patch.object(owner, name, value)


def _flip(**changes: object) -> Patch:
    return lambda: _policy(**changes)


_ACCEPTABLE = connection.Connection._acceptable


def _acceptable_always(self: Any, seq: int, length: int, nxt: int, edge: int) -> bool:
    return True


def _acceptable_one_off(self: Any, seq: int, length: int, nxt: int, edge: int) -> bool:
    return _ACCEPTABLE(self, seq, length, nxt - 1, edge)


def _reset_any(self: Any, seq: int, nxt: int, now: Micros) -> None:
    connection_reset(self, nxt, nxt, now)


connection_reset = connection.Connection._reset_received


def _no_challenge(self: Any, now: Micros) -> bool:
    return False


def _always_challenge(self: Any, now: Micros) -> bool:
    return True


_COUNT = recovery.Recovery._count_duplicates


def _eager(self: Any, loss: Any, ack: int, una: int, duplicate: bool, delivered: int) -> None:
    _COUNT(self, loss, ack, una, duplicate, delivered)
    if duplicate and loss.dup_acks == 2 and loss.phase == 0:
        self._mark_first(loss)


def _deaf(self: Any, loss: Any, ack: int, una: int, duplicate: bool, delivered: int) -> None:
    return None


_PARSE = tcp_options.parse


_FORWARD = forward_rto.ForwardRto._forward


def _all_was_late(self: Any, loss: Any, *told: Any) -> bool:
    if loss.forward == forward_rto.ADVANCED:
        loss.forward = forward_rto.OFF
        self._undo(loss, told[-1])
        return False
    return bool(_FORWARD(self, loss, *told))


def _parse_without(**wrong: object) -> Callable[..., Any]:
    def parse(buf: bytes, start: int, end: int) -> tcp_options.Options:
        options = _PARSE(buf, start, end)
        for name, value in wrong.items():
            setattr(options, name, value)
        return options

    return parse


def _oldest_first(self: Assembler, most: int) -> list[tuple[int, int]]:
    return [(start, end) for start, end, _ in self.ranges][:most]


def _no_growth(self: Any, acked: int) -> int:
    return 0


def _nothing(self: Any, *args: Any, **kwargs: Any) -> None:
    return None


def _give_up_probing(self: Any, now: Micros) -> None:
    self.rto_at = NEVER


def _full_window(self: Emitter) -> int:
    return 65535


def _believe_any(self: Any, mtu: int, now: Micros) -> None:
    self.ctx.pmtu._known[self.pair[:16]] = (mtu, Micros(now + minutes(10)))
    self._set_mss(now)


MUTANTS: Final = (
    Mutant(
        "duplicate-threshold-2",
        "two duplicate ACKs retransmit",
        _set(recovery.Recovery, "_count_duplicates", _eager),
        "rfc5681",
    ),
    Mutant(
        "duplicates-ignored",
        "duplicate ACKs never retransmit",
        _set(recovery.Recovery, "_count_duplicates", _deaf),
        "rfc5681",
    ),
    Mutant("no-forward-rto", "RFC 5682 is off", _flip(forward_rto=False), "rfc5682"),
    Mutant(
        "forward-rto-believes-duplicates",
        "any acknowledgement behind the new segments says that all was only late",
        _set(forward_rto.ForwardRto, "_forward", _all_was_late),
        "rfc5682",
    ),
    Mutant("rto-minimum", "RTO may be 100 ms", _flip(rto_min=millis(100), rto_initial=millis(500)), "rfc6298"),
    Mutant("rto-initial-3s", "the first RTO is 3 s", _flip(rto_initial=seconds(3)), "retransmits"),
    Mutant("no-tail-loss-probe", "RFC 8985 7 is off", _flip(tail_loss_probe=False), "rfc8985"),
    Mutant(
        "window-check-off",
        "every sequence number is acceptable",
        _set(connection.Connection, "_acceptable", _acceptable_always),
        "established",
    ),
    Mutant(
        "window-check-one-off",
        "the window begins one number early",
        _set(connection.Connection, "_acceptable", _acceptable_one_off),
        "established",
    ),
    Mutant(
        "rst-anywhere-in-the-window",
        "RFC 5961 3.2 is off",
        _set(connection.Connection, "_reset_received", _reset_any),
        "established",
    ),
    Mutant(
        "no-challenge-acks",
        "challenge ACKs are never sent",
        _set(connection.Connection, "_may_challenge", _no_challenge),
        "established",
    ),
    Mutant(
        "unlimited-challenge-acks",
        "the limit of RFC 5961 7 is off",
        _set(connection.Connection, "_may_challenge", _always_challenge),
        "rfc5961",
    ),
    Mutant("delayed-ack-1s", "delayed ACKs wait for 1 s", _flip(delayed_ack=seconds(1)), "ack"),
    Mutant("delayed-ack-0", "every segment is acknowledged at once", _flip(delayed_ack=Micros(0)), "ack"),
    Mutant("paws-off", "old timestamps are taken", _set(connection, "MASK", 0x7FFFFFFF), "rfc7323"),
    Mutant(
        "paws-never-ages", "an old timestamp counts for ever", _set(connection, "_PAWS_IDLE", seconds(10**9)), "rfc7323"
    ),
    Mutant(
        "missing-timestamps-taken",
        "a segment without its timestamp is taken",
        _flip(tolerate_missing_timestamps=True),
        "rfc7323",
    ),
    Mutant("r1-never-told", "nobody hears of the third retransmission", _flip(report_after=0), "rfc6298"),
    Mutant("time-wait-10s", "TIME-WAIT lasts 10 s", _flip(time_wait=seconds(10)), "time-wait"),
    Mutant("time-wait-runs-on", "a FIN does not restart it", _set(quiet.Quiet, "_restart", _nothing), "time-wait"),
    Mutant("time-wait-takes-any-syn", "RFC 6191 is off", _set(quiet.Quiet, "_is_newer", lambda *a: True), "time-wait"),
    Mutant("nagle-off", "small writes go at once", _flip(nodelay=True), "window"),
    Mutant("initial-window-4", "the initial window is 4", _flip(initial_window=4), "rfc5681"),
    Mutant("initial-window-20", "the initial window is 20", _flip(initial_window=20), "rfc5681"),
    Mutant(
        "no-slow-start",
        "the window does not grow in slow start",
        _set(CongestionControl, "slow_start", _no_growth),
        "rfc5681",
    ),
    Mutant(
        "no-reduction-on-loss",
        "a loss does not reduce the window",
        _set(CongestionControl, "on_loss", _nothing),
        "rfc5681",
    ),
    Mutant(
        "no-collapse-on-timeout",
        "a timeout does not reduce the window",
        _set(CongestionControl, "on_rto", _nothing),
        "rfc5681",
    ),
    Mutant(
        "no-reaction-to-ece", "ECE does not reduce the window", _set(CongestionControl, "on_ecn", _nothing), "rfc3168"
    ),
    Mutant(
        "sack-oldest-first",
        "SACK blocks come in the order of sequence",
        _set(Assembler, "blocks", _oldest_first),
        "rfc2018",
    ),
    Mutant(
        "peer-mss-ignored", "the peer's MSS is not read", _set(tcp_options, "parse", _parse_without(mss=0)), "options"
    ),
    Mutant(
        "peer-scale-ignored",
        "the peer's window scale is not used",
        _set(tcp_options, "parse", _parse_without(window_scale=0)),
        "rfc7323",
    ),
    Mutant("default-mss-536", "without an MSS option 536 is used", _set(tcb, "DEFAULT_MSS", 536), "options"),
    Mutant(
        "window-never-closes", "the window field is always 65535", _set(Emitter, "_window", _full_window), "rfc7323"
    ),
    Mutant(
        "persist-never-probes",
        "a shut window is never probed",
        _set(send.SendHalf, "_persist", _give_up_probing),
        "persist",
    ),
    Mutant("keepalive-never-probes", "no keep-alives", _set(connection.Connection, "_aux", _nothing), "keepalive"),
    Mutant("keepalive-by-default", "keep-alive is on unasked", _flip(keepalive=True), "keepalive"),
    Mutant(
        "icmp-mtu-unchecked",
        "any MTU in a packet-too-big is believed",
        _set(connection.Connection, "_path_shrank", _believe_any),
        "rfc8201",
    ),
    Mutant("icmp-aborts-nothing", "hard errors do not end a connection attempt", _flip(icmp_aborts=False), "syn-sent"),
    Mutant("soft-errors-abort", "soft errors end a connection attempt", _flip(soft_errors_abort=True), "syn-sent"),
    Mutant("syn-gives-up-early", "a SYN is sent three times only", _flip(syn_retries=2), "syn-sent"),
    Mutant(
        "das-for-everybody",
        "the peer that DAS names is not checked",
        _set(listen_u, "within", lambda *a: True),
        "unified",
    ),
    Mutant("fin-wait-2-forever", "an orphan stays in FIN-WAIT-2", _flip(fin_wait_2=seconds(10**6)), "close"),
)


def judge(mutant: Mutant, files: Sequence[Path], settings: runner.Settings) -> Verdict:
    """Runs scripts under `mutant` until one that passes without it does not."""
    likely = [path for path in files if mutant.hint and mutant.hint in str(path)]
    rest = [path for path in files if path not in set(likely)]
    with mutant.apply():
        for path in [*likely, *rest]:
            if runner.run_file(path, settings).status is Status.FAILED:
                return Verdict(mutant, str(path))
    return Verdict(mutant, "")


def report(files: Sequence[Path], say: Callable[..., None]) -> bool:
    """Judges every mutant, saying who noticed. True if none survived."""
    settings = runner.Settings()
    healthy = [path for path in files if runner.run_file(path, settings).passed]
    say(f"{len(healthy)} scripts pass without mutants")
    survivors = 0
    for mutant in MUTANTS:
        verdict = judge(mutant, healthy, settings)
        survivors += not verdict.noticed_by
        fate = "noticed " if verdict.noticed_by else "SURVIVED"
        say(f"{fate} {mutant.name:28} {mutant.what}: {verdict.noticed_by or '-'}")
    say(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} noticed")
    return survivors == 0
