"""A producer without brokers: batches of a given size that are completed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.wire.errors import ErrorCode
from broker.wire.record_encoder import BatchBuilder
from client.delivery import (
    BatchDelivered,
    ProducerBatch,
    RangeHandle,
    RecordHandle,
    make_handle,
)
from client.errors import RecordTooLarge
from client.retry import SendFailed

Outcome = Callable[[ProducerBatch, int], BatchDelivered | SendFailed]
Sent = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def failure(*, definite: bool) -> SendFailed:
    code = ErrorCode.MESSAGE_TOO_LARGE if definite else ErrorCode.REQUEST_TIMED_OUT
    return SendFailed("t", 0, definite, code, ())


class FakeSender:
    """Completes a batch once a later one is opened, or when somebody waits for it."""

    def __init__(
        self, *, batch_records: int = 10, partitions: int = 1, value_bytes_max: int = 1_000
    ) -> None:
        self.batch_records = batch_records
        self.partitions = partitions
        self.value_bytes_max = value_bytes_max
        self.sent: list[Sent] = []
        self.batches: list[ProducerBatch] = []
        self.outcomes: dict[int, SendFailed] = {}
        """By number of the batch, from 0; all others are delivered."""
        self.completes = True
        self.calls = 0
        self._open: dict[int, ProducerBatch] = {}
        self._next_offset = [0] * partitions

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
        partition: int | None = None,
    ) -> RecordHandle:
        self.calls += 1
        if value is not None and len(value) > self.value_bytes_max:
            raise RecordTooLarge(f"{len(value)} bytes")
        self.sent.append((key, value, headers))
        chosen = partition if partition is not None else len(self.sent) % self.partitions
        batch = self._open.get(chosen)
        if batch is None or batch.record_count == self.batch_records:
            if batch is not None and self.completes:
                self.complete(batch)
            batch = ProducerBatch(topic, chosen, BatchBuilder(), 0, self._wait)
            self.batches.append(batch)
            self._open[chosen] = batch
        batch.record_count += 1
        return make_handle((batch, batch.record_count - 1, 0))

    def send_many(
        self, topic: str, values: Sequence[bytes], partition: int | None = None
    ) -> RangeHandle:
        calls = self.calls
        handles = [self.send(topic, value, partition=partition) for value in values]
        self.calls = calls + 1
        return RangeHandle(tuple((handle[0], handle[1], 1, 0) for handle in handles))

    def complete(self, batch: ProducerBatch) -> None:
        """Give a batch its outcome; offsets are handed out in this order."""
        number = self.batches.index(batch)
        if batch.outcome is not None:
            return
        if number in self.outcomes:
            batch.outcome = self.outcomes[number]
            return
        batch.outcome = BatchDelivered(self._next_offset[batch.partition], 1)
        self._next_offset[batch.partition] += batch.record_count

    def complete_all(self) -> None:
        for batch in self.batches:
            self.complete(batch)

    def _wait(self, batch: ProducerBatch, timeout_s: float | None) -> None:
        self.complete(batch)
