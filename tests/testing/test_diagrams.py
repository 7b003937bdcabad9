"""The page of life cycles is what the tables say."""

from pathlib import Path

from umuxstack.testing.diagrams import page


def test_the_page_of_life_cycles_is_drawn_from_the_tables() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "states.md").read_text()
    assert text == page(), "write it anew: python -m umuxstack.testing.diagrams > docs/states.md"
