"""Predicates on packets that went by, in dpkt's reading: `tcp(flags="SA", ack=101)`.

A check takes what was seen and gives the complaints, none if all is well. A
field that is not named may be anything; a field given as a function is asked.
"""

from collections.abc import Callable
from typing import Any

from umuxstack.testing.builders import AnyAddress, packed
from umuxstack.testing.decode import Seen

Check = Callable[[Seen], list[str]]


def complaints(seen: Seen, checks: tuple[Check, ...]) -> list[str]:
    """What is wrong with `seen`, by all of `checks`."""
    return [complaint for check in checks for complaint in check(seen)]


def matches(seen: Seen, *checks: Check) -> bool:
    return not complaints(seen, checks)


def require(seen: Seen, *checks: Check) -> Seen:
    """`seen` itself. Raises AssertionError with every complaint."""
    found = complaints(seen, checks)
    assert not found, f"{seen!r}: {'; '.join(found)}"
    return seen


def _fields(seen: Seen, wanted: dict[str, Any]) -> list[str]:
    found = []
    for name, value in wanted.items():
        if value is None:
            continue
        actual = getattr(seen, name)
        right = value(actual) if callable(value) else actual == value
        if not right:
            found.append(f"{name} is {actual!r}" + ("" if callable(value) else f", not {value!r}"))
    return found


def sent_from(address: AnyAddress) -> Check:
    return lambda seen: _fields(seen, {"source": packed(address)})


def sent_to(address: AnyAddress) -> Check:
    return lambda seen: _fields(seen, {"destination": packed(address)})


def network(**fields: Any) -> Check:
    """Fields of the IPv6 header: `hop_limit`, `flow`, `ecn`, `protocol`, `fragment`."""
    return lambda seen: _fields(seen, fields)


def tcp(
    flags: str | Callable[[str], bool] | None = None,
    seq: int | Callable[[int], bool] | None = None,
    ack: int | Callable[[int], bool] | None = None,
    payload: bytes | Callable[[bytes], bool] | None = None,
    **fields: Any,
) -> Check:
    """A segment. Further fields: `sport`, `dport`, `window`, `urgent`, `options`, `length`; see `Seen`.

    `flags` in the order FSRPUECA: "S", "SA", "PA", "FPA".
    """
    if isinstance(seq, int):
        seq &= 0xFFFFFFFF
    if isinstance(ack, int):
        ack &= 0xFFFFFFFF
    wanted = {"flags": flags, "seq": seq, "ack": ack, "payload": payload, **fields}

    def check(seen: Seen) -> list[str]:
        return _fields(seen, wanted) if seen.is_tcp else ["it is no TCP segment"]

    return check


def udp(payload: bytes | Callable[[bytes], bool] | None = None, **fields: Any) -> Check:
    """A datagram. Further fields: `sport`, `dport`."""

    def check(seen: Seen) -> list[str]:
        return _fields(seen, {"payload": payload, **fields}) if seen.is_udp else ["it is no UDP datagram"]

    return check


def icmp(kind: int | None = None, code: int | None = None, value: int | None = None, **fields: Any) -> Check:
    """An ICMPv6 message. Further field: `payload`, after the first eight bytes."""
    wanted = {"icmp_type": kind, "icmp_code": code, "icmp_value": value, **fields}

    def check(seen: Seen) -> list[str]:
        return _fields(seen, wanted) if seen.is_icmp else ["it is no ICMPv6 message"]

    return check


def echo_request(**fields: Any) -> Check:
    return icmp(128, 0, **fields)


def echo_reply(**fields: Any) -> Check:
    return icmp(129, 0, **fields)


def quotes(packet: bytes) -> Check:
    """An ICMPv6 error about `packet`."""

    def check(seen: Seen) -> list[str]:
        if not seen.is_icmp or seen.icmp_type >= 128:
            return ["it is no ICMPv6 error"]
        return [] if seen.quoted and packet.startswith(seen.quoted) else ["it quotes another packet"]

    return check
