"""The TCP options of a packet line."""

import pytest

from umuxstack.conformance.parser import parse
from umuxstack.conformance.script import (
    AccEcn,
    AckRateRequest,
    EndOfOptions,
    FastOpen,
    Md5,
    Mss,
    Nop,
    Position,
    Sack,
    SackPermitted,
    TcpOption,
    TcpPacket,
    Timestamps,
    UnknownOption,
    WindowScale,
)


def _options(text: str) -> tuple[TcpOption, ...] | None:
    (event,) = parse(f"+0 > S 0:0(0) win 3 <{text}>").events
    assert isinstance(event.action, TcpPacket)
    return event.action.options


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("nop", Nop()),
        ("eol", EndOfOptions()),
        ("mss 1420", Mss(1420)),
        ("wscale 14", WindowScale(14)),
        ("sackOK", SackPermitted()),
        ("sack 7:9", Sack(((7, 9),))),
        ("sack 7:9 20:30 4000000000:1", Sack(((7, 9), (20, 30), (4000000000, 1)))),
        ("TS val 10 ecr 0", Timestamps(10, 0)),
        ("TS val ... ecr 5", Timestamps(None, 5)),
        ("TS val 5 ecr ...", Timestamps(5, None)),
        ("TS val 5 ecr 4294967295!", Timestamps(5, 4294967295, echo_absolute=True)),
        ("FO", FastOpen(b"")),
        ("FO 00ff12ab", FastOpen(b"\x00\xff\x12\xab")),
        ("FO 1234567890123456", FastOpen(bytes.fromhex("1234567890123456"))),
        ("FOEXP", FastOpen(b"", experimental=True)),
        ("FOEXP abcd", FastOpen(b"\xab\xcd", experimental=True)),
        ("exp-FO abcd", FastOpen(b"\xab\xcd", experimental=True)),
        ("md5 00112233445566778899aabbccddeeff", Md5(bytes.fromhex("00112233445566778899aabbccddeeff"))),
        ("md5 valid", Md5(valid=True)),
        ("md5 invalid", Md5(valid=False)),
        ("md5", Md5()),
        ("ECN e1b 1 ceb 0 e0b 9", AccEcn(None, (("e1b", 1), ("ceb", 0), ("e0b", 9)))),
        ("AccECN0 EE0B 1 ECEB 2 EE1B 3", AccEcn(0, (("e0b", 1), ("ceb", 2), ("e1b", 3)))),
        ("AccECN1", AccEcn(1, ())),
        ("exp-AccECN1 ee1b 16777215", AccEcn(1, (("e1b", 16777215),), experimental=True)),
        ("exp-tarr", AckRateRequest(None)),
        ("exp-tarr 5", AckRateRequest(5)),
        ("mp_join_syn backup=1 token=sha(key)", UnknownOption("mp_join_syn", "mp_join_syn backup=1 token=sha(key)")),
        ("mpcapable v1 key[a,b] flags[c]", UnknownOption("mpcapable", "mpcapable v1 key[a,b] flags[c]")),
    ],
)
def test_each_option(text: str, option: TcpOption) -> None:
    assert _options(text) == (option,)
    assert _options(f"nop, {text} ,nop") == (Nop(), option, Nop())


def test_the_order_and_the_blanks_between_options() -> None:
    assert _options("mss 1460,nop, wscale 6 ,sackOK,eol") == (
        Mss(1460),
        Nop(),
        WindowScale(6),
        SackPermitted(),
        EndOfOptions(),
    )


def test_any_options_and_no_options_differ() -> None:
    assert _options("...") is None
    assert _options("") == ()


def test_an_unknown_option_is_listed_as_unsupported() -> None:
    script = parse("+0 > S 0:0(0) <nop,edo 5,nop>")
    assert script.unsupported() == [(Position(1, 4), "TCP option edo")]
