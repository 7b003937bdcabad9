"""Socket addresses as scripts write them; the names of the vendors' test network mean the two ends here."""

import errno
import socket as stdlib
from collections.abc import Callable

from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.symbols import Value


def address_of(
    given: Value, default: bytes | None, port: int, meaning: Callable[[str], bytes | None], wild: bytes | None
) -> tuple[bytes | None, int]:
    """The address and port that `given` says, as far as it says any; `wild` is what `::` means.

    `meaning` knows names and addresses as text; None: one of a network that is not here.
    """
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
        if text in ("0.0.0.0", "::"):  # noqa: S104 - what a script says, not what is bound
            host = wild
            continue
        try:
            host = meaning(text) or default
        except ValueError:
            raise CallError(errno.EINVAL) from None
    return host, port
