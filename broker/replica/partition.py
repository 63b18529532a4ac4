"""One replica of one partition: its role, its log, and as leader what it knows of the others.

Owns every rule that joins N logs into one partition: who may append, what counts for the high
watermark, who is in the ISR. Reads no clock and sends nothing; what follows from a change is left
in plain fields for `replica_manager`, which acts once per turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from broker.config import may_lose_committed
from broker.events import Fact
from broker.log.errors import CorruptFile
from broker.log.partition_log import PartitionLog
from broker.outbox import Outbox
from broker.ports import Buffer
from broker.quorum.image import BrokerImage, PartitionImage, TopicImage
from broker.replica import high_watermark
from broker.replica.isr import FollowerProgress, laggards, may_join
from broker.wire.batch_header import BatchHeader
from broker.wire.errors import ErrorCode
from broker.wire.messages import NO_LEADER, IsrMember

PartitionKey = tuple[str, int]


class PartitionRole(Enum):
    LEADER = "leader"
    FOLLOWER = "follower"
    OFFLINE = "offline"
    """Assigned here, but the partition has no leader now."""


@dataclass(frozen=True, slots=True)
class PendingIsr:
    """A change of the ISR that is not yet decided, and the version it starts from.

    Each member stands with the incarnation it was proposed for, however often the proposal is
    sent: a later one may have come back with an empty disk (KIP-903).
    """

    members: tuple[IsrMember, ...]
    partition_epoch: int

    @property
    def isr(self) -> tuple[int, ...]:
        return tuple(member.node_id for member in self.members)


class Partition:
    """State, each with who writes it.

    leader_epoch, partition_epoch, isr, replicas, leader_id: committed metadata only (`apply_image`,
    `on_alter_result`). pending_isr: `propose_isr`, cleared by either of the two. progress: fetches
    of this leader epoch. high_watermark: never goes back while anybody counts on it; moved on the
    leader by `advance_high_watermark`, on a follower by `on_leader_high_watermark`.
    """

    def __init__(
        self,
        node_id: int,
        topic: TopicImage,
        log: PartitionLog,
        high_watermark: int,
        outbox: Outbox,
    ) -> None:
        self.node_id = node_id
        self.key: PartitionKey = (log.topic_id, log.partition)
        self.topic_name = topic.name
        self.config = topic.config
        self.log = log
        self.outbox = outbox
        self.high_watermark = max(log.log_start_offset, min(high_watermark, log.log_end_offset))
        self.role = PartitionRole.OFFLINE
        self.leader_id = NO_LEADER
        self.leader_epoch = -1
        self.partition_epoch = -1
        self.replicas: tuple[int, ...] = ()
        self.isr: tuple[int, ...] = ()
        self.pending_isr: PendingIsr | None = None
        self.progress: dict[int, FollowerProgress] = {}
        self.epoch_start_offset = -1
        self._leader_mark = -1
        """The high watermark that the leader of this epoch told last, as a follower."""

    # -- committed metadata ------------------------------------------------------------------------

    def apply_image(
        self, image: PartitionImage, brokers: Mapping[int, BrokerImage], now_ms: int
    ) -> None:
        """Take on what the metadata log says. An older partition epoch changes nothing."""
        if image.partition_epoch < self.partition_epoch:
            return
        new_epoch = image.leader_epoch > self.leader_epoch
        if new_epoch:
            self._leader_mark = -1
        self.leader_epoch = image.leader_epoch
        self.leader_id = image.leader
        self.replicas = image.replicas
        self._commit_isr(image.isr, image.partition_epoch)
        if image.leader == self.node_id:
            if new_epoch:
                self._become_leader(brokers, now_ms)
            else:
                self.forget_old_incarnations(brokers, now_ms)
        elif new_epoch or self.role is PartitionRole.LEADER:
            self.role = (
                PartitionRole.OFFLINE if image.leader == NO_LEADER else PartitionRole.FOLLOWER
            )
            self.progress = {}
            self.epoch_start_offset = -1
            self._fact("BecameFollower" if image.leader != NO_LEADER else "BecameOffline")

    def _become_leader(self, brokers: Mapping[int, BrokerImage], now_ms: int) -> None:
        self.role = PartitionRole.LEADER
        self.epoch_start_offset = self.log.log_end_offset
        self.log.epochs.assign(self.leader_epoch, self.epoch_start_offset)
        self.progress = {}
        self.forget_old_incarnations(brokers, now_ms)
        self._fact("BecameLeader", isr=self.isr, replicas=self.replicas)

    def forget_old_incarnations(self, brokers: Mapping[int, BrokerImage], now_ms: int) -> None:
        """Knowledge of a follower is about one incarnation: a new one starts from nothing."""
        if self.role is not PartitionRole.LEADER:
            return
        for node_id in self.replicas:
            if node_id == self.node_id:
                continue
            registered = brokers[node_id].broker_epoch if node_id in brokers else -1
            known = self.progress.get(node_id)
            if known is None or known.broker_epoch not in (-1, registered):
                caught_up_ms = now_ms if node_id in self.isr else -(2**62)
                self.progress[node_id] = FollowerProgress(-1, caught_up_ms)

    def _commit_isr(self, isr: tuple[int, ...], partition_epoch: int) -> None:
        if self.pending_isr is not None and partition_epoch > self.pending_isr.partition_epoch:
            self.pending_isr = None
        self.isr = isr
        self.partition_epoch = partition_epoch

    # -- ISR changes -------------------------------------------------------------------------------

    @property
    def min_isr(self) -> int:
        return high_watermark.effective_min_isr(self.config.min_insync_replicas, len(self.replicas))

    @property
    def is_under_min_isr(self) -> bool:
        return len(self.isr) < self.min_isr

    def propose_isr(
        self, brokers: Mapping[int, BrokerImage], now_ms: int, lag_ms_max: int
    ) -> tuple[int, ...] | None:
        """A shrink or an expansion to ask the controller for; None while one is pending."""
        if self.role is not PartitionRole.LEADER or self.pending_isr is not None:
            return None
        leaving = laggards(
            self.isr,
            self.node_id,
            self.progress,
            leader_end=self.log.log_end_offset,
            now_ms=now_ms,
            lag_ms_max=lag_ms_max,
        )
        joining = tuple(
            node_id
            for node_id in self.replicas
            if node_id not in self.isr and self._may_join(node_id, brokers, now_ms, lag_ms_max)
        )
        if not leaving and not joining:
            return None
        isr = tuple(sorted({*self.isr, *joining} - {*leaving}))
        members = tuple(IsrMember(node_id, self._incarnation(node_id, brokers)) for node_id in isr)
        self.pending_isr = PendingIsr(members, self.partition_epoch)
        self._fact("IsrProposed", isr=isr)
        return isr

    def _incarnation(self, node_id: int, brokers: Mapping[int, BrokerImage]) -> int:
        """The broker epoch that a member is proposed for: that of its fetches, or of its
        registration if it has not yet fetched in this epoch; -1 if it has neither."""
        known = self.progress[node_id].broker_epoch if node_id != self.node_id else -1
        if known < 0 and node_id in brokers:
            return brokers[node_id].broker_epoch
        return known

    def _may_join(
        self, node_id: int, brokers: Mapping[int, BrokerImage], now_ms: int, lag_ms_max: int
    ) -> bool:
        broker = brokers.get(node_id)
        progress = self.progress[node_id]
        return broker is not None and may_join(
            progress,
            high_watermark=self.high_watermark,
            epoch_start_offset=self.epoch_start_offset,
            registered_broker_epoch=broker.broker_epoch,
            is_fenced=broker.fenced,
            is_in_sync=progress.is_in_sync(self.log.log_end_offset, now_ms, lag_ms_max),
        )

    def on_alter_result(
        self, error: ErrorCode, leader_epoch: int, partition_epoch: int, isr: tuple[int, ...]
    ) -> None:
        """The controller's word on the pending change.

        After any error the change may have been made, or an earlier copy of the request may yet
        arrive: it stays pending (and counts in the maximal ISR) until the metadata log shows a
        newer partition epoch, which makes every copy stale. A refusal writes one too.
        """
        if self.pending_isr is None or self.role is not PartitionRole.LEADER:
            return
        if (
            error is ErrorCode.NONE
            and leader_epoch == self.leader_epoch
            and partition_epoch >= self.partition_epoch
        ):
            self.pending_isr = None
            self._commit_isr(isr, partition_epoch)
        self._fact("IsrResult", error=error.name, isr=self.isr)

    # -- leader ------------------------------------------------------------------------------------

    def append(self, batch: Buffer, header: BatchHeader, now_ms: int) -> int:
        """Append a checked batch as leader; returns its first offset. DiskError as the log's.

        Who has had everything until now, and need not say so again, lags from now on only.
        """
        assert self.role is PartitionRole.LEADER, "only a leader appends a client's batch"
        for progress in self.progress.values():
            if progress.counted_end >= self.log.log_end_offset:
                progress.last_caught_up_ms = now_ms
        base_offset = self.log.append_as_leader(batch, header, self.leader_epoch)
        if self.outbox.frequent_facts_on:
            self._fact("Appended", first=base_offset, last=base_offset + header.last_offset_delta)
        return base_offset

    def on_follower_fetch(
        self,
        node_id: int,
        broker_epoch: int,
        fetch_round: int,
        counted_end: int,
        now_ms: int,
        log_start_offset: int = 0,
    ) -> None:
        """Note how far a follower counts. Called for fetches of this leader epoch only."""
        progress = self.progress[node_id]
        end_offset = self.log.log_end_offset
        if progress.on_fetch(broker_epoch, fetch_round, counted_end, end_offset, now_ms):
            progress.log_start_offset = log_start_offset

    def counted_ends(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """How far each of these replicas vouches for its log, as this leader knows it."""
        return tuple(
            self.log.counted_end if node_id == self.node_id else self.progress[node_id].counted_end
            for node_id in members
        )

    def advance_high_watermark(self) -> bool:
        """Move the high watermark as far as the maximal ISR allows; True if it moved."""
        if self.role is not PartitionRole.LEADER:
            return False
        proposed = self.pending_isr.isr if self.pending_isr else None
        ends = self.counted_ends(high_watermark.maximal_isr(self.isr, proposed))
        moved_to = high_watermark.advance(
            self.high_watermark, ends, isr_size=len(self.isr), min_isr=self.min_isr
        )
        return self._move_high_watermark(moved_to)

    # -- follower ----------------------------------------------------------------------------------

    def on_leader_high_watermark(self, leader_high_watermark: int) -> bool:
        """A follower knows as committed what its leader does, as far as it holds it itself."""
        assert self.role is PartitionRole.FOLLOWER
        self._leader_mark = leader_high_watermark
        known = min(leader_high_watermark, self.log.counted_end)
        return self._move_high_watermark(max(self.high_watermark, known))

    def on_synced_as_follower(self) -> bool:
        """More of the log counts: so may what this epoch's leader last called committed."""
        return self.on_leader_high_watermark(self._leader_mark)

    def truncate_to(self, offset: int) -> None:
        """Drop what diverges from the leader. Never below what is known as committed.

        Under flush=async a power loss may have taken committed records, and an unclean election may
        (these settings' stated price): there the watermark follows the log down, and says so.
        """
        assert self.role is PartitionRole.FOLLOWER, "a leader never truncates"
        if offset < self.high_watermark and may_lose_committed(self.config):
            self._fact("CommittedLost", first=offset, last=self.high_watermark - 1)
            self.high_watermark = offset
        assert offset >= self.high_watermark, (
            f"{self.key}: truncation to {offset} below the high watermark {self.high_watermark}"
        )
        old_end = self.log.log_end_offset
        self.log.truncate_to(offset)
        self._fact("Truncated", old_end=old_end)

    # -- the log's beginning ----------------------------------------------------------------------

    def raise_log_start(self, offset: int) -> None:
        """Let the log begin at `offset`, as far as that is committed. DiskError as the log's."""
        offset = min(offset, self.high_watermark)
        if offset > self.log.log_start_offset:
            self.log.raise_start_to(offset)
            self._fact("LogStartMoved", start=offset)

    @property
    def settled_log_start(self) -> int:
        """A leader's: where the log certainly begins, here and on every member of the ISR."""
        return min(
            self.log.durable_start
            if node_id == self.node_id
            else self.progress[node_id].log_start_offset
            for node_id in self.isr
        )

    # -- damage ------------------------------------------------------------------------------------

    def tell_damage(self, error: CorruptFile) -> None:
        """Let it be known what was found."""
        self._fact("DamageFound", path=error.path, position=error.position, reason=error.reason)

    def begin_anew(self) -> None:
        """Forget the whole log, as nobody counts on it; what is committed comes from the leader."""
        assert self.role is PartitionRole.FOLLOWER, "only who has a leader can refill"
        assert self.node_id not in self.isr, "only who left the ISR may forget"
        old_end = self.log.log_end_offset
        self.log.restart_at(0)
        self.high_watermark = 0
        self._fact("BeganAnew", old_end=old_end)

    def _move_high_watermark(self, offset: int) -> bool:
        if offset == self.high_watermark:
            return False
        assert self.high_watermark < offset <= self.log.log_end_offset
        self.high_watermark = offset
        if self.outbox.frequent_facts_on:
            self._fact("HwAdvanced")
        return True

    def _fact(self, kind: str, **details: int | str | bool | tuple[int, ...]) -> None:
        self.outbox.fact(
            Fact(
                kind,
                self.key[0],
                self.key[1],
                self.leader_epoch,
                self.partition_epoch,
                self.log.log_end_offset,
                self.log.synced_end,
                self.high_watermark,
                details,
            )
        )
