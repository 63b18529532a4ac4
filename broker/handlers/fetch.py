"""FETCH, by followers and consumers: check epochs, note counted ends, give bytes or wait.

Followers read up to the log end, consumers below the high watermark. The order of the checks is
Kafka's (Partition.fetchRecords): epoch before leadership before membership; divergence before any
effect on what the leader knows of the follower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from broker.events import Connection
from broker.handlers.fetch_sessions import FetchSession, FetchSessions
from broker.log.errors import CorruptFile
from broker.outbox import Outbox
from broker.ports import Buffer
from broker.purgatory import ParkedFetch, PartitionKey, Purgatory
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
UNKNOWN_MARK = -1


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
        self.sessions = FetchSessions()
        self._parked_sessions: dict[Connection, FetchSession] = {}

    def handle(
        self, connection: Connection, correlation_id: int, request: FetchRequest, now_ms: int
    ) -> None:
        """A newer fetch of a connection, or of a follower, replaces the one that is parked."""
        self._answer_parked(connection)
        session: FetchSession | None = None
        if request.session is not None and request.replica_id != CONSUMER_REPLICA_ID:
            session = self.sessions.take(request)
            if session is None:
                self._reply_lost(connection, correlation_id, request)
                return
        parts = request.parts if session is None else session.due_parts()
        looks = [self._look(request, part) for part in parts]
        if request.replica_id != CONSUMER_REPLICA_ID:
            parked_at = self._parked_of_follower.pop(request.replica_id, None)
            if parked_at is not None:
                self._answer_parked(parked_at)
            self._note_follower(request, looks, session, now_ms)
        keys: tuple[PartitionKey, ...] = ()
        if session is None:
            keys = tuple((part.topic_id, part.partition) for part in request.parts)
        wait_ms = min(max(request.max_wait_ms, 0), PARKED_MS_MAX)
        parked = ParkedFetch(connection, correlation_id, request, now_ms + wait_ms, keys)
        if wait_ms and self._should_wait(request, looks):
            self.purgatory.park_fetch(parked)
            if session is not None:
                session.parked = parked
                self._parked_sessions[connection] = session
            if request.replica_id != CONSUMER_REPLICA_ID:
                self._parked_of_follower[request.replica_id] = connection
        else:
            self._answer(parked, looks, session)

    def _reply_lost(
        self, connection: Connection, correlation_id: int, request: FetchRequest
    ) -> None:
        self._counter += 1
        response = FetchResponse(request.fetch_round, self._counter, (), session_lost=True)
        self.outbox.reply(connection, correlation_id, response)

    def _answer_parked(self, connection: Connection) -> None:
        parked = self.purgatory.take_fetch(connection)
        if parked is not None:
            self._unpark(parked)
            self._reply(parked, (), [])

    def _unpark(self, parked: ParkedFetch) -> FetchSession | None:
        session = self._parked_sessions.pop(parked.connection, None)
        if session is not None:
            session.parked = None
        return session

    def on_settled(self, partitions: Sequence[Partition], now_ms: int) -> None:
        """Partitions have changed: answer the parked fetches that it is news for."""
        for named in self.purgatory.fetches_on(partition.key for partition in partitions):
            self._on_touched(named)
        for session in self.sessions.touch(partition.key for partition in partitions):
            parked = session.parked
            assert parked is not None
            looks = [self._look(parked.request, part) for part in session.due_parts()]
            self._note_follower(parked.request, looks, session, now_ms)
            if not self._should_wait(parked.request, looks):
                self.purgatory.take_fetch(parked.connection)
                self._answer(parked, looks, self._unpark(parked))

    def _on_touched(self, parked: ParkedFetch) -> None:
        """Something a parked fetch names has changed: answer it if there is something to say."""
        looks = [self._look(parked.request, part) for part in parked.request.parts]
        if not self._should_wait(parked.request, looks):
            self.purgatory.take_fetch(parked.connection)
            self._answer(parked, looks, None)

    def answer(self, parked: ParkedFetch) -> None:
        """Answer a fetch whose time is over, with whatever there is."""
        session = self._unpark(parked)
        parts = parked.request.parts if session is None else session.due_parts()
        self._answer(parked, [self._look(parked.request, part) for part in parts], session)

    def _answer(
        self, parked: ParkedFetch, looks: list[_Look], session: FetchSession | None
    ) -> None:
        budget_bytes = min(parked.request.max_bytes, ANSWER_BYTES_MAX)
        results: list[FetchPartResult] = []
        frames: list[Buffer] = []
        for look in looks:
            try:
                data = _read(look, budget_bytes)
            except CorruptFile as error:
                look, data = self._damaged(look, error), b""
            if session is not None and not _note_told(session, look, bool(data)):
                continue
            results.append(_result(look, bool(data)))
            if data:
                frames.append(data)
                budget_bytes -= len(data)
        self._reply(parked, tuple(results), frames)
        if session is not None:
            session.told_counter = self._counter

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

    def _note_follower(
        self,
        request: FetchRequest,
        looks: list[_Look],
        session: FetchSession | None,
        now_ms: int,
    ) -> None:
        """Count a follower's ends, once for each time it tells them and only where its history is
        ours."""
        for look in looks:
            key = (look.part.topic_id, look.part.partition)
            if session is not None and key not in session.unnoted:
                continue
            if session is not None and look.divergence is not None:
                session.unnoted.pop(key, None)  # it will cut, and tell its new end
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
                if session is not None:
                    session.unnoted.pop(key, None)

    # -- one partition ---------------------------------------------------------------------------

    def _look(self, request: FetchRequest, part: FetchPart) -> _Look:
        error, partition = self._check(request, part)
        if error is not ErrorCode.NONE or partition is None:
            return _Look(part, error, partition, -1, None)
        log = partition.log
        is_consumer = request.replica_id == CONSUMER_REPLICA_ID
        end_offset = partition.high_watermark if is_consumer else log.log_end_offset
        divergence: tuple[int, int] | None = None
        start_offset = log.log_start_offset
        if part.fetch_offset < start_offset and not is_consumer:
            start_offset = log.first_batch_offset  # who copies needs the whole batch
        if part.fetch_offset < start_offset:
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


def _note_told(session: FetchSession, look: _Look, has_batches: bool) -> bool:
    """Whether the answer has something to say of a partition; it stays due until that is sure to
    have arrived, or if there was no room for its bytes."""
    key = (look.part.topic_id, look.part.partition)
    if look.error is not ErrorCode.NONE or look.divergence is not None:
        session.is_told(key, UNKNOWN_MARK)  # the watermark beside it is not taken
        return True
    assert look.partition is not None
    if has_batches:
        session.is_told(key, look.partition.high_watermark)
        return True
    if look.part.fetch_offset < look.end_offset:
        return False
    if session.marks.get(key, UNKNOWN_MARK) == look.partition.high_watermark and (
        look.part.log_start_offset >= look.partition.log.log_start_offset
    ):
        del session.due[key]
        return False
    session.is_told(key, look.partition.high_watermark)
    return True


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
