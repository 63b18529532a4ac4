"""FETCH, by followers and consumers: check epochs, note counted ends, give bytes or wait.

Followers read up to the log end, consumers below the high watermark. The order of the checks is
Kafka's (Partition.fetchRecords): epoch before leadership before membership; divergence before any
effect on what the leader knows of the follower.
"""

from __future__ import annotations

from dataclasses import replace

from broker.events import Connection
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
        if request.replica_id != CONSUMER_REPLICA_ID:
            parked_at = self._parked_of_follower.pop(request.replica_id, None)
            if parked_at is not None:
                self._answer_parked(parked_at)
            self._note_follower(request, now_ms)
        keys = tuple((part.topic_id, part.partition) for part in request.parts)
        wait_ms = min(max(request.max_wait_ms, 0), PARKED_MS_MAX)
        parked = ParkedFetch(connection, correlation_id, request, now_ms + wait_ms, keys)
        if wait_ms and self._should_wait(request):
            self.purgatory.park_fetch(parked)
            if request.replica_id != CONSUMER_REPLICA_ID:
                self._parked_of_follower[request.replica_id] = connection
        else:
            self.answer(parked)

    def _answer_parked(self, connection: Connection) -> None:
        parked = self.purgatory.take_fetch(connection)
        if parked is not None:
            self._reply(parked, (), [])

    def on_touched(self, parked: ParkedFetch) -> None:
        """Something a parked fetch names has changed: answer it if there is something to say."""
        if not self._should_wait(parked.request):
            self.purgatory.take_fetch(parked.connection)
            self.answer(parked)

    def answer(self, parked: ParkedFetch) -> None:
        request = parked.request
        budget = min(request.max_bytes, ANSWER_BYTES_MAX)
        results: list[FetchPartResult] = []
        frames: list[Buffer] = []
        for part in request.parts:
            result, data = self._read_part(request, part, budget)
            results.append(result)
            if data:
                frames.append(data)
                budget -= len(data)
        self._reply(parked, tuple(results), frames)

    def _reply(
        self, parked: ParkedFetch, results: tuple[FetchPartResult, ...], frames: list[Buffer]
    ) -> None:
        self._counter += 1
        response = FetchResponse(parked.request.fetch_round, self._counter, results)
        self.outbox.reply(parked.connection, parked.correlation_id, response, frames)

    # -- one partition ---------------------------------------------------------------------------

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
        if part.leader_epoch < 0:
            return ErrorCode.INVALID_REQUEST
        if request.replica_id not in partition.replicas:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        registered = self.replicas.image.brokers.get(request.replica_id)
        if registered is None or request.broker_epoch > registered.broker_epoch:
            return ErrorCode.UNKNOWN_LEADER_EPOCH
        if request.broker_epoch < registered.broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        return ErrorCode.NONE

    def _divergence(self, partition: Partition, part: FetchPart) -> tuple[int, int] | None:
        """(-1, -1) when the fetcher's last batch is ours too, else where the histories part.
        None when our log cannot tell."""
        if part.last_fetched_epoch < 0:
            return -1, -1
        log = partition.log
        found = log.epochs.end_offset_for(part.last_fetched_epoch, log.log_end_offset)
        if found is None:
            return None
        if found[0] < part.last_fetched_epoch or found[1] < part.fetch_offset:
            return found
        return -1, -1

    def _note_follower(self, request: FetchRequest, now_ms: int) -> None:
        """Count a follower's ends, once per fetch and only where its history is ours."""
        for part in request.parts:
            error, partition = self._check(request, part)
            if error is not ErrorCode.NONE or partition is None:
                continue
            log = partition.log
            if not log.log_start_offset <= part.fetch_offset <= log.log_end_offset:
                continue
            if self._divergence(partition, part) != (-1, -1):
                continue
            partition.on_follower_fetch(
                request.replica_id,
                request.broker_epoch,
                request.fetch_round,
                min(part.synced_end, part.fetch_offset),
                now_ms,
            )
            self.replicas.touched[partition.key] = partition

    def _should_wait(self, request: FetchRequest) -> bool:
        """Whether nothing is worth an answer yet: no error, no divergence, too few bytes."""
        available = 0
        for part in request.parts:
            error, partition = self._check(request, part)
            if error is not ErrorCode.NONE or partition is None:
                return False
            end = self._readable_end(request, partition)
            if self._divergence(partition, part) != (-1, -1):
                return False
            if (
                not partition.log.log_start_offset
                <= part.fetch_offset
                <= max(end, partition.high_watermark)
            ):
                return False
            if part.fetch_offset < end:
                available += partition.log.size_between(part.fetch_offset, end)
        return available < max(request.min_bytes, 1)

    def _readable_end(self, request: FetchRequest, partition: Partition) -> int:
        if request.replica_id == CONSUMER_REPLICA_ID:
            return partition.high_watermark
        return partition.log.log_end_offset

    def _read_part(
        self, request: FetchRequest, part: FetchPart, budget_bytes: int
    ) -> tuple[FetchPartResult, Buffer]:
        error, partition = self._check(request, part)
        if error is not ErrorCode.NONE or partition is None:
            return self._empty(part, error, partition), b""
        log = partition.log
        end = self._readable_end(request, partition)
        if part.fetch_offset < log.log_start_offset:
            return self._empty(part, ErrorCode.OFFSET_OUT_OF_RANGE, partition), b""
        divergence = self._divergence(partition, part)
        if divergence is None:
            return self._empty(part, ErrorCode.OFFSET_OUT_OF_RANGE, partition), b""
        result = self._empty(part, ErrorCode.NONE, partition)
        if divergence != (-1, -1):
            return replace(
                result, diverging_epoch=divergence[0], diverging_end_offset=divergence[1]
            ), b""
        if part.fetch_offset > end:
            return self._beyond_end(request, part, partition, result), b""
        if part.fetch_offset == end or budget_bytes <= 0:
            return result, b""
        data = log.read(part.fetch_offset, min(part.max_bytes, budget_bytes), end)
        return (replace(result, has_batches=True) if data else result), data

    def _beyond_end(
        self,
        request: FetchRequest,
        part: FetchPart,
        partition: Partition,
        result: FetchPartResult,
    ) -> FetchPartResult:
        """A consumer that saw more than a fresh leader yet knows as committed waits; beyond the log
        end nobody can be right."""
        is_consumer = request.replica_id == CONSUMER_REPLICA_ID
        if is_consumer and part.fetch_offset <= partition.log.log_end_offset:
            return replace(result, error=ErrorCode.OFFSET_NOT_AVAILABLE)
        return replace(result, error=ErrorCode.OFFSET_OUT_OF_RANGE)

    def _empty(
        self, part: FetchPart, error: ErrorCode, partition: Partition | None
    ) -> FetchPartResult:
        if partition is None:
            return FetchPartResult(
                part.topic_id, part.partition, error, -1, -1, -1, -1, -1, -1, -1, False
            )
        return FetchPartResult(
            topic_id=part.topic_id,
            partition=part.partition,
            error=error,
            leader_id=partition.leader_id,
            leader_epoch=partition.leader_epoch,
            high_watermark=partition.high_watermark,
            log_start_offset=partition.log.log_start_offset,
            log_end_offset=partition.log.log_end_offset,
            diverging_epoch=-1,
            diverging_end_offset=-1,
            has_batches=False,
        )
