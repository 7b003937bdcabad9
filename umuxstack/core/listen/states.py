"""The life of a LISTEN_U, as a table (UM-21 … UM-27); nothing else.

The diagram in docs/states.md is generated from it, a test visits every pair.
"""

from typing import Final

# States
WAITING: Final = 0  # for its one connection, or for the first of its peer's
PINNED: Final = 1  # client grain: the peer is known and has connections
LINGERING: Final = 2  # client grain: its last connection ended; another may come for a while
SPENT: Final = 3  # takes nothing any more
STATE_NAMES: Final = ("WAITING", "PINNED", "LINGERING", "SPENT")

# Events
CANDIDATE_CAME: Final = 0  # a SYN was taken
CANDIDATE_FAILED: Final = 1  # its handshake did not complete
HANDSHAKE_DONE: Final = 2  # session grain
CLIENT_CAME: Final = 3  # client grain: a handshake was completed
LAST_ENDED: Final = 4  # client grain: the last of its connections is gone
EXPIRED: Final = 5
REVOKED: Final = 6
PARENT_CLOSED: Final = 7
EVENT_NAMES: Final = (
    "CANDIDATE_CAME",
    "CANDIDATE_FAILED",
    "HANDSHAKE_DONE",
    "CLIENT_CAME",
    "LAST_ENDED",
    "EXPIRED",
    "REVOKED",
    "PARENT_CLOSED",
)

TRANSITIONS: Final = {
    (WAITING, CANDIDATE_CAME): WAITING,  # a half-open session borrows the lease (UM-23)
    (WAITING, CANDIDATE_FAILED): WAITING,  # a forged SYN burns nothing (UM-23)
    (WAITING, HANDSHAKE_DONE): SPENT,  # the winner takes the lease; the other candidates vanish
    (WAITING, CLIENT_CAME): PINNED,
    (WAITING, EXPIRED): SPENT,
    (WAITING, REVOKED): SPENT,
    (WAITING, PARENT_CLOSED): SPENT,
    (PINNED, CANDIDATE_CAME): PINNED,
    (PINNED, CANDIDATE_FAILED): PINNED,
    (PINNED, CLIENT_CAME): PINNED,
    (PINNED, LAST_ENDED): LINGERING,
    (PINNED, REVOKED): SPENT,  # no new connections; those accepted live on (UM-27)
    (PINNED, PARENT_CLOSED): SPENT,
    (LINGERING, CANDIDATE_CAME): LINGERING,
    (LINGERING, CANDIDATE_FAILED): LINGERING,
    (LINGERING, CLIENT_CAME): PINNED,
    (LINGERING, EXPIRED): SPENT,
    (LINGERING, REVOKED): SPENT,
    (LINGERING, PARENT_CLOSED): SPENT,
}
