"""Whoever creates and deletes topics: the judged one once, another one all the time."""

from __future__ import annotations

from collections.abc import Callable

from broker.events import Connection, Plane
from broker.quorum.image import TopicImage
from broker.wire import frames
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AlterTopicRequest,
    CreatePartitionsRequest,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteRecordsPart,
    DeleteRecordsRequest,
    DeleteTopicRequest,
    Setting,
)
from chaos.sim.cluster import SimCluster
from chaos.sim.plan import Setup

RETRY_MS = 500


def create_request(name: str, setup: Setup) -> CreateTopicRequest:
    settings = (
        Setting("min_insync_replicas", str(setup.min_isr)),
        Setting("flush", setup.flush),
        Setting("segment_bytes", str(setup.segment_bytes)),
    )
    return CreateTopicRequest(name, setup.partitions, setup.replication_factor, (), settings, 2_000)


def ask(
    cluster: SimCluster,
    name: str,
    number: int,
    node_id: int,
    body: object,
    on_answer: Callable[[frames.Message], None],
) -> None:
    """One request on a connection of its own."""
    target = cluster.nodes[node_id]
    connection = Connection(Plane.BROKER, f"{name}.{number}".encode())
    cluster.network.send(
        name,
        target.name,
        f"{name}.{number}",
        frames.Kind.REQUEST,
        number,
        body,
        (),
        lambda message: target.on_message(name, connection, message, on_answer),
    )


class TopicCreation:
    """Creates one topic, asking one broker after the other until it is there."""

    def __init__(self, cluster: SimCluster, request: CreateTopicRequest) -> None:
        self._cluster = cluster
        self._request = request
        self._attempts = 0
        self.is_done = False
        self._try()

    def _try(self) -> None:
        if self.is_done:
            return
        self._attempts += 1
        node_ids = tuple(self._cluster.nodes)
        node_id = node_ids[self._attempts % len(node_ids)]
        ask(self._cluster, "admin", self._attempts, node_id, self._request, self._answered)
        self._cluster.clock.after(RETRY_MS, self._try)

    def _answered(self, message: frames.Message) -> None:
        body = message.body
        if isinstance(body, CreateTopicResponse):
            exists = body.error in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)
            self.is_done = self.is_done or exists


CHANGES = (
    ("retention_bytes", "4096"),
    ("retention_bytes", "-1"),
    ("retention_ms", "1500"),
    ("segment_ms", "700"),
    ("min_insync_replicas", "1"),
    ("min_insync_replicas", "2"),
    ("message_timestamp_type", "LogAppendTime"),
    ("message_timestamp_type", "CreateTime"),
)
PARTITIONS_MAX = 5


class TopicChurn:
    """Creates a topic, changes it, deletes its records and itself, again and again, asking now this
    broker, now that."""

    def __init__(self, cluster: SimCluster, request: CreateTopicRequest, gap_ms_max: int) -> None:
        self._cluster = cluster
        self._request = request
        self._gap_ms_max = gap_ms_max
        self._asked = 0
        self._is_stopped = False
        self._ask()

    def _ask(self) -> None:
        if self._is_stopped:
            return
        choices = self._cluster.choices
        self._asked += 1
        node_id = choices.pick("churn: node", tuple(self._cluster.nodes))
        image = self._cluster.newest_image()
        topic = image.topic_named(self._request.name) if image is not None else None
        body: object = self._request
        if topic is not None:
            body, node_id = self._change(topic, node_id)
        ask(self._cluster, "churn", self._asked, node_id, body, lambda answer: None)
        self._cluster.clock.after(choices.draw("churn: gap", 20, self._gap_ms_max), self._ask)

    def _change(self, topic: TopicImage, node_id: int) -> tuple[object, int]:
        """What becomes of a topic that is there, and whom to ask."""
        choices, timeout_ms = self._cluster.choices, self._request.timeout_ms
        what = choices.draw("churn: what", 0, 9)
        if what < 3:
            return DeleteTopicRequest(topic.name, timeout_ms), node_id
        if what < 6:
            setting = Setting(*CHANGES[choices.draw("churn: setting", 0, len(CHANGES) - 1)])
            return AlterTopicRequest(topic.name, (setting,), timeout_ms), node_id
        if what == 6:
            count = min(len(topic.partitions) + 1, PARTITIONS_MAX)
            return CreatePartitionsRequest(topic.name, count, (), timeout_ms), node_id
        number = choices.draw("churn: partition", 0, len(topic.partitions) - 1)
        before = choices.draw("churn: before", -1, 40)
        part = DeleteRecordsPart(topic.topic_id, number, before)
        leader = topic.partitions[number].leader
        whom = leader if leader in self._cluster.nodes else node_id
        return DeleteRecordsRequest((part,), timeout_ms), whom

    def stop(self) -> None:
        self._is_stopped = True
