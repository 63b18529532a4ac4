"""Which partition a record goes to: the one named, else by key, else sticky by bytes. Pure.

Keys go to `(murmur3_32(key, seed 0) & 0x7fffffff) % partitions`; `murmur2` gives Kafka's own
placement. Records without a key fill one partition until a batch's worth of bytes went there
(KIP-480, KIP-794), so that batches are full also when partitions are many.
"""

from __future__ import annotations

from collections.abc import Sequence

import mmh3

from client.events import Draw

PARTITIONERS = ("murmur3", "murmur2", "round_robin")

_POSITIVE = 0x7FFFFFFF
_MASK32 = 0xFFFFFFFF


def murmur3_partition(key: bytes, partition_count: int) -> int:
    """The default for records with a key."""
    return (mmh3.hash(key, 0) & _POSITIVE) % partition_count


def murmur2_partition(key: bytes, partition_count: int) -> int:
    """Kafka's placement of a key (Java client: DefaultPartitioner, BuiltInPartitioner)."""
    return (murmur2(key) & _POSITIVE) % partition_count


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 with Kafka's seed, unsigned."""
    multiplier = 0x5BD1E995
    length = len(data)
    state = 0x9747B28C ^ length
    whole = length & ~3
    for position in range(0, whole, 4):
        word = int.from_bytes(data[position : position + 4], "little")
        word = word * multiplier & _MASK32
        word ^= word >> 24
        word = word * multiplier & _MASK32
        state = (state * multiplier & _MASK32) ^ word
    if whole < length:
        state ^= int.from_bytes(data[whole:], "little")
        state = state * multiplier & _MASK32
    state ^= state >> 13
    state = state * multiplier & _MASK32
    return state ^ (state >> 15)


def partition_for_key(kind: str, key: bytes, partition_count: int) -> int:
    """By the `partitioner` setting; `round_robin` ignores keys and never comes here."""
    if kind == "murmur2":
        return murmur2_partition(key, partition_count)
    return murmur3_partition(key, partition_count)


def next_sticky(current: int, queued: Sequence[int | None], draw: Draw) -> int:
    """The partition to stick to next; `queued[p]` batches wait for partition p, None: no leader.

    A partition is the likelier the fewer batches wait for it (KIP-794), and is not the current one
    if there is another. Without any leader all partitions are equal.
    """
    longest = max((waiting for waiting in queued if waiting is not None), default=None)
    weights = [
        1 if longest is None else 0 if waiting is None else longest + 1 - waiting
        for waiting in queued
    ]
    if sum(weights) > weights[current]:
        weights[current] = 0
    ticket = draw("sticky partition", 0, sum(weights) - 1)
    for partition, weight in enumerate(weights):
        if ticket < weight:
            return partition
        ticket -= weight
    raise AssertionError("a ticket lies below the sum of the weights")
