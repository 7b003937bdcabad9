"""What the telescope tells of one source (UM-31)."""

import attrs

from umuxstack.core.units import Address, Micros


@attrs.frozen(slots=True)
class Knocks:
    """What is known of a source whose packets met nobody: how many, when the first and the newest came."""

    source: Address
    packets: int
    first: Micros
    last: Micros
