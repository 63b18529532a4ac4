"""Checkpoints: what lets recovery read less, in two stages.

First the high watermarks, and all files derived from the batches (leader epochs, indexes); once
these are durable, the recovery points that rest on them. Both numbers are min(high watermark,
synced end): certainly on disk, and never to be truncated, so a log that ends below is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    RECOVERY_POINT_PATH,
    LogKey,
    encode_offsets,
)
from broker.log.errors import CorruptFile
from broker.log.partition_log import PartitionLog


class StoreRequest(NamedTuple):
    """Replace a small file durably, then say so with its path."""

    path: str
    data: bytes


class _Candidate(NamedTuple):
    """What a log's recovery point becomes, if the log is not cut before that."""

    recovery_point: int
    generation: int


class Checkpointer:
    """At most one checkpoint is under way."""

    def __init__(self) -> None:
        self._candidates: dict[LogKey, _Candidate] = {}
        self._pending: dict[str, tuple[LogKey | None, bytes]] = {}
        """Files of the present stage of which nothing was heard yet, and whose they are."""
        self._failed = False
        self.found: list[tuple[LogKey, CorruptFile]] = []
        """Logs whose files turned out to be damaged: their recovery point stays."""
        self._stored: dict[str, bytes] = {}
        """The two files as last stored: the same again needs no storing."""

    def begin(
        self, logs: Mapping[LogKey, PartitionLog], high_watermarks: Mapping[LogKey, int]
    ) -> list[StoreRequest]:
        if self._pending:
            return []
        marks: dict[LogKey, int] = {}
        self._candidates = {}
        self._failed = False
        for key, log in sorted(logs.items()):
            marks[key] = min(high_watermarks.get(key, 0), log.synced_end)
            recovery_point = max(log.recovery_point, marks[key])
            self._candidates[key] = _Candidate(recovery_point, log.generation)
            log.producers.take_snapshot(log.log_end_offset)
            log.want_sync()
            try:
                for path, data in log.derived_files(recovery_point):
                    self._pending[path] = (key, data)
            except CorruptFile as error:
                self._candidates[key] = _Candidate(log.recovery_point, log.generation)
                self.found.append((key, error))
        data = encode_offsets(marks)
        if data != self._stored.get(HIGH_WATERMARK_PATH):
            self._pending[HIGH_WATERMARK_PATH] = (None, data)
        return self._requests() or self._begin_second_stage(logs)

    @property
    def is_under_way(self) -> bool:
        return bool(self._pending)

    def on_stored(self, logs: Mapping[LogKey, PartitionLog], path: str) -> list[StoreRequest]:
        if path not in self._pending:
            return []
        key, data = self._pending.pop(path)
        if key is None:
            self._stored[path] = data
        elif self._is_uncut(logs, key):
            logs[key].on_derived_stored(path, data)
        if path == RECOVERY_POINT_PATH:
            self._move_recovery_points(logs)
        elif not self._pending and not self._failed:
            return self._begin_second_stage(logs)
        return []

    def on_store_failed(self, path: str) -> None:
        """This checkpoint ends here; the next may begin when all its files were heard of."""
        if self._pending.pop(path, None) is not None:
            self._failed = True

    def forget(self, directory: str) -> None:
        """The log in this directory is removed: none of its files will be stored."""
        below = directory + "/"
        for path in [path for path in self._pending if path.startswith(below)]:
            del self._pending[path]

    def _begin_second_stage(self, logs: Mapping[LogKey, PartitionLog]) -> list[StoreRequest]:
        recovery_points = {
            key: self._candidates[key].recovery_point
            if self._is_uncut(logs, key)
            else log.recovery_point
            for key, log in logs.items()
        }
        data = encode_offsets(recovery_points)
        if data == self._stored.get(RECOVERY_POINT_PATH):
            self._move_recovery_points(logs)
            return []
        self._pending[RECOVERY_POINT_PATH] = (None, data)
        return self._requests()

    def _move_recovery_points(self, logs: Mapping[LogKey, PartitionLog]) -> None:
        for key, log in logs.items():
            if self._is_uncut(logs, key):
                log.recovery_point = self._candidates[key].recovery_point
                log.producers.forget_snapshots_before(log.recovery_point)

    def _is_uncut(self, logs: Mapping[LogKey, PartitionLog], key: LogKey) -> bool:
        return (
            key in logs
            and key in self._candidates
            and logs[key].generation == self._candidates[key].generation
        )

    def _requests(self) -> list[StoreRequest]:
        return [StoreRequest(path, data) for path, (_, data) in self._pending.items()]
