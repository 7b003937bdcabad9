"""Counters under the names that other tools know: Prometheus' text format, and the MIBs of SNMP.

No label ever holds an address (UM-34).
"""

from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Ours -> IP-MIB (RFC 4293), TCP-MIB (RFC 4022), and Linux's TcpExt where no MIB has it
SNMP: Final = {
    "packets_in": "ipSystemStatsHCInReceives.ipv6",
    "packets_out": "ipSystemStatsHCOutTransmits.ipv6",
    "bytes_in": "ipSystemStatsHCInOctets.ipv6",
    "bytes_out": "ipSystemStatsHCOutOctets.ipv6",
    "segments_in": "tcpHCInSegs",
    "segments_out": "tcpHCOutSegs",
    "retransmitted_segments": "tcpRetransSegs",
    "fast_retransmits": "TcpExtTCPFastRetrans",
    "rto_expirations": "TcpExtTCPTimeouts",
    "tlp_probes": "TcpExtTCPLossProbes",
    "spurious_retransmits": "TcpExtTCPFullUndo",
    "drop.not_ipv6": "ipSystemStatsInHdrErrors.ipv6.version",
    "drop.truncated": "ipSystemStatsInTruncatedPkts.ipv6",
    "drop.unknown_protocol": "ipSystemStatsInUnknownProtos.ipv6",
    "drop.no_owner": "ipSystemStatsInAddrErrors.ipv6",
    "drop.fragment_timeout": "ipSystemStatsReasmFails.ipv6",
    "drop.bad_checksum": "tcpInErrs",
    "drop.no_port_owner": "udpNoPorts",
    "drop.paws": "TcpExtPAWSEstab",
}
# Levels; everything else only grows.
_GAUGES: Final = frozenset(
    ("sessions", "listeners", "leases", "memory_used", "memory_limit", "pool_level", "uptime_seconds")
)
_HELP: Final = {
    "packets_in": "IPv6 packets received, super-segments counted once",
    "packets_out": "IPv6 packets sent, super-segments counted once",
    "segments_in": "TCP segments received",
    "segments_out": "TCP segments sent",
    "retransmitted_segments": "TCP segments sent again",
    "drops": "packets that went no further, by reason",
    "sessions": "sessions alive",
    "leases": "addresses alive",
    "memory_used": "bytes that all buffers hold",
}


def as_snmp(figures: Mapping[str, int]) -> dict[str, int]:
    """The figures that have a name in a MIB, under that name."""
    return {name: figures[ours] for ours, name in SNMP.items() if ours in figures}


def as_prometheus(figures: Mapping[str, int], stack: str) -> str:
    """The text that a Prometheus server reads; `stack` is the stack's name."""
    label = stack.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    lines: list[str] = []
    drops = {name.removeprefix("drop."): value for name, value in figures.items() if name.startswith("drop.")}
    for name, value in figures.items():
        if name.startswith("drop."):
            continue
        metric = f"umux_{_safe(name)}" + ("" if name in _GAUGES else "_total")
        lines += _head(metric, name, "gauge" if name in _GAUGES else "counter")
        lines.append(f'{metric}{{stack="{label}"}} {value}')
    if drops:
        lines += _head("umux_drops_total", "drops", "counter")
        lines += [
            f'umux_drops_total{{stack="{label}",reason="{_safe(name)}"}} {value}' for name, value in drops.items()
        ]
    return "\n".join(lines) + "\n"


def _head(metric: str, name: str, kind: str) -> list[str]:
    return [f"# HELP {metric} {_HELP.get(name, name.replace('_', ' '))}", f"# TYPE {metric} {kind}"]


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


class Exporter(HTTPServer):
    """Answers GET /metrics on the loopback interface with whatever `render` returns; other paths with 404."""

    def __init__(self, port: int, render: Callable[[], str]) -> None:
        """Raises OSError if the port is taken."""
        self.render = render
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Exporter

    def do_GET(self) -> None:
        if self.path != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        try:
            body = self.server.render().encode()
        except Exception as error:  # the stack may be gone; the scraper must hear of it
            self.send_error(503, str(error)[:100])
            return
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        """Says nothing: a scraper comes every few seconds."""
