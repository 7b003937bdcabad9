"""tshark as a judge of captures: what it calls an error or a bad checksum, and what it merely wonders about."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import attrs

PATIENCE: Final = 120  # seconds
FIELDS = (
    "frame.number", "frame.packet_flags", "_ws.expert.severity", "_ws.expert.message",
    "icmpv6.type", "icmp.type", "icmpv6.checksum.status", "icmp.checksum.status",
    "tcp.checksum.status", "udp.checksum.status",
)  # fmt: skip
CHECKS = ("tcp.check_checksum:TRUE", "udp.check_checksum:TRUE", "tcp.analyze_sequence_numbers:TRUE")
# What the bytes of a stream might mean to HTTP or others is not asked.
OPAQUE = ("tcp.port==1-65535,data", "udp.port==1-65535,data")
ERROR = 0x800000  # of _ws.expert.severity
WARNING = 0x600000
OUTBOUND = 2  # of frame.packet_flags, the lowest two bits: what our stack sent, in a capture of its own
MANGLED = "Checksum 0xffff instead of 0x0000"
FIRST_NO_ERROR = 128  # of icmpv6.type
ERRORS4 = ("3", "4", "5", "11", "12")  # of icmp.type
_NUMBERED = re.compile(r" \(#\d+\)")  # which duplicate ACK it is
GOOD = "1"  # of *.checksum.status; 0 is bad, 2 is unverified


def is_here() -> bool:
    """Whether tshark is installed."""
    return shutil.which("tshark") is not None


@attrs.frozen
class Verdict:
    """What tshark thinks of a capture."""

    packets: int
    checksums: Counter[str]
    errors: Counter[str]
    warnings: Counter[str]


def tshark(capture: Path, *arguments: str) -> str:
    command = ["tshark", "-n", "-r", str(capture), *arguments]
    for ports in OPAQUE:
        command += ["-d", ports]
    for preference in CHECKS:
        command += ["-o", preference]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def judge(capture: Path, only: str = "") -> Verdict:
    """`only`: a display filter for the packets that are judged; the others are still seen."""
    arguments = ["-T", "fields", "-E", "separator=/t", "-E", "aggregator=|"]
    for field in FIELDS:
        arguments += ["-e", field]
    if only:
        arguments += ["-Y", only]
    lines = tshark(capture, *arguments).splitlines()
    verdict = Verdict(len(lines), Counter(), Counter(), Counter())
    for line in lines:
        number, flags, severities, messages, six, four, *checksums = line.split("\t")
        if (six and int(six.split("|")[0]) < FIRST_NO_ERROR) or four.split("|")[0] in ERRORS4:
            # What an ICMP error quotes has the checksum that it had on its way: perhaps none yet, or of more than is
            # quoted. Its own must be good.
            own = (checksums[0] or checksums[1]).split("|")[0]
            verdict.checksums[own] += 1
            if own == GOOD:
                continue
        if MANGLED in messages and int(flags or "0", 0) & 3 != OUTBOUND:
            # Equal to 0 in one's complement. Linux, computing in place of a device, writes it for TCP, too.
            checksums = [GOOD if status else "" for status in checksums]
        verdict.checksums.update(status for status in checksums if status)
        worst = max((int(level) for level in severities.split("|") if level), default=0)
        if worst >= ERROR:
            verdict.errors[f"packet {number}: {messages}"] += 1
        elif worst >= WARNING:
            verdict.warnings[_NUMBERED.sub("", messages)] += 1
    return verdict
