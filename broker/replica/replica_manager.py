"""All replicas of one broker: roles by the image, syncs, watermarks, ISR changes, fetching.

Things that became due during a turn are gathered in `touched` and settled once, in `settle`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from itertools import islice

from broker.config import NodeConfig, TopicConfig, may_lose_committed
from broker.events import Fact, Plane, Remove, ResetLink, Sync, SyncToken
from broker.log.errors import CorruptFile, LogMismatch
from broker.log.log_manager import LogManager
from broker.log.partition_log import PartitionLog, SyncRequest
from broker.outbox import Outbox
from broker.ports import Buffer, DiskError
from broker.quorum.image import MetadataDelta, MetadataImage, TopicImage
from broker.replica.damage import Damages
from broker.replica.follower_fetcher import FetchLink, FetchState, Outcome, truncation_offset
from broker.replica.partition import Partition, PartitionKey, PartitionRole
from broker.wire.batch_header import HEADER_BYTES, read_header
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AlterPartitionPart,
    AlterPartitionRequest,
    AlterPartitionResponse,
    FetchPartResult,
    FetchResponse,
)
from broker.wire.record_batch import CorruptBatch

ISR_CHECKS_PER_LAG = 4
LOGS_MADE_PER_TURN = 50
"""Each costs a few hundred microseconds: a topic of thousands must not hold up Raft."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a turn's end brought about, for the purgatory."""

    committed: tuple[Partition, ...]
    """Leaders whose high watermark moved."""
    touched: tuple[Partition, ...]
    """All partitions with new bytes, new durable bytes, a new watermark or a new role."""


@dataclass(slots=True)
class ReplicaManager:
    config: NodeConfig
    logs: LogManager
    outbox: Outbox
    image: MetadataImage
    broker_epoch: int = -1
    """Set by `activate`: before it this broker takes no role and serves nothing."""
    partitions: dict[PartitionKey, Partition] = field(default_factory=dict)
    links: dict[int, FetchLink] = field(default_factory=dict)
    touched: dict[PartitionKey, Partition] = field(default_factory=dict)
    next_isr_check_ms: int = 0
    unproposed: dict[PartitionKey, None] = field(default_factory=dict)
    """Leaders with a pending ISR change that is not on its way to the controller."""
    without_log: dict[PartitionKey, None] = field(default_factory=dict)
    """Assigned here, and their logs are still to be made: so many at a time, or when the disk has
    room again."""
    next_creation_ms: int = 0
    _made_this_turn: int = 0
    damages: Damages = field(default_factory=Damages)

    @property
    def is_active(self) -> bool:
        return self.broker_epoch >= 0

    # -- metadata ----------------------------------------------------------------------------------

    def activate(self, image: MetadataImage, broker_epoch: int, now_ms: int) -> None:
        """Take on all roles of the image, which has reached this broker's own registration."""
        assert image.index >= broker_epoch >= 0
        self.image = image
        self.broker_epoch = broker_epoch
        for log in self.logs.all():
            if log.topic_id not in image.topics:
                # Deleted while we were away: our registration is younger than all that we held.
                self.outbox.add(Remove(self.logs.remove(log.topic_id, log.partition)))
            elif not self._is_assigned((log.topic_id, log.partition)):
                self._leave_alone(log)
        for topic in image.topics.values():
            for number in range(len(topic.partitions)):
                self._apply_partition((topic.topic_id, number), now_ms)

    def apply(self, image: MetadataImage, delta: MetadataDelta, now_ms: int) -> None:
        self.image = image
        if not self.is_active:
            return
        for topic_id in delta.topics_configured:
            self._configure(image.topics[topic_id])
        for key in delta.partitions_changed:
            self._apply_partition(key, now_ms)
        for topic_id in delta.topics_deleted:
            for key in [key for key in self.partitions if key[0] == topic_id]:
                self._drop(key)
            for key in [key for key in self.without_log if key[0] == topic_id]:
                del self.without_log[key]
        for node_id in delta.brokers_changed:
            if node_id in self.links:
                self.links[node_id].on_registered(image.brokers[node_id].broker_epoch)
        if delta.brokers_changed:
            for partition in self.partitions.values():
                partition.forget_old_incarnations(image.brokers, now_ms)

    def _is_assigned(self, key: PartitionKey) -> bool:
        topic, number = self.image.topics.get(key[0]), key[1]
        return (
            topic is not None
            and number < len(topic.partitions)
            and self.config.node_id in topic.partitions[number].replicas
        )

    def _leave_alone(self, log: PartitionLog) -> None:
        """A stray: the topic is there, but nobody gave us this partition of it. It plays no part,
        and what it holds is not ours to remove."""
        end = log.log_end_offset
        path = self.logs.remove(log.topic_id, log.partition)
        where = (log.topic_id, log.partition)
        self.outbox.fact(Fact("StrayLog", *where, log_end_offset=end, details={"path": path}))

    def _apply_partition(self, key: PartitionKey, now_ms: int) -> None:
        if not self._is_assigned(key):
            return
        topic = self.image.topics[key[0]]
        assigned = topic.partitions[key[1]]
        partition = self.partitions.get(key)
        if partition is None:
            partition = self._create(topic, key, now_ms)
            if partition is None:
                return
        partition.apply_image(assigned, self.image.brokers, now_ms)
        if partition.role is PartitionRole.LEADER:
            partition.log.producers.complete_from(self.image.next_producer_id)
        if partition.log.last_batch_epoch > assigned.leader_epoch:
            # Nobody has written that: a bit of the epoch, which no checksum covers, is wrong.
            partition.log.refuse_appends()
            reason = f"its last batch is of leader epoch {partition.log.last_batch_epoch}"
            self.damages.find(partition, CorruptFile(partition.log.directory, 0, reason))
        self.damages.on_image(partition, assigned)
        self.touched[key] = partition
        for leader_id, link in self.links.items():
            if leader_id != partition.leader_id or partition.role is not PartitionRole.FOLLOWER:
                link.unfollow(key)
        if partition.role is PartitionRole.FOLLOWER:
            leader_id = partition.leader_id
            if leader_id not in self.links:
                leader_broker_epoch = self.image.brokers[leader_id].broker_epoch
                self.links[leader_id] = FetchLink(
                    leader_id, leader_broker_epoch, self.config.replica_fetch_session_partitions
                )
            self.links[leader_id].follow(partition)

    def _create(self, topic: TopicImage, key: PartitionKey, now_ms: int) -> Partition | None:
        """The replica and its log; None if it must wait: for a later turn, or room on the disk."""
        is_new = self.logs.get(*key) is None
        if is_new and self._made_this_turn >= LOGS_MADE_PER_TURN:
            self.without_log[key] = None
            return None
        self._made_this_turn += is_new
        self.without_log.pop(key, None)
        config = topic.config
        try:
            log = self.logs.create(topic.name, *key, config.flush, config.segment_bytes)
        except DiskError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.without_log[key] = None
            self.next_creation_ms = now_ms + self.config.replica_fetch_backoff_ms
            return None
        _configure_log(log, config)
        checkpoint = self.logs.high_watermark_checkpoint(*key)
        partition = Partition(self.config.node_id, topic, log, checkpoint, self.outbox)
        self.partitions[key] = partition
        return partition

    def _configure(self, topic: TopicImage) -> None:
        for number in range(len(topic.partitions)):
            partition = self.partitions.get((topic.topic_id, number))
            if partition is not None:
                partition.config = topic.config
                _configure_log(partition.log, topic.config)
                self.touched[partition.key] = partition

    def _drop(self, key: PartitionKey) -> None:
        partition = self.partitions.pop(key)
        partition.role = PartitionRole.OFFLINE
        self.touched[key] = partition
        for link in self.links.values():
            link.unfollow(key)
        self.unproposed.pop(key, None)
        self.damages.forget(key)
        self.outbox.add(Remove(self.logs.remove(*key)))

    def retire(self) -> None:
        """The disk failed: have no role any more."""
        for partition in self.partitions.values():
            partition.role = PartitionRole.OFFLINE
        self.links = {}
        self.touched = {}
        self.unproposed = {}

    # -- end of a turn -----------------------------------------------------------------------------

    def settle(self, now_ms: int) -> Settled:
        """Once per turn: request syncs, move watermarks, propose ISR changes, fetch."""
        self._made_this_turn = 0
        if self.without_log and now_ms >= self.next_creation_ms:
            for key in tuple(islice(self.without_log, LOGS_MADE_PER_TURN)):
                self._apply_partition(key, now_ms)
        committed: list[Partition] = []
        touched = tuple(self.touched.values())
        for partition in touched:
            if self.partitions.get(partition.key) is partition:
                self._request_sync(partition.log)
            if partition.advance_high_watermark():
                committed.append(partition)
            if partition.role is PartitionRole.LEADER and len(partition.isr) < len(
                partition.replicas
            ):
                self._propose_isr(partition, now_ms)
        self.touched = {}
        if now_ms >= self.next_isr_check_ms:
            self.next_isr_check_ms = (
                now_ms + self.config.replica_lag_time_max_ms // ISR_CHECKS_PER_LAG
            )
            for partition in self.partitions.values():
                self._propose_isr(partition, now_ms)
        self._send_rounds(now_ms)
        return Settled(tuple(committed), touched)

    def _request_sync(self, log: PartitionLog) -> None:
        request = log.sync_request()
        if request is not None:
            self.outbox.add(sync_effect((log.topic_id, log.partition), request))

    def next_deadline_ms(self) -> int:
        deadlines = [self.next_isr_check_ms]
        if self.without_log:
            deadlines.append(self.next_creation_ms)
        for link in self.links.values():
            deadline_ms = link.next_deadline_ms(self.config.replica_fetch_timeout_ms)
            if deadline_ms is not None:
                deadlines.append(deadline_ms)
        return min(deadlines)

    # -- syncs -------------------------------------------------------------------------------------

    def on_synced(self, token: SyncToken) -> None:
        """A log is durable up to the token's end, unless it was cut since; either way what was
        written meanwhile may now be synced."""
        partition = self.partitions.get(token.log)
        log = partition.log if partition else self.logs.get(*token.log)
        if log is None:
            return
        proven = log.on_synced(token.generation, token.end_offset)
        for path in self.logs.take_removals():
            self.outbox.add(Remove(path))
        if partition is None:
            self._request_sync(log)
            return
        self.touched[partition.key] = partition
        if proven and partition.role is PartitionRole.FOLLOWER:
            partition.on_synced_as_follower()
            self.links[partition.leader_id].on_synced(partition.key)

    # -- ISR ---------------------------------------------------------------------------------------

    def _propose_isr(self, partition: Partition, now_ms: int) -> None:
        lag_ms_max = self.config.replica_lag_time_max_ms
        if partition.propose_isr(self.image.brokers, now_ms, lag_ms_max) is not None:
            self.unproposed[partition.key] = None

    def make_alter_request(self) -> AlterPartitionRequest | None:
        """All pending changes in one request, None without any; one is in flight at a time."""
        parts = []
        for key in self.unproposed:
            partition = self.partitions.get(key)
            if partition is None or partition.pending_isr is None:
                continue
            parts.append(
                AlterPartitionPart(
                    key[0],
                    key[1],
                    partition.leader_epoch,
                    partition.pending_isr.partition_epoch,
                    partition.pending_isr.members,
                )
            )
        self.unproposed = {}
        if not parts:
            return None
        return AlterPartitionRequest(self.config.node_id, self.broker_epoch, tuple(parts))

    def on_alter_response(self, response: AlterPartitionResponse) -> bool:
        """Take the controller's word on each part; True if some must be asked for again."""
        for result in response.parts:
            partition = self.partitions.get((result.topic_id, result.partition))
            if partition is not None:
                partition.on_alter_result(
                    result.error, result.leader_epoch, result.partition_epoch, result.isr
                )
                self.touched[partition.key] = partition
                if result.error is ErrorCode.NOT_CONTROLLER:
                    # Judged by a controller that knows less than we do: ask its successor.
                    self.unproposed[partition.key] = None
        return any(result.error is ErrorCode.NOT_CONTROLLER for result in response.parts)

    def repropose(self, request: AlterPartitionRequest) -> None:
        """The request may or may not have arrived: send what is still pending once more."""
        for part in request.parts:
            self.unproposed[part.topic_id, part.partition] = None

    # -- following ---------------------------------------------------------------------------------

    def _send_rounds(self, now_ms: int) -> None:
        for link in self.links.values():
            round_ = link.outstanding
            timeout_ms = self.config.replica_fetch_timeout_ms
            if round_ is not None and now_ms - round_.sent_at_ms >= timeout_ms:
                link.lose_round()
                self.outbox.add(ResetLink(link.leader_id, Plane.BROKER))
            if link.should_send(now_ms):
                request = link.make_request(
                    self.config.node_id,
                    self.broker_epoch,
                    wait_ms=self.config.replica_fetch_wait_max_ms,
                    part_bytes=self.config.replica_fetch_max_bytes,
                    total_bytes=self.config.replica_fetch_response_max_bytes,
                )
                link.sent(request, self.outbox.send(link.leader_id, Plane.BROKER, request), now_ms)

    def on_unsent(self, peer: int, correlation_id: int, now_ms: int) -> None:
        """A round did not leave: its partitions back off."""
        link = self.links.get(peer)
        if link is None or link.outstanding is None:
            return
        if link.outstanding.correlation_id == correlation_id:
            link.lose_round()
            retry_at_ms = now_ms + self.config.replica_fetch_backoff_ms
            for item in link.followed.values():
                if item.state is FetchState.FETCHING:
                    link.settle(item, Outcome.REFUSED, retry_at_ms)

    def on_fetch_response(
        self,
        peer: int,
        correlation_id: int,
        response: FetchResponse,
        payload: tuple[Buffer, ...],
        now_ms: int,
    ) -> None:
        link = self.links.get(peer)
        round_ = link.take_answer(correlation_id, response) if link else None
        if link is None or round_ is None:
            return
        frames = iter(payload)
        for result in response.parts:
            data = next(frames) if result.has_batches else None
            key = (result.topic_id, result.partition)
            item = link.followed.get(key)
            asked = link.asked(round_, key)
            if item is None or asked is None or item.state is not FetchState.FETCHING:
                continue
            # Ours only if nothing changed since we asked: same epoch, same log end.
            if asked != (item.leader_epoch, item.partition.log.log_end_offset):
                continue
            outcome = self._take_part(item.partition, result, data)
            link.settle(item, outcome, now_ms + self.config.replica_fetch_backoff_ms)

    def _take_part(
        self, partition: Partition, result: FetchPartResult, data: Buffer | None
    ) -> Outcome:
        """Act on one partition's part of an answer. A diverging answer truncates and nothing else:
        its watermark says nothing about what we hold (KAFKA-14704)."""
        if result.error is ErrorCode.FENCED_LEADER_EPOCH:
            return Outcome.FENCED
        self.touched[partition.key] = partition
        if result.error is ErrorCode.OFFSET_OUT_OF_RANGE:
            self._realign(partition, result)
            return Outcome.OUT_OF_RANGE
        if result.error is not ErrorCode.NONE:
            return Outcome.REFUSED
        if result.diverging_epoch >= 0:
            offset = truncation_offset(
                partition, result.diverging_epoch, result.diverging_end_offset
            )
            try:
                partition.truncate_to(offset)
            except CorruptFile as error:
                self.damages.find(partition, error)
                return Outcome.DAMAGED
            return Outcome.DIVERGED
        outcome = Outcome.EMPTY
        if data is not None:
            try:
                self._begin_with(partition, data)
                partition.log.append_as_follower(data)
            except (CorruptBatch, LogMismatch):
                return Outcome.CORRUPT
            except DiskError as error:
                if not error.unchanged:
                    raise
                return Outcome.REFUSED
            outcome = Outcome.APPENDED
        partition.on_leader_high_watermark(result.high_watermark)
        try:
            partition.raise_log_start(result.log_start_offset)
        except DiskError as error:
            if not error.unchanged:
                raise
        return outcome

    def _begin_with(self, partition: Partition, data: Buffer) -> None:
        """The leader's log may begin in the middle of a batch, after a deletion of records: an
        empty log then begins where that batch does (Kafka: UnexpectedAppendOffsetException)."""
        log = partition.log
        if log.log_start_offset == log.log_end_offset and len(data) >= HEADER_BYTES:
            header = read_header(data)
            if header.base_offset < log.log_end_offset <= header.last_offset:
                log.restart_at(header.base_offset)
                partition.high_watermark = header.base_offset

    def _realign(self, partition: Partition, result: FetchPartResult) -> None:
        """Our end lies outside the leader's log: below its start, or beyond its end."""
        log = partition.log
        if log.log_end_offset < result.log_start_offset:
            log.restart_at(result.log_start_offset)
            partition.high_watermark = result.log_start_offset
        elif result.log_end_offset < log.log_end_offset:
            partition.truncate_to(max(result.log_end_offset, partition.high_watermark))

    def isr_change_wanted(self) -> bool:
        return bool(self.unproposed)


def _configure_log(log: PartitionLog, config: TopicConfig) -> None:
    log.configure(
        config.flush,
        config.segment_bytes,
        config.segment_ms,
        may_lose_committed=may_lose_committed(config),
    )


def sync_effect(log: tuple[str, int], request: SyncRequest) -> Sync:
    return Sync(
        SyncToken(log, request.generation, request.end_offset), request.files, request.directories
    )
