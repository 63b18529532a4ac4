"""Who we are to the brokers: producer id, epoch and sequences, per partition one session at a time.

A batch is stamped when it is sent for the first time and never again: whatever happened to its
attempts, a broker that has it recognises it. When a stamped batch is given up its sequence stays
unused or used, nobody knows, so the partition's session ends with it: everything stamped ends too,
and what comes later goes out under a producer id that this partition has never used. Other
partitions keep theirs. (Giving a batch of unknown fate a new identity, as Kafka's clients do after
an out-of-order answer, writes it twice if the first copy was there: KAFKA-14034.)
"""

from __future__ import annotations

from broker.wire.errors import ErrorCode
from broker.wire.messages import InitProducerIdRequest, InitProducerIdResponse
from broker.wire.record_encoder import stamp
from client.accumulator import PartitionQueue
from client.cluster import Call, ClusterCore
from client.delivery import ProducerBatch, ProducerIdentity
from client.events import NEVER_MS

SEQUENCE_MASK = 0x7FFFFFFF
"""Sequences are 31 bits and wrap to 0."""


class Identities:
    """Producer ids from the cluster: fetched when needed, shared by the partitions that may."""

    def __init__(self, cluster: ClusterCore) -> None:
        self._cluster = cluster
        self._current: ProducerIdentity | None = None
        self._call: Call | None = None

    def run(self, now_ms: int) -> None:
        """Take a producer id that arrived."""
        call = self._call
        if call is None or not call.done:
            return
        self._call = None
        answer = call.answer
        assert isinstance(answer, InitProducerIdResponse), "the call ends with its answer only"
        if answer.error is ErrorCode.NONE:
            self._current = ProducerIdentity(answer.producer_id, answer.producer_epoch)
        else:
            self._request(now_ms + self._cluster.config.retry_backoff_max_ms)

    def prepare(self) -> None:
        """Ask for the first producer id before a record needs it."""
        if self._current is None:
            self._request(0)

    def open_session(self, queue: PartitionQueue) -> bool:
        """Give a partition an identity that it has never used; False until there is one."""
        if queue.identity is not None:
            return True
        if self._current is None or self._current == queue.session_over:
            self._request(0)
            return False
        queue.identity = self._current
        queue.next_sequence = 0
        return True

    def end_session(self, queue: PartitionQueue) -> None:
        """Nothing more is stamped with the partition's present identity."""
        if queue.identity is not None:
            queue.session_over = queue.identity
            queue.identity = None

    def _request(self, not_before_ms: int) -> None:
        if self._call is None:
            timeout_ms = self._cluster.config.request_timeout_ms
            self._call = Call(InitProducerIdRequest(timeout_ms), None, NEVER_MS)
            self._call.next_try_ms = not_before_ms
            self._cluster.start(self._call)


def stamp_batch(queue: PartitionQueue, batch: ProducerBatch) -> None:
    """Put identity and sequence into a sealed batch, once and for ever."""
    assert batch.identity is None, "a batch is stamped once"
    assert batch.payload is not None, "only a sealed batch is stamped"
    identity = queue.identity
    assert identity is not None, "the partition has a session"
    batch.identity = identity
    batch.base_sequence = queue.next_sequence
    queue.next_sequence = (queue.next_sequence + batch.record_count) & SEQUENCE_MASK
    stamp(batch.payload, identity.producer_id, identity.producer_epoch, batch.base_sequence)
