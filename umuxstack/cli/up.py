"""`umux up` and `umux down`: a stack as a process of its own, and its end."""

import argparse
from typing import Final

from umuxstack.cli.common import OK, Commands, add_command, running_stack
from umuxstack.core import use_sources

_DESCRIPTION: Final = """\
Makes a TUN device, routes the prefix to it, and runs a stack behind it with a control socket, until Ctrl-C,
SIGTERM or `umux down`; then all of it is removed. Needs root or CAP_NET_ADMIN (`umux doctor` says more).

A file for --config holds the same options in TOML, with `_` for `-`, e.g. prefix = "2001:db8:1::/64",
shared = ["2001:db8:1::80"], offload = false; also sections [pool] (low, high) and [tcp] (congestion = "cubic",
rto_min = "200ms", …), and das_lifetime, udp_idle, retiring, candidates, hop_limit, icmp_rate,
icmp_burst, path_mtu_lifetime, extension_headers, header_options, telescope, memory."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "up",
        _up,
        "run a stack on a TUN device",
        _DESCRIPTION,
        """\
  sudo umux up --prefix 2001:db8:1::/64 --serve hello
  sudo umux up --config /etc/umux.toml --key-file /var/lib/umux/key
  sudo umux up --prefix 2001:db8:1::/64 --shared 2001:db8:1::80 --group netdev
  sudo umux up --prefix 2001:db8:1::/64 --serve hello --capture link.pcapng
  sudo umux up --prefix 2001:db8:1::/64 --cc mine.py:Mine --qlog logs""",
        stack=False,
    )
    parser.add_argument("--config", metavar="FILE", help="a TOML file; flags win over it")
    parser.add_argument(
        "--prefix", metavar="PREFIX", help="whose addresses are the stack's, for example 2001:db8:1::/64"
    )
    parser.add_argument("--tun", metavar="NAME", help="name of the TUN device (default: the first free umuxN)")
    parser.add_argument("--name", metavar="NAME", help="what the stack is called (default: as its TUN device)")
    parser.add_argument("--namespace", metavar="NAME", help="make the device in this network namespace")
    parser.add_argument("--mtu", type=int, metavar="BYTES", help="of the device, 1280 to 65535 (default 1500)")
    parser.add_argument(
        "--kernel-address",
        metavar="ADDRESS",
        help="an address outside of the prefix for this machine's kernel, if it has none to talk to the stack from",
    )
    parser.add_argument("--scheme", choices=("sealed", "random"), help="how addresses are made (default sealed)")
    parser.add_argument("--key-file", metavar="FILE", help="keeps the sealed scheme's key: no address ever twice")
    parser.add_argument(
        "--shared",
        metavar="ADDRESS",
        action="append",
        help="an address for ordinary sessions told apart by ports; may be repeated",
    )
    parser.add_argument(
        "--unified-peers", metavar="PREFIX", action="append", help="peers there need no port (UM-5); may be repeated"
    )
    parser.add_argument(
        "--no-offload",
        dest="offload",
        action="store_false",
        default=None,
        help="neither super-segments nor checksum offload",
    )
    parser.add_argument(
        "--core",
        type=int,
        metavar="N",
        help="run on this core alone, and have the kernel receive on the others: small packets cost the stack less",
    )
    parser.add_argument(
        "--answer",
        action="store_true",
        default=None,
        help="answer strangers as RFC 9293 and 4443 say, instead of silence (UM-31)",
    )
    parser.add_argument(
        "--serve",
        metavar="SERVICE",
        action="append",
        help="run a small service inside, in LISTEN_0: `echo` or `hello` (a web page); may be repeated",
    )
    parser.add_argument(
        "--cc", metavar="NAME", help="congestion control: cubic, newreno, bbr, or one of your own as mine.py:Mine"
    )
    parser.add_argument(
        "--capture",
        metavar="FILE",
        help="write a pcapng capture of the link; `-` for standard output (`… | wireshark -N n -k -i -`)",
    )
    parser.add_argument("--qlog", metavar="DIR", help="write a log of each session there, for `umux plot`")
    parser.add_argument(
        "--record", metavar="FILE", help="record all that goes in, for `umux replay`; holds the stack's secrets"
    )
    parser.add_argument("--socket", metavar="PATH", help="the control socket (or set UMUX_SOCKET)")
    parser.add_argument("--group", metavar="GROUP", help="members may use the control socket too")
    parser.add_argument(
        "--user", dest="users", metavar="USER", action="append", help="this user may use it too; may be repeated"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings and errors")

    add_command(
        commands,
        "down",
        _down,
        "end a running stack and every session in it",
        "",
        "  umux down\n  umux down --name umux1",
        json=False,
    )


def _up(arguments: argparse.Namespace) -> int:
    if arguments.record:
        use_sources()  # a compiled core cannot be recorded
    from umuxstack.cli import running

    return running.up(arguments)


def _down(arguments: argparse.Namespace) -> int:
    from umuxstack.control.messages import Shutdown

    with running_stack(arguments) as stack:
        stack.call(Shutdown())
        stack.wait_closed()
    return OK
