"""A socket's error queue, as Linux's scripts read it: what was copied and need not be kept, and when bytes went out.

MSG_ZEROCOPY lets the stack read from the application's memory until all of it is acknowledged. Our sockets copy, which
Linux's do as well where they must, and say so: the notice has SO_EE_CODE_ZEROCOPY_COPIED. SO_TIMESTAMPING tells when
the last byte of a write was sent, and when it was acknowledged.
"""

import errno
import socket as stdlib
from typing import Final

import attrs

from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.symbols import ANY, OWN, Value
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Micros

ZEROCOPY: Final = (stdlib.SOL_SOCKET, OWN["SO_ZEROCOPY"])

_SCHEDULED: Final = OWN["SOF_TIMESTAMPING_TX_SCHED"]
_SENT: Final = OWN["SOF_TIMESTAMPING_TX_SOFTWARE"]
_ACKED: Final = OWN["SOF_TIMESTAMPING_TX_ACK"]
_TOLD: Final = OWN["SOF_TIMESTAMPING_SOFTWARE"]
_NUMBERED: Final = OWN["SOF_TIMESTAMPING_OPT_ID"]
_KNOWN: Final = _SCHEDULED | _SENT | _ACKED | _TOLD | _NUMBERED
_ON_SENDING: Final = ((_SCHEDULED, OWN["SCM_TSTAMP_SCHED"]), (_SENT, OWN["SCM_TSTAMP_SND"]))
_ON_ACKNOWLEDGEMENT: Final = ((_ACKED, OWN["SCM_TSTAMP_ACK"]),)
_RECVERR: Final = (OWN["CMSG_TYPE_RECVERR"], OWN["IP_RECVERR"], OWN["IPV6_RECVERR"])


@attrs.define(slots=True)
class Notice:
    """One message of the queue: the fields of sock_extended_err that differ."""

    origin: int
    code: int
    info: int
    data: int
    at: Micros | None = None  # with a timestamp

    def fields(self) -> dict[str, int]:
        number = 0 if self.at is None else errno.ENOMSG
        return {
            "ee_errno": number,
            "ee_origin": self.origin,
            "ee_type": 0,
            "ee_code": self.code,
            "ee_info": self.info,
            "ee_data": self.data,
            "ee_pad": 0,
        }


@attrs.define(slots=True)
class _Write:
    """What is still to be told of one write."""

    end: int  # of its bytes, as a sequence number that does not wrap
    key: int = -1  # MSG_ZEROCOPY: its number
    stamps: int = 0
    data: int = 0  # of its timestamps
    sent: bool = False


@attrs.define(slots=True)
class Notices:
    """One socket's."""

    queue: list[Notice] = attrs.field(factory=list)
    told: int = 0  # how many ever were
    stamps: int = 0  # SO_TIMESTAMPING
    _base: int = 0  # SOF_TIMESTAMPING_OPT_ID counts from here
    _copies: int = 0
    _writes: list[_Write] = attrs.field(factory=list)

    def set_stamps(self, session: TcpSession | None, flags: int) -> None:
        """Raises UnsupportedConstruct."""
        if flags & ~_KNOWN or (flags and (session is None or not flags & _TOLD)):
            raise UnsupportedConstruct(f"SO_TIMESTAMPING {flags:#x}")
        if flags & _NUMBERED and not self.stamps & _NUMBERED and session is not None:
            self._base = session.tcb.snd_una
        self.stamps = flags

    def wrote(self, session: TcpSession, *, copies: bool) -> None:
        """A write has been taken; `copies`: it asked for a notice (MSG_ZEROCOPY)."""
        if session.ended or session.asleep:
            return
        tcb = session.tcb
        end = tcb.snd_nxt if tcb.tx is None else max(tcb.tx.end, tcb.snd_nxt)
        stamps = self.stamps & (_SCHEDULED | _SENT | _ACKED)
        data = end - 1 - self._base if self.stamps & _NUMBERED else 0
        if copies or stamps:
            self._writes.append(_Write(end, self._copies if copies else -1, stamps, data))
            self._copies += copies

    def look(self, session: TcpSession, now: Micros) -> None:
        """What can be told by now."""
        over = session.ended or session.asleep
        una, nxt = (NEVER, NEVER) if over else (session.tcb.snd_una, session.tcb.snd_nxt)
        for write in self._writes:
            if not write.sent and write.end <= nxt:
                write.sent = True
                self._stamp(write, _ON_SENDING, now)
            if write.end <= una:
                self._stamp(write, _ON_ACKNOWLEDGEMENT, now)
                if write.key >= 0:
                    self._copied(write.key)
        self._writes = [write for write in self._writes if write.end > una]

    def _stamp(self, write: _Write, kinds: tuple[tuple[int, int], ...], now: Micros) -> None:
        for flag, kind in kinds:
            if write.stamps & flag:
                self._tell(Notice(OWN["SO_EE_ORIGIN_TIMESTAMPING"], 0, kind, write.data, now))

    def _copied(self, key: int) -> None:
        last = self.queue[-1] if self.queue else None
        if last is not None and last.at is None and last.data + 1 == key:
            last.data = key  # one notice for a range of writes
            self.told += 1
            return
        self._tell(Notice(OWN["SO_EE_ORIGIN_ZEROCOPY"], OWN["SO_EE_CODE_ZEROCOPY_COPIED"], key, key))

    def _tell(self, notice: Notice) -> None:
        self.queue.append(notice)
        self.told += 1


def check(notice: Notice, message: dict[str, Value], began: Micros, tolerance: Micros) -> None:
    """Compares what recvmsg returns with what the script says. Raises Mismatch, UnsupportedConstruct."""
    flags = stdlib.MSG_ERRQUEUE | (0 if notice.at is None else stdlib.MSG_TRUNC)
    if message.get("msg_flags", ANY) not in (ANY, flags):
        raise Mismatch(f"recvmsg: msg_flags are {flags:#x}, expected {message['msg_flags']!r}")
    control = message.get("msg_control", ANY)
    if control is ANY:
        return
    entries = control if isinstance(control, list) else [control]
    kinds = [entry.get("cmsg_type") if isinstance(entry, dict) else None for entry in entries]
    expected = [*([] if notice.at is None else [OWN["SCM_TIMESTAMPING"]]), _RECVERR[0]]
    if [_RECVERR[0] if kind in _RECVERR else kind for kind in kinds] != expected:
        raise Mismatch("recvmsg: the control messages are of other types", [f"{len(expected)} of them"])
    for entry in entries:
        assert isinstance(entry, dict)
        data = entry.get("cmsg_data", ANY)
        if not isinstance(data, dict):
            continue
        if entry.get("cmsg_type") == OWN["SCM_TIMESTAMPING"]:
            _check_time(notice, data, began, tolerance)
            continue
        actual = notice.fields()
        for name, value in data.items():
            if name not in actual:
                raise UnsupportedConstruct(name)
            if value is not ANY and value != actual[name]:
                raise Mismatch(f"recvmsg: {name} is {actual[name]}, expected {value!r}")


def _check_time(notice: Notice, data: dict[str, Value], began: Micros, tolerance: Micros) -> None:
    seconds, nanoseconds = data.get("scm_sec", ANY), data.get("scm_nsec", ANY)
    if notice.at is None or not isinstance(seconds, int) or not isinstance(nanoseconds, int):
        return
    actual, wanted = notice.at - began, seconds * 1_000_000 + nanoseconds // 1000
    if abs(actual - wanted) > tolerance:
        raise Mismatch(f"recvmsg: the timestamp is {actual / 1e6:.6f} s, expected {wanted / 1e6:.6f} s")
