"""The loads that `prozess perf` puts on a cluster, all through the public client.

Nothing here is tuned beyond what a user could set: every record goes through `send()`, every result
is looked at, and what was acknowledged is compared with what the log holds afterwards.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from client.cli.common import EXIT_BAD, EXIT_UNKNOWN, Failure
from client.cli.perf_machine import percentile
from client.consumer import Consumer
from client.delivery import RecordHandle
from client.producer import Producer

CHUNK_RECORDS = 1_000
"""Records sent between two looks at results; one of each chunk is timed."""
POLL_MS = 1_000
POLL_RECORDS = 10_000
SILENT_POLLS_MAX = 10

MIB = 1_048_576
BATCHES_IN_FLIGHT = 5
"""Of a partition, by default."""

TopicPartition = tuple[str, int]


@dataclass(slots=True)
class Load:
    """One run: what was moved in which time, and how long acknowledgements took."""

    records: int = 0
    value_bytes: int = 0
    elapsed_ns: int = 1
    acks_us: list[int] = field(default_factory=list)

    @property
    def records_per_s(self) -> int:
        return self.records * 1_000_000_000 // self.elapsed_ns

    @property
    def mb_per_s(self) -> float:
        return round(self.value_bytes * 1_000 / self.elapsed_ns, 1)

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "records": self.records,
            "seconds": round(self.elapsed_ns / 1e9, 3),
            "records_per_s": self.records_per_s,
            "mb_per_s": self.mb_per_s,
        }
        if self.acks_us:
            shown["ack_p50_ms"] = percentile(self.acks_us, 50) / 1_000
            shown["ack_p99_ms"] = percentile(self.acks_us, 99) / 1_000
            shown["ack_max_ms"] = max(self.acks_us) / 1_000
        return shown


def buffer_memory(batch_bytes: int, partitions: int) -> int:
    """Twice what may be in flight, in bytes, between 4 MiB and the default of 32 MiB. More is only
    a longer queue before the producer: more live objects, no more records."""
    in_flight_bytes = BATCHES_IN_FLIGHT * partitions * batch_bytes
    return min(max(2 * in_flight_bytes, 4 * MIB), 32 * MIB)


_batch_of = itemgetter(0)


class Checked:
    """Handles of chunks under way. Raises for the first record that was not delivered."""

    def __init__(self) -> None:
        self._chunks: deque[list[RecordHandle]] = deque()
        self.delivered_count = 0

    def add(self, handles: list[RecordHandle]) -> None:
        self._chunks.append(handles)
        while self._chunks and self._chunks[0][-1].done():
            self._check(self._chunks.popleft())

    def finish(self) -> None:
        while self._chunks:
            self._check(self._chunks.popleft())

    def _check(self, handles: list[RecordHandle]) -> None:
        # Records of one batch share its outcome: asked of one of them, it holds for all.
        for handle in dict(zip(map(_batch_of, handles), handles, strict=True)).values():
            handle.result()
        self.delivered_count += len(handles)


def produce_load(producer: Producer, topic: str, value: bytes, *, seconds: float) -> Load:
    """send() as fast as it goes for so long; ends when all is acknowledged."""
    load = Load()
    send = producer.send
    checked = Checked()
    now_ns = time.perf_counter_ns
    begin_ns = now_ns()
    end_ns = begin_ns + int(seconds * 1e9)
    while (start_ns := now_ns()) < end_ns:
        timed = send(topic, value, on_delivery=_stopwatch(start_ns, load.acks_us))
        handles = [send(topic, value) for _ in range(CHUNK_RECORDS - 1)]
        handles.insert(0, timed)
        checked.add(handles)
    producer.flush()
    checked.finish()
    load.elapsed_ns = now_ns() - begin_ns
    load.records = checked.delivered_count
    load.value_bytes = load.records * len(value)
    return load


def _stopwatch(start_ns: int, acks_us: list[int]) -> Any:
    def stop(_: RecordHandle) -> None:
        acks_us.append((time.perf_counter_ns() - start_ns) // 1_000)

    return stop


def latency_load(
    producer: Producer, topic: str, value: bytes, *, records_per_s: int, seconds: float
) -> Load:
    """Single records at a steady rate, each timed from send() to its acknowledgement."""
    load = Load()
    count = int(records_per_s * seconds)
    handles = []
    start_ns = time.perf_counter_ns()
    for number in range(count):
        due_ns = start_ns + number * 1_000_000_000 // records_per_s
        wait_ns = due_ns - time.perf_counter_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        stop = _stopwatch(time.perf_counter_ns(), load.acks_us)
        handles.append(producer.send(topic, value, on_delivery=stop))
    producer.flush()
    load.elapsed_ns = time.perf_counter_ns() - start_ns
    for handle in handles:
        handle.result()
    load.records = count
    load.value_bytes = count * len(value)
    return load


def fill(producer: Producer, topic: str, value: bytes, record_count: int) -> None:
    """Put records there to be read, the quick way."""
    values = [value] * CHUNK_RECORDS
    handles = []
    for _ in range(-(-record_count // CHUNK_RECORDS)):
        handles.append(producer.send_many(topic, values))
    producer.flush()
    for handle in handles:
        handle.result()


def consume_load(
    consumer: Consumer,
    ends: Mapping[TopicPartition, int],
    value_bytes: int,
    *,
    batches: bool,
) -> Load:
    """Read everything from the beginning to `ends`; every record is decoded and counted.

    `batches`: through poll_batches(), else through poll().
    """
    consumer.assign(list(ends))
    consumer.seek_to_beginning()
    for topic, partition in ends:
        consumer.position(topic, partition)
    load = Load()
    wanted = sum(ends.values())
    silent_polls = 0
    start_ns = time.perf_counter_ns()
    while load.records < wanted:
        taken = _take_batches(consumer) if batches else _take_records(consumer, value_bytes)
        load.records += taken
        silent_polls = 0 if taken else silent_polls + 1
        if silent_polls > SILENT_POLLS_MAX:
            raise Failure(f"only {load.records} of {wanted} records arrived", EXIT_UNKNOWN)
    load.elapsed_ns = time.perf_counter_ns() - start_ns
    load.value_bytes = load.records * value_bytes
    return load


def _take_records(consumer: Consumer, value_bytes: int) -> int:
    records = consumer.poll(POLL_MS, POLL_RECORDS)
    for record in records:
        if record.value is None or len(record.value) != value_bytes:
            raise Failure(f"a record at offset {record.offset} is not what was sent", EXIT_BAD)
    return len(records)


def _take_batches(consumer: Consumer) -> int:
    return sum(len(batch.records()) for batch in consumer.poll_batches(POLL_MS))


def require_growth(
    before: Mapping[TopicPartition, int], after: Mapping[TopicPartition, int], count: int
) -> None:
    """Failure unless the log grew by exactly what was acknowledged."""
    grown = sum(after.values()) - sum(before.values())
    if grown != count:
        raise Failure(f"{count} records were acknowledged, but the log grew by {grown}", EXIT_BAD)


def end_offsets(consumer: Consumer, topic: str, partitions: Sequence[int]) -> dict[Any, int]:
    """High watermarks, by (topic, partition)."""
    return consumer.end_offsets([(topic, partition) for partition in partitions])
