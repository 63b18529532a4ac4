"""All replicas of one broker, seen from outside: what it sends, syncs, answers and removes."""

from __future__ import annotations

import pytest

from broker.events import Answered, Fact, Plane, Remove, ResetLink, Sync, Synced, SyncToken, Unsent
from broker.quorum.records import TopicDeleted
from broker.replica.partition import PartitionRole
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AlterPartitionRequest,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    IsrMember,
)
from tests.replica.stage import OTHER_TOPIC, TOPIC, VOTER, Stage, batch


def following(**topic: int) -> Stage:
    """Node 1 follows node 2; nothing is in the log."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=2, **topic)
    stage.sync()
    return stage


def leading(**topic: int) -> Stage:
    """Node 1 leads; nothing is in the log."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, **topic)
    stage.sync()
    return stage


def fill(stage: Stage, *, epoch: int = 0, base: int = 0, mark: int = 0, leader: int = 2) -> None:
    """The leader's answer brings one record of `epoch` at `base`."""
    data = batch("x", leader_epoch=epoch, base=base)
    stage.handle(
        stage.answer_event(
            data, leader=leader, leader_epoch=epoch, high_watermark=mark, end=base + 1
        )
    )


# -- rounds ----------------------------------------------------------------------------------------


def test_a_round_names_log_end_counted_end_and_the_epoch_of_the_last_batch() -> None:
    stage = following()
    fill(stage)
    stage.sync()
    part = stage.last_round[1].parts[0]
    assert (part.fetch_offset, part.synced_end, part.last_fetched_epoch) == (1, 1, 0)
    assert stage.last_round[1].broker_epoch == stage.epochs[1]


def test_the_next_round_waits_for_the_sync_of_what_the_last_one_brought() -> None:
    stage = following()
    before = stage.rounds_sent()
    fill(stage)
    assert stage.rounds_sent() == before, "nothing new could be counted yet"
    stage.sync()
    assert stage.rounds_sent() == before + 1
    assert stage.last_round[1].parts[0].synced_end == 1


def test_a_slow_sync_does_not_hold_up_the_link_and_its_end_replaces_the_round() -> None:
    stage = following()
    before = stage.rounds_sent()
    fill(stage)
    stage.later(49)
    assert stage.rounds_sent() == before
    stage.later(1)
    assert stage.rounds_sent() == before + 1
    assert stage.last_round[1].parts[0].synced_end == 0
    older = stage.last_round
    stage.sync()
    assert stage.rounds_sent() == before + 2, "acks must not wait out the long poll"
    assert stage.last_round[1].parts[0].synced_end == 1
    assert stage.last_round[1].fetch_round == older[1].fetch_round + 1
    stage.handle(
        stage.answer_event(
            batch("y", leader_epoch=0, base=1), correlation_id=older[0], high_watermark=1, end=2
        )
    )
    assert stage.ends == (1, 1, 0), "the answer to a round that was replaced changes nothing"


def test_a_patience_that_ran_out_once_is_had_anew_for_the_next_batch() -> None:
    stage = following()
    fill(stage)
    stage.later(60)
    sent = stage.rounds_sent()
    fill(stage, base=1)
    assert stage.rounds_sent() == sent, "the second batch has its own time to get synced"


def test_no_answer_replaces_the_connection_and_asks_again() -> None:
    stage = following()
    before, resets = stage.rounds_sent(), stage.resets
    stage.later(1_499)
    assert (stage.rounds_sent(), stage.resets) == (before, resets)
    effects = stage.later(1)
    assert (stage.rounds_sent(), stage.resets) == (before + 1, resets + 1)
    reset, round_ = ResetLink(2, Plane.BROKER), stage.sent(FetchRequest)[-1]
    assert effects.index(reset) < effects.index(round_), "the old connection is closed first"


def test_a_round_that_did_not_leave_is_tried_again_after_a_pause() -> None:
    stage = following()
    before = stage.rounds_sent()
    stage.handle(Unsent(2, Plane.BROKER, stage.last_round[0]))
    stage.later(99)
    assert stage.rounds_sent() == before
    stage.later(1)
    assert stage.rounds_sent() == before + 1


@pytest.mark.parametrize(
    ("error", "waits_ms"),
    [
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, 100),
        (ErrorCode.UNKNOWN_LEADER_EPOCH, 100),
        (ErrorCode.UNKNOWN_TOPIC_ID, 100),
        (ErrorCode.STALE_BROKER_EPOCH, 100),
        (ErrorCode.STORAGE_ERROR, 100),
    ],
)
def test_a_refused_partition_backs_off(error: ErrorCode, waits_ms: int) -> None:
    stage = following()
    before = stage.rounds_sent()
    stage.handle(stage.answer_event(error=error))
    stage.later(waits_ms - 1)
    assert stage.rounds_sent() == before
    stage.later(1)
    assert stage.rounds_sent() == before + 1


def test_a_fenced_follower_waits_for_metadata_and_nothing_else() -> None:
    stage = following()
    before = stage.rounds_sent()
    stage.handle(stage.answer_event(error=ErrorCode.FENCED_LEADER_EPOCH, leader_epoch=1))
    stage.later(5_000)
    assert stage.rounds_sent() == before
    stage.change(leader=3)
    assert stage.rounds_sent() == before + 1
    assert stage.last_round[1].parts[0].leader_epoch == 1


def test_a_new_epoch_of_the_same_leader_is_asked_for_anew() -> None:
    """The leader's history may be another one now: what was asked before does not count."""
    stage = following()
    asked = stage.last_round
    stage.metadata(stage.changed(leader=-1))
    stage.metadata(stage.changed(leader=2))
    late = stage.answer_event(
        batch("old", leader_epoch=0, base=0), correlation_id=asked[0], end=1, high_watermark=1
    )
    stage.handle(late)
    assert stage.ends == (0, 0, 0)


def test_an_answer_from_before_a_change_of_leader_is_ignored() -> None:
    stage = following()
    late = stage.answer_event(batch("old", leader_epoch=0, base=0), end=1, high_watermark=1)
    stage.change(leader=3)
    stage.handle(late)
    assert stage.ends == (0, 0, 0)


def test_an_answer_that_names_a_partition_twice_is_taken_once() -> None:
    stage = following()
    event = stage.answer_event(error=ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert isinstance(event.body, FetchResponse)
    part: FetchPartResult = event.body.parts[0]
    twice = FetchResponse(event.body.fetch_round, 1, (part, part))
    stage.handle(Answered(2, Plane.BROKER, event.correlation_id, twice))
    assert not stage.halts


def test_a_partition_that_brought_bytes_goes_behind_the_others() -> None:
    """Else a busy one fills every answer, and the others fall out of sync."""
    stage = following(partitions=2)
    assert [part.partition for part in stage.last_round[1].parts] == [0, 1]
    fill(stage)
    stage.sync()
    assert [part.partition for part in stage.last_round[1].parts] == [1, 0]


def test_a_link_whose_partition_moved_away_while_unsynced_wants_no_turns() -> None:
    """A deadline that stays in the past would make the loop turn without rest."""
    stage = following()
    fill(stage)
    stage.change(leader=3)
    stage.later(10_000)
    assert stage.core.next_deadline_ms() > stage.now_ms
    stage.sync()
    stage.later(10_000)
    assert stage.core.next_deadline_ms() > stage.now_ms


def test_the_echo_is_the_largest_counter_of_this_life_of_the_leader() -> None:
    stage = following()
    for counter in (7, 5):
        stage.handle(stage.answer_event(counter=counter))
    assert stage.last_round[1].echo == 7
    stage.metadata(*stage.registration(2, "second"), stage.changed(leader=-1))
    stage.metadata(stage.changed(leader=2))
    assert stage.last_round[1].echo == -1, "the new process counts from the beginning"


def test_a_leader_that_came_back_is_asked_at_once() -> None:
    """What its last life was asked, nobody will answer."""
    stage = following()
    before = stage.rounds_sent()
    stage.metadata(*stage.registration(2, "second"), stage.changed(leader=-1))
    stage.metadata(stage.changed(leader=2))
    assert stage.rounds_sent() == before + 1


# -- what an answer does ---------------------------------------------------------------------------


def test_bytes_are_appended_and_the_watermark_follows_only_what_is_synced() -> None:
    stage = following()
    fill(stage, mark=1)
    assert stage.ends == (1, 0, 0), "the leader's watermark says nothing about our disk"
    stage.sync()
    stage.handle(stage.answer_event(high_watermark=1, end=1))
    assert stage.ends == (1, 1, 1)


def test_a_diverging_answer_truncates_and_does_nothing_else() -> None:
    """KAFKA-14704: its watermark is about the leader's history, not about ours."""
    stage = following()
    for base in range(3):
        fill(stage, base=base)
        stage.sync()
    stage.change(leader=3)
    stage.handle(
        stage.answer_event(
            leader=3, leader_epoch=1, diverging=(0, 1), high_watermark=9, start=0, end=9
        )
    )
    assert stage.ends == (1, 1, 0)
    assert stage.last_round[1].parts[0].fetch_offset == 1


def test_a_log_that_ends_beyond_the_leaders_is_cut_to_it() -> None:
    stage = following()
    for base in range(3):
        fill(stage, base=base)
        stage.sync()
    answer = stage.answer_event(error=ErrorCode.OFFSET_OUT_OF_RANGE, start=0, end=2)
    stage.handle(answer)
    assert stage.ends[0] == 2


def test_a_log_that_ends_below_the_leaders_start_begins_there() -> None:
    stage = following()
    fill(stage)
    stage.sync()
    answer = stage.answer_event(error=ErrorCode.OFFSET_OUT_OF_RANGE, start=7, end=9)
    stage.handle(answer)
    assert stage.partition().log.log_start_offset == 7
    assert stage.ends == (7, 0, 7), "what lies below the leader's start is committed"
    assert stage.syncs, "the new beginning is made durable at once, before any answer needs it"
    stage.sync()
    stage.later(100)
    assert stage.last_round[1].parts[0].fetch_offset == 7
    data = batch("x", leader_epoch=0, base=7)
    stage.handle(stage.answer_event(data, start=7, end=9, high_watermark=8))
    stage.sync()
    assert stage.ends[:2] == (8, 8)


@pytest.mark.parametrize("spoil", ["flip a bit", "leave a gap", "go back in epochs"])
def test_bytes_that_do_not_continue_the_log_are_refused(spoil: str) -> None:
    stage = following()
    stage.metadata(stage.changed(leader=-1))
    stage.metadata(stage.changed(leader=3))
    fill(stage, epoch=2, leader=3)
    stage.sync()
    data = batch("y", leader_epoch=2, base=1)
    if spoil == "flip a bit":
        data[-1] ^= 1
    elif spoil == "leave a gap":
        data = batch("y", leader_epoch=2, base=5)
    else:
        data = batch("y", leader_epoch=1, base=1)
    stage.handle(stage.answer_event(data, leader=3, leader_epoch=2, high_watermark=2, end=2))
    assert stage.ends == (1, 1, 0)
    assert not stage.halts
    before = stage.rounds_sent()
    stage.later(100)
    assert stage.rounds_sent() == before + 1, "it is asked for again after a pause"


def test_a_full_disk_stops_one_partition_and_not_the_node() -> None:
    stage = following()
    stage.disk.fail_next("append")
    fill(stage)
    assert stage.ends == (0, 0, 0)
    assert not stage.halts
    stage.later(100)
    fill(stage)
    stage.sync()
    assert stage.ends == (1, 1, 0)


def test_a_write_that_may_have_left_something_stops_the_node() -> None:
    stage = following()
    stage.disk.fail_next("append", cut_back=False)
    fill(stage)
    stage.later(stage.config.controlled_shutdown_timeout_ms)
    assert stage.halts


def test_a_closed_log_refuses_bytes_until_dropped_files_are_gone() -> None:
    """Cut by whole files: until that is on disk an append could be followed by an old tail."""
    stage = following(segment_bytes=1_024)
    values = ("v" * 400,)
    base = 0
    while len(stage.partition().log.segments) < 3:
        data = batch(*values, leader_epoch=0, base=base)
        stage.handle(stage.answer_event(data, end=base + 1))
        stage.sync()
        base += 1
    stage.change(leader=3)
    stage.handle(stage.answer_event(leader=3, leader_epoch=1, diverging=(0, 1), end=1))
    assert not stage.partition().log.is_open
    event = stage.answer_event(
        batch("n", leader_epoch=1, base=1), leader=3, leader_epoch=1, end=2, high_watermark=2
    )
    stage.later(60)
    correlation_id = stage.last_round[0]
    stage.handle(Answered(3, Plane.BROKER, correlation_id, event.body, event.payload))
    assert stage.ends[0] == 1
    stage.sync()
    assert stage.partition().log.is_open
    stage.later(100)
    stage.handle(
        stage.answer_event(batch("n", leader_epoch=1, base=1), leader=3, leader_epoch=1, end=2)
    )
    stage.sync()
    assert stage.ends[:2] == (2, 2)


# -- syncs -----------------------------------------------------------------------------------------


def test_one_sync_at_a_time_and_the_next_takes_all_that_came_meanwhile() -> None:
    stage = leading()
    for value in "abc":
        stage.produce(value)
    assert [effect.token.end_offset for effect in stage.syncs] == [1]
    effect = stage.syncs.pop()
    stage.disk.sync(effect.files, effect.directories)
    stage.handle(Synced(effect.token))
    assert [effect.token.end_offset for effect in stage.syncs] == [3]


def test_a_sync_from_before_a_cut_proves_nothing_and_the_next_follows_at_once() -> None:
    stage = following()
    fill(stage)
    old = stage.syncs.pop()
    stage.change(leader=3)
    stage.later(50)
    stage.handle(stage.answer_event(leader=3, leader_epoch=1, diverging=(0, 0), end=1))
    fill(stage, epoch=1, leader=3)
    assert stage.ends == (1, 0, 0)
    assert not stage.syncs, "one at a time"
    stage.disk.sync(old.files, old.directories)
    stage.handle(Synced(old.token))
    assert stage.ends == (1, 0, 0), "other bytes were synced than those that are there now"
    assert len(stage.syncs) == 1, "nobody else would ask for it"
    stage.sync()
    assert stage.ends == (1, 1, 0)


def test_a_sync_of_a_log_that_is_gone_is_ignored() -> None:
    stage = leading()
    stage.produce("a")
    stage.metadata(TopicDeleted(TOPIC))
    effect = stage.syncs.pop()
    stage.handle(Synced(effect.token))
    stage.handle(Synced(SyncToken((OTHER_TOPIC, 0), 0, 5)))
    assert not stage.halts


def test_metadata_of_a_turn_comes_before_its_records() -> None:
    """Else a produce would be appended by a leader that has read of its successor."""
    stage = leading()
    stage.append(stage.changed(leader=2))
    event = stage.produce_event(batch("a"))
    stage.handle(event, *stage.metadata_events())
    assert stage.verdict(event.correlation_id) == "NOT_LEADER_OR_FOLLOWER NO"
    assert stage.ends[0] == 0


# -- topics come and go ----------------------------------------------------------------------------


def test_a_deleted_topic_is_removed_and_never_synced_again() -> None:
    """A sync of removed files would fail, and a failed sync ends the node."""
    stage = leading()
    stage.produce("a")
    assert stage.syncs
    stage.produce("b")
    effects = stage.metadata(TopicDeleted(TOPIC))
    assert any(isinstance(effect, Remove) for effect in effects)
    assert not any(isinstance(effect, Sync) for effect in effects)
    assert (TOPIC, 0) not in stage.broker.replicas.partitions


def test_a_topic_that_came_and_went_in_one_turn_is_not_synced_either() -> None:
    stage = Stage()
    stage.start()
    before = len(stage.effects)
    stage.entries_of_topic(TOPIC, leader=1)
    stage.append(TopicDeleted(TOPIC))
    stage.metadata()
    effects = stage.effects[before:]
    assert any(isinstance(effect, Remove) for effect in effects)
    assert not any(isinstance(effect, Sync) for effect in effects)


def test_a_topic_of_the_same_name_is_another_topic() -> None:
    stage = leading()
    stage.produce("a")
    stage.sync()
    stage.metadata(TopicDeleted(TOPIC))
    stage.create_topic(leader=1, topic_id=OTHER_TOPIC)
    stage.sync()
    assert stage.partition(topic_id=OTHER_TOPIC).log.log_end_offset == 0
    unknown = stage.produce("b", topic_id=TOPIC)
    assert stage.verdict(unknown) == "UNKNOWN_TOPIC_ID NO"


def test_a_log_whose_topic_was_deleted_while_the_broker_was_away_is_removed() -> None:
    first = leading()
    first.produce("a")
    first.sync()
    first.disk.process_crash()
    again = Stage(first.disk, "second")
    again.entries = first.entries
    again.append(TopicDeleted(TOPIC))
    again.sync()
    again.metadata()
    assert not again.removed, "nothing is touched before our own registration is applied"
    again.register()
    again.metadata()
    assert len(again.removed) == 1
    assert TOPIC in again.removed[0]


def test_a_log_that_nobody_gave_us_plays_no_part_and_is_left_alone() -> None:
    first = leading()
    first.produce("a")
    first.sync()
    (ours,) = first.disk.list_dir("logs")
    stray = ours.replace("-0.", "-7.")
    first.disk.make_dir(f"logs/{stray}")
    first.disk.process_crash()
    again = Stage(first.disk, "second")
    again.entries = first.entries
    again.sync()
    again.metadata()
    again.register()
    again.metadata()
    facts = [e for e in again.effects if isinstance(e, Fact) and e.kind == "StrayLog"]
    assert [(fact.partition, fact.details["path"]) for fact in facts] == [(7, f"logs/{stray}")]
    assert not again.removed
    assert again.disk.list_dir("logs") == (ours, stray)
    assert [log.partition for log in again.broker.logs.all()] == [0]


def test_no_role_before_the_own_registration_is_applied() -> None:
    first = leading()
    first.disk.process_crash()
    again = Stage(first.disk, "second")
    again.entries = first.entries
    again.sync()
    again.metadata()
    assert not again.broker.replicas.partitions
    assert not again.facts("BecameLeader")
    again.register()
    assert not again.broker.replicas.partitions, "the answer is there, its entry is not"
    again.metadata()
    assert again.partition().role is PartitionRole.LEADER


# -- the ISR ---------------------------------------------------------------------------------------


def test_a_member_that_falls_silent_is_proposed_for_removal() -> None:
    stage = leading()
    stage.produce("a")
    stage.sync()
    for _ in range(38):
        stage.later(100)
        stage.follower_has(2, 1)
    request = stage.last_alter[1]
    assert [member.node_id for member in request.parts[0].isr] == [1, 2]
    assert (request.node_id, request.broker_epoch) == (1, stage.epochs[1])
    assert stage.partition().isr == (1, 2, 3), "a proposal is not yet a change"
    stage.alter_answer(isr=(1, 2), partition_epoch=1)
    assert stage.partition().isr == (1, 2)
    assert stage.ends == (1, 1, 1), "the watermark is looked at again (KAFKA-13091)"


def test_members_keep_the_incarnation_they_were_proposed_for() -> None:
    """The request was lost; meanwhile node 3 came back, for all we know with an empty disk. Sent
    again with its new broker epoch the controller would take in a replica that holds nothing."""
    stage = leading()
    stage.change(isr=(1, 2))
    stage.follower_has(2, 0)
    stage.follower_has(3, 0)
    wanted = tuple(IsrMember(node_id, stage.epochs[node_id]) for node_id in (1, 2, 3))
    assert stage.last_alter[1].parts[0].isr == wanted
    stage.metadata(*stage.registration(3, "second"))
    stage.alter_answer(top=ErrorCode.NOT_CONTROLLER)
    before = len(stage.sent(AlterPartitionRequest))
    stage.later(100)
    assert len(stage.sent(AlterPartitionRequest)) == before + 1
    assert stage.last_alter[1].parts[0].isr == wanted


def test_a_lost_request_is_sent_again() -> None:
    stage = leading()
    stage.change(isr=(1, 2))
    stage.follower_has(3, 0)
    sent = len(stage.sent(AlterPartitionRequest))
    stage.later(1_000)
    stage.later(100)
    assert len(stage.sent(AlterPartitionRequest)) == sent + 1


def test_a_judgement_by_a_controller_that_knows_less_is_asked_for_again_after_a_pause() -> None:
    stage = leading()
    stage.change(isr=(1, 2))
    stage.follower_has(3, 0)
    sent = len(stage.sent(AlterPartitionRequest))
    stage.alter_answer(ErrorCode.NOT_CONTROLLER)
    stage.later(99)
    assert len(stage.sent(AlterPartitionRequest)) == sent, "no ball game with a deposed controller"
    stage.later(1)
    assert len(stage.sent(AlterPartitionRequest)) == sent + 1


def test_one_request_is_in_flight_and_it_takes_all_partitions() -> None:
    stage = leading(partitions=3)
    for number in range(3):
        stage.metadata(stage.changed(isr=(1, 2), partition=number))
    for number in range(3):
        stage.handle(stage.fetch_event(3, 0, partition=number))
    assert len(stage.sent(AlterPartitionRequest)) == 1
    stage.alter_answer(isr=(1, 2, 3), partition_epoch=2)
    assert len(stage.last_alter[1].parts) == 2
    assert stage.sent(AlterPartitionRequest)[-1].peer == VOTER
