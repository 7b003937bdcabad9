"""An event log per TCP session, in qlog's style (draft-ietf-quic-qlog-main-schema), as JSON text sequences.

QUIC's `recovery:*` and `connectivity:*` names where they fit TCP, `umux:*` for the
life of addresses. A file is named after the session's lease, never after an
address (UM-34); sessions that share one have a number behind it. `umux plot` draws
them. What is written is what `Stack.watch` saw.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from umuxstack.core.address.lease import EA, ChosenLease
from umuxstack.core.events import Event
from umuxstack.core.session.context import TraceLine
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.congestion.base import UNLIMITED
from umuxstack.core.units import NEVER, Micros

logger = logging.getLogger("umuxstack")

RECORD_SEPARATOR: Final = "\x1e"
OPEN_FILES: Final = 256  # at most; the one longest silent is closed, and reopened when it speaks again
_HALF_OPEN: Final = "SYN-RECEIVED"
_LAST_STATES: Final = ("CLOSED", "TIME-WAIT")


class QlogWriter:
    """Writes the logs of one stack's sessions into a folder.

    Call `drain` after each turn of the stack (the driver does, after `follow`), and `close` at the end.
    Files are made with the first thing that a session does; where many meet at one address, once its handshake goes on.
    Raises OSError when the folder cannot be written.
    """

    def __init__(self, stack: Stack, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack = stack
        self._sink: list[TraceLine] = []
        self._files: dict[str, IO[str]] = {}
        self._known: set[str] = set()
        self._states: dict[str, str] = {}
        self._phases: dict[str, str] = {}
        # Of sessions that share an address, known by lease, pair and ports:
        self._half_open: dict[tuple[object, ...], Micros] = {}  # since when; those of a flood get no file
        self._numbers: dict[tuple[object, ...], int] = {}
        self._numbered = 0
        self._closed = False
        self.error: OSError | None = None  # why nothing is written any more
        stack.watch(self._sink)

    def drain(self) -> None:
        """Writes what has gathered. A full disk ends the log, not the stack."""
        if not self._sink or self._closed:
            self._sink.clear()
            return
        lines = self._sink[:]
        self._sink.clear()
        try:
            for time, kind, session, values in lines:
                self._line(time, kind, session, values)
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Ends all logs."""
        self._closed = True
        self._stack.watch(None)
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:
                self._fail(error)
        self._files.clear()

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            logger.warning("umuxstack: the logs of sessions ended: %s", error)
        if not self._closed:
            self.close()

    def note(self, event: Event) -> None:
        """A moment in the life of a lease, into `leases.qlog`."""
        if self._closed:
            return
        data: dict[str, object] = {"lease": event.name}
        if event.reason:
            data["reason"] = event.reason.name.lower()
        if event.label:
            data["label"] = event.label
        try:
            self._event("leases", event.time, f"umux:{event.kind.value}", data, lambda: {"type": "network"})
        except OSError as error:
            self._fail(error)

    def _line(self, time: Micros, kind: str, session: Any, values: tuple[Any, ...]) -> None:
        lease = session.lease
        name = lease.name
        if lease.grain != "session" or isinstance(lease, ChosenLease):  # sessions at one address: tell them apart
            who = name, session.pair, session.local_port, session.remote_port
            number = self._numbers.get(who)
            state = values[0] if kind == "state" else ""
            if number is None:
                if state == _HALF_OPEN and who not in self._half_open:
                    self._half_open[who] = time
                    return
                since = self._half_open.pop(who, NEVER)
                if since != NEVER and state in _LAST_STATES:
                    return
                number = self._numbers[who] = self._numbered = self._numbered + 1
                if since != NEVER:
                    self._state(f"{name}.{number}", session, since, _HALF_OPEN)
            name = f"{name}.{number}"
            if state in _LAST_STATES:
                del self._numbers[who]
        if kind == "sent":
            start, end, again = values
            data: dict[str, object] = {"offset": start, "end": end, "length": end - start}
            if again:
                data["retransmission"] = True
            self._session(name, session, time, "transport:packet_sent", data)
        elif kind == "lost":
            start, end = values
            self._session(name, session, time, "recovery:packet_lost", {"offset": start, "end": end})
        elif kind == "state":
            self._state(name, session, time, values[0])
        elif kind == "acked":
            self._metrics(name, session, time, values)

    def _state(self, name: str, session: Any, time: Micros, new: str) -> None:
        old = self._states.get(name)
        self._states[name] = new
        data: dict[str, object] = {"new": new} if old is None else {"old": old, "new": new}
        self._session(name, session, time, "connectivity:connection_state_updated", data)
        if new in _LAST_STATES:
            self._forget(name)

    def _forget(self, name: str) -> None:
        """The session is over: a stack that runs for months keeps nothing of it but the file's name."""
        self._states.pop(name, None)
        self._phases.pop(name, None)
        self._files.pop(name).close()

    def _metrics(self, name: str, session: Any, time: Micros, values: tuple[Any, ...]) -> None:
        acked, cwnd, ssthresh, in_flight, srtt, rttvar, rtt, phase = values
        data: dict[str, object] = {
            "acknowledged": acked,
            "congestion_window": cwnd,
            "bytes_in_flight": in_flight,
            "smoothed_rtt": srtt / 1000,
            "rtt_variance": rttvar / 1000,
        }
        if ssthresh < UNLIMITED:
            data["ssthresh"] = ssthresh
        if rtt:
            data["latest_rtt"] = rtt / 1000
        self._session(name, session, time, "recovery:metrics_updated", data)
        old = self._phases.get(name, "open")
        if phase != old:
            self._phases[name] = phase
            self._session(name, session, time, "recovery:congestion_state_updated", {"old": old, "new": phase})

    def _session(self, name: str, session: Any, time: Micros, event: str, data: dict[str, object]) -> None:
        self._event(name, time, event, data, lambda: _vantage(session))

    def _event(
        self, name: str, time: Micros, event: str, data: dict[str, object], vantage: Callable[[], dict[str, object]]
    ) -> None:
        file = self._files.pop(name, None)
        if file is None:
            file = self._open(name, vantage)
        self._files[name] = file  # youngest last
        _write(file, {"time": time / 1000, "name": event, "data": data})

    def _open(self, name: str, vantage: Callable[[], dict[str, object]]) -> IO[str]:
        if len(self._files) >= OPEN_FILES:
            self._files.pop(next(iter(self._files))).close()
        path = self.folder / f"{_file_name(name)}.qlog"
        new = name not in self._known
        self._known.add(name)
        file = open(path, "w" if new else "a", encoding="utf-8")  # noqa: SIM115  kept open, closed by close()
        if new:
            trace = {"vantage_point": vantage(), "common_fields": {"time_format": "relative", "reference_time": 0}}
            _write(file, {"qlog_version": "0.3", "qlog_format": "JSON-SEQ", "title": name, "trace": trace})
        return file


def _vantage(session: Any) -> dict[str, object]:
    lease = session.lease
    return {"name": lease.name, "type": "client" if lease.kind == EA else "server"}


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in name)[:120]


def _write(file: IO[str], record: dict[str, object]) -> None:
    # RFC 7464: each text is preceded by a record separator and followed by a line feed.
    file.write(f"{RECORD_SEPARATOR}{json.dumps(record, separators=(',', ':'))}\n")


def read(path: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A log's header and its events. A last event that was cut off is left out. Raises OSError and ValueError."""
    with open(path, encoding="utf-8", errors="replace") as file:  # what is no text is no JSON either
        texts = file.read().split(RECORD_SEPARATOR)[1:]
    records: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            records.append(json.loads(text))
        except ValueError:
            if number == len(texts) and number > 1:
                break
            raise ValueError(f"{path}: record {number} is not JSON") from None
    if not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} is no qlog: its records are no JSON objects")
    if not records or records[0].get("qlog_format") != "JSON-SEQ":
        raise ValueError(f"{path} is no qlog of the JSON-SEQ kind")
    return records[0], records[1:]
