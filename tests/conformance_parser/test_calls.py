"""System calls: arguments, structs, results, errno and the notes behind them."""

import pytest

from umuxstack.conformance.parser import parse
from umuxstack.conformance.script import Position, SystemCall
from umuxstack.conformance.value import (
    AnyValue,
    Array,
    Binary,
    Call,
    Cast,
    Expression,
    Float,
    Integer,
    Named,
    RawStruct,
    String,
    Struct,
    Unary,
    Word,
    unescape,
)


def _call(text: str) -> SystemCall:
    (event,) = parse(f"+0 {text}\n").events
    assert isinstance(event.action, SystemCall)
    return event.action


def _value(text: str) -> Expression:
    (value,) = _call(f"f({text}) = 0").arguments
    return value


def test_a_plain_call() -> None:
    call = _call("socket(..., SOCK_STREAM, IPPROTO_TCP) = 3")
    assert call.name == "socket"
    assert call.arguments == (AnyValue(), Word("SOCK_STREAM"), Word("IPPROTO_TCP"))
    assert call.result == Integer(3)
    assert (call.errno, call.note) == (None, None)
    assert call.position == Position(1, 4)
    assert _call("fork() = 0").arguments == ()


@pytest.mark.parametrize(
    ("tail", "result", "errno", "note"),
    [
        ("= -1 EAGAIN (Resource temporarily unavailable)", Integer(-1), "EAGAIN", "Resource temporarily unavailable"),
        ("= -1 EPIPE", Integer(-1), "EPIPE", None),
        ("= -1 (Bad value)", Integer(-1), None, "Bad value"),
        ("= -1 EADDRNOTAVAIL (Can't assign (yet))", Integer(-1), "EADDRNOTAVAIL", "Can't assign (yet)"),
        ("= 0x2 (flags O_RDWR)", Integer(2), None, "flags O_RDWR"),
        ("= -1 // EINTR", Integer(-1), None, None),
        ("= ...", AnyValue(), None, None),
        ("= A|B", Binary("|", Word("A"), Word("B")), None, None),
        ("-> 7", Integer(7), None, None),
        ("=> 7", Integer(7), None, None),
    ],
)
def test_results(tail: str, result: Expression, errno: str | None, note: str | None) -> None:
    call = _call(f"poke(4) {tail}")
    assert (call.result, call.errno, call.note) == (result, errno, note)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("...", AnyValue()),
        ("-12", Integer(-12)),
        ("0x1F", Integer(31)),
        ("-0x10", Integer(-16)),
        ("1.5", Float("1.5")),
        ("NULL", Word("NULL")),
        ("192.0.2.1", Word("192.0.2.1")),
        ("[]", Array(())),
        ("[1]", Array((Integer(1),))),
        ("[[1, 2], [X,]]", Array((Array((Integer(1), Integer(2))), Array((Word("X"),))))),
        ("htons(80)", Call("htons", (Integer(80),))),
        ('inet_addr("192.0.2.1")', Call("inet_addr", (String("192.0.2.1"),))),
        ("sizeof(int)", Call("sizeof", (Word("int"),))),
        ("sizeof(unsigned int)", Call("sizeof", (Word("unsigned int"),))),
        ("(uint8_t) 5", Cast("uint8_t", Integer(5))),
        ("(struct linger *) [1]", Cast("struct linger *", Array((Integer(1),)))),
        ("(5)", Integer(5)),
        ("(A) | B", Binary("|", Word("A"), Word("B"))),
        ("O_RDWR | O_NONBLOCK", Binary("|", Word("O_RDWR"), Word("O_NONBLOCK"))),
        ("~MASK", Unary("~", Word("MASK"))),
        ("2 + 3 * 4", Binary("+", Integer(2), Binary("*", Integer(3), Integer(4)))),
        ("A & B | 1 << 2", Binary("|", Binary("&", Word("A"), Word("B")), Binary("<<", Integer(1), Integer(2)))),
        ("(A|B) & C", Binary("&", Binary("|", Word("A"), Word("B")), Word("C"))),
    ],
)
def test_values(text: str, value: Expression) -> None:
    assert _value(text) == value


def test_operators_of_one_rank_group_to_the_left() -> None:
    assert _value("A|B|C") == Binary("|", Binary("|", Word("A"), Word("B")), Word("C"))


def test_an_integer_keeps_how_it_was_written() -> None:
    value = _value("0x0002")
    assert isinstance(value, Integer)
    assert value.text == "0x0002"


def test_strings_join_and_may_be_beginnings() -> None:
    assert _value('"abc" "def"') == String("abcdef")
    assert _value('"abc"...') == String("abc", more=True)
    assert _value('"a \\"quoted\\" b"') == String('a \\"quoted\\" b')
    value = _value(r'"\x00\xffA\n\101\\"')
    assert isinstance(value, String)
    assert value.value == b"\x00\xffA\nA\\"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("é", "é".encode()),
        (r"\t\r\a", b"\t\r\a"),
        (r"\0", b"\0"),
        (r"\07\1234", b"\x07S4"),
        (r"\x1g\xzz", b"\x01gxzz"),
        (r"\q\'", b"q'"),
        ("end\\", b"end\\"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescape(text) == data


def test_a_socket_address() -> None:
    value = _value('{sa_family=AF_INET6, sin_port = htons(8080), sin_addr=inet_addr("2001:db8::1")}')
    assert isinstance(value, Struct)
    assert value.field("sin_port") == Call("htons", (Integer(8080),))
    assert value.field("sin_addr") == Call("inet_addr", (String("2001:db8::1"),))
    assert value.field("sin_zero") is None


def test_a_message_header() -> None:
    call = _call(
        "recvmsg(4, {msg_name(...)=...,\n"
        "            msg_iov(2)=[{..., 20}, {iov_base=..., iov_len=30}],\n"
        "            msg_flags=MSG_TRUNC,\n"
        "            msg_control=[{cmsg_level=SOL_TCP, cmsg_type=7, cmsg_data={ee_errno=EIO, ee_info=1}}]}, 0) = 50"
    )
    header = call.arguments[1]
    assert header == Struct(
        (
            Named("msg_name", AnyValue(), AnyValue()),
            Named(
                "msg_iov",
                Array(
                    (
                        Struct((AnyValue(), Integer(20))),
                        Struct((Named("iov_base", AnyValue()), Named("iov_len", Integer(30)))),
                    )
                ),
                Integer(2),
            ),
            Named("msg_flags", Word("MSG_TRUNC")),
            Named(
                "msg_control",
                Array(
                    (
                        Struct(
                            (
                                Named("cmsg_level", Word("SOL_TCP")),
                                Named("cmsg_type", Integer(7)),
                                Named(
                                    "cmsg_data",
                                    Struct((Named("ee_errno", Word("EIO")), Named("ee_info", Integer(1)))),
                                ),
                            )
                        ),
                    )
                ),
            ),
        )
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "{events=EPOLLIN|EPOLLET, fd=5}",
            Struct((Named("events", Binary("|", Word("EPOLLIN"), Word("EPOLLET"))), Named("fd", Integer(5)))),
        ),
        ("{onoff=1, linger=0}", Struct((Named("onoff", Integer(1)), Named("linger", Integer(0))))),
        ("{.tcpi_state = 7, ...}", Struct((Named("tcpi_state", Integer(7)), AnyValue()))),
        (
            '{function_set_name="rack", pcbcnt=...}',
            Struct((Named("function_set_name", String("rack")), Named("pcbcnt", AnyValue()))),
        ),
        ("{enable=0x1, psk=...}", Struct((Named("enable", Integer(1)), Named("psk", AnyValue())))),
        ("{}", Struct(())),
        ("{(label 5, tc 1, [S], ttl 9)}", RawStruct("{(label 5, tc 1, [S], ttl 9)}")),
        ("{flags [none], sum 0, off 0, key 0, seq 0}", RawStruct("{flags [none], sum 0, off 0, key 0, seq 0}")),
        ("{flags=3}", Struct((Named("flags", Integer(3)),))),
    ],
)
def test_structs(text: str, value: Expression) -> None:
    assert _value(text) == value


def test_poll_and_its_answer() -> None:
    call = _call("poll([{fd=3, events=POLLIN, revents=POLLIN|POLLHUP}], 1, 0) = 1")
    assert isinstance(call.arguments[0], Array)
    (entry,) = call.arguments[0].items
    assert isinstance(entry, Struct)
    assert entry.field("revents") == Binary("|", Word("POLLIN"), Word("POLLHUP"))
