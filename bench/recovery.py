"""How long recovery takes: many partitions, of which a crash or a clean stop left so much.

    .venv/bin/python bench/recovery.py [partitions, default 100] [MiB a partition, default 10]

Writes the logs of a data directory under .prozess (two segments each, batches of 64 KiB, eight
producers), then recovers them in this process from the files alone: after a clean stop, after a
crash with the second segment behind the recovery point, and after the same without the producer
snapshots. The files are in the page cache. What is kept is removed at the end.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from broker.events import Store
from broker.log.log_manager import LogManager
from broker.runtime.disk import RealDisk
from broker.wire.batch_header import read_header
from broker.wire.record_batch import encode_batch

ROOT = Path(".prozess/bench-recovery")
MIB = 1_048_576
BATCH_BYTES = 65_536
PRODUCERS = 8
FIRST_SEGMENT = 0.5


def batches(count: int) -> Iterator[bytes]:
    value = bytes(100)
    records = [(1_700_000_000_000, None, value, ()) for _ in range(BATCH_BYTES // 110)]
    for number in range(count):
        producer_id, turn = number % PRODUCERS, number // PRODUCERS
        yield bytes(
            encode_batch(
                records,
                producer_id=producer_id,
                producer_epoch=0,
                base_sequence=turn * len(records),
            )
        )


def store(disk: RealDisk, manager: LogManager, marks: dict[tuple[str, int], int]) -> None:
    """A whole checkpoint."""
    waiting = manager.begin_checkpoint(marks)
    while waiting:
        following = []
        for request in waiting:
            disk.prepare(Store(request.path, 0, request.data)).run()
            following += manager.on_stored(request.path)
        waiting = following


def write(partitions: int, mib: int, *, crashed: bool) -> None:
    """The logs, synced; with `crashed` the recovery point is where the second segment begins."""
    ROOT.mkdir(parents=True)
    disk = RealDisk(ROOT)
    manager = LogManager(disk)
    for _ in manager.recover():
        pass
    content = list(batches(mib * MIB // BATCH_BYTES))
    marks = {}
    for number in range(partitions):
        log = manager.create("t", f"{number:032x}", 0, "ack", int(mib * MIB * FIRST_SEGMENT))
        for batch in content:
            log.append_as_leader(batch, read_header(batch), 0)
        request = log.sync_request(force=True)
        assert request is not None
        log.on_synced(request.generation, request.end_offset)
        end = log.segments[-1].base_offset if crashed else log.log_end_offset
        marks[log.topic_id, 0] = end
    store(disk, manager, marks)
    disk.close()


def recover() -> float:
    """Seconds until every log is there (its sync comes on top, and is the device's)."""
    began_s = time.perf_counter()
    disk = RealDisk(ROOT)
    manager = LogManager(disk)
    for _ in manager.recover():
        pass
    assert not manager.damages
    disk.close()
    return time.perf_counter() - began_s


def measure(what: str, partitions: int, mib: int, *, crashed: bool, snapshots: bool = True) -> None:
    write(partitions, mib, crashed=crashed)
    if not snapshots:
        for path in ROOT.rglob("*.snapshot"):
            path.unlink()
    seconds = min(recover() for _ in range(3))
    print(f"{what:<32} {seconds:7.3f} s  {1_000 * seconds / partitions:7.3f} ms a partition")
    shutil.rmtree(ROOT)


def main() -> None:
    partitions = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    mib = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    shutil.rmtree(ROOT, ignore_errors=True)
    print(f"{partitions} partitions of {mib} MiB in two segments")
    measure("after a clean stop", partitions, mib, crashed=False)
    measure("the same without snapshots", partitions, mib, crashed=False, snapshots=False)
    measure("after a crash", partitions, mib, crashed=True)
    measure("the same without snapshots", partitions, mib, crashed=True, snapshots=False)


if __name__ == "__main__":
    main()
