"""Ask every node of a cluster directly what it sees, all at once, with one short timeout.

Unlike a client, which follows the metadata to whoever leads, this wants each node's own answer and
takes silence for one. Connections stay open between rounds; one that did not answer is replaced, so
that no stale answer arrives later.
"""

from __future__ import annotations

import time
from types import TracebackType

import zmq

from broker.wire import frames
from broker.wire.bounded_msgpack import MalformedMessage
from broker.wire.messages import (
    DescribeNodeRequest,
    DescribeNodeResponse,
    MetadataRequest,
    MetadataResponse,
    TopicInfo,
)
from chaos.proc.health import (
    ClusterView,
    NodeView,
    PartitionView,
    ReplicaView,
)
from chaos.proc.layout import ClusterSpec

TIMEOUT_MS = 1_000
_DESCRIBE, _METADATA = 1, 2


class Asker:
    """Connections to the broker port of each node of one cluster. Use from one thread."""

    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[int, zmq.Socket[bytes]] = {}
        self._round = 0

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for node_id in list(self._sockets):
            self._drop(node_id)
        self._context.term()

    def view(self, timeout_ms: int = TIMEOUT_MS) -> ClusterView:
        """One round. Returns as soon as all have answered, at the latest after the timeout."""
        self._round += 1
        described: dict[int, DescribeNodeResponse] = {}
        metadata: dict[int, MetadataResponse] = {}
        waiting = {node.node_id for node in self._spec.nodes}
        asked: set[int] = set()
        deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
        while waiting:
            for node_id in sorted(waiting - asked):
                if self._send(node_id):
                    asked.add(node_id)
            left_ms = (deadline_ns - time.monotonic_ns()) // 1_000_000
            if left_ms <= 0:
                break
            self._receive(min(left_ms, 20 if waiting - asked else left_ms), described, metadata)
            waiting -= described.keys() & metadata.keys()
        for node_id in waiting:
            self._drop(node_id)
        return _view(self._spec, described, metadata)

    def _send(self, node_id: int) -> bool:
        """Whether the questions left; they cannot before the connection stands."""
        socket = self._sockets.get(node_id)
        if socket is None:
            socket = self._sockets[node_id] = self._connect(node_id)
        for number, body in (
            (_DESCRIBE, DescribeNodeRequest(replicas=True)),
            (_METADATA, MetadataRequest(topics=None)),
        ):
            try:
                socket.send_multipart(
                    frames.encode(frames.Kind.REQUEST, self._round * 10 + number, body),
                    zmq.NOBLOCK,
                )
            except zmq.Again:
                return False
        return True

    def _receive(
        self,
        timeout_ms: int,
        described: dict[int, DescribeNodeResponse],
        metadata: dict[int, MetadataResponse],
    ) -> None:
        poller = zmq.Poller()
        owner = {socket: node_id for node_id, socket in self._sockets.items()}
        for socket in owner:
            poller.register(socket, zmq.POLLIN)
        for socket, _ in poller.poll(timeout_ms):
            try:
                messages = frames.decode_bundle(socket.recv_multipart())
            except MalformedMessage:
                self._drop(owner[socket])  # something else listens there: that is no answer
                continue
            for message in messages:
                if message.correlation_id // 10 != self._round:
                    continue
                if isinstance(message.body, DescribeNodeResponse):
                    described[owner[socket]] = message.body
                elif isinstance(message.body, MetadataResponse):
                    metadata[owner[socket]] = message.body

    def _connect(self, node_id: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.IMMEDIATE, 1)
        socket.set(zmq.HANDSHAKE_IVL, 1_000)
        socket.set(zmq.RECONNECT_IVL, 50)
        socket.connect(f"tcp://{self._spec.node(node_id).broker_address}")
        return socket

    def _drop(self, node_id: int) -> None:
        socket = self._sockets.pop(node_id, None)
        if socket is not None:
            socket.close()


def observe(spec: ClusterSpec) -> ClusterView:
    """One round over connections made for it."""
    with Asker(spec) as asker:
        return asker.view()


def _view(
    spec: ClusterSpec,
    described: dict[int, DescribeNodeResponse],
    metadata: dict[int, MetadataResponse],
) -> ClusterView:
    nodes = tuple(_node_view(node.node_id, described.get(node.node_id)) for node in spec.nodes)
    newest = max(metadata.values(), key=lambda answer: answer.metadata_index, default=None)
    parts = [
        _partition_view(topic, index, nodes)
        for topic in (newest.topics if newest else ())
        for index in range(len(topic.partitions))
    ]
    return ClusterView(nodes, tuple(parts), newest is not None)


def _node_view(node_id: int, answer: DescribeNodeResponse | None) -> NodeView:
    if answer is None:
        return NodeView(node_id, answered=False)
    return NodeView(
        node_id=node_id,
        # Another cluster may have taken the port since: its node is not ours.
        answered=answer.node_id == node_id,
        pid=answer.pid,
        roles=answer.roles,
        broker_epoch=answer.broker_epoch,
        fenced=answer.fenced,
        raft_role=answer.raft_role,
        raft_term=answer.raft_term,
        raft_leader_id=answer.raft_leader_id,
        commit_index=answer.commit_index,
        applied_index=answer.applied_index,
        replicas=tuple(
            ReplicaView(
                replica.topic_id,
                replica.partition,
                replica.role,
                replica.leader_epoch,
                replica.log_start_offset,
                replica.log_end_offset,
                replica.synced_end,
                replica.high_watermark,
                replica.damaged,
            )
            for replica in answer.replicas
        ),
    )


def _partition_view(topic: TopicInfo, index: int, nodes: tuple[NodeView, ...]) -> PartitionView:
    info = topic.partitions[index]
    leader = next(
        (
            replica
            for node in nodes
            if node.node_id == info.leader_id
            for replica in node.replicas
            if (replica.topic_id, replica.partition) == (topic.topic_id, info.partition)
        ),
        None,
    )
    return PartitionView(
        topic=topic.name,
        topic_id=topic.topic_id,
        partition=info.partition,
        leader=info.leader_id,
        leader_epoch=info.leader_epoch,
        partition_epoch=info.partition_epoch,
        replicas=info.replicas,
        isr=info.isr,
        high_watermark=leader.high_watermark if leader else -1,
        log_end_offset=leader.log_end_offset if leader else -1,
    )
