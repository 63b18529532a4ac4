"""Segment files batch by batch, judged as they are read. Nothing is written, nothing is locked.

Reads a log of a stopped node, or of a running one, whose last batch may be half written. What is
wrong is a `Damage` with file and position, and reading goes on where a next batch can be found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from broker.wire.batch_header import (
    HEADER_BYTES,
    LOG_OVERHEAD_BYTES,
    MAGIC,
    MAGIC_POSITION,
    BatchHeader,
    read_header,
)
from broker.wire.record_batch import CorruptBatch, check_batch

BUFFER_BYTES = 1 << 20
BATCH_BYTES_MAX = 1 << 30
SEARCH_BYTES_MAX = 256 << 20


class StoredBatch(NamedTuple):
    """A batch whose layout, checksum and place in the log are right."""

    file: Path
    position: int
    header: BatchHeader
    data: bytes


class Damage(NamedTuple):
    """Bytes that are not what the log must hold there."""

    file: Path
    position: int
    offset: int
    """The offset that was expected there."""
    reason: str
    is_tail: bool
    """What a crash may leave of bytes that were not yet synced: nothing readable follows in the
    last segment, or two segments do not meet."""

    def __str__(self) -> str:
        return f"{self.file} at byte {self.position} (offset {self.offset}): {self.reason}"


@dataclass(slots=True)
class _Walk:
    """Where the reading of one log stands."""

    next_offset: int
    leader_epoch: int = -1


def walk_log(segments: Sequence[Path]) -> Iterator[StoredBatch | Damage]:
    """All batches of a log, given its segment files in the order of their names."""
    if not segments:
        return
    walk = _Walk(int(segments[0].stem))
    for number, path in enumerate(segments):
        base_offset = int(path.stem)
        if base_offset != walk.next_offset:
            if not path.stat().st_size:
                continue
            reason = f"begins at {base_offset}, but the segments before end at {walk.next_offset}"
            yield Damage(path, 0, min(base_offset, walk.next_offset), reason, True)
            walk.next_offset = base_offset
        yield from _walk_segment(path, walk, is_last=number == len(segments) - 1)


def _walk_segment(path: Path, walk: _Walk, *, is_last: bool) -> Iterator[StoredBatch | Damage]:
    with path.open("rb", buffering=BUFFER_BYTES) as file:
        position = 0
        while True:
            file.seek(position)
            head = file.read(HEADER_BYTES)
            if not head:
                return
            data, reason = _read_batch(file, head)
            if not reason:
                reason = _judge(data, walk)
            if not reason:
                header = read_header(data)
                yield StoredBatch(path, position, header, data)
                walk.next_offset = header.next_offset
                walk.leader_epoch = header.leader_epoch
                position += len(data)
                continue
            found = _find_batch(file, position + 1, walk.next_offset)
            is_tail = is_last and found is None
            yield Damage(path, position, walk.next_offset, reason, is_tail)
            if found is None:
                return
            position, walk.next_offset = found
            walk.leader_epoch = -1


def _read_batch(file: BinaryIO, head: bytes) -> tuple[bytes, str]:
    """(bytes, "") of the batch that begins with `head`, or (b"", why there is none)."""
    if len(head) < HEADER_BYTES:
        return b"", f"{len(head)} bytes are no batch header"
    header = read_header(head)
    if header.magic != MAGIC:
        return b"", f"no batch: magic byte {header.magic}"
    if not HEADER_BYTES <= header.size_bytes <= BATCH_BYTES_MAX:
        return b"", f"no batch: length {header.batch_length}"
    body = file.read(header.size_bytes - HEADER_BYTES)
    if len(body) < header.size_bytes - HEADER_BYTES:
        return b"", f"the file ends within a batch of {header.size_bytes} bytes"
    return head + body, ""


def _judge(data: bytes, walk: _Walk) -> str:
    """What is wrong with a batch at this place; empty if nothing is."""
    try:
        header = check_batch(data)
    except CorruptBatch as error:
        return str(error)
    if header.base_offset != walk.next_offset:
        return f"base offset {header.base_offset} instead of {walk.next_offset}"
    if header.leader_epoch < walk.leader_epoch:
        return f"leader epoch {header.leader_epoch} after {walk.leader_epoch}"
    return ""


def _find_batch(file: BinaryIO, position: int, offset: int) -> tuple[int, int] | None:
    """(position, base offset) of the next good batch of `offset` or later; None without one."""
    file.seek(position)
    rest = file.read(SEARCH_BYTES_MAX)
    at = rest.find(MAGIC, MAGIC_POSITION)
    while at >= 0:
        start = at - MAGIC_POSITION
        if len(rest) - start < HEADER_BYTES:
            return None
        header = read_header(rest, start)
        end = start + header.batch_length + LOG_OVERHEAD_BYTES
        if header.base_offset >= offset and start + HEADER_BYTES <= end <= len(rest):
            with suppress(CorruptBatch):
                check_batch(memoryview(rest)[start:end])
                return position + start, header.base_offset
        at = rest.find(MAGIC, at + 1)
    return None
