"""TCP Fast Open between two hosts: a client that remembers its cookie, a listening socket that was told to take it."""

import socket as stdlib

import attrs
import pytest

from tests.driver.conftest import SHARED
from tests.driver.wires import fake_wire
from umuxstack.core.config import TcpPolicy
from umuxstack.driver.runtime import Host
from umuxstack.host import make_config


@pytest.mark.rule("RFC 7413 A.2")
async def test_a_listening_socket_may_be_asked_before_the_handshake_ends() -> None:
    """The client's second connection shows its cookie, and its request is there with the SYN: half a round trip."""
    left, right = fake_wire(offload=False)
    asking = attrs.evolve(make_config("2001:db8:1::/64", shared=["2001:db8:1::80"]), tcp=TcpPolicy(fast_open=True))
    async with (
        Host(left, asking, seed=b"client") as client,
        Host(right, make_config("2001:db8:2::/64", shared=[SHARED]), seed=b"server") as server,
    ):
        with server.socket_factory.socket(stdlib.AF_INET6, stdlib.SOCK_STREAM, 0) as listening:
            await listening.bind((SHARED, 80))
            listening.listen()
            assert listening.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_FASTOPEN) == 0
            listening.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_FASTOPEN, 4)
            assert listening.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_FASTOPEN) == 4
            for syn_data in (False, True):
                async with await client.connect(SHARED, 80, source="2001:db8:1::80", early=b"question") as stream:
                    accepted, _ = await listening.accept()
                    with accepted:
                        assert await accepted.recv(99) == b"question"
                        await accepted.send(b"answer")
                        assert await stream.receive_some(99) == b"answer"
                        assert stream.session.statistics().syn_data == syn_data
