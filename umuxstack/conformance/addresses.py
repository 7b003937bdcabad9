"""Socket addresses as scripts write them; the names of the vendors' test network mean the two ends here."""

import errno
import socket as stdlib
from collections.abc import Mapping
from ipaddress import ip_address

from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.symbols import Value


def address_of(
    given: Value, default: bytes | None, port: int, names: Mapping[str, bytes], wild: bytes | None
) -> tuple[bytes | None, int]:
    """The address and port that `given` says, as far as it says any; `wild` is what `::` means."""
    if not isinstance(given, dict):
        return default, port
    host = default
    if given.get("sa_family") == stdlib.AF_UNSPEC:
        raise UnsupportedConstruct("AF_UNSPEC")
    for key in ("sin_port", "sin6_port"):
        value = given.get(key, port)
        port = value if isinstance(value, int) else port
    for key in ("sin_addr", "sin6_addr"):
        written = given.get(key)
        if not isinstance(written, bytes):
            continue
        text = written.decode()
        if text in names:
            host = names[text]
        elif text in ("0.0.0.0", "::"):  # noqa: S104 - what a script says, not what is bound
            host = wild
        else:
            host = _known_host(text, default, names)
    return host, port


def _known_host(text: str, default: bytes | None, names: Mapping[str, bytes]) -> bytes | None:
    try:
        address = ip_address(text)
    except ValueError:
        raise CallError(errno.EINVAL) from None
    if address.packed in names.values():
        return address.packed
    if address.is_multicast or str(address) == "255.255.255.255":
        same = len(address.packed) == len(names["here"])
        return address.packed if same else b"\xff\x0e" + bytes(13) + b"\1"
    return default
