"""What is measured: one entry per row of the table, in the order of a run."""

import os
from collections.abc import Callable
from typing import Final

import attrs

from benchmarks import compiled, core_alone, core_path, impaired, pytcp_side, traffic
from benchmarks.harness import (
    KERNEL,
    KERNEL_TRIO,
    PYTCP,
    UMUX,
    UMUX_COMPILED,
    UMUX_LOOP,
    UMUX_LOOP_COMPILED,
    UMUX_STEERED,
    UMUX_STEERED_COMPILED,
    Arena,
)
from tun import netlink
from tun.steering import DEFAULT_MASK

HIGHER: Final = "higher"
LOWER: Final = "lower"


@attrs.frozen
class Measurement:
    """`variants[0]` is what the others are compared with. `goals`: what a variant must reach, by name."""

    name: str
    title: str
    unit: str
    better: str
    variants: tuple[str, ...]
    sample: Callable[[Arena, str], float]
    goals: dict[str, float] = attrs.field(factory=dict)
    absolute: bool = False  # goals and regressions are about the value itself, not its ratio to `variants[0]`
    once: bool = False  # one round is enough: it hardly varies, or takes long
    best: bool = False  # the best round counts, not the median: processor time of one process, which noise only adds to


COMPILED: Final = compiled.available()
STACKS: Final = (KERNEL, KERNEL_TRIO, UMUX, UMUX_LOOP) + ((UMUX_COMPILED, UMUX_LOOP_COMPILED) if COMPILED else ())
BULK_STACKS: Final = (*STACKS, PYTCP) if pytcp_side.installed() else STACKS
# Where the work is per packet it pays to have the kernel receive elsewhere, on a machine and kernel that can.
STEERABLE: Final = (os.cpu_count() or 1) > 1 and (netlink.SYSCTL / DEFAULT_MASK).exists()
STEERED: Final = (UMUX_STEERED, UMUX_STEERED_COMPILED) if COMPILED else (UMUX_STEERED,)
PACKET_STACKS: Final = (*STACKS, *STEERED) if STEERABLE else STACKS
SAME_PROGRAM: Final = {
    UMUX: KERNEL_TRIO,
    UMUX_COMPILED: KERNEL_TRIO,
}  # what a variant is also compared with, like with like


def both(goal: float, *also: str) -> dict[str, float]:
    """A goal for the bare loop, like with like, for what users get, and for other variants."""
    return dict.fromkeys((UMUX, UMUX_LOOP, UMUX_COMPILED, UMUX_LOOP_COMPILED, *also), goal)


def also_compiled(*variants: str) -> tuple[str, ...]:
    """The same with the compiled core, where there is one."""
    return variants + tuple(variant + compiled.SUFFIX for variant in variants) if COMPILED else variants


CATALOGUE: Final = (
    Measurement("bulk_in", "bulk in", "Gbit/s", HIGHER, BULK_STACKS, traffic.bulk_in, both(0.85)),
    Measurement("bulk_out", "bulk out", "Gbit/s", HIGHER, BULK_STACKS, traffic.bulk_out, both(0.7)),
    Measurement(
        "connect_in", "connect, byte each way, close: to us", "per s", HIGHER, PACKET_STACKS, traffic.connect_in,
        both(0.7, *STEERED),
    ),
    Measurement(
        "connect_out", "connect, byte each way, close: from us", "per s", HIGHER, PACKET_STACKS, traffic.connect_out,
        both(0.7, *STEERED),
    ),
    Measurement(
        "request_response", "1-byte request/response, 16 clients", "per s", HIGHER, PACKET_STACKS,
        traffic.request_response, both(0.45, *STEERED),
    ),
    Measurement(
        "impaired", "4 flows out, 1 % loss, 20 ms", "Mbit/s", HIGHER, (KERNEL, UMUX), impaired.goodput,
        {UMUX: impaired.GOAL},
    ),
    Measurement("ping_pong", "ping-pong on one core, p50", "µs", LOWER, STACKS, traffic.ping_pong, both(3.0)),
    Measurement(
        "workers", "request/response, one and two workers", "per s", HIGHER, (f"1 × {UMUX}", f"2 × {UMUX}"),
        traffic.workers,
    ),
    Measurement(
        "core", "in the core alone", "µs", LOWER, also_compiled(core_path.REQUEST, core_path.CONNECTION),
        core_path.share, absolute=True, best=True,
    ),
    Measurement(
        "memory", "an idle established session", "bytes", LOWER,
        also_compiled(core_alone.FRESH, core_alone.USED, core_alone.SERVED), core_alone.memory,
        dict.fromkeys(also_compiled(core_alone.FRESH, core_alone.USED, core_alone.SERVED), 500), absolute=True,
        once=True,
    ),
    Measurement(
        "lookup", "finding the session of a packet", "ns", LOWER,
        ("1 session", "1,000 sessions", "100,000 sessions", "1,000,000 sessions"), core_alone.lookup,
        best=True,
    ),
    Measurement(
        "demux", "a segment into one of 10,000 sessions", "ns", LOWER, (core_alone.FOUR_TUPLE, core_alone.PAIR),
        core_alone.demux, best=True,
    ),
    Measurement(
        "address", "one more address", "µs", LOWER,
        (core_alone.IP_BATCH, core_alone.NETLINK, core_alone.EA_TAKEN, core_alone.EA_CONNECT), core_alone.new_address,
        best=True,
    ),
)  # fmt: skip
