"""LIST_OFFSETS: where a partition begins, where its committed part ends, what came at a time."""

from __future__ import annotations

from broker.events import Connection
from broker.log.errors import CorruptFile
from broker.outbox import Outbox
from broker.replica.partition import PartitionRole
from broker.replica.replica_manager import ReplicaManager
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    ListOffsetsPart,
    ListOffsetsPartResult,
    ListOffsetsRequest,
    ListOffsetsResponse,
)
from broker.wire.record_batch import CorruptBatch


class ListOffsetsHandler:
    def __init__(self, replicas: ReplicaManager, outbox: Outbox) -> None:
        self.replicas = replicas
        self.outbox = outbox

    def handle(
        self, connection: Connection, correlation_id: int, request: ListOffsetsRequest
    ) -> None:
        response = ListOffsetsResponse(tuple(self._list_part(part) for part in request.parts))
        self.outbox.reply(connection, correlation_id, response)

    def _list_part(self, part: ListOffsetsPart) -> ListOffsetsPartResult:
        partition = self.replicas.partitions.get((part.topic_id, part.partition))
        error, offset, timestamp_ms = ErrorCode.NONE, -1, -1
        if partition is None:
            known = part.topic_id in self.replicas.image.topics
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_ID
        elif 0 <= part.leader_epoch < partition.leader_epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif part.leader_epoch > partition.leader_epoch:
            error = ErrorCode.UNKNOWN_LEADER_EPOCH
        elif partition.role is not PartitionRole.LEADER:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        elif part.timestamp_ms == EARLIEST_TIMESTAMP:
            offset = partition.log.log_start_offset
        elif partition.high_watermark < partition.epoch_start_offset:
            # A fresh leader may know less as committed than its predecessor told clients: its
            # answer would go back (KIP-207).
            error = ErrorCode.OFFSET_NOT_AVAILABLE
        elif part.timestamp_ms == LATEST_TIMESTAMP:
            offset = partition.high_watermark
        elif part.timestamp_ms < 0:
            error = ErrorCode.INVALID_TIMESTAMP
        else:
            try:
                found = partition.log.offset_for_timestamp(
                    part.timestamp_ms, partition.high_watermark
                )
            except CorruptBatch:
                # Records are not decoded when they are produced: a client may have sent anything.
                error, found = ErrorCode.CORRUPT_MESSAGE, None
            except CorruptFile as damage:
                self.replicas.damages.find(partition, damage)
                error, found = ErrorCode.CORRUPT_MESSAGE, None
            if found is not None:
                timestamp_ms, offset = found
        leader_epoch = partition.leader_epoch if partition is not None else -1
        return ListOffsetsPartResult(
            part.topic_id, part.partition, error, offset, timestamp_ms, leader_epoch
        )
