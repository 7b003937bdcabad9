"""The other end of a system test: a program on the kernel's sockets, in a process and namespace of its own.

Runs as a script with the standard library alone, prints one JSON object, and knows nothing of ours. It has its own
process so that the stack's work and its own go on at the same time.
"""

import json
import resource
import selectors
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

BLOCK = 1 << 18  # bytes
TCP_CONGESTION = 13
LIMIT = 60.0  # seconds; a peer that nobody talks to ends by itself


def pattern(total: int) -> Iterator[bytes]:
    """`total` bytes in which no place looks like another: each block begins with its number."""
    state = b"umux"
    noise = bytearray()
    while len(noise) < BLOCK:
        state = zlib.crc32(state + noise[-4:]).to_bytes(4, "big")
        noise += state
    rest = bytes(noise[8:])
    for number in range(-(-total // BLOCK)):
        yield (number.to_bytes(8, "big") + rest)[: total - number * BLOCK]


class Tally:
    """How many bytes, and their CRC."""

    def __init__(self) -> None:
        self.size = 0
        self.crc = 0

    def add(self, data: Any) -> None:
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def report(self) -> dict[str, int]:
        return {"size": self.size, "crc": self.crc}


def expected(total: int) -> dict[str, int]:
    tally = Tally()
    for block in pattern(total):
        tally.add(block)
    return tally.report()


def exchange(connection: socket.socket, total: int) -> dict[str, Any]:
    """Sends `total` bytes and ends that direction, while receiving until the other side ends its own."""
    sent, received = Tally(), Tally()
    peer = connection.getpeername()[:2]
    failures: list[str] = []

    def send() -> None:
        try:
            for block in pattern(total):
                connection.sendall(block)
                sent.add(block)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            failures.append(repr(error))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    began = time.monotonic()
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    try:
        while count := connection.recv_into(buffer):
            received.add(view[:count])
    except OSError as error:
        failures.append(repr(error))
    sender.join()
    connection.close()
    return {
        "sent": sent.report(),
        "received": received.report(),
        "seconds": time.monotonic() - began,
        "peer": peer,
        "failures": failures,
    }


def new_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    made.settimeout(LIMIT)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"cubic")
    return made


def connect(address: str, port: str, total: str) -> dict[str, Any]:
    """A client: `exchange` with a listener."""
    with new_socket() as client:
        client.connect((address, int(port)))
        return exchange(client, int(total))


def listen(port: str, total: str) -> dict[str, Any]:
    """A server for one connection: `exchange` with it. Says "ready" first."""
    with new_socket() as server:
        server.bind(("::", int(port)))
        server.listen()
        print("ready", flush=True)
        connection, _ = server.accept()
        connection.settimeout(LIMIT)
        return exchange(connection, int(total))


def many_clients(port: str) -> dict[str, Any]:
    """Connects to each address on standard input, all at once; when all are connected, each says its number.

    What it says is to be echoed. Then it waits for a line on standard input, and closes them all.
    """
    addresses = sys.stdin.readline().split()
    raise_limit()
    selector = selectors.DefaultSelector()
    clients = []
    for number, address in enumerate(addresses):
        client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        client.setblocking(False)
        client.connect_ex((address, int(port)))
        selector.register(client, selectors.EVENT_WRITE, number)
        clients.append(client)
    deadline = time.monotonic() + LIMIT
    failures = 0
    waiting = len(clients)
    while waiting and time.monotonic() < deadline:
        for key, _ in selector.select(1):
            client = clients[key.data]
            selector.unregister(client)
            failures += client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
            waiting -= 1
    if failures or waiting:
        return {"failures": failures, "waiting": waiting}
    for number, client in enumerate(clients):
        client.sendall(b"%08d" % number)
        client.setblocking(True)
        client.settimeout(LIMIT)
    right = sum(client.recv(8, socket.MSG_WAITALL) == b"%08d" % number for number, client in enumerate(clients))
    print("echoed", flush=True)
    sys.stdin.readline()
    for client in clients:
        client.close()
    return {"failures": 0, "waiting": 0, "right": right}


def many_served(port: str, wanted: str) -> dict[str, Any]:
    """Echoes whatever comes on any number of connections, until `wanted` of them have been and are closed."""
    raise_limit()
    selector = selectors.DefaultSelector()
    with new_socket() as server:
        server.bind(("::", int(port)))
        server.listen(4096)
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        print("ready", flush=True)
        peers: set[Any] = set()
        closed = most = 0
        deadline = time.monotonic() + LIMIT
        while closed < int(wanted) and time.monotonic() < deadline:
            for key, _ in selector.select(1):
                if key.fileobj is server:
                    connection, peer = server.accept()
                    peers.add(peer[:2])
                    selector.register(connection, selectors.EVENT_READ)
                    most = max(most, len(peers) - closed)
                else:
                    connection = key.fileobj  # type: ignore[assignment]
                    data = connection.recv(4096)
                    if data:
                        connection.sendall(data)
                    else:
                        selector.unregister(connection)
                        connection.close()
                        closed += 1
    return {"peers": len({address for address, _ in peers}), "ports": len({port for _, port in peers}), "most": most}


def raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))


def echo_datagrams(port: str) -> dict[str, Any]:
    """Sends each datagram back, until an empty one comes."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.settimeout(LIMIT)
        server.bind(("::", int(port)))
        print("ready", flush=True)
        sources: list[tuple[str, int]] = []
        while True:
            data, peer = server.recvfrom(65536)
            if not data:
                return {"sources": sources}
            sources.append(peer[:2])
            server.sendto(data, peer)


if __name__ == "__main__":
    verbs = (connect, listen, many_clients, many_served, echo_datagrams)
    verb = next(verb for verb in verbs if verb.__name__ == sys.argv[1])
    print(json.dumps(verb(*sys.argv[2:])), flush=True)
