"""How a script ended, and the three ways in which running one stops early."""

from enum import Enum

import attrs

from umuxstack.core.units import Micros


class Status(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"  # it asks for something that is not modelled: neither passed nor failed
    ERROR = "error"  # not a script, or a bug of the runner


class UnsupportedConstruct(Exception):
    """The script needs `construct`, which the runner or the stack does not have."""

    def __init__(self, construct: str) -> None:
        super().__init__(construct)
        self.construct = construct


class Mismatch(Exception):
    """What the stack did is not what the script says. `details` are lines for whoever reads the report."""

    def __init__(self, message: str, details: list[str] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


@attrs.frozen(slots=True)
class Outcome:
    """One script's result. `line` is where it stopped (0: nowhere), `time` the virtual time since the start."""

    path: str
    status: Status
    message: str = ""  # of a failure; the construct's name when unsupported
    line: int = 0
    source: str = ""  # the text of that line
    time: Micros = Micros(0)
    details: tuple[str, ...] = ()
    personality: str = ""
    seconds: float = 0.0  # of real time
    packets: tuple[tuple[Micros, bytes], ...] = attrs.field(default=(), repr=False)  # everything on the wire

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED
