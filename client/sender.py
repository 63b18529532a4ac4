"""The producer without threads and sockets: from queued batches to outcomes.

`ProducerCore` is driven by `producer` and by the simulator alike: hand over everything that has
arrived (`Answered`, `Disconnected`), then a `Tick`; carry out the effects in order. Records enter
through `send`; their outcomes are effects too (`Completed`).

What keeps the order of a partition and lets nothing be written twice:
- from the oldest batch of a partition that is unacknowledged to the newest there are at most
  `max_in_flight_requests_per_connection`;
- once one must be sent again nothing new follows, and the unacknowledged ones go out one by one,
  oldest first, with the bytes and sequences they always had;
- when one is given up all that carry sequences end with it (see `idempotence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    ProducePart,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
)
from broker.wire.record_encoder import Headers
from client.accumulator import Accumulator, PartitionQueue
from client.cluster import ClusterCore
from client.config import ProducerConfig
from client.delivery import (
    BatchDelivered,
    Completed,
    ProducerBatch,
    RecordHandle,
    Waiter,
    never_waits,
)
from client.events import NEVER_MS, CloseConnection, Draw, Event, Send, Tick
from client.idempotence import Identities, stamp_batch
from client.intake import Intake
from client.metadata import Leader
from client.requests import Ended
from client.retry import Action, Attempt, SendFailed, backoff_ms, decide, give_up, unanswered

ProducerEffect = Send | CloseConnection | Completed


@dataclass(frozen=True, slots=True)
class _Sent:
    """Context of a produce request: what it carries, in order."""

    node_id: int
    parts: tuple[tuple[PartitionQueue, ProducerBatch, int], ...]
    """(queue, batch, leader epoch believed in)"""


class ProducerCore:
    """Accumulator, identities and sender of one producer."""

    def __init__(self, config: ProducerConfig, draw: Draw, waiter: Waiter = never_waits) -> None:
        self.config = config
        self.cluster = ClusterCore(config, draw)
        self.accumulator = Accumulator(config, waiter)
        self.intake = Intake(config, self.accumulator, self.cluster.metadata, draw)
        self._identities = Identities(self.cluster)
        self._draw = draw
        self._acks = config.required_acks
        # The broker's deadline comes before ours, so that its verdict arrives.
        self._parking_ms = max(1, config.request_timeout_ms * 3 // 4)
        self._in_flight: dict[int, int] = {}
        """Produce requests that wait for an answer, by node."""
        self._rotation = 0
        self._seen_refresh_count = 0
        self._awaited: dict[str, int] = {}
        """Unknown topics that somebody wants to send to, and until when."""
        self._needs_tick = True
        self._wake_ms = NEVER_MS
        self._completed: list[Completed] = []

    # --- records in -------------------------------------------------------------------------------

    def knows(self, topic: str, now_ms: int) -> bool:
        """Whether `send` can take records of the topic; if not, its metadata is asked for.

        It is asked for again and again until max_block_ms after the last call of this.
        """
        if self.intake.knows(topic):
            return True
        self.cluster.want(topic)
        self._awaited[topic] = now_ms + self.config.max_block_ms
        self._needs_tick = True
        return False

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        *,
        now_ms: int,
    ) -> RecordHandle | None:
        """Queue one record of a topic that is known; None while buffer_memory is full.

        Raises ApiError (no such partition), RecordTooLarge, TypeError, ValueError. The record
        leaves with a `Tick`, at the latest after linger_ms.
        """
        stamped_ms = now_ms if timestamp_ms is None else timestamp_ms
        self._needs_tick = True
        return self.intake.append(topic, value, key, headers, partition, stamped_ms, lambda: now_ms)

    # --- turns ------------------------------------------------------------------------------------

    def handle(self, event: Event, now_ms: int) -> list[ProducerEffect]:
        """One event; whatever is to be sent leaves with the next `Tick`."""
        for ended in self.cluster.absorb(event, now_ms):
            self._on_ended(ended, now_ms)
        if isinstance(event, Tick):
            self._on_tick(now_ms)
        else:
            self._needs_tick = True
        effects: list[ProducerEffect] = [*self.cluster.take_effects(), *self._completed]
        self._completed.clear()
        return effects

    def next_deadline_ms(self) -> int:
        """When a `Tick` is due even if nothing arrives."""
        if self._needs_tick:
            return 0
        return min(self._wake_ms, self.cluster.next_deadline_ms())

    def abort(self, now_ms: int) -> list[ProducerEffect]:
        """Give everything up, for a producer that closes: what was never sent is definite."""
        ended, closing = self.cluster.router.close_all()
        for end in ended:
            if isinstance(end.request.context, _Sent):
                self._on_ended(end, now_ms)
        for queue in list(self.accumulator.active.values()):
            self._fail_all(queue, ErrorCode.REQUEST_TIMED_OUT, "the producer was closed")
        effects: list[ProducerEffect] = [
            *(effect for effect in closing if isinstance(effect, CloseConnection)),
            *self._completed,
        ]
        self._completed.clear()
        self.cluster.take_effects()
        return effects

    def _on_tick(self, now_ms: int) -> None:
        self._needs_tick = False
        for ended in self.cluster.run(now_ms):
            self._on_ended(ended, now_ms)
        if self.cluster.refresh_count != self._seen_refresh_count:
            self._seen_refresh_count = self.cluster.refresh_count
            self.intake.refresh()
        self._awaited = {
            topic: until_ms
            for topic, until_ms in self._awaited.items()
            if until_ms > now_ms and not self.intake.knows(topic)
        }
        if self._awaited:
            self.cluster.request_refresh(now_ms)
        if self.config.enable_idempotence:
            self._identities.prepare()
            self._identities.run(now_ms)
        self._drain(now_ms)

    # --- out: from queues to requests -------------------------------------------------------------

    def _drain(self, now_ms: int) -> None:
        self._wake_ms = NEVER_MS
        self.intake.sealed_queue = None
        self.intake.opened_ms = NEVER_MS
        by_node: dict[int, list[PartitionQueue]] = {}
        for queue in list(self.accumulator.active.values()):
            self._expire(queue, now_ms)
            leader = self._sendable(queue, now_ms)
            if leader is not None:
                by_node.setdefault(leader.node_id, []).append(queue)
        if not self.accumulator.active:
            self.intake.is_exhausted = False
        for node_id, queues in by_node.items():
            self._rotation += 1
            first = self._rotation % len(queues)
            queues = queues[first:] + queues[:first]
            while queues and self._has_window(node_id):
                queues = self._send_request(node_id, queues, now_ms)

    def _has_window(self, node_id: int) -> bool:
        limit = self.config.max_in_flight_requests_per_connection
        return self._in_flight.get(node_id, 0) < limit

    def _sendable(self, queue: PartitionQueue, now_ms: int) -> Leader | None:
        """The leader to which the queue's next batch may go now; else note when to look again."""
        if queue.is_empty:
            return None
        topic = self.cluster.metadata.topics.get(queue.topic)
        if topic is not None and topic.topic_id != queue.topic_id:
            self._fail_all(queue, ErrorCode.UNKNOWN_TOPIC_ID, "the topic was deleted")
            return None
        if queue.is_recovering:
            return self._resendable(queue, now_ms)
        if queue.in_flight_span >= self.config.max_in_flight_requests_per_connection:
            return None
        if not queue.sealed and not self._is_open_ready(queue, now_ms):
            return None
        if not self._has_session(queue):
            return None
        return self._reachable_leader(queue, now_ms)

    def _has_session(self, queue: PartitionQueue) -> bool:
        if queue.identity is not None or not self.config.enable_idempotence:
            return True
        # The last of an ended session must be over before the next one begins.
        return queue.outstanding_count == 0 and self._identities.open_session(queue)

    def _resendable(self, queue: PartitionQueue, now_ms: int) -> Leader | None:
        if queue.outstanding_count:
            return None
        head = queue.stamped[0]
        leader = self._reachable_leader(queue, now_ms)
        if head.retry_at_ms <= now_ms:
            return leader
        if leader is not None and leader.leader_epoch > head.attempts[-1].leader_epoch:
            return leader
        self.cluster.request_refresh(now_ms)
        self._wake_ms = min(self._wake_ms, head.retry_at_ms)
        return None

    def _reachable_leader(self, queue: PartitionQueue, now_ms: int) -> Leader | None:
        leader = self.cluster.metadata.leader(queue.topic, queue.partition)
        if leader is None or leader.node_id < 0:
            self.cluster.want(queue.topic)
            self.cluster.request_refresh(now_ms)
            return None
        if not self.cluster.router.is_ready(leader.node_id, now_ms):
            self.cluster.request_refresh(now_ms)
            ready_ms = self.cluster.router.ready_ms(leader.node_id)
            if ready_ms > now_ms:
                self._wake_ms = min(self._wake_ms, ready_ms)
            return None
        return leader

    def _is_open_ready(self, queue: PartitionQueue, now_ms: int) -> bool:
        batch = queue.open
        if batch is None:
            return False
        due_ms = batch.created_ms + self.config.linger_ms
        if due_ms <= now_ms or self.intake.is_exhausted:
            return True
        self._wake_ms = min(self._wake_ms, due_ms)
        return False

    def _send_request(
        self, node_id: int, queues: list[PartitionQueue], now_ms: int
    ) -> list[PartitionQueue]:
        """One request with a batch of each queue, as far as it has room; queues that have more."""
        parts: list[tuple[PartitionQueue, ProducerBatch, int]] = []
        size_bytes = 0
        left: list[PartitionQueue] = []
        for queue in queues:
            batch = self._next_batch(queue)
            assert batch.payload is not None, "a batch that is not done has its bytes"
            if parts and size_bytes + len(batch.payload) > self.config.max_request_size:
                left.append(queue)
                continue
            size_bytes += len(batch.payload)
            parts.append((queue, batch, self._take_batch(queue, batch)))
        body = ProduceRequest(
            self._acks,
            self._parking_ms,
            tuple(
                ProducePart(queue.topic_id, queue.partition, leader_epoch)
                for queue, _, leader_epoch in parts
            ),
        )
        payload = [batch.payload for _, batch, _ in parts if batch.payload is not None]
        if self._acks == 0:
            self.cluster.effects.append(self.cluster.router.send_one_way(node_id, body, payload))
            for queue, batch, leader_epoch in parts:
                self._on_unasked(queue, batch, node_id, leader_epoch)
        else:
            context = _Sent(node_id, tuple(parts))
            timeout_ms = self.config.request_timeout_ms
            self.cluster.send(node_id, body, payload, context, timeout_ms, now_ms)
            self._in_flight[node_id] = self._in_flight.get(node_id, 0) + 1
        left += [queue for queue, _, _ in parts if self._sendable(queue, now_ms) is not None]
        return left

    def _next_batch(self, queue: PartitionQueue) -> ProducerBatch:
        """The batch to send next; the open one is closed for it."""
        if queue.is_recovering:
            return queue.stamped[0]
        if not queue.sealed:
            return self.accumulator.seal_open(queue)
        return queue.sealed[0]

    def _take_batch(self, queue: PartitionQueue, batch: ProducerBatch) -> int:
        """Move a batch to the outstanding ones; the leader epoch that its request names."""
        if not queue.is_recovering:
            queue.sealed.popleft()
            if self.config.enable_idempotence:
                stamp_batch(queue, batch)
            batch.number = queue.sent_count
            queue.sent_count += 1
            queue.stamped.append(batch)
        batch.behind = queue.stamped[0] is not batch
        batch.is_outstanding = True
        queue.outstanding_count += 1
        leader = self.cluster.metadata.leader(queue.topic, queue.partition)
        assert leader is not None, "a sendable batch has a leader"
        return leader.leader_epoch

    # --- in: from answers to outcomes -------------------------------------------------------------

    def _on_ended(self, ended: Ended, now_ms: int) -> None:
        sent = ended.request.context
        assert isinstance(sent, _Sent), "a producer's other requests are the cluster's"
        self._in_flight[sent.node_id] -= 1
        answers: dict[tuple[str, int], ProducePartResult] = {}
        if isinstance(ended.answer, ProduceResponse):
            answers = {(part.topic_id, part.partition): part for part in ended.answer.parts}
        for queue, batch, leader_epoch in sent.parts:
            part = answers.get((queue.topic_id, queue.partition))
            if part is None:
                attempt = unanswered(
                    sent.node_id, leader_epoch, sent=ended.sent, behind=batch.behind
                )
            else:
                if part.error is ErrorCode.NONE:
                    leader_epoch = part.leader_epoch
                attempt = Attempt(
                    sent.node_id, leader_epoch, part.error, part.appended, batch.behind
                )
                self.cluster.metadata.learn_leader(
                    queue.topic, queue.topic_id, queue.partition, part.leader_id, part.leader_epoch
                )
            batch.is_outstanding = False
            queue.outstanding_count -= 1
            batch.attempts.append(attempt)
            self._on_attempt(queue, batch, part, now_ms)

    def _on_attempt(
        self,
        queue: PartitionQueue,
        batch: ProducerBatch,
        part: ProducePartResult | None,
        now_ms: int,
    ) -> None:
        action = decide(batch.attempts, self.config.retries)
        is_over = now_ms >= batch.created_ms + self.config.delivery_timeout_ms
        if is_over or (batch.is_stamped and batch.identity != queue.identity):
            action = give_up(batch.attempts)
        match action:
            case Action.DELIVERED:
                assert part is not None, "delivered by an answer"
                self._finish(queue, batch, BatchDelivered(part.base_offset, part.leader_epoch))
            case Action.RETRY | Action.REFRESH:
                batch.retry_at_ms = now_ms + backoff_ms(
                    len(batch.attempts),
                    self.config.retry_backoff_ms,
                    self.config.retry_backoff_max_ms,
                    self._draw,
                )
                if action is Action.REFRESH:
                    self.cluster.request_refresh(now_ms)
            case Action.FAIL_DEFINITE | Action.FAIL_UNKNOWN:
                self._fail(queue, batch, part.detail if part else "")

    def _on_unasked(
        self, queue: PartitionQueue, batch: ProducerBatch, node_id: int, leader_epoch: int
    ) -> None:
        """acks=0: handed to the network is all there is to know."""
        batch.is_outstanding = False
        queue.outstanding_count -= 1
        batch.attempts.append(unanswered(node_id, leader_epoch, sent=True))
        self._finish(queue, batch, BatchDelivered(-1, leader_epoch))

    def _expire(self, queue: PartitionQueue, now_ms: int) -> None:
        """Give up what waited too long; what is outstanding ends with its answer or time-out."""
        while (batch := queue.oldest_waiting()) is not None:
            due_ms = batch.created_ms + self.config.delivery_timeout_ms
            if due_ms > now_ms:
                self._wake_ms = min(self._wake_ms, due_ms)
                return
            self._fail(queue, batch, self._why_not_sent(queue, batch))

    def _why_not_sent(self, queue: PartitionQueue, batch: ProducerBatch) -> str:
        if batch.attempts:
            return ""
        error = self.cluster.metadata.errors.get(queue.topic)
        leader = self.cluster.metadata.leader(queue.topic, queue.partition)
        if self.cluster.wrong_cluster_id:
            reason = f"an address belongs to another cluster, {self.cluster.wrong_cluster_id}"
        elif error is not None:
            reason = f"the cluster answers {error.name} for the topic"
        elif leader is None or leader.node_id < 0:
            reason = "the partition has no leader"
        elif self.config.enable_idempotence and queue.identity is None:
            reason = "no producer id was to be had"
        else:
            reason = f"its leader, node {leader.node_id}, did not take it"
        return f"not sent within delivery_timeout_ms: {reason}"

    def _fail(self, queue: PartitionQueue, batch: ProducerBatch, detail: str) -> None:
        """Give up a batch; one that carries sequences takes its session with it."""
        last = batch.attempts[-1].error if batch.attempts else None
        code = last if last not in (None, ErrorCode.NONE) else ErrorCode.REQUEST_TIMED_OUT
        assert code is not None, "there is a code"
        ends_session = batch.is_stamped and batch.identity == queue.identity
        self._finish(queue, batch, self._failure(batch, code, detail))
        if ends_session:
            self._identities.end_session(queue)
            for other in [other for other in queue.stamped if not other.is_outstanding]:
                reason = "the partition's producer session ended with an earlier batch"
                self._finish(queue, other, self._failure(other, code, reason))

    def _fail_all(self, queue: PartitionQueue, code: ErrorCode, detail: str) -> None:
        """Give up a queue as a whole, apart from what is outstanding."""
        for batch in queue.batches():
            if not batch.is_outstanding:
                self._finish(queue, batch, self._failure(batch, code, detail))
        self._identities.end_session(queue)

    def _failure(self, batch: ProducerBatch, code: ErrorCode, detail: str) -> SendFailed:
        is_definite = give_up(batch.attempts) is Action.FAIL_DEFINITE
        return SendFailed(batch.topic, batch.partition, is_definite, code, batch.attempts, detail)

    def _finish(
        self, queue: PartitionQueue, batch: ProducerBatch, outcome: BatchDelivered | SendFailed
    ) -> None:
        assert batch.outcome is None, "a batch is done once"
        batch.outcome = outcome
        self.accumulator.release(queue, batch)
        self.intake.is_exhausted = False
        self._completed.append(Completed(batch))

    def unfinished(self) -> Sequence[ProducerBatch]:
        """Every batch without an outcome."""
        return self.accumulator.unfinished()
