"""Default address selection (RFC 6724): the rules that can apply here, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.scene import connect, end
from umuxstack.core.address.selection import choose_source, order_destinations
from umuxstack.core.errors import AddressNotOurs
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse, to_text
from umuxstack.testing.wire import Wire

KINDS = ("2001:db8::1", "fe80::1", "fd00::1", "2002::1", "fec0::1", "::1", "ff02::1", "2001:db8:1::")
SOME = st.binary(min_size=16, max_size=16).map(Address) | st.sampled_from([parse(text) for text in KINDS])


@pytest.mark.rule("8504-6.6-1", "UM-37.f")
@pytest.mark.parametrize(
    ("destination", "better", "worse"),
    [
        ("2001:db8:a::1", "2001:db8:a::1", "2001:db8:b::1"),  # rule 1: the same address
        ("2001:db8:a::1", "2001:db8:c::1", "fe80::1"),  # rule 2: too small a scope
        ("ff05::1", "2001:db8:c::1", "fe80::1"),
        ("ff02::1", "fe80::1", "2001:db8:c::1"),  # rule 2: a larger one than is needed
        ("fe80::2", "fe80::1", "2001:db8:c::1"),
        ("fec0::9", "fec0::1", "2001:db8:c::1"),
        ("2002:a00:1::1", "2002:b00:1::1", "2001:db8:b::1"),  # rule 6: the same label
        ("fd00::1", "fd77::1", "2001:db8:b::1"),
        ("2001:db8:b::9", "2001:db8:b::1", "fd77::1"),
        ("2001:db8:a::1", "2001:db8:a::2", "2001:db8:c::2"),  # rule 8: more bits in common
        ("2001:db8:a:7::1", "2001:db8:a:6::2", "2001:db8:a:8::2"),
    ],
)
def test_the_better_source_is_chosen_in_whatever_order_they_come(destination: str, better: str, worse: str) -> None:
    one, other = parse(better), parse(worse)
    for candidates in ([one, other], [other, one], [other, one, other]):
        assert choose_source(candidates, parse(destination)) == one


@pytest.mark.rule("8504-6.6-1")
def test_an_interface_identifier_decides_nothing() -> None:
    candidates = [parse("2001:db8:a::f000"), parse("2001:db8:a::1")]
    for destination in ("2001:db8:a::2", "2001:db8:a::f001"):
        assert choose_source(candidates, parse(destination)) == candidates[0]
    assert choose_source([], parse("2001:db8::1")) is None


@pytest.mark.rule("8504-6.6-2", "UM-37.f")
@pytest.mark.parametrize(
    ("first", "second", "source"),
    [
        ("2001:db8:a::1", "fe80::1", "2001:db8:a::9"),  # rule 2: the scope of the source
        ("fe80::1", "2001:db8:a::1", "fe80::9"),
        ("2001:db8:a::1", "2002:a00::1", "2001:db8:a::9"),  # rule 5: its label
        ("fd00::1", "2001:db8:a::1", "fd00::9"),
        ("2001:db8:a::1", "2002:a00::1", "fd00::9"),  # rule 6: precedence, neither label being its own
        ("2001:db8:a::1", "2001:db8:f::1", "2001:db8:b::9"),  # rule 9: bits in common
    ],
)
def test_the_better_destination_comes_first(first: str, second: str, source: str) -> None:
    for given_order in ([first, second], [second, first]):
        ordered = order_destinations([parse(text) for text in given_order], lambda _: parse(source))
        assert [to_text(address) for address in ordered] == [first, second]


@pytest.mark.rule("8504-6.6-2")
def test_what_cannot_be_reached_comes_last_and_equals_keep_their_order() -> None:
    near, far, lost = parse("2001:db8:a::1"), parse("2001:db8:a::2"), parse("2001:db8:9::1")
    ours = parse("2001:db8:a::9")
    for order in ([lost, near, far], [near, lost, far], [near, far, lost]):
        assert order_destinations(order, lambda it: None if it == lost else ours) == [near, far, lost]
    assert order_destinations([far, near], lambda _: ours) == [far, near]


@given(st.lists(SOME, min_size=1, max_size=6), SOME)
def test_any_addresses_have_an_order_that_holds_all_of_them(addresses: list[Address], other: Address) -> None:
    assert choose_source(addresses, other) in addresses
    assert sorted(order_destinations(addresses, lambda _: other)) == sorted(addresses)


@pytest.mark.rule("8504-6.6-1", "UM-37.f")
def test_a_stack_chooses_among_its_shared_addresses() -> None:
    shared = ["2001:db8:1::80", "fd00:1::80", "fe80::80"]
    wire = Wire(shared=tuple(parse(text) for text in shared))
    for peer, source in (("2001:db8:2::1", shared[0]), ("fd00:7::1", shared[1]), ("fe80::99", shared[2])):
        chosen = wire.stack.shared_source(parse(peer))
        assert to_text(chosen) == source
        assert connect(wire, peer, source=chosen).local == chosen
    wire.take()
    end(wire)
    with pytest.raises(AddressNotOurs):
        Wire().stack.shared_source(parse("2001:db8::1"))
