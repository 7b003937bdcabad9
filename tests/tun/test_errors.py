"""What an administrator reads when something is missing: the cause, and the command that mends it."""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tun import device as device_module
from tun import openers
from tun.device import TunDevice
from tun.errors import (
    PRIVILEGE_FIX,
    DeviceMissing,
    LinkDown,
    MtuOutOfRange,
    NameInvalid,
    NameTaken,
    PermissionDenied,
    TunError,
)


def failing(code: int) -> Callable[..., NoReturn]:
    def fail(*_args: object, **_options: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


def failing_pytun(code: int) -> Any:
    return SimpleNamespace(TunTapDevice=failing(code))


BOTH = pytest.mark.parametrize("way", ["pytun", "ioctl"])


def opener_that_fails(monkeypatch: pytest.MonkeyPatch, way: str, code: int) -> openers.Opener:
    """The step that makes the device fails; the control file is /dev/null, which opens for everybody."""
    monkeypatch.setattr(openers, "CONTROL_PATH", os.devnull)
    if way == "pytun":
        monkeypatch.setitem(sys.modules, "pytun", failing_pytun(code))
        return openers.open_with_pytun
    monkeypatch.setattr(fcntl, "ioctl", failing(code))
    return openers.open_with_ioctl


@BOTH
def test_without_the_right_the_message_names_three_ways_to_get_it(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    opener = opener_that_fails(monkeypatch, way, errno.EPERM)
    with pytest.raises(PermissionDenied, match=r"CAP_NET_ADMIN.*sudo.*setcap.*unshare -Urn") as caught:
        TunDevice("x0", opener=opener)
    assert caught.value.errno == errno.EPERM


@BOTH
def test_a_name_held_by_somebody_is_taken(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    opener = opener_that_fails(monkeypatch, way, errno.EBUSY)
    with pytest.raises(NameTaken, match=r"'x0' is in use.*another name"):
        TunDevice("x0", opener=opener)


@BOTH
def test_the_name_of_another_kind_of_interface_is_taken(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    opener = opener_that_fails(monkeypatch, way, errno.EINVAL)
    with pytest.raises(NameTaken, match=r"'lo' exists.*ip link delete lo"):
        TunDevice("lo", opener=opener)


def test_the_right_is_given_to_the_interpreter_that_runs() -> None:
    """`which python3` is another one in a shell where no venv is active; setcap changed that, and helped nobody."""
    assert f"setcap cap_net_admin+ep {os.path.realpath(sys.executable)}" in PRIVILEGE_FIX


@BOTH
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENFILE])
def test_any_other_refusal_says_what_was_tried(monkeypatch: pytest.MonkeyPatch, way: str, code: int) -> None:
    opener = opener_that_fails(monkeypatch, way, code)
    with pytest.raises(TunError, match="TUN device 'x0'") as caught:
        TunDevice("x0", opener=opener)
    assert type(caught.value) is TunError
    assert caught.value.errno == code


@pytest.mark.parametrize("opener", [openers.open_with_ioctl, openers.open_with_pytun])
@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [
        (errno.ENOENT, DeviceMissing, "modprobe tun.*mknod"),
        (errno.ENODEV, DeviceMissing, "modprobe tun"),
        (errno.EACCES, PermissionDenied, "sudo.*chmod 666 /dev/net/tun.*and then .*setcap"),
        (errno.EMFILE, TunError, "opening /dev/net/tun"),
    ],
)
def test_a_control_file_that_cannot_be_opened_is_explained(
    monkeypatch: pytest.MonkeyPatch, opener: openers.Opener, code: int, kind: type[TunError], fix: str
) -> None:
    monkeypatch.setitem(sys.modules, "pytun", failing_pytun(errno.EIO))
    monkeypatch.setattr(os, "open", failing(code))
    with pytest.raises(kind, match=fix) as caught:
        TunDevice("x0", opener=opener)
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "a:b", "a%sb", "%d%d", "a%", "a\0b", "a\tb"])
def test_a_name_that_the_kernel_would_refuse_is_refused_before(name: str) -> None:
    with pytest.raises(NameInvalid, match="letters, digits"):
        TunDevice(name, opener=failing(errno.EIO))


@pytest.mark.parametrize("name", ["x" * 16, "ä" * 8])
def test_a_name_is_at_most_fifteen_bytes(name: str) -> None:
    with pytest.raises(NameInvalid, match="16 bytes: use at most 15"):
        TunDevice(name, opener=failing(errno.EIO))


@pytest.mark.parametrize("name", ["umux%d", "%d", "x" * 15, "eth0.100", "a-b_c"])
def test_a_good_name_reaches_the_opener(name: str) -> None:
    with pytest.raises(OSError, match="Input/output"):
        TunDevice(name, opener=failing(errno.EIO))


@pytest.mark.parametrize("mtu", [0, 1279, 65536])
def test_an_mtu_outside_the_limits_names_them(mtu: int) -> None:
    with pytest.raises(MtuOutOfRange, match=f"MTU {mtu}: choose 1280 .* to 65535"):
        TunDevice(mtu=mtu, opener=failing(errno.EIO))


def test_pytun_is_preferred_and_done_without_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytun", failing_pytun(errno.EIO))
    assert openers.default_opener() is openers.open_with_pytun
    monkeypatch.setitem(sys.modules, "pytun", None)  # what the import system takes for "cannot be imported"
    assert openers.default_opener() is openers.open_with_ioctl


LARGE = bytes(5000)  # written in two pieces: header, payload


class Plug:
    """A device over a socket pair whose kernel calls can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)
        monkeypatch.setattr(device_module, "_configure", lambda *_: (9, 1500))
        self.device = TunDevice("plug", opener=lambda name: (near.detach(), name))

    def close(self) -> None:
        self.device.close()
        self.far.close()


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Plug(monkeypatch)
    yield made
    made.close()


def test_a_failed_set_up_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    fd = near.detach()
    monkeypatch.setattr(fcntl, "ioctl", failing(errno.EBADFD))
    with far, pytest.raises(OSError, match="bad state"):
        TunDevice("plug", opener=lambda name: (fd, name))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("payload", [b"", b"payload", LARGE])
@pytest.mark.parametrize(("code", "words"), [(errno.EIO, "ip link set plug up"), (errno.EBADFD, "deleted")])
def test_a_link_that_is_down_or_gone_says_which(
    monkeypatch: pytest.MonkeyPatch, plug: Plug, payload: bytes, code: int, words: str
) -> None:
    monkeypatch.setattr(os, "write", failing(code))
    monkeypatch.setattr(os, "writev", failing(code))
    with pytest.raises(LinkDown, match=words) as caught:
        plug.device.write_batch([(b"header", payload, 0, 0)])
    assert caught.value.errno == errno.ENETDOWN
    assert caught.value.taken == 0


def test_a_link_that_fails_within_a_batch_tells_how_many_went_out(monkeypatch: pytest.MonkeyPatch, plug: Plug) -> None:
    monkeypatch.setattr(os, "writev", failing(errno.EIO))
    with pytest.raises(LinkDown) as caught:
        plug.device.write_batch([(b"one", b"", 0, 0), (b"two", b"", 0, 0), (b"three", LARGE, 0, 0)])
    assert caught.value.taken == 2


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM])
def test_a_full_link_takes_what_fits(monkeypatch: pytest.MonkeyPatch, plug: Plug, code: int) -> None:
    monkeypatch.setattr(os, "writev", failing(code))
    assert plug.device.write_batch([(b"one", b"", 0, 0), (b"two", LARGE, 0, 0), (b"three", b"", 0, 0)]) == 1
    assert plug.far.recv(100) == bytes(10) + b"one"


def test_a_rejected_packet_is_counted_and_the_next_one_goes_out(monkeypatch: pytest.MonkeyPatch, plug: Plug) -> None:
    monkeypatch.setattr(os, "writev", failing(errno.EINVAL))
    assert plug.device.write_batch([(b"bad", LARGE, 0, 0), (b"good", b"", 0, 0)]) == 2
    assert plug.device.dropped_malformed == 1
    assert plug.far.recv(100) == bytes(10) + b"good"


def test_a_packet_too_long_for_its_length_field_never_reaches_the_kernel(plug: Plug) -> None:
    packets = [(bytes(60), bytes(65516), 1440, 16), (b"good", b"", 0, 0)]
    assert plug.device.write_batch(packets) == 2
    assert plug.device.dropped_oversize == 1
    assert plug.far.recv(100) == bytes(10) + b"good"


def test_the_vnet_header_stands_before_header_and_payload(plug: Plug) -> None:
    plug.device.write_batch([(b"h" * 72, memoryview(b"payload"), 1428, 16), (b"h" * 48, b"", 0, 6)])
    assert plug.far.recv(100) == struct.pack("=BBHHHH", 1, 4, 72, 1428, 40, 16) + b"h" * 72 + b"payload"
    assert plug.far.recv(100) == struct.pack("=BBHHHH", 1, 0, 0, 0, 40, 6) + b"h" * 48


def test_the_cache_of_vnet_headers_is_bounded(plug: Plug) -> None:
    for gso_size in range(1, 2 * device_module.VNET_CACHE_LIMIT):
        plug.device.write_batch([(b"header", b"", gso_size, 16)])
        sent = plug.far.recv(100)
        assert int.from_bytes(sent[4:6], sys.byteorder) == gso_size
    assert len(plug.device._vnet_headers) <= device_module.VNET_CACHE_LIMIT


@pytest.mark.parametrize(
    ("head", "gso_size", "checked"),
    [
        ((0, 0, 0, 0, 0, 0), 0, False),
        ((1, 0, 0, 0, 40, 16), 0, True),
        ((2, 0, 0, 0, 0, 0), 0, True),
        ((1, 4, 60, 1440, 40, 16), 1440, True),
        ((1, 0x84, 60, 1440, 40, 16), 1440, True),  # with ECN
        ((1, 1, 40, 1460, 20, 16), 0, True),  # TCP over IPv4
        ((1, 5, 48, 1200, 40, 6), 0, True),  # UDP
    ],
)
def test_only_tcp_over_ipv6_is_read_as_a_super_segment(
    plug: Plug, head: tuple[int, ...], gso_size: int, checked: bool
) -> None:
    frame = struct.pack("=BBHHHH", *head) + b"packet"
    plug.far.send(frame)
    assert plug.device.read_batch(64) == [(frame, 10, gso_size, checked)]


def test_a_batch_is_limited_and_then_empty(plug: Plug) -> None:
    for _ in range(5):
        plug.far.send(bytes(50))
    assert [len(plug.device.read_batch(3)) for _ in range(3)] == [3, 2, 0]


def test_packets_read_before_a_failure_are_not_lost(monkeypatch: pytest.MonkeyPatch, plug: Plug) -> None:
    outcomes: list[bytes | OSError] = [bytes(50), OSError(errno.EBADFD, "gone"), OSError(errno.EBADFD, "gone")]

    def read(_fd: int, _size: int) -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    monkeypatch.setattr(os, "read", read)
    assert len(plug.device.read_batch(64)) == 1
    with pytest.raises(LinkDown, match="deleted"):
        plug.device.read_batch(64)


def test_an_unknown_failure_of_reading_is_reported_as_it_is(monkeypatch: pytest.MonkeyPatch, plug: Plug) -> None:
    monkeypatch.setattr(os, "read", failing(errno.EPERM))
    with pytest.raises(TunError, match="reading plug") as caught:
        plug.device.read_batch(1)
    assert type(caught.value) is TunError


def test_a_closed_device_reads_and_writes_as_a_link_that_is_down(plug: Plug) -> None:
    plug.device.close()
    plug.device.close()
    assert plug.device.fileno() == -1
    with pytest.raises(LinkDown, match="closed by this program"):
        plug.device.read_batch(1)
    with pytest.raises(LinkDown, match="closed by this program"):
        plug.device.write_batch([(b"header", b"", 0, 0)])


def test_a_forgotten_device_lets_go_of_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    plug = Plug(monkeypatch)
    fd = plug.device.fileno()
    with plug.far:
        del plug.device
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
