"""What a pool of addresses says of itself."""

import attrs


@attrs.frozen(slots=True)
class PoolStatistics:
    """A pool at one moment. `remaining` and `granted` count identifiers of a sealed scheme, fit or not."""

    scheme: str
    level: int  # addresses ready
    low: int
    high: int
    hits: int  # takes served from the pool
    misses: int  # takes that found it empty
    issued: int  # addresses handed out, user-chosen ones not counted
    remaining: int | None  # None: the scheme does not count
    granted: int | None  # of these, what may be used before the host grants more
