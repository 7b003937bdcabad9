"""Recording: everything that goes into a stack, so that a run can be repeated in the core alone.

A recorded stack is an ordinary one whose verbs, and those of the sessions,
listeners and sockets it hands out, write a line each. The core is deterministic,
so the lines and the seed are the whole run; outputs are kept as digests, to be
compared. A recording holds the seed and all content: it is a secret.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from types import MappingProxyType
from typing import IO, Any, Final

import attrs

from umuxstack.core import is_compiled
from umuxstack.core.config import LinkCaps, PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import BadArgument
from umuxstack.core.listen.listener import Listener
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSession, UdpSocket
from umuxstack.core.units import Micros

logger = logging.getLogger("umuxstack")

VERSION: Final = 1

# Verbs by class; their results are compared on replay, new objects among them are numbered.
VERBS: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (Stack, ("connect", "listen", "das", "revoke", "udp", "ping", "end_some", "close")),
    (Listener, ("set_policy", "accept", "close")),
    (
        TcpSession,
        (
            "read",
            "read_chunk",
            "read_urgent",
            "write",
            "write_urgent",
            "write_more",
            "write_record",
            "configure",
            "shutdown",
            "close",
            "abort",
        ),
    ),
    (UdpSocket, ("connect", "disconnect", "send", "set_hop_limit", "receive_datagram", "take_error", "close")),
    (EchoSession, ("send", "take_reply", "close")),
)
_CONFIGS: Final[dict[str, type]] = {cls.__name__: cls for cls in (StackConfig, LinkCaps, PoolPolicy, TcpPolicy)}


def digest(*parts: bytes | bytearray | memoryview) -> str:
    """Sixteen hexadecimal digits that stand for the bytes."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def digest_output(batch: list[Outgoing]) -> str:
    """Of one `take_output`: every byte, and how it is to be cut."""
    hashed = blake2b(digest_size=8)
    for header, payload, gso_size, csum_offset in batch:
        hashed.update(header)
        hashed.update(payload)
        hashed.update(gso_size.to_bytes(4, "big") + csum_offset.to_bytes(4, "big"))
    return hashed.hexdigest()


def encode(value: object) -> object:
    """A value as JSON; bytes and configuration objects are marked. Raises TypeError for what a verb never takes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, tuple):
        return {"tuple": [encode(item) for item in value]}
    if isinstance(value, StackConfig | LinkCaps | PoolPolicy | TcpPolicy):
        fields = {field.name: encode(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return {"config": type(value).__name__, "fields": fields}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


def decode(value: Any) -> Any:
    """What `encode` made of it, back."""
    if isinstance(value, dict):
        if "bytes" in value:
            return bytes.fromhex(value["bytes"])
        if "tuple" in value:
            return tuple(decode(item) for item in value["tuple"])
        return _CONFIGS[value["config"]](**{name: decode(item) for name, item in value["fields"].items()})
    return value


class Recorder:
    """Writes one stack's inputs to a file, a JSON line each; close it, or use it as a context."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if is_compiled():
            raise BadArgument("a compiled core cannot be recorded; start with UMUX_CORE=python in the environment")
        self._file: IO[str] = open(os.fspath(path), "x", encoding="ascii", opener=_private)  # noqa: SIM115  closed by close()
        self._numbers: dict[int, int] = {}
        self._objects: list[object] = []  # keeps them alive, so that no two share an id
        self._depth = 0
        self._classes: dict[type, type] = {}
        self.stack: Stack | None = None
        self.error: OSError | None = None  # why nothing is written any more

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the recording; the stack runs on without."""
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)

    def make_stack(
        self,
        config: StackConfig,
        seed: bytes,
        now: Micros,
        *,
        stack_type: type[Stack] = Stack,
        congestion: Mapping[str, type] = MappingProxyType({}),
    ) -> Stack:
        """The stack to record; made here because the recording begins with its birth.

        Of `congestion`, algorithms of a user's, only the names are kept: who replays brings them along.
        """
        if self.stack is not None:
            raise BadArgument("a recorder records one stack; make another")
        head = {"umux-recording": VERSION, "config": encode(config), "seed": seed.hex(), "now": now}
        self._write(head | ({"congestion": sorted(congestion)} if congestion else {}))
        self.stack = stack = stack_type(config, Entropy(seed), now, congestion=congestion)
        self._adopt(stack)
        receive, advance, take_output = stack.receive, stack.advance, stack.take_output

        def recorded_receive(buf: bytes, base: int, gso_size: int, csum_ok: bool, now: Micros) -> None:
            self._write([now, "receive", buf[base:].hex(), gso_size, int(csum_ok)])
            with self._faults(now):
                receive(buf, base, gso_size, csum_ok, now)

        def recorded_advance(now: Micros) -> None:
            self._write([now, "advance"])
            with self._faults(now):
                advance(now)

        def recorded_output(now: Micros) -> list[Outgoing]:
            try:
                batch = take_output(now)
            except Exception:
                self._write([now, "output"])
                with self._faults(now):
                    raise
            self._write([now, "output", len(batch), digest_output(batch)])
            return batch

        stack.receive = recorded_receive  # type: ignore[method-assign]
        stack.advance = recorded_advance  # type: ignore[method-assign]
        stack.take_output = recorded_output  # type: ignore[method-assign]
        return stack

    @contextmanager
    def _faults(self, now: Micros) -> Iterator[None]:
        """An exception out of the core is a bug, of ours or of a user's algorithm; the driver goes on, and so must a
        replay."""
        try:
            yield
        except Exception as error:
            self._write([now, "fault", type(error).__name__])
            raise

    def _adopt(self, found: object) -> int | None:
        """Numbers an object that verbs can be called on, and has its verbs recorded from now on."""
        known = self._numbers.get(id(found))
        if known is not None:
            return known
        base = type(found)
        verbs = [verb for cls, names in VERBS if isinstance(found, cls) for verb in names]
        if not verbs:
            return None
        recorded = self._classes.get(base)
        if recorded is None:
            members: dict[str, object] = {"__slots__": (), "__module__": base.__module__}
            members.update({verb: self._recorded(getattr(base, verb), verb) for verb in verbs})
            recorded = self._classes[base] = type(base.__name__, (base,), members)
        found.__class__ = recorded  # the same slots, other verbs
        self._objects.append(found)
        number = self._numbers[id(found)] = len(self._objects) - 1
        return number

    def _recorded(self, verb: Callable[..., object], name: str) -> Callable[..., object]:
        def call(target: object, *args: object, **kwargs: object) -> object:
            if self._depth or self._file.closed:
                return verb(target, *args, **kwargs)
            line: list[object] = [name, self._numbers[id(target)], self._arguments(args), self._named(kwargs)]
            self._depth += 1
            try:
                result = verb(target, *args, **kwargs)
            except Exception as error:
                self._write([*line, {"raised": type(error).__name__}])
                raise
            finally:
                self._depth -= 1
            self._write([*line, self._result(result)])
            return result

        return call

    def _arguments(self, args: tuple[object, ...]) -> list[object]:
        return [self._argument(value) for value in args]

    def _named(self, kwargs: dict[str, object]) -> dict[str, object]:
        return {name: self._argument(value) for name, value in kwargs.items()}

    def _argument(self, value: object) -> object:
        number = self._numbers.get(id(value))
        if number is not None:
            return {"object": number}
        return encode(value)

    def _result(self, result: object) -> object:
        return describe(result, self._adopt)

    def _write(self, line: object) -> None:
        if not self._file.closed:
            try:
                self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            except OSError as error:
                self._fail(error)
                self.close()

    def _fail(self, error: OSError) -> None:
        """A full disk ends the recording, not the stack."""
        if self.error is None:
            self.error = error
            logger.warning("umuxstack: the recording ended: %s", error)


def describe(result: object, adopt: Callable[[object], int | None]) -> object:
    """A verb's result in the recording: what replay must get again."""
    if isinstance(result, bytes | bytearray | memoryview):
        return {"size": len(result), "digest": digest(result)}
    if result is None or isinstance(result, int | str):
        return result
    if isinstance(result, UdpSession):
        return {"session": result.lease.name}
    number = adopt(result)
    if number is not None:
        return {"object": number}
    if attrs.has(type(result)):
        return {"value": digest(repr(result).encode())}
    lease = getattr(result, "lease", None)
    return {"lease": None if lease is None else lease.name, "address": None if lease is None else lease.address.hex()}


def _private(path: str, flags: int) -> int:
    """Only the owner may read it: a recording holds the seed."""
    return os.open(path, flags, 0o600)
