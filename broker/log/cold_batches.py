"""Judging batches that have been on disk for long: they must be what was written there.

The checksum covers all of a batch but its base offset and leader epoch; these are known: batches
follow each other without a gap, and the epochs are on record.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from broker.log.leader_epochs import LeaderEpochs
from broker.ports import DiskError
from broker.wire.batch_header import HEADER_BYTES, MAGIC, read_header
from broker.wire.record_batch import verify_crc

CHUNK_BYTES = 1_048_576
"""Read at once; more only if a single batch is longer."""


class ColdRead(NamedTuple):
    """What a walk over batches came to: where the next batch begins, its offset, and what is wrong
    with it ("" if nothing is, or if the walk ended before it)."""

    position: int
    next_offset: int
    problem: str


def walk(data: bytes, next_offset: int, epochs: LeaderEpochs) -> ColdRead:
    """Judge the batches at the beginning of `data`, up to one that is bad or cut short."""
    view = memoryview(data)
    position = 0
    while position + HEADER_BYTES <= len(data):
        header = read_header(data, position)
        end = position + header.size_bytes
        if header.magic != MAGIC or header.size_bytes < HEADER_BYTES:
            return ColdRead(position, next_offset, "no batch header")
        if header.base_offset != next_offset or header.last_offset_delta < 0:
            problem = f"a batch of offset {header.base_offset} where {next_offset} must be"
            return ColdRead(position, next_offset, problem)
        if end > len(data):
            break
        leader_epoch = epochs.epoch_of(next_offset)
        if header.leader_epoch != leader_epoch:
            problem = f"leader epoch {header.leader_epoch} at offset {next_offset}, written in "
            return ColdRead(position, next_offset, f"{problem}{leader_epoch}")
        if not verify_crc(view[position:end]):
            return ColdRead(position, next_offset, f"checksum mismatch at offset {next_offset}")
        position, next_offset = end, header.next_offset
    return ColdRead(position, next_offset, "")


def look(
    read: Callable[[int, int], bytes],
    position: int,
    end_position: int,
    next_offset: int,
    epochs: tuple[tuple[int, int], ...],
) -> ColdRead:
    """Read and judge about a chunk of batches from `position` on, where `next_offset` must be.

    `read(position, size_bytes)` may raise DiskError: what the device cannot read is bad too.
    """
    known = LeaderEpochs(epochs)
    try:
        data = read(position, min(CHUNK_BYTES, end_position - position))
        if len(data) >= HEADER_BYTES:
            size_bytes = read_header(data).size_bytes
            if len(data) < size_bytes <= end_position - position:
                data = read(position, size_bytes)
    except DiskError as error:
        if error.errno != errno.EIO:
            raise
        return ColdRead(position, next_offset, str(error))
    seen = walk(data, next_offset, known)
    if seen.position == 0 and not seen.problem:
        return ColdRead(position, next_offset, "the file ends within a batch")
    return seen._replace(position=position + seen.position)
