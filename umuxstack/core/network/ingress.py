"""Ingress: from bytes to the endpoint that owns them.

Checks the fixed header, finds the owner, walks extension headers if there are
any. Knows no session and no port. Invariant: no bytes raise, and every packet
that goes no further adds one to one drop counter. RFC 8200, RFC 4443; UM-2, UM-31, UM-39.
"""

# RFC 9293 appendix B: MUST-57, MUST-63; 8200-2-1, 8504-5.1-3, 8504-5.7.1-3

from collections.abc import Callable
from typing import Final

from umuxstack.core.counters import Counters
from umuxstack.core.errors import Drop
from umuxstack.core.network.demux import Demux
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.network.fragments import Reassembly
from umuxstack.core.units import ICMPV6, TCP, UDP, Micros
from umuxstack.core.wire import extension, icmpv6
from umuxstack.core.wire.checksum import checksum_ok

_DROP_OF_WALK: Final = {
    extension.TRUNCATED: Drop.TRUNCATED,
    extension.BAD_HEADER: Drop.BAD_EXTENSION,
    extension.BAD_NEXT_HEADER: Drop.BAD_EXTENSION,
    extension.BAD_OPTION: Drop.BAD_EXTENSION,
    extension.IGNORED: Drop.BAD_EXTENSION,
}


class Nobody(Receiver):
    """Takes what no endpoint owns. This one is silent (UM-31); another may answer as RFC 9293 and 4443 say."""

    __slots__ = ()


class Ingress:
    """The one way in: of the link's packets, and another one of those to ourselves.

    `forged`: whether no packet that comes this way can have this source. It is not asked for packets of sessions: no
    session with such a peer stands in this way's pair table.
    """

    __slots__ = ("counters", "demux", "forged", "headers", "min_mtu", "nobody", "options", "reassembly")

    def __init__(
        self,
        demux: Demux,
        counters: Counters,
        nobody: Nobody,
        reassembly: Reassembly,
        forged: Callable[[bytes], bool] | None = None,
        *,
        headers: int = extension.HEADERS,
        options: int = extension.OPTIONS,
    ) -> None:
        self.demux = demux
        self.forged = forged
        self.headers = headers  # extension headers and options that are looked at (RFC 8504 5.3)
        self.options = options
        self.counters = counters
        self.nobody = nobody
        self.reassembly = reassembly
        self.min_mtu = icmpv6.MINIMUM_MTU  # lower only where packets of another protocol are imitated

    def receive(self, buf: bytes, base: int, gso_size: int, csum_ok: bool, now: Micros) -> None:
        """Takes the packet in `buf[base:]`; see `Stack.receive`."""
        counters = self.counters
        counters.packets_in += 1
        if len(buf) < base + 40:
            counters.drops[Drop.TRUNCATED] += 1
            return
        if buf[base] >> 4 != 6:
            counters.drops[Drop.NOT_IPV6] += 1
            return
        end = base + 40 + (buf[base + 4] << 8 | buf[base + 5])
        if end > len(buf):
            counters.drops[Drop.BAD_LENGTH] += 1
            return
        counters.bytes_in += end - base
        protocol = buf[base + 6]
        if protocol == TCP or protocol == UDP:  # noqa: SIM109
            owner = self.demux.pairs.get(buf[base + 8 : base + 40])
            if owner is not None:
                owner.receive(buf, base, base + 40, end, protocol, gso_size, csum_ok, now)
                return
        self._less_common(buf, base, end, protocol, gso_size, csum_ok, now)

    def _less_common(
        self, buf: bytes, base: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        """Extension headers, ICMPv6, first packets of a session, and strangers."""
        drops = self.counters.drops
        # A source that cannot be a peer: multicast (RFC 4291 2.7), unspecified, loopback off the link.
        if buf[base + 8] == 0xFF or not any(buf[base + 8 : base + 23]):
            drops[Drop.BAD_SOURCE] += 1
            return
        offset = base + 40
        pair = buf[base + 8 : base + 40]
        if self.forged is not None and self.forged(pair[:16]):
            # RFC 2827: nobody behind the link has our addresses; what says so would pass for one of our own programs.
            drops[Drop.SOURCE_IS_DESTINATION if pair[:16] == pair[16:] else Drop.SOURCE_IS_OURS] += 1
            return
        if protocol not in (TCP, UDP, ICMPV6):
            status, protocol, offset, where = extension.walk(buf, base, end, self.headers, self.options)
            if status:
                drops[_DROP_OF_WALK[status]] += 1
                holder = self.demux.owner(pair)
                if status != extension.IGNORED and holder is not None:
                    (holder if holder.shared else self.nobody).on_bad_packet(buf, base, end, status, where, now)
                return
            if protocol == extension.FRAGMENT:
                self._fragment(buf, base, offset, end, where, pair, now)
                return
        if protocol == ICMPV6 and offset < end and buf[offset] < 128:
            self._icmp_error(buf, base, offset, end, csum_ok, now)
            return
        demux = self.demux
        owner = demux.pairs.get(pair) or demux.locals.get(pair[16:]) or self.nobody
        if pair[:16] == pair[16:] and not owner.shared:
            drops[Drop.SOURCE_IS_DESTINATION] += 1
            return
        owner.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)

    def _fragment(self, buf: bytes, base: int, offset: int, end: int, where: int, pair: bytes, now: Micros) -> None:
        holder = self.demux.owner(pair)
        if holder is None:
            # Not kept: only somebody who expects the packet lends memory to its pieces.
            self.nobody.receive(buf, base, offset, end, extension.FRAGMENT, 0, False, now)
            return
        whole = self.reassembly.add(buf, base, offset, end, where, now)
        if whole is None:
            return
        if isinstance(whole, tuple):
            (holder if holder.shared else self.nobody).on_bad_packet(buf, base, end, *whole, now)
            return
        if extension.walk(whole, 0, len(whole))[1] == extension.FRAGMENT:
            # RFC 8200 4.1: an extension header "should occur at most once"; thousands of them would fit into a packet.
            self.counters.drops[Drop.BAD_EXTENSION] += 1
            return
        self.counters.packets_in -= 1  # its pieces were counted
        self.receive(whole, 0, 0, False, now)

    def expire(self, now: Micros) -> None:
        """Forgets packets whose fragments did not all come; where a shared address is meant, the source is told."""
        for first in self.reassembly.expire(now):
            holder = self.demux.owner(first[8:40])
            if holder is not None:
                (holder if holder.shared else self.nobody).on_late_fragments(first, now)

    def _icmp_error(self, buf: bytes, base: int, offset: int, end: int, csum_ok: bool, now: Micros) -> None:
        """UM-39: the quoted packet's pair, reversed, names the session, whoever sent the error."""
        drops = self.counters.drops
        quoted = offset + icmpv6.HEADER
        if end < quoted + 40 or buf[quoted] >> 4 != 6:
            drops[Drop.TRUNCATED] += 1
            return
        if not csum_ok and not checksum_ok(buf, base, offset, end, ICMPV6):
            drops[Drop.BAD_CHECKSUM] += 1
            return
        local = buf[quoted + 8 : quoted + 24]
        if buf[base + 24 : base + 40] != local:
            drops[Drop.ICMP_NOT_BELIEVED] += 1
            return
        kind = buf[offset]
        if kind == icmpv6.PACKET_TOO_BIG and int.from_bytes(buf[offset + 4 : offset + 8], "big") < self.min_mtu:
            drops[Drop.ICMP_NOT_BELIEVED] += 1  # RFC 8201 4: "it must discard it"
            return
        # 4443-2.4-1: an error of unknown type goes to the upper layer as well, which takes it for a soft one.
        demux = self.demux
        owner = demux.pairs.get(buf[quoted + 24 : quoted + 40] + local) or demux.locals.get(local)
        if owner is None or type(owner).on_icmp_error is Receiver.on_icmp_error:
            # Nobody's, or of somebody who sends nothing that an error could be about: a door, the record of a session.
            drops[Drop.ICMP_NO_SESSION] += 1
            return
        # 4443-2.4-4: the quoted packet's protocol selects; 4443-2.4-5: where it cannot be told, silence
        status, protocol, upper, _ = extension.walk(buf, quoted, end)
        if protocol == extension.FRAGMENT and not status and not (buf[upper + 2] << 8 | buf[upper + 3]) & 0xFFF8:
            protocol, upper = buf[upper], upper + 8  # a first fragment of ours: its upper-layer header follows
        if status or protocol not in (TCP, UDP, ICMPV6):
            drops[Drop.ICMP_NOT_BELIEVED] += 1
            return
        value = int.from_bytes(buf[offset + 4 : offset + 8], "big")
        owner.on_icmp_error(kind, buf[offset + 1], value, protocol, buf[quoted:end], upper - quoted, now)
