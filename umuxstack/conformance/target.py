"""Our stack under test, in virtual time: packets in, packets out, sessions by four-tuple.

Owns the clock. What the stack sends is read at once. On a link that speaks IPv4 a translator stands in front of the
stack, and everything that the script sees is on its far side. Invariant: time moves only in `run_until`, from deadline
to deadline.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final

import attrs

from umuxstack.conformance.ends import HERE, IPV6, PREFIX, Ends
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.notices import Notices
from umuxstack.conformance.outcome import Mismatch
from umuxstack.conformance.reordering import Look, Reordering
from umuxstack.conformance.send_queue import SendQueue
from umuxstack.conformance.siit import Translator
from umuxstack.conformance.siit_icmp import LEAST_MTU, LONGER_HEADER
from umuxstack.conformance.spent import Spent
from umuxstack.conformance.symbols import BSD_COOKIE, BSD_KEY, TFO_COOKIE, TFO_COOKIE_ZERO, TFO_KEY
from umuxstack.core.config import LinkCaps, PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.errors import AddressInUse, PoolExhausted
from umuxstack.core.legacy.ports import PortMux
from umuxstack.core.network.offload import finish
from umuxstack.core.network.pmtu import MINIMUM
from umuxstack.core.session.fast_open import mint
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.quiet import Quiet
from umuxstack.core.tcp.session import TcpSession, open_session
from umuxstack.core.tcp.tcb import HEADERS
from umuxstack.core.units import NEVER, Address, Micros, seconds

START: Final = Micros(1_000_000_000)  # the clock when a script begins: far from 0, where a lazy check would pass
LIVELOCK: Final = 200_000  # steps in which no time passes
# Cookies that scripts name, and the key that makes them: Linux's, of the common settings and of one that is all zeros.
COOKIE_KEYS: Final = {TFO_COOKIE: TFO_KEY, TFO_COOKIE_ZERO: "00" * 16, BSD_COOKIE: BSD_KEY}
PATIENCE: Final = seconds(7 * 24 * 3600)
IPV4_HEADERS: Final = 40  # with TCP's, without options


class Target(Ends):
    """One stack with one link. `unified`: sessions on addresses of their own; else ports on one shared address.

    `mtu` is the link's, `names` are who is on it.
    """

    keeps_octets = True

    def __init__(
        self,
        policy: TcpPolicy,
        *,
        mtu: int,
        seed: str,
        unified: bool,
        silence: bool,
        names: Mapping[str, bytes] = IPV6,
    ) -> None:
        super().__init__(mtu=mtu, seed=seed, now=START, names=names)
        self.translator: Translator | None = None
        if self.ipv4:
            self.translator = Translator({four: IPV6[name] for name, four in names.items()})
            mtu += LONGER_HEADER
            if mtu < MINIMUM:  # the stack's own link cannot be that narrow; its segments can
                policy = attrs.evolve(policy, mss=mtu - LONGER_HEADER - IPV4_HEADERS)
                mtu = MINIMUM
        self.policy = policy
        self.unified = unified
        config = StackConfig(
            prefix=PREFIX,
            tcp=policy,
            shared=(HERE,),
            silence=silence,
            link=LinkCaps(mtu=mtu),
            pool=PoolPolicy(4, 16),
        )
        self.stack = Stack(config, self.entropy, self.now)
        if self.ipv4:  # a path of IPv4 may carry less than any of IPv6 does
            self.stack._ctx.pmtu.floor = self.stack._ingress.min_mtu = LEAST_MTU + LONGER_HEADER
        self.wakes = 0
        self.spent: dict[TcpSession, Spent] = {}
        self.queues: dict[TcpSession, SendQueue] = {}
        self.orders: dict[TcpSession, Reordering] = {}
        self.notices: dict[TcpSession, Notices] = {}
        self.written: dict[TcpSession, int] = {}  # octets, by the script's calls
        self.read: dict[TcpSession, int] = {}
        self.fast_open = True  # clients may (Linux's tcp_fastopen, its first bit)
        self.serves_fast_open = False  # and so may servers (its second)
        self.early: dict[TcpSession, int] = {}  # where the data ends that went with a SYN
        self.cookie_keys = {bytes.fromhex(name): key for name, key in COOKIE_KEYS.items()}
        self._steps = 0
        self.notsent_lowat = 1 << 32  # of sockets that say nothing of it
        self.reuse_after = -1  # microseconds in TIME-WAIT after which a four-tuple with timestamps may be used again

    # Configuration

    def change_policy(self, changes: dict[str, object]) -> None:
        """For sessions to come, as a sysctl. Raises BadArgument."""
        self.policy = attrs.evolve(self.policy, **changes)  # type: ignore[arg-type]
        config = attrs.evolve(self.stack.config, tcp=self.policy)
        self.stack.config = config
        self.stack._ctx.config = config

    @property
    def mux(self) -> PortMux:
        return self.stack._shared[HERE]

    # Time

    def run_until(self, until: Micros, *, stop: Callable[[], bool] | None = None) -> bool:
        """Lets time pass. True as soon as `stop` says so; False when `until` is reached without."""
        while True:
            self._settle()
            if stop is not None and stop():
                return True
            at = min(self.stack.next_deadline(), self.waits_until if self.waiting is not None else NEVER)
            self._account(Micros(min(at, until)))
            if at > until:
                self.now = max(self.now, until)
                self.stack.advance(self.now)
                self._settle()
                return stop is not None and stop()
            self._steps = self._steps + 1 if at <= self.now else 0
            if self._steps > LIVELOCK:
                raise Mismatch("the stack's next deadline does not move: it would spin forever")
            self.now = max(self.now, at)
            self.stack.advance(self.now)

    def push(self) -> None:
        """What may be sent now is sent."""
        self._collect()

    def _account(self, until: Micros) -> None:
        """What each session does from now to `until`, when the next thing happens."""
        if until <= self.now:
            return
        for session in self.stack.sessions():
            if isinstance(session, TcpSession) and not session.asleep:
                queue = self.queues.get(session)
                more = session.tcb.want_write if queue is None else queue.full
                self.spent.setdefault(session, Spent()).add(session, until - self.now, more=more)

    def _settle(self) -> None:
        self._settle_call(self._collect)

    def _collect(self) -> None:
        for outgoing in self.stack.take_output(self.now):
            if self.link_up and self.queue_up:
                for raw in finish(outgoing):
                    self._take(raw if self.translator is None else self._translated(self.translator, raw))
        self.wakes += len(self.stack.take_ready())
        self.stack.take_events()
        for session, notices in self.notices.items():
            notices.look(session, self.now)

    def has_records(self) -> bool:
        """Whether something is in TIME-WAIT."""
        known = [*self.mux.sessions.values(), *self.stack._ctx.demux.pairs.values()]
        return any(isinstance(owner, Quiet) and not owner.reset for owner in known)

    def drop_records(self) -> None:
        """Nothing is in TIME-WAIT any more."""
        for owner in list(self.mux.sessions.values()):
            if isinstance(owner, Quiet) and not owner.reset:
                owner.leave(self.now)

    def forget_cookies(self) -> None:
        """As if no server had been asked for one."""
        self.stack._ctx.cookies.clear()

    def patience(self) -> Micros:
        return PATIENCE

    # Packets

    def _translated(self, translator: Translator, raw: bytes) -> bytes:
        """What the stack sends, for the link. Raises Mismatch for what no IPv4 packet can be."""
        found = translator.to_ipv4(raw)
        if found is None:
            raise Mismatch(f"an unsound packet, or nothing for IPv4: {translator.last_lost}", [raw.hex()])
        return found

    def inject(self, raw: bytes, gso_size: int = 0) -> None:
        self.capture.append((self.now, raw))
        for_stack = raw if self.translator is None else self.translator.to_ipv6(raw)
        if self.link_up and for_stack is not None:
            tcb = None if self.flow is None else self.session_of(self.flow)
            before = Look(tcb) if isinstance(tcb, Connection) and tcb.board else None
            self.stack.receive(for_stack, 0, gso_size, False, self.now)
            if before is not None and isinstance(tcb, Connection) and isinstance(tcb.handle, TcpSession):
                self.orders.setdefault(tcb.handle, Reordering()).compare(tcb, before)
        self._settle()

    # Addresses: the stack's and the link's

    def to_stack(self, address: bytes) -> Address:
        """What the stack calls an address on the link."""
        return Address(address) if self.translator is None else self.translator.address6(address)

    def meaning(self, text: str) -> Address | None:
        """As the stack calls it."""
        found = super().meaning(text)
        return None if found is None else self.to_stack(found)

    def begin(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> None:
        """A connection of the stack's begins; packets without addresses belong to it from now on."""
        if self.translator is not None:
            local, remote = self._on_link(local), self._on_link(remote)
        self.flow = self.open_flow(local, local_port, remote, remote_port)

    def _on_link(self, address: bytes) -> bytes:
        found = None if self.translator is None else self.translator.address4(address)
        if found is None:
            raise Mismatch(f"{ip_address(address)} has no address on a link that speaks IPv4")
        return found

    # Sessions

    def session_of(self, flow: Flow) -> object | None:
        """Who answers for this four-tuple now: a connection, a record of one, or nobody."""
        remote = self.to_stack(flow.remote)
        if flow.local == self.here:
            key = remote + flow.remote_port.to_bytes(2, "big") + flow.local_port.to_bytes(2, "big")
            return self.mux.sessions.get(key)
        return self.stack._ctx.demux.pairs.get(remote + self.to_stack(flow.local))

    def is_known(self, flow: Flow) -> bool:
        return self.session_of(flow) is not None

    def connect(
        self,
        peer: Address,
        port: int,
        source: Address,
        local_port: int,
        policy: TcpPolicy,
        ports: tuple[int, int] | None = None,
        early: bytes = b"",
    ) -> TcpSession:
        """An active open from a port of the caller's choice (0: any, or one of `ports`), with a policy of its own.

        Raises LocalError.
        """
        self.stack._check_peer(peer, port)
        mux = self.stack._shared[source]
        if not local_port:
            local_port = mux.choose_port(peer, port) if ports is None else self._choose(mux, peer, port, ports)
        key = peer + port.to_bytes(2, "big") + local_port.to_bytes(2, "big")
        holder = mux.sessions.get(key)
        if isinstance(holder, Connection):
            raise AddressInUse("this four-tuple is in use")
        # A port that was looked for goes on with its timestamps, as Linux has it; RFC 7323 3.2 wants 0 in a SYN.
        echo = holder.ts_recent if isinstance(holder, Quiet) and ports is not None else 0
        if holder is not None:
            holder.forget(self.now)  # type: ignore[attr-defined]  # a TIME-WAIT record gives way (RFC 6191)
        connection = open_session(
            self.stack._ctx, peer + source, mux.lease, (local_port, port), policy, self.now, early, echo
        )
        mux.add(connection)
        connection.port = local_port
        assert isinstance(connection.handle, TcpSession)
        if early:
            self.early[connection.handle] = connection.snd_nxt
        return connection.handle

    def _choose(self, mux: PortMux, peer: Address, port: int, ports: tuple[int, int]) -> int:
        """The first that is free, or in TIME-WAIT for as long as the setting for their reuse wants."""
        for candidate in range(ports[0], ports[1] + 1):
            holder = mux.sessions.get(peer + port.to_bytes(2, "big") + candidate.to_bytes(2, "big"))
            if holder is None or (isinstance(holder, Quiet) and self._may_reuse(holder)):
                return candidate
        raise PoolExhausted("every port of the range is in use")

    def _may_reuse(self, record: Quiet) -> bool:
        return self.reuse_after >= 0 and record.had_timestamps and self.now - record.since >= self.reuse_after

    def room_in_syn(self, peer: Address, mss: int | None) -> int:
        """How much data may go with a SYN to there: none without a cookie (RFC 7413)."""
        ctx = self.stack._ctx
        limit = ctx.pmtu.get(peer, self.now) - HEADERS
        free = not self.policy.fast_open_cookies
        return ctx.cookies.room(peer + HERE, min(limit, mss or limit), self.now, free=free)

    def cookie(self, name: bytes, flow: Flow) -> bytes:
        if name in self.cookie_keys:
            return mint(
                self.stack._ctx.entropy,
                self.cookie_keys[name],
                self.to_stack(flow.remote) + self.to_stack(flow.local),
                0,
            )
        return super().cookie(name, flow)

    def learn_cookie(self, name: bytes, cookie: bytes, flow: Flow) -> None:
        if name not in self.cookie_keys:
            super().learn_cookie(name, cookie, flow)

    def connect_from_ea(self, peer: Address, port: int, policy: TcpPolicy | None) -> TcpSession:
        return self.stack.connect(peer, port, self.now, policy=policy)
