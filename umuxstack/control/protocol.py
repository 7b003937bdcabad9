"""The control protocol: its messages, and nothing that acts on them.

One message is one packet of a UNIX SOCK_SEQPACKET socket: a header, then a
body of exactly the length the header names. The client says HELLO, then asks
one thing at a time; the answer is one page of rows or several (kind PAGE) and
ends with kind REPLY or ERROR. The layout is declared a second time, for
readers and tests, in `specification.py`; docs/cli.md lists what each verb does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from struct import Struct
from types import MappingProxyType
from typing import Any, Final

from umuxstack.control.layout import Layout, ProtocolError, Record
from umuxstack.control.messages import LAYOUTS, REQUESTS, Answer, Failure, Request
from umuxstack.core import errors
from umuxstack.core.errors import LocalError, Reason

MAX_MESSAGE: Final = 16384  # bytes, header included; a page of rows is cut to fit

HEADER: Final = Struct("!BBHII")  # verb, kind, error code, tag, body length
COUNT: Final = Struct("!H")  # rows in a page


class Kind(IntEnum):
    REQUEST = 0
    REPLY = 1  # the last page
    PAGE = 2  # more pages follow
    ERROR = 3


class ErrorCode(IntEnum):
    """What an ERROR says. 1 to 31 are failures of the conversation, from 32 on one per `LocalError` class."""

    NONE = 0
    PROTOCOL = 1
    VERSION = 2
    FORBIDDEN = 3
    BUSY = 4
    SESSION_FAILED = 5  # the peer or the path did it: see the reason beside it
    INTERNAL = 6
    LOCAL = 32
    ADDRESS_MALFORMED = 33
    ADDRESS_NOT_OURS = 34
    ADDRESS_IN_USE = 35
    ADDRESS_USED = 36
    POOL_EXHAUSTED = 37
    BACKLOG_FULL = 38
    NOT_LISTENING = 39
    NO_SUCH_OBJECT = 40
    NOT_CONNECTED = 41
    SESSION_CLOSED = 42
    WOULD_BLOCK = 43
    MESSAGE_TOO_LONG = 44
    BAD_ARGUMENT = 45
    NO_MEMORY = 46


LOCAL_ERRORS: Final[Mapping[ErrorCode, type[LocalError]]] = MappingProxyType(
    {
        ErrorCode.LOCAL: errors.LocalError,
        ErrorCode.ADDRESS_MALFORMED: errors.AddressMalformed,
        ErrorCode.ADDRESS_NOT_OURS: errors.AddressNotOurs,
        ErrorCode.ADDRESS_IN_USE: errors.AddressInUse,
        ErrorCode.ADDRESS_USED: errors.AddressUsed,
        ErrorCode.POOL_EXHAUSTED: errors.PoolExhausted,
        ErrorCode.BACKLOG_FULL: errors.BacklogFull,
        ErrorCode.NOT_LISTENING: errors.NotListening,
        ErrorCode.NO_SUCH_OBJECT: errors.NoSuchObject,
        ErrorCode.NOT_CONNECTED: errors.NotConnected,
        ErrorCode.SESSION_CLOSED: errors.SessionClosed,
        ErrorCode.WOULD_BLOCK: errors.WouldBlock,
        ErrorCode.MESSAGE_TOO_LONG: errors.MessageTooLong,
        ErrorCode.BAD_ARGUMENT: errors.BadArgument,
        ErrorCode.NO_MEMORY: errors.NoMemory,
    }
)
_CODES: Final[Mapping[type[Exception], ErrorCode]] = MappingProxyType({cls: code for code, cls in LOCAL_ERRORS.items()})


class ControlError(Exception):
    """The control connection, or the stack behind it, could not do what was asked."""


class NoStack(ControlError):
    """Nobody answers at the socket: no stack runs there, or it is gone. `path` says where we looked."""


class Forbidden(ControlError):
    """The stack does not take orders from this user (UM-29)."""


class Busy(ControlError):
    """The server has as many clients as it takes."""


class WrongVersion(ControlError):
    """The two sides share no version of the protocol."""


class StackBug(ControlError):
    """The stack failed on this request for a reason of its own; its log has the traceback."""


class SessionFailed(ControlError):
    """A session could not be opened; `reason` says what the peer or the path did."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _message(verb: int, kind: Kind, code: int, tag: int, body: bytes) -> bytes:
    return HEADER.pack(verb, kind, code, tag, len(body)) + body


def encode_request(request: Request[Any], tag: int) -> bytes:
    """`BadArgument` if a value does not fit its field."""
    return _message(request.VERB, Kind.REQUEST, 0, tag, LAYOUTS[type(request)].pack(request))


def encode_pages(verb: int, tag: int, rows: Iterable[Record], *, last: bool = True) -> Iterator[bytes]:
    """The rows in as few messages as hold them, at least one. The last ends the answer, unless `last` is False."""
    packed: list[bytes] = []
    size = HEADER.size + COUNT.size
    for row in rows:
        data = LAYOUTS[type(row)].pack(row)
        if size + len(data) > MAX_MESSAGE:
            yield _page(verb, Kind.PAGE, tag, packed)
            packed = []
            size = HEADER.size + COUNT.size
        packed.append(data)
        size += len(data)
    yield _page(verb, Kind.REPLY if last else Kind.PAGE, tag, packed)


def _page(verb: int, kind: Kind, tag: int, packed: Sequence[bytes]) -> bytes:
    return _message(verb, kind, 0, tag, COUNT.pack(len(packed)) + b"".join(packed))


def encode_error(verb: int, tag: int, code: ErrorCode, message: str, reason: Reason = Reason.NONE) -> bytes:
    failure = Failure(reason=reason, message=printable(message, 1024))
    return _message(verb, Kind.ERROR, code, tag, LAYOUTS[Failure].pack(failure))


def error_code(error: LocalError) -> ErrorCode:
    """The code of the nearest class that has one."""
    return next(_CODES[cls] for cls in type(error).__mro__ if cls in _CODES)


def decode_request(data: bytes) -> tuple[int, Request[Any]]:
    """(tag, request). `ProtocolError`, and nothing else, for whatever is not a request."""
    verb, kind, code, tag, body = _split(data)
    if kind != Kind.REQUEST or code:
        raise ProtocolError("not a request")
    cls = REQUESTS.get(verb)
    if cls is None:
        raise ProtocolError(f"no verb has the number {verb}")
    request, end = LAYOUTS[cls].unpack_from(body, 0)
    if end != len(body):
        raise ProtocolError(f"{cls.__name__} is followed by {len(body) - end} bytes too many")
    return tag, request


def decode_page(data: bytes, request: Request[Answer], tag: int) -> tuple[list[Answer], bool]:
    """(rows, last) of an answer to `request`. Raises what an ERROR stands for; `ProtocolError` for anything else."""
    verb, kind, code, its_tag, body = _split(data)
    if kind == Kind.ERROR:
        raise _failure(code, body)
    if verb != request.VERB or its_tag != tag or kind not in (Kind.REPLY, Kind.PAGE) or code:
        raise ProtocolError("not the answer to what was asked")
    if len(body) < COUNT.size:
        raise ProtocolError("a page without its number of rows")
    (count,) = COUNT.unpack_from(body)
    layout: Layout[Answer] = LAYOUTS[request.ANSWER]
    rows = []
    offset = COUNT.size
    for _ in range(count):
        row, offset = layout.unpack_from(body, offset)
        rows.append(row)
    if offset != len(body):
        raise ProtocolError("a page longer than its rows")
    return rows, kind == Kind.REPLY


def _split(data: bytes) -> tuple[int, int, int, int, bytes]:
    if not HEADER.size <= len(data) <= MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(data)} bytes; allowed are {HEADER.size} to {MAX_MESSAGE}")
    verb, kind, code, tag, length = HEADER.unpack_from(data)
    if length != len(data) - HEADER.size:
        raise ProtocolError("the header names another length than the message has")
    return verb, kind, code, tag, data[HEADER.size :]


def _failure(code: int, body: bytes) -> Exception:
    failure, end = LAYOUTS[Failure].unpack_from(body, 0)
    if end != len(body):
        raise ProtocolError("an error longer than it says")
    try:
        known = ErrorCode(code)
        reason = Reason(failure.reason)
    except ValueError:
        raise ProtocolError(f"an unknown error, {code}: {failure.message}") from None
    if known in LOCAL_ERRORS:
        return LOCAL_ERRORS[known](failure.message)
    if known is ErrorCode.SESSION_FAILED:
        return SessionFailed(reason, failure.message)
    return _CONVERSATION.get(known, ProtocolError)(failure.message)


_CONVERSATION: Final[Mapping[ErrorCode, type[Exception]]] = MappingProxyType(
    {
        ErrorCode.PROTOCOL: ProtocolError,
        ErrorCode.VERSION: WrongVersion,
        ErrorCode.FORBIDDEN: Forbidden,
        ErrorCode.BUSY: Busy,
        ErrorCode.INTERNAL: StackBug,
    }
)


def printable(text: str, limit: int) -> str:
    """`text` as a field of `limit` bytes may hold it: unprintable characters as "?", cut at a character's end."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
