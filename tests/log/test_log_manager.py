"""All logs of a data directory: names, settings, checkpoints, removal, files that are not ours."""

from __future__ import annotations

import pytest

from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    RECOVERY_POINT_PATH,
    decode_epochs,
    decode_offsets,
    encode_epochs,
    encode_offsets,
)
from broker.log.errors import CorruptFile, OffsetOutOfRange
from broker.log.log_manager import LogManager, directory_of, parse_directory
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    DIRECTORY,
    KEY,
    TOPIC_ID,
    append_many,
    checkpoint,
    complete,
    create_log,
    keep_nothing,
    make_batch,
    read_all,
    recovered,
    recovered_log,
    stamped,
    sync_all,
)

OTHER_ID = "f" * 32


@pytest.mark.parametrize(
    "name", ["t", "a-b", "a.b", "a-0", "x.damaged", "x-delete", "t-0." + TOPIC_ID, "_", "9"]
)
def test_directory_names_come_back(name: str) -> None:
    """Topic names may hold what our own names use."""
    entry = directory_of(name, TOPIC_ID, 12).removeprefix("logs/")
    assert parse_directory(entry) == (name, 12, TOPIC_ID)
    disk = SimDisk()
    manager = recovered(disk)
    append_many(manager.create(name, TOPIC_ID, 12), 3)
    disk.process_crash()
    log = recovered(disk).get(TOPIC_ID, 12)
    assert log is not None
    assert (log.name, log.partition, log.log_end_offset) == (name, 12, 3)


def test_logs_keep_apart() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    for number, (topic_id, partition) in enumerate(
        [(TOPIC_ID, 0), (TOPIC_ID, 1), (TOPIC_ID, 10), (OTHER_ID, 0)]
    ):
        append_many(manager.create("t", topic_id, partition), number + 1)
    disk.process_crash()
    ends = [(log.topic_id, log.partition, log.log_end_offset) for log in recovered(disk).all()]
    assert ends == [(TOPIC_ID, 0, 1), (TOPIC_ID, 1, 2), (TOPIC_ID, 10, 3), (OTHER_ID, 0, 4)]


def test_creating_a_log_that_exists_gives_it_its_settings() -> None:
    disk = SimDisk()
    append_many(create_log(disk), 2)
    disk.process_crash()
    manager = LogManager(disk)
    list(manager.recover())
    log = manager.create("t", *KEY, "async", 2_000)
    assert (log.log_end_offset, log.flush, log.segment_bytes) == (2, "async", 2_000)
    assert manager.get(*KEY) is log


def test_recovery_yields_between_pieces_of_work() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    for partition in range(5):
        append_many(manager.create("t", TOPIC_ID, partition), 2)
    big = manager.create("big", OTHER_ID, 0)
    for _ in range(10):
        big.append_as_follower(stamped(make_batch(value=b"x" * 1_000_000), big.log_end_offset, 0))
    disk.process_crash()
    # One after each log, and one after each four megabytes of the big one.
    assert len(list(LogManager(disk).recover())) == 6 + 2
    disk = SimDisk()
    append_many(create_log(disk, segment_bytes=10**6), 1_600)
    disk.process_crash()
    assert len(list(LogManager(disk).recover())) == 1 + 3


# --- not ours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        f"{DIRECTORY}/1.log",
        f"{DIRECTORY}/copy of 00000000000000000000.log",
        f"{DIRECTORY}/0000000000000000000x.log",
        "logs/backup/00000000000000000000.log",
        f"logs/t-0.{TOPIC_ID[:-1]}/f",
        f"logs/t-x.{TOPIC_ID}/f",
        f"logs/-0.{TOPIC_ID}/f",
        f"logs/other-0.{TOPIC_ID}/f",
    ],
)
def test_a_file_that_is_not_ours_is_named(path: str) -> None:
    disk = SimDisk()
    append_many(create_log(disk), 2)
    disk.make_dir(path.rpartition("/")[0])
    disk.store(path, b"not ours")
    before = disk.files()
    disk.process_crash()
    with pytest.raises(CorruptFile) as raised:
        recovered(disk)
    assert raised.value.path in (path, path.rpartition("/")[0], DIRECTORY)
    assert raised.value.path in str(raised.value)
    assert disk.files() == before


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x7fELF" + bytes(500)])
def test_a_segment_that_holds_something_else(data: bytes) -> None:
    """Nothing was promised: it is cut like any torn tail. Below the marks it is damage."""
    for marks in (0, 2):
        disk = SimDisk()
        log = create_log(disk)
        append_many(log, 2)
        sync_all(disk, log)
        disk.store(log.segments[0].path, data)
        if marks:
            disk.store(RECOVERY_POINT_PATH, encode_offsets({KEY: 2}))
        disk.process_crash()
        manager = recovered(disk)
        assert manager.damaged == ((KEY,) if marks else ())
        if marks:
            assert manager.damages[0].path == log.segments[0].path
            assert manager.damages[0].position == 0
            assert manager.damages[0].kept_at == f"{DIRECTORY}.damaged.unreported"
        assert manager.all()[0].log_end_offset == 0


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"2\n0\n", 1),
        (b"1\n", 2),
        (b"1\n1\n", 2),
        (b"1\n0\n" + TOPIC_ID.encode() + b" 0 5\n", 2),
        (b"1\n1\n" + TOPIC_ID.encode() + b" 0 5", 2),
        (b"1\n1\n" + TOPIC_ID.encode() + b" 0\n", 3),
        (b"1\n1\n" + TOPIC_ID.encode() + b" 0 -5\n", 3),
        (b"1\n1\n" + TOPIC_ID.encode() + b" 0 \xd9\xa5\n", 3),
        (b"1\n1\nnot-a-topic-id 0 5\n", 3),
        (b"\x00" * 40, 1),
    ],
)
@pytest.mark.parametrize("path", [RECOVERY_POINT_PATH, HIGH_WATERMARK_PATH])
def test_a_broken_checkpoint_is_named_with_its_line(path: str, data: bytes, line: int) -> None:
    disk = SimDisk()
    disk.store(path, data)
    with pytest.raises(CorruptFile) as raised:
        recovered(disk)
    assert (raised.value.path, raised.value.position) == (path, line)


def test_checkpoint_files_come_back() -> None:
    offsets = {(TOPIC_ID, 3): 0, (TOPIC_ID, 10): 2**40, (OTHER_ID, 0): 7}
    assert decode_offsets("p", encode_offsets(offsets)) == offsets
    assert encode_offsets({}) == b"1\n0\n"
    entries = ((0, 0), (7, 2**40))
    assert decode_epochs("p", encode_epochs(entries)) == entries
    assert encode_epochs(entries) == b"0\n2\n0 0\n7 1099511627776\n"


@pytest.mark.parametrize("data", [b"x\n", b"-1\n", b"5\n\n"])
def test_a_broken_log_start_is_named(data: bytes) -> None:
    disk = SimDisk()
    create_log(disk)
    disk.store(f"{DIRECTORY}/log-start-offset", data)
    disk.process_crash()
    with pytest.raises(CorruptFile, match="log-start-offset"):
        recovered(disk)


# --- beginning anew -------------------------------------------------------------------------------


def test_restart_counts_once_the_old_files_are_gone() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 30)
    sync_all(disk, log)
    log.restart_at(1_000)
    assert (log.log_start_offset, log.log_end_offset, log.synced_end) == (1_000, 1_000, 0)
    assert not log.is_open
    request = log.sync_request()
    assert request is not None
    assert complete(disk, log, request)
    assert log.synced_end == 1_000
    assert log.append_as_follower(stamped(make_batch(2), 1_000, 5)) == 1_002
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    log = recovered_log(disk)
    assert (log.log_start_offset, log.log_end_offset) == (1_000, 1_002)
    assert log.epochs.entries() == ((5, 1_000),)
    with pytest.raises(OffsetOutOfRange, match=r"999 is outside \[1000, 1002\]"):
        log.read(999, 1, 1_002)


def test_restart_where_the_log_already_begins() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 5)
    log.restart_at(0)
    assert log.is_open, "one file, cut to nothing, is its own successor"
    append_many(log, 2, leader_epoch=3)
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    assert recovered_log(disk).epochs.entries() == ((3, 0),)


def test_restart_in_a_file_that_was_just_dropped() -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=500)
    append_many(log, 30)
    base_offset = log.segments[1].base_offset
    log.truncate_to(1)
    log.restart_at(base_offset)
    sync_all(disk, log)
    append_many(log, 3, leader_epoch=2)
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    log = recovered_log(disk)
    assert (log.log_start_offset, log.log_end_offset) == (base_offset, base_offset + 3)


def test_an_empty_log_that_begins_above_zero_comes_back() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 5)
    log.restart_at(70)
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    log = recovered_log(disk)
    assert (log.log_start_offset, log.log_end_offset, log.synced_end) == (70, 70, 0)
    sync_all(disk, log)
    assert log.synced_end == 70


# --- what goes ------------------------------------------------------------------------------------


def test_dropped_files_are_handed_out_for_removal_once() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 500)
    append_many(log, 30)
    dropped = [segment.path for segment in log.segments[1:]]
    log.truncate_to(1)
    assert manager.take_removals() == ()
    sync_all(disk, log)
    assert sorted(manager.take_removals()) == [f"{path}.deleted" for path in dropped]
    assert manager.take_removals() == ()
    disk.process_crash()
    manager = recovered(disk)
    removals = manager.take_removals()
    assert list(removals) == [f"{path}.deleted" for path in dropped]
    for path in removals:
        disk.remove(path)
    assert recovered_log(disk).log_end_offset == 1


def test_half_removed_directories_are_handed_out_for_removal() -> None:
    disk = SimDisk()
    disk.make_dir(f"{DIRECTORY}.17-1-delete")
    assert recovered(disk).take_removals() == (f"{DIRECTORY}.17-1-delete",)


def test_a_removed_log_is_forgotten_everywhere() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    for partition in (0, 1):
        log = manager.create("t", TOPIC_ID, partition, "ack", 500)
        append_many(log, 20)
        sync_all(disk, log)
    checkpoint(disk, manager, {(TOPIC_ID, 0): 20, (TOPIC_ID, 1): 20})
    disk.remove(manager.remove(TOPIC_ID, 0))
    assert manager.get(TOPIC_ID, 0) is None
    checkpoint(disk, manager, {(TOPIC_ID, 1): 20})
    disk.process_crash()
    manager = recovered(disk)
    assert manager.damages == ()
    assert [log.partition for log in manager.all()] == [1]
    assert manager.high_watermark_checkpoint(TOPIC_ID, 0) == 0
    assert manager.high_watermark_checkpoint(TOPIC_ID, 1) == 20


# --- checkpoints ----------------------------------------------------------------------------------


def with_batches(disk: SimDisk) -> LogManager:
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 500)
    append_many(log, 20)
    sync_all(disk, log)
    return manager


def test_one_checkpoint_at_a_time() -> None:
    manager = with_batches(SimDisk())
    assert manager.begin_checkpoint({KEY: 20}) != []
    assert manager.begin_checkpoint({KEY: 20}) == []


def test_nothing_new_is_not_stored_again() -> None:
    disk = SimDisk()
    manager = with_batches(disk)
    checkpoint(disk, manager, {KEY: 20})
    assert manager.begin_checkpoint({KEY: 20}) == []
    append_many(manager.all()[0], 1)
    assert manager.begin_checkpoint({KEY: 20}) == []


def test_a_failed_store_ends_the_checkpoint_and_the_next_begins_anew() -> None:
    disk = SimDisk()
    manager = with_batches(disk)
    first = manager.begin_checkpoint({KEY: 20})
    manager.on_store_failed(first[0].path)
    for request in first[1:]:
        assert manager.begin_checkpoint({KEY: 20}) == []
        assert manager.on_stored(request.path) == []
    assert manager.all()[0].recovery_point == 0
    checkpoint(disk, manager, {KEY: 20})
    assert manager.all()[0].recovery_point == 20


def test_a_log_that_was_cut_meanwhile_keeps_its_recovery_point() -> None:
    disk = SimDisk()
    manager = with_batches(disk)
    log = manager.all()[0]
    waiting = manager.begin_checkpoint({KEY: 15})
    log.restart_at(2)
    while waiting:
        request = waiting.pop()
        disk.store(request.path, request.data)
        waiting += manager.on_stored(request.path)
    assert log.recovery_point == 0
    assert disk.files()[RECOVERY_POINT_PATH].endswith(b" 0 0\n")


def test_paths_that_are_not_ours_are_ignored() -> None:
    manager = with_batches(SimDisk())
    assert manager.on_stored("clean-shutdown") == []
    manager.on_store_failed("clean-shutdown")


def test_a_log_without_a_mark_keeps_the_one_it_had() -> None:
    disk = SimDisk()
    manager = with_batches(disk)
    checkpoint(disk, manager, {KEY: 20})
    disk.process_crash()
    manager = recovered(disk)
    sync_all(disk, manager.all()[0])
    checkpoint(disk, manager, {})
    disk.process_crash()
    assert recovered(disk).high_watermark_checkpoint(*KEY) == 20


def test_after_a_checkpoint_recovery_reads_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the recovery point checksums are not computed again."""
    from broker.log import recovery

    disk = SimDisk()
    manager = with_batches(disk)
    log = manager.all()[0]
    checkpoint(disk, manager, {KEY: 20})
    append_many(log, 3)
    expected = read_all(log)
    disk.process_crash()
    checked: list[int] = []
    real_verify = recovery.verify_crc

    def counting(buffer: memoryview) -> bool:
        checked.append(len(buffer))
        return real_verify(buffer)

    monkeypatch.setattr(recovery, "verify_crc", counting)
    assert read_all(recovered_log(disk)) == expected
    assert len(checked) == 3
