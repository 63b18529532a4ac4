"""One replica: roles, epochs, the pending ISR, the watermark, where a follower may cut."""

from __future__ import annotations

import pytest

from broker.log.leader_epochs import LeaderEpochs
from broker.quorum.records import BrokerFenced
from broker.replica.follower_fetcher import truncation_offset
from broker.replica.partition import PartitionRole
from broker.wire.errors import ErrorCode
from broker.wire.messages import AlterPartitionRequest
from tests.replica.stage import TOPIC, Stage, batch


def staged(leader: int = 1, **topic: object) -> Stage:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=leader, **topic)  # type: ignore[arg-type]
    stage.sync()
    return stage


def filled(stage: Stage, count: int) -> Stage:
    """Node 1, which leads, holds `count` records that nobody else has."""
    for number in range(count):
        stage.produce(str(number))
    stage.sync()
    return stage


# -- roles and epochs ------------------------------------------------------------------------------


def test_roles_follow_the_image() -> None:
    stage = staged(leader=2)
    seen = [stage.partition().role]
    for leader in (1, -1, 3, 1):
        stage.change(leader=leader)
        seen.append(stage.partition().role)
    assert seen == [
        PartitionRole.FOLLOWER,
        PartitionRole.LEADER,
        PartitionRole.OFFLINE,
        PartitionRole.FOLLOWER,
        PartitionRole.LEADER,
    ]


def test_a_leader_notes_where_its_epoch_begins_even_without_records() -> None:
    """KAFKA-7415: else a follower of an empty epoch is told a wrong end."""
    stage = filled(staged(), 2)
    stage.change(leader=2)
    stage.change(leader=1)
    partition = stage.partition()
    assert (partition.leader_epoch, partition.epoch_start_offset) == (2, 2)
    assert partition.log.epochs.last_epoch() == 2
    assert partition.log.epochs.end_offset_for(1, 2) == (0, 2)


def test_an_image_of_an_older_partition_epoch_changes_nothing() -> None:
    """The answer of the controller may have been faster than the image."""
    stage = staged()
    stage.change(isr=(1, 2))
    stage.follower_has(3, 0)
    stage.alter_answer(isr=(1, 2, 3), partition_epoch=2)
    assert stage.partition().isr == (1, 2, 3)
    old = stage.core.image.topics[TOPIC].partitions[0]
    assert old.partition_epoch == 1
    stage.partition().apply_image(old, stage.core.image.brokers, stage.now_ms)
    assert (stage.partition().isr, stage.partition().partition_epoch) == ((1, 2, 3), 2)


def test_a_new_epoch_forgets_what_followers_had() -> None:
    """KIP-320: what was counted in another epoch says nothing about the log of this one."""
    stage = filled(staged(), 1)
    stage.follower_has(2, 1)
    stage.follower_has(3, 1)
    assert stage.ends == (1, 1, 1)
    stage.change(leader=-1)
    stage.change(leader=1)
    stage.produce("more")
    stage.sync()
    assert stage.partition().counted_ends((1, 2, 3)) == (2, -1, -1)
    stage.follower_has(2, 2)
    assert stage.ends == (2, 2, 1), "node 3 has not fetched in this epoch"
    stage.follower_has(3, 2)
    assert stage.ends == (2, 2, 2)


def test_a_new_life_of_a_follower_starts_from_nothing() -> None:
    stage = filled(staged(min_isr=1), 1)
    stage.follower_has(2, 1)
    stage.follower_has(3, 0)
    stage.metadata(*stage.registration(2, "second"))
    assert stage.partition().counted_ends((2, 3)) == (-1, 0)
    stage.follower_has(3, 1)
    assert stage.ends == (1, 1, 0), "node 2 has yet to say what is left on its disk"


def test_being_fenced_and_unfenced_is_no_new_life() -> None:
    stage = filled(staged(), 1)
    stage.follower_has(2, 1)
    for fenced in (True, False):
        stage.metadata(BrokerFenced(2, stage.epochs[2], fenced))
    assert stage.partition().counted_ends((2,)) == (1,)


# -- the watermark ---------------------------------------------------------------------------------


def test_the_watermark_waits_for_the_leaders_own_disk() -> None:
    stage = staged()
    stage.produce("a")
    stage.follower_has(2, 1)
    stage.follower_has(3, 1)
    assert stage.ends == (1, 0, 0)
    stage.sync()
    assert stage.ends == (1, 1, 1)


def test_under_flush_async_the_written_counts() -> None:
    stage = staged(flush="async")
    stage.produce("a")
    stage.follower_has(2, 1)
    stage.follower_has(3, 1)
    assert stage.ends[2] == 1


def test_what_a_follower_read_but_did_not_sync_does_not_count() -> None:
    stage = filled(staged(), 1)
    stage.follower_has(2, 1, counted=0)
    stage.follower_has(3, 1)
    assert stage.ends == (1, 1, 0)
    stage.follower_has(2, 1, counted=1)
    assert stage.ends == (1, 1, 1)


def test_a_follower_cannot_count_beyond_its_log() -> None:
    stage = filled(staged(), 2)
    stage.handle(stage.fetch_event(2, 1, counted=2))
    assert stage.partition().counted_ends((2,)) == (1,)


def test_a_joining_member_counts_before_the_controller_has_spoken() -> None:
    stage = filled(staged(min_isr=1), 1)
    stage.change(isr=(1, 2))
    stage.follower_has(2, 1)
    assert stage.ends[2] == 1
    stage.follower_has(3, 1)
    assert stage.partition().pending_isr is not None
    stage.produce("b")
    stage.sync()
    stage.follower_has(2, 2)
    assert stage.ends[2] == 1, "node 3 may be a member by now"
    stage.follower_has(3, 2)
    assert stage.ends[2] == 2


def test_a_leaving_member_counts_until_it_has_left() -> None:
    stage = filled(staged(), 1)
    for _ in range(38):
        stage.later(100)
        stage.follower_has(2, 1)
    assert stage.partition().pending_isr is not None
    assert stage.ends[2] == 0
    stage.alter_answer(isr=(1, 2), partition_epoch=1)
    assert stage.ends[2] == 1


def test_nothing_is_committed_below_min_isr() -> None:
    stage = filled(staged(), 1)
    stage.change(isr=(1,))
    stage.follower_has(2, 1)
    assert stage.ends[2] == 0
    stage.change(isr=(1, 2))
    assert stage.ends[2] == 1


def test_a_partition_of_one_replica_needs_no_other() -> None:
    stage = filled(staged(replicas=(1,), min_isr=1), 3)
    assert stage.ends == (3, 3, 3)


# -- ISR changes -----------------------------------------------------------------------------------


def outside(stage: Stage) -> Stage:
    stage.change(isr=(1, 2))
    return stage


def test_a_replica_that_has_everything_is_proposed_once() -> None:
    stage = outside(filled(staged(), 2))
    stage.follower_has(2, 2)
    stage.follower_has(3, 1)
    assert not stage.sent(AlterPartitionRequest), "it lacks a committed record"
    stage.follower_has(3, 2)
    assert len(stage.sent(AlterPartitionRequest)) == 1
    stage.follower_has(3, 2)
    assert len(stage.facts("IsrProposed")) == len(stage.sent(AlterPartitionRequest)) == 1


def test_joining_needs_the_start_of_the_epoch_not_only_the_watermark() -> None:
    """KAFKA-7128: the watermark of a fresh leader is behind what its predecessor had committed."""
    stage = staged(leader=2)
    for base in range(2):
        data = batch("x", leader_epoch=0, base=base)
        stage.handle(stage.answer_event(data, end=2))
        stage.sync()
    stage.metadata(stage.changed(leader=1, isr=(1, 2)))
    assert stage.ends == (2, 2, 0)
    stage.follower_has(3, 1)
    assert not stage.sent(AlterPartitionRequest)
    stage.follower_has(3, 2)
    assert len(stage.sent(AlterPartitionRequest)) == 1


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.INVALID_UPDATE_VERSION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INELIGIBLE_REPLICA,
        ErrorCode.NOT_CONTROLLER,
    ],
)
def test_after_an_error_a_change_stays_pending_until_the_image_moves_on(error: ErrorCode) -> None:
    """It may have been made, or an earlier copy may yet arrive: until the metadata log shows a
    newer partition epoch the joining member counts for the watermark."""
    stage = outside(staged())
    stage.follower_has(3, 0)
    stage.alter_answer(error, partition_epoch=5, isr=(1, 2, 3))
    assert stage.partition().isr == (1, 2)
    assert stage.partition().pending_isr is not None
    stage.produce("a")
    stage.sync()
    stage.follower_has(2, 1)
    assert stage.ends[2] == 0
    stage.change(isr=(1, 2))
    stage.follower_has(2, 1)
    assert stage.ends[2] == 1


def test_a_success_of_another_epoch_is_ignored() -> None:
    stage = outside(staged())
    stage.follower_has(3, 0)
    stage.alter_answer(leader_epoch=1, isr=(1, 2, 3), partition_epoch=2)
    assert stage.partition().isr == (1, 2)
    assert stage.partition().pending_isr is not None


def test_a_success_after_leadership_is_gone_is_ignored() -> None:
    stage = outside(staged())
    stage.follower_has(3, 0)
    stage.change(leader=2)
    stage.alter_answer(isr=(1, 2, 3), partition_epoch=2)
    assert stage.partition().isr == (1, 2)
    assert stage.partition().role is PartitionRole.FOLLOWER


def test_an_image_that_is_newer_settles_a_pending_change() -> None:
    stage = outside(staged())
    stage.follower_has(3, 0)
    pending = stage.partition().pending_isr
    assert pending is not None
    assert pending.isr == (1, 2, 3)
    stage.change(isr=(1, 2, 3))
    assert stage.partition().pending_isr is None


def test_one_who_was_removed_as_a_laggard_is_not_taken_in_until_it_keeps_up() -> None:
    """It holds all that is committed as long as nothing is: taken in, it would be removed again."""
    stage = filled(staged(), 1)
    for _ in range(38):
        stage.later(100)
        stage.follower_has(2, 1)
    stage.alter_answer(isr=(1, 2), partition_epoch=1)
    sent = len(stage.sent(AlterPartitionRequest))
    stage.change(isr=(1, 2))
    for number in range(10):
        stage.later(100)
        stage.produce(str(number))
        stage.sync()
    assert len(stage.sent(AlterPartitionRequest)) == sent
    stage.follower_has(3, 1)
    assert len(stage.sent(AlterPartitionRequest)) == sent, "ten records behind"
    stage.follower_has(3, 11)
    assert len(stage.sent(AlterPartitionRequest)) == sent + 1


def test_a_fresh_leader_gives_no_such_time_to_who_is_outside() -> None:
    """It has everything that is committed, yet lags: taken in at once it would be removed again."""
    stage = filled(staged(leader=1), 1)
    stage.change(isr=(1, 2))
    stage.change(leader=-1)
    stage.change(leader=1)
    for number in range(5):
        stage.produce(str(number))
    stage.sync()
    stage.follower_has(3, 1)
    assert not stage.sent(AlterPartitionRequest)
    stage.follower_has(3, 6)
    assert len(stage.sent(AlterPartitionRequest)) == 1


def test_a_fresh_leader_gives_members_time_to_show_themselves() -> None:
    stage = filled(staged(), 1)
    stage.change(leader=-1)
    stage.now_ms += 60_000
    stage.change(leader=1)
    stage.later(2_900)
    assert not stage.sent(AlterPartitionRequest)
    stage.later(850)
    assert [member.node_id for member in stage.last_alter[1].parts[0].isr] == [1]


# -- truncation ------------------------------------------------------------------------------------


def follower_of(*epochs_of_batches: int) -> Stage:
    """Node 1 follows, and holds one record for each of these epochs."""
    stage = staged(leader=2)
    for base, epoch in enumerate(epochs_of_batches):
        while stage.partition().leader_epoch < epoch:
            before = stage.partition().leader_id
            stage.change(leader=5 - before)
            stage.release_round(before)
        data = batch("x", leader_epoch=epoch, base=base)
        leader = stage.partition().leader_id
        stage.handle(stage.answer_event(data, leader=leader, leader_epoch=epoch, end=base + 1))
        stage.sync()
    return stage


@pytest.mark.parametrize(
    ("ours", "leader_says", "cut_to"),
    [
        # The leader's epochs of its batches stand in the comment.
        ((0, 0, 0), (0, 2), 2),  # 0 0 then another: the smaller end of the same epoch
        ((0, 0), (0, 5), 2),  # 0 0 0 0 0: nothing to cut
        ((0, 1, 1), (0, 1), 1),  # 0 2: all of ours of epoch 1 is unknown there
        ((0, 0, 2), (1, 3), 2),  # 0 1 1: epoch 1 is unknown here, ours below it ends at 2
        ((0, 2, 4), (1, 3), 1),  # 0 1 1 (fast fail-overs, KIP-279): to the end of our epoch 0
        ((0, 1, 2), (2, 2), 2),  # 0 1, and 2 begins at 2 without records
    ],
)
def test_where_a_follower_cuts(
    ours: tuple[int, ...], leader_says: tuple[int, int], cut_to: int
) -> None:
    stage = follower_of(*ours)
    partition = stage.partition()
    assert partition.log.log_end_offset == len(ours)
    assert truncation_offset(partition, *leader_says) == cut_to


def test_of_epochs_older_than_all_of_ours_only_the_leaders_end_bounds_what_is_shared() -> None:
    stage = follower_of(0, 0)
    stage.partition().log.epochs = LeaderEpochs()
    assert truncation_offset(stage.partition(), 3, 1) == 1
    assert truncation_offset(stage.partition(), 3, 7) == 2


def test_a_leader_never_truncates() -> None:
    stage = filled(staged(), 2)
    with pytest.raises(AssertionError, match="a leader never truncates"):
        stage.partition().truncate_to(1)


def test_nobody_truncates_below_what_is_committed() -> None:
    stage = follower_of(0, 0)
    stage.handle(stage.answer_event(leader=2, high_watermark=2, end=2))
    assert stage.ends == (2, 2, 2)
    with pytest.raises(AssertionError, match="below the high watermark"):
        stage.partition().truncate_to(1)


def test_under_flush_async_the_watermark_follows_a_truncation_down() -> None:
    """There a power loss may have taken committed records: the stated price of that mode."""
    stage = staged(leader=2, flush="async")
    data = batch("x", leader_epoch=0, base=0)
    stage.handle(stage.answer_event(data, end=1, high_watermark=1))
    assert stage.ends[2] == 1
    stage.partition().truncate_to(0)
    assert (stage.ends[0], stage.ends[2]) == (0, 0)


def test_a_restarted_replica_begins_at_its_checkpointed_watermark() -> None:
    stage = filled(staged(replicas=(1,), min_isr=1), 3)
    stage.later(6_000)
    stage.later(100)
    stage.disk.process_crash()
    again = Stage(stage.disk, "second")
    again.entries = stage.entries
    again.sync()
    again.metadata()
    again.register()
    again.metadata()
    assert again.ends == (3, 3, 3)
