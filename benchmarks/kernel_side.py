"""The programs on the kernel's sockets: every peer, and the base line itself.

Plain non-blocking Python with epoll: the quickest that a Python program can be.
Every socket uses CUBIC, set on the socket: a machine's default may be BBR, which is three times slower over veth.
"""

import os
import select
import socket
import time
from typing import Final

from benchmarks.workers import Channel, pin

Target = tuple[str, int]

PORT: Final = 5555
CONGESTION: Final = b"cubic"
PIECE: Final = 1 << 20  # bytes per call


def new_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    return sock


def listening(backlog: int = 4096) -> socket.socket:
    sock = new_socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("::", PORT))
    sock.listen(backlog)
    return sock


def bulk_sink(channel: Channel) -> None:
    """Accepts once and consumes; tells bytes and seconds, from the first byte to the end."""
    door = listening()
    channel.tell(port=PORT)
    sock, _ = door.accept()
    buffer = bytearray(PIECE)
    total = sock.recv_into(buffer)
    began = time.perf_counter()
    while count := sock.recv_into(buffer):
        total += count
    channel.tell(bytes=total, seconds=time.perf_counter() - began)
    sock.close()


def bulk_source(channel: Channel, target: Target, seconds: float) -> None:
    """Sends for that long."""
    with new_socket() as sock:
        sock.connect(target)
        data = os.urandom(1 << 16) * (PIECE >> 16)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    channel.tell(done=True)


def answer(channel: Channel, cores: tuple[int, ...] = ()) -> None:
    """Sends back what comes, on any number of connections, until the channel closes."""
    pin(cores)
    door = listening()
    door.setblocking(False)
    poll = select.epoll()
    poll.register(door, select.EPOLLIN)
    poll.register(channel, select.EPOLLIN)
    open_sockets: dict[int, socket.socket] = {}
    channel.tell(port=PORT)
    while True:
        for fd, _ in poll.poll():
            sock = open_sockets.get(fd)
            if sock is not None:
                data = sock.recv(4096)
                if data:
                    sock.send(data)
                else:
                    sock.close()
                    del open_sockets[fd]
            elif fd == door.fileno():
                try:
                    while True:
                        sock, _ = door.accept()
                        sock.setblocking(False)
                        open_sockets[sock.fileno()] = sock
                        poll.register(sock, select.EPOLLIN)
                except BlockingIOError:
                    pass
            else:
                return


def answer_blocking(channel: Channel, cores: tuple[int, ...] = ()) -> None:
    """One connection, blocking calls: the shortest way through a kernel, for latency."""
    pin(cores)
    door = listening()
    channel.tell(port=PORT)
    sock, _ = door.accept()
    while data := sock.recv(4096):
        sock.send(data)
    sock.close()
    channel.hear()


def connect_many(channel: Channel, targets: list[Target], count: int, at_once: int) -> None:
    """`count` times: connect, a byte there and back, close; `at_once` at a time. `targets` are used in turn."""
    poll = select.epoll()
    waiting: dict[int, tuple[socket.socket, bool]] = {}
    begun = 0

    def begin() -> None:
        nonlocal begun
        target = targets[begun % len(targets)]
        begun += 1
        sock = new_socket()
        sock.setblocking(False)
        sock.connect_ex(target)
        waiting[sock.fileno()] = (sock, False)
        poll.register(sock, select.EPOLLOUT)

    start = time.perf_counter()
    while begun < min(at_once, count):
        begin()
    while waiting:
        for fd, _ in poll.poll():
            sock, asked = waiting[fd]
            if not asked:
                sock.send(b"?")  # raises what the connection failed with
                waiting[fd] = (sock, True)
                poll.modify(fd, select.EPOLLIN)
                continue
            if sock.recv(1) != b"?":
                raise ConnectionError("no answer")
            del waiting[fd]
            sock.close()
            if begun < count:
                begin()
    channel.tell(count=count, seconds=time.perf_counter() - start)


def connect(channel: Channel, target: Target, count: int, at_once: int) -> None:
    """The same, all to one server."""
    connect_many(channel, [target], count, at_once)


def ask(channel: Channel, targets: list[Target], clients: int, seconds: float) -> None:
    """`clients` connections, each with one byte under way at any time."""
    poll = select.epoll()
    sockets = {}
    for number in range(clients):
        sock = new_socket()
        sock.connect(targets[number % len(targets)])
        sock.setblocking(False)
        sockets[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    count = 0
    start = time.perf_counter()
    for sock in sockets.values():
        sock.send(b"?")
    until = start + seconds
    while (now := time.perf_counter()) < until:
        for fd, _ in poll.poll():
            sock = sockets[fd]
            if not sock.recv(16):
                raise ConnectionError("the server closed")
            sock.send(b"?")
            count += 1
    channel.tell(count=count, seconds=now - start)


def ping_pong(channel: Channel, targets: list[Target], seconds: float, cores: tuple[int, ...]) -> None:
    """One connection, blocking calls; tells the median round trip in microseconds."""
    pin(cores)
    with new_socket() as sock:
        sock.connect(targets[0])
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        until = time.perf_counter() + seconds
        before = 0.0
        while before < until:
            before = time.perf_counter()
            sock.send(b"?")
            sock.recv(1)
            times.append(time.perf_counter() - before)
    times.sort()
    channel.tell(p50=times[len(times) // 2] * 1e6, p99=times[len(times) * 99 // 100] * 1e6, count=len(times))
