"""The consumer without sockets: positions, fetches ahead of the reader, resets.

`FetcherCore` is driven by `consumer` and by the simulator alike: hand over everything that has
arrived, then a `Tick`; carry out the effects; `take` records. Each broker has one fetch of ours,
sent as soon as the reader has begun the last chunk that it brought, so that one chunk is on its way
while another is read.

A position goes forward with the records handed out. It goes anywhere else only by `seek` or by a
reset, and each of these is an effect (`PositionChanged`): histories record them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.wire.errors import ERRORS, ApiError, ErrorCode
from broker.wire.messages import (
    CONSUMER_REPLICA_ID,
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    FetchPart,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    Isolation,
)
from client.cluster import ClusterCore
from client.config import ConsumerConfig
from client.errors import ClientError, CorruptRecords, NoOffset, NotAssigned
from client.events import NEVER_MS, Buffer, CloseConnection, Draw, Event, Send, Tick
from client.fetched import ConsumerRecord, FetchedBatch, FetchedPartition
from client.offsets import Lookup, OffsetLookups
from client.requests import Ended
from client.retry import backoff_ms

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class PositionChanged:
    """Effect: a position was set other than by reading. `reason`: seek, initial, out of range."""

    topic: str
    partition: int
    old_offset: int
    """-1 if there was none."""
    new_offset: int
    reason: str


FetcherEffect = Send | CloseConnection | PositionChanged


class _Assigned:
    """One assigned partition."""

    __slots__ = (
        "asked_round",
        "failure",
        "failures",
        "fetched",
        "high_watermark",
        "is_paused",
        "lookup",
        "lookup_from",
        "lookup_reason",
        "partition",
        "retry_at_ms",
        "topic",
        "topic_id",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.topic_id = ""
        """Of the topic that the position belongs to; empty until the first fetch."""
        self.fetched: FetchedPartition | None = None
        """Position and bytes; replaced as a whole by a seek or reset. None: no position yet."""
        self.lookup: Lookup | None = None
        """The position that is being looked up."""
        self.lookup_reason = "initial"
        self.lookup_from = -1
        """The position that a reset or seek left; -1 if there was none."""
        self.asked_round = 0
        """The newest fetch under way that asks for the next bytes of `fetched`; 0: none does."""
        self.is_paused = False
        self.failures = 0
        self.retry_at_ms = 0
        self.failure: ClientError | ApiError | None = None
        """What the reader must be told; until a seek nothing is fetched."""
        self.high_watermark = -1


@dataclass(frozen=True, slots=True)
class _Sent:
    """Context of a fetch. An answer for a partition that was sought meanwhile is dropped."""

    node_id: int
    fetch_round: int
    parts: tuple[tuple[_Assigned, FetchedPartition, int], ...]
    """(partition, what it held, offset asked for)"""


class FetcherCore:
    """Assigned partitions, their positions and what was fetched of them."""

    def __init__(self, config: ConsumerConfig, draw: Draw) -> None:
        self.config = config
        self.cluster = ClusterCore(config, draw)
        self.lookups = OffsetLookups(self.cluster, draw)
        self._draw = draw
        self._assigned: dict[TopicPartition, _Assigned] = {}
        self._fetching: dict[int, int] = {}
        """Fetches under way, by node."""
        self._fetch_round = 0
        self._changes: list[PositionChanged] = []
        self._turn = 0
        self._needs_tick = True
        self._wake_ms = NEVER_MS

    # --- what the reader says ---------------------------------------------------------------------

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these. Who stays keeps position and buffered records."""
        wanted = list(dict.fromkeys(partitions))
        for gone in [entry for entry in self._assigned if entry not in wanted]:
            self._drop_lookup(self._assigned.pop(gone))
        for topic, partition in wanted:
            self.cluster.want(topic)
            self._assigned.setdefault((topic, partition), _Assigned(topic, partition))
        self._needs_tick = True

    def assignment(self) -> list[TopicPartition]:
        return list(self._assigned)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`. Whatever was fetched or is on its way is dropped."""
        state = self._state(topic, partition)
        self._drop_lookup(state)
        state.topic_id = ""
        self._set_position(state, offset, "seek")

    def seek_to(self, topic: str, partition: int, timestamp_ms: int) -> None:
        """Read on from an offset to be looked up: by time, or EARLIEST_ or LATEST_TIMESTAMP."""
        state = self._state(topic, partition)
        state.topic_id = ""
        self._start_lookup(state, timestamp_ms, "seek")

    def pause(self, topic: str, partition: int) -> None:
        """Hand out and fetch nothing of it until `resume`; what is buffered stays."""
        self._state(topic, partition).is_paused = True

    def resume(self, topic: str, partition: int) -> None:
        self._state(topic, partition).is_paused = False
        self._needs_tick = True

    def paused(self) -> list[TopicPartition]:
        return [entry for entry, state in self._assigned.items() if state.is_paused]

    def position(self, topic: str, partition: int) -> int | None:
        """The offset of the next record; None while it is looked up."""
        state = self._state(topic, partition)
        self._raise_failure(state)
        return state.fetched.position if state.fetched else None

    def high_watermark(self, topic: str, partition: int) -> int:
        """By the last fetch; -1 before."""
        return self._state(topic, partition).high_watermark

    def has_something(self) -> bool:
        """Whether `take` would return or raise something; it may be less than it seems."""
        return any(
            state.failure is not None
            or (state.fetched is not None and not state.fetched.is_drained)
            for state in self._assigned.values()
            if not state.is_paused
        )

    def take(self, record_count_max: int) -> list[ConsumerRecord]:
        """Records that are here, partition by partition in turn, each in order.

        Raises, once per call, what stops a partition: ApiError, NoOffset, CorruptRecords.
        """
        taken: list[ConsumerRecord] = []
        for state in self._in_turn():
            if state.fetched is not None and len(taken) < record_count_max:
                had_unread_chunk = state.fetched.has_unread_chunk
                try:
                    records = state.fetched.take(record_count_max - len(taken))
                except CorruptRecords as error:
                    state.failure = error
                    records = []
                taken = taken + records if taken else records
                if not records or had_unread_chunk != state.fetched.has_unread_chunk:
                    self._needs_tick = True  # there is something to fetch
            if not taken:
                self._raise_failure(state)
        return taken

    def take_batches(self, batch_count_max: int) -> list[FetchedBatch]:
        """As `take`, with batches as they came."""
        taken: list[FetchedBatch] = []
        for state in self._in_turn():
            while state.fetched is not None and len(taken) < batch_count_max:
                batch = state.fetched.take_batch()
                if batch is None:
                    break
                taken.append(batch)
            if not taken:
                self._raise_failure(state)
        self._needs_tick = True
        return taken

    def _raise_failure(self, state: _Assigned) -> None:
        failure = state.failure
        if failure is None:
            return
        if isinstance(failure, CorruptRecords):
            state.failure = None  # fetched again: the next bytes may be sound
        raise failure.with_traceback(None)

    def _in_turn(self) -> Sequence[_Assigned]:
        states = [state for state in self._assigned.values() if not state.is_paused]
        if not states:
            return ()
        self._turn = (self._turn + 1) % len(states)
        return states[self._turn :] + states[: self._turn]

    def _state(self, topic: str, partition: int) -> _Assigned:
        state = self._assigned.get((topic, partition))
        if state is None:
            raise NotAssigned(f"{topic}-{partition} is not assigned: call assign() first")
        return state

    # --- turns ------------------------------------------------------------------------------------

    def handle(self, event: Event, now_ms: int) -> list[FetcherEffect]:
        """One event; whatever is to be sent leaves with the next `Tick`."""
        for ended in self.cluster.absorb(event, now_ms):
            self._on_ended(ended, now_ms)
        if isinstance(event, Tick):
            self._on_tick(now_ms)
        else:
            self._needs_tick = True
        effects: list[FetcherEffect] = [*self.cluster.take_effects(), *self._changes]
        self._changes.clear()
        return effects

    def next_deadline_ms(self) -> int:
        """When a `Tick` is due even if nothing arrives."""
        if self._needs_tick:
            return 0
        return min(self._wake_ms, self.cluster.next_deadline_ms(), self.lookups.next_deadline_ms())

    def _on_tick(self, now_ms: int) -> None:
        self._needs_tick = False
        self._wake_ms = NEVER_MS
        for ended in self.cluster.run(now_ms):
            self._on_ended(ended, now_ms)
        for state in self._assigned.values():
            self._settle_position(state)
        self.lookups.run(now_ms)
        by_node: dict[int, list[tuple[_Assigned, FetchPart]]] = {}
        full_nodes: set[int] = set()
        for state in self._assigned.values():
            self._plan(state, by_node, full_nodes, now_ms)
        for node_id, planned in by_node.items():
            # A fetch under way may be parked for long. One that asks for more replaces it: the
            # broker then answers the older one at once.
            under_way = self._fetching.get(node_id, 0)
            asks_more = any(state.asked_round == 0 for state, _ in planned)
            if node_id not in full_nodes and (not under_way or (asks_more and under_way == 1)):
                self._fetch(node_id, planned, now_ms)

    def _on_ended(self, ended: Ended, now_ms: int) -> None:
        context = ended.request.context
        if isinstance(context, _Sent):
            self._on_fetched(context, ended, now_ms)
        else:
            assert isinstance(context, tuple), "the other requests are lookups"
            self.lookups.on_ended(context, ended, now_ms)

    # --- positions --------------------------------------------------------------------------------

    def _settle_position(self, state: _Assigned) -> None:
        """Begin or end the look-up of a position that is missing."""
        if state.fetched is not None or state.failure is not None:
            return
        if state.lookup is None:
            self._reset(state, "initial")
        elif state.lookup.is_done:
            lookup, state.lookup = state.lookup, None
            if lookup.error is not ErrorCode.NONE:
                state.failure = ApiError(
                    lookup.error, f"{state.topic}-{state.partition}: no offset to be had"
                )
            elif lookup.offset < 0 and lookup.timestamp_ms >= 0:
                # No record is that young: the end it is.
                self._start_lookup(state, LATEST_TIMESTAMP, state.lookup_reason)
            else:
                self._set_position(state, lookup.offset, state.lookup_reason)

    def _reset(self, state: _Assigned, reason: str) -> None:
        policy = self.config.auto_offset_reset
        if policy == "none":
            state.failure = NoOffset(
                f"{state.topic}-{state.partition}: position {reason}, and auto_offset_reset is "
                "none: seek() somewhere"
            )
            return
        timestamp_ms = EARLIEST_TIMESTAMP if policy == "earliest" else LATEST_TIMESTAMP
        self._start_lookup(state, timestamp_ms, reason)

    def _start_lookup(self, state: _Assigned, timestamp_ms: int, reason: str) -> None:
        self._drop_lookup(state)
        state.failure = None
        state.lookup_reason = reason
        state.lookup = self.lookups.start(Lookup(state.topic, state.partition, timestamp_ms))
        if state.fetched is not None:
            state.lookup_from = state.fetched.position
        state.fetched = None
        state.asked_round = 0
        self._needs_tick = True

    def _drop_lookup(self, state: _Assigned) -> None:
        if state.lookup is not None:
            self.lookups.cancel(state.lookup)
            state.lookup = None

    def _set_position(self, state: _Assigned, offset: int, reason: str) -> None:
        old_offset = state.fetched.position if state.fetched else state.lookup_from
        state.fetched = FetchedPartition(
            state.topic, state.partition, offset, self.config.check_crcs
        )
        state.asked_round = 0
        state.failure = None
        state.failures = 0
        state.retry_at_ms = 0
        state.lookup_from = -1
        self._needs_tick = True
        self._changes.append(
            PositionChanged(state.topic, state.partition, old_offset, offset, reason)
        )

    # --- fetches ----------------------------------------------------------------------------------

    def _plan(
        self,
        state: _Assigned,
        by_node: dict[int, list[tuple[_Assigned, FetchPart]]],
        full_nodes: set[int],
        now_ms: int,
    ) -> None:
        """Put a partition that wants bytes on its leader's list.

        A node of which a whole chunk waits unread is left alone, also for its other partitions:
        a fetch for these alone would be parked, and the busy one would wait behind it.
        """
        fetched = state.fetched
        if fetched is None or state.is_paused or state.failure is not None:
            return
        topic = self.cluster.metadata.topics.get(state.topic)
        leader = self.cluster.metadata.leader(state.topic, state.partition)
        if topic is None or leader is None or leader.node_id < 0:
            self.cluster.request_refresh(now_ms)
            return
        if state.topic_id not in ("", topic.topic_id):
            state.failure = ApiError(
                ErrorCode.UNKNOWN_TOPIC_ID,
                f"{state.topic} was deleted and made anew: seek() to read the new one",
            )
            return
        if fetched.has_unread_chunk:
            full_nodes.add(leader.node_id)
            return
        ready_ms = max(state.retry_at_ms, self.cluster.router.ready_ms(leader.node_id))
        if ready_ms > now_ms or not self.cluster.router.is_ready(leader.node_id, now_ms):
            self.cluster.request_refresh(now_ms)
            if ready_ms > now_ms:
                self._wake_ms = min(self._wake_ms, ready_ms)
            return
        state.topic_id = topic.topic_id
        part = FetchPart(
            topic.topic_id,
            state.partition,
            leader.leader_epoch,
            last_fetched_epoch=-1,
            fetch_offset=fetched.fetch_offset,
            synced_end=-1,
            log_start_offset=-1,
            max_bytes=self.config.max_partition_fetch_bytes,
        )
        by_node.setdefault(leader.node_id, []).append((state, part))

    def _fetch(self, node_id: int, planned: list[tuple[_Assigned, FetchPart]], now_ms: int) -> None:
        self._fetch_round += 1
        turn = self._fetch_round % len(planned)
        planned = planned[turn:] + planned[:turn]
        request = FetchRequest(
            CONSUMER_REPLICA_ID,
            broker_epoch=-1,
            fetch_round=self._fetch_round,
            echo=-1,
            max_wait_ms=self.config.fetch_max_wait_ms,
            min_bytes=self.config.fetch_min_bytes,
            max_bytes=self.config.fetch_max_bytes,
            isolation=Isolation.READ_UNCOMMITTED,
            parts=tuple(part for _, part in planned),
        )
        for state, _ in planned:
            state.asked_round = self._fetch_round
        context = _Sent(
            node_id,
            self._fetch_round,
            tuple(
                (state, state.fetched, part.fetch_offset)
                for state, part in planned
                if state.fetched is not None
            ),
        )
        timeout_ms = self.config.fetch_max_wait_ms + self.config.request_timeout_ms
        self._fetching[node_id] = self._fetching.get(node_id, 0) + 1
        self.cluster.send(node_id, request, (), context, timeout_ms, now_ms)

    def _on_fetched(self, sent: _Sent, ended: Ended, now_ms: int) -> None:
        self._fetching[sent.node_id] -= 1
        for state, _, _ in sent.parts:
            if state.asked_round == sent.fetch_round:
                state.asked_round = 0
        if not isinstance(ended.answer, FetchResponse):
            self.cluster.request_refresh(now_ms)
            return
        answers: dict[tuple[str, int], tuple[FetchPartResult, Buffer | None]] = {}
        frames = iter(ended.payload)
        for part in ended.answer.parts:
            frame = next(frames, None) if part.has_batches else None
            answers[(part.topic_id, part.partition)] = (part, frame)
        for state, fetched, offset in sent.parts:
            answer = answers.get((state.topic_id, state.partition))
            if answer is not None and state.fetched is fetched and fetched.fetch_offset == offset:
                self._on_part(state, fetched, answer[0], answer[1], now_ms)

    def _on_part(
        self,
        state: _Assigned,
        fetched: FetchedPartition,
        part: FetchPartResult,
        frame: Buffer | None,
        now_ms: int,
    ) -> None:
        if part.error is ErrorCode.NONE:
            state.failures = 0
            state.high_watermark = max(state.high_watermark, part.high_watermark)
            if frame is not None:
                try:
                    fetched.add(frame)
                except CorruptRecords as error:
                    state.failure = error
            return
        self.cluster.metadata.learn_leader(
            state.topic, state.topic_id, state.partition, part.leader_id, part.leader_epoch
        )
        row = ERRORS[part.error]
        # Only when all before it was handed out is it the position that is out of range.
        if part.error is ErrorCode.OFFSET_OUT_OF_RANGE and fetched.is_drained:
            self._reset(state, "out of range")
        elif row.retriable or part.error is ErrorCode.OFFSET_OUT_OF_RANGE:
            state.failures += 1
            state.retry_at_ms = now_ms + backoff_ms(
                state.failures,
                self.config.retry_backoff_ms,
                self.config.retry_backoff_max_ms,
                self._draw,
            )
            if row.refresh_metadata:
                self.cluster.request_refresh(now_ms)
        else:
            state.failure = ApiError(part.error, f"{state.topic}-{state.partition}")
