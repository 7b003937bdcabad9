"""Messages: what fits, what is cut into pages, what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.control.records import records
from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import (
    LAYOUTS,
    REQUESTS,
    Connect,
    DasAdd,
    DasRevoke,
    Done,
    Figure,
    GetStatus,
    Hello,
    Request,
    SessionRow,
    Sessions,
    Shutdown,
    Statistics,
)
from umuxstack.control.protocol import (
    COUNT,
    HEADER,
    LOCAL_ERRORS,
    MAX_MESSAGE,
    Busy,
    ErrorCode,
    Forbidden,
    Kind,
    SessionFailed,
    StackBug,
    WrongVersion,
    decode_page,
    decode_request,
    encode_error,
    encode_pages,
    encode_request,
    error_code,
    printable,
)
from umuxstack.core import errors
from umuxstack.core.errors import BadArgument, LocalError, Reason
from umuxstack.core.units import UNSPECIFIED, Address

EVERY_LOCAL_ERROR = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, LocalError) and cls is not None
]


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(data)


@given(st.sampled_from(sorted(REQUESTS)).flatmap(lambda verb: records(REQUESTS[verb])), st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_request_is_another_request_or_a_protocol_error(request_: Request[Any], data: st.DataObject) -> None:
    message = bytearray(encode_request(request_, 1))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position] = data.draw(st.integers(0, 255))
    try:
        tag, other = decode_request(bytes(message))
    except ProtocolError:
        return
    assert LAYOUTS[type(other)].maximum + HEADER.size >= len(message)
    assert 0 <= tag <= 0xFFFFFFFF


@given(st.sampled_from(sorted(REQUESTS)).flatmap(lambda verb: records(REQUESTS[verb])), st.data())
@settings(max_examples=60, deadline=None)
def test_a_request_cut_or_lengthened_is_a_protocol_error(request_: Request[Any], data: st.DataObject) -> None:
    message = encode_request(request_, 1)
    cut = data.draw(st.integers(0, len(message) - 1))
    body = message[HEADER.size :]
    verb, kind, code, tag, _ = HEADER.unpack_from(message)
    relabelled = HEADER.pack(verb, kind, code, tag, len(body) + 1) + body + b"\0"
    for broken in (message[:cut], message + b"\0", relabelled):
        with pytest.raises(ProtocolError):
            decode_request(broken)


@given(st.binary(max_size=300))
def test_a_client_meets_garbage_with_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_page(data, GetStatus(), 1)


def test_an_answer_to_another_question_is_refused() -> None:
    (message,) = encode_pages(Statistics.VERB, 5, [])
    assert decode_page(message, Statistics(), 5) == ([], True)
    with pytest.raises(ProtocolError):
        decode_page(message, Statistics(), 6)
    with pytest.raises(ProtocolError):
        decode_page(message, GetStatus(), 5)


def test_a_page_that_names_more_or_fewer_rows_than_it_has_is_refused() -> None:
    row = LAYOUTS[Figure].pack(Figure(value=3, name="x"))
    for count in (0, 2, 65535):
        body = COUNT.pack(count) + row
        message = HEADER.pack(Statistics.VERB, Kind.REPLY, 0, 1, len(body)) + body
        with pytest.raises(ProtocolError):
            decode_page(message, Statistics(), 1)


def test_a_long_list_comes_in_pages_in_order_and_the_last_one_says_so() -> None:
    rows = [Figure(value=n, name="name " * 10) for n in range(2000)]
    messages = list(encode_pages(Statistics.VERB, 1, rows))
    assert len(messages) > 5
    assert max(map(len, messages)) <= MAX_MESSAGE
    decoded = [decode_page(message, Statistics(), 1) for message in messages]
    assert [row for page, _ in decoded for row in page] == rows
    assert [last for _, last in decoded] == [False] * (len(messages) - 1) + [True]


def test_an_empty_list_is_one_empty_page() -> None:
    assert [decode_page(m, Statistics(), 1) for m in encode_pages(Statistics.VERB, 1, [])] == [([], True)]


def test_the_largest_row_fits_a_message() -> None:
    assert all(HEADER.size + COUNT.size + layout.maximum <= MAX_MESSAGE for layout in LAYOUTS.values())
    assert LAYOUTS[SessionRow].maximum < 1024


@pytest.mark.parametrize("cls", EVERY_LOCAL_ERROR, ids=lambda cls: cls.__name__)
def test_every_local_error_arrives_as_itself(cls: type[LocalError]) -> None:
    message = encode_error(DasAdd.VERB, 1, error_code(cls("why")), "why")
    with pytest.raises(cls, match="why") as caught:
        decode_page(message, DasAdd(listener="x"), 1)
    assert type(caught.value) is cls


def test_a_local_error_of_an_unknown_class_arrives_as_its_nearest_relative() -> None:
    class Stranger(errors.AddressInUse):
        pass

    assert error_code(Stranger("x")) is ErrorCode.ADDRESS_IN_USE


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ErrorCode.PROTOCOL, ProtocolError),
        (ErrorCode.VERSION, WrongVersion),
        (ErrorCode.FORBIDDEN, Forbidden),
        (ErrorCode.BUSY, Busy),
        (ErrorCode.INTERNAL, StackBug),
    ],
)
def test_failures_of_the_conversation_arrive_as_themselves(code: ErrorCode, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="because"):
        decode_page(encode_error(1, 1, code, "because"), Hello(), 1)


def test_every_error_code_means_something_to_a_client() -> None:
    for code in ErrorCode:
        if code is not ErrorCode.NONE:
            with pytest.raises((LocalError, ProtocolError, WrongVersion, Forbidden, Busy, StackBug, SessionFailed)):
                decode_page(encode_error(1, 1, code, "x"), Hello(), 1)
    assert set(LOCAL_ERRORS.values()) == set(EVERY_LOCAL_ERROR)


def test_a_failed_session_says_why() -> None:
    request = Connect(peer=Address(bytes(16)), port=80)
    message = encode_error(Connect.VERB, 2, ErrorCode.SESSION_FAILED, "refused", Reason.REFUSED)
    with pytest.raises(SessionFailed) as caught:
        decode_page(message, request, 2)
    assert caught.value.reason is Reason.REFUSED


@pytest.mark.parametrize("code", [31, 99, 65535])
def test_an_unknown_error_code_is_a_protocol_error(code: int) -> None:
    with pytest.raises(ProtocolError):
        decode_page(encode_error(1, 1, code, "x"), Hello(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "request_",
    [
        DasRevoke(what="x" * 97),
        DasRevoke(what="ä" * 49),
        DasRevoke(what="a\nb"),
        DasRevoke(what="\x1b[31m"),
        DasRevoke(what="\udc80"),
        DasAdd(listener="x", ssa=Address(b"short")),
        DasAdd(listener="x", peer_length=256),
        Connect(peer=UNSPECIFIED, port=65536),
        Connect(peer=UNSPECIFIED, port=-1),
    ],
    ids=repr,
)
def test_a_value_that_does_not_fit_is_refused_before_it_is_sent(request_: Request[Any]) -> None:
    with pytest.raises(BadArgument):
        encode_request(request_, 1)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a\x00b", b"\x1b[2J", b"x" * 97, "\u202e".encode()])
def test_a_text_that_is_no_printable_utf_8_is_refused(text: bytes) -> None:
    body = len(text).to_bytes(2, "big") + text
    with pytest.raises(ProtocolError):
        decode_request(HEADER.pack(DasRevoke.VERB, 0, 0, 1, len(body)) + body)


@given(st.text(max_size=80), st.integers(0, 60))
def test_printable_always_fits_a_field(text: str, limit: int) -> None:
    clean = printable(text, limit)
    assert clean.isprintable()
    assert len(clean.encode()) <= limit


def test_a_message_without_a_body_is_the_header_alone() -> None:
    assert encode_request(Shutdown(), 3) == HEADER.pack(48, 0, 0, 3, 0)
    assert LAYOUTS[Done].pack(Done()) == b""
    assert Sessions.ANSWER is SessionRow
