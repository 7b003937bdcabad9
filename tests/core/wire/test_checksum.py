"""Checksum arithmetic modulo 65,535, against dpkt and against RFC 1071's own algorithm."""

import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.wire.checksum import checksum_ok, complement, internet_checksum, pseudo_sum, sum16, update

PAIRS = st.binary(min_size=32, max_size=32)
PROTOCOLS = st.sampled_from([6, 17, 58])


def naive(data: bytes) -> int:
    """RFC 1071 4.1, word by word: the folded sum, not complemented."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) % 2)):
        total += word
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def whole(pair: bytes, protocol: int, message: bytes) -> bytes:
    return pair + struct.pack(">II", len(message), protocol) + message


@given(st.binary(max_size=300))
def test_sum_is_the_naive_sum_modulo_65535(data: bytes) -> None:
    assert sum16(data) == naive(data) % 65535
    assert sum16(memoryview(data)) == sum16(bytearray(data)) == sum16(data)


@given(PAIRS, PROTOCOLS, st.binary(max_size=300))
def test_checksum_is_dpkts(pair: bytes, protocol: int, message: bytes) -> None:
    # dpkt gives the field in the byte order of this machine's words, already swapped to network order
    assert internet_checksum(pair, protocol, message) == dpkt.dpkt.in_cksum(whole(pair, protocol, message))


@given(PAIRS, PROTOCOLS, st.binary(min_size=2, max_size=300))
def test_a_message_with_its_checksum_is_ok_and_any_changed_word_is_not(
    pair: bytes, protocol: int, message: bytes
) -> None:
    message = b"\0\0" + message[2:]
    message = internet_checksum(pair, protocol, message).to_bytes(2, "big") + message[2:]
    packet = b"vnethdr..." + bytes(8) + pair + message
    assert checksum_ok(packet, 10, 50, len(packet), protocol)
    for at in range(50, len(packet)):
        damaged = bytearray(packet)
        damaged[at] ^= 0x10
        assert not checksum_ok(bytes(damaged), 10, 50, len(packet), protocol)


@given(PAIRS, PROTOCOLS, st.binary(max_size=60))
def test_ok_is_what_the_naive_receiver_says(pair: bytes, protocol: int, message: bytes) -> None:
    packet = bytes(8) + pair + message
    assert checksum_ok(packet, 0, 40, len(packet), protocol) == (naive(whole(pair, protocol, message)) == 0xFFFF)


def test_both_zeros_of_ones_complement_are_taken_by_the_receiver() -> None:
    # A checksum of 0 and of 0xFFFF are the same number; a receiver's sum is 0xFFFF either way.
    pair = bytes(32)
    message = bytes(2) + (65535 - 17 - 4).to_bytes(2, "big")
    assert internet_checksum(pair, 17, message) == 0
    assert checksum_ok(bytes(40) + message, 0, 40, 44, 17)
    assert checksum_ok(bytes(40) + b"\xff\xff" + message[2:], 0, 40, 44, 17)


@pytest.mark.parametrize(("total", "field"), [(0, 0), (65535, 0), (1, 65534), (65534, 1), (65536, 65534)])
def test_complement_never_gives_negative_zero(total: int, field: int) -> None:
    assert complement(total) == field


@given(PAIRS, st.integers(0, 65535), PROTOCOLS)
def test_pseudo_header_is_symmetric_and_the_naive_one(pair: bytes, length: int, protocol: int) -> None:
    assert pseudo_sum(pair, length, protocol) == naive(pair + struct.pack(">II", length, protocol)) % 65535
    assert pseudo_sum(pair[16:] + pair[:16], length, protocol) == pseudo_sum(pair, length, protocol)


@given(st.binary(min_size=4, max_size=40), st.integers(0, 65535), st.integers(0, 19))
def test_update_equals_computing_anew(message: bytes, new: int, word: int) -> None:
    message += b"\0" * (len(message) % 2)
    at = word % (len(message) // 2) * 2
    old = int.from_bytes(message[at : at + 2], "big")
    changed = message[:at] + new.to_bytes(2, "big") + message[at + 2 :]
    assert update(complement(sum16(message)), old, new) == complement(sum16(changed))
