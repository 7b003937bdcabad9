"""How interface identifiers are chosen: nothing twice, nothing reserved, nothing that a user chose."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umuxstack.core.address import scheme as scheme_module
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import GRANT_THRESHOLD, RandomScheme, Scheme, SealedScheme, scheme_for
from umuxstack.core.config import StackConfig
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import (
    AddressNotOurs,
    AddressUsed,
    BadArgument,
    NoMemory,
    PoolExhausted,
    WouldBlock,
)
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse, parse_prefix

KEY = bytes(range(32))
KEYS = st.binary(min_size=32, max_size=32)


def prefix(length: int, network: str = "2001:db8::") -> Prefix:
    return Prefix(*parse_prefix(f"{network}/{length}"))


def all_of(scheme: Scheme) -> list[Address]:
    addresses = []
    try:
        while True:
            addresses.append(scheme.next())
    except PoolExhausted:
        return addresses


# sealed: a permutation


@pytest.mark.rule("UM-13.b")
@pytest.mark.parametrize("host_bits", [8, 9, 10, 11, 13, 16])
def test_sealing_is_one_to_one_over_the_whole_prefix(host_bits: int) -> None:
    sealed = SealedScheme(prefix(128 - host_bits), KEY)
    assert sorted(sealed.seal(counter) for counter in range(1 << host_bits)) == list(range(1 << host_bits))


@pytest.mark.rule("UM-13.e")
@given(KEYS, st.integers(8, 120), st.data())
def test_the_holder_of_the_key_maps_an_address_back(key: bytes, length: int, data: st.DataObject) -> None:
    sealed = SealedScheme(prefix(length, "2000::"), key)
    counter = data.draw(st.integers(0, sealed.prefix.size - 1))
    identifier = sealed.seal(counter)
    assert 0 <= identifier < sealed.prefix.size
    assert sealed.unseal(identifier) == counter
    assert sealed.counter_of(sealed.prefix.make(identifier)) == counter


@pytest.mark.rule("UM-13.e")
def test_another_key_maps_back_to_something_else() -> None:
    sealed, stranger = SealedScheme(prefix(64), KEY), SealedScheme(prefix(64), bytes(32))
    addresses = [sealed.next() for _ in range(100)]
    assert [sealed.counter_of(address) for address in addresses] == list(range(100))
    assert all(stranger.counter_of(address) > 1 << 32 for address in addresses)


@pytest.mark.rule("UM-13.c")
def test_each_prefix_has_a_key_of_its_own() -> None:
    one, other = SealedScheme(prefix(64), KEY), SealedScheme(prefix(64, "2001:db8:0:1::"), KEY)
    assert one.seal(0) != other.seal(0)


@pytest.mark.rule("UM-13.b")
def test_neighbouring_counters_share_no_pattern() -> None:
    """Each host bit differs in about half of the steps: 2,000 steps, five standard deviations."""
    for length in (64, 63, 120 - 8):
        sealed = SealedScheme(prefix(length, "2000::"), KEY)
        steps = [sealed.seal(counter) ^ sealed.seal(counter + 1) for counter in range(2000)]
        for bit in range(sealed.prefix.host_bits):
            changed = sum(step >> bit & 1 for step in steps)
            assert abs(changed - 1000) < 5 * 22.4, (length, bit)


@pytest.mark.rule("UM-13.b")
def test_a_million_addresses_of_a_64_bit_prefix_are_all_different() -> None:
    sealed = SealedScheme(prefix(64), KEY)
    assert len(set(map(sealed.seal, range(1_000_000)))) == 1_000_000


@pytest.mark.rule("UM-13.b", "UM-13.f")
@settings(max_examples=10)
@given(KEYS, st.integers(118, 120))
def test_every_fit_address_comes_out_once_and_then_the_prefix_is_used_up(key: bytes, length: int) -> None:
    sealed = SealedScheme(prefix(length), key)
    addresses = all_of(sealed)
    fit = {sealed.prefix.make(i) for i in range(sealed.prefix.size) if sealed.prefix.is_fit(i)}
    assert len(addresses) == len(fit)
    assert set(addresses) == fit
    assert sealed.remaining == 0
    with pytest.raises(PoolExhausted, match="used up"):
        sealed.next()


@pytest.mark.rule("UM-13")
def test_an_address_that_somebody_holds_is_skipped() -> None:
    held = SealedScheme(prefix(120), KEY).next()
    sealed = SealedScheme(prefix(120), KEY)
    assert sealed.next(lambda address: address != held) != held
    assert held not in all_of(sealed)


# sealed: ranges and grants


@pytest.mark.rule("UM-13.m")
def test_workers_with_disjoint_ranges_never_meet() -> None:
    ours = prefix(118)
    bounds = [0, 300, 700, 1024]
    workers = [SealedScheme(ours, KEY, start=a, stop=b) for a, b in itertools.pairwise(bounds)]
    issued = [address for worker in workers for address in all_of(worker)]
    assert len(set(issued)) == len(issued)
    assert set(issued) == set(all_of(SealedScheme(ours, KEY)))


@pytest.mark.rule("UM-13.m", "UM-24.g")
def test_a_user_cannot_choose_from_another_workers_range() -> None:
    ours = prefix(118)
    second = SealedScheme(ours, KEY, start=512)
    foreign = ours.make(second.seal(700))
    first = SealedScheme(ours, KEY, stop=512)
    with pytest.raises(AddressNotOurs, match="another worker"):
        first.examine(foreign)
    second.examine(foreign)


@pytest.mark.rule("UM-13.j")
def test_nothing_is_issued_beyond_what_was_granted() -> None:
    sealed = SealedScheme(prefix(64), KEY, start=1000, ceiling=1003)
    assert [sealed.counter_of(sealed.next()) for _ in range(3)] == [1000, 1001, 1002]
    with pytest.raises(PoolExhausted, match="not granted yet"):
        sealed.next()
    assert sealed.counter == 1003
    sealed.grant(1005)
    sealed.grant(7)  # a late, lower one takes nothing back
    assert sealed.ceiling == 1005
    assert [sealed.counter_of(sealed.next()) for _ in range(2)] == [1003, 1004]
    with pytest.raises(PoolExhausted):
        sealed.next()


def test_the_next_grant_is_wanted_before_the_last_is_used_up() -> None:
    sealed = SealedScheme(prefix(64), KEY, ceiling=GRANT_THRESHOLD + 1)
    wanted = []
    for _ in range(3):
        wanted.append((sealed.granted, sealed.wants_grant))
        sealed.next()
    assert wanted == [(GRANT_THRESHOLD + 1, False), (GRANT_THRESHOLD, False), (GRANT_THRESHOLD - 1, True)]


def test_no_grant_is_wanted_at_the_end_of_the_prefix_or_without_a_ceiling() -> None:
    assert not SealedScheme(prefix(120), KEY, ceiling=10_000).wants_grant
    unlimited = SealedScheme(prefix(120), KEY)
    assert not unlimited.wants_grant
    assert unlimited.granted == unlimited.remaining == 256


@pytest.mark.parametrize("bounds", [(-1, 10), (11, 10), (0, 257)])
def test_a_range_outside_the_prefix_is_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(BadArgument, match="do not lie in 0 to 256"):
        SealedScheme(prefix(120), KEY, start=bounds[0], stop=bounds[1])


def test_a_short_key_is_refused() -> None:
    with pytest.raises(BadArgument, match="must have 32"):
        SealedScheme(prefix(64), b"short")


# sealed: addresses that a user chose


@pytest.mark.rule("UM-13.g", "UM-24.i")
@given(st.sets(st.integers(0, 255), max_size=40), st.integers(0, 20))
def test_a_chosen_address_is_never_issued(wanted: set[int], before: int) -> None:
    sealed = SealedScheme(prefix(120), KEY)
    issued = [sealed.next() for _ in range(before)]
    chosen = []
    for identifier in wanted:
        address = sealed.prefix.make(identifier)
        try:
            sealed.examine(address)
        except AddressUsed:
            continue
        sealed.choose(address)
        chosen.append(address)
        with pytest.raises(AddressUsed):
            sealed.examine(address)
    issued += all_of(sealed)
    assert len(set(issued)) == len(issued)
    assert not set(issued) & set(chosen)
    for address in chosen:  # also when the counter has passed it
        with pytest.raises(AddressUsed):
            sealed.examine(address)


@pytest.mark.rule("UM-12.a")
def test_an_issued_address_cannot_be_chosen() -> None:
    sealed = SealedScheme(prefix(64), KEY)
    address = sealed.next()
    with pytest.raises(AddressUsed):
        sealed.examine(address)


@pytest.mark.rule("UM-13.g", "UM-13.k")
def test_a_durable_scheme_refuses_a_choice_that_was_not_recorded() -> None:
    sealed = SealedScheme(prefix(64), KEY, ceiling=100)
    address = parse("2001:db8::4")  # its counter is far above the ceiling
    assert sealed.must_record(address)
    with pytest.raises(WouldBlock, match="key file"):
        sealed.choose(address)
    sealed.examine(address)  # nothing was changed
    sealed.record(address)
    assert not sealed.must_record(address)
    sealed.choose(address)
    assert not sealed.must_record(address)
    with pytest.raises(AddressUsed):
        sealed.examine(address)


@pytest.mark.parametrize(("counter", "must"), [(99, False), (100, True)])
def test_the_counter_at_the_ceiling_is_the_first_that_a_choice_must_record(counter: int, must: bool) -> None:
    """There the next run begins."""
    sealed = SealedScheme(prefix(64), KEY, ceiling=100)
    assert sealed.must_record(sealed.prefix.make(sealed.seal(counter))) is must


def test_a_choice_below_the_ceiling_needs_no_record() -> None:
    """The next run begins at the ceiling: it cannot be issued again."""
    sealed = SealedScheme(prefix(64), KEY, ceiling=100)
    address = sealed.prefix.make(sealed.seal(42))
    assert not sealed.must_record(address)
    sealed.choose(address)
    assert 42 not in [sealed.counter_of(address) for address in all_of(sealed)]


@pytest.mark.rule("UM-13.g")
def test_choices_of_earlier_runs_are_remembered() -> None:
    sealed = SealedScheme(prefix(64), KEY, start=100, ceiling=110, chosen=[3, 105, 5000])
    assert [sealed.counter_of(address) for address in all_of(sealed)] == [100, 101, 102, 103, 104, 106, 107, 108, 109]
    for counter in (3, 105, 5000):
        with pytest.raises(AddressUsed):
            sealed.examine(sealed.prefix.make(sealed.seal(counter)))


@pytest.mark.plain
def test_choices_have_a_limit_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheme_module, "MAX_CHOSEN", 2)
    sealed = SealedScheme(prefix(64), KEY)
    for last in (1, 2):
        sealed.choose(sealed.prefix.make(last))
    with pytest.raises(NoMemory, match="limit"):
        sealed.examine(sealed.prefix.make(3))


def test_an_address_set_aside_is_not_issued_and_may_be_set_aside_again() -> None:
    sealed = SealedScheme(prefix(120), KEY, ceiling=10)
    address = sealed.prefix.make(sealed.seal(200))
    sealed.set_aside(address)
    sealed.set_aside(address)
    sealed.grant(256)
    assert address not in all_of(sealed)
    sealed.set_aside(address)


def test_an_address_of_another_prefix_has_no_counter() -> None:
    with pytest.raises(AddressNotOurs):
        SealedScheme(prefix(64), KEY).counter_of(parse("2001:db9::1"))


# random


@pytest.mark.rule("UM-13.a", "UM-13.f")
def test_random_spreads_over_all_fit_identifiers() -> None:
    random = RandomScheme(prefix(120), Entropy(b"seed"))
    assert {random.prefix.identifier_of(random.next()) for _ in range(3000)} == set(range(1, 128))


@pytest.mark.rule("UM-13.a")
def test_random_gives_only_what_is_free_down_to_the_last_address() -> None:
    random = RandomScheme(prefix(120), Entropy(b"seed"))
    live: set[Address] = set()
    for _ in range(127):
        address = random.next(lambda address: address not in live)
        assert address not in live
        live.add(address)
    with pytest.raises(PoolExhausted, match="no free address"):
        random.next(lambda address: address not in live)
    last = live.pop()
    assert random.next(lambda address: address not in live) == last


def test_random_gives_up_in_a_large_prefix_where_nothing_is_free() -> None:
    random = RandomScheme(prefix(64), Entropy(b"seed"))
    with pytest.raises(PoolExhausted):
        random.next(lambda _address: False)


@pytest.mark.rule("UM-13.g")
def test_random_never_makes_what_a_user_chose() -> None:
    random = RandomScheme(prefix(120), Entropy(b"seed"))
    chosen = {random.prefix.make(identifier) for identifier in range(1, 120)}
    for address in chosen:
        random.examine(address)
        random.choose(address)
        with pytest.raises(AddressUsed):
            random.examine(address)
    assert not {random.next() for _ in range(500)} & chosen


@pytest.mark.rule("UM-12.a")
def test_random_refuses_the_choice_of_an_address_it_made() -> None:
    random = RandomScheme(prefix(64), Entropy(b"seed"))
    address = random.next()
    with pytest.raises(AddressUsed):
        random.examine(address)


@pytest.mark.plain
def test_random_forgets_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheme_module, "RANDOM_REMEMBERS", 3)
    random = RandomScheme(prefix(64), Entropy(b"seed"))
    first, *others = [random.next() for _ in range(4)]
    random.examine(first)
    for address in others:
        with pytest.raises(AddressUsed):
            random.examine(address)


def test_random_counts_nothing_and_needs_no_grant() -> None:
    random = RandomScheme(prefix(64), Entropy(b"seed"))
    random.grant(10)
    assert random.remaining is None
    assert random.granted is None
    assert not random.wants_grant


@pytest.mark.rule("UM-13.h")
def test_without_a_key_file_the_key_comes_from_the_seed_of_the_stack() -> None:
    """Each process has a seed of its own, so its key ends with it; the same seed replays the same addresses."""
    for name in ("random", "sealed"):
        one, same, other = (scheme_for(name, prefix(64), Entropy(seed)) for seed in (b"a", b"a", b"b"))
        addresses = [one.next() for _ in range(5)]
        assert one.name == name
        assert addresses == [same.next() for _ in range(5)]
        assert addresses != [other.next() for _ in range(5)]
    with pytest.raises(BadArgument, match="'sealed' or 'random'"):
        scheme_for("eui64", prefix(64), Entropy(b""))


@pytest.mark.rule("UM-13.d")
def test_sealed_is_the_default() -> None:
    config = StackConfig(prefix(64).network)
    assert isinstance(scheme_for(config.scheme, prefix(64), Entropy(b"")), SealedScheme)
