"""What a UDP socket receives."""

import attrs

from umuxstack.core.units import Address


@attrs.frozen(slots=True)
class Datagram:
    """One received datagram: from `peer`, sent to `local`. `hop_limit` and `traffic_class` as they arrived."""

    data: bytes
    peer: Address
    peer_port: int
    local: Address
    local_port: int
    hop_limit: int
    traffic_class: int = 0
