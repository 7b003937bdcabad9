"""The pool: ready addresses, watermarks, and who may choose an address himself."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umuxstack.core.address.pool import REFILL_BUDGET, AddressPool
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import RandomScheme, SealedScheme, scheme_for
from umuxstack.core.config import PoolPolicy
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import (
    AddressInUse,
    AddressMalformed,
    AddressNotOurs,
    AddressUsed,
    LocalError,
    PoolExhausted,
    WouldBlock,
)
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse, parse_prefix

KEY = bytes(range(32))


class Held:
    """Addresses that somebody holds; stands in for the lease table."""

    def __init__(self) -> None:
        self.addresses: set[Address] = set()

    def __call__(self, address: Address) -> bool:
        return address in self.addresses


def prefix(length: int = 64) -> Prefix:
    return Prefix(*parse_prefix(f"2001:db8::/{length}"))


def sealed_pool(
    low: int = 4, high: int = 10, *, length: int = 64, ceiling: int | None = None, held: Held | None = None
) -> AddressPool:
    ours = prefix(length)
    scheme = SealedScheme(ours, KEY, ceiling=ceiling)
    return AddressPool(ours, scheme, PoolPolicy(low=low, high=high), held or Held())


def random_pool(held: Held, *, length: int = 64) -> AddressPool:
    ours = prefix(length)
    return AddressPool(ours, RandomScheme(ours, Entropy(b"seed")), PoolPolicy(low=4, high=10), held)


def fill(pool: AddressPool) -> None:
    while pool.filling:
        pool.refill()


@pytest.mark.rule("UM-9.a")
def test_a_new_pool_fills_up_to_the_high_watermark_and_rests() -> None:
    pool = sealed_pool()
    fill(pool)
    assert pool.level == 10
    pool.refill()
    assert pool.level == 10


@pytest.mark.rule("UM-9.a")
def test_it_refills_only_after_falling_below_the_low_watermark() -> None:
    pool = sealed_pool(low=4, high=10)
    fill(pool)
    levels = []
    for _ in range(8):
        pool.take()
        pool.refill()
        levels.append(pool.level)
    assert levels == [9, 8, 7, 6, 5, 4, 10, 9]


@pytest.mark.rule("UM-9.a")
def test_a_refill_does_a_bounded_piece_of_work() -> None:
    pool = sealed_pool(low=50, high=100)
    pool.refill()
    assert pool.level == REFILL_BUDGET
    assert pool.filling
    pool.refill(budget=3)
    assert pool.level == REFILL_BUDGET + 3


@pytest.mark.rule("UM-9.b", "UM-9.c", "UM-9.d")
def test_hits_and_misses_are_counted_and_an_empty_pool_makes_one_on_the_spot() -> None:
    pool = sealed_pool(low=1, high=2)
    taken = [pool.take()]
    pool.refill()
    taken += [pool.take() for _ in range(3)]
    statistics = pool.statistics()
    assert (statistics.hits, statistics.misses, statistics.issued, statistics.level) == (2, 2, 4, 0)
    assert len(set(taken)) == 4


@pytest.mark.rule("UM-9.c")
def test_a_pool_of_size_zero_makes_every_address_on_the_spot() -> None:
    pool = sealed_pool(low=0, high=0)
    pool.refill()
    pool.take()
    pool.take()
    assert not pool.filling
    assert (pool.statistics().hits, pool.statistics().misses, pool.level) == (0, 2, 0)


def test_with_a_low_watermark_of_zero_it_refills_when_empty() -> None:
    pool = sealed_pool(low=0, high=2)
    levels = []
    for _ in range(4):
        pool.refill()
        levels.append(pool.level)
        pool.take()
    assert levels == [2, 1, 2, 1]


@pytest.mark.rule("UM-13.j")
def test_a_pool_without_grants_runs_dry_with_an_error_and_recovers_by_the_next_grant() -> None:
    pool = sealed_pool(low=4, high=10, ceiling=3)
    fill(pool)
    assert pool.level == 3
    first = [pool.take() for _ in range(3)]
    with pytest.raises(PoolExhausted, match="not granted"):
        pool.take()
    assert pool.scheme.wants_grant
    pool.grant(1000)
    fill(pool)
    assert pool.level == 10
    assert not {pool.take() for _ in range(10)} & set(first)


@pytest.mark.rule("UM-13.b")
def test_a_used_up_prefix_says_so() -> None:
    pool = sealed_pool(length=120)
    taken = set()
    for _ in range(127):
        pool.refill()
        taken.add(pool.take())
    assert len(taken) == 127
    with pytest.raises(PoolExhausted, match="used up"):
        pool.take()
    assert pool.statistics().remaining == 0


@pytest.mark.rule("UM-13.a")
def test_random_addresses_are_checked_against_live_and_ready_ones() -> None:
    held = Held()
    pool = random_pool(held, length=120)
    fill(pool)
    for _ in range(127):
        address = pool.take()
        assert address not in held.addresses
        held.addresses.add(address)
        pool.refill()
    assert pool.level == 0
    with pytest.raises(PoolExhausted):
        pool.take()


# What a user chooses


@pytest.mark.rule("UM-12.a", "UM-13.g")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_a_reserved_address_is_never_handed_out_and_cannot_be_reserved_again(scheme: str) -> None:
    ours = prefix(120)
    pool = AddressPool(ours, scheme_for(scheme, ours, Entropy(b"seed")), PoolPolicy(low=4, high=10), Held())
    chosen = parse("2001:db8::7")
    pool.reserve(chosen)
    with pytest.raises(AddressUsed):
        pool.reserve(chosen)
    taken = set()
    for _ in range(126):
        pool.refill()
        taken.add(pool.take())
    assert chosen not in taken


@pytest.mark.rule("UM-13.g")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_an_address_that_lies_ready_may_be_chosen_and_leaves_the_pool(scheme: str) -> None:
    ours = prefix(64)
    made = scheme_for(scheme, ours, Entropy(b"seed")).next()  # the first that this seed gives
    pool = AddressPool(ours, scheme_for(scheme, ours, Entropy(b"seed")), PoolPolicy(low=4, high=10), Held())
    fill(pool)
    pool.examine(made)
    pool.reserve(made)
    assert pool.level == 9
    assert made not in {pool.take() for _ in range(20)}
    with pytest.raises(AddressUsed):
        pool.reserve(made)


@pytest.mark.rule("UM-12.a", "UM-24.h", "UM-24.i")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_an_address_that_had_its_session_is_refused(scheme: str) -> None:
    held = Held()
    ours = prefix(64)
    pool = AddressPool(ours, scheme_for(scheme, ours, Entropy(b"seed")), PoolPolicy(), held)
    address = pool.take()
    held.addresses.add(address)
    with pytest.raises(AddressInUse):
        pool.reserve(address)
    held.addresses.clear()
    with pytest.raises(AddressUsed):
        pool.reserve(address)


@pytest.mark.rule("UM-24.g", "UM-24.h", "UM-24.j")
@pytest.mark.parametrize(
    ("address", "error"),
    [
        (parse("2001:db8:1::1"), AddressNotOurs),
        (parse("ff02::1"), AddressNotOurs),
        (parse("2001:db8::"), AddressMalformed),
        (parse("2001:db8::fdff:ffff:ffff:ff80"), AddressMalformed),
        (Address(b"short"), AddressMalformed),
        (parse("2001:db8::5"), AddressInUse),
    ],
)
def test_a_refused_choice_changes_nothing(address: Address, error: type[LocalError]) -> None:
    held = Held()
    held.addresses.add(parse("2001:db8::5"))
    pool = sealed_pool(held=held)
    fill(pool)
    before = pool.statistics()
    with pytest.raises(error):
        pool.examine(address)
    with pytest.raises(error):
        pool.reserve(address)
    with pytest.raises(error):
        pool.set_aside(address)
    assert pool.statistics() == before


@pytest.mark.rule("UM-13.k")
def test_an_unrecorded_choice_is_refused_and_nothing_changes() -> None:
    pool = sealed_pool(ceiling=100)
    address = parse("2001:db8::4")
    with pytest.raises(WouldBlock):
        pool.reserve(address)
    pool.examine(address)


@pytest.mark.rule("UM-26")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_a_service_address_may_be_set_aside_again_but_is_nobodys_session(scheme: str) -> None:
    ours = prefix(120)
    pool = AddressPool(ours, scheme_for(scheme, ours, Entropy(b"seed")), PoolPolicy(low=40, high=127), Held())
    fill(pool)
    service = parse("2001:db8::50")  # made already, and lies ready
    pool.set_aside(service)
    pool.set_aside(service)
    taken = {pool.take() for _ in range(pool.level)}
    assert service not in taken
    assert len(taken) == 126


def test_statistics_are_a_frozen_picture() -> None:
    statistics = sealed_pool(low=4, high=10, ceiling=3).statistics()
    assert attrs.asdict(statistics) == {
        "scheme": "sealed",
        "level": 0,
        "low": 4,
        "high": 10,
        "hits": 0,
        "misses": 0,
        "issued": 0,
        "remaining": 1 << 64,
        "granted": 3,
    }


@pytest.mark.rule("UM-9", "UM-12.a", "UM-13.b")
@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.sampled_from(["take", "refill", "end"]), st.integers(0, 255)), max_size=300),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_whatever_happens_no_sealed_address_has_two_sessions(steps: list[str | int], low: int, more: int) -> None:
    """Takes, refills, retirements and choices in any order, over a prefix small enough to run out."""
    held = Held()
    pool = sealed_pool(low, low + more, length=120, held=held)
    ever: set[Address] = set()
    for step in steps:
        address = None
        if step == "refill":
            pool.refill(3)
        elif step == "end":
            if held.addresses:
                held.addresses.pop()
        elif step == "take":
            try:
                address = pool.take()
            except PoolExhausted:
                assert pool.statistics().remaining == 0
        else:
            assert isinstance(step, int)
            chosen = pool.prefix.make(step)
            try:
                pool.reserve(chosen)
                address = chosen
            except (AddressUsed, AddressInUse):
                assert chosen in ever
            except AddressMalformed:
                assert not pool.prefix.is_fit(step)
        if address is not None:
            assert address not in ever
            ever.add(address)
            held.addresses.add(address)
