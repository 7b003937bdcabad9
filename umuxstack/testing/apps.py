"""Applications for the hosts of a `Network`: they act whenever their session's readiness changes.

received = server.serve(door, Transfer)
sent = client.attach(client.connect(ssa), Transfer(b"hello"))
"""

from collections.abc import Callable

from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.endpoint import Waitable
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros


class App:
    """Stands in an endpoint's `owner` slot."""

    def step(self, endpoint: Waitable, now: Micros) -> None:
        """The endpoint's readiness may have changed."""
        raise NotImplementedError


class Transfer(App):
    """Sends `data` (`repeat` times), receives all that comes, closes when both directions have finished.

    Its FIN follows the last byte; with `answering`, not before the peer's FIN. `received` holds what came, unless
    `keep` is false; `count` is its length.
    """

    def __init__(self, data: bytes = b"", *, repeat: int = 1, answering: bool = False, keep: bool = True) -> None:
        self.received = bytearray()
        self.count = 0
        self.accepted = 0  # bytes that the stack has taken from us
        self.done = False  # both directions finished, or the session ended
        self.finished_at = Micros(0)  # when the peer's FIN, or the session's end, was seen
        self._data = data
        self._total = len(data) * repeat
        self._answering = answering
        self._keep = keep
        self._shut = False

    def step(self, endpoint: Waitable, now: Micros) -> None:
        assert isinstance(endpoint, TcpSession)
        if self.done:
            return
        while chunk := endpoint.read_chunk(now):
            self.count += len(chunk)
            if self._keep:
                self.received += chunk
        if not endpoint.ended:
            self._write(endpoint, now)
        if endpoint.eof or endpoint.ended:
            self.finished_at = self.finished_at or now
            if endpoint.ended or self._shut:
                self.done = True
                endpoint.close(now)

    def _write(self, session: TcpSession, now: Micros) -> None:
        while self.accepted < self._total:
            at = self.accepted % len(self._data)
            taken = session.write(self._data[at:] if at else self._data, now)
            self.accepted += taken
            if not taken:
                return
        if session.established and not self._shut and (session.eof or not self._answering):
            self._shut = True
            session.shutdown(now)


class Echo(App):
    """Sends back what comes, and finishes after the peer."""

    def __init__(self) -> None:
        self._waiting = b""
        self.count = 0
        self.done = False

    def step(self, endpoint: Waitable, now: Micros) -> None:
        assert isinstance(endpoint, TcpSession)
        if self.done:
            return
        while not endpoint.ended and (self._waiting or (data := endpoint.read(1 << 16, now))):
            self._waiting = self._waiting or data
            taken = endpoint.write(self._waiting, now)
            self.count += taken
            self._waiting = self._waiting[taken:]
            if not taken:
                return
        if endpoint.eof or endpoint.ended:
            self.done = True
            endpoint.close(now)


class Acceptor(App):
    """Accepts everything, and gives each session an application made by `make`."""

    def __init__(self, make: Callable[[], App]) -> None:
        self.sessions: list[TcpSession] = []
        self.apps: list[App] = []
        self._make = make

    def step(self, endpoint: Waitable, now: Micros) -> None:
        assert isinstance(endpoint, Listener)
        while (session := endpoint.accept()) is not None:
            app = self._make()
            session.owner = app
            self.sessions.append(session)
            self.apps.append(app)
            app.step(session, now)
