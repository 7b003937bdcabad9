"""Addresses: text to 16 packed bytes and back, pairs, and questions about an address.

The one place in the core where `ipaddress` is used, and only for text: nothing
here but `pair`, `reversed_pair` and `in_prefix` belongs near a packet.
RFC 4291 (kinds), RFC 5952 (text).
"""

# 8504-11.1-1

from ipaddress import AddressValueError, IPv6Address
from typing import Final

from umuxstack.core.errors import AddressMalformed
from umuxstack.core.units import UNSPECIFIED, Address, Pair

LENGTH: Final = 16
BITS: Final = 128

LOOPBACK: Final = Address(bytes(15) + b"\x01")


def parse(text: str) -> Address:
    """One address from its text. Raises AddressMalformed; a zone ("fe80::1%eth0") is malformed as well."""
    if "%" in text:
        raise AddressMalformed(f"{text!r} names a zone; the stack has one link, leave %{text.partition('%')[2]} away")
    try:
        return Address(IPv6Address(text).packed)
    except AddressValueError as error:
        raise AddressMalformed(f"{text!r} is not an IPv6 address: {error}") from error


def parse_prefix(text: str) -> tuple[Address, int]:
    """First address and length of "2001:db8::/64". Raises AddressMalformed, also for bits set beyond the length."""
    head, slash, tail = text.partition("/")
    if not slash:
        raise AddressMalformed(f"{text!r} has no length; a prefix looks like 2001:db8::/64")
    address = parse(head)
    if not (tail.isascii() and tail.isdigit() and int(tail) <= BITS):
        raise AddressMalformed(f"{text!r} has {tail!r} for a length; allowed is 0 to {BITS}")
    length = int(tail)
    first = first_of(address, length)
    if first != address:
        raise AddressMalformed(f"{text!r} has bits set beyond its length; the prefix is {to_text(first)}/{length}")
    return address, length


def to_text(address: bytes) -> str:
    """RFC 5952's form. Raises AddressMalformed unless there are 16 bytes."""
    if len(address) != LENGTH:
        raise AddressMalformed(f"an IPv6 address has {LENGTH} bytes, not {len(address)}")
    return IPv6Address(address).compressed


def pair(remote: Address, local: Address) -> Pair:
    """What a session is: remote then local, as a received header shows them."""
    return Pair(remote + local)


def reversed_pair(quoted: bytes) -> Pair:
    """The pair of the session that sent a packet, from source and destination as *it* shows them (UM-39)."""
    return Pair(quoted[LENGTH:] + quoted[:LENGTH])


def first_of(address: Address, length: int) -> Address:
    """`address` with every bit beyond `length` cleared."""
    host_bits = BITS - length
    return Address((int.from_bytes(address, "big") >> host_bits << host_bits).to_bytes(LENGTH, "big"))


def in_prefix(address: bytes, prefix: bytes, length: int) -> bool:
    """Whether the first `length` bits are the same (0 … 128)."""
    return (int.from_bytes(address, "big") ^ int.from_bytes(prefix, "big")) >> (BITS - length) == 0


def is_unspecified(address: bytes) -> bool:
    return address == UNSPECIFIED


def is_loopback(address: bytes) -> bool:
    return address == LOOPBACK


def is_multicast(address: bytes) -> bool:
    return address[0] == 0xFF  # RFC 4291 2.7


def is_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80  # fe80::/10, RFC 4291 2.5.6


def is_ipv4_mapped(address: bytes) -> bool:
    return address[:12] == bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2


def solicited_node(address: bytes) -> Address:
    """The group that neighbour solicitations for `address` are sent to (RFC 4291 2.7.1)."""
    return Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + address[13:])
