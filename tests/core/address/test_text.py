"""Addresses as text and as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.errors import AddressMalformed
from umuxstack.core.units import Address
from umuxstack.core.wire import address as wire

SIXTEEN = st.binary(min_size=16, max_size=16).map(Address)


@given(SIXTEEN)
def test_text_names_exactly_one_address(address: Address) -> None:
    assert wire.parse(wire.to_text(address)) == address


def test_text_is_in_the_canonical_form() -> None:
    assert wire.to_text(wire.parse("2001:DB8:0:0:0:0:0:0080")) == "2001:db8::80"


@pytest.mark.parametrize("text", ["", "1.2.3.4", "2001:db8::/64", "fe80::1%eth0", "::1 ", "2001:db8:::1", "é", "::g"])
def test_what_is_not_an_address_is_malformed(text: str) -> None:
    with pytest.raises(AddressMalformed):
        wire.parse(text)


@given(SIXTEEN, st.integers(0, 128))
def test_a_prefix_holds_its_text_and_its_addresses(address: Address, length: int) -> None:
    first = wire.first_of(address, length)
    assert wire.parse_prefix(f"{wire.to_text(first)}/{length}") == (first, length)
    assert wire.in_prefix(address, first, length)


@given(SIXTEEN, st.integers(1, 128))
def test_an_address_that_differs_within_the_length_lies_outside(address: Address, length: int) -> None:
    flipped = int.from_bytes(address, "big") ^ 1 << (128 - length)
    assert not wire.in_prefix(flipped.to_bytes(16, "big"), wire.first_of(address, length), length)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2001:db8::", "has no length"),
        ("2001:db8::/", "allowed is 0 to 128"),
        ("2001:db8::/129", "allowed is 0 to 128"),
        ("2001:db8::/-1", "allowed is 0 to 128"),
        ("2001:db8::/٣", "allowed is 0 to 128"),
        ("2001:db8::1/64", "the prefix is 2001:db8::/64"),
    ],
)
def test_a_refused_prefix_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(AddressMalformed, match=says):
        wire.parse_prefix(text)


def test_fifteen_bytes_have_no_text() -> None:
    with pytest.raises(AddressMalformed, match="16 bytes, not 15"):
        wire.to_text(bytes(15))


@pytest.mark.rule("UM-2.a")
def test_a_pair_is_remote_then_local_as_a_received_header_shows_them() -> None:
    remote, local = wire.parse("2001:db8::1"), wire.parse("2001:db8:1::2")
    assert wire.pair(remote, local) == remote + local


@pytest.mark.rule("UM-2.c")
def test_the_pair_of_a_quoted_packet_is_reversed() -> None:
    remote, local = wire.parse("2001:db8::1"), wire.parse("2001:db8:1::2")
    sent = local + remote  # source and destination of what we sent
    assert wire.reversed_pair(sent) == wire.pair(remote, local)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("::", {"unspecified"}),
        ("::1", {"loopback"}),
        ("ff02::1", {"multicast"}),
        ("fe80::1", {"link_local"}),
        ("febf::1", {"link_local"}),
        ("fec0::1", set()),
        ("::ffff:192.0.2.1", {"ipv4_mapped"}),
        ("2001:db8::1", set()),
    ],
)
def test_kinds_of_addresses(text: str, kinds: set[str]) -> None:
    address = wire.parse(text)
    found = {
        kind
        for kind in ("unspecified", "loopback", "multicast", "link_local", "ipv4_mapped")
        if getattr(wire, f"is_{kind}")(address)
    }
    assert found == kinds


def test_solicited_node_group() -> None:
    assert wire.to_text(wire.solicited_node(wire.parse("2001:db8::12:3456:789a"))) == "ff02::1:ff56:789a"
