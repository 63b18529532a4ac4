"""Fetched bytes to records: what a consumer holds of one partition, and how far it was read.

Bytes are decoded batch by batch, when the records are asked for. The position moves forward only;
who wants it elsewhere makes a new `FetchedPartition`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from broker.wire.batch_header import CONTROL_BIT, BatchHeader
from broker.wire.record_batch import CorruptBatch, Records, decode_batch, iterate_batches
from broker.wire.record_decoder import RecordHeaders
from client.errors import CorruptRecords
from client.events import Buffer


class ConsumerRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
    leader_epoch: int
    """Of the leader that appended the record's batch."""


_make_record: Callable[[tuple[Any, ...]], ConsumerRecord] = partial(tuple.__new__, ConsumerRecord)


class FetchedBatch(NamedTuple):
    """A batch as it came from the broker."""

    topic: str
    partition: int
    header: BatchHeader
    data: memoryview
    """The whole batch, header included. Keeps the fetched bytes alive."""
    start_offset: int
    """Records below this offset were not asked for."""

    def records(self, *, check_crc: bool = True) -> Records:
        """All records of the batch; CorruptRecords for damaged bytes."""
        try:
            return decode_batch(self.data, check_crc=check_crc)
        except CorruptBatch as error:
            raise CorruptRecords(
                f"{self.topic}-{self.partition} at offset {self.header.base_offset}: {error}"
            ) from error


class FetchedPartition:
    """Chunks of contiguous batches, in the order of their offsets, read from `position` on."""

    def __init__(self, topic: str, partition: int, position: int, check_crcs: bool) -> None:
        self.topic = topic
        self.partition = partition
        self.position = position
        """The offset of the next record to hand out."""
        self.fetch_offset = position
        """The offset after the last batch held."""
        self._is_at_boundary = False
        """`fetch_offset` is where a batch ends, and the next begins."""
        self._check_crcs = check_crcs
        self._chunks: deque[Buffer] = deque()
        self._batches: Iterator[tuple[BatchHeader, memoryview]] = iter(())
        self._is_reading = False
        """A chunk is being read: its batches come from `_batches`."""
        self._rows: list[ConsumerRecord] = []
        self._next_row = 0
        self._rows_end = 0
        """The position once all rows are handed out."""

    def add(self, chunk: Buffer) -> None:
        """Take a chunk that was read from `fetch_offset` on; CorruptRecords if it is none.

        A base offset is not covered by the batch's checksum, so each batch must begin where the
        last one ended (nothing is compacted, logs have no holes). Only the very first may begin
        earlier: a position can be inside a batch.
        """
        end_offset = self.fetch_offset
        is_at_boundary = self._is_at_boundary
        try:
            for header, _ in iterate_batches(chunk):
                begins_right = header.base_offset == end_offset
                if not is_at_boundary:
                    begins_right = header.base_offset <= end_offset < header.next_offset
                if not begins_right or header.last_offset_delta < 0:
                    raise CorruptBatch(
                        0, f"offsets {header.base_offset} to {header.last_offset}, not {end_offset}"
                    )
                end_offset = header.next_offset
                is_at_boundary = True
        except CorruptBatch as error:
            raise CorruptRecords(
                f"{self.topic}-{self.partition} from offset {self.fetch_offset}: {error}"
            ) from error
        if end_offset > self.fetch_offset:
            self.fetch_offset = end_offset
            self._is_at_boundary = is_at_boundary
            self._chunks.append(chunk)

    @property
    def has_unread_chunk(self) -> bool:
        """A whole chunk waits beyond the one that is being read."""
        return bool(self._chunks)

    @property
    def is_drained(self) -> bool:
        return not self._chunks and not self._is_reading and not self._rows

    def take(self, record_count_max: int) -> list[ConsumerRecord]:
        """Up to so many records from the position on; the position moves behind them.

        CorruptRecords when the first record is damaged: those before it are handed out first.
        """
        taken: list[ConsumerRecord] = []
        while len(taken) < record_count_max:
            try:
                if not self._rows and not self._load_rows():
                    break
            except CorruptRecords:
                if taken:
                    break
                raise
            end = self._next_row + record_count_max - len(taken)
            if self._next_row == 0 and end >= len(self._rows):
                rows = self._rows
            else:
                rows = self._rows[self._next_row : end]
            if end >= len(self._rows):
                self._rows = []
                self._next_row = 0
                self.position = self._rows_end
            else:
                self._next_row = end
                self.position = rows[-1].offset + 1
            if taken:
                taken += rows
            else:
                taken = rows
        return taken

    def take_batch(self) -> FetchedBatch | None:
        """The next batch, undecoded. Not to be mixed with `take` in the middle of a batch."""
        while (entry := self._next_batch()) is not None:
            header, data = entry
            start_offset = self.position
            self.position = header.next_offset
            if not header.attributes & CONTROL_BIT:
                return FetchedBatch(self.topic, self.partition, header, data, start_offset)
        return None

    def _load_rows(self) -> bool:
        """Decode the next batch that has records for us; False when there is none."""
        batch = self.take_batch()
        if batch is None:
            return False
        end = self.position
        self.position = batch.start_offset  # until the records are handed out
        try:
            records = batch.records(check_crc=self._check_crcs)
        except CorruptRecords:
            self._forget()
            raise
        rows = list(
            map(
                _make_record,
                zip(
                    repeat(self.topic),
                    repeat(self.partition),
                    records.offsets,
                    records.timestamps_ms,
                    records.keys,
                    records.values,
                    records.headers,
                    repeat(batch.header.leader_epoch),
                    strict=False,
                ),
            )
        )
        if batch.start_offset > batch.header.base_offset:
            rows = rows[bisect_left(records.offsets, batch.start_offset) :]
        self._rows_end = end
        if not rows:
            self.position = end
            return self._load_rows()
        self._rows = rows
        return True

    def _next_batch(self) -> tuple[BatchHeader, memoryview] | None:
        while True:
            for header, data in self._batches:
                if header.next_offset > self.position:
                    return header, data
            self._is_reading = bool(self._chunks)
            if not self._chunks:
                return None
            self._batches = iterate_batches(self._chunks.popleft())

    def _forget(self) -> None:
        """Drop everything held: it is fetched again from the position on."""
        self._chunks.clear()
        self._batches = iter(())
        self._is_reading = False
        self._rows = []
        self._next_row = 0
        self.fetch_offset = self.position
        self._is_at_boundary = False
