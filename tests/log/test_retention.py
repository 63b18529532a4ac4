"""How a log loses its beginning: what may go, and when it does."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from broker.log.log_start import LOG_START_NAME
from broker.log.retention import begins_after, is_too_old
from broker.log.segment import Segment
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    DIRECTORY,
    KEY,
    append,
    append_many,
    complete,
    create_log,
    keep_nothing,
    make_batch,
    read_all,
    recovered,
    recovered_log,
    sync_all,
)

DAY_MS = 86_400_000


class File(NamedTuple):
    """As much of a segment as matters here."""

    base_offset: int
    end_offset: int
    size_bytes: int
    max_timestamp_ms: int


FILES = (File(0, 10, 100, 1_000), File(10, 20, 100, 2_000), File(20, 30, 100, 3_000))


@pytest.mark.parametrize(
    ("wall_ms", "retention_ms", "retention_bytes", "high_watermark", "begins"),
    [
        (9_000, -1, -1, 30, 0),
        (1_999, 1_000, -1, 30, 0),
        (2_000, 1_000, -1, 30, 0),
        (2_001, 1_000, -1, 30, 10),
        (3_001, 1_000, -1, 30, 20),
        (DAY_MS, 1_000, -1, 30, 20),  # the last file takes bytes
        (3_001, 1_000, -1, 19, 10),  # not committed
        (3_001, 1_000, -1, 9, 0),
        (0, -1, 300, 30, 0),
        (0, -1, 201, 30, 0),
        (0, -1, 200, 30, 10),  # Kafka: the oldest goes if the others have enough
        (0, -1, 100, 30, 20),
        (0, -1, 0, 30, 20),
        (2_001, 1_000, 100, 30, 20),
    ],
)
def test_what_may_go(
    wall_ms: int, retention_ms: int, retention_bytes: int, high_watermark: int, begins: int
) -> None:
    files: tuple[Segment, ...] = FILES  # type: ignore[assignment]
    found = begins_after(files, high_watermark, wall_ms, retention_ms, retention_bytes)
    assert found == begins


def test_an_old_file_behind_a_young_one_stays() -> None:
    files = (File(0, 10, 100, 9_000), File(10, 20, 100, 1_000), FILES[2])
    assert begins_after(files, 30, 9_500, 1_000, -1) == 0  # type: ignore[arg-type]


def test_a_file_without_records_is_never_too_old() -> None:
    assert not is_too_old(File(0, 0, 0, -1), DAY_MS, 1)  # type: ignore[arg-type]


# --- the log --------------------------------------------------------------------------------------


def names(disk: SimDisk) -> list[str]:
    return [path.removeprefix(DIRECTORY + "/") for path in disk.files() if path.endswith(".log")]


def test_files_go_when_the_new_beginning_is_on_disk() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=200)
    append_many(log, 6)
    sync_all(disk, log)
    bases = [segment.base_offset for segment in log.segments]
    log.raise_start_to(bases[2])
    assert log.log_start_offset == bases[2]
    assert log.durable_start == 0
    assert len(names(disk)) == len(bases), "not before"
    request = log.sync_request()
    assert request is not None
    assert f"{DIRECTORY}/{LOG_START_NAME}" in request.files
    assert complete(disk, log, request)
    assert log.durable_start == bases[2]
    assert names(disk) == [f"{base:020d}.log" for base in bases[2:]]
    assert f"{DIRECTORY}/{bases[0]:020d}.index" in log.removals


def test_a_sync_that_was_asked_for_before_does_not_let_them_go() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=200)
    append_many(log, 6)
    request = log.sync_request()
    assert request is not None
    log.raise_start_to(log.segments[2].base_offset)
    count = len(names(disk))
    assert complete(disk, log, request)
    assert len(names(disk)) == count
    sync_all(disk, log)
    assert len(names(disk)) < count


def test_it_may_begin_in_the_middle_of_a_file_and_does_so_after_a_start() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=400)
    for _ in range(3):
        append(log, make_batch(4))
    sync_all(disk, log)
    log.raise_start_to(6)
    sync_all(disk, log)
    before = read_all(log)
    disk.power_loss(keep_nothing)
    again = recovered_log(disk)
    assert (again.log_start_offset, again.log_end_offset) == (6, 12)
    assert read_all(again) == before
    with pytest.raises(ValueError, match="outside"):
        again.read(3, 1_000, 12)


def test_all_of_it_may_go() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 3)
    sync_all(disk, log)
    log.raise_start_to(3)
    sync_all(disk, log)
    assert read_all(log) == b""
    append_many(log, 1)
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    assert (recovered_log(disk).log_start_offset, recovered_log(disk).log_end_offset) == (3, 4)


def test_a_full_disk_changes_nothing() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=200)
    append_many(log, 6)
    sync_all(disk, log)
    disk.fail_next("append", path_part=LOG_START_NAME)
    with pytest.raises(Exception, match="append failed") as failure:
        log.raise_start_to(4)
    assert failure.value.unchanged  # type: ignore[attr-defined]
    assert log.log_start_offset == 0
    log.raise_start_to(4)
    assert log.log_start_offset == 4


def test_epochs_that_are_gone_are_forgotten() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=100)
    for leader_epoch in range(5):
        append_many(log, 2, leader_epoch)
    assert len(log.epochs.entries()) == 5
    log.raise_start_to(7)
    first = log.segments[0].base_offset
    assert log.epochs.epoch_of(first) == log.epochs.entries()[0][0]
    assert len(log.epochs.entries()) == 2


def test_nothing_begins_behind_the_end_nor_earlier_than_it_did() -> None:
    log = create_log(SimDisk())
    append_many(log, 3)
    log.raise_start_to(2)
    log.raise_start_to(1)
    assert log.log_start_offset == 2
    with pytest.raises(AssertionError):
        log.raise_start_to(4)


def test_a_file_that_is_old_enough_takes_no_more_records() -> None:
    log = create_log(SimDisk(), segment_bytes=10_000)
    log.configure("ack", 10_000, 1_000)
    for timestamp_ms in (5_000, 6_000, 5_500, 6_001, 6_500, 7_002):
        append(log, make_batch(timestamp_ms=timestamp_ms))
    assert [segment.base_offset for segment in log.segments] == [0, 3, 5]


def test_a_recovered_log_knows_how_old_its_last_file_is() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=10_000)
    append(log, make_batch(timestamp_ms=5_000))
    sync_all(disk, log)
    again = recovered(disk).get(*KEY)
    assert again is not None
    sync_all(disk, again)
    again.configure("ack", 10_000, 1_000)
    append(again, make_batch(timestamp_ms=6_001))
    assert [segment.base_offset for segment in again.segments] == [0, 1]
