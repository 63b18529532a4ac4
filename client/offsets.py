"""Questions about offsets, put to the leaders until answered: first, last, or by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.wire.errors import ERRORS, ErrorCode
from broker.wire.messages import ListOffsetsPart, ListOffsetsRequest, ListOffsetsResponse
from client.cluster import ClusterCore
from client.events import NEVER_MS, Draw
from client.requests import Ended
from client.retry import backoff_ms


@dataclass(slots=True)
class Lookup:
    """One question: the first offset at or after `timestamp_ms`, or one of its special values."""

    topic: str
    partition: int
    timestamp_ms: int
    offset: int = -1
    """The answer; -1 when no record is that young."""
    found_timestamp_ms: int = -1
    error: ErrorCode = ErrorCode.NONE
    """The last answer's; with `is_done`: why there is no answer."""
    is_done: bool = False
    in_flight: bool = False
    failures: int = 0
    next_try_ms: int = 0


class OffsetLookups:
    """All open lookups of one client, grouped by leader when they are sent."""

    def __init__(self, cluster: ClusterCore, draw: Draw) -> None:
        self._cluster = cluster
        self._draw = draw
        self._open: list[Lookup] = []

    def start(self, lookup: Lookup) -> Lookup:
        self._cluster.want(lookup.topic)
        self._open.append(lookup)
        return lookup

    def cancel(self, lookup: Lookup) -> None:
        """Nobody waits for this one any more."""
        self._open = [other for other in self._open if other is not lookup]

    def run(self, now_ms: int) -> None:
        """Send what is due."""
        by_node: dict[int, list[tuple[Lookup, ListOffsetsPart]]] = {}
        for lookup in self._open:
            if lookup.in_flight or lookup.next_try_ms > now_ms:
                continue
            topic = self._cluster.metadata.topics.get(lookup.topic)
            if topic is not None and not 0 <= lookup.partition < topic.partition_count:
                lookup.error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                lookup.is_done = True
                continue
            leader = self._cluster.metadata.leader(lookup.topic, lookup.partition)
            if (
                topic is None
                or leader is None
                or not self._cluster.router.is_ready(leader.node_id, now_ms)
                or leader.node_id < 0
            ):
                self._cluster.request_refresh(now_ms)
                lookup.next_try_ms = now_ms + self._cluster.config.retry_backoff_ms
                continue
            part = ListOffsetsPart(
                topic.topic_id, lookup.partition, leader.leader_epoch, lookup.timestamp_ms
            )
            by_node.setdefault(leader.node_id, []).append((lookup, part))
        self._open = [lookup for lookup in self._open if not lookup.is_done]
        for node_id, asked in by_node.items():
            # A partition is asked about once per request: the answer names nothing else.
            seen: set[tuple[str, int]] = set()
            batch = []
            for lookup, part in asked:
                if (part.topic_id, part.partition) not in seen:
                    seen.add((part.topic_id, part.partition))
                    batch.append((lookup, part))
            for lookup, _ in batch:
                lookup.in_flight = True
            request = ListOffsetsRequest(tuple(part for _, part in batch))
            timeout_ms = self._cluster.config.request_timeout_ms
            self._cluster.send(node_id, request, (), tuple(batch), timeout_ms, now_ms)

    def on_ended(
        self, asked: Sequence[tuple[Lookup, ListOffsetsPart]], ended: Ended, now_ms: int
    ) -> None:
        """Take an answer, or its absence."""
        parts = (
            {(part.topic_id, part.partition): part for part in ended.answer.parts}
            if isinstance(ended.answer, ListOffsetsResponse)
            else {}
        )
        for lookup, question in asked:
            lookup.in_flight = False
            part = parts.get((question.topic_id, question.partition))
            lookup.error = part.error if part is not None else ErrorCode.NONE
            if part is not None and not ERRORS[part.error].retriable:
                lookup.offset = part.offset
                lookup.found_timestamp_ms = part.timestamp_ms
                lookup.is_done = True
                continue
            lookup.failures += 1
            config = self._cluster.config
            lookup.next_try_ms = now_ms + backoff_ms(
                lookup.failures, config.retry_backoff_ms, config.retry_backoff_max_ms, self._draw
            )
            if part is None or ERRORS[part.error].refresh_metadata:
                self._cluster.request_refresh(now_ms)
        self._open = [lookup for lookup in self._open if not lookup.is_done]

    def next_deadline_ms(self) -> int:
        waiting = [lookup.next_try_ms for lookup in self._open if not lookup.in_flight]
        return min(waiting, default=NEVER_MS)
