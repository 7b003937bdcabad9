"""What the mutants flip: one behaviour each, by a patch of one attribute or a change of every personality."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import attrs

from umuxstack.core import personality as personalities
from umuxstack.core.network.pmtu import PathMtu
from umuxstack.core.session.receive_buffer import Assembler
from umuxstack.core.session.send_buffer import SendBuffer
from umuxstack.core.tcp import connection, forward_rto, quiet, recovery
from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.tcp.emit import Emitter
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.tcp.tcb import Urgent
from umuxstack.core.units import NEVER, Micros, minutes, seconds
from umuxstack.core.wire import tcp_options

Patch = Callable[[], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def policy(**changes: object) -> Iterator[None]:
    """Every personality with these fields changed."""
    flipped = {name: attrs.evolve(p, **changes) for name, p in personalities.PERSONALITIES.items()}  # type: ignore[arg-type]
    with mock.patch.object(personalities, "PERSONALITIES", flipped):
        yield


def set_(owner: object, name: str, value: object) -> Patch:
    return lambda: mock.patch.object(owner, name, value)


def flip(**changes: object) -> Patch:
    return lambda: policy(**changes)


_ACCEPTABLE = connection.Connection._acceptable


def acceptable_always(self: Any, seq: int, length: int, nxt: int, edge: int) -> bool:
    return True


def acceptable_one_off(self: Any, seq: int, length: int, nxt: int, edge: int) -> bool:
    return _ACCEPTABLE(self, seq, length, nxt - 1, edge)


def reset_any(self: Any, seq: int, nxt: int, now: Micros) -> None:
    connection_reset(self, nxt, nxt, now)


connection_reset = connection.Connection._reset_received


def no_challenge(self: Any, now: Micros) -> bool:
    return False


def always_challenge(self: Any, now: Micros) -> bool:
    return True


_COUNT = recovery.Recovery._count_duplicates


def eager(self: Any, loss: Any, ack: int, una: int, duplicate: bool, delivered: int) -> None:
    _COUNT(self, loss, ack, una, duplicate, delivered)
    if duplicate and loss.dup_acks == 2 and loss.phase == 0:
        self._mark_first(loss)


def deaf(self: Any, loss: Any, ack: int, una: int, duplicate: bool, delivered: int) -> None:
    return None


_PARSE = tcp_options.parse


_FORWARD = forward_rto.ForwardRto._forward


def all_was_late(self: Any, loss: Any, *told: Any) -> bool:
    if loss.forward == forward_rto.ADVANCED:
        loss.forward = forward_rto.OFF
        self._undo(loss, told[-1])
        return False
    return bool(_FORWARD(self, loss, *told))


def parse_without(**wrong: object) -> Callable[..., Any]:
    def parse(buf: bytes, start: int, end: int) -> tcp_options.Options:
        options = _PARSE(buf, start, end)
        for name, value in wrong.items():
            setattr(options, name, value)
        return options

    return parse


def oldest_first(self: Assembler, most: int) -> list[tuple[int, int]]:
    return [(start, end) for start, end, _ in self.ranges][:most]


def no_growth(self: Any, acked: int) -> int:
    return 0


def nothing(self: Any, *args: Any, **kwargs: Any) -> None:
    return None


def give_up_probing(self: Any, now: Micros) -> None:
    self.rto_at = NEVER


def full_window(self: Emitter) -> int:
    return 65535


def believe_any(self: Any, mtu: int, now: Micros) -> None:
    self.ctx.pmtu._known[self.pair[:16]] = (mtu, Micros(now + minutes(10)))
    self._set_mss(now)


_SLICE = SendBuffer.slice
_LEARN = PathMtu.learn
_NEWER = quiet.Quiet._is_newer
_UNPACK = TcpSession._unpack


_ESTABLISHED_ACK = connection.Connection._established_ack
_REPORTED = recovery.Recovery._duplicate_reported


def any_update(self: Any, seq: int, *told: Any) -> None:
    self.snd_wl1 = min(self.snd_wl1, seq)
    _ESTABLISHED_ACK(self, seq, *told)


def report_unheard(self: Any, loss: Any, block: tuple[int, int], now: Micros) -> None:
    _REPORTED(self, loss, block, now)
    loss.reo_mult = 1


def mark_moves(self: Any, pointer: int, now: Micros) -> None:
    if pointer > self.rcv_nxt - (0 if self.rx is None else self.rx.size):
        if self.urgent is None or pointer > self.urgent.pointer:
            self.urgent = Urgent(pointer)
            self._wake()


def other_octets(self: SendBuffer, start: int, end: int) -> Any:
    """What is sent again begins one octet late, and ends with one that nobody wrote."""
    piece = _SLICE(self, start, end)
    return bytes(piece)[1:] + b"\0" if start > self.start else piece


def learn_for_one(self: PathMtu, peer: bytes, mtu: int, now: Micros, *, whole_prefix: bool = True) -> int:
    return _LEARN(self, peer, mtu, now, whole_prefix=False)


def learn_for_ever(self: PathMtu, peer: bytes, mtu: int, now: Micros, *, whole_prefix: bool = True) -> int:
    return _LEARN(self, peer, mtu, Micros(now + seconds(10**6)), whole_prefix=whole_prefix)


def newer_by_number(self: Any, options: tcp_options.Options, *told: Any) -> bool:
    options.timestamp = False
    return _NEWER(self, options, *told)


def unpack_unscaled(self: TcpSession, packed: bytes) -> Any:
    tcb = _UNPACK(self, packed)
    tcb.snd_wscale = 0
    return tcb


def measure_any_answer(self: Any, tsecr: int, now: Micros) -> None:
    self._measured(max(now - self.drs_at, 1000))


def threshold_of_one(self: CongestionControl, in_flight: int, now: Micros) -> None:
    self.ssthresh = self.cwnd = max(self.decrease(in_flight, now), self.mss)


def read_in_silence(self: Any, count: int, now: Micros) -> None:
    self.ctx.memory -= count
