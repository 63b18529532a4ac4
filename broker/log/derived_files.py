"""The files that say what the batches say: leader epochs, indexes, producer snapshots.

They must be durable before the recovery point moves over what they describe; what is stored already
is remembered, so that nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.log.checkpoint import LEADER_EPOCH_NAME, decode_epochs, encode_epochs
from broker.log.leader_epochs import LeaderEpochs
from broker.log.producer_snapshot import SNAPSHOT_SUFFIX, SnapshotFile, encode_snapshot
from broker.log.producer_state import ProducerStateTable
from broker.log.segment import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    TIME_INDEX_SUFFIX,
    Segment,
    segment_path,
)


def derived_paths(segment_path_: str) -> list[str]:
    """Of a segment's file: those that say of it, or of where it begins, what the batches say."""
    stem = segment_path_.removesuffix(LOG_SUFFIX)
    return [stem + suffix for suffix in (INDEX_SUFFIX, TIME_INDEX_SUFFIX, SNAPSHOT_SUFFIX)]


class DerivedFiles:
    """Of one log. `epochs`: what the leader-epoch checkpoint holds, None if unknown. `snapshots`:
    the offsets of the snapshots on disk that are of this log."""

    __slots__ = ("_directory", "epochs", "snapshots")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.epochs: tuple[tuple[int, int], ...] | None = None
        self.snapshots: dict[int, None] = {}

    def cut(self, end_offset: int) -> None:
        """The log was cut there: snapshots above are of another one."""
        self.snapshots = {offset: None for offset in self.snapshots if offset <= end_offset}

    def raise_start(self, offset: int) -> None:
        """The log begins there now: files of what is below go with it."""
        self.snapshots = {at: None for at in self.snapshots if at > offset}

    def forget(self) -> None:
        self.epochs = None
        self.snapshots = {}

    def missing(
        self,
        recovery_point: int,
        segments: Sequence[Segment],
        epochs: LeaderEpochs,
        producers: ProducerStateTable,
    ) -> list[tuple[str, bytes]]:
        """(path, data) of what must be stored before the recovery point moves there."""
        files = []
        entries = epochs.entries()
        if entries != self.epochs:
            files.append((f"{self._directory}/{LEADER_EPOCH_NAME}", encode_epochs(entries)))
        timestamps_ms: dict[int, int] = {}
        for segment in segments[:-1]:
            offset = segment.end_offset
            if offset > recovery_point:
                break
            timestamps_ms[segment.base_offset] = segment.max_timestamp_ms
            if not segment.indexes_stored and segment.size_bytes:
                files += segment.encode_indexes()
            table = None if offset in self.snapshots else producers.snapshot_at(offset)
            if table is not None:
                file = SnapshotFile(epochs.epoch_of(offset - 1), table, dict(timestamps_ms))
                path = segment_path(self._directory, offset, SNAPSHOT_SUFFIX)
                files.append((path, encode_snapshot(file)))
        return files

    def on_stored(self, path: str, data: bytes, segments: Sequence[Segment]) -> None:
        """A file from `missing` is durable, and the log was not cut since."""
        if path.endswith(LEADER_EPOCH_NAME):
            self.epochs = decode_epochs(path, data)
        elif path.endswith(SNAPSHOT_SUFFIX):
            self.snapshots[int(path.rpartition("/")[2].removesuffix(SNAPSHOT_SUFFIX))] = None
        elif path.endswith(TIME_INDEX_SUFFIX):
            for segment in segments[:-1]:
                if path == segment_path(self._directory, segment.base_offset, TIME_INDEX_SUFFIX):
                    segment.on_indexes_stored()
