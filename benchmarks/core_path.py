"""The core's own share of a request and of a connection: no link, no driver, no peer's time in the figure.

The quickest tenth of many small batches: what else runs on the machine hardly shows, a change of the code does.
"""

import gc
import time
from typing import Final

from benchmarks import compiled
from benchmarks.core_alone import PEER, PEER_ISS, ask_worker, new_stack, open_sessions, reply, segment, syn
from benchmarks.harness import Arena
from benchmarks.workers import Channel
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, TCP, Micros
from umuxstack.core.wire import tcp, tcp_options

REQUEST: Final = "request and response"
CONNECTION: Final = "connection with one of each"

BATCH: Final = 16  # sessions that have something to say at the same time
STEP: Final = Micros(100)  # between two batches
SHARE: Final = 10  # the quickest tenth
MASK: Final = 0xFFFFFFFF


class Meter:
    """Sums up what one batch spends in the stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._spent = 0.0
        self._batches: list[float] = []

    def turn(self, packets: list[bytes], now: Micros) -> list[Outgoing]:
        """One turn as a driver takes it: packets in, each application answers or closes, packets out."""
        stack = self._stack
        began = time.perf_counter()
        for packet in packets:
            stack.receive(packet, 0, 0, True, now)
        if stack.is_due(now):
            stack.advance(now)
        for endpoint in stack.take_ready():
            if isinstance(endpoint, TcpSession):
                if data := endpoint.read(4096, now):
                    endpoint.write(data, now)
                if endpoint.eof:
                    endpoint.close(now)
            elif isinstance(endpoint, Listen0):
                while endpoint.accept() is not None:
                    pass
        output = stack.take_output(now)
        self._spent += time.perf_counter() - began
        return output

    def end_batch(self) -> None:
        self._batches.append(self._spent)
        self._spent = 0.0

    def result(self) -> float:
        """Microseconds for one of a batch."""
        return sorted(self._batches)[len(self._batches) // SHARE] / BATCH * 1e6


def _after(header: bytes, payload: int) -> int:
    """The sequence number behind the segment with that `header`."""
    seq: int
    bits: int
    _, _, seq, _, bits, _, _, _ = tcp.FIELDS.unpack_from(header, 40)
    return (seq + payload + (bits & tcp.SYN > 0) + (bits & tcp.FIN > 0)) & MASK


def _requests(channel: Channel, count: int) -> None:
    now = Micros(1)
    stack = new_stack(now)
    heads = []
    for session in open_sessions(stack, BATCH, now):
        tcb = session.tcb
        ports = tcb.local_port, tcb.remote_port
        addresses = session.local, session.remote
        heads.append((tcp.build(0x60000000, 20, TCP, 64, *addresses, *ports, 0, 0, 0x5010, 0, 0, 0), tcb.snd_nxt))
    meter = Meter(stack)
    gc.collect()
    gc.freeze()
    for number in range(count // BATCH):
        option = tcp_options.timestamp(2 + number, 1)
        seq = PEER_ISS + 1 + number
        packets = [
            segment(head, tcp.ACK | tcp.PSH, seq, (first + number) & MASK, option, b"?") for head, first in heads
        ]
        if len(meter.turn(packets, now)) != BATCH:
            raise AssertionError("a request was not answered")
        meter.end_batch()
        now = Micros(now + STEP)
    channel.tell(value=meter.result())


def _connections(channel: Channel, count: int) -> None:
    now = Micros(1)
    stack = new_stack(now)
    door = stack.listen(now, backlog=BATCH)
    assert isinstance(door, Listen0)
    meter = Meter(stack)
    gc.collect()
    gc.freeze()
    for _ in range(count // BATCH):
        addresses = [stack.das(door, now, lifetime=NEVER).lease.address for _ in range(BATCH)]
        answers = meter.turn([syn(address, PEER) for address in addresses], now)
        packets = []
        for answer in answers:
            packets.append(reply(answer) or b"")
            option = tcp_options.timestamp(3, 1)
            packets.append(segment(answer[0], tcp.ACK | tcp.PSH, PEER_ISS + 1, _after(answer[0], 0), option, b"?"))
        answers = meter.turn(packets, now)
        option = tcp_options.timestamp(4, 1)
        packets = []
        for header, payload, _, _ in answers:
            stop = _after(header, len(payload))
            packets.append(segment(header, tcp.ACK, PEER_ISS + 2, stop, option))
            packets.append(segment(header, tcp.ACK | tcp.FIN, PEER_ISS + 2, stop, option))
        answers = meter.turn(packets, now)
        meter.turn(
            [segment(header, tcp.ACK, PEER_ISS + 3, _after(header, 0), option) for header, _, _, _ in answers], now
        )
        meter.end_batch()
        stack.take_events()
        now = Micros(now + STEP)
    ended = stack.leftovers()["pairs"]
    if ended:
        raise AssertionError(f"{ended} connections did not end")
    channel.tell(value=meter.result())


def share(arena: Arena, variant: str) -> float:
    """Microseconds in the core alone."""
    function, count = _requests, arena.size.packets
    if variant.startswith(CONNECTION):
        function, count = _connections, max(arena.size.packets // 10, 2 * BATCH)
    if variant.endswith(compiled.SUFFIX):
        return ask_worker(compiled.run, function, count)
    return ask_worker(function, count)
