"""apps/das_demo.py: the procedure on a wire in memory, and what the stack reports while it runs."""

import pytest
from trio.testing import MockClock

from apps import das_demo
from umuxstack import EventKind


@pytest.mark.rule("UM-7", "UM-20.a", "UM-21.a", "UM-21.b", "UM-22.a", "UM-22.b", "UM-25.a")
async def test_three_clients_come_one_by_one_and_nobody_else_is_answered(autojump_clock: MockClock) -> None:
    history, knocks = await das_demo.in_memory()
    assert knocks == [False] * 7  # LISTEN_0 once; then each SSA while it serves its client, and after it
    kinds = [(event.kind, event.name) for event in history]
    assert kinds[0] == (EventKind.LISTEN, "shop")
    for number in (1, 2, 3):
        ssa = f"ssa.shop.{number}"
        assert [kind for kind, name in kinds if name == ssa] == [
            EventKind.LEASE_OPENED,
            EventKind.DAS,
            EventKind.LISTEN_U_ENDED,
            EventKind.SESSION_ESTABLISHED,
            EventKind.LEASE_RETIRING,
            EventKind.LEASE_ENDED,
            EventKind.SESSION_ENDED,
        ]
    assert [event.label for event in history if event.kind is EventKind.DAS] == ["for Hanako", "for Taro", "for Jiro"]
