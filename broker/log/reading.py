"""Finding and reading batches in the segments of one log, which are given in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from broker.log.cold_batches import walk
from broker.log.errors import CorruptFile
from broker.log.leader_epochs import LeaderEpochs
from broker.log.segment import Segment
from broker.wire.batch_header import BatchHeader
from broker.wire.record_batch import decode_batch

Segments = Sequence[Segment]


def slot_of(segments: Segments, offset: int) -> int:
    """The last segment that begins at or below `offset`."""
    if offset >= segments[-1].base_offset:
        return len(segments) - 1
    return bisect_right(segments, offset, key=lambda segment: segment.base_offset) - 1


def read_batches(
    segments: Segments, epochs: LeaderEpochs, offset: int, max_bytes: int, end_offset: int
) -> bytes:
    """Whole batches of one segment from the one that holds `offset` (which must be there), all
    below `end_offset`, at least one if there is one. CorruptFile where a file is damaged."""
    segment = segments[slot_of(segments, offset)]
    base_offset, position = segment.position_of(offset)
    end = segment.end_of_read(position, max_bytes, end_offset)
    if end <= position:
        return b""
    data = segment.file.read(position, end - position)
    if segment is not segments[-1]:
        # Written long ago: nobody but the disk vouches for it.
        seen = walk(data, base_offset, epochs)
        if seen.position < len(data):
            problem = seen.problem or "the file ends within a batch"
            raise CorruptFile(segment.path, position + seen.position, problem)
    return data


def size_between(segments: Segments, offset: int, end_offset: int) -> int:
    """Bytes of the batches from the one that holds `offset` up to `end_offset`."""
    if offset >= end_offset:
        return 0
    first, last = slot_of(segments, offset), slot_of(segments, end_offset - 1)
    size_bytes = sum(segment.size_bytes for segment in segments[first:last])
    size_bytes -= segments[first].position_of(offset)[1]
    return size_bytes + segments[last].end_position_of(end_offset)


def offset_for_timestamp(
    segments: Segments, timestamp_ms: int, start_offset: int, end_offset: int
) -> tuple[int, int] | None:
    """(timestamp, offset) of the first record of [start_offset, end_offset) at or after a time."""
    for segment in segments:
        if segment.max_timestamp_ms < timestamp_ms or not segment.size_bytes:
            continue
        position = segment.position_of(segment.floor_of_time(timestamp_ms))[1]
        for place, header in segment.headers(position, segment.size_bytes):
            if header.next_offset > end_offset:
                return None
            if header.max_timestamp_ms < timestamp_ms:
                continue
            records = decode_batch(segment.file.read(place, header.size_bytes))
            for offset, made_ms in zip(records.offsets, records.timestamps_ms, strict=True):
                if made_ms >= timestamp_ms and offset >= start_offset:
                    return made_ms, offset
    return None


def headers(segments: Segments, offset: int, end_offset: int) -> Iterator[BatchHeader]:
    """Headers of the batches from the one that holds `offset` up to `end_offset`."""
    while offset < end_offset:
        segment = segments[slot_of(segments, offset)]
        position = segment.position_of(offset)[1]
        for _, header in segment.headers(position, segment.end_position_of(end_offset)):
            yield header
            offset = header.next_offset
        if offset < segment.end_offset:
            return
