"""Drives the client's cores in memory: scripted answers, a clock that tests move.

Metadata and producer ids are answered at once unless a test says otherwise; produce and fetch
requests wait in `sent` until the test answers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.wire.batch_header import read_header
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    Appended,
    BrokerEndpoint,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    ListOffsetsPartResult,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    PartitionInfo,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
    TopicInfo,
)
from broker.wire.record_batch import decode_batch, encode_batch
from client.config import ConsumerConfig, ProducerConfig
from client.delivery import Completed, ProducerBatch, RecordHandle
from client.events import Answered, CloseConnection, Disconnected, Event, Send, Tick
from client.fetcher import FetcherCore, PositionChanged
from client.sender import ProducerCore

TOPIC = "t"


def lowest(label: str, low: int, high: int) -> int:
    """A draw without luck: back-offs are half their ceiling."""
    return low


class World:
    """What the brokers would say about themselves."""

    def __init__(self, partition_count: int = 1, node_count: int = 3) -> None:
        self.node_count = node_count
        self.topic_id = "id-1"
        self.index = 1
        self.leaders = [1] * partition_count
        self.leader_epochs = [0] * partition_count
        self.message_max_bytes = 1_048_588
        self.topic_error = ErrorCode.NONE
        self.cluster_id = "cluster"
        self.port_shift = 0

    def move(self, node: int, partition: int = 0) -> None:
        self.index += 1
        self.leaders[partition] = node
        self.leader_epochs[partition] += 1

    def metadata(self, names: Sequence[str] | None = (TOPIC,)) -> MetadataResponse:
        brokers = tuple(
            BrokerEndpoint(node, "host", 9_000 + self.port_shift + node, 1, False)
            for node in range(1, self.node_count + 1)
        )
        return MetadataResponse(
            self.cluster_id, self.index, 1, brokers, tuple(map(self.topic, names or ()))
        )

    def topic(self, name: str) -> TopicInfo:
        if self.topic_error is not ErrorCode.NONE:
            return TopicInfo(self.topic_error, name, "", 0, "", 0, (), ())
        partitions = tuple(
            PartitionInfo(number, leader, leader_epoch, 0, (1, 2, 3), (1, 2, 3))
            for number, (leader, leader_epoch) in enumerate(
                zip(self.leaders, self.leader_epochs, strict=True)
            )
        )
        limit = self.message_max_bytes
        return TopicInfo(ErrorCode.NONE, name, self.topic_id, 2, "ack", limit, (), partitions)


class Harness:
    """One core, its clock, and what it has sent."""

    def __init__(self, core: Any, world: World) -> None:
        self.core = core
        self.world = world
        self.now_ms = 1_000
        self.sent: list[Send] = []
        """Produce, fetch and offset requests that wait for an answer."""
        self.closed: list[int] = []
        self.other_effects: list[Any] = []
        self.answers_metadata = True
        self.answers_producer_ids = True
        self.next_producer_id = 7
        self.metadata_requests = 0

    # --- events in --------------------------------------------------------------------------------

    def feed(self, *events: Event) -> None:
        """Hand over events and a tick, and act on the effects until nothing more happens."""
        waiting: list[Event] = [*events, Tick()]
        while waiting:
            effects: list[Any] = []
            for event in waiting:
                effects += self.core.handle(event, self.now_ms)
            waiting = [answer for effect in effects for answer in self._on_effect(effect)]
            if waiting:
                waiting.append(Tick())

    def tick(self) -> None:
        self.feed()

    def advance(self, delay_ms: int) -> None:
        """Move the clock, stopping at every deadline on the way as a driver would."""
        end_ms = self.now_ms + delay_ms
        standing = 0
        while True:
            due_ms = self.core.next_deadline_ms()
            if due_ms > end_ms:
                self.now_ms = end_ms
                return
            standing = standing + 1 if due_ms <= self.now_ms else 0
            assert standing < 5, "the core asks for the same moment for ever"
            self.now_ms = max(due_ms, self.now_ms)
            self.tick()

    def _on_effect(self, effect: Any) -> list[Event]:
        match effect:
            case Send(body=MetadataRequest() as request):
                self.metadata_requests += 1
                if not self.answers_metadata:
                    self.sent.append(effect)
                    return []
                return [self.answer_to(effect, self.world.metadata(request.topics))]
            case Send(body=InitProducerIdRequest()):
                if not self.answers_producer_ids:
                    self.sent.append(effect)
                    return []
                producer_id = self.next_producer_id
                self.next_producer_id += 1
                response = InitProducerIdResponse(ErrorCode.NONE, producer_id, 0)
                return [self.answer_to(effect, response)]
            case Send():
                self.sent.append(effect)
            case CloseConnection():
                self.closed.append(effect.peer)
                self.sent = [send for send in self.sent if send.peer != effect.peer]
            case _:
                self.other_effects.append(effect)
        return []

    @staticmethod
    def answer_to(send: Send, body: object, payload: Sequence[bytes] = ()) -> Answered:
        return Answered(send.peer, send.correlation_id, body, payload)

    def disconnect(self, peer: int, *, unsent: bool = False) -> None:
        """Break a connection; its requests may have arrived unless they are `unsent`."""
        lost = [send for send in self.sent if send.peer == peer]
        self.sent = [send for send in self.sent if send.peer != peer]
        names = tuple(send.correlation_id for send in lost) if unsent else ()
        self.feed(Disconnected(peer, names))

    def take(self, kind: type, count: int = 1) -> list[Send]:
        """Take the oldest waiting requests of a kind out of `sent`; there must be as many."""
        found = [send for send in self.sent if isinstance(send.body, kind)][:count]
        assert len(found) == count, f"{len(found)} of {count} {kind.__name__} in {self.sent}"
        self.sent = [send for send in self.sent if send not in found]
        return found


class ProducerHarness(Harness):
    def __init__(
        self, world: World | None = None, *, answers_producer_ids: bool = True, **settings: Any
    ) -> None:
        settings = {"bootstrap_servers": "host:9001", "linger_ms": 1, **settings}
        self.config = ProducerConfig(**settings)
        super().__init__(ProducerCore(self.config, lowest), world or World())
        self.answers_producer_ids = answers_producer_ids
        assert not self.core.knows(TOPIC, self.now_ms)
        self.tick()
        self.advance(100)  # the next refresh is not too soon after this one

    def send(self, value: bytes, partition: int | None = None, **given: Any) -> RecordHandle:
        """One record, in a batch of its own."""
        handle = self.core.send(TOPIC, value, partition=partition, now_ms=self.now_ms, **given)
        assert handle is not None, "there is room"
        self.core.intake.seal_all()
        return handle

    def send_each(self, *values: bytes) -> list[RecordHandle]:
        """Batches of one record each, then a tick: up to five leave at once."""
        handles = [self.send(value) for value in values]
        self.tick()
        return handles

    def produces(self) -> list[Send]:
        return [send for send in self.sent if isinstance(send.body, ProduceRequest)]

    def payload_values(self) -> list[bytes | None]:
        """The first value of each batch on its way."""
        return [
            decode_batch(payload).values[0] for send in self.produces() for payload in send.payload
        ]

    def sequences(self) -> list[int]:
        return [
            read_header(payload).base_sequence
            for send in self.produces()
            for payload in send.payload
        ]

    def reply(
        self,
        error: ErrorCode = ErrorCode.NONE,
        appended: Appended | None = None,
        base_offset: int = 0,
        hint: tuple[int, int] = (-1, -1),
    ) -> None:
        """Answer the oldest produce request, the same for all its parts."""
        (send,) = self.take(ProduceRequest)
        if appended is None:
            appended = Appended.YES if error is ErrorCode.NONE else Appended.NO
        self.feed(self.answer_to(send, produced(send.body, error, appended, base_offset, hint)))

    def completed(self) -> list[ProducerBatch]:
        """The batches that were done, in the order in which they were."""
        return [effect.batch for effect in self.other_effects if isinstance(effect, Completed)]


def produced(
    request: Any,
    error: ErrorCode = ErrorCode.NONE,
    appended: Appended = Appended.YES,
    base_offset: int = 0,
    hint: tuple[int, int] = (-1, -1),
) -> ProduceResponse:
    leader, leader_epoch = hint
    return ProduceResponse(
        tuple(
            ProducePartResult(
                part.topic_id,
                part.partition,
                error,
                appended,
                base_offset,
                leader_epoch if error is not ErrorCode.NONE else part.leader_epoch,
                leader,
                0,
            )
            for part in request.parts
        )
    )


class FetcherHarness(Harness):
    def __init__(self, world: World | None = None, **settings: Any) -> None:
        settings = {"bootstrap_servers": "host:9001", "auto_offset_reset": "earliest", **settings}
        self.config = ConsumerConfig(**settings)
        super().__init__(FetcherCore(self.config, lowest), world or World())

    def assign(self, *partitions: int) -> None:
        self.core.assign([(TOPIC, partition) for partition in partitions])
        self.advance(100)

    def give_offsets(self, offset: int, error: ErrorCode = ErrorCode.NONE) -> None:
        """Answer the oldest question about offsets, the same for all its parts."""
        (send,) = self.take(ListOffsetsRequest)
        parts = tuple(
            ListOffsetsPartResult(part.topic_id, part.partition, error, offset, -1, 0)
            for part in send.body.parts  # type: ignore[attr-defined]
        )
        self.feed(self.answer_to(send, ListOffsetsResponse(parts)))

    def fetches(self) -> list[Send]:
        return [send for send in self.sent if isinstance(send.body, FetchRequest)]

    def asked(self) -> list[tuple[int, int]]:
        """(partition, offset) of all fetches on their way."""
        return [
            (part.partition, part.fetch_offset)
            for send in self.fetches()
            for part in send.body.parts  # type: ignore[attr-defined]
        ]

    def give(
        self,
        chunks: dict[int, bytes],
        error: ErrorCode = ErrorCode.NONE,
        hint: tuple[int, int] = (-1, -1),
    ) -> None:
        """Answer the oldest fetch: partition -> bytes; the other partitions get nothing."""
        (send,) = self.take(FetchRequest)
        self.feed(self.full_answer(send, chunks, error, hint))

    @staticmethod
    def full_answer(
        send: Send,
        chunks: dict[int, bytes],
        error: ErrorCode = ErrorCode.NONE,
        hint: tuple[int, int] = (-1, -1),
    ) -> Answered:
        request: Any = send.body
        parts = tuple(
            FetchPartResult(
                part.topic_id,
                part.partition,
                error,
                hint[0],
                hint[1],
                1_000,
                0,
                1_000,
                -1,
                -1,
                part.partition in chunks,
            )
            for part in request.parts
        )
        payload = [chunks[part.partition] for part in request.parts if part.partition in chunks]
        return Harness.answer_to(send, FetchResponse(request.fetch_round, 0, parts), payload)

    def changes(self) -> list[PositionChanged]:
        return [effect for effect in self.other_effects if isinstance(effect, PositionChanged)]


def stored(base_offset: int, *values: bytes, leader_epoch: int = 0) -> bytes:
    """A batch as it stands in a log."""
    batch = encode_batch([(1_000, None, value, ()) for value in values])
    batch[0:8] = base_offset.to_bytes(8, "big")
    batch[12:16] = leader_epoch.to_bytes(4, "big")
    return bytes(batch)
