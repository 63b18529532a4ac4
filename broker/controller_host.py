"""The controller in a voter: proposes what it decides, answers when the entry is applied.

Joins `quorum.controller` (pure decisions) to the Raft driver. A request that is waiting when
leadership is lost gets NOT_CONTROLLER: its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.config import NodeConfig
from broker.events import Connection
from broker.outbox import Outbox
from broker.quorum.answers import (
    Commit,
    ControllerRequest,
    ControllerResponse,
    Decision,
    refuse,
)
from broker.quorum.controller import Controller
from broker.quorum.image import MetadataImage
from broker.quorum.raft_driver import RaftDriver
from broker.quorum.records import encode_entry
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AllocateProducerIdsRequest,
    AlterPartitionRequest,
    AlterTopicRequest,
    BrokerHeartbeatRequest,
    BrokerRegistrationRequest,
    CreatePartitionsRequest,
    CreateTopicRequest,
    DeleteTopicRequest,
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An answer that goes out once `index` is applied."""

    index: int
    connection: Connection
    correlation_id: int
    request: ControllerRequest
    answer: ControllerResponse


class ControllerHost:
    def __init__(
        self,
        config: NodeConfig,
        driver: RaftDriver,
        outbox: Outbox,
        draw: Callable[[str, int, int], int],
    ) -> None:
        self.driver = driver
        self.outbox = outbox
        self.controller = Controller(config, draw)
        self._waiting: list[Waiting] = []
        self._active_term = -1
        self._handlers: dict[type, Callable[..., Decision]] = {
            BrokerRegistrationRequest: self.controller.register,
            BrokerHeartbeatRequest: self.controller.heartbeat,
            AlterPartitionRequest: self.controller.alter_partition,
            CreateTopicRequest: self.controller.create_topic,
            DeleteTopicRequest: self.controller.delete_topic,
            AlterTopicRequest: self.controller.alter_topic,
            CreatePartitionsRequest: self.controller.create_partitions,
            AllocateProducerIdsRequest: self.controller.allocate_producer_ids,
        }

    @property
    def is_active(self) -> bool:
        return self.controller.pending_image is not None

    def on_progress(self, image: MetadataImage, now_ms: int) -> None:
        """After Raft moved: take up or lay down the office, answer what is now applied."""
        node = self.driver.node
        leads = node is not None and node.is_leader
        term = node.term if node is not None else -1
        if self.is_active and not (leads and term == self._active_term):
            self._step_down()
        if leads and not self.is_active and image.term == term:
            # The last applied entry is of our own term: all that came before is applied too.
            self._active_term = image.term
            self.controller.activate(image, now_ms)
        self._answer_applied(image.index)

    def _step_down(self) -> None:
        self.controller.deactivate()
        for waiting in self._waiting:
            refusal = refuse(waiting.request, ErrorCode.NOT_CONTROLLER, maybe_done=True)
            self.outbox.reply(waiting.connection, waiting.correlation_id, refusal)
        self._waiting = []

    def _answer_applied(self, index: int) -> None:
        if not self._waiting or self._waiting[0].index > index:
            return
        due = [waiting for waiting in self._waiting if waiting.index <= index]
        self._waiting = [waiting for waiting in self._waiting if waiting.index > index]
        for waiting in due:
            self.outbox.reply(waiting.connection, waiting.correlation_id, waiting.answer)

    def _next_index(self) -> int:
        return self.driver.node.last_index + 1 if self.driver.node is not None else 0

    def handles(self, request: object) -> bool:
        return type(request) in self._handlers

    def handle(
        self,
        connection: Connection,
        correlation_id: int,
        request: ControllerRequest,
        image: MetadataImage,
        now_ms: int,
    ) -> None:
        decision = self._handlers[type(request)](request, self._next_index(), now_ms)
        if isinstance(decision, Commit):
            index = self._propose(decision)
            answer = decision.answer
            assert answer is not None, "only the fencing of a silent broker has nobody to answer"
        else:
            index, answer = decision.after_index, decision.body
        if index is None:
            refusal = refuse(request, ErrorCode.NOT_CONTROLLER)
            self.outbox.reply(connection, correlation_id, refusal)
        elif index <= image.index:
            self.outbox.reply(connection, correlation_id, answer)
        else:
            self._waiting.append(Waiting(index, connection, correlation_id, request, answer))

    def _propose(self, commit: Commit) -> int | None:
        """Propose an entry at the very index it was decided for; None when no longer leading."""
        expected = self._next_index()
        index = self.driver.propose(encode_entry(commit.records))
        if index is None:
            self._step_down()
            return None
        assert index == expected, (index, expected)
        return index

    def tick(self, now_ms: int) -> None:
        """Fence brokers whose session is over, one at a time."""
        while True:
            commit = self.controller.tick(now_ms, self._next_index())
            if commit is None or self._propose(commit) is None:
                return

    def next_deadline_ms(self) -> int | None:
        return self.controller.next_deadline_ms()
