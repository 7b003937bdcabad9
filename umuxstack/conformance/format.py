"""Nodes back to text: a script, or the one line of a packet that a failure report shows.

What comes out parses to the same nodes; comments and the author's spacing are gone.
"""

from umuxstack.conformance.script import (
    AccEcn,
    AckRateRequest,
    Action,
    Code,
    Command,
    EndOfOptions,
    Event,
    FastOpen,
    IcmpPacket,
    IpFields,
    Md5,
    Mss,
    Nop,
    Option,
    Packet,
    Ports,
    Quoted,
    Sack,
    SackPermitted,
    Script,
    Sequence,
    SystemCall,
    TcpFlags,
    TcpOption,
    TcpPacket,
    Time,
    TimeKind,
    Timestamps,
    UdpPacket,
    UnknownOption,
    UnsupportedPacket,
    WindowScale,
)
from umuxstack.conformance.value import (
    AnyValue,
    Array,
    Binary,
    Call,
    Cast,
    Expression,
    Float,
    Integer,
    Named,
    RawStruct,
    String,
    Struct,
    Unary,
    Word,
)

_LETTERS = (
    ("F", TcpFlags.FIN),
    ("S", TcpFlags.SYN),
    ("R", TcpFlags.RST),
    ("P", TcpFlags.PSH),
    ("U", TcpFlags.URG),
)
_ECN_LETTERS = (("E", TcpFlags.ECE), ("W", TcpFlags.CWR), ("A", TcpFlags.AE))


def format_script(script: Script) -> str:
    """The whole script, one event a line (a command or code may hold line breaks of its own)."""
    lines = [_option(option) for option in script.options]
    lines += [f"`{command.text}`" for command in script.init]
    lines += [format_event(event) for event in script.events]
    lines += [f"`{command.text}`" for command in script.cleanup]
    return "\n".join(lines) + "\n"


def format_event(event: Event) -> str:
    time = _time(event.time)
    action = event.action
    if isinstance(action, SystemCall) and action.end is not None:
        return f"{time}...{_seconds(action.end)} {_system_call(action)}"
    return f"{time} {_action(action)}"


def format_packet(packet: Packet) -> str:
    """`> S. 0:0(0) ack 1 <mss 1460>`."""
    if isinstance(packet, UnsupportedPacket):
        return packet.text  # its direction is the first thing in it
    parts = [packet.direction.value]
    parts += [f"{outer.text}:" if not outer.text.startswith("encap") else outer.text for outer in packet.encapsulations]
    parts += _ip(packet.ip)
    if isinstance(packet, TcpPacket):
        parts += _tcp(packet)
    elif isinstance(packet, UdpPacket):
        size = f"({packet.length})" if packet.coverage is None else f"({packet.length}, {packet.coverage})"
        parts += ["udp" if packet.coverage is None else "udplite", *_ports(packet.ports), size]
    else:
        parts += _icmp(packet)
    return " ".join(parts)


def format_flags(flags: TcpFlags, ace: bool = False) -> str:
    """`S.`, `EWA`, `P.5`; `-` when no flag is set. `ace` writes the last three as a number."""
    text = "".join(letter for letter, flag in _LETTERS if flags & flag)
    if not ace:
        text += "".join(letter for letter, flag in _ECN_LETTERS if flags & flag)
    if flags & TcpFlags.ACK:
        text += "."
    if ace:
        text += str(sum(1 << bit for bit, (_, flag) in enumerate(_ECN_LETTERS) if flags & flag))
    return text or "-"


def format_expression(value: Expression) -> str:
    match value:
        case AnyValue():
            return "..."
        case Integer():
            return value.text or str(value.value)
        case Float():
            return value.text
        case Word():
            return value.name
        case String():
            return f'"{value.text}"' + ("..." if value.more else "")
        case Binary():
            # The parentheses keep the grouping; `a|b|c` groups to the left without them.
            left = format_expression(value.left)
            if isinstance(value.left, Binary) and value.left.operator != value.operator:
                left = f"({left})"
            right = format_expression(value.right)
            return f"{left} {value.operator} " + (f"({right})" if isinstance(value.right, Binary | Unary) else right)
        case Unary():
            return f"{value.operator}({format_expression(value.operand)})"
        case Cast():
            return f"({value.type_name})({format_expression(value.operand)})"
        case Call():
            return f"{value.name}({_list(value.arguments)})"
        case Array():
            return f"[{_list(value.items)}]"
        case Named():
            count = f"({format_expression(value.count)})" if value.count is not None else ""
            return f"{value.name}{count}={format_expression(value.value)}"
        case Struct():
            return f"{{{_list(value.items)}}}"
        case RawStruct():
            return value.text


def _list(items: tuple[Expression, ...]) -> str:
    return ", ".join(format_expression(item) for item in items)


def _option(option: Option) -> str:
    if option.value is None:
        return f"--{option.name}"
    value = f'"{option.value}"' if " " in option.value and "=" not in option.value else option.value
    return f"--{option.name}={value}"


def _seconds(micros: int) -> str:
    whole, fraction = divmod(micros, 1_000_000)
    return f"{whole}.{fraction:06}" if fraction else str(whole)


def _time(time: Time) -> str:
    if time.kind is TimeKind.ANY:
        return "*"
    sign = "+" if time.kind in (TimeKind.RELATIVE, TimeKind.RELATIVE_RANGE) else ""
    text = sign + _seconds(time.start)
    if time.kind in (TimeKind.ABSOLUTE_RANGE, TimeKind.RELATIVE_RANGE):
        text += "~" + sign + _seconds(time.end)
    return text


def _action(action: Action) -> str:
    match action:
        case SystemCall():
            return _system_call(action)
        case Command():
            return f"`{action.text}`"
        case Code():
            return f"%{{ {action.text} }}%"
        case _:
            return format_packet(action)


def _system_call(call: SystemCall) -> str:
    text = f"{call.name}({_list(call.arguments)}) = {format_expression(call.result)}"
    if call.errno is not None:
        text += f" {call.errno}"
    if call.note is not None:
        text += f" ({call.note})"
    return text


def _ip(ip: IpFields) -> list[str]:
    fields: list[str] = []
    for name, text in (("from", ip.source), ("to", ip.destination)):
        if text is not None:
            fields.append(f"{name} {text}")
    if ip.dscp is not None:
        fields.append(f"dscp {ip.dscp:#x}")
    if ip.tos is not None:
        fields.append(f"tos {ip.tos:#x}")
    if ip.ecn is not None:
        fields.append(ip.ecn)
    if ip.flow_label is not None:
        fields.append(f"flowlabel {ip.flow_label:#x}")
    if ip.hop_limit is not None:
        fields.append(f"ttl {ip.hop_limit}")
    return [f"[{', '.join(fields)}]"] if fields else []


def _ports(ports: Ports | None) -> list[str]:
    return [f"{ports.source} > {ports.destination}"] if ports is not None else []


def _carrier(ports: Ports | None) -> str:
    return f"/udp({ports.source} > {ports.destination})" if ports is not None else ""


def _sequence(sequence: Sequence) -> str:
    if sequence.ignored:
        return f"...({sequence.length})"
    return f"{sequence.start}:{sequence.end}({sequence.length})" + ("!" if sequence.absolute else "")


def _tcp(packet: TcpPacket) -> list[str]:
    parts = [*_ports(packet.ports), format_flags(packet.flags, packet.ace), _sequence(packet.sequence)]
    if packet.ack is not None:
        parts.append(f"ack {packet.ack}" + ("!" if packet.ack_absolute else ""))
    if packet.window is not None:
        parts.append(f"win {packet.window}")
    if packet.urgent is not None:
        parts.append(f"urg {packet.urgent}")
    if packet.options is None:
        parts.append("<...>")
    elif packet.options:
        parts.append(f"<{','.join(format_option(option) for option in packet.options)}>")
    parts[-1] += _carrier(packet.udp_ports)
    return parts


def _icmp(packet: IcmpPacket) -> list[str]:
    parts = ["icmp", packet.type_name]
    if packet.code is not None:
        parts.append(packet.code)
    if packet.mtu is not None:
        parts.append(f"mtu {packet.mtu}")
    if packet.identifier is not None:
        parts.append(f"id {packet.identifier}")
    if packet.quoted is not None:
        parts.append(f"[{_quoted(packet.quoted)}]")
    return parts


def _quoted(quoted: Quoted) -> str:
    carrier = _carrier(quoted.udp_ports)
    if quoted.sequence is not None:
        return _sequence(quoted.sequence) + carrier
    if quoted.tag is not None:
        return f"sctp({quoted.tag}){carrier}"
    coverage = f", {quoted.coverage}" if quoted.coverage is not None else ""
    return f"{quoted.protocol}({quoted.length}{coverage})"


def format_option(option: TcpOption) -> str:
    match option:
        case Nop():
            return "nop"
        case EndOfOptions():
            return "eol"
        case Mss():
            return f"mss {option.value}"
        case WindowScale():
            return f"wscale {option.shift}"
        case SackPermitted():
            return "sackOK"
        case Sack():
            return "sack " + " ".join(f"{left}:{right}" for left, right in option.blocks)
        case Timestamps():
            value = "..." if option.value is None else str(option.value)
            echo = "..." if option.echo is None else str(option.echo)
            return f"TS val {value} ecr {echo}" + ("!" if option.echo_absolute else "")
        case FastOpen():
            return f"{'FOEXP' if option.experimental else 'FO'} {option.cookie.hex()}".rstrip()
        case Md5():
            if option.valid is not None:
                return "md5 valid" if option.valid else "md5 invalid"
            return f"md5 {option.digest.hex()}" if option.digest else "md5"
        case AccEcn():
            name = "ECN" if option.order is None else f"AccECN{option.order}"
            counters = "".join(f" {counter} {value}" for counter, value in option.counters)
            return f"{'exp-' if option.experimental else ''}{name}{counters}"
        case AckRateRequest():
            return "exp-tarr" if option.rate is None else f"exp-tarr {option.rate}"
        case UnknownOption():
            return option.text
