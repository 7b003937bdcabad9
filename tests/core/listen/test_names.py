"""Names of listeners and labels of addresses: what every place that shows them can carry, and nothing else."""

from typing import Any

import pytest

from tests.core.scene import PEER, SERVICE, address, das, end, everything, listen_0
from umuxstack.control.layout import Label, Name
from umuxstack.control.protocol import printable
from umuxstack.core import is_compiled
from umuxstack.core.errors import AddressInUse, BadArgument
from umuxstack.core.names import LONGEST_LABEL, LONGEST_NAME
from umuxstack.testing.wire import Wire

GOOD = [
    "httpd",
    "a",
    "Überall",
    "日本",
    "x.y_z-1",
    "3com",
    "tcp",
    "tcp1x",
    "n" * LONGEST_NAME,
    "é" * (LONGEST_NAME // 2),
]
BAD: list[Any] = [
    "a b\n", "a b", "a:b", "a/b", "-h", "\x1b[31m", "\ud800", "7", "tcp7", "n" * (LONGEST_NAME + 1), "é" * LONGEST_NAME,
    3, None, b"httpd", ["httpd"],
]  # fmt: skip


def refused(value: object, what: str) -> pytest.RaisesExc[Exception]:
    """A compiled core checks types before it looks at the value."""
    if is_compiled() and not isinstance(value, str):
        return pytest.raises(TypeError, match="str object expected")
    return pytest.raises(BadArgument, match=what)


@pytest.mark.parametrize("name", GOOD)
def test_names_that_can_be(name: str) -> None:
    """And those of their addresses fit the control socket's fields as they are."""
    wire = Wire()
    door = listen_0(wire, name=name)
    assert door.name == name
    lease = das(wire, door).lease
    assert printable(lease.name, Name.__metadata__[0].limit) == lease.name  # type: ignore[attr-defined]
    other = wire.stack.listen(wire.now, address=address(SERVICE), name=f"{name[1:]}x" if len(name) > 9 else f"{name}x")
    assert other.name != name
    with pytest.raises(AddressInUse):
        wire.stack.udp(wire.now, name=name)
    end(wire)


@pytest.mark.parametrize("name", BAD, ids=repr)
@pytest.mark.parametrize("verb", ["listen", "service", "udp"])
def test_names_that_cannot(verb: str, name: Any) -> None:
    """Anything was taken: a line feed stood in the names of addresses, a number was taken for another listener's id,
    and what is too long, or no text at all, failed where somebody looked."""
    wire = Wire()
    before = everything(wire.stack)
    where: dict[str, Any] = {"address": address(SERVICE)} if verb == "service" else {}
    with refused(name, "name"):
        getattr(wire.stack, verb.replace("service", "listen"))(wire.now, name=name, **where)
    assert everything(wire.stack) == before
    assert wire.stack.listeners() == []
    end(wire)


@pytest.mark.parametrize("label", [3, None, b"order", "two\nlines", "\x1b[31m", "l" * (LONGEST_LABEL + 1)], ids=repr)
def test_labels_that_cannot_be(label: Any) -> None:
    """`das(label=3)` was accepted, and whoever listed the addresses met the error."""
    wire = Wire()
    door = listen_0(wire)
    before = everything(wire.stack)
    with refused(label, "label"):
        wire.stack.das(door, wire.now, label=label)
    with refused(label, "label"):
        wire.stack.connect(address(PEER), 80, wire.now, label=label)
    assert everything(wire.stack) == before
    end(wire)


def test_a_label_is_a_line_of_text() -> None:
    wire = Wire()
    label = "for Ada, order 17: 日本 " + "x" * 50
    assert das(wire, listen_0(wire), label=label).lease.label == label
    assert printable(label, Label.__metadata__[0].limit) == label  # type: ignore[attr-defined]
    end(wire)
