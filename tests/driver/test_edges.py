"""The driver's edges: times, errors and addresses, from inside to outside and back."""

import errno
import os
from ipaddress import IPv6Address, IPv6Network

import pytest
import trio
from trio.testing import MockClock

from umuxstack.core import errors
from umuxstack.core.errors import AddressMalformed, LocalError, Reason
from umuxstack.core.units import NEVER, Address, Micros
from umuxstack.driver.addresses import to_address, to_prefix
from umuxstack.driver.clock import Clock
from umuxstack.driver.errno_map import LOCAL_ERRNO, REASON_ERRNO, local_error, reason_error
from umuxstack.driver.readiness import OneTask, Owner, Waiters
from umuxstack.driver.tcp_info import LINUX_STATE

LOCAL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LocalError)]


# errors


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_an_errno_and_is_named(reason: Reason) -> None:
    error = reason_error(reason)
    assert error.errno == REASON_ERRNO[reason]
    assert reason == Reason.NONE or error.errno in errno.errorcode
    assert reason.name.lower().replace("_", " ") in str(error)


@pytest.mark.parametrize("kind", LOCAL_ERRORS)
def test_every_local_error_has_an_errno_of_its_own_row(kind: type[LocalError]) -> None:
    assert kind in LOCAL_ERRNO
    error = local_error(kind("what was wrong"))
    assert (error.errno, str(error).endswith("(what was wrong)")) == (LOCAL_ERRNO[kind], True)


def test_a_local_error_from_elsewhere_takes_its_familys_errno() -> None:
    class Special(errors.AddressInUse):
        """Not in the table."""

    assert local_error(Special()).errno == errno.EADDRINUSE
    assert str(local_error(Special())) == f"[Errno {errno.EADDRINUSE}] {os.strerror(errno.EADDRINUSE)}"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.REFUSED, ConnectionRefusedError),
        (Reason.RESET, ConnectionResetError),
        (Reason.TIMED_OUT, TimeoutError),
        (Reason.PROHIBITED, PermissionError),
        (Reason.CLOSED, BrokenPipeError),
    ],
)
def test_python_picks_the_exception_that_programs_catch(reason: Reason, kind: type[OSError]) -> None:
    assert type(reason_error(reason)) is kind


def test_every_tcp_state_has_linuxs_number() -> None:
    assert sorted(LINUX_STATE.values()) == list(range(1, 12))


# time


async def test_the_clock_starts_at_0_and_counts_microseconds(autojump_clock: MockClock) -> None:
    await trio.sleep(5)
    clock = Clock()
    assert clock.now() == 0
    await trio.sleep(0.000_25)
    assert clock.now() == 250


async def test_when_trio_says_that_a_deadline_has_come_the_clock_agrees() -> None:
    """A clock that rounds down is one microsecond early, and the pump would spin on virtual time."""
    clock = Clock()
    for deadline in map(Micros, (1, 3, 7, 333_333, 123_456_789, 10**12 + 1)):
        await trio.sleep_until(clock.to_trio(deadline))
        assert clock.now() == deadline


async def test_never_is_infinitely_far() -> None:
    assert Clock().to_trio(NEVER) == float("inf")


# addresses


def test_addresses_are_taken_in_every_usual_form() -> None:
    packed = Address(IPv6Address("2001:db8::1").packed)
    assert to_address("2001:db8::1") == to_address(IPv6Address("2001:db8::1")) == to_address(packed) == packed


@pytest.mark.parametrize("value", ["example.org", "", "1.2.3.4", "fe80::1%eth0", b"short", 7, None])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(AddressMalformed):
        to_address(value)  # type: ignore[arg-type]


def test_prefixes_are_taken_with_and_without_a_length() -> None:
    packed = Address(IPv6Address("2001:db8::").packed)
    assert to_prefix("2001:db8::/32") == to_prefix(IPv6Network("2001:db8::/32")) == (packed, 32)
    assert to_prefix("2001:db8::") == to_prefix(IPv6Address("2001:db8::")) == (packed, 128)
    for wrong in ("2001:db8::1/32", "2001:db8::/129", "/64", "all"):
        with pytest.raises(AddressMalformed):
            to_prefix(wrong)


# waiting


async def test_a_second_task_is_refused_and_the_first_may_come_again() -> None:
    busy = OneTask("painting")
    with busy, pytest.raises(trio.BusyResourceError, match="painting"), busy:
        raise AssertionError("not reached")
    with busy:
        pass


async def test_waking_an_empty_seat_and_cancelling_a_waiter_do_nothing_later() -> None:
    waiters = Waiters()
    waiters.reader.wake()
    with trio.move_on_after(1) as scope:
        await waiters.reader.wait()
    assert scope.cancelled_caught
    waiters.reader.wake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiters.reader.wait)
        await trio.testing.wait_all_tasks_blocked()
        waiters.reader.wake()


def test_an_owner_without_a_meaning_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        Owner().on_ready(None)  # type: ignore[arg-type]
