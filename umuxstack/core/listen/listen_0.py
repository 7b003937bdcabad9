"""LISTEN_0: looks like LISTEN to the application and accepts from nowhere (UM-20).

It is in no table of the demultiplexer: no packet can reach it. Only DAS gives
it children, the LISTEN_U, whose completed connections come out of its `accept`.
"""

from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.listener import Listener
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Door
from umuxstack.core.units import Micros


class Listen0(Listener):
    """The parent. `children` by SSA."""

    __slots__ = ("children",)

    kind = "LISTEN_0"

    def __init__(self, ctx: Context, number: int, name: str, port: int, backlog: int) -> None:
        super().__init__(ctx, number, name, port, backlog)
        self.children: dict[bytes, ListenU] = {}

    def forget_child(self, child: Door) -> None:
        assert isinstance(child, ListenU)
        self.children.pop(child.lease.address, None)

    def _retire(self, now: Micros) -> None:
        for child in list(self.children.values()):
            child.orphan(now)
