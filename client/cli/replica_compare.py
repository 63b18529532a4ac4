"""Replicas of one partition side by side: the same batches, byte for byte, below a limit?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from client.cli.replica_files import Replica
from client.cli.segment_reader import Damage, StoredBatch

HIGH_WATERMARK = "hw"
LOG_END = "end"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found. `difference` is empty when all replicas hold the same below the limit."""

    name: str
    topic_id: str
    sources: tuple[str, ...]
    limit_offset: int
    batch_count: int
    """Compared and found equal, before the difference if there is one."""
    digest: str
    difference: str

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "comparison",
            "replica": self.name,
            "topic_id": self.topic_id,
            "sources": list(self.sources),
            "below": self.limit_offset,
            "batches": self.batch_count,
            "digest": self.digest,
            "identical": not self.difference,
            "difference": self.difference,
        }

    def __str__(self) -> str:
        what = f"{self.name}: {len(self.sources)} replicas"
        if self.difference:
            return f"{what} DIFFER below {self.limit_offset}: {self.difference}"
        return (
            f"{what} identical below {self.limit_offset} "
            f"({self.batch_count} batches, {self.digest[:16]})"
        )


def group(replicas: Sequence[Replica]) -> list[list[Replica]]:
    """Replicas of the same partition together, in order of topic and partition."""
    groups: dict[tuple[str, int, str], list[Replica]] = {}
    for replica in replicas:
        key = (replica.topic, replica.partition, replica.topic_id)
        groups.setdefault(key, []).append(replica)
    return [groups[key] for key in sorted(groups)]


def compare(replicas: Sequence[Replica], below: int | str) -> Comparison:
    """Compare replicas of one partition.

    `below`: an offset; HIGH_WATERMARK, the lowest one that a replica has checkpointed, since each
    vouches for all below its own; LOG_END, the highest log end: then all must hold the same.
    """
    limit_offset = _limit(replicas, below)
    start_offset = max(int(replica.segments[0].stem) for replica in replicas)
    walks = [_Walk(replica, start_offset, limit_offset) for replica in replicas]
    hasher = hashlib.sha256()
    batch_count = 0
    difference = ""
    while True:
        heads = [walk.step() for walk in walks]
        if any(walk.damage for walk in walks):
            walk = next(walk for walk in walks if walk.damage)
            difference = f"damage in {walk.damage}"
            break
        if all(head is None for head in heads):
            break
        if len({head.data if head else b"" for head in heads}) > 1:
            difference = "; ".join(walk.describe() for walk in walks)
            break
        assert heads[0] is not None, "equal heads, not all of them absent"
        hasher.update(heads[0].data)
        batch_count += 1
    if not difference:
        difference = "; ".join(text for walk in walks if (text := walk.shortage()))
    return Comparison(
        name=replicas[0].name,
        topic_id=replicas[0].topic_id,
        sources=tuple(replica.source for replica in replicas),
        limit_offset=limit_offset,
        batch_count=batch_count,
        digest=hasher.hexdigest(),
        difference=difference,
    )


def _limit(replicas: Sequence[Replica], below: int | str) -> int:
    if isinstance(below, int):
        return below
    if below == HIGH_WATERMARK:
        return min(replica.high_watermark or 0 for replica in replicas)
    return max(_log_end(replica) for replica in replicas)


def _log_end(replica: Replica) -> int:
    end_offset = int(replica.segments[0].stem)
    for batch in replica.batches():
        if isinstance(batch, StoredBatch):
            end_offset = batch.header.next_offset
    return end_offset


class _Walk:
    """One replica's batches below the limit."""

    def __init__(self, replica: Replica, start_offset: int, limit_offset: int) -> None:
        self._source = replica.source
        self._limit_offset = limit_offset
        self._start_offset = start_offset
        self._batches: Iterator[StoredBatch | Damage] = replica.batches()
        self._head: StoredBatch | None = None
        self._end_offset = start_offset
        self.damage: Damage | None = None

    def step(self) -> StoredBatch | None:
        """The next batch, None behind the last one below the limit."""
        for batch in self._batches:
            if isinstance(batch, Damage):
                if batch.offset < self._limit_offset:
                    self.damage = batch
                break
            if batch.header.base_offset >= self._limit_offset:
                break
            if batch.header.next_offset > self._start_offset:
                self._head = batch
                self._end_offset = batch.header.next_offset
                return batch
        self._batches = iter(())
        self._head = None
        return None

    def describe(self) -> str:
        """What this replica holds where the replicas part."""
        if self._head is None:
            return f"{self._source} ends at {self._end_offset}"
        header = self._head.header
        return (
            f"{self._source} has offsets {header.base_offset}-{header.last_offset} of leader "
            f"epoch {header.leader_epoch}, crc {header.crc & 0xFFFFFFFF:08x}, in "
            f"{self._head.file.name} at byte {self._head.position}"
        )

    def shortage(self) -> str:
        """Set if all replicas agree but end before the limit."""
        if self._end_offset >= self._limit_offset:
            return ""
        return f"{self._source} ends at {self._end_offset}"
