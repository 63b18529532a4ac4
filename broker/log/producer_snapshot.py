"""What is known below one offset, as a file: what spares recovery the batches there.

    <offset>.snapshot  =  version u8 | CRC-32C u32 of the rest | payload          (big-endian)
    payload            =  msgpack [leader epoch of the batch that ends at the offset,
                                   forgotten_through, is_incomplete, [producer, ...],
                                   [[segment's base offset, its largest timestamp_ms], ...]]
    producer           =  [producer id, producer epoch, idle_ms, [batch, ...]], batches oldest first
    batch              =  [base sequence, last sequence, base offset, last offset]

All five batches are in it, unlike Kafka's: with the last one only, a retry of an older batch would
be refused after a restart although it is in the log.

Derived from the batches, so a file that is broken is not damage: recovery reads more of the log.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import msgpack
from crc32c import crc32c

from broker.log.producer_state import ProducerBatch, ProducerEntry, ProducerSnapshot

SNAPSHOT_SUFFIX = ".snapshot"
VERSION = 1
_HEAD = struct.Struct(">BI")


class SnapshotFile(NamedTuple):
    """`leader_epoch` is that of the batch that ends at the offset: together they name the whole log
    below (log matching). `timestamps_ms`: the largest in each segment, by its base offset."""

    leader_epoch: int
    producers: ProducerSnapshot
    timestamps_ms: Mapping[int, int]


def encode_snapshot(file: SnapshotFile) -> bytes:
    table = file.producers
    producers = [
        (producer_id, entry.producer_epoch, table.idle_ms.get(producer_id, 0), entry.batches)
        for producer_id, entry in sorted(table.entries.items())
    ]
    payload: bytes = msgpack.packb(
        (
            file.leader_epoch,
            table.forgotten_through,
            table.is_incomplete,
            producers,
            sorted(file.timestamps_ms.items()),
        )
    )
    return _HEAD.pack(VERSION, crc32c(payload)) + payload


def decode_snapshot(data: bytes) -> SnapshotFile | None:
    """None for anything but what `encode_snapshot` wrote."""
    if len(data) < _HEAD.size:
        return None
    version, crc = _HEAD.unpack_from(data)
    payload = data[_HEAD.size :]
    if version != VERSION or crc32c(payload) != crc:
        return None
    leader_epoch, forgotten_through, is_incomplete, producers, timestamps_ms = msgpack.unpackb(
        payload
    )
    entries: dict[int, ProducerEntry] = {}
    idle: dict[int, int] = {}
    for producer_id, producer_epoch, idle_ms, batches in producers:
        kept = tuple(ProducerBatch(*batch) for batch in batches)
        entries[producer_id] = ProducerEntry(producer_epoch, kept)
        idle[producer_id] = idle_ms
    table = ProducerSnapshot(entries, idle, forgotten_through, is_incomplete)
    return SnapshotFile(leader_epoch, table, dict(timestamps_ms))
