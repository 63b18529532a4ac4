"""Offset and time indexes: lookups, files, and that a wrong file never misleads."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.log.offset_index import OffsetIndex
from broker.log.partition_log import PartitionLog
from broker.log.time_index import TimeIndex
from broker.ports import DiskError
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    KEY,
    TIME_MS,
    append,
    append_many,
    checkpoint,
    create_log,
    headers_of,
    make_batch,
    read_all,
    recovered,
    recovered_log,
    sync_all,
)

ascending = st.lists(st.integers(1, 2**31 - 1), unique=True, max_size=20).map(sorted)


@settings(deadline=None, derandomize=True, database=None)
@given(ascending, ascending, st.integers(0, 2**40))
def test_offset_index_survives_its_file(
    offsets: list[int], positions: list[int], base_offset: int
) -> None:
    index = OffsetIndex(base_offset)
    for offset, position in zip(offsets, positions, strict=False):
        index.add(base_offset + offset, position)
    again = OffsetIndex.decode(base_offset, index.encode(), 2**31)
    assert again is not None
    assert again.encode() == index.encode()
    for offset, position in zip(offsets, positions, strict=False):
        assert again.floor(base_offset + offset) == (base_offset + offset, position)
        assert again.floor_of_position(position) == (base_offset + offset, position)
    assert again.floor(base_offset) == (base_offset, 0)


def test_offset_index_file_is_as_kafka_writes_it() -> None:
    index = OffsetIndex(1_000)
    index.add(1_005, 4_200)
    index.add(1_300, 70_000)
    assert index.encode().hex() == "0000000500001068" + "0000012c00011170"


def test_time_index_file_is_as_kafka_writes_it() -> None:
    index = TimeIndex(1_000)
    index.maybe_add(0x0102030405060708, 1_003)
    assert index.encode().hex() == "0102030405060708" + "00000003"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("0000000500001068ff", id="half an entry"),
        pytest.param("00000005000010680000000500002000", id="offsets stand still"),
        pytest.param("00000005000010680000000600001000", id="positions go back"),
        pytest.param("0000000500200000", id="beyond the segment"),
        pytest.param("ffffffff00001068", id="before the segment"),
        pytest.param("0000000000000000", id="zeros, as of a file sized in advance"),
    ],
)
def test_a_broken_offset_index_is_refused(data: str) -> None:
    assert OffsetIndex.decode(1_000, bytes.fromhex(data), 100_000) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("0102030405060708000000", id="half an entry"),
        pytest.param("000000000000000500000003000000000000000500000004", id="time stands"),
        pytest.param("000000000000000500000003000000000000000600000003", id="offset stands"),
        pytest.param("000000000000000500000064", id="beyond the segment"),
        pytest.param("0000000000000005ffffffff", id="before the segment"),
    ],
)
def test_a_broken_time_index_is_refused(data: str) -> None:
    assert TimeIndex.decode(1_000, bytes.fromhex(data), 1_100) is None


# --- in a log -------------------------------------------------------------------------------------


def stored_log(disk: SimDisk) -> PartitionLog:
    """A log of several segments, checkpointed up to its end and recovered: indexes are files."""
    manager = recovered(disk)
    log = manager.create("t", KEY[0], 0, "ack", 1_000)
    append_many(log, 60)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: log.log_end_offset})
    disk.process_crash()
    return recovered_log(disk)


def index_paths(disk: SimDisk, suffix: str) -> list[str]:
    return [path for path in disk.files() if path.endswith(suffix)]


def reads(log: PartitionLog) -> list[bytes]:
    """The batch of every offset, and everything in pieces."""
    end = log.log_end_offset
    return [*(log.read(offset, 1, end) for offset in range(end)), read_all(log)]


def test_index_files_are_written_for_rolled_segments_and_used() -> None:
    disk = SimDisk()
    log = stored_log(disk)
    assert len(index_paths(disk, ".index")) == len(log.segments) - 1 > 3
    expected = read_all(log)
    for segment in log.segments[:-1]:
        assert segment.indexes_stored
    assert all(data for path, data in disk.files().items() if path.endswith(".index"))
    assert read_all(log) == expected


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "other segment's", "shifted"])
def test_a_wrong_index_file_never_misleads(suffix: str, damage: str) -> None:
    good = stored_log(SimDisk())
    expected = reads(good)
    times = [good.offset_for_timestamp(TIME_MS + at, 60) for at in range(-1, 3)]
    disk = SimDisk()
    stored_log(disk)
    files = disk.files()
    paths = index_paths(disk, suffix)
    for path, other in zip(paths, paths[1:] + paths[:1], strict=True):
        data = {
            "empty": b"",
            "garbage": bytes(range(1, 25)),
            "other segment's": files[other],
            "shifted": bytes(
                byte ^ (at % 8 == 7 and suffix == ".index") for at, byte in enumerate(files[path])
            ),
        }
        disk.remove(path)
        if damage != "missing":
            disk.store(path, data[damage])
    disk.process_crash()
    log = recovered_log(disk)
    assert read_all(log) == expected[-1]
    assert reads(log) == expected
    assert [log.offset_for_timestamp(TIME_MS + at, 60) for at in range(-1, 3)] == times


def test_a_segment_that_was_cut_takes_no_more() -> None:
    """Neither after a truncation nor after an append that failed: see the top of `segment`."""
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 5)
    log.truncate_to(3)
    append_many(log, 2)
    sync_all(disk, log)
    disk.fail_next("append")
    with pytest.raises(DiskError):
        append_many(log, 1)
    append_many(log, 1)
    assert [segment.base_offset for segment in log.segments] == [0, 3, 5]
    sync_all(disk, log)
    # Cut to nothing it is as good as new.
    log.truncate_to(5)
    append_many(log, 1)
    assert [segment.base_offset for segment in log.segments] == [0, 3, 5]


def test_after_a_cut_old_index_files_do_not_mislead() -> None:
    disk = SimDisk()
    log = stored_log(disk)
    cut_at = log.segments[-2].base_offset + 2
    log.recovery_point = 0
    log.truncate_to(cut_at)
    sync_all(disk, log)
    append_many(log, 40, leader_epoch=1)
    assert [header.base_offset for header in headers_of(read_all(log))] == list(range(cut_at + 40))
    assert len(reads(log)) == cut_at + 41


# --- by time --------------------------------------------------------------------------------------


def test_first_record_at_or_after_a_time() -> None:
    log = create_log(SimDisk())
    for at in range(40):
        append(log, make_batch(3, timestamp_ms=TIME_MS + at * 10))
    for at in (0, 5, 6, 137, 390, 391, 392):
        found = log.offset_for_timestamp(TIME_MS + at, log.log_end_offset)
        batch, rest = divmod(at, 10)
        expected = (batch, rest) if rest <= 2 else (batch + 1, 0)
        assert found == (TIME_MS + expected[0] * 10 + expected[1], expected[0] * 3 + expected[1])
    assert log.offset_for_timestamp(TIME_MS + 393, log.log_end_offset) is None
    assert log.offset_for_timestamp(0, log.log_end_offset) == (TIME_MS, 0)


def test_only_whole_batches_below_the_end_count() -> None:
    log = create_log(SimDisk())
    for at in range(10):
        append(log, make_batch(3, timestamp_ms=TIME_MS + at * 10))
    assert log.offset_for_timestamp(TIME_MS + 50, 18) == (TIME_MS + 50, 15)
    assert log.offset_for_timestamp(TIME_MS + 50, 17) is None
    assert log.offset_for_timestamp(TIME_MS, 0) is None


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(-1, 32))
def test_times_in_any_order(times: list[int], target: int) -> None:
    log = create_log(SimDisk(), segment_bytes=400, index_interval_bytes=100)
    for time in times:
        append(log, make_batch(timestamp_ms=TIME_MS + time))
    expected = next(
        ((TIME_MS + time, offset) for offset, time in enumerate(times) if time >= target), None
    )
    assert log.offset_for_timestamp(TIME_MS + target, log.log_end_offset) == expected
