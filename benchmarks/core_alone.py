"""Measurements of the core alone, in one process, without a link: memory, look-ups, addresses.

The peers of a hundred thousand sessions would weigh as much as the sessions, so they are played by `reply`, which
answers a segment from its bytes alone and remembers nothing: what grows is one side, ours.
"""

import gc
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute

from benchmarks import compiled
from benchmarks.harness import Arena
from benchmarks.workers import Channel, Worker
from tun import netns
from umuxstack.core.config import StackConfig
from umuxstack.core.entropy import Entropy
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.network.endpoint import Endpoint
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, TCP, Address, Micros, minutes, seconds
from umuxstack.core.wire import tcp, tcp_options
from umuxstack.core.wire.address import parse, to_text

PREFIX: Final = parse("2001:db8:1::")
SHARED: Final = parse("2001:db8:3::1")
PEER: Final = parse("2001:db8:2::1")
PORT: Final = 80
PEER_PORT: Final = 4000
PEER_ISS: Final = 1_000_000
WINDOW: Final = 65535
SEED: Final = bytes(32)
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
IDLE: Final = minutes(15)  # by the stack's clock: no timer is left of a session's beginning
STEP: Final = 1000  # sessions that come together
PAUSE: Final = seconds(5)  # until the next come
ADDRESSES: Final = 1000  # for `ip addr add`: more would not change the cost of one

FRESH: Final = "EA, idle"
USED: Final = "EA, idle after a request"
SERVED: Final = "one-time SSA, idle"


def new_stack(now: Micros) -> Stack:
    return Stack(StackConfig(prefix=PREFIX, shared=(SHARED,)), Entropy(SEED), now)


def ask_worker(function: Callable[..., None], *args: object, namespace: netns.Namespace | None = None) -> float:
    """The value that `function`, in a process of its own, tells."""
    with Worker(namespace, function, *args) as worker:
        return float(worker.hear(timeout=1800)["value"])


# A peer without a memory


def segment(header: bytes, flags: int, seq: int, ack: int, options: bytes = b"", payload: bytes = b"") -> bytes:
    """A segment from the peer to whoever sent `header`; its checksum field is not filled in."""
    sport, dport = int.from_bytes(header[40:42], "big"), int.from_bytes(header[42:44], "big")
    length = 20 + len(options) + len(payload)
    bits = (5 + len(options) // 4) << 12 | flags
    built = tcp.build(
        0x60000000, length, TCP, 64, header[24:40], header[8:24], dport, sport, seq, ack, bits, WINDOW, 0, 0
    )
    return built + options + payload


def syn(local: Address, remote: Address) -> bytes:
    """The peer at `remote` dials `local`."""
    options = tcp_options.syn(1440, window_scale=7, sack_permitted=True, timestamps=(1, 0))
    towards = bytes(8) + local + remote + bytes(16) + PORT.to_bytes(2, "big") + PEER_PORT.to_bytes(2, "big")
    return segment(towards[:8] + towards[8:40] + towards[56:], tcp.SYN, PEER_ISS, 0, options)


def reply(outgoing: Outgoing) -> bytes | None:
    """What a peer answers: SYN-ACK to a SYN, ACK to a SYN-ACK and to data, nothing to an ACK."""
    header, payload, _, _ = outgoing
    _, _, seq, ack, bits, _, _, _ = tcp.FIELDS.unpack_from(header, 40)
    options = tcp_options.parse(header, 60, 40 + (bits >> 12) * 4)
    echo = tcp_options.timestamp(2, options.tsval)
    if bits & tcp.SYN and not bits & tcp.ACK:
        answer = tcp_options.syn(1440, window_scale=7, sack_permitted=True, timestamps=(1, options.tsval))
        return segment(header, tcp.SYN | tcp.ACK, PEER_ISS, (seq + 1) & 0xFFFFFFFF, answer)
    if bits & tcp.SYN:
        return segment(header, tcp.ACK, PEER_ISS + 1, (seq + 1) & 0xFFFFFFFF, echo)
    if payload:
        # An answer of the same size, as in a request and its response.
        stop = (seq + len(payload)) & 0xFFFFFFFF
        return segment(header, tcp.ACK | tcp.PSH, ack, stop, echo, bytes(payload))
    return None


def settle(stack: Stack, now: Micros) -> None:
    """Lets the peers answer until nothing more is said; what arrives is read."""
    while output := stack.take_output(now):
        for packet in filter(None, map(reply, output)):
            stack.receive(packet, 0, 0, True, now)
        for endpoint in stack.take_ready():
            if isinstance(endpoint, Listen0):
                while endpoint.accept() is not None:
                    pass
            elif isinstance(endpoint, TcpSession):
                endpoint.read(4096, now)
        stack.take_events()


def rest(stack: Stack, now: Micros, duration: Micros) -> Micros:
    """Nothing comes from outside for `duration`; returns the time after it."""
    until = Micros(now + duration)
    while (due := stack.next_deadline()) < until:
        now = max(due, now)
        stack.advance(now)
        settle(stack, now)
    return until


def open_sessions(stack: Stack, count: int, now: Micros, *, source: Address | None = None) -> list[TcpSession]:
    """`count` established sessions to one server."""
    sessions = [stack.connect(PEER, PORT, now, source=source) for _ in range(count)]
    settle(stack, now)
    return sessions


def accept_sessions(stack: Stack, door: Listen0, count: int, now: Micros) -> None:
    """`count` established sessions, each on a one-time address of its own."""
    for _ in range(count):
        address = stack.das(door, now, lifetime=NEVER).lease.address
        stack.receive(syn(address, PEER), 0, 0, True, now)
    settle(stack, now)


# Memory


def resident() -> int:
    """Bytes of this process that are in memory, after the garbage is gone."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _memory(channel: Channel, variant: str, count: int) -> None:
    """RSS per session. They come a thousand at a time, some seconds apart, as in a server that has run for a while."""
    now = Micros(1)
    stack = new_stack(now)
    door = stack.listen(now, backlog=STEP)
    assert isinstance(door, Listen0)
    before = 0
    for batch in range(-1, count // STEP):
        if batch == 0:
            before = resident()  # the first thousand made whatever is made once
        if variant == SERVED:
            accept_sessions(stack, door, STEP, now)
        else:
            for session in open_sessions(stack, STEP, now):
                if variant == USED:
                    session.write(b"?", now)
            settle(stack, now)
        now = rest(stack, now, PAUSE)
    now = rest(stack, now, IDLE)
    established = sum(isinstance(session, TcpSession) and session.established for session in stack.sessions())
    if established != (count // STEP + 1) * STEP:
        raise AssertionError(f"{established} sessions are established")
    channel.tell(value=(resident() - before) / (count // STEP * STEP))


def memory(arena: Arena, variant: str) -> float:
    """Bytes of memory that one more idle established session takes."""
    if variant.endswith(compiled.SUFFIX):
        return ask_worker(compiled.run, _memory, variant.removesuffix(compiled.SUFFIX), arena.size.sessions)
    return ask_worker(_memory, variant, arena.size.sessions)


# Look-ups


def _lookup(channel: Channel, sessions: int, packets: int) -> None:
    """The demultiplexer's own line, over a table of `sessions`."""
    pairs: dict[bytes, Endpoint] = {}
    owner = Endpoint()
    wanted: list[bytes] = []
    stride = max(1, sessions // packets)
    for number in range(sessions):
        pair = PEER + PREFIX[:8] + (number * 0x9E3779B97F4A7C15 & (1 << 64) - 1).to_bytes(8, "big")
        pairs[pair] = owner
        if number % stride == 0 and len(wanted) < packets:
            wanted.append(bytes(18) + pair + bytes(32))
    gc.collect()
    gc.freeze()
    rounds = max(1, packets // len(wanted))
    began = time.perf_counter()
    for _ in range(rounds):
        for packet in wanted:
            if pairs.get(packet[18:50]) is None:
                raise LookupError
    value = (time.perf_counter() - began) / (rounds * len(wanted)) * 1e9
    channel.tell(value=value)


def lookup(arena: Arena, variant: str) -> float:
    """Nanoseconds to find a session by its pair, in the header as received, among as many as `variant` says."""
    return ask_worker(_lookup, int(variant.replace(",", "").split()[0]), arena.size.packets)


PAIR: Final = "pair"
FOUR_TUPLE: Final = "4-tuple"
DEMUX_SESSIONS: Final = 10_000


def _demux(channel: Channel, variant: str, packets: int) -> None:
    """A segment that changes nothing goes all the way in, to sessions chosen in turn."""
    now = Micros(1)
    stack = new_stack(now)
    segments = []
    for session in open_sessions(stack, min(DEMUX_SESSIONS, packets), now, source=None if variant == PAIR else SHARED):
        towards = tcp.build(
            0x60000000, 20, TCP, 64, session.local, session.remote, session.local_port, session.remote_port,
            0, 0, 0x5010, 0, 0, 0,
        )  # fmt: skip
        echo = tcp_options.timestamp(2, 1)
        segments.append(segment(towards, tcp.ACK, PEER_ISS + 1, session.tcb.snd_nxt & 0xFFFFFFFF, echo))
    gc.collect()
    gc.freeze()
    receive = stack.receive
    rounds = max(1, packets // len(segments))
    drops = sum(stack.counters.drops)
    began = time.perf_counter()
    for _ in range(rounds):
        for packet in segments:
            receive(packet, 0, 0, True, now)
    value = (time.perf_counter() - began) / (rounds * len(segments)) * 1e9
    if sum(stack.counters.drops) != drops:
        raise LookupError("the segments did not reach their sessions")
    channel.tell(value=value)


def demux(arena: Arena, variant: str) -> float:
    """Nanoseconds for one segment from `Stack.receive` to the end of its session's fast path."""
    return ask_worker(_demux, variant, arena.size.packets)


# Addresses

EA_TAKEN: Final = "EA from the pool"
EA_CONNECT: Final = "connect() with its EA"
IP_BATCH: Final = "ip -batch"
NETLINK: Final = "netlink"


def _ea(channel: Channel, count: int) -> None:
    """Taking an address and giving it a lease; the pool is filled in the background, and that is counted too."""
    now = Micros(1)
    stack = new_stack(now)
    began = time.perf_counter()
    for _ in range(count):
        stack._take_ea(now, "")  # what connect() begins with
        if stack.pool.filling:
            stack.advance(now)
    channel.tell(value=(time.perf_counter() - began) / count * 1e6)


def _ea_connect(channel: Channel, count: int) -> None:
    now = Micros(1)
    stack = new_stack(now)
    began = time.perf_counter()
    for _ in range(count):
        stack.connect(PEER, PORT, now)
        if stack.pool.filling:
            stack.advance(now)
        stack.take_output(now)
    channel.tell(value=(time.perf_counter() - began) / count * 1e6)


def _texts(count: int) -> list[str]:
    return [to_text(PREFIX[:8] + (number + 1).to_bytes(8, "big")) for number in range(count)]


def _ip_batch(channel: Channel, count: int) -> None:
    """The administrator's way: one `ip` for all, `nodad`."""
    text = "".join(f"addr add {address}/64 dev lo nodad\n" for address in _texts(count))
    began = time.perf_counter()
    subprocess.run(("ip", "-6", "-batch", "-"), input=text, text=True, check=True)
    channel.tell(value=(time.perf_counter() - began) / count * 1e6)


def _netlink(channel: Channel, count: int) -> None:
    """The program's way: one netlink request per address."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="lo")[0]
        began = time.perf_counter()
        for address in _texts(count):
            netlink.addr("add", index=index, family=10, address=address, prefixlen=64, flags=2)
        channel.tell(value=(time.perf_counter() - began) / count * 1e6)


def new_address(arena: Arena, variant: str) -> float:
    """Microseconds until one more address of ours can be used."""
    count = min(ADDRESSES, arena.size.packets)
    if variant == EA_TAKEN:
        return ask_worker(_ea, arena.size.packets)
    if variant == EA_CONNECT:
        return ask_worker(_ea_connect, count)
    with netns.create() as namespace:
        return ask_worker(_ip_batch if variant == IP_BATCH else _netlink, count, namespace=namespace)
