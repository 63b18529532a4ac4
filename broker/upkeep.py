"""What a broker does for its logs though nobody asks: checkpoints, aging, scrubbing, retention.

Each has its own clock; nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.config import NodeConfig
from broker.events import Scrub, Store
from broker.log.cold_batches import ColdRead
from broker.log.errors import CorruptFile
from broker.log.log_manager import LogManager
from broker.log.retention import begins_after, is_too_old
from broker.log.scrubber import Scrubber
from broker.outbox import Outbox
from broker.ports import DiskError
from broker.replica.partition import Partition, PartitionRole
from broker.replica.replica_manager import ReplicaManager


class Upkeep:
    """Begins with the first `tick`, when the broker serves."""

    def __init__(
        self,
        config: NodeConfig,
        logs: LogManager,
        replicas: ReplicaManager,
        outbox: Outbox,
        wall_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._logs = logs
        self._replicas = replicas
        self._outbox = outbox
        self._scrubber = Scrubber(config.log_scrub_interval_ms, config.log_scrub_bytes_per_second)
        self._wall_ms = wall_ms
        self._next_checkpoint_ms = 0
        self._next_retention_ms: int | None = None
        self._producers_aged_ms: int | None = None

    def tick(self, now_ms: int, *, is_stopping: bool) -> None:
        """Do what is due. A broker that stops makes its last checkpoint itself."""
        if now_ms >= self._next_checkpoint_ms:
            interval_ms = self._config.replica_high_watermark_checkpoint_interval_ms
            self._next_checkpoint_ms = now_ms + interval_ms
            if not is_stopping:
                self.begin_checkpoint()
        self._age_producers(now_ms)
        self._scrub(now_ms)
        self._retain(now_ms)

    def next_deadline_ms(self) -> int:
        deadlines = [self._next_checkpoint_ms]
        for optional in (self._scrubber.next_deadline_ms(), self._next_retention_ms):
            if optional is not None:
                deadlines.append(optional)
        return min(deadlines)

    def begin_checkpoint(self) -> None:
        partitions = self._replicas.partitions
        marks = {key: partition.high_watermark for key, partition in partitions.items()}
        for request in self._logs.begin_checkpoint(marks):
            self._outbox.add(Store(request.path, 0, request.data))
        for key, error in self._logs.take_found():
            if key in partitions:
                self._replicas.damages.find(partitions[key], error)

    def _age_producers(self, now_ms: int) -> None:
        if self._producers_aged_ms is None:
            self._producers_aged_ms = now_ms
        elapsed_ms = now_ms - self._producers_aged_ms
        if elapsed_ms >= self._config.producer_id_expiration_check_interval_ms:
            self._producers_aged_ms = now_ms
            self._logs.age_producers(elapsed_ms, self._config.producer_id_expiration_ms)

    def _retain(self, now_ms: int) -> None:
        """Leaders delete what is too old or too much; their followers follow."""
        if self._next_retention_ms is None or now_ms >= self._next_retention_ms:
            is_first = self._next_retention_ms is None
            self._next_retention_ms = now_ms + self._config.log_retention_check_interval_ms
            if is_first:
                return
            wall_ms = self._wall_ms()
            for partition in self._replicas.partitions.values():
                if partition.role is PartitionRole.LEADER:
                    try:
                        self._retain_in(partition, wall_ms)
                    except DiskError as error:
                        if not error.unchanged:
                            raise

    def _retain_in(self, partition: Partition, wall_ms: int) -> None:
        log, config = partition.log, partition.config
        if is_too_old(log.segments[-1], wall_ms, config.retention_ms):
            log.roll()
        offset = begins_after(
            log.segments,
            partition.high_watermark,
            wall_ms,
            config.retention_ms,
            config.retention_bytes,
        )
        if offset > log.log_start_offset:
            partition.raise_log_start(offset)
            self._replicas.touched[partition.key] = partition

    def _scrub(self, now_ms: int) -> None:
        request = self._scrubber.request(self._logs, now_ms)
        if request is not None:
            self._outbox.add(
                Scrub(
                    request.path,
                    request.position,
                    request.end_position,
                    request.next_offset,
                    request.epochs,
                )
            )

    def on_scrubbed(self, seen: ColdRead | None) -> None:
        """A piece of a cold segment was read; None: it could not be, which says nothing."""
        request = self._scrubber.on_read(self._logs, seen)
        partition = self._replicas.partitions.get(request.log) if request is not None else None
        if request is not None and partition is not None and seen is not None:
            error = CorruptFile(request.path, seen.position, seen.problem)
            self._replicas.damages.find(partition, error)
