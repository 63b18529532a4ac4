"""The dumps of one partition side by side: what the replicas agree on and where they differ.

Replicas whose logs are equal byte for byte share one `Variant`, so that three equal replicas cost
as much as one. All offsets are half-open.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from chaos.evidence import NO_RECORD, ReplicaLog


@dataclass(frozen=True, slots=True)
class Variant:
    """One content that one or more replicas have: record by record from `start_offset`."""

    nodes: tuple[int, ...]
    start_offset: int
    values: array[int]
    crcs: array[int]
    logs: tuple[ReplicaLog, ...]

    @property
    def end_offset(self) -> int:
        return self.start_offset + len(self.values)

    def value_at(self, offset: int) -> int:
        """Value id at `offset`, NO_RECORD outside the log and in holes."""
        position = offset - self.start_offset
        return self.values[position] if 0 <= position < len(self.values) else NO_RECORD


@dataclass(frozen=True, slots=True)
class PartitionDump:
    """All copied replicas of one partition.

    `committed_end`: below it every replica's log claims to be committed. After convergence that is
    the common log end, else the lowest high watermark. `complete`: no replica is missing.
    """

    place_name: str
    variants: tuple[Variant, ...]
    committed_end: int
    complete: bool
    converged: bool

    @property
    def logs(self) -> list[ReplicaLog]:
        logs = [log for variant in self.variants for log in variant.logs]
        return sorted(logs, key=lambda log: log.node)

    def committed_end_of(self, log: ReplicaLog) -> int:
        """Below it this one replica claims to be committed."""
        return log.log_end_offset if self.converged else min(log.high_watermark, log.log_end_offset)


def compare_replicas(
    place_name: str, logs: Iterable[ReplicaLog], *, replica_count: int, converged: bool
) -> PartitionDump:
    """Group equal replicas. `replica_count`: how many there must be."""
    groups: dict[tuple[int, tuple[bytes, ...]], list[ReplicaLog]] = {}
    for log in sorted(logs, key=lambda log: log.node):
        content = (log.log_start_offset, tuple(batch.digest for batch in log.batches))
        groups.setdefault(content, []).append(log)
    variants = tuple(_variant(group) for group in groups.values())
    members = [log for group in groups.values() for log in group]
    if converged:
        committed_end = min((log.log_end_offset for log in members), default=0)
    else:
        committed_end = min(
            (min(log.high_watermark, log.log_end_offset) for log in members), default=0
        )
    return PartitionDump(
        place_name,
        variants,
        max(committed_end, 0),
        len(members) >= replica_count,
        converged,
    )


def _variant(logs: list[ReplicaLog]) -> Variant:
    first = logs[0]
    values, crcs = array("q"), array("q")
    for batch in first.batches:
        gap = batch.base_offset - first.log_start_offset - len(values)
        if gap > 0:
            values.extend([NO_RECORD] * gap)
            crcs.extend([-1] * gap)
        values.extend(batch.values)
        crcs.extend(batch.crcs)
    nodes = tuple(log.node for log in logs)
    return Variant(nodes, first.log_start_offset, values, crcs, tuple(logs))
