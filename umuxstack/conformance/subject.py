"""What a script does with a stack under test, packets aside: calls, commands, questions.

`Subject` is the interface; `umuxstack.conformance.ours` puts our own stack behind it. `Setup` is all that the
script's options say, for whoever builds a subject. Knows no stack.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping

import attrs

from umuxstack.conformance.ends import Ends
from umuxstack.conformance.packets import Wiring
from umuxstack.conformance.script import Script, SystemCall
from umuxstack.conformance.wire import IPV4
from umuxstack.core.config import TcpPolicy
from umuxstack.core.units import Micros

Steps = Generator[Micros, None, int]


@attrs.frozen(slots=True)
class Setup:
    """One script, and how it is to be played."""

    script: Script
    personality: str
    seed: str
    ours: bool  # it says --umux
    unified: bool
    mtu: int  # of the link
    policy: TcpPolicy
    wiring: Wiring
    tolerance: int  # microseconds
    tolerance_percent: float  # of a delay
    names: Mapping[str, bytes]  # who is on the link, by addresses of what it speaks
    mapped: bool = False  # its sockets are IPv6's all the same, by IPv4-mapped addresses

    @property
    def ipv4(self) -> bool:
        """What the link speaks."""
        return len(self.names["here"]) == IPV4


class Subject(ABC):
    """A stack under test. All of it raises Mismatch and UnsupportedConstruct."""

    ends: Ends
    in_process: bool = True  # so that an exception may be the stack's own
    unasked: frozenset[str] = frozenset()  # names in code that mean nothing here: what asks for one is passed over

    @abstractmethod
    def start(self, call: SystemCall) -> Steps:
        """The call, which yields until when it may sleep and returns its result. Raises CallError."""

    @abstractmethod
    def rename(self, descriptor: int, name: int) -> None:
        """Scripts choose the number by which they call a descriptor."""

    @abstractmethod
    def command(self, text: str) -> None:
        """A command in backquotes."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """The names that code in the script may use, and what they are worth now."""

    def state_lines(self) -> list[str]:
        """What can be said of the connection, for a report."""
        return []

    @abstractmethod
    def close(self) -> None:
        """The script is over, whatever happened."""


# May raise UnsupportedConstruct: this stack cannot be asked what the script asks.
MakeSubject = Callable[[Setup], Subject]
