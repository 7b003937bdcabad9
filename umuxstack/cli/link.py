"""`umux link`: a cable with faults between two TUN devices."""

import argparse
import re
from typing import TYPE_CHECKING, Any, Final

from umuxstack.cli.common import OK, USAGE, Commands, Failure, add_command, refused_device

if TYPE_CHECKING:
    from ipaddress import IPv6Interface, IPv6Network

    from umuxstack.cable import CableEnd
    from umuxstack.driver.links.impair import Impairment, PipeStatistics
    from umuxstack.driver.links.patch import Patch

_TIME: Final = {"us": 1, "ms": 1000, "s": 1_000_000}
_RATE: Final = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "link",
        _link,
        "join two TUN devices by a cable that loses, delays, reorders, duplicates and corrupts",
        "For kernels on which there is no netem, and for runs that can be repeated: the same seed loses the same\n"
        "packets. A value holds for both directions; two values with a comma are for a to b, and b to a.\n"
        "Runs until Ctrl-C and removes the devices.",
        """\
  ip netns add left; ip netns add right
  umux link --a tun0@left --a-address 2001:db8:a::1/64 --a-route 2001:db8:b::/64 \\
            --b tun0@right --b-address 2001:db8:b::1/64 --b-route 2001:db8:a::/64 --loss 1% --delay 10ms
  umux link --a in --b out --rate 20M,2M --queue 50 --loss 0,0.5% --seed 7""",
        stack=False,
    )
    for end in ("a", "b"):
        parser.add_argument(f"--{end}", metavar="NAME[@NETNS]", default=f"umux-{end}", help="a device, and where")
        parser.add_argument(f"--{end}-address", metavar="ADDR/LEN", action="append", default=[], help="given to it")
        parser.add_argument(f"--{end}-route", metavar="PREFIX", action="append", default=[], help="routed into it")
    group = parser.add_argument_group("faults")
    group.add_argument("--loss", metavar="P", default="0", help="share of packets lost, as 1%% or 0.01")
    group.add_argument(
        "--burst", metavar="ENTER/LEAVE", help="loss in bursts (Gilbert-Elliott): chances per packet to enter and leave"
    )
    group.add_argument("--delay", metavar="TIME", default="0", help="one way, as 10ms")
    group.add_argument("--jitter", metavar="TIME", default="0", help="up to this much more; the order is kept")
    group.add_argument("--reorder", metavar="P", default="0", help="share of packets that are overtaken")
    group.add_argument("--duplicate", metavar="P", default="0", help="share that arrives twice")
    group.add_argument("--corrupt", metavar="P", default="0", help="share in which a bit flips")
    group.add_argument("--mark", metavar="P", default="0", help="share of ECN-capable packets marked CE")
    group.add_argument("--rate", metavar="BITS", default="0", help="a bottleneck, as 100M; 0: none")
    group.add_argument("--queue", metavar="PACKETS", default="0", help="that wait at the bottleneck; 0: no limit")
    group.add_argument("--seed", type=int, default=0, help="the same seed, the same faults")
    parser.add_argument("--mtu", type=int, default=1500, help="of both devices")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself after this time")


def _link(arguments: argparse.Namespace) -> int:
    import trio

    from tun.device import MTU_MAX, MTU_MIN
    from tun.errors import TunError
    from umuxstack.cli import values
    from umuxstack.core.errors import BadArgument

    try:
        faults = [_impairment(arguments, direction) for direction in (0, 1)]
    except BadArgument as error:
        raise Failure(str(error), code=USAGE) from None
    ends = [_end(arguments, end) for end in ("a", "b")]
    if (ends[0].name, ends[0].namespace) == (ends[1].name, ends[1].namespace):
        raise Failure(f"--a and --b are both {arguments.a!r}", "a cable has two ends: name another device", USAGE)
    values.whole(arguments.mtu, "--mtu", MTU_MIN, MTU_MAX)
    if arguments.seconds is not None and not arguments.seconds >= 0:
        raise Failure(f"--for: {arguments.seconds} is no time", "write seconds, as 2.5", USAGE)
    try:
        statistics = trio.run(_run, arguments, ends, faults)
    except TunError as error:  # before there is a cable; it carries on whatever happens to it later
        raise refused_device(error) from None
    _report(arguments, statistics)
    return OK


async def _run(
    arguments: argparse.Namespace, ends: "list[CableEnd]", faults: "list[Impairment]"
) -> "tuple[PipeStatistics, PipeStatistics]":
    import math
    import signal

    import trio

    from umuxstack.cable import open_cable
    from umuxstack.cli import output

    patch: Patch
    async with open_cable(*ends, a_to_b=faults[0], b_to_a=faults[1], mtu=arguments.mtu) as patch:
        with (
            trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
            trio.move_on_after(math.inf if arguments.seconds is None else arguments.seconds),
        ):
            # Only now: whoever reads this may send the signal at once.
            if not arguments.json:
                output.say(f"{arguments.a} <-> {arguments.b}: carrying packets; Ctrl-C ends it")
            async for _ in signals:
                break
        return patch.statistics()


def _report(arguments: argparse.Namespace, statistics: "tuple[PipeStatistics, PipeStatistics]") -> None:
    import attrs

    from umuxstack.cli import output

    if arguments.json:
        output.say_json({"a_to_b": attrs.asdict(statistics[0]), "b_to_a": attrs.asdict(statistics[1])})
        return
    for name, one in zip(("a to b", "b to a"), statistics, strict=True):
        values = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in attrs.asdict(one).items() if value)
        output.say(f"{name}: {values or 'nothing'}")


def _end(arguments: argparse.Namespace, end: str) -> "CableEnd":
    from ipaddress import IPv6Interface, IPv6Network

    from umuxstack.cable import CableEnd

    name, _, namespace = getattr(arguments, end).partition("@")
    addresses = tuple(_text(f"{end}-address", text, IPv6Interface) for text in getattr(arguments, f"{end}_address"))
    routes = tuple(_text(f"{end}-route", text, IPv6Network) for text in getattr(arguments, f"{end}_route"))
    return CableEnd(name, namespace or None, addresses, routes)


def _text(option: str, text: str, shape: "type[IPv6Interface] | type[IPv6Network]") -> str:
    from ipaddress import IPv6Interface

    try:
        found = shape(text)
    except ValueError as error:
        raise Failure(f"--{option}: {text!r}: {error}", "write IPv6, as 2001:db8:a::1/64", USAGE) from None
    if isinstance(found, IPv6Interface) and (found.ip.is_unspecified or found.ip.is_multicast):
        raise Failure(f"--{option}: {text!r} is nobody's address", "write a unicast one, as 2001:db8:a::1/64", USAGE)
    return str(found)


def _impairment(arguments: argparse.Namespace, direction: int) -> "Impairment":
    from umuxstack.core.units import Micros
    from umuxstack.driver.links.impair import Burst, Impairment

    def choose(option: str) -> str:
        values = str(getattr(arguments, option)).split(",")
        if len(values) > 2:
            raise Failure(f"--{option} takes one value, or two with a comma (a to b, b to a)", code=USAGE)
        return values[min(direction, len(values) - 1)].strip()

    burst: Any = None
    if arguments.burst:
        enter, slash, leave = choose("burst").partition("/")
        if not slash:
            raise Failure(f"--burst: {enter!r} is one share of two", "write ENTER/LEAVE, as 1%/30%", USAGE)
        burst = Burst(_share("burst", enter), _share("burst", leave))
    return Impairment(
        loss=_share("loss", choose("loss")),
        burst=burst,
        delay=Micros(_time("delay", choose("delay"))),
        jitter=Micros(_time("jitter", choose("jitter"))),
        reorder=_share("reorder", choose("reorder")),
        duplicate=_share("duplicate", choose("duplicate")),
        corrupt=_share("corrupt", choose("corrupt")),
        mark=_share("mark", choose("mark")),
        rate=_bits("rate", choose("rate")),
        queue_packets=_bits("queue", choose("queue")),
        seed=arguments.seed,
    )


def _share(option: str, text: str) -> float:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise Failure(f"--{option}: {text!r} is no share", "write it as 1% or 0.01", USAGE) from None


def _time(option: str, text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s)", text)
    if match:
        return int(float(match[1]) * _TIME[match[2]])
    if text == "0":
        return 0
    raise Failure(f"--{option}: {text!r} is no time", "write it as 500us, 10ms or 1s", USAGE)


def _bits(option: str, text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", text)
    if not match:
        raise Failure(f"--{option}: {text!r} is no number", "write it as 64k, 100M or 1G", USAGE)
    return int(float(match[1]) * _RATE[match[2].lower()])
