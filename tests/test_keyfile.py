"""The key file: no address twice, whatever step fails and whenever the power goes."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from umuxstack.core.address.pool import AddressPool
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import SealedScheme
from umuxstack.core.config import PoolPolicy
from umuxstack.core.errors import AddressNotOurs, AddressUsed, BadArgument, NoMemory, PoolExhausted
from umuxstack.core.units import Address
from umuxstack.core.wire.address import parse, parse_prefix
from umuxstack.keyfile import FileSteps, KeyFile, KeyFileCorrupt, KeyFileError, KeyFileInUse, KeyFileUnsafe


def prefix(text: str = "2001:db8::/64") -> Prefix:
    return Prefix(*parse_prefix(text))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def pool_of(scheme: SealedScheme) -> AddressPool:
    return AddressPool(scheme.prefix, scheme, PoolPolicy(low=0, high=0), lambda _address: False)


# Between runs


def test_a_key_file_is_made_for_its_owner_alone_and_keeps_its_key(path: Path) -> None:
    with KeyFile.open(path) as keys:
        key = keys.key
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(key) == 32
    with KeyFile.open(path) as keys:
        assert keys.key == key


@pytest.mark.rule("UM-13.j")
def test_a_new_run_begins_at_the_ceiling_of_the_last(path: Path) -> None:
    issued = []
    for _ in range(3):
        with KeyFile.open(path) as keys:
            scheme = keys.ledger(prefix()).scheme(count=100)
            issued += [scheme.next() for _ in range(10)]
    counters = [scheme.counter_of(address) for address in issued]
    assert counters == [*range(10), *range(100, 110), *range(200, 210)]


@pytest.mark.rule("UM-13.j")
def test_a_grant_raises_the_ceiling_of_the_scheme_and_of_the_next_run(path: Path) -> None:
    with KeyFile.open(path) as keys:
        ledger = keys.ledger(prefix())
        scheme = ledger.scheme(count=10)
        scheme.grant(ledger.grant(50))
        assert scheme.granted == 60
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix()).start == 60


def test_a_grant_ends_with_the_prefix(path: Path) -> None:
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix("2001:db8::/120")).grant(1000) == 256
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix("2001:db8::/120")).scheme().remaining == 0


@pytest.mark.rule("UM-13.g", "UM-24.i")
def test_an_address_that_a_user_chose_is_refused_and_not_issued_in_any_later_run(path: Path) -> None:
    """Prefix of 256 addresses, so that the counter passes the chosen ones."""
    small = prefix("2001:db8::/120")
    chosen = [parse("2001:db8::33"), parse("2001:db8::44"), parse("2001:db8::55")]
    issued: list[Address] = []
    for run in range(8):
        with KeyFile.open(path) as keys:
            ledger = keys.ledger(small)
            pool = pool_of(ledger.scheme(count=32))
            for address in chosen:
                if run == 0:
                    ledger.admit(pool, address)
                    pool.reserve(address)
                else:
                    with pytest.raises(AddressUsed):
                        ledger.admit(pool, address)
                    with pytest.raises(AddressUsed):
                        pool.reserve(address)
            issued += drain(pool)
    assert len(set(issued)) == len(issued) == 127 - 3
    assert not set(issued) & set(chosen)


def drain(pool: AddressPool) -> list[Address]:
    """Everything that was granted."""
    addresses = []
    with suppress(PoolExhausted):
        while True:
            addresses.append(pool.take())
    return addresses


def test_choices_below_the_ceiling_leave_the_file(path: Path) -> None:
    with KeyFile.open(path) as keys:
        ledger = keys.ledger(prefix())
        ledger.grant(10)
        for counter in (9, 10, 19, 20, 1000):  # 9 lies below the ceiling already, 10 is where a next run would begin
            ledger.record(counter)
        assert ledger.chosen == {10, 19, 20, 1000}
        ledger.grant(10)
        assert ledger.chosen == {20, 1000}
    entry = json.loads(path.read_text())["prefixes"]["2001:db8::/64"]
    assert entry == {"ceiling": "14", "chosen": ["14", "3e8"]}


@pytest.mark.rule("UM-24.g")
def test_a_choice_that_the_pool_refuses_is_not_recorded(path: Path) -> None:
    with KeyFile.open(path) as keys:
        ledger = keys.ledger(prefix())
        pool = pool_of(ledger.scheme(count=10))
        before = path.read_bytes()
        with pytest.raises(AddressNotOurs):
            ledger.admit(pool, parse("2001:db8:1::1"))
        assert path.read_bytes() == before


def test_a_choice_may_be_repeated_after_a_failure_between_record_and_use(path: Path) -> None:
    with KeyFile.open(path) as keys:
        ledger = keys.ledger(prefix())
        pool = pool_of(ledger.scheme(count=10))
        address = parse("2001:db8::4")
        ledger.admit(pool, address)
        ledger.admit(pool, address)
        pool.reserve(address)


def test_senseless_numbers_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeyFile.open(path) as keys:
        ledger = keys.ledger(prefix())
        with pytest.raises(BadArgument, match="at least 1"):
            ledger.grant(0)
        with pytest.raises(BadArgument, match="does not lie in"):
            ledger.record(1 << 64)
        monkeypatch.setattr("umuxstack.keyfile.MAX_CHOSEN", 1)
        ledger.record(7)
        with pytest.raises(NoMemory, match="limit"):
            ledger.record(8)


# Several prefixes


@pytest.mark.rule("UM-13.j")
def test_each_prefix_has_its_own_ceiling(path: Path) -> None:
    one, two = prefix("2001:db8:1::/64"), prefix("2001:db8:2::/64")
    with KeyFile.open(path) as keys:
        keys.ledger(one).grant(10)
        keys.ledger(two).grant(20)
        assert keys.ledger(one) is keys.ledger(one)
    with KeyFile.open(path) as keys:
        assert (keys.ledger(one).start, keys.ledger(two).start) == (10, 20)


@pytest.mark.rule("UM-13.m")
@pytest.mark.parametrize("reopened", [False, True])
def test_overlapping_prefixes_do_not_share_a_key_file(path: Path, reopened: bool) -> None:
    keys = KeyFile.open(path)
    keys.ledger(prefix("2001:db8::/64")).grant(10)
    if reopened:
        keys.close()
        keys = KeyFile.open(path)
    with keys:
        for other in ("2001:db8::/63", "2001:db8::/65", "2001:db8::1:0/112"):
            with pytest.raises(KeyFileError, match="overlaps with"):
                keys.ledger(prefix(other))
        keys.ledger(prefix("2001:db8:0:1::/64"))


@pytest.mark.rule("UM-13.m")
def test_one_ledger_serves_one_scheme(path: Path) -> None:
    with KeyFile.open(path) as keys:
        keys.ledger(prefix()).scheme()
        with pytest.raises(KeyFileError, match="sub-prefix"):
            keys.ledger(prefix()).scheme()


# Lock, permissions, damage


@pytest.mark.rule("UM-13.i")
def test_a_key_file_in_use_is_refused_and_free_after_close(path: Path) -> None:
    with KeyFile.open(path) as keys:
        with pytest.raises(KeyFileInUse, match="is in use by another process: stop it"):
            KeyFile.open(path)
        keys.ledger(prefix()).grant(10)  # replaces the file, and keeps the lock
        with pytest.raises(KeyFileInUse):
            KeyFile.open(path)
    with KeyFile.open(path):
        pass


@pytest.mark.rule("UM-13.i")
def test_a_link_to_the_file_meets_the_same_lock_and_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with KeyFile.open(link) as keys:
        with pytest.raises(KeyFileInUse):
            KeyFile.open(path)
        keys.ledger(prefix()).grant(10)
    assert link.is_symlink()
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix()).start == 10


def test_a_closed_key_file_grants_nothing(path: Path) -> None:
    keys = KeyFile.open(path)
    ledger = keys.ledger(prefix())
    keys.close()
    keys.close()
    with pytest.raises(KeyFileError, match="is closed"):
        ledger.grant(10)
    with pytest.raises(KeyFileError, match="is closed"):
        ledger.record(10)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    KeyFile.open(path).close()
    path.chmod(mode)
    with pytest.raises(KeyFileUnsafe, match="chmod 600"):
        KeyFile.open(path)
    path.chmod(0o600)
    KeyFile.open(path).close()  # and the lock was given back


def test_a_file_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KeyFile.open(path).close()
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(KeyFileUnsafe, match=f"we run as {stranger}"):
        KeyFile.open(path)


def test_what_is_no_regular_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(KeyFileUnsafe, match="not a regular file"):
        KeyFile.open(path)


def test_a_missing_directory_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KeyFile.open(tmp_path / "nowhere" / "keys")


def test_a_truncated_file_is_refused_at_every_length_and_left_alone(path: Path) -> None:
    with KeyFile.open(path) as keys:
        keys.ledger(prefix()).grant(10)
    whole = path.read_bytes()
    for length in range(len(whole) - 2):  # the last two are the bracket and the end of line
        path.write_bytes(whole[:length])
        with pytest.raises(KeyFileCorrupt, match="No new key is made"):
            KeyFile.open(path)
        assert path.read_bytes() == whole[:length]


def test_one_changed_character_is_noticed_or_changes_nothing(path: Path) -> None:
    with KeyFile.open(path) as keys:
        keys.ledger(prefix()).grant(1000)
        keys.ledger(prefix()).record(5000)
        key = keys.key
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        for bit in (0, 3, 5):
            path.write_bytes(whole[:place] + bytes((whole[place] ^ 1 << bit,)) + whole[place + 1 :])
            try:
                with KeyFile.open(path) as keys:
                    ledger = keys.ledger(prefix())
                    assert (keys.key, ledger.start, ledger.chosen) == (key, 1000, frozenset({5000}))
            except KeyFileCorrupt:
                refused += 1
    assert refused > 2 * len(whole)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("", "cannot be trusted"),
        ("[]", "not a key file"),
        ('{"format": "umuxstack key file", "version": 2}', "its version is 2, and this program reads 1"),
        ('{"format": "umuxstack key file", "version": 1, "checksum": "0"}', "its checksum does not fit"),
        ("[" * 100_000, "cannot be trusted"),
    ],
)
def test_a_refusal_says_what_is_wrong(path: Path, damage: str, says: str) -> None:
    path.write_text(damage)
    path.chmod(0o600)
    with pytest.raises(KeyFileCorrupt, match=says):
        KeyFile.open(path)


def test_a_huge_file_is_not_read(path: Path) -> None:
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)
    with pytest.raises(KeyFileCorrupt, match="it is no key file"):
        KeyFile.open(path)


# Failures


class Cut(Exception):
    """The process stops here."""


STEPS = ("remove", "open", "write", "fsync", "close", "rename", "fsync_directory")


class FailingSteps(FileSteps):
    """Fails once when armed, before or after one kind of step."""

    def __init__(self, step: str, *, after: bool, error: Callable[[], Exception]) -> None:
        self.step, self.after, self.error = step, after, error
        self.armed = False
        self.failures = 0
        for name in STEPS:
            setattr(self, name, self._wrap(name, getattr(super(), name)))

    def _wrap(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object) -> object:
            fails = self.armed and name == self.step
            if fails and not self.after:
                self._fail()
            result = real(*arguments)
            if fails:
                self._fail()
            return result

        return step

    def _fail(self) -> None:
        self.armed = False
        self.failures += 1
        raise self.error()


def disk_full() -> Exception:
    return OSError(28, "No space left on device")


@pytest.mark.rule("UM-13.j", "UM-13.k")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [disk_full, Cut])
def test_a_failed_step_grants_nothing_and_loses_nothing(
    path: Path, step: str, after: bool, error: Callable[[], Exception]
) -> None:
    """After a grant that failed: the run goes on with what it had; a retry, or the next run, is right as well."""
    steps = FailingSteps(step, after=after, error=error)
    keys = KeyFile.open(path, steps=steps)
    ledger = keys.ledger(prefix())
    scheme = ledger.scheme(count=10)
    ledger.record(5000)
    steps.armed = True
    with pytest.raises(type(error())):
        ledger.grant(10)
    assert ledger.ceiling == scheme.ceiling == 10
    steps.armed = True
    with pytest.raises(type(error())):
        ledger.record(6000)
    assert steps.failures == 2
    issued = [scheme.counter_of(scheme.next()) for _ in range(10)]
    if error is disk_full:
        scheme.grant(ledger.grant(10))
        issued += [scheme.counter_of(scheme.next()) for _ in range(10)]
    keys.close()
    with KeyFile.open(path) as again:
        ledger = again.ledger(prefix())
        assert ledger.start > max(issued)
        assert 5000 in ledger.chosen
        assert again.key == keys.key


@pytest.mark.rule("UM-13.k")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_while_the_file_is_made_leaves_none_or_a_whole_one(path: Path, step: str, after: bool) -> None:
    steps = FailingSteps(step, after=after, error=Cut)
    steps.armed = True
    with pytest.raises(Cut):
        KeyFile.open(path, steps=steps)
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix()).start == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys", "keys.lock"]


def test_a_short_write_is_continued(path: Path) -> None:
    class OneByteAtATime(FileSteps):
        def write(self, descriptor: int, data: bytes) -> int:
            return super().write(descriptor, data[:1])

    with KeyFile.open(path, steps=OneByteAtATime()) as keys:
        keys.ledger(prefix()).grant(10)
    with KeyFile.open(path) as keys:
        assert keys.ledger(prefix()).start == 10


# Power loss


class Inode:
    def __init__(self) -> None:
        self.written = b""
        self.synced: bytes | None = None  # what is on the platter for certain

    def after_power_loss(self) -> Iterator[bytes]:
        """What a reader may find: the synced bytes, or anything between nothing and all that was written."""
        if self.synced == self.written:
            yield self.written
        else:
            yield from (b"", self.written[: len(self.written) // 2], bytes(len(self.written)), self.written)


class Platter(FileSteps):
    """Does the steps really, and keeps book of what a power loss could leave. `omit` leaves one kind of step out."""

    def __init__(self, omit: str = "") -> None:
        self.omit = omit
        self.names: dict[Path, Inode] = {}
        self.durable: list[dict[Path, Inode]] = [{}]  # the directory at its last fsync, and each change since
        self.open_files: dict[int, Inode] = {}
        self.on_step: Callable[[], None] = lambda: None

    def _changed(self) -> None:
        self.durable.append(dict(self.names))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.names.pop(path, None)
        self._changed()
        self.on_step()

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        self.names[path] = self.open_files[descriptor] = Inode()
        self._changed()
        self.on_step()
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        count = super().write(descriptor, data[:100])
        self.open_files[descriptor].written += data[:count]
        self.on_step()
        return count

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        if self.omit != "fsync":
            inode = self.open_files[descriptor]
            inode.synced = inode.written
        self.on_step()

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        del self.open_files[descriptor]
        self.on_step()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.names[new] = self.names.pop(old)
        self._changed()
        self.on_step()

    def fsync_directory(self, path: Path) -> None:
        super().fsync_directory(path)
        if self.omit != "fsync_directory":
            self.durable = [dict(self.names)]
        self.on_step()

    def after_power_loss(self, path: Path) -> set[bytes | None]:
        """Every content that the file may have; None: it is not there."""
        found: set[bytes | None] = set()
        for names in self.durable:
            inode = names.get(path)
            found.update([None] if inode is None else inode.after_power_loss())
        return found


def lose_power_at_every_step(path: Path, omit: str = "") -> int:
    """Grants and records, and at each step opens whatever a power loss may leave. Returns how many it opened."""
    platter = Platter(omit)
    other = path.with_name("survivor")
    confirmed = {"ceiling": -1}  # -1: the file was not there when something was issued
    chosen: set[int] = set()
    opened = 0
    key = b""

    def look() -> None:
        nonlocal opened
        for content in platter.after_power_loss(path):
            opened += 1
            if content is None:
                assert confirmed["ceiling"] < 0, "the file is gone, and addresses were issued"
                continue
            other.unlink(missing_ok=True)
            other.touch(mode=0o600)
            other.write_bytes(content)
            with KeyFile.open(other) as keys:
                ledger = keys.ledger(prefix())
                assert ledger.start >= confirmed["ceiling"], "counters that were issued come again"
                assert not key or keys.key == key
                assert all(counter < ledger.start or counter in ledger.chosen for counter in chosen)

    platter.on_step = look
    with KeyFile.open(path, steps=platter) as keys:
        key = keys.key
        ledger = keys.ledger(prefix())
        for counter in (15, 25, 1000):
            confirmed["ceiling"] = ledger.grant(10)
            look()
            ledger.record(counter)
            chosen.add(counter)
            look()
    return opened


@pytest.mark.rule("UM-13.k")
def test_no_power_loss_at_any_step_brings_an_address_back(path: Path) -> None:
    assert lose_power_at_every_step(path) > 60


@pytest.mark.parametrize("omit", ["fsync", "fsync_directory"])
def test_the_model_of_power_loss_notices_a_missing_step(path: Path, omit: str) -> None:
    """Else the test above would show nothing."""
    with pytest.raises((AssertionError, KeyFileCorrupt)):
        lose_power_at_every_step(path, omit)


# kill -9

ISSUER = """
import os, sys
from umuxstack.core.address.pool import AddressPool
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.config import PoolPolicy
from umuxstack.core.wire.address import parse_prefix
from umuxstack.keyfile import KeyFile

with KeyFile.open(sys.argv[1]) as keys:
    ledger = keys.ledger(Prefix(*parse_prefix("2001:db8::/64")))
    scheme = ledger.scheme(count=40)
    pool = AddressPool(ledger.prefix, scheme, PoolPolicy(low=4, high=8), lambda address: False)
    while True:
        for _ in range(30):
            pool.refill()
            os.write(1, pool.take().hex().encode() + b"\\n")
        # A user chooses an address whose turn would come soon, perhaps in the next run.
        chosen = ledger.prefix.make(scheme.seal(scheme.counter + 60))
        ledger.admit(pool, chosen)
        pool.reserve(chosen)
        os.write(1, chosen.hex().encode() + b"\\n")
        pool.grant(ledger.grant(31))
"""


@pytest.mark.rule("UM-13.l")
def test_a_process_killed_again_and_again_never_issues_an_address_twice(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    issued: list[str] = []
    runs = 24
    for _ in range(runs):
        with subprocess.Popen([sys.executable, "-c", ISSUER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 200))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
            assert process.wait() == -signal.SIGKILL
        issued += [line.decode().strip() for line in lines]
    assert all(len(address) == 32 for address in issued)
    assert len(issued) > runs * 20
    assert len(set(issued)) == len(issued)
