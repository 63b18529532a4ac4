"""FETCH, by followers and consumers: check epochs, note counted ends, give bytes or wait.

Followers read up to the log end, consumers below the high watermark. The order of the checks is
Kafka's (Partition.fetchRecords): epoch before leadership before membership; divergence before any
effect on what the leader knows of the follower.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.events import Connection
from broker.log.errors import CorruptFile
from broker.outbox import Outbox
from broker.ports import Buffer
from broker.purgatory import ParkedFetch, Purgatory
from broker.replica.partition import Partition, PartitionRole
from broker.replica.replica_manager import ReplicaManager
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    CONSUMER_REPLICA_ID,
    FetchPart,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    Isolation,
)

ANSWER_BYTES_MAX = 1_048_576
"""Bytes read for one answer in one turn; the loop must not be held up by a big read."""
PARKED_MS_MAX = 60_000


class _Look(NamedTuple):
    """One part of a fetch, judged but not read."""

    part: FetchPart
    error: ErrorCode
    partition: Partition | None
    end_offset: int
    """How far this fetcher may read."""
    divergence: tuple[int, int] | None
    """Where the fetcher's history parts from ours, if it does: an epoch and its end here."""


class FetchHandler:
    def __init__(self, replicas: ReplicaManager, purgatory: Purgatory, outbox: Outbox) -> None:
        self.replicas = replicas
        self.purgatory = purgatory
        self.outbox = outbox
        self._counter = 0
        self._parked_of_follower: dict[int, Connection] = {}

    def handle(
        self, connection: Connection, correlation_id: int, request: FetchRequest, now_ms: int
    ) -> None:
        """A newer fetch of a connection, or of a follower, replaces the one that is parked."""
        self._answer_parked(connection)
        looks = [self._look(request, part) for part in request.parts]
        if request.replica_id != CONSUMER_REPLICA_ID:
            parked_at = self._parked_of_follower.pop(request.replica_id, None)
            if parked_at is not None:
                self._answer_parked(parked_at)
            self._note_follower(request, looks, now_ms)
        keys = tuple((part.topic_id, part.partition) for part in request.parts)
        wait_ms = min(max(request.max_wait_ms, 0), PARKED_MS_MAX)
        parked = ParkedFetch(connection, correlation_id, request, now_ms + wait_ms, keys)
        if wait_ms and self._should_wait(request, looks):
            self.purgatory.park_fetch(parked)
            if request.replica_id != CONSUMER_REPLICA_ID:
                self._parked_of_follower[request.replica_id] = connection
        else:
            self._answer(parked, looks)

    def _answer_parked(self, connection: Connection) -> None:
        parked = self.purgatory.take_fetch(connection)
        if parked is not None:
            self._reply(parked, (), [])

    def on_touched(self, parked: ParkedFetch) -> None:
        """Something a parked fetch names has changed: answer it if there is something to say."""
        looks = [self._look(parked.request, part) for part in parked.request.parts]
        if not self._should_wait(parked.request, looks):
            self.purgatory.take_fetch(parked.connection)
            self._answer(parked, looks)

    def answer(self, parked: ParkedFetch) -> None:
        """Answer a fetch whose time is over, with whatever there is."""
        self._answer(parked, [self._look(parked.request, part) for part in parked.request.parts])

    def _answer(self, parked: ParkedFetch, looks: list[_Look]) -> None:
        budget_bytes = min(parked.request.max_bytes, ANSWER_BYTES_MAX)
        results: list[FetchPartResult] = []
        frames: list[Buffer] = []
        for look in looks:
            try:
                data = _read(look, budget_bytes)
            except CorruptFile as error:
                look, data = self._damaged(look, error), b""
            results.append(_result(look, bool(data)))
            if data:
                frames.append(data)
                budget_bytes -= len(data)
        self._reply(parked, tuple(results), frames)

    def _reply(
        self, parked: ParkedFetch, results: tuple[FetchPartResult, ...], frames: list[Buffer]
    ) -> None:
        self._counter += 1
        response = FetchResponse(parked.request.fetch_round, self._counter, results)
        self.outbox.reply(parked.connection, parked.correlation_id, response, frames)

    def _should_wait(self, request: FetchRequest, looks: list[_Look]) -> bool:
        try:
            return _should_wait(request, looks)
        except CorruptFile:
            return False  # it is read for the answer, and found there

    def _damaged(self, look: _Look, error: CorruptFile) -> _Look:
        """What is asked for cannot be read any more; another leader may have it soon."""
        assert look.partition is not None
        self.replicas.damages.find(look.partition, error)
        return look._replace(error=ErrorCode.CORRUPT_MESSAGE)

    def _note_follower(self, request: FetchRequest, looks: list[_Look], now_ms: int) -> None:
        """Count a follower's ends, once per fetch and only where its history is ours."""
        for look in looks:
            if look.error is ErrorCode.NONE and look.divergence is None:
                assert look.partition is not None
                look.partition.on_follower_fetch(
                    request.replica_id,
                    request.broker_epoch,
                    request.fetch_round,
                    min(look.part.synced_end, look.part.fetch_offset),
                    now_ms,
                    look.part.log_start_offset,
                )
                self.replicas.touched[look.partition.key] = look.partition

    # -- one partition ---------------------------------------------------------------------------

    def _look(self, request: FetchRequest, part: FetchPart) -> _Look:
        error, partition = self._check(request, part)
        if error is not ErrorCode.NONE or partition is None:
            return _Look(part, error, partition, -1, None)
        log = partition.log
        is_consumer = request.replica_id == CONSUMER_REPLICA_ID
        end_offset = partition.high_watermark if is_consumer else log.log_end_offset
        divergence: tuple[int, int] | None = None
        if part.fetch_offset < log.log_start_offset:
            # Even when diverging: the cut would lie below our log (KAFKA-12996).
            error = ErrorCode.OFFSET_OUT_OF_RANGE
        elif part.last_fetched_epoch >= 0:
            found = log.epochs.end_offset_for(part.last_fetched_epoch, log.log_end_offset)
            if found is None:
                error = ErrorCode.OFFSET_OUT_OF_RANGE
            elif found[0] < part.last_fetched_epoch or found[1] < part.fetch_offset:
                divergence = found
        if error is ErrorCode.NONE and divergence is None and part.fetch_offset > end_offset:
            # A consumer that saw more than a fresh leader yet knows as committed waits; beyond
            # the log end nobody can be right.
            waits = is_consumer and part.fetch_offset <= log.log_end_offset
            error = ErrorCode.OFFSET_NOT_AVAILABLE if waits else ErrorCode.OFFSET_OUT_OF_RANGE
        return _Look(part, error, partition, end_offset, divergence)

    def _check(self, request: FetchRequest, part: FetchPart) -> tuple[ErrorCode, Partition | None]:
        """Whether this broker may serve this fetcher; on success the partition is a leader."""
        partition = self.replicas.partitions.get((part.topic_id, part.partition))
        if partition is None:
            known = part.topic_id in self.replicas.image.topics
            unknown = ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_ID
            return unknown, None
        if 0 <= part.leader_epoch < partition.leader_epoch:
            return ErrorCode.FENCED_LEADER_EPOCH, partition
        if part.leader_epoch > partition.leader_epoch:
            return ErrorCode.UNKNOWN_LEADER_EPOCH, partition
        if partition.role is not PartitionRole.LEADER:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, partition
        if request.replica_id != CONSUMER_REPLICA_ID:
            return self._check_follower(request, part, partition), partition
        if request.isolation is not Isolation.READ_UNCOMMITTED:
            return ErrorCode.INVALID_REQUEST, partition
        return ErrorCode.NONE, partition

    def _check_follower(
        self, request: FetchRequest, part: FetchPart, partition: Partition
    ) -> ErrorCode:
        """A follower must name this leader's epoch, and be the incarnation we know of."""
        if part.leader_epoch < 0 or request.replica_id == self.replicas.config.node_id:
            return ErrorCode.INVALID_REQUEST
        if request.replica_id not in partition.replicas:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        registered = self.replicas.image.brokers.get(request.replica_id)
        if registered is None or request.broker_epoch > registered.broker_epoch:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        if request.broker_epoch < registered.broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        return ErrorCode.NONE


def _should_wait(request: FetchRequest, looks: list[_Look]) -> bool:
    """Whether nothing is worth an answer yet: no error, no divergence, too few bytes."""
    available_bytes = 0
    for look in looks:
        if look.error is not ErrorCode.NONE or look.divergence is not None:
            return False
        assert look.partition is not None
        if look.part.log_start_offset < look.partition.log.log_start_offset and (
            request.replica_id != CONSUMER_REPLICA_ID
        ):
            return False
        if look.part.fetch_offset < look.end_offset:
            if request.min_bytes <= 1:
                return False
            available_bytes += look.partition.log.size_between(
                look.part.fetch_offset, look.end_offset
            )
    return available_bytes < max(request.min_bytes, 1)


def _read(look: _Look, budget_bytes: int) -> bytes:
    part = look.part
    readable = look.error is ErrorCode.NONE and look.divergence is None
    if not readable or part.fetch_offset >= look.end_offset or budget_bytes <= 0:
        return b""
    assert look.partition is not None
    max_bytes = min(part.max_bytes, budget_bytes)
    return look.partition.log.read(part.fetch_offset, max_bytes, look.end_offset)


def _result(look: _Look, has_batches: bool) -> FetchPartResult:
    part, partition = look.part, look.partition
    if partition is None:
        return FetchPartResult(
            part.topic_id, part.partition, look.error, -1, -1, -1, -1, -1, -1, -1, False
        )
    diverging_epoch, diverging_end_offset = look.divergence or (-1, -1)
    return FetchPartResult(
        part.topic_id,
        part.partition,
        look.error,
        partition.leader_id,
        partition.leader_epoch,
        partition.high_watermark,
        partition.log.log_start_offset,
        partition.log.log_end_offset,
        diverging_epoch,
        diverging_end_offset,
        has_batches,
    )
