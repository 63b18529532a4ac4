"""Simulated clients: the real producer core on the simulated network, and an admin for topics.

Each record's value names its producer and its number, so that whatever is found in a log can be
traced to one send.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.events import Connection, Plane
from broker.wire import frames
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteTopicRequest,
    Setting,
)
from client.config import ProducerConfig
from client.delivery import Completed, RecordHandle
from client.events import Answered, CloseConnection, Send, Tick, is_bootstrap
from client.retry import SendFailed
from client.sender import ProducerCore

if TYPE_CHECKING:
    from chaos.sim.cluster import SimCluster


@dataclass(slots=True)
class Sent:
    """One record: what was sent, and its handle."""

    value: bytes
    handle: RecordHandle


@dataclass
class SimProducer:
    """One producer session. Failed and unknown outcomes are kept apart by the handles."""

    cluster: SimCluster
    name: str
    topic: str
    partitions: int
    sent: list[Sent] = field(default_factory=list)
    next_number: int = 0

    def __post_init__(self) -> None:
        config = ProducerConfig(
            bootstrap_servers=",".join(
                f"127.0.0.1:{node.config.broker_port}" for node in self.cluster.nodes.values()
            ),
            client_id=self.name,
            request_timeout_ms=1_500,
            delivery_timeout_ms=20_000,
            batch_size=4_096,
            max_request_size=16_384,
        )
        self.core = ProducerCore(config, self.cluster.choices.draw)
        self._connections: dict[int, int] = {}
        self._stopped = False
        self._turn()

    def _turn(self) -> None:
        self._carry_out(Tick())
        if not self._stopped:
            until_ms = self.core.next_deadline_ms() - self.cluster.clock.now_ms
            self.cluster.clock.after(min(max(until_ms, 1), 20), self._turn)

    def _carry_out(self, event: Tick | Answered) -> None:
        for effect in self.core.handle(event, self.cluster.clock.now_ms):
            match effect:
                case Send():
                    self._send(effect)
                case CloseConnection(peer):
                    self._connections[peer] = self._connections.get(peer, 0) + 1
                case Completed():
                    self.cluster.on_completed(self, effect.batch)

    def _send(self, effect: Send) -> None:
        node_id = effect.peer
        if is_bootstrap(effect.peer):
            node_id = self.cluster.node_at(effect.address)
        target = self.cluster.nodes[node_id]
        version = self._connections.get(effect.peer, 0)
        name = f"{self.name}.{effect.peer}.{version}"
        connection = Connection(Plane.BROKER, name.encode())

        def answered(message: frames.Message) -> None:
            if self._connections.get(effect.peer, 0) == version and not self._stopped:
                self._carry_out(
                    Answered(effect.peer, message.correlation_id, message.body, message.payload)
                )

        kind = frames.Kind.ONEWAY if effect.one_way else frames.Kind.REQUEST
        self.cluster.network.send(
            self.name,
            target.name,
            name,
            kind,
            effect.correlation_id,
            effect.body,
            effect.payload,
            lambda message: target.on_message(self.name, connection, message, answered),
        )

    # -- workload --------------------------------------------------------------------------------

    def send_some(self, count: int) -> None:
        now_ms = self.cluster.clock.now_ms
        if not self.core.knows(self.topic, now_ms):
            return
        for _ in range(count):
            value = f"{self.name}:{self.next_number}".encode()
            partition = self.next_number % self.partitions
            handle = self.core.send(self.topic, value, partition=partition, now_ms=now_ms)
            if handle is None:
                return
            self.next_number += 1
            self.sent.append(Sent(value, handle))

    def all_done(self) -> bool:
        return all(item.handle.done() for item in self.sent)

    def stop(self) -> None:
        self._stopped = True

    def outcomes(self) -> tuple[list[Sent], list[Sent], list[Sent]]:
        """(acknowledged, certainly not written, unknown)"""
        acked: list[Sent] = []
        failed: list[Sent] = []
        unknown: list[Sent] = []
        for item in self.sent:
            error = item.handle.exception()
            if not item.handle.done() or (isinstance(error, SendFailed) and not error.definite):
                unknown.append(item)
            elif error is None:
                acked.append(item)
            else:
                failed.append(item)
        return acked, failed, unknown


class SimAdmin:
    """Creates one topic, asking one broker after the other until it is there."""

    def __init__(self, cluster: SimCluster, request: CreateTopicRequest) -> None:
        self.cluster = cluster
        self.request = request
        self.created = False
        self._attempts = 0
        self._try()

    def _try(self) -> None:
        if self.created:
            return
        self._attempts += 1
        node_ids = tuple(self.cluster.nodes)
        target = self.cluster.nodes[node_ids[self._attempts % len(node_ids)]]
        connection = Connection(Plane.BROKER, f"admin.{self._attempts}".encode())
        self.cluster.network.send(
            "admin",
            target.name,
            connection.routing_id.decode(),
            frames.Kind.REQUEST,
            self._attempts,
            self.request,
            (),
            lambda message: target.on_message("admin", connection, message, self._answered),
        )
        self.cluster.clock.after(500, self._try)

    def _answered(self, message: frames.Message) -> None:
        body = message.body
        if isinstance(body, CreateTopicResponse):
            exists = body.error in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)
            self.created = self.created or exists


class TopicChurn:
    """Creates a topic and deletes it, again and again, asking now this broker, now that."""

    def __init__(self, cluster: SimCluster, request: CreateTopicRequest, gap_ms_max: int) -> None:
        self.cluster = cluster
        self.request = request
        self.gap_ms_max = gap_ms_max
        self.asked = 0
        self._stopped = False
        self._ask()

    def _ask(self) -> None:
        if self._stopped:
            return
        cluster = self.cluster
        body: object = self.request
        if self.asked % 2:
            body = DeleteTopicRequest(self.request.name, self.request.timeout_ms)
        self.asked += 1
        target = cluster.nodes[cluster.choices.pick("churn at", tuple(cluster.nodes))]
        connection = Connection(Plane.BROKER, f"churn.{self.asked}".encode())
        cluster.network.send(
            "churn",
            target.name,
            connection.routing_id.decode(),
            frames.Kind.REQUEST,
            self.asked,
            body,
            (),
            lambda message: target.on_message("churn", connection, message, lambda answer: None),
        )
        cluster.clock.after(cluster.choices.draw("churn", 20, self.gap_ms_max), self._ask)

    def stop(self) -> None:
        self._stopped = True


def create_request(
    name: str,
    partitions: int,
    replication_factor: int,
    min_isr: int,
    flush: str,
    segment_bytes: int = 134_217_728,
) -> CreateTopicRequest:
    settings = (
        Setting("min_insync_replicas", str(min_isr)),
        Setting("flush", flush),
        Setting("segment_bytes", str(segment_bytes)),
    )
    return CreateTopicRequest(name, partitions, replication_factor, (), settings, 2_000)
