"""The story as text while it happens, and as JSON when it is over.

Invariant: a claim is printed only together with whether it held.
"""

import os
import sys
import textwrap
import time
from typing import Any, Final

import attrs

WIDTH: Final = 100
_GREEN, _RED, _BOLD, _DIM = "32", "31;1", "1", "2"


@attrs.define
class Step:
    """One scene: what was shown, and whether it was as it should be."""

    title: str
    seconds: float = 0.0
    claims: list[dict[str, Any]] = attrs.field(factory=list)
    facts: dict[str, Any] = attrs.field(factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.claims) and all(claim["ok"] for claim in self.claims)


class Teller:
    """Prints, unless `silent`, and remembers. Colours only for a person at a terminal."""

    def __init__(self, *, silent: bool) -> None:
        self.steps: list[Step] = []
        self._silent = silent
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._began = self._step_began = time.monotonic()

    def say(self, *lines: str) -> None:
        if not self._silent:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()

    def heading(self, text: str) -> None:
        self.say(self._paint(text, _BOLD))

    def begin(self, title: str) -> None:
        """A new step."""
        self.end()
        self.steps.append(Step(title))
        self._step_began = time.monotonic()
        number = f"{len(self.steps)}. "
        lines = textwrap.wrap(title, WIDTH, initial_indent=number, subsequent_indent=" " * len(number))
        self.say("", *(self._paint(line, _BOLD) for line in lines))

    def end(self) -> None:
        """The last step is over. Again: nothing."""
        if self.steps and not self.steps[-1].seconds:
            self.steps[-1].seconds = round(time.monotonic() - self._step_began, 3)

    def detail(self, name: str, value: object, text: str | None = None) -> None:
        """Something observed, no claim. `name` is its key in the JSON; `text` what is printed, if not the value."""
        self.steps[-1].facts[name] = value
        self.say(f"   {self._paint(str(value) if text is None else text, _DIM)}")

    def command(self, text: str) -> None:
        self.say(f"   $ {text}")

    def check(self, holds: bool, claim: str, otherwise: str = "") -> bool:
        """`claim` was looked at; `otherwise` says what was seen in its place."""
        self.steps[-1].claims.append({"claim": claim, "ok": holds} | ({} if holds else {"seen": otherwise}))
        mark = self._paint("ok", _GREEN) if holds else self._paint("NO", _RED)
        lines = textwrap.wrap(claim if holds or not otherwise else f"{claim} -- {otherwise}", WIDTH - 7) or [""]
        self.say(f"   {mark}  {lines[0]}", *(f"       {line}" for line in lines[1:]))
        return holds

    @property
    def ok(self) -> bool:
        return all(step.ok for step in self.steps)

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text
