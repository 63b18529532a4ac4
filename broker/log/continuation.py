"""Whether what a leader sends continues a log: checked before a byte of it is written."""

from __future__ import annotations

from broker.log.errors import LogMismatch
from broker.ports import Buffer
from broker.wire.batch_header import BatchHeader
from broker.wire.record_batch import CorruptBatch, iterate_batches, verify_crc


def check_continuation(
    data: Buffer, directory: str, next_offset: int, leader_epoch: int
) -> list[BatchHeader]:
    """Headers of the whole batches in `data`: the first is of `next_offset`, there is no gap, and
    leader epochs do not go back from `leader_epoch` on. CorruptBatch or LogMismatch otherwise."""
    headers: list[BatchHeader] = []
    size_bytes = 0
    for header, batch in iterate_batches(data):
        if header.base_offset != next_offset or header.last_offset_delta < 0:
            raise LogMismatch(
                f"{directory}: batch of offsets {header.base_offset} to {header.last_offset} "
                f"where {next_offset} is next"
            )
        if header.leader_epoch < leader_epoch:
            raise LogMismatch(
                f"{directory}: leader epoch {header.leader_epoch} at offset {next_offset} "
                f"after {leader_epoch}"
            )
        if not verify_crc(batch):
            raise CorruptBatch(size_bytes, f"checksum mismatch at offset {next_offset}")
        headers.append(header)
        next_offset, leader_epoch = header.next_offset, header.leader_epoch
        size_bytes += header.size_bytes
    if not headers or size_bytes != len(data):
        raise CorruptBatch(size_bytes, "the last batch is cut short")
    return headers
