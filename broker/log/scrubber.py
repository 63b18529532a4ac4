"""What of the cold segments is read next, and how fast: a disk forgets in silence.

Cold: takes no more bytes and is on disk. Device threads read and judge (`cold_batches.look`), a
chunk at a time, one chunk at a time; a pass goes over all logs, then there is a pause.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.log.checkpoint import LogKey
from broker.log.cold_batches import CHUNK_BYTES, ColdRead
from broker.log.log_manager import LogManager
from broker.log.partition_log import PartitionLog
from broker.log.segment import Segment


class ScrubRequest(NamedTuple):
    """Read and judge batches of a file from `position` on, where `next_offset` must be."""

    log: LogKey
    generation: int
    base_offset: int
    path: str
    position: int
    end_position: int
    next_offset: int
    epochs: tuple[tuple[int, int], ...]


class Scrubber:
    """One pass after the other, `interval_ms` apart, at most `bytes_per_second`."""

    def __init__(self, interval_ms: int, bytes_per_second: int) -> None:
        self._interval_ms = interval_ms
        self._bytes_per_second = bytes_per_second
        self._next_ms = 0
        self._is_begun = False
        self._logs: list[LogKey] = []
        """Still to come in this pass, the next one last."""
        self._base_offset = 0
        """Of the first segment of the present log that is still to come."""
        self._place: tuple[str, int, int] | None = None
        """In the middle of a file: (path, position, offset there)."""
        self._in_flight: ScrubRequest | None = None

    def next_deadline_ms(self) -> int | None:
        """When there is something to ask for; None while an answer is awaited."""
        return None if self._in_flight is not None else self._next_ms

    def request(self, logs: LogManager, now_ms: int) -> ScrubRequest | None:
        """What to read now, if anything."""
        if self._in_flight is not None or now_ms < self._next_ms:
            return None
        if not self._is_begun:
            # Not at once after a start: there is enough to do then.
            self._is_begun = True
            self._next_ms = now_ms + self._interval_ms
            return None
        if not self._logs:
            self._logs = [(log.topic_id, log.partition) for log in reversed(logs.all())]
        while self._logs:
            log = logs.get(*self._logs[-1])
            segment = None if log is None else self._cold_segment(log)
            if log is not None and segment is not None:
                self._in_flight = self._request_of(log, segment)
                size_bytes = min(CHUNK_BYTES, segment.size_bytes - self._in_flight.position)
                self._next_ms = now_ms + 1_000 * size_bytes // self._bytes_per_second
                return self._in_flight
            self._logs.pop()
            self._base_offset = 0
            self._place = None
        self._next_ms = now_ms + self._interval_ms
        return None

    def _cold_segment(self, log: PartitionLog) -> Segment | None:
        for segment in log.segments[:-1]:
            if segment.base_offset >= self._base_offset and segment.size_bytes:
                return segment if segment.end_offset <= log.synced_end else None
        return None

    def _request_of(self, log: PartitionLog, segment: Segment) -> ScrubRequest:
        path, position, next_offset = self._place or ("", 0, 0)
        if path != segment.path or position >= segment.size_bytes:
            position, next_offset = 0, segment.base_offset
        return ScrubRequest(
            (log.topic_id, log.partition),
            log.generation,
            segment.base_offset,
            segment.path,
            position,
            segment.size_bytes,
            next_offset,
            log.epochs.entries(),
        )

    def on_read(self, logs: LogManager, seen: ColdRead | None) -> ScrubRequest | None:
        """The answer to the request under way; None if it could not be read now. Returns the
        request if what it asked for is damaged, and still part of the log."""
        request, self._in_flight = self._in_flight, None
        if request is None:
            return None
        if seen is None or seen.problem or seen.position >= request.end_position:
            self._place = None
            self._base_offset = max(self._base_offset, request.base_offset + 1)
        else:
            self._place = (request.path, seen.position, seen.next_offset)
        log = logs.get(*request.log)
        if seen is None or not seen.problem or log is None:
            return None
        is_there = any(segment.path == request.path for segment in log.segments)
        return request if is_there and log.generation == request.generation else None
