"""For any text: a script or a ScriptError. For any script: formatting it changes nothing that it says."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from umuxstack.conformance.format import format_script
from umuxstack.conformance.parser import parse
from umuxstack.conformance.script import Script, ScriptError

_WORDS = st.sampled_from(
    [
        *"+-*<>()[]{}.,:;=|&^~!/%#`\"'$@?\\",
        *("...", "+0", "0.1", "1", "65536", "0x1f", "-1", "1:1(0)", "1:1001(1000)", "0:0(0)!", "...(5)"),
        *("S", ".", "P.", "P.5", "5.", "SEWA", "ack", "win", "urg", "udp", "udplite", "icmp", "sctp", "ipv4", "ipv6"),
        *("gre", "mpls", "encap", "psp", "mss", "wscale", "sack", "sackOK", "TS", "val", "ecr", "nop", "eol", "FO"),
        *("FOEXP", "md5", "valid", "ECN", "e0b", "AccECN0", "exp-FO", "[ect0]", "[tos", "flowlabel", "[from", "to"),
        *("192.0.2.1", "2001:db8::1", "/udp(1 > 2)", "socket", "close(3)", "htons(", "{fd=", '"text"', "`true`"),
        *("%{", "}%", "//", "/*", "*/", "#ifdef Linux", "#endif", "--mtu=1500", "--define=A=B", "\n", "\t", "EAGAIN"),
    ]
)
_TEXTS = st.one_of(st.text(max_size=200), st.lists(_WORDS, max_size=40).map(" ".join), st.lists(_WORDS).map("".join))


def _parse(text: str) -> Script | None:
    try:
        return parse(text)
    except ScriptError as error:
        refused = error
    assert refused.line >= 1
    assert refused.column >= 1
    assert str(refused).count("\n") == 2
    return None


@settings(max_examples=600, deadline=None)
@given(_TEXTS)
@example("+0 > sctp: [")
@example("+0 f(((((((")
@example("+0 > < ipv4")
@example("--define=X=`")
@example("+0 f(a = b = c) = d = e")
def test_any_text_gives_a_script_or_a_script_error(text: str) -> None:
    _parse(text)


_NUMBER = st.integers(0, 0xFFFFFFFF)
_OPTION = st.one_of(
    st.sampled_from(["nop", "eol", "sackOK", "FO", "md5 valid", "AccECN1", "exp-tarr 3", "edo x(1)", "FOEXP 0aff"]),
    st.integers(0, 65535).map(lambda n: f"mss {n}"),
    st.integers(0, 255).map(lambda n: f"wscale {n}"),
    st.lists(st.tuples(_NUMBER, _NUMBER), min_size=1, max_size=4).map(
        lambda blocks: "sack " + " ".join(f"{a}:{b}" for a, b in blocks)
    ),
    st.tuples(_NUMBER, _NUMBER, st.sampled_from(["", "!"])).map(lambda t: f"TS val {t[0]} ecr {t[1]}{t[2]}"),
)
_TIME = st.one_of(
    st.integers(0, 10**9).map(lambda n: f"{n // 10**6}.{n % 10**6:06}"),
    st.integers(0, 10**7).map(lambda n: f"+{n / 10**6:.6f}"),
)


@st.composite
def _tcp_lines(draw: st.DrawFn) -> str:
    direction = draw(st.sampled_from("<>"))
    fields = draw(st.sampled_from(["", "[ect0]", "[ce, flowlabel 0x9]", "[dscp AF11, ttl 7]", "[from a.b, to ::1]"]))
    ports = draw(st.sampled_from(["", "1 > 2"]))
    flags = draw(st.sampled_from(["S", "S.", ".", "F.", "R", "-", "PU.", "SEWA", "P.5", "3.", "EAP."]))
    start, length = draw(_NUMBER), draw(st.integers(0, 65535))
    sequence = f"{start}:{(start + length) & 0xFFFFFFFF}({length})" + draw(st.sampled_from(["", "!"]))
    rest = f"ack {draw(_NUMBER)} win {draw(st.integers(0, 65535))}" if draw(st.booleans()) else ""
    options = draw(st.lists(_OPTION, max_size=4))
    carrier = draw(st.sampled_from(["", "/udp(3 > 4)"]))
    shown = f"<{','.join(options)}>" if options else ""
    return f"{direction} {fields} {ports} {flags} {sequence} {rest} {shown}{carrier}"


_VALUES = st.recursive(
    st.one_of(
        st.sampled_from(["...", "NULL", "0x1f", "1.5", '"a\\n"', '"b"...', "htons(5)", "A|B|C", "~X", "-Y", "(int)5"]),
        st.integers(-(2**63), 2**64).map(str),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: f"{{{', '.join(items)}}}"),
        inner.map(lambda item: f"{{a={item}, b(2)={item}}}"),
        st.tuples(inner, st.sampled_from(["|", "&", "<<", "+", "-", "*"]), inner).map(
            lambda t: f"({t[0]}){t[1]}({t[2]})"
        ),
        inner.map(lambda item: f"f({item})"),
    ),
    max_leaves=6,
)
_CALLS = st.tuples(
    st.lists(_VALUES, max_size=3), st.sampled_from(["= 0", "= -1 EIO (No, really)", "= 0x2 (flags X)", "= -1 (Why)"])
).map(lambda t: f"call({', '.join(t[0])}) {t[1]}")
_OTHERS = st.sampled_from(
    [
        "> udp (5)",
        "< udp 1 > 2 (5)",
        "< udplite (9, 8)",
        "< icmp unreachable frag_needed mtu 1200 [5:6(1)]",
        "< [1:1(0)] icmp time_exceeded",
        "< icmp echo_request id 5",
        "> sctp: INIT[a=1, b=[2, 3]]; DATA[]",
        "> . 1:1(0) <...>",
        "< ipv4 1.2.3.4 > 5.6.7.8: gre: . 1:1(0) win 1",
        "> encap psp spi 4 . 1:1(0)",
        "`echo\nmore`",
        "%{ assert tcpi_x == 1 }%",
        "...70 accept(3, ..., ...) = 4",
    ]
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["+0", "+1.5"]) | _TIME, _tcp_lines() | _CALLS | _OTHERS), max_size=6))
def test_a_formatted_script_says_the_same(events: list[tuple[str, str]]) -> None:
    text = "--mtu=1400\n`init`\n" + "\n".join(
        f"{'0' if action.startswith('...') else time} {action}" for time, action in events
    )
    script = parse(text + "\n`end`\n")
    assert len(script.events) == len(events)
    assert parse(format_script(script)) == script


@settings(max_examples=150, deadline=None)
@given(_TEXTS)
def test_whatever_parses_can_be_formatted_and_parsed_again(text: str) -> None:
    script = _parse(text)
    if script is not None:
        assert parse(format_script(script)) == script
