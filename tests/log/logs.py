"""Batches and logs for the tests of `broker.log`: short to say, the same every time."""

from __future__ import annotations

import random
from collections.abc import Callable

from broker.log.log_manager import LogManager
from broker.log.partition_log import PartitionLog
from broker.log.sync_state import SyncRequest
from broker.ports import Disk
from broker.wire.batch_header import BatchHeader, prefix, read_header
from broker.wire.record_batch import encode_batch
from chaos.sim.disk import SimDisk

TOPIC_ID = "0123456789abcdef" * 2
DIRECTORY = f"logs/t-0.{TOPIC_ID}"
KEY = (TOPIC_ID, 0)
TIME_MS = 1_700_000_000_000


def make_batch(
    count: int = 1,
    *,
    value: bytes = b"value",
    timestamp_ms: int = TIME_MS,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """A client's batch: `count` records a millisecond apart; `producer` is id, epoch, sequence."""
    records = [(timestamp_ms + at, None, value + b"%d" % at, ()) for at in range(count)]
    producer_id, producer_epoch, base_sequence = producer
    return bytes(
        encode_batch(
            records,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
        )
    )


def stamped(batch: bytes, base_offset: int, leader_epoch: int) -> bytes:
    """The batch as a leader writes it."""
    header = read_header(batch)
    return prefix(base_offset, header.batch_length, leader_epoch) + batch[16:]


def create_log(disk: Disk, **settings: object) -> PartitionLog:
    return PartitionLog.create(
        disk,
        DIRECTORY,
        topic_id=TOPIC_ID,
        name="t",
        partition=0,
        **{"segment_bytes": 1_000, "index_interval_bytes": 200, **settings},  # type: ignore[arg-type]
    )


def append(log: PartitionLog, batch: bytes, leader_epoch: int = 0) -> int:
    return log.append_as_leader(batch, read_header(batch), leader_epoch)


def append_many(log: PartitionLog, count: int, leader_epoch: int = 0, **batch: object) -> None:
    """`count` batches of one record each."""
    for at in range(count):
        append(log, make_batch(value=b"%d/%d/" % (leader_epoch, at), **batch), leader_epoch)  # type: ignore[arg-type]


def read_all(log: PartitionLog) -> bytes:
    """Every byte of the log, through `read`."""
    parts = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        data = log.read(offset, 400, log.log_end_offset)
        parts.append(data)
        offset = headers_of(data)[-1].next_offset
    return b"".join(parts)


def headers_of(data: bytes) -> list[BatchHeader]:
    headers = []
    position = 0
    while position < len(data):
        header = read_header(data, position)
        headers.append(header)
        position += header.size_bytes
    return headers


def complete(disk: SimDisk, log: PartitionLog, request: SyncRequest) -> bool:
    """Sync what was asked for and say so."""
    disk.sync(request.files, request.directories)
    return log.on_synced(request.generation, request.end_offset)


def sync_all(disk: SimDisk, log: PartitionLog) -> None:
    """Sync until nothing is left to sync."""
    while (request := log.sync_request(force=True)) is not None:
        assert complete(disk, log, request)


def recovered(disk: SimDisk) -> LogManager:
    """A manager that has recovered what is on the disk; nothing of it is synced."""
    manager = LogManager(disk, index_interval_bytes=200)
    for _ in manager.recover():
        pass
    for log in manager.all():
        log.configure("ack", 1_000)
    return manager


def recovered_log(disk: SimDisk) -> PartitionLog:
    """The one log on the disk, undamaged."""
    manager = recovered(disk)
    assert manager.damages == ()
    log = manager.get(*KEY)
    assert log is not None
    return log


def drawing(seed: int) -> Callable[[str, int, int], int]:
    generator = random.Random(seed)
    return lambda label, low, high: generator.randint(low, high)


def keep_nothing(label: str, low: int, high: int) -> int:
    """A power loss that forgets all it may."""
    return high if label.startswith("disk: zeros") else low


def keep_everything(label: str, low: int, high: int) -> int:
    return high


def checkpoint(
    disk: SimDisk, manager: LogManager, high_watermarks: dict[tuple[str, int], int]
) -> None:
    """A whole checkpoint, every file durable."""
    waiting = manager.begin_checkpoint(high_watermarks)
    while waiting:
        request = waiting.pop(0)
        disk.store(request.path, request.data)
        waiting += manager.on_stored(request.path)
