"""How long a connection was busy, and what held it back meanwhile, as Linux tells it; in microseconds."""

import attrs

from umuxstack.core.tcp.session import TcpSession


@attrs.define(slots=True)
class Spent:
    """One session's times."""

    busy: int = 0  # something was outstanding or waited to be sent
    window: int = 0  # of that, the peer's window was what held it back
    buffer: int = 0  # of that, the send buffer was: the application had more

    def add(self, session: TcpSession, duration: int, *, more: bool) -> None:
        """For `duration` from now on nothing changes. `more`: the application waits for room to write."""
        known = session.statistics()
        if not session.established or not (known.unacked or known.notsent):
            return
        self.busy += duration
        room = known.snd_wnd - known.unacked
        if known.notsent and room < min(known.notsent, known.snd_mss) and room < known.snd_cwnd - known.in_flight:
            self.window += duration
        elif not known.notsent and more:
            self.buffer += duration
