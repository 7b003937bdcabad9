"""Packets for the tests: written by struct, read back by dpkt, checksums verified by neither of our own codes."""

import socket
import struct
from typing import Any

import dpkt

from tun.device import Outgoing, Packet

TCP = 6
UDP = 17
ICMPV6 = 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


def ipv6(source: str, destination: str, protocol: int, length: int) -> bytes:
    return struct.pack("!IHBB", 6 << 28, length, protocol, 64) + address(source) + address(destination)


def folded_sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def pseudo_sum(source: str, destination: str, protocol: int, length: int) -> int:
    return folded_sum(address(source) + address(destination) + struct.pack("!II", length, protocol))


def echo_request(source: str, destination: str, data: bytes = b"umux") -> Outgoing:
    """Complete: ICMPv6 has no checksum offload here."""
    body = struct.pack("!BBHHH", 128, 0, 0, 7, 1) + data
    checksum = 0xFFFF - folded_sum(
        address(source) + address(destination) + struct.pack("!II", len(body), ICMPV6) + body
    )
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    return ipv6(source, destination, ICMPV6, len(body)) + body, b"", 0, 0


def udp(source: tuple[str, int], destination: tuple[str, int], data: bytes) -> Outgoing:
    """With the checksum left to the kernel."""
    length = 8 + len(data)
    header = struct.pack("!HHHH", source[1], destination[1], length, pseudo_sum(source[0], destination[0], UDP, length))
    return ipv6(source[0], destination[0], UDP, length) + header, data, 0, 6


def tcp(
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: int,
    sequence: int,
    acknowledged: int,
    data: bytes = b"",
    gso_size: int = 0,
    options: bytes = b"",
) -> Outgoing:
    """With the checksum left to the kernel; `gso_size` > 0: a super-segment."""
    length = 20 + len(options) + len(data)
    header = struct.pack(
        "!HHIIBBHHH",
        source[1],
        destination[1],
        sequence,
        acknowledged,
        (20 + len(options)) // 4 << 4,
        flags,
        65535,
        pseudo_sum(source[0], destination[0], TCP, length),
        0,
    )
    return ipv6(source[0], destination[0], TCP, length) + header + options, data, gso_size, 16


def decode(packet: Packet) -> Any:
    """dpkt's view of what was read."""
    buf, base, _, _ = packet
    return dpkt.ip6.IP6(buf[base:])


def checksum_is_complete(packet: Packet) -> bool:
    """Whether the upper checksum is right as it stands."""
    buf, base, _, _ = packet
    upper = buf[base + 40 :]
    pseudo = buf[base + 8 : base + 40] + struct.pack("!II", len(upper), buf[base + 6])
    return folded_sum(pseudo + upper) == 0xFFFF
