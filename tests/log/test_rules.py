"""The rules of durability, one after the other, as the README of `broker/log` numbers them."""

from __future__ import annotations

import errno

import pytest

from broker.log.checkpoint import HIGH_WATERMARK_PATH, LEADER_EPOCH_NAME, RECOVERY_POINT_PATH
from broker.log.partition_log import PartitionLog, SyncRequest
from broker.ports import DiskError
from broker.wire.batch_header import read_header
from broker.wire.record_batch import CorruptBatch
from chaos.sim.disk import SimDisk
from tests.log.logs import (
    DIRECTORY,
    KEY,
    append,
    append_many,
    checkpoint,
    complete,
    create_log,
    headers_of,
    keep_everything,
    keep_nothing,
    make_batch,
    read_all,
    recovered,
    recovered_log,
    stamped,
    sync_all,
)


def in_flight(log: PartitionLog) -> SyncRequest:
    request = log.sync_request()
    assert request is not None
    return request


# --- 1: a sync proves something for its generation only -------------------------------------------


def test_rule_1_an_old_sync_proves_nothing_after_a_cut() -> None:
    """Truncate 100 to 50, append to 80; then the old sync of 100 returns."""
    disk = SimDisk()
    log = create_log(disk, segment_bytes=100_000)
    append_many(log, 100)
    old = in_flight(log)
    log.truncate_to(50)
    append_many(log, 30, leader_epoch=1)
    assert not complete(disk, log, old)
    assert log.synced_end == 0
    assert complete(disk, log, in_flight(log))
    assert log.synced_end == 80


@pytest.mark.parametrize("cut", ["truncate_to", "restart_at"])
def test_rule_1_the_generation_grows_with_each_cut(cut: str) -> None:
    log = create_log(SimDisk())
    append_many(log, 10)
    getattr(log, cut)(4)
    assert log.generation == 1
    getattr(log, cut)(2)
    assert log.generation == 2
    assert not log.on_synced(0, 10)


# --- 2: one sync at a time, and only a sync moves the synced end ----------------------------------


def test_rule_2_what_is_appended_meanwhile_joins_the_next_sync() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 3)
    first = in_flight(log)
    append_many(log, 4)
    assert log.sync_request() is None
    assert log.synced_end == 0
    assert complete(disk, log, first)
    assert log.synced_end == 3
    assert complete(disk, log, in_flight(log))
    assert log.synced_end == 7
    assert log.sync_request() is None


def test_rule_2_a_cut_takes_the_synced_end_with_it() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 10)
    sync_all(disk, log)
    append_many(log, 5)
    log.truncate_to(12)
    assert log.synced_end == 10
    log.truncate_to(7)
    assert (log.synced_end, log.log_end_offset) == (7, 7)


def test_rule_2_an_answer_to_nothing_asked_is_ignored() -> None:
    log = create_log(SimDisk())
    append_many(log, 3)
    assert not log.on_synced(0, 3)
    assert log.synced_end == 0


# --- 3: files in order, then names ----------------------------------------------------------------


def test_rule_3_a_new_segment_counts_after_the_older_one_and_its_own_name() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 5)
    sync_all(disk, log)
    append_many(log, 10)
    request = in_flight(log)
    assert len(log.segments) == 2
    assert request.files == tuple(segment.path for segment in log.segments)
    assert request.directories == (DIRECTORY,)


def test_rule_3_a_new_log_counts_after_the_names_on_the_way_to_it() -> None:
    log = create_log(SimDisk())
    assert in_flight(log).directories == (DIRECTORY, "logs", ".")


# --- 4: nothing counts before it is synced --------------------------------------------------------


@pytest.mark.parametrize(
    ("flush", "before", "after"), [("ack", 0, 5), ("always", 0, 5), ("async", 5, 5)]
)
def test_rule_4_what_counts(flush: str, before: int, after: int) -> None:
    disk = SimDisk()
    log = create_log(disk, flush=flush)
    append_many(log, 5)
    assert log.counted_end == before
    sync_all(disk, log)
    assert log.counted_end == after


def test_async_syncs_only_rolled_segments_cuts_and_for_checkpoints() -> None:
    disk = SimDisk()
    log = create_log(disk, flush="async")
    append_many(log, 3)
    assert log.sync_request() is None
    log.want_sync()
    assert complete(disk, log, in_flight(log))
    append_many(log, 12)
    assert len(log.segments) == 2
    assert complete(disk, log, in_flight(log))
    append_many(log, 1)
    assert log.sync_request() is None
    log.truncate_to(2)
    assert not log.is_open
    assert complete(disk, log, in_flight(log))
    assert log.is_open


# --- 5: derived files before the recovery point, and never believed above it ----------------------


def test_rule_5_the_recovery_point_waits_for_the_derived_files() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 1_000)
    append_many(log, 30)
    sync_all(disk, log)
    first = {request.path: request for request in manager.begin_checkpoint({KEY: 30})}
    assert RECOVERY_POINT_PATH not in first
    assert f"{DIRECTORY}/{LEADER_EPOCH_NAME}" in first
    assert sum(path.endswith(".index") for path in first) == len(log.segments) - 1
    assert log.recovery_point == 0
    second = []
    for path in first:
        assert second == []
        second = manager.on_stored(path)
    assert [request.path for request in second] == [RECOVERY_POINT_PATH]
    assert log.recovery_point == 0
    assert manager.on_stored(RECOVERY_POINT_PATH) == []
    assert log.recovery_point == 30


@pytest.mark.parametrize(
    ("high_watermark", "synced", "recovery_point"), [(5, 10, 5), (10, 10, 10), (30, 10, 10)]
)
def test_rule_5_the_recovery_point_is_synced_and_committed(
    high_watermark: int, synced: int, recovery_point: int
) -> None:
    """Not above the high watermark, else a truncation could reach below it."""
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 1_000)
    append_many(log, synced)
    sync_all(disk, log)
    append_many(log, 25)
    checkpoint(disk, manager, {KEY: high_watermark})
    assert log.recovery_point == recovery_point
    files = disk.files()
    line = f"{KEY[0]} 0 {recovery_point}\n".encode()
    assert files[RECOVERY_POINT_PATH].endswith(line)
    assert files[HIGH_WATERMARK_PATH].endswith(line)


def test_rule_5_derived_files_are_not_believed() -> None:
    """Files as an older life of the log might have left them change nothing."""
    disk = SimDisk()
    log = create_log(disk)
    for leader_epoch in (1, 2):
        append_many(log, 12, leader_epoch)
    expected = read_all(log)
    disk.store(f"{DIRECTORY}/{LEADER_EPOCH_NAME}", b"0\n2\n1 0\n7 3\n")
    for segment in log.segments:
        disk.store(segment.path.replace(".log", ".index"), bytes.fromhex("0000000200000064"))
        disk.store(segment.path.replace(".log", ".timeindex"), b"")
    disk.process_crash()
    log = recovered_log(disk)
    assert log.epochs.entries() == ((1, 0), (2, 12))
    assert read_all(log) == expected
    assert [log.read(at, 1, 24) for at in range(24)] == [
        stamped(expected[position : position + size], at, 1 + at // 12)
        for at, (position, size) in enumerate(places(expected))
    ]


def places(data: bytes) -> list[tuple[int, int]]:
    found, position = [], 0
    for header in headers_of(data):
        found.append((position, header.size_bytes))
        position += header.size_bytes
    return found


# --- 6: a failed append changes nothing; a failed sync is final -----------------------------------


def state_of(log: PartitionLog) -> tuple[object, ...]:
    return (
        log.log_end_offset,
        log.synced_end,
        log.generation,
        log.last_batch_epoch,
        log.epochs.entries(),
        log.producers.entries(),
        read_all(log),
    )


@pytest.mark.parametrize("kind", ["append", "create"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_rule_6_a_failed_append_leaves_no_trace(kind: str, role: str) -> None:
    disk = SimDisk()
    log = create_log(disk, segment_bytes=800)
    for sequence in range(8):
        append(log, make_batch(value=b"x" * 20, producer=(5, 0, sequence)))
    before = state_of(log)
    batch = make_batch(value=b"y" * 20, producer=(5, 0, 8))
    disk.fail_next(kind, error=errno.ENOSPC)
    if kind == "create":
        batch = make_batch(value=b"y" * 400, producer=(5, 0, 8))

    def attempt() -> None:
        if role == "leader":
            append(log, batch, 3)
        else:
            log.append_as_follower(stamped(batch, 8, 3))

    with pytest.raises(DiskError, match=f"{kind} failed") as raised:
        attempt()
    assert raised.value.unchanged
    assert state_of(log) == before
    attempt()
    assert log.log_end_offset == 9
    assert log.last_batch_epoch == 3
    disk.process_crash()
    assert recovered_log(disk).log_end_offset == 9


def test_rule_6_when_the_cut_fails_too_nothing_is_appended_any_more() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 3)
    disk.fail_next("append", cut_back=False)
    with pytest.raises(DiskError) as raised:
        append_many(log, 1)
    assert not raised.value.unchanged
    assert log.log_end_offset == 3
    assert not log.is_open
    with pytest.raises(DiskError, match="failed before"):
        append_many(log, 1)


def test_rule_6_after_a_failed_sync_nothing_counts_any_more() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 3)
    request = in_flight(log)
    log.on_sync_failed()
    assert log.sync_request() is None
    assert not log.on_synced(request.generation, request.end_offset)
    assert log.synced_end == 0
    with pytest.raises(DiskError, match="failed before"):
        append_many(log, 1)


# --- 7: what recovery and followers accept --------------------------------------------------------

FLIPS = [
    pytest.param(7, 0x02, "offset 7 where 5 is expected", id="base offset"),
    pytest.param(15, 0x02, "leader epoch 1 after 3", id="leader epoch"),
    pytest.param(18, 0x80, "checksum", id="checksum"),
    pytest.param(62, 0x01, "checksum", id="records"),
    pytest.param(16, 0x01, "no batch header", id="magic"),
    pytest.param(8, 0x80, "no batch header", id="negative length"),
    pytest.param(8, 0x40, "within a batch", id="length beyond the file"),
]


@pytest.mark.parametrize(("place", "mask", "reason"), FLIPS)
def test_rule_7_a_flipped_bit_ends_the_log_or_is_damage(place: int, mask: int, reason: str) -> None:
    """In the last batch it may be a torn write; with a good batch after it, it is not."""
    for followers in (0, 1):
        disk = SimDisk()
        log = create_log(disk, segment_bytes=10_000)
        append_many(log, 5 + 1 + followers, leader_epoch=3)
        sync_all(disk, log)
        position = log.segments[0].position_of(5)[1]
        disk.corrupt(log.segments[0].path, position + place, mask)
        disk.process_crash()
        manager = recovered(disk)
        if followers:
            assert manager.damaged == (KEY,)
            assert reason in manager.damages[0].reason
            assert manager.damages[0].position == position
            assert manager.damages[0].path.endswith("00000000000000000000.log")
        else:
            assert manager.damages == ()
            recovered_end = manager.all()[0].log_end_offset
            assert recovered_end == 5


def test_rule_7_a_follower_takes_only_what_continues_its_log() -> None:
    log = create_log(SimDisk())
    append_many(log, 5, leader_epoch=3)
    before = read_all(log)
    one, two = make_batch(2), make_batch(1)
    good = stamped(one, 5, 3) + stamped(two, 7, 4)
    for wrong, error in (
        (stamped(one, 6, 3), "offsets 6 to 7 where 5 is next"),
        (stamped(one, 4, 3), "offsets 4 to 5 where 5 is next"),
        (stamped(one, 5, 3) + stamped(two, 8, 3), "where 7 is next"),
        (stamped(one, 5, 2), "leader epoch 2 at offset 5 after 3"),
        (stamped(one, 5, 4) + stamped(two, 7, 3), "leader epoch 3 at offset 7 after 4"),
        (good[:-1] + bytes([good[-1] ^ 1]), "checksum mismatch at offset 7"),
        (good[:-1], "cut short"),
        (good[:50], "cut short"),
        (b"", "cut short"),
    ):
        with pytest.raises(ValueError, match=error):
            log.append_as_follower(wrong)
        assert read_all(log) == before
    assert log.append_as_follower(memoryview(good)) == 8
    assert read_all(log) == before + good
    assert issubclass(CorruptBatch, ValueError)


# --- 8: recovered is not durable ------------------------------------------------------------------


def test_rule_8_what_a_process_crash_left_is_lost_by_the_power_loss_after_it() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 4)
    sync_all(disk, log)
    append_many(log, 20)
    disk.process_crash()
    manager = recovered(disk)
    log = manager.all()[0]
    assert (log.log_end_offset, log.synced_end) == (24, 0)
    disk.power_loss(keep_nothing)
    assert recovered_log(disk).log_end_offset == 4


def test_rule_8_recovery_syncs_all_it_keeps_before_it_counts() -> None:
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 24)
    disk.process_crash()
    manager = recovered(disk)
    requests = manager.recovery_sync_requests()
    assert [log.synced_end for log in manager.all()] == [0]
    for log, request in requests:
        assert set(request.files) == {segment.path for segment in log.segments}
        assert request.directories == (DIRECTORY, "logs", ".")
        assert complete(disk, log, request)
        assert log.synced_end == log.log_end_offset == 24
    disk.power_loss(keep_nothing)
    assert recovered_log(disk).log_end_offset == 24


# --- 9: nobody truncates what is committed --------------------------------------------------------


def test_rule_9_no_truncation_below_the_recovery_point() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 1_000)
    append_many(log, 10)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: 6})
    with pytest.raises(AssertionError, match="truncation to 5 below 6"):
        log.truncate_to(5)
    log.truncate_to(6)
    assert log.log_end_offset == 6


def test_rule_9_async_may_have_to_follow_a_leader_that_lost_its_tail() -> None:
    disk = SimDisk()
    manager = recovered(disk)
    log = manager.create("t", *KEY, "async", 100_000)
    append_many(log, 10)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: 10})
    log.truncate_to(5)
    assert (log.log_end_offset, log.recovery_point) == (5, 5)


# --- 10: torn tail or damage ----------------------------------------------------------------------


def crashed(disk: SimDisk, marks: int, batches: int = 8) -> tuple[str, list[int]]:
    """A synced log of one file, checkpointed up to `marks`; its path and where its batches are."""
    manager = recovered(disk)
    log = manager.create("t", *KEY, "ack", 100_000)
    append_many(log, batches)
    sync_all(disk, log)
    if marks:
        checkpoint(disk, manager, {KEY: marks})
    disk.process_crash()
    path = log.segments[0].path
    return path, [position for position, _ in places(disk.files()[path])]


@pytest.mark.parametrize("tail", ["half a header", "half a batch", "zeros", "random", "text"])
def test_rule_10_a_torn_tail_is_cut(tail: str) -> None:
    disk = SimDisk()
    path, _ = crashed(disk, marks=8)
    good = disk.files()[path]
    batch = stamped(make_batch(5, value=b"z" * 50), 8, 0)
    disk.store(
        path,
        good
        + {
            "half a header": batch[:30],
            "half a batch": batch[:-3],
            "zeros": bytes(5_000),
            "random": bytes((at * 7919) % 251 for at in range(3_000)),
            "text": b"hello " * 100,
        }[tail],
    )
    log = recovered_log(disk)
    assert read_all(log) == good
    assert disk.files()[path] == good


def test_rule_10_below_the_marks_even_the_last_batch_is_damage() -> None:
    for marks, expected in ((7, ()), (8, (KEY,))):
        disk = SimDisk()
        path, positions = crashed(disk, marks)
        disk.store(path, disk.files()[path][: positions[7] + 70])
        manager = recovered(disk)
        assert manager.damaged == expected
        if expected:
            damage = manager.damages[0]
            assert damage.position == positions[7]
            assert damage.reason == "the batch is longer than the file"


@pytest.mark.parametrize(
    ("torn_bytes", "reason"),
    [
        (0, "the log ends at 7 but held 8"),
        (70, "the file ends within a batch, below 8, which was on disk"),
    ],
)
def test_rule_10_the_high_watermark_alone_makes_it_damage(torn_bytes: int, reason: str) -> None:
    disk = SimDisk()
    path, positions = crashed(disk, marks=0)
    disk.store(HIGH_WATERMARK_PATH, f"1\n1\n{KEY[0]} 0 8\n".encode())
    disk.store(path, disk.files()[path][: positions[7] + torn_bytes])
    damage = recovered(disk).damages[0]
    assert damage.reason == reason
    assert damage.position == positions[7]


@pytest.mark.parametrize("moved_bytes", [0, -1, 1, 500])
def test_rule_10_a_good_batch_after_a_bad_one_is_damage_wherever_it_lies(moved_bytes: int) -> None:
    disk = SimDisk()
    path, positions = crashed(disk, marks=2)
    good = disk.files()[path]
    bad = bytes(positions[5] - positions[4] + moved_bytes)
    disk.store(path, good[: positions[4]] + bad + good[positions[6] :])
    manager = recovered(disk)
    damage = manager.damages[0]
    assert damage.position == positions[4]
    assert f"a good batch after it at {positions[4] + len(bad)}" in damage.reason


def test_rule_10_headers_below_the_recovery_point_must_be_whole() -> None:
    disk = SimDisk()
    path, positions = crashed(disk, marks=8)
    disk.corrupt(path, positions[3] + 16, 0xFF)
    damage = recovered(disk).damages[0]
    assert (damage.path, damage.position, damage.reason) == (path, positions[3], "no batch header")


def test_rule_10_a_damaged_log_is_kept_aside_and_begins_anew() -> None:
    disk = SimDisk()
    path, positions = crashed(disk, marks=8)
    disk.corrupt(path, positions[3] + 16, 0xFF)
    damaged = disk.files()[path]
    manager = recovered(disk)
    log = manager.get(*KEY)
    assert log is not None
    assert (log.log_end_offset, log.synced_end, log.recovery_point) == (0, 0, 0)
    assert manager.high_watermark_checkpoint(*KEY) == 0
    assert manager.damages[0].kept_at == f"{DIRECTORY}.damaged.unreported"
    assert disk.files()[path.replace(DIRECTORY, f"{DIRECTORY}.damaged.unreported")] == damaged
    manager.on_damage_reported()
    assert disk.files()[path.replace(DIRECTORY, f"{DIRECTORY}.damaged")] == damaged
    append_many(log, 3)
    sync_all(disk, log)
    checkpoint(disk, manager, {KEY: 3})
    disk.power_loss(keep_nothing)
    assert recovered_log(disk).log_end_offset == 3
    assert disk.exists(f"{DIRECTORY}.damaged")


def test_rule_10_each_damaged_log_has_a_place_of_its_own() -> None:
    disk = SimDisk()
    for number in (1, 2, 3):
        manager = recovered(disk)
        manager.on_damage_reported()
        log = manager.create("t", *KEY, "ack", 1_000)
        append_many(log, 2, leader_epoch=number)
        sync_all(disk, log)
        checkpoint(disk, manager, {KEY: 2})
        disk.process_crash()
        disk.corrupt(log.segments[0].path, 16, 0xFF)
    recovered(disk).on_damage_reported()
    assert disk.list_dir("logs") == (
        DIRECTORY[5:],
        f"{DIRECTORY[5:]}.damaged",
        f"{DIRECTORY[5:]}.damaged.2",
        f"{DIRECTORY[5:]}.damaged.3",
    )


def test_rule_10_damage_is_reported_until_the_controller_knows() -> None:
    """Without a checkpoint the log that begins anew looks as good as any."""
    disk = SimDisk()
    path, positions = crashed(disk, marks=0)
    disk.sync((path,))
    disk.corrupt(path, positions[3] + 16, 0xFF)
    for _ in range(2):
        manager = recovered(disk)
        assert manager.damaged == (KEY,)
        disk.process_crash()
    manager = recovered(disk)
    manager.on_damage_reported()
    log = manager.get(*KEY)
    assert log is not None
    append_many(log, 2)
    sync_all(disk, log)
    disk.power_loss(keep_nothing)
    again = recovered(disk)
    assert again.damaged == (), "what the log holds now was never reported as lost"
    assert disk.exists(f"{DIRECTORY}.damaged")


@pytest.mark.parametrize("gone", ["directory", "segments"])
def test_rule_10_a_log_that_is_gone_is_damaged(gone: str) -> None:
    disk = SimDisk()
    path, _ = crashed(disk, marks=8)
    disk.remove(DIRECTORY if gone == "directory" else path)
    manager = recovered(disk)
    assert manager.damaged == (KEY,)
    assert manager.damages[0].kept_at == ""
    assert manager.high_watermark_checkpoint(*KEY) == 0


def test_rule_10_a_bad_batch_at_the_end_of_an_older_file_is_a_lost_tail() -> None:
    """Files lose their unsynced bytes independently: the newer one may have kept its own."""
    disk = SimDisk()
    log = create_log(disk)
    append_many(log, 30)
    older = log.segments[0]
    disk.power_loss(keep_everything)
    data = disk.files()[older.path]
    disk.store(older.path, data[:-5])
    log = recovered_log(disk)
    assert log.log_end_offset == older.end_offset - 1
    assert not log.is_open
    sync_all(disk, log)
    append_many(log, 30, leader_epoch=2)
    disk.process_crash()
    assert [header.leader_epoch for header in headers_of(read_all(recovered_log(disk)))] == [0] * (
        older.end_offset - 1
    ) + [2] * 30


def test_header_of_a_batch_that_is_read_back_is_the_one_written() -> None:
    log = create_log(SimDisk())
    batch = make_batch(3, producer=(9, 2, 40))
    append(log, batch, leader_epoch=6)
    header = read_header(log.read(0, 1, 3))
    assert header == read_header(batch)._replace(leader_epoch=6)
