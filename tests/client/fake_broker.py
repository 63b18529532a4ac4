"""A cluster of pretence: real frames over real ZeroMQ on 127.0.0.1, all nodes in one thread.

It keeps batches in memory, knows duplicates, and does what a test tells it to do wrong. Ports are
chosen by the system. There is no replication: every node sees the same logs.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import zmq

from broker.wire import frames
from broker.wire.batch_header import HEADER_BYTES, prefix, read_header
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    Appended,
    BrokerEndpoint,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteRecordsPart,
    DeleteRecordsPartResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    DescribeNodeRequest,
    DescribeNodeResponse,
    FetchPart,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    ListOffsetsPart,
    ListOffsetsPartResult,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    PartitionInfo,
    ProducePart,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
    TopicInfo,
)
from broker.wire.record_batch import Records, decode_batch, iterate_batches

SILENCE = "silence"
"""A produce that is neither appended nor answered."""
LOSE_ACK = "lose ack"
"""A produce that is appended, and not answered."""


@dataclass
class FakePartition:
    leader: int
    leader_epoch: int = 0
    batches: list[bytes] = field(default_factory=list)
    log_start_offset: int = 0
    log_end_offset: int = 0
    producers: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    """Producer id -> (base sequence, record count, base offset) of its batches."""

    def append(self, batch: bytes, leader_epoch: int) -> tuple[ErrorCode, int]:
        header = read_header(batch)
        known = self.producers.get(header.producer_id, [])
        if header.producer_id >= 0:
            for sequence, count, base_offset in known:
                if (sequence, count) == (header.base_sequence, header.record_count):
                    return ErrorCode.NONE, base_offset
            if not known and header.base_sequence != 0:
                return ErrorCode.UNKNOWN_PRODUCER_ID, -1
            if known and known[-1][0] + known[-1][1] != header.base_sequence:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            entry = (header.base_sequence, header.record_count, self.log_end_offset)
            self.producers.setdefault(header.producer_id, []).append(entry)
        base_offset = self.log_end_offset
        self.batches.append(prefix(base_offset, header.batch_length, leader_epoch) + batch[16:])
        self.log_end_offset += header.record_count
        return ErrorCode.NONE, base_offset

    def read(self, offset: int, max_bytes: int) -> bytes:
        data = b""
        for batch in self.batches:
            if read_header(batch).next_offset > offset:
                if data and len(data) + len(batch) > max_bytes:
                    break
                data += batch
        return data


@dataclass
class FakeTopic:
    name: str
    topic_id: str
    partitions: list[FakePartition]
    message_max_bytes: int = 1_048_588


@dataclass
class _Parked:
    node: int
    routing_id: bytes
    correlation_id: int
    request: FetchRequest
    until: float


class FakeCluster:
    """Nodes 1 to `node_count`. A context manager; control methods may be called from any thread."""

    def __init__(self, node_count: int = 1, *, instant: bool = False) -> None:
        """`instant`: acknowledge produce requests without looking at them (for measurements)."""
        self.instant = instant
        self.instant_records = 0
        self.topics: dict[str, FakeTopic] = {}
        self.requests: list[tuple[int, object]] = []
        """Every request that arrived: (node, body)."""
        self.on_produce: Callable[[int, ProducePart], ErrorCode | str | None] = _accept
        """Asked for each batch: None takes it, an error refuses it, or SILENCE, LOSE_ACK."""
        self.lose_answers: dict[type, int] = {}
        """How many answers to requests of a type get lost, after the request was carried out."""
        self.deletion_errors: list[ErrorCode] = []
        """What the next deletions of records are refused with."""
        self.mute: set[int] = set()
        """Nodes that read everything and answer nothing."""
        self.lock = threading.RLock()
        self._next_producer_id = 1_000
        self._index = 1
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[int, zmq.Socket[bytes]] = {}
        self.ports: dict[int, int] = {}
        self._parked: list[_Parked] = []
        self._jobs: list[tuple[Callable[[], None], threading.Event]] = []
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        for node in range(1, node_count + 1):
            self._listen(node)
        self._thread = threading.Thread(target=self._run, name="fake-cluster")
        self._thread.start()

    # --- control ----------------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    def add_topic(self, name: str, partition_count: int = 1, **settings: Any) -> FakeTopic:
        with self.lock:
            self._index += 1
            nodes = sorted(self.ports)
            topic = FakeTopic(
                name,
                f"{self._index:032x}",
                [FakePartition(nodes[number % len(nodes)]) for number in range(partition_count)],
                **settings,
            )
            self.topics[name] = topic
            return topic

    def move_leader(self, topic: str, partition: int, node: int) -> None:
        with self.lock:
            self._index += 1
            state = self.topics[topic].partitions[partition]
            state.leader = node
            state.leader_epoch += 1

    def kill(self, node: int) -> None:
        """Close the node's listener and with it all its connections."""
        self._in_loop(lambda: self._sockets.pop(node).close(0))

    def start(self, node: int) -> None:
        """Listen again, on the old port."""
        self._in_loop(lambda: self._listen(node))

    def records(self, topic: str, partition: int = 0) -> list[Records]:
        with self.lock:
            return [
                decode_batch(batch) for batch in self.topics[topic].partitions[partition].batches
            ]

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [value for records in self.records(topic, partition) for value in records.values]

    def count(self, kind: type) -> int:
        with self.lock:
            return sum(isinstance(body, kind) for _, body in self.requests)

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping = True
        os.write(self._wake_write, b"w")
        self._thread.join()
        self._context.destroy(0)
        os.close(self._wake_read)
        os.close(self._wake_write)

    # --- the loop ---------------------------------------------------------------------------------

    def _in_loop(self, job: Callable[[], None]) -> None:
        done = threading.Event()
        with self.lock:
            self._jobs.append((job, done))
        os.write(self._wake_write, b"w")
        assert done.wait(10), "the fake cluster does its jobs"

    def _listen(self, node: int) -> None:
        socket = self._context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        while True:
            try:
                socket.bind(f"tcp://127.0.0.1:{self.ports.get(node, '*')}")
                break
            except zmq.ZMQError as error:
                # ZeroMQ gives a port back a moment after its socket was closed.
                if error.errno != zmq.EADDRINUSE:
                    raise
                select.select([], [], [], 0.005)
        self.ports[node] = int(socket.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._sockets[node] = socket

    def _run(self) -> None:
        while not self._stopping:
            poller = zmq.Poller()
            poller.register(self._wake_read, zmq.POLLIN)
            for socket in self._sockets.values():
                poller.register(socket, zmq.POLLIN)
            now = time.monotonic()
            until = min((parked.until for parked in self._parked), default=now + 10)
            ready = dict(poller.poll(max(0, int((until - now) * 1_000) + 1)))
            with self.lock:
                if self._wake_read in ready:
                    os.read(self._wake_read, 4_096)
                for node, socket in list(self._sockets.items()):
                    if socket in ready:
                        self._drain(node, socket)
                jobs, self._jobs = self._jobs, []
                for job, done in jobs:
                    job()
                    done.set()
                self._answer_parked()

    def _drain(self, node: int, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self.instant:
                parts = [part.buffer for part in parts]
            else:
                parts = [part.bytes for part in parts]
            routing_id = bytes(parts[0])
            for message in frames.decode_bundle(parts[1:]):
                self._take(node, routing_id, message)

    def _take(self, node: int, routing_id: bytes, message: frames.Message) -> None:
        if not self.instant:
            self.requests.append((node, message.body))
        if node in self.mute:
            return
        body, payload = self._handle(node, routing_id, message)
        if self.lose_answers.get(type(message.body), 0) > 0:
            self.lose_answers[type(message.body)] -= 1
        elif body is not None:
            self._reply(node, routing_id, message.correlation_id, body, payload)

    def _reply(
        self, node: int, routing_id: bytes, correlation_id: int, body: object, payload: list[bytes]
    ) -> None:
        parts = frames.encode(frames.Kind.RESPONSE, correlation_id, body, payload)
        try:
            self._sockets[node].send_multipart([routing_id, *parts], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def _handle(
        self, node: int, routing_id: bytes, message: frames.Message
    ) -> tuple[object | None, list[bytes]]:
        body = message.body
        match body:
            case ProduceRequest():
                return self._produce(node, body, message.payload), []
            case FetchRequest():
                return self._fetch(node, routing_id, message.correlation_id, body)
            case MetadataRequest():
                return self._metadata(body.topics), []
            case ListOffsetsRequest():
                return ListOffsetsResponse(tuple(map(self._list_offsets, body.parts))), []
            case InitProducerIdRequest():
                self._next_producer_id += 1
                return InitProducerIdResponse(ErrorCode.NONE, self._next_producer_id, 0), []
            case CreateTopicRequest():
                if body.name in self.topics:
                    return CreateTopicResponse(ErrorCode.TOPIC_ALREADY_EXISTS, "", "", False), []
                topic = self.add_topic(body.name, max(1, body.partition_count))
                return CreateTopicResponse(ErrorCode.NONE, "", topic.topic_id, False), []
            case DeleteTopicRequest():
                self._index += 1
                gone = self.topics.pop(body.name, None)
                error = ErrorCode.NONE if gone else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                return DeleteTopicResponse(error, "", False), []
            case DeleteRecordsRequest():
                return DeleteRecordsResponse(tuple(self._delete(node, p) for p in body.parts)), []
            case DescribeNodeRequest():
                roles = ("broker",)
                return DescribeNodeResponse(
                    node, 0, roles, 1, False, "leader", 1, 1, 1, 1, (), (), ()
                ), []
        raise AssertionError(f"a client never sends {body}")

    def _partition(self, topic_id: str, partition: int) -> FakePartition | None:
        for topic in self.topics.values():
            if topic.topic_id == topic_id and partition < len(topic.partitions):
                return topic.partitions[partition]
        return None

    # --- answers ----------------------------------------------------------------------------------

    def _produce(
        self, node: int, request: ProduceRequest, payload: Iterable[Any]
    ) -> ProduceResponse | None:
        results = []
        for part, batch in zip(request.parts, payload, strict=True):
            if self.instant:
                header = read_header(batch)
                assert len(batch) >= HEADER_BYTES
                base_offset = self.instant_records
                self.instant_records += header.record_count
                results.append(_result(part, ErrorCode.NONE, Appended.YES, base_offset, 0, node))
                continue
            told = self.on_produce(node, part)
            state = self._partition(part.topic_id, part.partition)
            if told == SILENCE:
                return None
            if isinstance(told, ErrorCode):
                results.append(_result(part, told, Appended.NO, -1, -1, -1))
            elif state is None:
                code = ErrorCode.UNKNOWN_TOPIC_ID
                results.append(_result(part, code, Appended.NO, -1, -1, -1))
            elif state.leader != node:
                code = ErrorCode.NOT_LEADER_OR_FOLLOWER
                results.append(
                    _result(part, code, Appended.NO, -1, state.leader_epoch, state.leader)
                )
            else:
                code, base_offset = state.append(bytes(batch), state.leader_epoch)
                if told == LOSE_ACK:
                    return None
                appended = Appended.YES if code is ErrorCode.NONE else Appended.NO
                results.append(_result(part, code, appended, base_offset, state.leader_epoch, node))
        return ProduceResponse(tuple(results)) if request.acks else None

    def _fetch(
        self, node: int, routing_id: bytes, correlation_id: int, request: FetchRequest
    ) -> tuple[FetchResponse | None, list[bytes]]:
        for older in [parked for parked in self._parked if parked.routing_id == routing_id]:
            self._parked.remove(older)
            empty = FetchResponse(older.request.fetch_round, 1, ())
            self._reply(node, routing_id, older.correlation_id, empty, [])
        response, payload = self._read(node, request)
        if not payload and all(part.error is ErrorCode.NONE for part in response.parts):
            until = time.monotonic() + request.max_wait_ms / 1_000
            self._parked.append(_Parked(node, routing_id, correlation_id, request, until))
            return None, []
        return response, payload

    def _answer_parked(self) -> None:
        parked, self._parked = self._parked, []
        for fetch in parked:
            response, payload = self._read(fetch.node, fetch.request)
            is_news = payload or any(part.error is not ErrorCode.NONE for part in response.parts)
            if not is_news and time.monotonic() < fetch.until:
                self._parked.append(fetch)
            elif fetch.node in self._sockets:
                self._reply(fetch.node, fetch.routing_id, fetch.correlation_id, response, payload)

    def _read(self, node: int, request: FetchRequest) -> tuple[FetchResponse, list[bytes]]:
        results: list[FetchPartResult] = []
        payload: list[bytes] = []
        for part in request.parts:
            state = self._partition(part.topic_id, part.partition)
            if state is None:
                results.append(_fetched(part, ErrorCode.UNKNOWN_TOPIC_ID, None, False))
            elif state.leader != node:
                results.append(_fetched(part, ErrorCode.NOT_LEADER_OR_FOLLOWER, state, False))
            elif not state.log_start_offset <= part.fetch_offset <= state.log_end_offset:
                results.append(_fetched(part, ErrorCode.OFFSET_OUT_OF_RANGE, state, False))
            else:
                data = state.read(part.fetch_offset, part.max_bytes)
                payload += [data] if data else []
                results.append(_fetched(part, ErrorCode.NONE, state, bool(data)))
        return FetchResponse(request.fetch_round, 1, tuple(results)), payload

    def _metadata(self, names: tuple[str, ...] | None) -> MetadataResponse:
        brokers = [BrokerEndpoint(n, "127.0.0.1", port, 1, False) for n, port in self.ports.items()]
        topics = []
        for name in sorted(self.topics) if names is None else names:
            topic = self.topics.get(name)
            if topic is None:
                code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                topics.append(TopicInfo(code, name, "", 0, "", 0, (), ()))
                continue
            partitions = tuple(
                PartitionInfo(number, state.leader, state.leader_epoch, 0, (1,), (1,))
                for number, state in enumerate(topic.partitions)
            )
            limit = topic.message_max_bytes
            none = ErrorCode.NONE
            topics.append(TopicInfo(none, name, topic.topic_id, 1, "ack", limit, (), partitions))
        return MetadataResponse("fake", self._index, 1, tuple(brokers), tuple(topics))

    def _delete(self, node: int, part: DeleteRecordsPart) -> DeleteRecordsPartResult:
        state = self._partition(part.topic_id, part.partition)
        if self.deletion_errors:
            error = self.deletion_errors.pop(0)
        elif state is None or state.leader != node:
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        elif part.before_offset > state.log_end_offset:
            error = ErrorCode.OFFSET_OUT_OF_RANGE
        else:
            state.log_start_offset = part.before_offset
            return DeleteRecordsPartResult(
                part.topic_id, part.partition, ErrorCode.NONE, part.before_offset
            )
        return DeleteRecordsPartResult(part.topic_id, part.partition, error, -1)

    def _list_offsets(self, part: ListOffsetsPart) -> ListOffsetsPartResult:
        state = self._partition(part.topic_id, part.partition)
        offset, timestamp_ms = -1, -1
        if state is None:
            code = ErrorCode.UNKNOWN_TOPIC_ID
            return ListOffsetsPartResult(part.topic_id, part.partition, code, -1, -1, -1)
        if part.timestamp_ms == EARLIEST_TIMESTAMP:
            offset = state.log_start_offset
        elif part.timestamp_ms == LATEST_TIMESTAMP:
            offset = state.log_end_offset
        else:
            found = (
                record
                for batch in state.batches
                for _, data in iterate_batches(batch)
                for record in decode_batch(data)
                if record.timestamp_ms >= part.timestamp_ms
            )
            record = next(found, None)
            if record is not None:
                offset, timestamp_ms = record.offset, record.timestamp_ms
        return ListOffsetsPartResult(
            part.topic_id, part.partition, ErrorCode.NONE, offset, timestamp_ms, state.leader_epoch
        )


def _accept(node: int, part: ProducePart) -> None:
    return None


def _result(
    part: ProducePart,
    error: ErrorCode,
    appended: Appended,
    base_offset: int,
    leader_epoch: int,
    leader: int,
) -> ProducePartResult:
    return ProducePartResult(
        part.topic_id, part.partition, error, appended, base_offset, leader_epoch, leader, 0
    )


def _fetched(
    part: FetchPart, error: ErrorCode, state: FakePartition | None, has_batches: bool
) -> FetchPartResult:
    leader, leader_epoch, end, start = -1, -1, -1, -1
    if state is not None:
        leader, leader_epoch = state.leader, state.leader_epoch
        end, start = state.log_end_offset, state.log_start_offset
    return FetchPartResult(
        part.topic_id,
        part.partition,
        error,
        leader,
        leader_epoch,
        end,
        start,
        end,
        -1,
        -1,
        has_batches,
    )
