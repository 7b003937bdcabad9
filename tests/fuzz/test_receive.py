"""A hundred thousand packets of every kind of nonsense: nothing raises, nothing is left, nothing forbidden is said.

Endless: `python -m tests.fuzz.endless`.
"""

import pytest

from tests.fuzz import scene
from tests.fuzz.packets import Input
from tests.fuzz.scene import FRIEND, SHARED, STRANGER, Scene, Violation
from umuxstack.testing import builders
from umuxstack.testing.decode import Seen
from umuxstack.testing.entropy import seed_of_run

ROUNDS = 50
PACKETS = 2000


@pytest.mark.rule("UM-31.a", "UM-32.a", "UM-32.b", "UM-23.g")
@pytest.mark.parametrize("part", range(5))
def test_nothing_that_arrives_raises_or_stays_or_is_answered_against_the_rules(part: int) -> None:
    seed = seed_of_run()
    print(f"UMUX_SEED={seed}")
    answers = 0
    for number in range(part, ROUNDS, 5):
        answers += scene.play(seed, number, PACKETS).outputs
    assert answers > 1000, "the packets must not all die at the first check"


def test_the_same_seed_gives_the_same_packets_and_answers() -> None:
    def trace() -> list[bytes]:
        played = Scene("7/7")
        for _ in range(200):
            played.step()
        return [seen.raw for seen in played.source.heard] + played.source.said

    assert trace() == trace()


def test_the_judge_knows_what_is_forbidden() -> None:
    """It would be no judge if it let everything pass."""
    judge = Scene("1/1")
    judge.silent = True
    ea = next(iter(judge.eas))
    ssa = next(iter(judge.ssas))
    unheld = builders.packed("2001:db8:1::dead")

    def complaint(thrown: bytes, said: bytes) -> str:
        return judge._complaint(Input(thrown), Seen(said), 1)

    def both(address: bytes, peer: bytes, flags: str = "S", answer: str = "SA") -> str:
        return complaint(builders.tcp(peer, address, 9, 1, flags), builders.tcp(address, peer, 1, 9, answer))

    assert "third party" in both(ea, STRANGER)
    assert both(ea, judge.eas[ea]) == ""
    assert "knocked" in both(ssa, FRIEND)
    judge._note_knock(Input(builders.tcp(FRIEND, ssa, 9, 1, "A")))
    assert "knocked" in both(ssa, FRIEND)
    judge._note_knock(Input(builders.tcp(FRIEND, ssa, 9, 1, "S")))
    assert both(ssa, FRIEND) == ""
    assert "nobody holds" in both(unheld, FRIEND)
    assert "RST in answer to RST" in both(SHARED, FRIEND, "R", "RA")
    assert both(SHARED, FRIEND, "A", "R") == ""
    assert "no part in it" in complaint(
        builders.tcp(FRIEND, SHARED, 9, 80, "S"), builders.tcp(SHARED, STRANGER, 80, 9, "SA")
    )
    wrong = builders.tcp(FRIEND, SHARED, 9, 80, "S", checksum=7)
    assert "wrong checksum" in complaint(wrong, builders.tcp(SHARED, FRIEND, 80, 9, "SA"))
    about = builders.unreachable(STRANGER, builders.tcp(SHARED, FRIEND, 1, 2, "S"))
    assert "asks for none" in complaint(about, builders.tcp(SHARED, FRIEND, 1, 2, "A"))
    judge.stack._ctx.memory = -1
    with pytest.raises(Violation):
        judge._flush(None)
