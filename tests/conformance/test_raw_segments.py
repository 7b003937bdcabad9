"""What a script cannot say because its packets are always well-formed: options and checksums that are wrong."""

import pytest

from umuxstack.conformance import wire
from umuxstack.conformance.ends import HERE, PEERS
from umuxstack.conformance.script import TcpFlags
from umuxstack.conformance.target import Target
from umuxstack.core.personality import personality

SYN = TcpFlags.SYN


def listening() -> Target:
    target = Target(personality("rfc"), mtu=1500, seed="raw", unified=False, silence=False)
    target.stack.listen(target.now, address=HERE, port=80)
    return target


def segment(flags: TcpFlags, options: bytes, *, sequence: int = 0, ack: int = 0, payload: bytes = b"") -> bytes:
    """A segment with these octets of options, a multiple of four."""
    plain = wire.build_segment(
        wire.Segment(wire.Ip(PEERS["peer"], HERE), 5000, 80, sequence, ack, flags, 65535, 0, (), b"")
    )
    head = bytearray(plain[40:60])
    head[12] = (5 + len(options) // 4) << 4
    head[16:18] = b"\0\0"
    upper = bytes(head) + options + payload
    value = wire.checksum(PEERS["peer"], HERE, wire.TCP, upper)
    return wire.build_ip(wire.Ip(PEERS["peer"], HERE), wire.TCP, upper[:16] + value.to_bytes(2, "big") + upper[18:])


def answers(target: Target) -> list[wire.Segment]:
    out = [sent.packet for sent in target.sent if isinstance(sent.packet, wire.Segment)]
    target.sent.clear()
    return out


@pytest.mark.rule("RFC 9293 MUST-6")
@pytest.mark.parametrize("unknown", [bytes((253, 4, 1, 2)), bytes((99, 2, 1, 1)), bytes((254, 8, 1, 2, 3, 4, 5, 6))])
def test_an_unknown_option_is_skipped(unknown: bytes) -> None:
    target = listening()
    target.inject(segment(SYN, unknown + bytes((2, 4, 2, 0))))
    (answer,) = answers(target)
    assert answer.flags == TcpFlags.SYN | TcpFlags.ACK
    session = next(iter(target.stack._shared[HERE].sessions.values()))
    assert getattr(session, "peer_mss") == 512  # noqa: B009 - what stood behind it was read


@pytest.mark.rule("RFC 9293 MUST-7", "RFC 9293 MUST-68")
@pytest.mark.parametrize(
    "illegal", [bytes((2, 0, 5, 180)), bytes((2, 1, 5, 180)), bytes((1, 1, 2, 40)), bytes((8, 255, 0, 0))]
)
def test_an_illegal_option_length_is_survived(illegal: bytes) -> None:
    target = listening()
    target.inject(segment(SYN, illegal))
    (answer,) = answers(target)
    assert answer.flags == TcpFlags.SYN | TcpFlags.ACK
    assert answer.ack == 1


@pytest.mark.rule("RFC 9293 MUST-69")
def test_options_are_padded_with_zeros() -> None:
    """`wire.read` refuses anything else; BSD's order of options ends in padding."""
    target = Target(personality("freebsd"), mtu=1500, seed="raw", unified=False, silence=False)
    target.stack.listen(target.now, address=HERE, port=80)
    target.inject(segment(SYN, bytes((2, 4, 5, 180, 4, 2, 0, 0))))
    (answer,) = answers(target)
    assert wire.build_options(answer.options)[-2:] == b"\0\0"


@pytest.mark.rule("RFC 9293 MUST-2", "RFC 9293 MUST-3")
def test_a_wrong_checksum_is_dropped_and_counted() -> None:
    target = listening()
    good = segment(SYN, b"")
    target.inject(good[:-1] + bytes((good[-1] ^ 1,)))
    assert answers(target) == []
    assert target.stack.counters.snapshot()["drop.bad_checksum"] == 1
    target.inject(good)
    assert len(answers(target)) == 1  # read and verified by `wire.read`, which knows nothing of our own sums


@pytest.mark.rule("RFC 9293 MUST-59")
def test_everything_queued_is_processed_before_an_ack_goes_out() -> None:
    target = listening()
    target.inject(segment(SYN, b""))
    (answer,) = answers(target)
    ours = answer.sequence + 1
    target.inject(segment(TcpFlags.ACK, b"", sequence=1, ack=ours))
    for number in range(10):
        raw = segment(TcpFlags.ACK, b"", sequence=1 + 100 * number, ack=ours, payload=bytes(100))
        target.stack.receive(raw, 0, 0, False, target.now)
    target.run_until(target.now)
    (answer,) = answers(target)
    assert answer.ack == 1001


@pytest.mark.rule("RFC 9293 MUST-9")
def test_initial_numbers_depend_on_a_secret() -> None:
    """Two hosts that differ in nothing but their seed choose unrelated numbers at the same instant."""
    numbers = set()
    for seed in range(50):
        target = Target(personality("rfc"), mtu=1500, seed=str(seed), unified=False, silence=False)
        target.stack.listen(target.now, address=HERE, port=80)
        target.inject(segment(SYN, b""))
        numbers.add(answers(target)[0].sequence >> 16)
    assert len(numbers) > 45
