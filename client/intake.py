"""The producer's front door: which partition a record goes to, and into which batch.

This is the path every record takes, so the ordinary case is a handful of steps: the partition's
open batch takes the record, and the handle says where in the batch it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.record_encoder import Headers
from client.accumulator import Accumulator, PartitionQueue
from client.config import ProducerConfig
from client.delivery import ProducerBatch, RecordHandle, make_handle
from client.events import NEVER_MS, Draw
from client.metadata import ClusterMetadata, TopicState
from client.partitioner import next_sticky, partition_for_key

Clock = Callable[[], int]
"""The time in ms; asked for only when a batch is opened."""
BatchRange = tuple[ProducerBatch, int, int, int]
"""(batch, first index, record count, timestamp_ms)"""


class TopicIntake:
    """The queues of one topic (by topic id) and where its keyless records go now."""

    __slots__ = ("limit_bytes", "next_turn", "queues", "size_max_bytes", "start", "state", "sticky")

    def __init__(self, state: TopicState, config: ProducerConfig) -> None:
        self.state = state
        self.size_max_bytes = min(config.max_request_size, state.message_max_bytes)
        self.limit_bytes = min(config.batch_size, self.size_max_bytes)
        self.queues = [
            PartitionQueue(state.name, state.topic_id, partition)
            for partition in range(state.partition_count)
        ]
        self.sticky = -1
        """The partition of keyless records; -1 until there was one."""
        self.start = 0
        """The sticky queue's `filled_bytes` when it was chosen."""
        self.next_turn = 0


class Intake:
    """Accepts records of topics whose metadata is known."""

    def __init__(
        self,
        config: ProducerConfig,
        accumulator: Accumulator,
        metadata: ClusterMetadata,
        draw: Draw,
    ) -> None:
        self._config = config
        self._accumulator = accumulator
        self._metadata = metadata
        self._draw = draw
        self._topics: dict[str, TopicIntake] = {}
        self._kind = config.partitioner
        self.is_exhausted = False
        """Somebody waits for memory: unfilled batches are to be sent."""
        self.sticky_batches: dict[str, ProducerBatch] = {}
        """By topic: the batch that keyless records go to, for as long as it has a builder."""
        self.opened_ms = NEVER_MS
        """When the first batch was opened since somebody last reset this to NEVER_MS."""
        self.sealed_queue: PartitionQueue | None = None
        """Where a batch was closed since somebody last cleared this: the sender may have work."""

    def refresh(self) -> None:
        """Follow the metadata: topics that came, went, or are others under the old name."""
        for name in [name for name in self._topics if name not in self._metadata.topics]:
            del self._topics[name]
            self.sticky_batches.pop(name, None)
        for name, state in self._metadata.topics.items():
            known = self._topics.get(name)
            if known is None or known.state.topic_id != state.topic_id:
                self._topics[name] = TopicIntake(state, self._config)
                self.sticky_batches.pop(name, None)
            elif known.state is not state:
                known.state = state
                known.queues += [
                    PartitionQueue(name, state.topic_id, partition)
                    for partition in range(len(known.queues), state.partition_count)
                ]

    def knows(self, topic: str) -> bool:
        return topic in self._topics

    def find_open(
        self, topic: str, key: bytes | None, partition: int | None
    ) -> ProducerBatch | None:
        """The open batch that a record with a key or a partition goes to, if that is simple."""
        intake = self._topics.get(topic)
        if intake is None:
            return None
        queues = intake.queues
        if partition is None:
            if key is None or self._kind == "round_robin":
                return None
            partition = partition_for_key(self._kind, key, len(queues))
        elif not 0 <= partition < len(queues):
            return None
        return queues[partition].open

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int,
        clock: Clock,
    ) -> RecordHandle | None:
        """Put a record into its batch; None while buffer_memory is full. The topic is known.

        ApiError for a partition that the topic has not; RecordTooLarge; TypeError and ValueError
        for what is no record. A refused record leaves no trace.
        """
        intake = self._topics[topic]
        queue = self._queue(intake, key, partition)
        batch = queue.open
        if batch is not None:
            builder = batch.builder
            assert builder is not None, "an open batch has a builder"
            if builder.append(timestamp_ms, key, value, headers):
                index = batch.record_count
                batch.record_count = index + 1
                return make_handle((batch, index, timestamp_ms))
            self._close(queue)
            queue = self._queue(intake, key, partition)
        return self._append_first(intake, queue, timestamp_ms, key, value, headers, clock)

    def extend(
        self,
        topic: str,
        values: Sequence[bytes],
        start: int,
        partition: int | None,
        timestamp_ms: int,
        clock: Clock,
    ) -> BatchRange | None:
        """Put as many keyless records as fit into one batch; None while buffer_memory is full."""
        intake = self._topics[topic]
        queue = self._queue(intake, None, partition)
        if queue.open is not None:
            taken = self._extend_open(queue, values, start, timestamp_ms)
            if taken is not None:
                return taken
            queue = self._queue(intake, None, partition)
        if queue.open is None:
            value = values[start]
            handle = self._append_first(intake, queue, timestamp_ms, None, value, (), clock)
            if handle is None:
                return None
            batch = handle[0]
            if start + 1 < len(values):
                more = self._extend_open(queue, values, start + 1, timestamp_ms)
                return (batch, 0, 1 + (more[2] if more else 0), timestamp_ms)
            return (batch, 0, 1, timestamp_ms)
        return self._extend_open(queue, values, start, timestamp_ms)

    def seal_all(self) -> None:
        """Close every open batch, so that all of it is sent without lingering."""
        for queue in list(self._accumulator.active.values()):
            if queue.open is not None:
                self._accumulator.seal_open(queue)
                self.sealed_queue = queue

    def _extend_open(
        self, queue: PartitionQueue, values: Sequence[bytes], start: int, timestamp_ms: int
    ) -> BatchRange | None:
        """None, and the batch closed, if there was no room for even one."""
        batch = queue.open
        assert batch is not None, "the caller has looked"
        builder = batch.builder
        assert builder is not None, "an open batch has a builder"
        first = batch.record_count
        try:
            taken = builder.extend(timestamp_ms, values, start)
        finally:
            # A value that is no bytes stops it half-way: what is in the batch stays in it.
            batch.record_count = builder.record_count
        if start + taken < len(values):
            self._close(queue)
        return (batch, first, taken, timestamp_ms) if taken else None

    def _append_first(
        self,
        intake: TopicIntake,
        queue: PartitionQueue,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        clock: Clock,
    ) -> RecordHandle | None:
        if queue.open is not None:
            # The sticky partition moved to one that has a batch of keyed records.
            return self.append(
                queue.topic, value, key, headers, queue.partition, timestamp_ms, clock
            )
        if not self._accumulator.has_room(intake.limit_bytes):
            self.is_exhausted = True
            return None
        now_ms = clock()
        self._accumulator.open_batch(queue, intake.limit_bytes, now_ms)
        self.opened_ms = min(self.opened_ms, now_ms)
        handle = self._accumulator.append_first(
            queue, timestamp_ms, key, value, headers, intake.size_max_bytes
        )
        if queue.partition == intake.sticky:
            self.sticky_batches[queue.topic] = handle[0]
        return handle

    def _close(self, queue: PartitionQueue) -> None:
        self._accumulator.seal_open(queue, is_full=True)
        self.sealed_queue = queue

    def _queue(
        self, intake: TopicIntake, key: bytes | None, partition: int | None
    ) -> PartitionQueue:
        queues = intake.queues
        if partition is None:
            if self._kind == "round_robin":
                partition = intake.next_turn % len(queues)
                intake.next_turn = partition + 1
            elif key is not None:
                partition = partition_for_key(self._kind, key, len(queues))
            else:
                partition = intake.sticky
                if partition < 0 or queues[partition].open is None:
                    partition = self._stick(intake)
        elif not 0 <= partition < len(queues):
            raise ApiError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {intake.state.name} has partitions 0 to {len(queues) - 1}, not {partition}",
            )
        return queues[partition]

    def _stick(self, intake: TopicIntake) -> int:
        """At a batch's boundary: stay, or move on once a batch's worth of bytes went here."""
        queues = intake.queues
        current = intake.sticky
        if current >= 0 and queues[current].filled_bytes - intake.start < self._config.batch_size:
            return current
        waiting = [
            len(queue.sealed) if leader.node_id >= 0 else None
            for queue, leader in zip(queues, intake.state.leaders, strict=False)
        ]
        intake.sticky = next_sticky(max(current, 0), waiting, self._draw)
        intake.start = queues[intake.sticky].filled_bytes
        return intake.sticky
