"""What `umux up` is told, by flags and by a file."""

from pathlib import Path

import pytest

from umuxstack.cli import parser
from umuxstack.cli.common import USAGE, Failure
from umuxstack.cli.settings import Settings, settings
from umuxstack.core.units import Micros, millis, minutes, seconds
from umuxstack.core.wire.address import to_text

FULL = """
prefix = "2001:db8:1::/64"
shared = ["2001:db8:1::80", "2001:db8:1::81"]
unified_peers = ["2001:db8:2::/48"]
answer = true
tun = "umux7"
name = "lab"
socket = "/run/lab.sock"
namespace = "ns"
mtu = 9000
offload = false
kernel_address = "fd00:75::1"
group = "netdev"
users = ["nobody"]
serve = ["hello"]
scheme = "random"
fixed_port = 7
hop_limit = 9
das_lifetime = "5m"
udp_idle = 30
candidates = 3
memory = 1000000

[pool]
low = 2
high = 8

[tcp]
congestion = "newreno"
rto_min = "300ms"
sack = false
retries = 5
"""


def given(tmp_path: Path, file: str, *flags: str) -> Settings:
    (tmp_path / "umux.toml").write_text(file)
    return settings(parser.parse(["up", "--config", str(tmp_path / "umux.toml"), *flags]))


def test_a_prefix_is_enough() -> None:
    plain = settings(parser.parse(["up", "--prefix", "2001:db8:1::/64"]))
    assert (plain.mtu, plain.offload, plain.config.silence, plain.config.scheme) == (1500, True, True, "sealed")
    assert plain.tun is plain.name is plain.socket is plain.key_file is None


def test_every_setting_of_a_file_arrives(tmp_path: Path) -> None:
    full = given(tmp_path, FULL)
    config = full.config
    assert (to_text(config.prefix), config.prefix_length) == ("2001:db8:1::", 64)
    assert [to_text(address) for address in config.shared] == ["2001:db8:1::80", "2001:db8:1::81"]
    assert [length for _, length in config.unified_peers] == [48]
    assert (config.silence, config.scheme, config.fixed_port, config.hop_limit) == (False, "random", 7, 9)
    assert (config.das_lifetime, config.udp_idle, config.candidates) == (minutes(5), seconds(30), 3)
    assert (config.pool.low, config.pool.high, config.memory) == (2, 8, 1_000_000)
    assert (config.tcp.congestion, config.tcp.rto_min, config.tcp.sack, config.tcp.retries) == (
        "newreno",
        millis(300),
        False,
        5,
    )
    assert (full.tun, full.name, full.socket, full.namespace) == ("umux7", "lab", "/run/lab.sock", "ns")
    assert (full.mtu, full.offload, full.kernel_address) == (9000, False, "fd00:75::1")
    assert (full.group, full.users, full.serve) == ("netdev", ("nobody",), ("hello",))


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    words = "--prefix 2001:db8:9::/64 --mtu 1400 --scheme sealed --serve echo --serve echo --shared fd00::5"
    mixed = given(tmp_path, FULL, *words.split())
    assert to_text(mixed.config.prefix) == "2001:db8:9::"
    assert (mixed.mtu, mixed.config.scheme, mixed.serve) == (1400, "sealed", ("echo",))
    assert [to_text(address) for address in mixed.config.shared] == ["fd00::5"]
    assert (mixed.offload, mixed.config.silence) == (False, False)  # what no flag names stays the file's


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "no prefix"),
        ("prefix = 5", "prefix is 5; it must be a text"),
        ('prefix = "2001:db8::/200"', "2001:db8::/200"),
        ('prefix = "2001:db8::1/64"', "2001:db8::1/64"),
        ('prefix = "10.0.0.0/8"', "10.0.0.0"),
        ('prefix = "ff02::/64"', "multicast"),
        ('prefix = "2001:db8::/64"\ncolour = "red"', "no setting 'colour'"),
        ('prefix = "2001:db8::/64"\nmtu = "large"', "mtu is 'large'; it must be a whole number"),
        ('prefix = "2001:db8::/64"\nmtu = true', "mtu is True"),
        ('prefix = "2001:db8::/64"\nshared = "::1"', "shared is not a list of texts"),
        ('prefix = "2001:db8::/64"\nshared = [1]', "shared is not a list of texts"),
        ('prefix = "2001:db8::/64"\nshared = ["x"]', "'x'"),
        ('prefix = "2001:db8::/64"\nscheme = "clever"', "scheme"),
        ('prefix = "2001:db8::/64"\nserve = ["ftp"]', "no service 'ftp'"),
        ('prefix = "2001:db8::/64"\npool = 5', "it must be a section [pool]"),
        ('prefix = "2001:db8::/64"\n[pool]\nlow = 9\nhigh = 8', "watermark"),
        ('prefix = "2001:db8::/64"\n[tcp]\nspeed = 9', "no setting 'speed'"),
        ('prefix = "2001:db8::/64"\n[tcp]\nrto_min = "soon"', "'soon' is not a time"),
        ('prefix = "2001:db8::/64"\n[tcp]\nrto_min = true', "rto_min is not a time"),
        ('prefix = "2001:db8::/64"\n[tcp]\nretries = 0', "retries is 0; allowed is 1 to 100"),
        ("prefix = ", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(Failure) as caught:
        given(tmp_path, file)
    assert caught.value.code == USAGE
    assert message in caught.value.cause


def test_an_algorithm_of_ones_own_may_stand_among_tcps_settings(tmp_path: Path) -> None:
    """It was no name of an algorithm there; the key that takes one is `cc`."""
    (tmp_path / "mine.py").write_text(
        "from umuxstack.core.tcp.congestion.base import CongestionControl\n\nclass Mine(CongestionControl):\n    pass\n"
    )
    file = f'prefix = "2001:db8:1::/64"\n[tcp]\ncongestion = "{tmp_path}/mine.py:Mine"\n'
    assert given(tmp_path, file).config.tcp.congestion in given(tmp_path, file).algorithms
    assert given(tmp_path, file, "--cc", "bbr").config.tcp.congestion == "bbr"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot read .*none\.toml"):
        settings(parser.parse(["up", "--config", str(tmp_path / "none.toml")]))


def test_times_are_seconds_or_texts_with_a_unit(tmp_path: Path) -> None:
    for text, expected in (("5", 5_000_000), ("0.5", 500_000), ('"250us"', 250), ('"2h"', 7_200_000_000)):
        config = given(tmp_path, f'prefix = "2001:db8::/64"\nudp_idle = {text}').config
        assert config.udp_idle == Micros(expected)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ping", "2001:db8::1", "--count", "0"], "--count is 0; it is 1 to"),
        (["ping", "2001:db8::1", "--size", "70000"], "--size is 70000; it is 0 to"),
        (["das", "add", "web", "--lifetime", "0"], "more than 0"),
        (["das", "add", "web", "--lifetime", "99999999999999999999"], "longer than can be counted"),
    ],
)
def test_a_value_out_of_bounds_is_wrong_usage_and_named(words: list[str], said: str) -> None:
    arguments = parser.parse(words)
    with pytest.raises(Failure, match=said) as failed:
        arguments.run(arguments)
    assert failed.value.code == USAGE
