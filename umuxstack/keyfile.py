"""The key file: what makes sealed addresses unique over restarts, crashes and power loss (UM-13).

Host side: all the I/O that the core does not do. Owns the file with the master
key, and for each prefix a ceiling and the user-chosen counters above it.
Invariant: whatever this module returned from `grant` or `record` can be read
back after any crash; a run begins at the ceiling that the file holds.

Whoever has the file can map addresses back to the session log. Two copies in
use, or a copy restored from a backup, would issue addresses twice: start a new
file instead of restoring an old one.
"""

import fcntl
import json
import os
import stat
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

from umuxstack.core.address.pool import AddressPool
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import KEY_SIZE, MAX_CHOSEN, SealedScheme
from umuxstack.core.errors import BadArgument, LocalError, NoMemory
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse_prefix

FORMAT: Final = "umuxstack key file"
VERSION: Final = 1
MODE: Final = 0o600
GRANT: Final = 1 << 16
"""Counters granted at a time: what a crash loses at most. At ten thousand addresses a second, one write in 6 s."""

MAX_SIZE: Final = 64 << 20  # bytes; a file of 2^20 chosen counters has half of it

ABOUT: Final = "Secret. Whoever has it can map addresses to sessions. Never use a copy: it would issue addresses twice."


class KeyFileError(LocalError):
    """The key file cannot be used; the message says why and what to do."""


class KeyFileInUse(KeyFileError):
    """Another process has it locked."""


class KeyFileUnsafe(KeyFileError):
    """Others may read or write it, or it is not ours."""


class KeyFileCorrupt(KeyFileError):
    """It is damaged, or not a key file. It is never replaced silently."""


class FileSteps:
    """The operations whose order carries the guarantee, one method each, so that a test can fail between any two."""

    def remove(self, path: Path) -> None:
        """Removes a file if there is one."""
        path.unlink(missing_ok=True)

    def open(self, path: Path) -> int:
        """Creates a file that nobody else may read; it must not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)

    def write(self, descriptor: int, data: bytes) -> int:
        """Writes some of it; returns how much."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def fsync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Ledger:
    """One prefix in a key file. `start`: where this run's counters begin."""

    def __init__(self, file: "KeyFile", prefix: Prefix, ceiling: int, chosen: frozenset[int]) -> None:
        self._file = file
        self.prefix = prefix
        self.start = ceiling
        self.ceiling = ceiling
        self.chosen = chosen
        self._in_use = False

    def grant(self, count: int = GRANT) -> int:
        """Records that `count` more counters may be used, on disk, and only then returns the new ceiling.

        May be called from another thread. Raises KeyFileError if the file is closed, OSError if a step of writing
        failed: nothing is granted then, and it may be tried again.
        """
        if count < 1:
            raise BadArgument(f"grant of {count} counters; it must be at least 1")
        with self._file.lock:
            ceiling = min(self.ceiling + count, self.prefix.size)
            chosen = frozenset(counter for counter in self.chosen if counter >= ceiling)
            self._file.save(self, ceiling, chosen)
            self.ceiling, self.chosen = ceiling, chosen
            return ceiling

    def record(self, counter: int) -> None:
        """Records that a user chose the address of this counter, on disk, and only then returns.

        Raises as `grant` does, NoMemory when the file holds too many, BadArgument outside the prefix.
        """
        if not 0 <= counter < self.prefix.size:
            raise BadArgument(f"counter {counter} does not lie in {self.prefix.text}")
        with self._file.lock:
            if counter < self.ceiling or counter in self.chosen:
                return
            if len(self.chosen) >= MAX_CHOSEN:
                raise NoMemory(f"the key file holds {MAX_CHOSEN} user-chosen addresses, its limit; mint them instead")
            chosen = self.chosen | {counter}
            self._file.save(self, self.ceiling, chosen)
            self.chosen = chosen

    def scheme(self, count: int = GRANT) -> SealedScheme:
        """The sealed scheme of this run, with its first counters granted.

        Raises KeyFileError the second time: two schemes on one ledger would issue the same counters.
        """
        if self._in_use:
            raise KeyFileError(f"the counters of {self.prefix.text} are in use: give each worker a sub-prefix")
        start, chosen = self.ceiling, self.chosen
        ceiling = self.grant(count)
        self._in_use = True
        return SealedScheme(self.prefix, self._file.key, start=start, ceiling=ceiling, chosen=chosen)

    def admit(self, pool: AddressPool, address: Address) -> None:
        """Before a user's choice of an address is carried out: checks it, and records it where that is needed.

        Changes nothing in the pool; `pool.reserve` will succeed afterwards. Raises what `pool.examine` raises,
        and what `record` raises.
        """
        pool.examine(address)
        scheme = pool.scheme
        if isinstance(scheme, SealedScheme) and scheme.must_record(address):
            self.record(scheme.counter_of(address))
            scheme.record(address)


class KeyFile:
    """An opened and locked key file; a context manager.

    `KeyFile.open(path)` makes the file if there is none. The lock is a file of its own beside it (`<path>.lock`),
    because the key file itself is replaced at every write.
    """

    def __init__(self, path: Path, steps: FileSteps) -> None:
        """Use `open`."""
        self.path = path
        self.lock = Lock()
        self.key = b""
        self._steps = steps
        self._lock_descriptor = -1
        self._ceilings: dict[Prefix, tuple[int, frozenset[int]]] = {}
        self._ledgers: dict[Prefix, Ledger] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        steps: FileSteps | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Locks and reads the file, or makes one with a new key.

        Raises KeyFileInUse, KeyFileUnsafe, KeyFileCorrupt, or OSError if the directory cannot be used.
        """
        file = cls(Path(os.path.realpath(path)), steps or FileSteps())
        examine(file.path)  # before the lock: none is left beside something that is no key file
        file._acquire()
        try:
            text = _read(file.path)
            if text is None:
                file.key = random(KEY_SIZE)
                file._write({})
            else:
                file.key, file._ceilings = _decode(text, file.path)
        except BaseException:
            file.close()
            raise
        return file

    def _acquire(self) -> None:
        place = self.path.with_name(self.path.name + ".lock")
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise KeyFileInUse(
                f"{self.path} is in use by another process: stop it, or give this stack a key file of its own"
            ) from error
        self._lock_descriptor = descriptor

    def close(self) -> None:
        """Gives the lock back; nothing is left to write. Harmless when repeated."""
        with self.lock:
            if self._lock_descriptor >= 0:
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ledger(self, prefix: Prefix) -> Ledger:
        """The account of one prefix; the same object when asked again.

        Raises KeyFileError if it overlaps with another one of this file: their counters know nothing of each other,
        so an address could be issued under both. Workers get sub-prefixes, and the whole is not used beside them.
        """
        ledger = self._ledgers.get(prefix)
        if ledger is not None:
            return ledger
        for other in (*self._ceilings, *self._ledgers):
            if other != prefix and other.overlaps(prefix):
                raise KeyFileError(
                    f"{self.path} has issued addresses of {other.text}, which overlaps with {prefix.text}: "
                    f"keep to {other.text}, or use another key file"
                )
        ceiling, chosen = self._ceilings.get(prefix, (0, frozenset()))
        ledger = self._ledgers[prefix] = Ledger(self, prefix, ceiling, chosen)
        return ledger

    def save(self, ledger: Ledger, ceiling: int, chosen: frozenset[int]) -> None:
        """For `Ledger`, under `lock`: writes the file with these numbers for its prefix."""
        if self._lock_descriptor < 0:
            raise KeyFileError(f"{self.path} is closed")
        ceilings = {**self._ceilings, ledger.prefix: (ceiling, chosen)}
        self._write(ceilings)
        self._ceilings = ceilings

    def _write(self, ceilings: dict[Prefix, tuple[int, frozenset[int]]]) -> None:
        """Replaces the file: a reader finds the old one or the new one, whole, whenever the power goes.

        After a failure the file is one of both as well. A failed fsync is never repeated on the same descriptor
        (the kernel may have dropped the pages and report success): the next attempt writes a new file.
        """
        steps = self._steps
        new = self.path.with_name(self.path.name + ".new")
        data = _encode(self.key, ceilings)
        steps.remove(new)  # left by a crash
        descriptor = steps.open(new)
        try:
            rest = data
            while rest:
                rest = rest[steps.write(descriptor, rest) :]
            steps.fsync(descriptor)
        finally:
            steps.close(descriptor)
        steps.rename(new, self.path)
        steps.fsync_directory(self.path.parent)


def examine(path: Path) -> None:
    """Raises KeyFileUnsafe or KeyFileCorrupt if there is a file that can be no key file. Changes nothing."""
    found = _read(path)
    if found is not None:
        _decode(found, path)


def _read(path: Path) -> bytes | None:
    """The file's bytes, None if there is none. Raises KeyFileUnsafe, KeyFileCorrupt."""
    try:
        # Without O_NONBLOCK a FIFO by that name would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise KeyFileUnsafe(f"{path} may not be read by uid {os.geteuid()}: it must be ours, with mode 600") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileUnsafe(f"{path} is not a regular file")
        if status.st_uid != os.geteuid():
            raise KeyFileUnsafe(
                f"{path} belongs to uid {status.st_uid}, and we run as {os.geteuid()}: chown it, or use another"
            )
        if status.st_mode & 0o077:
            raise KeyFileUnsafe(
                f"{path} may be used by others (mode {stat.S_IMODE(status.st_mode):03o}), and it holds a secret key. "
                f"If nobody can have read it: chmod 600 {path}. Otherwise remove it; a new key is made then"
            )
        if status.st_size > MAX_SIZE:
            raise KeyFileCorrupt(f"{path} has {status.st_size} bytes; it is no key file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(descriptor)


def _encode(key: bytes, ceilings: dict[Prefix, tuple[int, frozenset[int]]]) -> bytes:
    body: dict[str, object] = {
        "format": FORMAT,
        "about": ABOUT,
        "version": VERSION,
        "key": key.hex(),
        "prefixes": {
            # Hexadecimal text: many readers of JSON lose integers above 2^53.
            prefix.text: {"ceiling": f"{ceiling:x}", "chosen": [f"{counter:x}" for counter in sorted(chosen)]}
            for prefix, (ceiling, chosen) in ceilings.items()
        },
    }
    return json.dumps({**body, "checksum": _checksum(body)}, indent=1).encode() + b"\n"


def _checksum(body: dict[str, object]) -> str:
    """Against damage, not against somebody who may write the file."""
    return blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


def _decode(data: bytes, path: Path) -> tuple[bytes, dict[Prefix, tuple[int, frozenset[int]]]]:
    """The key, and for each prefix its ceiling and chosen counters. Raises KeyFileCorrupt."""
    try:
        return _parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, LocalError) as error:
        raise KeyFileCorrupt(
            f"{path} cannot be trusted: {error}. No new key is made in its place, for the old addresses could come "
            f"again. Move it away to start with a new key"
        ) from error


def _parse(data: bytes) -> tuple[bytes, dict[Prefix, tuple[int, frozenset[int]]]]:
    body = json.loads(data)
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError("it is not a key file")
    if body.get("version") != VERSION:
        raise ValueError(f"its version is {body.get('version')!r}, and this program reads {VERSION}")
    if body.pop("checksum", None) != _checksum(body):
        raise ValueError("its checksum does not fit")
    key = bytes.fromhex(body["key"])
    if len(key) != KEY_SIZE:
        raise ValueError(f"its key has {len(key)} bytes")
    ceilings = {}
    for text, entry in body["prefixes"].items():
        prefix = Prefix(*parse_prefix(text))
        ceilings[prefix] = (int(entry["ceiling"], 16), frozenset(int(counter, 16) for counter in entry["chosen"]))
    return key, ceilings
