"""DELETE_RECORDS: let partitions begin later (KIP-107), and answer when that will stay so.

The leader moves its log's beginning at once; followers learn it by their next fetch. The answer
waits until every member of the committed ISR says that its log begins there or later, and our own
beginning is on disk: a successor then begins no earlier. Without that in time: REQUEST_TIMED_OUT.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.events import Connection
from broker.outbox import Outbox
from broker.ports import DiskError
from broker.replica.partition import Partition, PartitionKey, PartitionRole
from broker.replica.replica_manager import ReplicaManager
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    UP_TO_HIGH_WATERMARK,
    DeleteRecordsPart,
    DeleteRecordsPartResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
)

PARKED_MS_MAX = 60_000


@dataclass(slots=True)
class _Parked:
    connection: Connection
    correlation_id: int
    deadline_ms: int
    results: list[DeleteRecordsPartResult | None]
    waiting: dict[PartitionKey, tuple[int, int]] = field(default_factory=dict)
    """Partition -> (position in the request, offset at which it is to begin)."""


class DeleteRecordsHandler:
    def __init__(self, replicas: ReplicaManager, outbox: Outbox) -> None:
        self._replicas = replicas
        self._outbox = outbox
        self._parked: list[_Parked] = []

    def handle(
        self,
        connection: Connection,
        correlation_id: int,
        request: DeleteRecordsRequest,
        now_ms: int,
    ) -> None:
        wait_ms = min(max(request.timeout_ms, 0), PARKED_MS_MAX)
        results: list[DeleteRecordsPartResult | None] = [None] * len(request.parts)
        parked = _Parked(connection, correlation_id, now_ms + wait_ms, results)
        for position, part in enumerate(request.parts):
            error, offset = self._begin(part)
            if error is ErrorCode.NONE:
                parked.waiting[part.topic_id, part.partition] = (position, offset)
            else:
                parked.results[position] = _result(part.topic_id, part.partition, error, -1)
        self._parked.append(parked)
        for key in tuple(parked.waiting):
            self._replicas.touched[key] = self._replicas.partitions[key]
        self._answer_if_done(parked)

    def _begin(self, part: DeleteRecordsPart) -> tuple[ErrorCode, int]:
        key = (part.topic_id, part.partition)
        partition = self._replicas.partitions.get(key)
        if partition is None:
            known = part.topic_id in self._replicas.image.topics
            unknown = ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_ID
            return unknown, -1
        if partition.role is not PartitionRole.LEADER:
            return ErrorCode.NOT_LEADER_OR_FOLLOWER, -1
        offset = part.before_offset
        if offset == UP_TO_HIGH_WATERMARK:
            offset = partition.high_watermark
        if not 0 <= offset <= partition.high_watermark:
            return ErrorCode.OFFSET_OUT_OF_RANGE, -1
        try:
            partition.raise_log_start(offset)
        except DiskError as error:
            if not error.unchanged:
                raise
            return ErrorCode.STORAGE_ERROR, -1
        return ErrorCode.NONE, offset

    def on_settled(self, partition: Partition) -> None:
        """A log, an ISR or what a follower told of its log has changed."""
        for parked in tuple(self._parked):
            place = parked.waiting.get(partition.key)
            if place is None:
                continue
            position, offset = place
            error = ErrorCode.NONE
            if partition.role is not PartitionRole.LEADER:
                error = ErrorCode.NOT_LEADER_OR_FOLLOWER
            elif partition.settled_log_start < offset:
                continue
            del parked.waiting[partition.key]
            start_offset = partition.log.log_start_offset if error is ErrorCode.NONE else -1
            parked.results[position] = _result(*partition.key, error, start_offset)
            self._answer_if_done(parked)

    def tick(self, now_ms: int) -> None:
        for parked in tuple(self._parked):
            if parked.deadline_ms <= now_ms:
                for key, (position, _) in parked.waiting.items():
                    result = _result(*key, ErrorCode.REQUEST_TIMED_OUT, -1)
                    parked.results[position] = result
                parked.waiting = {}
                self._answer_if_done(parked)

    def next_deadline_ms(self) -> int | None:
        return min((parked.deadline_ms for parked in self._parked), default=None)

    def _answer_if_done(self, parked: _Parked) -> None:
        if not parked.waiting:
            self._parked.remove(parked)
            results = tuple(result for result in parked.results if result is not None)
            response = DeleteRecordsResponse(results)
            self._outbox.reply(parked.connection, parked.correlation_id, response)


def _result(
    topic_id: str, partition: int, error: ErrorCode, log_start_offset: int
) -> DeleteRecordsPartResult:
    return DeleteRecordsPartResult(topic_id, partition, error, log_start_offset)
