"""PRODUCE: check a batch by its header, append it, and answer when its acks are fulfilled.

Every refusal before the append says appended=no; once bytes may be in the log, a failure says
maybe. acks=all is decided in the step in which the watermark passes the batch, on the committed
ISR of that step. Records are never decoded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.events import Connection, Fact
from broker.log.producer_state import VerdictKind
from broker.outbox import Outbox
from broker.ports import Buffer, DiskError
from broker.purgatory import AwaitedPart, ParkedProduce, PartitionKey, Purgatory, failed_part
from broker.replica.partition import Partition, PartitionRole
from broker.replica.replica_manager import ReplicaManager
from broker.wire.batch_header import BatchHeader
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    ACKS_ALL,
    Appended,
    ProducePart,
    ProducePartResult,
    ProduceRequest,
)
from broker.wire.record_batch import CorruptBatch, check_produced_batch, stamp_append_time

LOG_APPEND_TIME = "LogAppendTime"
PARKED_MS_MAX = 300_000
"""A larger timeout_ms in a request is cut to this."""


class ProduceHandler:
    def __init__(
        self,
        replicas: ReplicaManager,
        purgatory: Purgatory,
        outbox: Outbox,
        wall_ms: Callable[[], int],
    ) -> None:
        self.replicas = replicas
        self.wall_ms = wall_ms
        self.purgatory = purgatory
        self.outbox = outbox

    # -- arrival -----------------------------------------------------------------------------------

    def handle(
        self,
        connection: Connection,
        correlation_id: int,
        request: ProduceRequest,
        payload: Sequence[Buffer],
        now_ms: int,
    ) -> None:
        timeout_ms = min(max(request.timeout_ms, 0), PARKED_MS_MAX)
        count = len(request.parts)
        parked = ParkedProduce(
            connection,
            correlation_id,
            request.acks,
            now_ms + timeout_ms,
            tuple((part.topic_id, part.partition) for part in request.parts),
            [None] * count,
            count,
        )
        for index, part in enumerate(request.parts):
            refusal = self._produce_part(parked, index, part, payload[index], now_ms)
            if refusal is not None:
                self._resolve(parked, index, refusal)
        if parked.open_parts:
            self.purgatory.park_produce(parked)
        elif count == 0:
            self._answer(parked)

    def _produce_part(
        self, parked: ParkedProduce, index: int, part: ProducePart, batch: Buffer, now_ms: int
    ) -> ProducePartResult | None:
        """Append one batch and let it wait, or return why not."""
        key = (part.topic_id, part.partition)
        partition = self.replicas.partitions.get(key)
        refusal = self._refuse_partition(key, partition, part, parked.acks)
        if refusal is not None:
            return refusal
        assert partition is not None
        try:
            header = check_produced_batch(batch)
        except CorruptBatch as error:
            return failed_part(key, ErrorCode.CORRUPT_MESSAGE, Appended.NO, detail=str(error))
        if header.size_bytes > partition.config.message_max_bytes:
            return failed_part(
                key,
                ErrorCode.MESSAGE_TOO_LARGE,
                Appended.NO,
                detail=f"{header.size_bytes} bytes, "
                f"message_max_bytes is {partition.config.message_max_bytes}",
            )
        return self._append(parked, index, partition, batch, header, now_ms)

    def _refuse_partition(
        self, key: PartitionKey, partition: Partition | None, part: ProducePart, acks: int
    ) -> ProducePartResult | None:
        if acks not in (0, 1, ACKS_ALL):
            return failed_part(key, ErrorCode.INVALID_REQUIRED_ACKS, Appended.NO)
        if partition is None:
            known = key[0] in self.replicas.image.topics
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER if known else ErrorCode.UNKNOWN_TOPIC_ID
            return failed_part(key, error, Appended.NO)
        error = ErrorCode.NONE
        if 0 <= part.leader_epoch < partition.leader_epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif part.leader_epoch > partition.leader_epoch:
            error = ErrorCode.UNKNOWN_LEADER_EPOCH
        elif partition.role is not PartitionRole.LEADER:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        elif acks == ACKS_ALL and partition.is_under_min_isr:
            error = ErrorCode.NOT_ENOUGH_REPLICAS
        if error is ErrorCode.NONE:
            return None
        return failed_part(
            key,
            error,
            Appended.NO,
            leader_id=partition.leader_id,
            leader_epoch=partition.leader_epoch,
        )

    def _append(
        self,
        parked: ParkedProduce,
        index: int,
        partition: Partition,
        batch: Buffer,
        header: BatchHeader,
        now_ms: int,
    ) -> ProducePartResult | None:
        key = partition.key
        verdict = partition.log.producers.verdict(header)
        if verdict.kind is VerdictKind.DUPLICATE:
            base_offset, required_end = verdict.base_offset, verdict.last_offset + 1
        elif verdict.kind is not VerdictKind.NEXT:
            self._note_refusal(partition, header, verdict.kind)
            return failed_part(
                key,
                REFUSALS[verdict.kind],
                Appended.NO,
                leader_id=partition.leader_id,
                leader_epoch=partition.leader_epoch,
                detail=f"producer {header.producer_id} sequence {header.base_sequence}",
            )
        else:
            if partition.config.message_timestamp_type == LOG_APPEND_TIME:
                batch, header = stamp_append_time(batch, self.wall_ms())
            try:
                base_offset = partition.append(batch, header, now_ms)
            except DiskError as error:
                if not error.unchanged:
                    raise
                return failed_part(key, ErrorCode.STORAGE_ERROR, Appended.NO, detail=str(error))
            required_end = base_offset + header.last_offset_delta + 1
            self.replicas.touched[key] = partition
        awaited = AwaitedPart(parked, index, base_offset, required_end)
        if parked.acks == ACKS_ALL:
            if partition.high_watermark >= required_end:
                self._acknowledge(partition, awaited)
            else:
                self.purgatory.await_commit(key, awaited)
        elif parked.acks == 1 and partition.log.counted_end < required_end:
            self.purgatory.await_write(key, awaited)
        else:
            self._acknowledge(partition, awaited)
        return None

    def _note_refusal(self, partition: Partition, header: BatchHeader, kind: VerdictKind) -> None:
        """Who refuses a batch of a producer says so: that it was right can be seen in its log."""
        fact = Fact(
            "ProduceRefused",
            *partition.key,
            partition.leader_epoch,
            log_end_offset=partition.log.log_end_offset,
            details={
                "error": REFUSALS[kind].name,
                "producer_id": header.producer_id,
                "producer_epoch": header.producer_epoch,
                "sequence": header.base_sequence,
            },
        )
        self.outbox.fact(fact)

    # -- what becomes of parked requests ---------------------------------------------------------

    def on_settled(self, partition: Partition) -> None:
        """Settle what waits on a partition whose log, watermark, ISR or role changed."""
        key = partition.key
        if partition.role is not PartitionRole.LEADER:
            for part in self.purgatory.all_committing(key) + self.purgatory.all_writing(key):
                self._fail(partition, part, ErrorCode.NOT_LEADER_OR_FOLLOWER)
            return
        for part in self.purgatory.committed(key, partition.high_watermark):
            self._acknowledge(partition, part)
        for part in self.purgatory.written(key, partition.log.counted_end):
            self._acknowledge(partition, part)
        if partition.is_under_min_isr:
            for part in self.purgatory.all_committing(key):
                self._fail(partition, part, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)

    def on_expired(self, parked: ParkedProduce) -> None:
        """The deadline passed: whatever is still open may yet be committed."""
        for index, key in enumerate(parked.keys):
            self._resolve(
                parked, index, failed_part(key, ErrorCode.REQUEST_TIMED_OUT, Appended.MAYBE)
            )

    def fail_all(self, partitions: Sequence[Partition], error: ErrorCode) -> None:
        """Answer everything that waits, before the node gives up."""
        for partition in partitions:
            key = partition.key
            for part in self.purgatory.all_committing(key) + self.purgatory.all_writing(key):
                self._fail(partition, part, error)

    def _fail(self, partition: Partition, part: AwaitedPart, error: ErrorCode) -> None:
        result = failed_part(
            partition.key,
            error,
            Appended.MAYBE,
            leader_id=partition.leader_id,
            leader_epoch=partition.leader_epoch,
        )
        self._resolve(part.parked, part.index, result)

    def _acknowledge(self, partition: Partition, part: AwaitedPart) -> None:
        if part.parked.results[part.index] is not None:
            return
        if self.outbox.facts_on:
            self.outbox.fact(
                Fact(
                    "Acked",
                    partition.key[0],
                    partition.key[1],
                    partition.leader_epoch,
                    partition.partition_epoch,
                    partition.log.log_end_offset,
                    partition.log.synced_end,
                    partition.high_watermark,
                    {
                        "first": part.base_offset,
                        "last": part.required_end - 1,
                        "isr": partition.isr,
                        "ends": partition.counted_ends(partition.isr),
                        "min_isr": partition.min_isr,
                        "acks": part.parked.acks,
                        "be": self.replicas.broker_epoch,
                    },
                )
            )
        result = ProducePartResult(
            partition.key[0],
            partition.key[1],
            ErrorCode.NONE,
            Appended.YES,
            part.base_offset,
            partition.leader_epoch,
            partition.leader_id,
            partition.log.log_start_offset,
        )
        self._resolve(part.parked, part.index, result)

    def _resolve(self, parked: ParkedProduce, index: int, result: ProducePartResult) -> None:
        if parked.resolve(index, result):
            self._answer(parked)

    def _answer(self, parked: ParkedProduce) -> None:
        if parked.acks != 0:
            self.outbox.reply(parked.connection, parked.correlation_id, parked.response())


REFUSALS: dict[VerdictKind, ErrorCode] = {
    VerdictKind.OUT_OF_ORDER: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    VerdictKind.FENCED: ErrorCode.INVALID_PRODUCER_EPOCH,
    VerdictKind.UNKNOWN: ErrorCode.UNKNOWN_PRODUCER_ID,
}
