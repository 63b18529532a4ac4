"""A batch on its way to a partition, and the light handles of the records in it.

The completion is shared: a record's handle is a tuple (batch, index, timestamp) and costs a tenth
of a microsecond; a future of its own would cost as much as sending fifty records. Whoever
completes a batch sets its outcome once; handles read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker.wire.record_encoder import BatchBuilder
from client.errors import ClientTimeout
from client.retry import Attempt, Delivered, SendFailed

Waiter = Callable[["ProducerBatch", float | None], None]
"""wait(batch, timeout_s): return when the batch is done or the time is over."""


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """What a producer session is known by; with a sequence it names a batch once and for ever."""

    producer_id: int
    producer_epoch: int


@dataclass(frozen=True, slots=True)
class BatchDelivered:
    """Where a batch stands."""

    base_offset: int
    """Offset of its first record; -1 with acks=0."""
    leader_epoch: int


class ProducerBatch:
    """Records of one partition, sent, acknowledged and retried together.

    Life: open (`builder` takes records) -> sealed (`payload` holds the bytes) -> stamped (identity
    and sequence put in, once and for ever) -> outstanding, perhaps again and again -> `outcome`.
    """

    __slots__ = (
        "attempts",
        "base_sequence",
        "behind",
        "builder",
        "callbacks",
        "created_ms",
        "identity",
        "is_outstanding",
        "number",
        "outcome",
        "partition",
        "payload",
        "record_count",
        "reserved_bytes",
        "retry_at_ms",
        "topic",
        "waiter",
    )

    def __init__(
        self, topic: str, partition: int, builder: BatchBuilder, created_ms: int, waiter: Waiter
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.builder: BatchBuilder | None = builder
        self.created_ms = created_ms
        self.waiter = waiter
        self.record_count = 0
        self.reserved_bytes = 0
        """What it takes of buffer_memory."""
        self.payload: bytearray | None = None
        """The sealed bytes; let go of when the batch is done."""
        self.identity: ProducerIdentity | None = None
        self.base_sequence = -1
        self.attempts: list[Attempt] = []
        self.number = -1
        """Its place among the batches of its partition that were sent."""
        self.is_outstanding = False
        self.behind = False
        """The outstanding attempt was sent while an earlier batch was not yet acknowledged."""
        self.retry_at_ms = 0
        self.outcome: BatchDelivered | SendFailed | None = None
        self.callbacks: list[tuple[RecordHandle, Callable[[RecordHandle], object]]] = []

    @property
    def is_stamped(self) -> bool:
        return self.identity is not None


class RecordHandle(tuple[ProducerBatch, int, int]):
    """What send() returns: the promise of one record's outcome."""

    __slots__ = ()

    @property
    def topic(self) -> str:
        return self[0].topic

    @property
    def partition(self) -> int:
        return self[0].partition

    @property
    def timestamp_ms(self) -> int:
        return self[2]

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every ended attempt so far: node, leader epoch, error (None: no answer), appended."""
        return tuple(self[0].attempts)

    @property
    def identity(self) -> tuple[int, int, int] | None:
        """(producer id, producer epoch, sequence) of this record, once it has them."""
        batch = self[0]
        if batch.identity is None:
            return None
        sequence = (batch.base_sequence + self[1]) & 0x7FFFFFFF
        return (batch.identity.producer_id, batch.identity.producer_epoch, sequence)

    def done(self) -> bool:
        return self[0].outcome is not None

    def exception(self) -> SendFailed | None:
        """The failure of a record that is done, None if it was delivered or is under way."""
        outcome = self[0].outcome
        return outcome if isinstance(outcome, SendFailed) else None

    def result(self, timeout: float | None = None) -> Delivered:
        """Where the record stands. Waits up to `timeout` seconds, for ever without.

        Every record is done after delivery_timeout_ms + request_timeout_ms at the latest. Raises
        SendFailed (`definite` tells whether the record may be in the log) or ClientTimeout.
        """
        batch, index, timestamp_ms = self
        if batch.outcome is None:
            batch.waiter(batch, timeout)
        outcome = batch.outcome
        if outcome is None:
            raise ClientTimeout(f"{batch.topic}-{batch.partition}: no outcome within {timeout} s")
        if isinstance(outcome, SendFailed):
            raise outcome.copy()
        offset = outcome.base_offset + index if outcome.base_offset >= 0 else -1
        return Delivered(batch.topic, batch.partition, offset, outcome.leader_epoch, timestamp_ms)

    def __repr__(self) -> str:
        state = "under way" if self[0].outcome is None else repr(self[0].outcome)
        return f"<RecordHandle {self.topic}-{self.partition} #{self[1]}: {state}>"


make_handle: Callable[[tuple[ProducerBatch, int, int]], RecordHandle] = partial(
    tuple.__new__, RecordHandle
)
"""RecordHandle((batch, index, timestamp_ms)) without the detour over Python's constructor call."""


@dataclass(frozen=True, slots=True)
class RangeHandle:
    """What send_many() returns: consecutive records of one partition, in one batch or several."""

    ranges: tuple[tuple[ProducerBatch, int, int, int], ...]
    """(batch, first index, record count, timestamp_ms) each."""

    def __len__(self) -> int:
        return sum(count for _, _, count, _ in self.ranges)

    def records(self) -> list[RecordHandle]:
        return [
            make_handle((batch, index, timestamp_ms))
            for batch, first, count, timestamp_ms in self.ranges
            for index in range(first, first + count)
        ]

    def done(self) -> bool:
        return all(batch.outcome is not None for batch, _, _, _ in self.ranges)

    def result(self, timeout: float | None = None) -> list[Delivered]:
        """Where each record stands; raises as `RecordHandle.result`, for the first that failed.

        `timeout` in seconds bounds the wait for each batch.
        """
        return [handle.result(timeout) for handle in self.records()]


@dataclass(frozen=True, slots=True)
class Completed:
    """Effect: a batch has its outcome; its memory is free again. The driver tells who waits."""

    batch: ProducerBatch


def never_waits(batch: ProducerBatch, timeout: Any) -> None:
    """The waiter of drivers without threads: an outcome is there or it is not."""
