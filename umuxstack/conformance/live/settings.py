"""From the commands in a script to sysctls of the kernel's namespace.

A vendor's sysctl of Linux is set as it stands. Of our own settings those are known that a sysctl means, too. What the
runner knows to mean nothing (preparations of a test bed) means nothing here. The rest is left out, by name.
"""

import re
from typing import Final

import attrs

from umuxstack.conformance import commands
from umuxstack.conformance.commands import Effect
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.subject import Setup

# Namespaces may not choose a restricted algorithm as their default; root's sockets may, so it is done at each of them.
CONGESTION: Final = "net/ipv4/tcp_congestion_control"
Pairs = list[tuple[str, str]]  # (path below /proc/sys, value)

_OURS: Final = {"ecn": "tcp_ecn", "retries": "tcp_retries2"}
_CONGESTION: Final = {"newreno": "reno"}
# What the kernel's own suites set before each script (their common defaults.sh), where the kernel's default differs.
_DEFAULTS: Final = {
    "tcp_rmem": "4096 540000 15728640",
    "tcp_wmem": "4096 262144 4194304",
    "tcp_syn_retries": "5",
    "tcp_synack_retries": "5",
    "tcp_slow_start_after_idle": "0",
    "tcp_congestion_control": "cubic",
    "tcp_ecn": "0",
}
# The kernel's defaults, which an administrator may have changed for the whole machine.
_KERNEL: Final = {
    "tcp_rmem": "4096 131072 6291456",
    "tcp_wmem": "4096 16384 4194304",
    "tcp_no_metrics_save": "1",  # a connection starts knowing nothing, as ours do
}


@attrs.frozen(slots=True)
class Orders:
    """What one command asks for: sysctls, and effects that concern no sysctl."""

    sysctls: Pairs
    effects: list[Effect]

    @property
    def congestion(self) -> str:
        """The congestion control that it names, or ""."""
        chosen = [value for path, value in self.sysctls if path == CONGESTION]
        return chosen[-1] if chosen else ""


def _ipv4(values: dict[str, str]) -> Pairs:
    return [(f"net/ipv4/{name}", value) for name, value in values.items()]


def initial(setup: Setup) -> Orders:
    """Before the script: what of the personality a sysctl says, too, and the rest as kernels have it by default."""
    policy = setup.policy
    values = _KERNEL | {
        "tcp_congestion_control": _CONGESTION.get(policy.congestion, policy.congestion),
        "tcp_ecn": "0" if not policy.ecn else "1" if policy.ecn_asks else "2",
    }
    if setup.personality != "linux":
        values |= {
            "tcp_rto_min_us": str(policy.rto_min),
            "tcp_syn_retries": str(policy.syn_retries),
            "tcp_synack_retries": str(policy.synack_retries),
            "tcp_syn_linear_timeouts": str(policy.syn_linear_timeouts),
            "tcp_retries2": str(policy.retries),
            "tcp_slow_start_after_idle": str(int(policy.restart_after_idle)),
            "tcp_rfc1337": "1",  # no personality lets a reset end TIME-WAIT
        }
    elif not setup.ours:
        values |= _DEFAULTS
    return Orders(_ipv4(values), [])


def orders(text: str) -> Orders:
    """What the command `text` means for a kernel. Raises UnsupportedConstruct."""
    out = Orders([], [])
    for line in commands.lines_of(text):
        own = re.match(r"umux\s+set\s+(.*)", line)
        if own:
            out.sysctls.extend(_own(own[1]))
        elif re.fullmatch(r"\S*defaults\.sh", line):
            out.sysctls.extend(_ipv4(_DEFAULTS))
        elif commands.linux_sysctls(line):
            out.sysctls.extend(commands.linux_sysctls(line))
        else:
            out.effects.extend(_plain(line))
    return out


def _own(text: str) -> Pairs:
    pairs = []
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in _OURS:
            raise UnsupportedConstruct(f"umux set {name}")
        pairs.append((f"net/ipv4/{_OURS[name]}", value))
    return pairs


def _plain(line: str) -> list[Effect]:
    effects = commands.interpret(line)
    for effect in effects:
        if effect.counters or effect.counter is not None:
            raise UnsupportedConstruct("nstat")
        if attrs.evolve(effect, link_up=None, queue_up=None, probe="", settings={}) != Effect():
            raise UnsupportedConstruct(f"command `{' '.join(line.split()[:2])}`")
    return effects
