"""A thousand sessions at once, each with an address of its own; and the pool that provides them."""

import pytest
import trio

from tests.system.lab import KERNEL, both, open_lab, until
from umuxstack.core.tcp.session import TcpSession
from umuxstack.driver.streams import UmuxStream

pytestmark = pytest.mark.system

MANY = 1000


@pytest.mark.rule("UM-22")
@both
async def test_a_thousand_kernel_clients_at_once_each_to_an_ssa_of_its_own(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, await lab.host.listen(80, backlog=MANY) as listener:
        addresses = [lab.open_door(listener) for _ in range(MANY)]
        clients = lab.peer("many_clients", 80)
        clients.say(" ".join(addresses))
        met: set[str] = set()

        async def echo(stream: UmuxStream) -> None:
            async with stream:
                met.add(stream.local_address[0])
                while data := await stream.receive_some():
                    await stream.send_all(data)

        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(echo, await listener.accept())
            assert await clients.line() == "echoed"
            established = [s for s in lab.host.stack.sessions() if isinstance(s, TcpSession) and s.established]
            assert len(established) == MANY
            clients.say("close")
        assert await clients.result() == {"failures": 0, "waiting": 0, "right": MANY}
        assert met == set(addresses)


@pytest.mark.rule("UM-15", "UM-19")
@both
async def test_a_thousand_sessions_of_ours_at_once_to_one_kernel_port(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        server = lab.peer("many_served", 5000, MANY)
        await server.ready()
        answers: list[bytes] = []
        everybody = trio.Event()

        async def talk(number: int) -> None:
            async with await lab.host.connect(KERNEL, 5000) as stream:
                await stream.send_all(b"%08d" % number)
                answers.append(await stream.receive_some())
                await everybody.wait()

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(talk, number)
            await until(lambda: len(answers) == MANY)
            everybody.set()
        assert sorted(answers) == [b"%08d" % number for number in range(MANY)]
        # One port, a thousand addresses: no port was searched for (UM-4, UM-19).
        assert await server.result() == {"peers": MANY, "ports": 1, "most": MANY}
