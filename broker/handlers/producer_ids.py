"""INIT_PRODUCER_ID: hand out ids from a block that the controller allocated to this broker.

A block belongs to one incarnation of one broker and is used from front to back, so no id is ever
given twice. What is left of a block at a restart is lost, as in Kafka.
"""

from __future__ import annotations

from collections import deque

from broker.controller_channel import ControllerChannel
from broker.events import Connection
from broker.outbox import Outbox
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
)

WAITING_MAX = 10_000
RETRY_MS = 100


class ProducerIdHandler:
    def __init__(self, node_id: int, channel: ControllerChannel, outbox: Outbox) -> None:
        self.node_id = node_id
        self.channel = channel
        self.outbox = outbox
        self._next_id = 0
        self._end_id = 0
        self._waiting: deque[tuple[Connection, int, int]] = deque()
        """Connection, correlation id, deadline."""
        self._asked = False
        self._retry_at_ms = 0

    def handle(
        self,
        connection: Connection,
        correlation_id: int,
        request: InitProducerIdRequest,
        now_ms: int,
    ) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._refuse(connection, correlation_id, ErrorCode.BUSY)
            return
        deadline_ms = now_ms + min(max(request.timeout_ms, 0), 60_000)
        self._waiting.append((connection, correlation_id, deadline_ms))
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._next_id < self._end_id:
            connection, correlation_id, _ = self._waiting.popleft()
            response = InitProducerIdResponse(ErrorCode.NONE, self._next_id, 0)
            self._next_id += 1
            self.outbox.reply(connection, correlation_id, response)

    def _refuse(self, connection: Connection, correlation_id: int, error: ErrorCode) -> None:
        self.outbox.reply(connection, correlation_id, InitProducerIdResponse(error, -1, -1))

    def tick(self, broker_epoch: int, now_ms: int) -> None:
        """Ask for a block when somebody waits for one; give up on those whose time is over."""
        while self._waiting and self._waiting[0][2] <= now_ms:
            connection, correlation_id, _ = self._waiting.popleft()
            self._refuse(connection, correlation_id, ErrorCode.REQUEST_TIMED_OUT)
        if self._waiting and not self._asked and now_ms >= self._retry_at_ms:
            request = AllocateProducerIdsRequest(self.node_id, broker_epoch)
            self._asked = self.channel.call(request, now_ms)
            self._retry_at_ms = now_ms + RETRY_MS

    def on_allocated(self, response: AllocateProducerIdsResponse) -> None:
        self._asked = False
        if response.error is ErrorCode.NONE:
            self._next_id = response.first_producer_id
            self._end_id = response.first_producer_id + response.count
            self._serve()

    def on_lost(self) -> None:
        """No answer: a block may have been allocated to nobody, which costs only numbers."""
        self._asked = False

    def next_deadline_ms(self) -> int | None:
        if not self._waiting:
            return None
        due_ms = self._waiting[0][2]
        return due_ms if self._asked else min(due_ms, self._retry_at_ms)
