"""Draws the life cycles from their tables: `python -m umuxstack.testing.diagrams > docs/states.md`.

A test compares the page with the tables, so neither can change alone.
"""

from collections.abc import Mapping, Sequence

from umuxstack.core.address import lease
from umuxstack.core.listen import states


def diagram(names: Sequence[str], events: Sequence[str], table: Mapping[tuple[int, int], int], start: int) -> str:
    """One life cycle as a Mermaid state diagram, and the same as a table."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {names[start]}"]
    merged: dict[tuple[int, int], list[str]] = {}
    for (before, event), after in table.items():
        merged.setdefault((before, after), []).append(events[event])
    lines += [
        f"    {names[before]} --> {names[after]}: {', '.join(causes)}" for (before, after), causes in merged.items()
    ]
    lines += ["```", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for number, name in enumerate(events):
        row = [names[table[state, number]] if (state, number) in table else "" for state in range(len(names))]
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


def page() -> str:
    """docs/states.md."""
    return f"""# Life cycles

Drawn from the tables in the code by `python -m umuxstack.testing.diagrams`. An empty field: the event changes nothing
in that state; tests visit every one.

## An address (UM-8): `umuxstack/core/address/lease.py`

{diagram(lease.STATE_NAMES, lease.EVENT_NAMES, lease.TRANSITIONS, lease.INVALID)}

## A LISTEN_U (UM-21 to UM-27): `umuxstack/core/listen/states.py`

{diagram(states.STATE_NAMES, states.EVENT_NAMES, states.TRANSITIONS, states.WAITING)}

TCP's own states are RFC 9293's; `opening.py`, `connection.py` and `ending.py` in `umuxstack/core/tcp` follow its
section 3.10 as straight code.
"""


if __name__ == "__main__":
    print(page(), end="")
