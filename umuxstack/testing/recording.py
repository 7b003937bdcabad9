"""Recordings of stacks in tests: nothing is kept in an ordinary run; `keeping` keeps what `umux replay` can repeat.

A random test that has failed is run once more inside `keeping`: the same seed, the same run. Kept are the stacks of the
network, wire or scene that was made last, for that is the one that failed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Final

from umuxstack.core.config import StackConfig
from umuxstack.core.entropy import Entropy
from umuxstack.core.stack import Stack
from umuxstack.core.units import Micros
from umuxstack.driver.record import Recorder


class Keeper:
    """Where recordings go: `folder/NAME-1.jsonl`, one for each stack of the newest owner."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._owner: object = None
        self._open: list[Recorder] = []
        self.paths: list[Path] = []

    def stack(
        self, owner: object, config: StackConfig, seed: bytes, now: Micros, congestion: Mapping[str, type]
    ) -> Stack:
        if owner is not self._owner:
            self._owner = owner
            self.forget()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{len(self.paths) + 1}.jsonl"
        path.unlink(missing_ok=True)
        recorder = Recorder(path)
        self._open.append(recorder)
        self.paths.append(path)
        return recorder.make_stack(config, seed, now, congestion=congestion)

    def close(self) -> None:
        for recorder in self._open:
            recorder.close()
        self._open.clear()

    def forget(self) -> None:
        """Nothing of what was kept so far is wanted."""
        self.close()
        for path in self.paths:
            path.unlink(missing_ok=True)
        self.paths.clear()


_KEEPER: Final = ContextVar[Keeper | None]("umux recordings", default=None)


def make_stack(
    owner: object, config: StackConfig, seed: bytes, now: Micros, congestion: Mapping[str, type] = MappingProxyType({})
) -> Stack:
    """A stack of `owner`'s, whose randomness is `seed`; recorded inside `keeping`."""
    keeper = _KEEPER.get()
    if keeper is None:
        return Stack(config, Entropy(seed), now, congestion=congestion)
    return keeper.stack(owner, config, seed, now, congestion)


@contextmanager
def keeping(folder: Path, name: str) -> Iterator[Keeper]:
    """From now on stacks are recorded; the keeper's `paths` are complete when the context is left."""
    keeper = Keeper(folder, name)
    token = _KEEPER.set(keeper)
    try:
        yield keeper
    finally:
        _KEEPER.reset(token)
        keeper.close()
