"""One behaviour of the stack flipped at a time: which scripts notice? A mutant that survives is a missing script.

Each mutant is a patch of one attribute or a change of every personality, undone afterwards. It runs in this process,
script by script, until the first notices; a scripts' own policy commands still apply on top.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from umuxstack.conformance import flips, runner
from umuxstack.conformance.flips import Patch, flip, nothing, set_
from umuxstack.conformance.outcome import Status
from umuxstack.core.listen import cookies, listen_u
from umuxstack.core.network.pmtu import PathMtu
from umuxstack.core.session.receive_buffer import Assembler
from umuxstack.core.session.send_buffer import SendBuffer
from umuxstack.core.tcp import connection, forward_rto, quiet, recovery, send, session, tcb
from umuxstack.core.tcp.congestion import cubic
from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.tcp.congestion.cubic import Cubic
from umuxstack.core.tcp.emit import Emitter
from umuxstack.core.tcp.opening import Opening
from umuxstack.core.tcp.receive import ReceiveHalf
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros, millis, seconds
from umuxstack.core.wire import tcp_options


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


MUTANTS: Final = (
    Mutant(
        "duplicate-threshold-2",
        "two duplicate ACKs retransmit",
        set_(recovery.Recovery, "_count_duplicates", flips.eager),
        "rfc5681",
    ),
    Mutant(
        "duplicates-ignored",
        "duplicate ACKs never retransmit",
        set_(recovery.Recovery, "_count_duplicates", flips.deaf),
        "rfc5681",
    ),
    Mutant("no-forward-rto", "RFC 5682 is off", flip(forward_rto=False), "rfc5682"),
    Mutant(
        "forward-rto-believes-duplicates",
        "any acknowledgement behind the new segments says that all was only late",
        set_(forward_rto.ForwardRto, "_forward", flips.all_was_late),
        "rfc5682",
    ),
    Mutant("rto-minimum", "RTO may be 100 ms", flip(rto_min=millis(100), rto_initial=millis(500)), "rfc6298"),
    Mutant("rto-initial-3s", "the first RTO is 3 s", flip(rto_initial=seconds(3)), "retransmits"),
    Mutant("no-tail-loss-probe", "RFC 8985 7 is off", flip(tail_loss_probe=False), "rfc8985"),
    Mutant(
        "window-check-off",
        "every sequence number is acceptable",
        set_(connection.Connection, "_acceptable", flips.acceptable_always),
        "established",
    ),
    Mutant(
        "window-check-one-off",
        "the window begins one number early",
        set_(connection.Connection, "_acceptable", flips.acceptable_one_off),
        "established",
    ),
    Mutant(
        "rst-anywhere-in-the-window",
        "RFC 5961 3.2 is off",
        set_(connection.Connection, "_reset_received", flips.reset_any),
        "established",
    ),
    Mutant(
        "no-challenge-acks",
        "challenge ACKs are never sent",
        set_(connection.Connection, "_may_challenge", flips.no_challenge),
        "established",
    ),
    Mutant(
        "unlimited-challenge-acks",
        "the limit of RFC 5961 7 is off",
        set_(connection.Connection, "_may_challenge", flips.always_challenge),
        "rfc5961",
    ),
    Mutant("delayed-ack-1s", "delayed ACKs wait for 1 s", flip(delayed_ack=seconds(1)), "ack"),
    Mutant("delayed-ack-0", "every segment is acknowledged at once", flip(delayed_ack=Micros(0)), "ack"),
    Mutant("paws-off", "old timestamps are taken", set_(connection, "MASK", 0x7FFFFFFF), "rfc7323"),
    Mutant(
        "paws-never-ages", "an old timestamp counts for ever", set_(connection, "_PAWS_IDLE", seconds(10**9)), "rfc7323"
    ),
    Mutant(
        "missing-timestamps-taken",
        "a segment without its timestamp is taken",
        flip(tolerate_missing_timestamps=True),
        "rfc7323",
    ),
    Mutant("r1-never-told", "nobody hears of the third retransmission", flip(report_after=0), "rfc6298"),
    Mutant("time-wait-10s", "TIME-WAIT lasts 10 s", flip(time_wait=seconds(10)), "time-wait"),
    Mutant("time-wait-runs-on", "a FIN does not restart it", set_(quiet.Quiet, "_restart", nothing), "time-wait"),
    Mutant("time-wait-takes-any-syn", "RFC 6191 is off", set_(quiet.Quiet, "_is_newer", lambda *a: True), "time-wait"),
    Mutant("nagle-off", "small writes go at once", flip(nodelay=True), "window"),
    Mutant("initial-window-4", "the initial window is 4", flip(initial_window=4), "rfc5681"),
    Mutant("initial-window-20", "the initial window is 20", flip(initial_window=20), "rfc5681"),
    Mutant(
        "no-slow-start",
        "the window does not grow in slow start",
        set_(CongestionControl, "slow_start", flips.no_growth),
        "rfc5681",
    ),
    Mutant(
        "no-reduction-on-loss",
        "a loss does not reduce the window",
        set_(CongestionControl, "on_loss", nothing),
        "rfc5681",
    ),
    Mutant(
        "no-collapse-on-timeout",
        "a timeout does not reduce the window",
        set_(CongestionControl, "on_rto", nothing),
        "rfc5681",
    ),
    Mutant(
        "no-reaction-to-ece", "ECE does not reduce the window", set_(CongestionControl, "on_ecn", nothing), "rfc3168"
    ),
    Mutant(
        "sack-oldest-first",
        "SACK blocks come in the order of sequence",
        set_(Assembler, "blocks", flips.oldest_first),
        "rfc2018",
    ),
    Mutant(
        "peer-mss-ignored",
        "the peer's MSS is not read",
        set_(tcp_options, "parse", flips.parse_without(mss=0)),
        "options",
    ),
    Mutant(
        "peer-scale-ignored",
        "the peer's window scale is not used",
        set_(tcp_options, "parse", flips.parse_without(window_scale=0)),
        "rfc7323",
    ),
    Mutant("default-mss-536", "without an MSS option 536 is used", set_(tcb, "DEFAULT_MSS", 536), "options"),
    Mutant(
        "window-never-closes",
        "the window field is always 65535",
        set_(Emitter, "_window", flips.full_window),
        "rfc7323",
    ),
    Mutant(
        "persist-never-probes",
        "a shut window is never probed",
        set_(send.SendHalf, "_persist", flips.give_up_probing),
        "persist",
    ),
    Mutant("keepalive-never-probes", "no keep-alives", set_(connection.Connection, "_aux", nothing), "keepalive"),
    Mutant("keepalive-by-default", "keep-alive is on unasked", flip(keepalive=True), "keepalive"),
    Mutant(
        "icmp-mtu-unchecked",
        "any MTU in a packet-too-big is believed",
        set_(connection.Connection, "_path_shrank", flips.believe_any),
        "rfc8201",
    ),
    Mutant("icmp-aborts-nothing", "hard errors do not end a connection attempt", flip(icmp_aborts=False), "syn-sent"),
    Mutant("soft-errors-abort", "soft errors end a connection attempt", flip(soft_errors_abort=True), "syn-sent"),
    Mutant("syn-gives-up-early", "a SYN is sent three times only", flip(syn_retries=2), "syn-sent"),
    Mutant(
        "das-for-everybody",
        "the peer that DAS names is not checked",
        set_(listen_u, "within", lambda *a: True),
        "unified",
    ),
    Mutant("fin-wait-2-forever", "an orphan stays in FIN-WAIT-2", flip(fin_wait_2=seconds(10**6)), "close"),
    Mutant(
        "needless-repairs-reduce",
        "what was needless is not undone",
        set_(recovery.Recovery, "_undo", nothing),
        "rfc3522",
    ),
    Mutant(
        "probe-hides-a-loss", "RFC 8985 7.4.2 is off", set_(recovery.Recovery, "_probe_answered", nothing), "rfc8985"
    ),
    Mutant(
        "black-hole-swallows",
        "full segments are tried for ever",
        set_(recovery.Recovery, "_black_hole", nothing),
        "rfc6298",
    ),
    Mutant("stale-window", "the window outlives a silence", flip(restart_after_idle=False), "rfc5681"),
    Mutant(
        "threshold-of-one-segment",
        "ssthresh may be one segment",
        set_(CongestionControl, "_reduce", flips.threshold_of_one),
        "rfc5681",
    ),
    Mutant(
        "syn-again-is-measured",
        "Karn's rule is off for handshakes",
        set_(Opening, "_measure_handshake", flips.measure_any_answer),
        "rfc6298",
    ),
    Mutant("cubic-halves", "CUBIC's beta is 0.5", set_(Cubic, "beta", 0.5), "rfc9438"),
    Mutant("no-hystart", "RFC 9406 is off", set_(Cubic, "hystart", False), "rfc9406"),
    Mutant("cookies-unredeemed", "a SYN cookie opens nothing", set_(cookies.CookieJar, "redeem", nothing), "rfc4987"),
    Mutant(
        "time-wait-without-timestamps",
        "RFC 6191 goes by numbers alone",
        set_(quiet.Quiet, "_is_newer", flips.newer_by_number),
        "time-wait",
    ),
    Mutant(
        "narrow-for-one",
        "a path is learnt for one address of a /64",
        set_(PathMtu, "learn", flips.learn_for_one),
        "rfc8201",
    ),
    Mutant(
        "narrow-for-ever",
        "what was learnt of a path never grows old",
        set_(PathMtu, "learn", flips.learn_for_ever),
        "rfc8201",
    ),
    Mutant(
        "window-opens-in-silence",
        "reading sends no window update",
        set_(ReceiveHalf, "_was_read", flips.read_in_silence),
        "window",
    ),
    Mutant(
        "sleep-forgets-the-scale",
        "who slept takes windows unscaled",
        set_(TcpSession, "_unpack", flips.unpack_unscaled),
        "slept",
    ),
    Mutant(
        "any-window-update",
        "a segment that was overtaken brings its window back",
        set_(connection.Connection, "_established_ack", flips.any_update),
        "window",
    ),
    Mutant("sleepers-challenge", "who slept challenges without a limit", set_(session, "CHALLENGE_BURST", 0), "sleep"),
    Mutant(
        "reports-widen-nothing",
        "a D-SACK does not widen RACK's window",
        set_(recovery.Recovery, "_duplicate_reported", flips.report_unheard),
        "rfc8985",
    ),
    Mutant("wide-for-ever", "and what it widened stays wide", set_(recovery, "_REO_PERSIST", 10**6), "rfc8985"),
    Mutant("no-fast-convergence", "RFC 9438 4.7 is off", set_(Cubic, "fast_convergence", False), "rfc9438"),
    Mutant("cubic-twice", "CUBIC's C is 0.8", set_(cubic, "SCALE_UP", 8), "rfc9438"),
    Mutant("given-up-with-a-word", "who is given up is told by RST", flip(resets_given_up=2), "gives-up"),
    Mutant(
        "urgent-comes-back",
        "what was taken out of band is read once more",
        set_(ReceiveHalf, "_urgent_received", flips.mark_moves),
        "urgent",
    ),
    Mutant(
        "other-octets", "what is sent again is other data", set_(SendBuffer, "slice", flips.other_octets), "rfc5681"
    ),
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
