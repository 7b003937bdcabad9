"""The messages as they run, against the same layout declared in construct."""

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.control.records import records
from umuxstack.control import specification
from umuxstack.control.layout import Record
from umuxstack.control.messages import ANSWERS, LAYOUTS, REQUESTS, Failure, Request
from umuxstack.control.protocol import (
    ErrorCode,
    Kind,
    decode_page,
    decode_request,
    encode_error,
    encode_pages,
    encode_request,
)

SPECIFIED = {
    **{cls: specification.REQUESTS[verb][1] for verb, cls in REQUESTS.items()},
    **{cls: specification.ANSWERS[cls.__name__] for cls in ANSWERS},
    Failure: specification.FAILURE,
}


def _fields(record: Record) -> dict[str, Any]:
    return attrs.asdict(record)


def _parsed(container: Any, record: Record) -> dict[str, Any]:
    return {name: container[name] for name in _fields(record)}


def test_the_same_verbs_and_answers_are_specified_and_implemented() -> None:
    assert {verb: name for verb, (name, _) in specification.REQUESTS.items()} == {
        int(verb): cls.__name__ for verb, cls in REQUESTS.items()
    }
    assert set(specification.ANSWERS) == {cls.__name__ for cls in ANSWERS}


@pytest.mark.parametrize("cls", SPECIFIED, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_record_has_the_specified_bytes(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(cls))
    packed = LAYOUTS[cls].pack(record)
    assert packed == SPECIFIED[cls].build(_fields(record))
    assert _parsed(SPECIFIED[cls].parse(packed), record) == _fields(record)
    assert LAYOUTS[cls].unpack_from(packed, 0) == (record, len(packed))


@given(st.sampled_from(sorted(REQUESTS)).flatmap(lambda verb: records(REQUESTS[verb])), st.integers(0, 0xFFFFFFFF))
@settings(max_examples=60, deadline=None)
def test_a_request_is_framed_as_specified(request_: Request[Any], tag: int) -> None:
    message = encode_request(request_, tag)
    frame = specification.MESSAGE.parse(message)
    assert (frame.verb, frame.kind, frame.code, frame.tag) == (request_.VERB, 0, 0, tag)
    assert _parsed(specification.REQUESTS[frame.verb][1].parse(frame.body), request_) == _fields(request_)
    rebuilt = specification.MESSAGE.build(
        {"verb": request_.VERB, "kind": 0, "code": 0, "tag": tag, "body": LAYOUTS[type(request_)].pack(request_)}
    )
    assert decode_request(rebuilt) == (tag, request_)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_an_answer_is_framed_as_specified(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(sorted(REQUESTS.values(), key=lambda cls: cls.VERB)))
    rows = data.draw(st.lists(records(cls.ANSWER), max_size=3))
    request = data.draw(records(cls))
    (message,) = encode_pages(cls.VERB, 7, rows)
    frame = specification.MESSAGE.parse(message)
    assert (frame.verb, frame.kind, frame.code, frame.tag) == (cls.VERB, Kind.REPLY, 0, 7)
    layout = SPECIFIED[cls.ANSWER]
    assert frame.body == len(rows).to_bytes(2, "big") + b"".join(layout.build(_fields(row)) for row in rows)
    assert decode_page(message, request, 7) == (rows, True)


def test_an_error_is_framed_as_specified() -> None:
    frame = specification.MESSAGE.parse(encode_error(16, 9, ErrorCode.ADDRESS_IN_USE, "taken"))
    assert (frame.verb, frame.kind, frame.code, frame.tag) == (16, Kind.ERROR, 35, 9)
    assert specification.FAILURE.parse(frame.body).message == "taken"
