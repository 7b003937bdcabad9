"""Entropy: all randomness of a stack, drawn from one seed given at construction.

Same seed, same stream: a failure can be replayed. In production the host
passes 32 bytes from the operating system. Keyed BLAKE2b in counter mode.
"""

from hashlib import blake2b

Data = bytes  # inside the class, `bytes` names the method


class Entropy:
    """A deterministic stream of random bytes, and keyed hashes under a key of its own."""

    __slots__ = ("_counter", "_hash_key", "_key", "_pool")

    def __init__(self, seed: bytes) -> None:
        self._key = blake2b(seed, digest_size=32, person=b"umux-stream").digest()
        self._hash_key = blake2b(seed, digest_size=32, person=b"umux-hash").digest()
        self._counter = 0
        self._pool = b""

    def bytes(self, count: int) -> bytes:
        pool = self._pool
        while len(pool) < count:
            self._counter += 1
            pool += blake2b(self._counter.to_bytes(8, "big"), key=self._key).digest()
        self._pool = pool[count:]
        return pool[:count]

    def below(self, limit: int) -> int:
        """A uniform integer in 0 … limit-1 (rejection sampling; limit >= 1)."""
        bits = (limit - 1).bit_length()
        count = (bits + 7) // 8
        while True:
            value = int.from_bytes(self.bytes(count), "big") & ((1 << bits) - 1)
            if value < limit:
                return value

    def keyed_hash(self, data: Data, size: int = 8) -> int:
        """A pseudo-random function of `data`, `size` bytes wide; the same for the life of the stack."""
        # As a prefix the key costs no block of its own; BLAKE2 is a pseudo-random function then too.
        return int.from_bytes(blake2b(self._hash_key + data, digest_size=size).digest(), "big")
