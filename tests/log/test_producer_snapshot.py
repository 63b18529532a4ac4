"""Producer snapshots: the file itself, and that recovery with them is recovery without them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.log.log_manager import LogManager
from broker.log.partition_log import PartitionLog
from broker.log.producer_snapshot import SnapshotFile, decode_snapshot, encode_snapshot
from broker.log.producer_state import ProducerBatch, ProducerEntry, ProducerSnapshot
from broker.log.segment import Segment
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    KEY,
    append,
    append_many,
    checkpoint,
    make_batch,
    read_all,
    recovered,
    recovered_log,
    sync_all,
)

INT32_MAX = 2**31 - 1
BATCHES = st.builds(
    ProducerBatch,
    st.integers(0, INT32_MAX),
    st.integers(0, INT32_MAX),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)
ENTRIES = st.builds(
    ProducerEntry, st.integers(0, 32_767), st.lists(BATCHES, min_size=1, max_size=5).map(tuple)
)
IDS = st.integers(0, 2**62)
FILES = st.builds(
    SnapshotFile,
    st.integers(-1, INT32_MAX),
    st.builds(
        ProducerSnapshot,
        st.dictionaries(IDS, ENTRIES, max_size=4),
        st.just({}),
        st.integers(-1, 2**62),
        st.booleans(),
    ),
    st.dictionaries(st.integers(0, 2**62), st.integers(-1, 2**62), max_size=4),
)


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(FILES, st.integers(0, 10_000))
def test_what_is_written_is_read(file: SnapshotFile, idle_ms: int) -> None:
    table = file.producers
    idle = dict.fromkeys(table.entries, idle_ms)
    told = ProducerSnapshot(table.entries, idle, table.forgotten_through, table.is_incomplete)
    file = SnapshotFile(file.leader_epoch, told, file.timestamps_ms)
    assert decode_snapshot(encode_snapshot(file)) == file


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    entry = ProducerEntry(3, tuple(ProducerBatch(at, at, 10 + at, 10 + at) for at in range(5)))
    data = encode_snapshot(SnapshotFile(2, ProducerSnapshot({7: entry}, {7: 5}, 4, False), {0: 9}))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode_snapshot(bytes(flipped)) is None, bit
    for size in range(len(data)):
        assert decode_snapshot(data[:size]) is None, size


# --- in recovery ----------------------------------------------------------------------------------


def snapshot_paths(disk: SimDisk) -> list[str]:
    return [path for path in disk.files() if path.endswith(".snapshot")]


def knowledge(log: PartitionLog) -> tuple[object, ...]:
    """All that a log tells of its content."""
    last_times = [segment.max_timestamp_ms for segment in log.segments]
    ends = [(segment.base_offset, segment.end_offset) for segment in log.segments]
    return (log.producers.entries(), log.epochs.entries(), last_times, ends, read_all(log))


def new_log() -> tuple[SimDisk, LogManager, PartitionLog]:
    disk = SimDisk()
    manager = recovered(disk)
    return disk, manager, manager.create("t", KEY[0], 0, "ack", 1_000)


def restarted(disk: SimDisk, manager: LogManager, log: PartitionLog) -> PartitionLog:
    """The log after a checkpoint of all of it, a crash and a recovery."""
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: log.log_end_offset})
    disk.process_crash()
    return recovered_log(disk)


def log_with_producers(disk: SimDisk, *, high_watermark: int = 80) -> PartitionLog:
    """80 batches of three producers and two leader epochs in many segments."""
    manager = recovered(disk)
    log = manager.create("t", KEY[0], 0, "ack", 1_000)
    for at in range(80):
        producer = (at % 3, 0, at // 3)
        append(log, make_batch(producer=producer, timestamp_ms=1_000 + at), at // 50)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: high_watermark})
    return log


@pytest.mark.parametrize("high_watermark", [0, 1, 17, 18, 40, 79, 80])
def test_recovery_with_snapshots_is_recovery_without(high_watermark: int) -> None:
    disk, bare = SimDisk(), SimDisk()
    expected = knowledge(log_with_producers(disk, high_watermark=high_watermark))
    log_with_producers(bare, high_watermark=high_watermark)
    for path in snapshot_paths(bare):
        bare.remove(path)
    for each in (disk, bare):
        each.process_crash()
        assert knowledge(recovered_log(each)) == expected


def test_below_a_snapshot_only_last_batches_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimDisk()
    log = log_with_producers(disk)
    assert len(snapshot_paths(disk)) == len(log.segments) - 1 > 5
    disk.process_crash()
    noted: list[int] = []
    real = Segment.note

    def counting(segment: Segment, position: int, *rest: int) -> None:
        noted.append(position)
        real(segment, position, *rest)

    monkeypatch.setattr(Segment, "note", counting)
    recovered_log(disk)
    assert len(noted) <= 80 // (len(log.segments) - 1) + 1


@pytest.mark.parametrize("suffix", [".snapshot", ".index", ".timeindex", "checkpoint"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_what_does_not_fit_is_not_believed(suffix: str, damage: str) -> None:
    """Each derived file of each segment in turn."""
    expected = knowledge(log_with_producers(SimDisk()))
    paths = [path for path in _written().files() if path.endswith(suffix) and "logs/" in path]
    assert paths
    for path in paths:
        disk = _written()
        disk.remove(path)
        if damage == "garbage":
            disk.store(path, b"garbage!!")
        disk.process_crash()
        assert knowledge(recovered_log(disk)) == expected, path


def _written() -> SimDisk:
    disk = SimDisk()
    log_with_producers(disk)
    return disk


def test_a_snapshot_of_another_history_is_not_believed() -> None:
    """flush=async may cut below the recovery point: files of what was cut off are still there."""
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", KEY[0], 0, "async", 1_000)
    for at in range(40):
        append(log, make_batch(producer=(5, 0, at)), 0)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: 40})
    bases = [segment.base_offset for segment in log.segments]
    log.truncate_to(bases[1])
    sync_all(disk, log)
    for at in range(40):
        append(log, make_batch(producer=(6, 0, at)), 1)
    assert [segment.base_offset for segment in log.segments][:3] == bases[:3]
    sync_all(disk, log)
    expected = log.producers.entries()
    disk.process_crash()
    assert recovered_log(disk).producers.entries() == expected


def test_the_five_batches_outlive_a_restart() -> None:
    """A retry of an old batch is a duplicate still, not out of order (Kafka keeps one batch)."""
    disk, manager, log = new_log()
    for at in range(5):
        append(log, make_batch(producer=(9, 0, at)))
    before = log.producers.get(9)
    append_many(log, 40)
    log = restarted(disk, manager, log)
    assert log.producers.get(9) == before
    assert before is not None
    assert len(before.batches) == 5


def test_silence_is_counted_over_a_restart() -> None:
    """What was counted before the snapshot counts after it; the time between does not."""
    disk, manager, log = new_log()
    append(log, make_batch(producer=(9, 0, 0)))
    log.producers.age(0, 100)
    log.producers.age(60, 100)
    append_many(log, 40)
    log = restarted(disk, manager, log)
    assert log.producers.age(39, 100) == 0
    assert log.producers.age(1, 100) == 1
    assert log.producers.forgotten_through == 9


def test_forgotten_is_remembered() -> None:
    disk, manager, log = new_log()
    append(log, make_batch(producer=(9, 0, 0)))
    append_many(log, 20)
    log.producers.age(0, 100)
    log.producers.age(100, 100)
    append_many(log, 20)
    log = restarted(disk, manager, log)
    assert log.producers.get(9) is None
    assert log.producers.forgotten_through == 9


def test_a_beginning_above_zero_without_a_snapshot_is_incomplete() -> None:
    """Until we lead and know which ids are certainly new."""
    disk, _, log = new_log()
    append_many(log, 5)
    log.restart_at(100)
    sync_all(disk, log)
    disk.process_crash()
    log = recovered_log(disk)
    assert log.producers.is_incomplete
    log.producers.complete_from(50)
    assert not log.producers.is_incomplete
    assert log.producers.forgotten_through == 49
    log.producers.complete_from(90)
    assert log.producers.forgotten_through == 49


def test_snapshots_are_stored_up_to_the_recovery_point_and_not_above() -> None:
    disk = SimDisk()
    log = log_with_producers(disk, high_watermark=40)
    above = [segment.base_offset for segment in log.segments if segment.base_offset > 40]
    below = [segment.base_offset for segment in log.segments if 0 < segment.base_offset <= 40]
    stored = sorted(int(path.rpartition("/")[2].split(".")[0]) for path in snapshot_paths(disk))
    assert stored == below
    assert above
