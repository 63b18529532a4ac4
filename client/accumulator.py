"""Records until they are sent: one queue per partition, one open batch at its end.

A batch is closed when it is full, when it has lingered, or when somebody flushes. Its bytes are
made in that moment, by whoever closes it: mostly the thread that calls send(). The order of a queue
is the order of the log, so nothing in it ever overtakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from broker.wire.compression import Codec
from broker.wire.record_encoder import BatchBuilder, Headers
from client.config import ProducerConfig
from client.delivery import (
    ProducerBatch,
    ProducerIdentity,
    RecordHandle,
    Waiter,
    make_handle,
)
from client.errors import RecordTooLarge

CODECS = {
    "none": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}


class PartitionQueue:
    """What waits for one partition, oldest first: `stamped`, then `sealed`, then `open`.

    `stamped` batches carry sequences and were sent at least once; without idempotence they are
    merely the ones sent. The lists are changed by the accumulator and the sender only.
    """

    __slots__ = (
        "filled_bytes",
        "identity",
        "is_active",
        "next_sequence",
        "open",
        "outstanding_count",
        "partition",
        "sealed",
        "sent_count",
        "session_over",
        "stamped",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, topic_id: str, partition: int) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.open: ProducerBatch | None = None
        self.sealed: deque[ProducerBatch] = deque()
        self.stamped: list[ProducerBatch] = []
        """Sent and not yet done, in the order of their sequences."""
        self.outstanding_count = 0
        """How many of `stamped` wait for an answer right now."""
        self.sent_count = 0
        """How many batches were ever sent for the first time."""
        self.identity: ProducerIdentity | None = None
        """The session's identity; None before the first and after the end of a session."""
        self.next_sequence = 0
        self.session_over: ProducerIdentity | None = None
        """The identity that must never be used again here."""
        self.filled_bytes = 0
        """Bytes of all batches closed so far; a full one counts as batch_size."""
        self.is_active = False
        """Among the accumulator's active queues: it has batches."""

    @property
    def is_recovering(self) -> bool:
        """A batch must be sent again: until it is acknowledged nothing new may follow."""
        return len(self.stamped) > self.outstanding_count

    @property
    def in_flight_span(self) -> int:
        """How many batches back the oldest one lies that is not done, itself included.

        This, not how many wait for an answer, is what a broker's memory must cover: when an
        answer is lost and later ones come, the oldest is sent again behind all that was
        acknowledged meanwhile.
        """
        return self.sent_count - self.stamped[0].number if self.stamped else 0

    @property
    def is_empty(self) -> bool:
        return not self.stamped and not self.sealed and self.open is None

    def oldest_waiting(self) -> ProducerBatch | None:
        """The oldest batch that is not with a broker just now."""
        if self.is_recovering:
            return next(batch for batch in self.stamped if not batch.is_outstanding)
        return self.sealed[0] if self.sealed else self.open

    def batches(self) -> list[ProducerBatch]:
        """All batches that are not done, in order."""
        return [*self.stamped, *self.sealed, *([self.open] if self.open else [])]


class Accumulator:
    """All queues, and the memory that they take."""

    def __init__(self, config: ProducerConfig, waiter: Waiter) -> None:
        self._config = config
        self._waiter = waiter
        self._codec = CODECS[config.compression_type]
        self.active: dict[tuple[str, int], PartitionQueue] = {}
        """Queues with batches, by topic id and partition."""
        self.buffered_bytes = 0
        """Reserved of buffer_memory: an open batch for its limit, a sealed one for its bytes."""

    def activate(self, queue: PartitionQueue) -> None:
        if not queue.is_active:
            queue.is_active = True
            self.active[(queue.topic_id, queue.partition)] = queue

    def deactivate_empty(self, queue: PartitionQueue) -> None:
        if queue.is_active and queue.is_empty:
            queue.is_active = False
            del self.active[(queue.topic_id, queue.partition)]

    def has_room(self, size_bytes: int) -> bool:
        """Whether a batch of that size may be opened; the only one always may."""
        return (
            self.buffered_bytes + size_bytes <= self._config.buffer_memory
            or self.buffered_bytes == 0
        )

    def open_batch(self, queue: PartitionQueue, limit_bytes: int, now_ms: int) -> ProducerBatch:
        """An empty open batch, in a queue that has none. `has_room` was asked."""
        assert queue.open is None, "one open batch per partition"
        builder = BatchBuilder(limit_bytes)
        batch = ProducerBatch(queue.topic, queue.partition, builder, now_ms, self._waiter)
        batch.reserved_bytes = limit_bytes
        self.buffered_bytes += limit_bytes
        queue.open = batch
        self.activate(queue)
        return batch

    def append_first(
        self,
        queue: PartitionQueue,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        size_max_bytes: int,
    ) -> RecordHandle:
        """Put the first record into the batch just opened; undone if the record is refused.

        RecordTooLarge above `size_max_bytes`; TypeError and ValueError as the builder.
        """
        batch = queue.open
        assert batch is not None, "the caller has opened a batch"
        assert batch.builder is not None, "an open batch has a builder"
        accepted = False
        try:
            batch.builder.append(timestamp_ms, key, value, headers)
            accepted = batch.builder.size_bytes <= size_max_bytes
        finally:
            if not accepted:
                queue.open = None
                self.buffered_bytes -= batch.reserved_bytes
                self.deactivate_empty(queue)
        if not accepted:
            raise RecordTooLarge(
                f"{queue.topic}-{queue.partition}: a batch of {batch.builder.size_bytes} bytes for "
                f"one record exceeds {size_max_bytes}, the lower of max_request_size and the "
                "topic's message_max_bytes"
            )
        batch.record_count = 1
        return make_handle((batch, 0, timestamp_ms))

    def seal_open(self, queue: PartitionQueue, *, is_full: bool = False) -> ProducerBatch:
        """Close the open batch and make its bytes. The records of a batch never change after."""
        batch = queue.open
        assert batch is not None, "there is a batch to seal"
        assert batch.builder is not None, "an open batch has a builder"
        queue.filled_bytes += self._config.batch_size if is_full else batch.builder.size_bytes
        batch.payload = batch.builder.seal(self._codec)
        batch.builder = None
        self.buffered_bytes += len(batch.payload) - batch.reserved_bytes
        batch.reserved_bytes = len(batch.payload)
        queue.open = None
        queue.sealed.append(batch)
        return batch

    def release(self, queue: PartitionQueue, batch: ProducerBatch) -> None:
        """Take a batch that is done out of its queue and free its memory."""
        if batch in queue.stamped:
            queue.stamped.remove(batch)
        elif batch is queue.open:
            queue.open = None
        else:
            queue.sealed.remove(batch)
        self.buffered_bytes -= batch.reserved_bytes
        batch.reserved_bytes = 0
        batch.payload = None
        batch.builder = None
        self.deactivate_empty(queue)

    def unfinished(self) -> Sequence[ProducerBatch]:
        """Every batch that is not done."""
        return [batch for queue in self.active.values() for batch in queue.batches()]
