"""Prefixes, and the interface identifiers that nobody may use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.address.prefix import Prefix
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse, parse_prefix, to_text


def prefix(text: str) -> Prefix:
    return Prefix(*parse_prefix(text))


@given(st.integers(8, 120), st.data())
def test_every_identifier_makes_an_address_inside_and_comes_back(length: int, data: st.DataObject) -> None:
    network = (0x2001_0DB8 << 96) >> (128 - length) << (128 - length)
    ours = Prefix(Address(network.to_bytes(16, "big")), length)
    identifier = data.draw(st.integers(0, ours.size - 1))
    address = ours.make(identifier)
    assert ours.contains(address)
    assert ours.identifier_of(address) == identifier


def test_its_neighbours_lie_outside() -> None:
    ours = prefix("2001:db8:0:5::/64")
    assert not ours.contains(parse("2001:db8:0:4:ffff:ffff:ffff:ffff"))
    assert not ours.contains(parse("2001:db8:0:6::"))


@pytest.mark.rule("UM-13.f", "RFC 5453")
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0x0000_0000_0000_0000, 0x0000_0000_0000_0000),  # subnet-router anycast
        (0x0200_5EFF_FE00_0000, 0x0200_5EFF_FE00_5212),  # IANA's Ethernet block
        (0x0200_5EFF_FE00_5213, 0x0200_5EFF_FE00_5213),  # Proxy Mobile IPv6
        (0x0200_5EFF_FE00_5214, 0x0200_5EFF_FEFF_FFFF),
        (0xFDFF_FFFF_FFFF_FF80, 0xFDFF_FFFF_FFFF_FFFF),  # subnet anycast, RFC 2526
    ],
)
def test_reserved_identifiers_of_64_bits_are_unfit(low: int, high: int) -> None:
    ours = prefix("2001:db8::/64")
    for identifier in {low, (low + high) // 2, high}:
        assert not ours.is_fit(identifier)


@pytest.mark.rule("UM-13.f", "RFC 5453")
@pytest.mark.parametrize(
    "identifier",
    [1, 0x0200_5EFF_FDFF_FFFF, 0x0200_5EFF_FF00_0000, 0xFDFF_FFFF_FFFF_FF7F, 0xFE00_0000_0000_0000, (1 << 64) - 1],
)
def test_their_neighbours_are_fit(identifier: int) -> None:
    assert prefix("2001:db8::/64").is_fit(identifier)


@pytest.mark.rule("UM-13.f", "RFC 2526")
@pytest.mark.parametrize("length", [120, 112, 96, 65])
def test_with_another_length_zero_and_the_highest_128_are_unfit(length: int) -> None:
    ours = prefix(f"2001:db8::/{length}")
    assert not ours.is_fit(0)
    assert ours.is_fit(1)
    assert ours.is_fit(ours.size - 129)
    assert not ours.is_fit(ours.size - 128)
    assert not ours.is_fit(ours.size - 1)


@pytest.mark.rule("UM-13.f")
def test_a_wider_prefix_respects_the_reserved_identifiers_of_each_of_its_subnets() -> None:
    ours = prefix("2001:db8::/48")
    subnet = 7 << 64
    assert not ours.is_fit(subnet)
    assert not ours.is_fit(subnet | 0xFDFF_FFFF_FFFF_FFFF)
    assert ours.is_fit(subnet | 1)
    assert not ours.is_fit(ours.size - 1)


@pytest.mark.rule("UM-13.m")
def test_workers_get_sub_prefixes_that_share_nothing() -> None:
    ours = prefix("2001:db8::/62")
    parts = [ours.part(index, 2) for index in range(4)]
    assert [part.text for part in parts] == [
        "2001:db8::/64",
        "2001:db8:0:1::/64",
        "2001:db8:0:2::/64",
        "2001:db8:0:3::/64",
    ]
    assert all(part.overlaps(ours) and ours.overlaps(part) for part in parts)
    assert not any(a.overlaps(b) for a in parts for b in parts if a is not b)
    with pytest.raises(BadArgument, match="part 4 of 4"):
        ours.part(4, 2)


@pytest.mark.parametrize(
    ("network", "length", "says"),
    [
        ("2001:db8::", 121, "allowed is 8 to 120"),
        ("2000::", 7, "allowed is 8 to 120"),
        ("2001:db8::1", 64, "bits set beyond"),
        ("ff00::", 8, "multicast"),
        ("::", 64, "loopback"),
    ],
)
def test_a_prefix_in_which_no_session_can_live_is_refused(network: str, length: int, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        Prefix(parse(network), length)


def test_equal_prefixes_are_one_key_and_show_their_text() -> None:
    assert {prefix("2001:db8::/64"), prefix("2001:db8::/64")} == {prefix("2001:db8::/64")}
    assert prefix("2001:db8::/64") != prefix("2001:db8::/65")
    assert "2001:db8::/64" in repr(prefix("2001:db8::/64"))
    assert to_text(prefix("2001:db8::/64").network) == "2001:db8::"
    with pytest.raises(BadArgument, match="16 packed bytes"):
        Prefix(Address(b"short"), 64)
