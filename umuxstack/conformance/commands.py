"""Commands in backquotes: a table from what vendors' scripts run in a shell to this stack's configuration.

A command changes the configuration of the stack, probes its state, or prepares the vendor's system in a way that
means nothing here. One that is in none of the tables is unsupported: it is never ignored.
"""

import math
import re
from collections.abc import Callable
from typing import Final

import attrs

from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.symbols import BSD_KEY, PROC_STATES, TFO_KEY
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import millis, seconds

Change = dict[str, object]


@attrs.frozen(slots=True)
class Effect:
    """What a command means: changes of TcpPolicy, a state that some session must be in, or a dead link."""

    policy: Change = attrs.field(factory=dict)
    link_up: bool | None = None
    queue_up: bool | None = None  # False: the sending host's own queue drops all; what comes in still comes
    settings: dict[str, int] = attrs.field(factory=dict)  # of the sockets' layer, not TCP's
    probe: str = ""  # a state's name; "" no probe
    drops_time_wait: bool = False  # what is in TIME-WAIT is forgotten
    forgets_cookies: bool = False  # those that servers gave for Fast Open
    counters: bool = False  # nstat -n: from now on counters count from 0
    counter: tuple[str, int | None] | None = None  # (name, value) that must hold; None: any but 0


def _flag(name: str, *, on: tuple[int, ...] = (1,)) -> Callable[[int], Change]:
    return lambda value: {name: value in on}


def _nothing(value: int) -> Change:
    return {}


def _only(*allowed: int) -> Callable[[int], Change]:
    def check(value: int) -> Change:
        if value not in allowed:
            raise UnsupportedConstruct("")
        return {}

    return check


def _rfc1323(value: int) -> Change:
    """FreeBSD: 0 neither, 1 both, 2 window scale, 3 timestamps."""
    return {"timestamps": value in (1, 3), "window_scaling": value in (1, 2)}


def _freebsd_ecn(value: int) -> Change:
    """0 off, 1 asks and grants, 2 grants; 3 and 4 the same with accurate ECN."""
    if value > 4:
        raise UnsupportedConstruct("")
    return {"ecn": value > 0, "ecn_asks": value in (1, 3), "accurate_ecn": (0, 0, 0, 2, 1)[value]}


def _fast_open(value: int) -> Change:
    """Linux's bits: 1, 2: clients and servers may; 4, 0x200: they need no cookie; 0x400: all listeners do."""
    queue = FAST_OPEN_QUEUE if value & 0x402 == 0x402 else 0
    return {"fast_open_queue": queue, "fast_open_cookies": not value & 0x204}


def _linux_ecn(value: int) -> Change:
    """0 off, 1 asks and grants, 2 grants; 3 to 5 grant AccECN too, of which 4 asks for RFC 3168's and 5 for nothing."""
    if value > 5:
        raise UnsupportedConstruct("")
    return {"ecn": value > 0, "ecn_asks": value in (1, 3, 4), "accurate_ecn": (0, 0, 0, 2, 1, 1)[value]}


# FreeBSD: net.inet.tcp.*, kern.*
_FREEBSD: Final[dict[str, Callable[[int], Change]]] = {
    "net.inet.tcp.rfc1323": _rfc1323,
    "net.inet.tcp.sack.enable": _flag("sack"),
    "net.inet.tcp.ecn.enable": _freebsd_ecn,
    "net.inet.tcp.ecn.plusplus": lambda v: {"ecn_plus": v},
    "net.inet.tcp.ecn.maxretries": lambda v: {"ecn_syn_retries": v},
    "net.inet.tcp.hostcache.purgenow": _nothing,
    "net.inet.tcp.hostcache.enable": _nothing,
    "kern.timecounter.alloweddeviation": _nothing,
    "kern.ipc.maxsockbuf": lambda v: {"receive_buffer_max": v},
    "net.inet.tcp.recvspace": lambda v: {"receive_buffer": v},
    "net.inet.tcp.sendspace": lambda v: {"send_buffer": v, "send_buffer_max": max(v, 4 << 20)},
    "net.inet.tcp.recvbuf_auto": _nothing,
    "net.inet.tcp.sendbuf_auto": _nothing,
    "net.inet.tcp.rexmit_initial": lambda v: {"rto_initial": millis(v)},
    "net.inet.tcp.rexmit_min": lambda v: {"rto_min": millis(v)},
    "net.inet.tcp.rexmit_slop": lambda v: {"rto_slop": millis(v)},
    "net.inet.tcp.rexmit_drop_options": lambda v: {"syn_options_dropped_after": 2 if v else 0},
    "net.inet.tcp.delacktime": lambda v: {"delayed_ack": millis(v)},
    "net.inet.tcp.delayed_ack": _only(1),
    "net.inet.tcp.keepidle": lambda v: {"keepalive_idle": millis(v)},
    "net.inet.tcp.keepintvl": lambda v: {"keepalive_interval": millis(v)},
    "net.inet.tcp.keepcnt": lambda v: {"keepalive_count": v},
    "net.inet.tcp.keepinit": lambda v: {"connect_timeout": millis(v)},
    "net.inet.tcp.always_keepalive": _only(0, 1),
    "net.inet.tcp.msl": lambda v: {"time_wait": millis(2 * v)},
    "net.inet.tcp.finwait2_timeout": lambda v: {"fin_wait_2": millis(v)},
    "net.inet.tcp.fast_finwait2_recycle": _only(0),
    "net.inet.tcp.initcwnd_segments": lambda v: {"initial_window": v},
    "net.inet.tcp.icmp_may_rst": lambda v: {"icmp_aborts": bool(v)},
    "net.inet.tcp.insecure_rst": _flag("rst_in_window"),
    "net.inet.tcp.insecure_syn": _flag("syn_in_window"),
    "net.inet.tcp.insecure_ack": _only(0),
    "net.inet.tcp.drop_synfin": _flag("syn_fin", on=(0,)),
    "net.inet.tcp.blackhole": _only(0),
    "net.inet.tcp.tolerate_missing_ts": lambda v: {"tolerate_missing_timestamps": bool(v)},
    "net.inet.tcp.syncookies": _only(0, 1),
    "net.inet.tcp.syncookies_only": _only(0),
    "net.inet.tcp.syncache.rexmtlimit": lambda v: {"synack_retries": v},
    "net.inet.tcp.log_in_vain": _nothing,
    "net.inet.tcp.tso": _nothing,
    "net.inet.tcp.rfc3042": _only(1),
    "net.inet.tcp.rfc3390": _nothing,
    "net.inet.tcp.rfc3465": _nothing,
    "net.inet.tcp.rfc6675_pipe": _nothing,
    "net.inet.tcp.do_prr": _only(1),
    "net.inet.tcp.do_lrd": _only(0),
    "net.inet.tcp.abc_l_var": _nothing,
    "net.inet.tcp.path_mtu_discovery": _only(1),
    "net.inet.tcp.pmtud_blackhole_detection": _nothing,
    "net.inet.tcp.minmss": _nothing,
    "net.inet.tcp.v6mssdflt": _nothing,
    "net.inet.tcp.mssdflt": _nothing,
    "net.inet.tcp.isn_reseed_interval": _nothing,
    "net.inet.tcp.fastopen.client_enable": _only(0, 1),
    "net.inet.tcp.fastopen.server_enable": _only(0, 1),
    "net.inet.tcp.fastopen.psk_enable": _only(0),
    "net.inet.icmp.icmplim": _nothing,
    "net.inet.icmp.icmplim_jitter": _nothing,
    "net.inet6.icmp6.errppslimit": _nothing,
    "net.inet.udp.blackhole": _only(0),
    "net.inet.tcp.newcwv": _nothing,
    "net.inet.tcp.nolocaltimewait": _nothing,
    "net.inet.tcp.per_cpu_timers": _nothing,
    "net.inet.tcp.persmin": lambda v: {"persist_min": millis(v)},
    "net.inet.tcp.persmax": _nothing,
}

# Linux: net.ipv4.*
_LINUX: Final[dict[str, Callable[[int], Change]]] = {
    "tcp_timestamps": _flag("timestamps", on=(1, 2)),
    "tcp_sack": _flag("sack"),
    "tcp_dsack": _only(1),
    "tcp_fack": _nothing,
    "tcp_window_scaling": _flag("window_scaling"),
    "tcp_ecn": _linux_ecn,
    "tcp_ecn_fallback": lambda v: {"ecn_validates": bool(v)},
    "tcp_ecn_option": lambda v: {"accurate_ecn_option": v > 0},
    "tcp_ecn_option_beacon": _nothing,
    "tcp_syn_retries": lambda v: {"syn_retries": v},
    "tcp_synack_retries": lambda v: {"synack_retries": v},
    "tcp_retries1": _nothing,
    "tcp_retries2": lambda v: {"retries": v},
    "tcp_orphan_retries": lambda v: {"orphan_retries": v or 8},
    "tcp_fin_timeout": lambda v: {"fin_wait_2": seconds(v)},
    "tcp_keepalive_time": lambda v: {"keepalive_idle": seconds(v)},
    "tcp_keepalive_intvl": lambda v: {"keepalive_interval": seconds(v)},
    "tcp_keepalive_probes": lambda v: {"keepalive_count": v},
    "tcp_slow_start_after_idle": lambda v: {"restart_after_idle": bool(v)},
    "tcp_tso_win_divisor": _nothing,
    "tcp_min_tso_segs": _nothing,
    "tcp_tso_rtt_log": _nothing,
    "tcp_limit_output_bytes": _nothing,
    "tcp_moderate_rcvbuf": _nothing,
    "tcp_no_metrics_save": _nothing,
    "tcp_autocorking": _nothing,
    "tcp_pacing_ss_ratio": _nothing,
    "tcp_pacing_ca_ratio": _nothing,
    "tcp_syncookies": _only(0, 1),
    "tcp_frto": _nothing,
    "tcp_early_retrans": lambda v: {"tail_loss_probe": v >= 3},
    "tcp_recovery": _only(1),
    "tcp_reordering": _only(3),
    "tcp_max_reordering": _nothing,
    "tcp_thin_linear_timeouts": _only(0),
    "tcp_thin_dupack": _only(0),
    "tcp_adv_win_scale": _nothing,
    "tcp_app_win": _nothing,
    "tcp_mtu_probing": _only(0),
    "tcp_base_mss": _nothing,
    "tcp_rfc1337": _nothing,
    "tcp_stdurg": _nothing,
    "tcp_abort_on_overflow": _only(0),
    "tcp_invalid_ratelimit": lambda v: {"challenge_acks_per_second": 1000 // v if v else 1000},
    "tcp_challenge_ack_limit": _nothing,
    "tcp_fastopen": _fast_open,
    "tcp_tw_reuse": _nothing,
    "tcp_tw_reuse_delay": _nothing,
    "tcp_fastopen_blackhole_timeout_sec": _nothing,
    "tcp_fastopen_blackhole_detect_timeout_sec": _nothing,
    "tcp_notsent_lowat": _nothing,
    "tcp_min_rtt_wlen": _nothing,
    "tcp_comp_sack_nr": _nothing,
    "tcp_comp_sack_delay_ns": _nothing,
    "tcp_shrink_window": _only(0),
    "tcp_rto_min_us": lambda v: {"rto_variance_min": v},
    "tcp_syn_linear_timeouts": lambda v: {"syn_linear_timeouts": v},
    "ip_local_port_range": _nothing,
    "ip_no_pmtu_disc": _only(0),
    "icmp_ratelimit": _nothing,
    "tcp_rto_max_ms": lambda v: {"rto_max": millis(v)},
    "tcp_early_demux": _nothing,
    "tcp_l3mdev_accept": _nothing,
    "tcp_migrate_req": _only(0),
    "tcp_plb_enabled": _only(0),
    "tcp_reflect_tos": _only(0),
    "tcp_collapse_max_bytes": _nothing,
    "tcp_child_ehash_entries": _nothing,
    "tcp_pingpong_thresh": _only(1),
}


# What the kernel's common defaults.sh sets, as far as it differs from the `linux` personality.
DEFAULTS: Final[Change] = {
    "receive_buffer": 270_000,
    "receive_buffer_max": 15_728_640,
    "send_buffer": 262_144,
    "send_buffer_max": 4_194_304,
    "syn_retries": 5,
    "synack_retries": 5,
    "restart_after_idle": False,
    "congestion": "cubic",
    "ecn": False,
}

SELFTEST_FAST_OPEN: Final = 0x3
GOOGLE_FAST_OPEN: Final = 0x403

IPV4_HEADERS: Final = 40  # with TCP's, without options

FAST_OPEN_QUEUE: Final = 64  # of a listener that says nothing of it
# Sysctls that the sockets' layer of the runner looks at, some of them beside TCP
_SERVES: Final = "net.inet.tcp.fastopen.server_enable"
_SETTINGS: Final = ("tcp_tw_reuse", "tcp_tw_reuse_delay", "tcp_notsent_lowat", "tcp_fastopen")

_CONGESTION: Final = {"cubic": "cubic", "reno": "newreno", "newreno": "newreno", "bbr": "bbr"}

# Preparations of the vendor's system that mean nothing to this one.
_IGNORED: Final = re.compile(
    r"""(
      /tmp/sysctl_restore\S* | sync | true | \./clean\S*
    | tc\s+qdisc\s+(replace|add)\s+dev\s+tun0\s+root\s+(pfifo|pfifo_fast|fq_codel)(\s+flow_limit\s+\d+)?\s*
    | (sudo\s+)?ethtool\s+-K\s+\S+\s+.*
    | tcpdump(\s.*)? | (p?killall|pkill)\s+(-\S+\s+)*tcpdump | dmesg(\s.*)?
    | if\s+\[\s!\s-e\s\./setkey\s\] | then\s+cc\s+-o\s+setkey\s.* | fi
    | kldload\s+-n\s+cc_\w+ | sleep\s+[\d.]+ | /bin/(rm|dd)\s.* | rm\s+-f\s.* | dd\s.* | ulimit\s.*
    | ip\s+link\s+set\s+dev\s+tun0\s+(gso|gro|tso)_\S+\s.* | cat\s+/proc/net/\S+ | route\s+flush\s+.*
    )$""",
    re.VERBOSE,
)
_PROC: Final = re.compile(r'grep\s+"\s*(0[1-9AB])\s*"\s+/proc/net/tcp')
_SOCKSTAT: Final = re.compile(r"sockstat\b.*grep\s+-c\s+(\w+)\s*\|\s*grep\s+(\d+)")
_NETSTAT: Final = re.compile(r"(?:ss|netstat)\b.*grep\s+(?:-\w+\s+)*([A-Z][A-Z_12-]+)\b")


def interpret(text: str) -> list[Effect]:
    """What the command `text`, possibly of several lines, does. Raises UnsupportedConstruct for the first unknown."""
    return [_line(line) for line in lines_of(text)]


def lines_of(text: str) -> list[str]:
    """The single commands in `text`, without comments and redirections."""
    text = re.sub(r"(?m)#.*$", "", text).replace("\\\n", " ")
    text = re.sub(r"\$\(\(([^()]*)\)\)", _arithmetic, text)
    lines = (re.sub(r"\d?>\s*/dev/null|2>&1", "", line).strip() for line in re.split(r"\n|;|&&", text))
    return [line for line in lines if line]


def linux_sysctls(line: str) -> list[tuple[str, str]]:
    """(net/ipv4/name, value) of each that the command sets."""
    found = re.findall(r"(?:/proc/sys/|\b)(net[./]ipv[46][./](?:\w+))\s*[= ]\s*\"?([^\s\"]+(?:\s+\d+\s+\d+)?)", line)
    if found and re.match(r"(sudo\s+)?(sysctl|\S*set_sysctls\.py|/proc/sys|/?\S*sysctl|echo)", line):
        return [(name.replace(".", "/"), value) for name, value in found]
    return []


def _arithmetic(match: re.Match[str]) -> str:
    """The shell's `$((15*1024*1024))`: products are all that the scripts compute."""
    factors = [factor.strip() for factor in match[1].split("*")]
    if not all(factor.isdigit() for factor in factors):
        raise UnsupportedConstruct(f"arithmetic {match[0]}")
    return str(math.prod(map(int, factors)))


def _line(line: str) -> Effect:
    own = re.match(r"umux\s+set\s+(.*)", line)
    if own:
        return Effect(_own_settings(own[1]))
    if re.fullmatch(r"umux\s+link\s+(up|down)", line):
        return Effect(link_up=line.endswith("up"))
    if re.fullmatch(r"\S*defaults\.sh", line):
        bits = SELFTEST_FAST_OPEN if line == "./defaults.sh" else GOOGLE_FAST_OPEN
        return Effect(DEFAULTS | {"fast_open_key": TFO_KEY} | _fast_open(bits), settings={"tcp_fastopen": bits})
    if re.search(r"packetdrill/common\.sh|\$xtables|\bconntrack\b", line):
        raise UnsupportedConstruct("netfilter's connection tracking")
    if line == "./setkey":
        return Effect({"fast_open_key": BSD_KEY})
    if ("setkey" in line and not _IGNORED.match(line)) or "tcpmd5" in line:  # the system's command, which IPsec has
        raise UnsupportedConstruct("TCP MD5")
    route = re.fullmatch(r"ip\s+route\s+(?:add|change)\s.*\badvmss\s+(\d+)(?:\s+mtu\s+lock\s+(\d+))?", line)
    if route:
        return Effect({"mss": min(int(route[1]), int(route[2] or 1 << 16) - IPV4_HEADERS)})
    if re.match(r"ip\s+(-6\s+)?tcp_metrics\s+flush|sysctl\s.*\btcp_fastopen_cookies=0\b", line):
        return Effect(forgets_cookies=True)
    found = linux_sysctls(line)
    if found:
        named = ((re.split(r"[./]", name)[-1], value) for name, value in found)
        settings = {name: int(value, 0) for name, value in named if name in _SETTINGS}
        return Effect(_merge(_linux_setting(name, value) for name, value in found), settings=settings)
    pairs = re.findall(r"((?:net\.inet6?|kern)\.[\w.]+)\s*=\s*(\S+)", line)
    if pairs:
        serves = dict(pairs).get(_SERVES)
        settings = {} if serves is None else {"tcp_fastopen": 3 if serves == "1" else 1}
        return Effect(_merge(_freebsd_setting(name, value) for name, value in pairs), settings=settings)
    if re.fullmatch(r"tcpdrop\s+-s\s+TIME_WAIT", line):
        return Effect(drops_time_wait=True)
    if "pfifo limit 0" in line or "netem loss 100%" in line:
        return Effect(queue_up=False)
    if re.fullmatch(r"tc\s+qdisc\s+\w+\s+dev\s+\S+\s+root\s+fq(\s.*)?", line):
        raise UnsupportedConstruct("qdisc fq")  # it paces what TCP sends
    module = re.fullmatch(r"echo\s+\S+\s*>\s*/sys/module/(\w+)/parameters/(\w+)", line)
    if module:
        raise UnsupportedConstruct(f"parameter {module[2]} of {module[1]}")
    if re.match(r"tc\s+qdisc\s+del", line):
        return Effect(queue_up=True)
    probe = _probe(line)
    if probe is not None:
        return probe
    if _IGNORED.match(line):
        return Effect(queue_up=True if line.startswith("tc ") else None)
    words = line.split()
    raise UnsupportedConstruct(f"command `{' '.join(words[: 3 if words[1:2] == ['-n'] else 2])}`")


def _probe(line: str) -> Effect | None:
    match = _PROC.search(line)
    if match:
        return Effect(probe=PROC_STATES[match[1]])
    match = _SOCKSTAT.search(line)
    if match:
        name = match[1].replace("_", "-").replace("SYN-RCVD", "SYN-RECEIVED")
        return Effect(probe=name if match[2] != "0" else f"not {name}")
    match = re.match(r"ss\b.*\sstate\s+([A-Z-]+)", line)
    if match:
        return Effect(probe=match[1].replace("SYN-RECV", "SYN-RECEIVED"))
    match = _NETSTAT.search(line)
    if match:
        return Effect(probe=match[1].replace("_", "-").replace("SYN-RECV", "SYN-RECEIVED"))
    if re.fullmatch(r"nstat(\s+-n)?\s*", line):
        return Effect(counters=True)
    match = re.search(r"nstat\s*(?:-\w+\s*)*\|\s*grep\s+(?:-q\s+)?(\w+)\s*(?:\|\s*grep\s+-q\s+\"\s*(\d+)|$)", line)
    if match:
        if match[1] not in KERNEL_COUNTERS:
            raise UnsupportedConstruct(f"counter {match[1]}")
        return Effect(counter=(match[1], int(match[2]) if match[2] else None))
    return None


# nstat's names, as far as a counter of this stack counts the same
KERNEL_COUNTERS: Final[dict[str, str]] = {
    "TcpExtOutOfWindowIcmps": "drop.icmp_not_believed",
    "TcpExtTCPLossProbes": "tlp_probes",
    "TcpRetransSegs": "retransmitted_segments",
    "TcpExtTCPTimeouts": "rto_expirations",
}


def _merge(changes: "object") -> Change:
    merged: Change = {}
    for change in changes:  # type: ignore[attr-defined]
        merged.update(change)
    return merged


def _freebsd_setting(name: str, value: str) -> Change:
    if name == "net.inet.tcp.cc.algorithm":
        return {"congestion": _algorithm(value)}
    change = _FREEBSD.get(name)
    if change is None:
        raise UnsupportedConstruct(f"sysctl {name}")
    return _apply(change, f"sysctl {name}", value)


def _linux_setting(path: str, value: str) -> Change:
    name = re.split(r"[./]", path)[-1]
    if name == "tcp_congestion_control":
        return {"congestion": _algorithm(value)}
    if name == "tcp_fastopen_key":
        return {"fast_open_key": value.partition(",")[0].replace("-", "")}
    if name in ("tcp_rmem", "tcp_wmem"):
        numbers = [int(n) for n in value.split()]
        if len(numbers) == 3:
            if name == "tcp_wmem":
                return {"send_buffer": numbers[1], "send_buffer_max": numbers[2]}
            # Of a receive buffer half is offered as a window, the rest is what its bookkeeping may take.
            return {"receive_buffer": numbers[1] // 2, "receive_buffer_max": numbers[2]}
    change = _LINUX.get(name)
    if change is None:
        raise UnsupportedConstruct(f"sysctl {name}")
    return _apply(change, f"sysctl {name}", value)


def _apply(change: Callable[[int], Change], name: str, value: str) -> Change:
    try:
        number = int(value.split()[0].rstrip(","), 0)
    except ValueError:
        if change is _nothing:
            return {}
        raise UnsupportedConstruct(f"{name}={value}") from None
    try:
        return change(number)
    except UnsupportedConstruct:
        raise UnsupportedConstruct(f"{name}={value}") from None


def _algorithm(value: str) -> str:
    if value not in _CONGESTION:
        raise UnsupportedConstruct(f"congestion control {value}")
    return _CONGESTION[value]


_WORDS: Final = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


def _own_settings(text: str) -> Change:
    """`umux set name=value ...`: fields of TcpPolicy; times with a unit (`40ms`, `1s`, `5us`)."""
    change: Change = {}
    fields = {field.name: field for field in attrs.fields(TcpPolicy)}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in fields:
            raise BadArgument(f"umux set: {word!r} names no field of TcpPolicy")
        default = fields[name].default
        time = re.fullmatch(r"([\d.]+)(us|ms|s)", value)
        if time:
            change[name] = int(float(time[1]) * {"us": 1, "ms": 1000, "s": 1_000_000}[time[2]])
        elif isinstance(default, bool):
            if value.lower() not in _WORDS:
                raise BadArgument(f"umux set: {word!r} says neither yes nor no")
            change[name] = _WORDS[value.lower()]
        elif isinstance(default, str):
            change[name] = value
        else:
            change[name] = int(value)
    return change
