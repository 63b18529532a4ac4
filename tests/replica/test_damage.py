"""A log that turns out damaged while in use: told, left by all who count on it, begun anew."""

from __future__ import annotations

from dataclasses import replace

from broker.replica.partition import PartitionRole
from broker.wire.errors import ErrorCode
from broker.wire.messages import BrokerHeartbeatRequest, DamagedReplica
from tests.replica.stage import TOPIC, Stage, batch

HOUR_MS = 3_600_000


def filled(leader: int) -> Stage:
    """Three segments of one committed batch each, of which the first two are cold."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=leader, segment_bytes=1_024)
    for number in range(3):
        if leader == 1:
            stage.produce("v" * 900)
            stage.sync()
            for follower in (2, 3):
                stage.follower_has(follower, number + 1)
        else:
            data = batch("v" * 900, leader_epoch=0, base=number)
            stage.handle(stage.answer_event(data, end=number + 1))
            stage.sync()
    assert len(stage.partition().log.segments) == 3
    return stage


def rot(stage: Stage, segment: int, position: int = 100) -> str:
    path = stage.partition().log.segments[segment].path
    stage.disk.corrupt(path, position, 1)
    return path


def reported(stage: Stage) -> tuple[DamagedReplica, ...]:
    stage.later(200)
    request = stage.sent(BrokerHeartbeatRequest)[-1].body
    assert isinstance(request, BrokerHeartbeatRequest)
    return request.damaged


def test_a_leader_that_reads_damage_says_so_and_sends_none_of_it() -> None:
    stage = filled(leader=1)
    path = rot(stage, 1)
    for offset, error in ((0, ErrorCode.NONE), (1, ErrorCode.CORRUPT_MESSAGE), (2, ErrorCode.NONE)):
        event = stage.fetch_event(-1, offset)
        stage.handle(event)
        answer = stage.fetched(event.correlation_id)
        assert answer is not None
        assert (answer.error, answer.has_batches) == (error, error is ErrorCode.NONE)
    [found] = stage.facts("DamageFound")
    assert (found.details["path"], found.details["position"]) == (path, 0)
    assert reported(stage) == (DamagedReplica(TOPIC, 0, 0),)
    assert stage.partition().role is PartitionRole.LEADER, "until another one is elected"


def test_it_begins_anew_under_the_epoch_in_which_nobody_counted_it() -> None:
    stage = filled(leader=1)
    rot(stage, 0)
    stage.handle(stage.fetch_event(-1, 0))
    stage.change(leader=2, isr=(2, 3))
    assert stage.ends == (0, 0, 0)
    assert stage.last_round[1].parts[0].fetch_offset == 0 or stage.syncs
    stage.sync()
    assert [fact.details["old_end"] for fact in stage.facts("BeganAnew")] == [3]
    assert stage.last_round[1].parts[0].fetch_offset == 0
    assert reported(stage) == ()


def test_what_still_counts_is_kept_and_reported_for_the_new_epoch() -> None:
    stage = filled(leader=2)
    rot(stage, 0)
    scrub(stage)
    assert reported(stage) == (DamagedReplica(TOPIC, 0, 0),)
    stage.change(leader=3, isr=(1, 3))
    assert stage.ends[0] == 3
    assert reported(stage) == (DamagedReplica(TOPIC, 0, 1),)


def test_out_of_the_isr_is_not_enough_while_the_leader_may_take_it_back() -> None:
    """It has counted us in this epoch: its proposal may be under way."""
    stage = filled(leader=2)
    rot(stage, 0)
    scrub(stage)
    stage.change(isr=(2, 3))
    assert stage.ends[0] == 3
    stage.change(leader=3)
    assert stage.ends[0] == 0


def test_nothing_is_dropped_while_there_is_no_leader() -> None:
    stage = filled(leader=2)
    rot(stage, 0)
    scrub(stage)
    stage.change(isr=(2,))
    stage.change(leader=-1)
    assert stage.ends[0] == 3
    stage.change(leader=2)
    assert stage.ends[0] == 0


def test_the_scrubber_reads_cold_segments_and_finds_nothing_in_sound_ones() -> None:
    stage = filled(leader=2)
    scrub(stage)
    assert stage.scrubbed == [segment.path for segment in stage.partition().log.segments[:2]]
    assert reported(stage) == ()


def test_the_last_segment_is_not_cold() -> None:
    stage = filled(leader=2)
    rot(stage, 2)
    scrub(stage)
    assert reported(stage) == ()


def scrub(stage: Stage) -> None:
    """Let a whole pass go by."""
    stage.later(0)
    stage.later(HOUR_MS)
    for _ in range(4):
        stage.later(1_000)


def test_a_batch_of_an_epoch_that_is_yet_to_come_is_damage() -> None:
    """No checksum covers the epoch. The leader cannot tell such a follower where to cut, and as
    leader it could write nothing behind it (simulator, seed 81133)."""
    stage = filled(leader=2)
    file = stage.disk.open(stage.partition().log.segments[2].path)
    stage.disk.sync((file.path,))
    stage.disk.corrupt(file.path, 14, 1)
    stage.disk.process_crash()
    again = Stage(stage.disk, "second")
    again.entries, again.epochs = stage.entries, dict(stage.epochs)
    again.sync()
    again.metadata()
    again.register()
    again.metadata()
    assert again.partition().log.last_batch_epoch == 256
    assert reported(again) == (DamagedReplica(TOPIC, 0, 0),)
    again.metadata(replace(again.changed(isr=(2, 3)), leader_epoch=1))
    assert again.ends[0] == 0
    again.sync()
    assert again.partition().log.is_open
