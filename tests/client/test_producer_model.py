"""The producer's core against a lossy model of a cluster: seeds of trouble, then the truth.

The model keeps one log per partition with a high watermark. A leader change may cut off what is
above it; messages are delayed, lost with their connection, or arrive long after it was closed. In
the end everything that was still on its way is delivered, and each handle is compared with the log.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from broker.wire.batch_header import read_header
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    Appended,
    InitProducerIdRequest,
    InitProducerIdResponse,
    MetadataRequest,
    ProducePart,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
)
from broker.wire.record_batch import decode_batch
from client.config import ProducerConfig
from client.delivery import RecordHandle
from client.events import Answered, CloseConnection, Disconnected, Send, Tick
from client.retry import SendFailed
from client.sender import ProducerCore
from tests.client.harness import TOPIC, World

E = ErrorCode
PARTITIONS = 2
DELIVERY_MS = 6_000
REQUEST_MS = 1_000
TROUBLE_MS = 15_000
SEEDS = range(25)


@dataclass
class Log:
    """(value, producer id, sequence of the batch, count of the batch) per record."""

    records: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    high_watermark: int = 0

    def verdict(self, producer_id: int, sequence: int, count: int) -> tuple[ErrorCode, int]:
        """The code, and the offset of a duplicate or -1."""
        batches = [
            (offset, record[2], record[3])
            for offset, record in enumerate(self.records)
            if record[1] == producer_id
            and (offset == 0 or self.records[offset - 1][1:3] != record[1:3])
        ]
        for offset, known, known_count in batches[-5:]:
            if (known, known_count) == (sequence, count):
                return E.NONE, offset
        if not batches:
            return (E.NONE if sequence == 0 else E.UNKNOWN_PRODUCER_ID), -1
        expected = batches[-1][1] + batches[-1][2]
        return (E.NONE if sequence == expected else E.OUT_OF_ORDER_SEQUENCE_NUMBER), -1


class Model:
    """Cluster, network and clock around one producer core."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(PARTITIONS)
        self.logs = [Log() for _ in range(PARTITIONS)]
        self.core = ProducerCore(
            ProducerConfig(
                bootstrap_servers="host:9001",
                linger_ms=2,
                batch_size=200,
                delivery_timeout_ms=DELIVERY_MS,
                request_timeout_ms=REQUEST_MS,
            ),
            lambda label, low, high: self.random.randint(low, high),
        )
        self.now_ms = 0
        self.running = 0
        self.agenda: list[tuple[int, int, str, Any]] = []
        """(when, running number, kind, what)"""
        self.connections: dict[int, int] = {}
        """By peer: how often it was replaced."""
        self.busy_until: dict[tuple[int, int], int] = {}
        """Messages of one connection keep their order."""
        self.next_producer_id = 1
        self.trouble = True
        self.handles: list[tuple[bytes, RecordHandle]] = []
        self.open: list[tuple[RecordHandle, int]] = []
        """Handles that were not done at the last look, and when they were made."""

    # --- the world --------------------------------------------------------------------------------

    def later(self, delay_ms: int, kind: str, what: Any) -> None:
        self.running += 1
        self.agenda.append((self.now_ms + delay_ms, self.running, kind, what))

    def delay(self) -> int:
        if self.trouble and self.random.random() < 0.03:
            return self.random.randint(200, 3_000)
        return self.random.randint(0, 20)

    def send(self, effect: Send) -> None:
        version = self.connections.setdefault(effect.peer, 0)
        if self.trouble and self.random.random() < 0.03:
            self.break_connection(effect.peer, (effect.correlation_id,))
            return
        line = (effect.peer, version)
        due_ms = max(self.now_ms + self.delay(), self.busy_until.get(line, 0))
        self.busy_until[line] = due_ms
        self.later(due_ms - self.now_ms, "request", (line, effect))

    def break_connection(self, peer: int, unsent: tuple[int, ...] = ()) -> None:
        self.connections[peer] = self.connections.get(peer, 0) + 1
        self.later(0, "event", Disconnected(peer, unsent))

    def on_request(self, line: tuple[int, int], send: Send) -> None:
        peer, version = line
        is_closed = self.connections.get(peer) != version
        if is_closed and self.random.random() < 0.5:
            return  # lost with its connection; the other half arrives all the same
        answer = self.answer(peer, send)
        if answer is not None and not (self.trouble and self.random.random() < 0.03):
            self.later(self.delay(), "answer", (line, send.correlation_id, answer))

    def answer(self, peer: int, send: Send) -> object | None:
        match send.body:
            case MetadataRequest(topics):
                return self.world.metadata(topics)
            case InitProducerIdRequest():
                self.next_producer_id += 1
                return InitProducerIdResponse(E.NONE, self.next_producer_id, 0)
            case ProduceRequest(parts=parts):
                results = [
                    self.produce(peer, part, bytes(batch))
                    for part, batch in zip(parts, send.payload, strict=True)
                ]
                return ProduceResponse(tuple(results))
        raise AssertionError(send.body)

    def produce(self, peer: int, part: ProducePart, batch: bytes) -> ProducePartResult:
        leader_epoch = self.world.leader_epochs[part.partition]
        if self.world.leaders[part.partition] != peer or part.leader_epoch != leader_epoch:
            return self.result(part, E.NOT_LEADER_OR_FOLLOWER, Appended.NO)
        if self.trouble and self.random.random() < 0.04:
            code = self.random.choice([E.NOT_ENOUGH_REPLICAS, E.BUSY, E.CORRUPT_MESSAGE])
            return self.result(part, code, Appended.NO)
        log = self.logs[part.partition]
        header = read_header(batch)
        identity = (header.producer_id, header.base_sequence, header.record_count)
        code, offset = log.verdict(*identity)
        if code is not E.NONE:
            return self.result(part, code, Appended.NO)
        if offset < 0:
            offset = len(log.records)
            log.records += [(value or b"", *identity) for value in decode_batch(batch).values]
        if self.trouble and self.random.random() < 0.05:
            code = self.random.choice([E.REQUEST_TIMED_OUT, E.NOT_ENOUGH_REPLICAS_AFTER_APPEND])
            return self.result(part, code, Appended.MAYBE)
        log.high_watermark = max(log.high_watermark, offset + header.record_count)
        return self.result(part, E.NONE, Appended.YES, offset)

    def result(
        self, part: ProducePart, code: ErrorCode, appended: Appended, offset: int = -1
    ) -> ProducePartResult:
        leader = self.world.leaders[part.partition]
        leader_epoch = self.world.leader_epochs[part.partition]
        return ProducePartResult(
            part.topic_id, part.partition, code, appended, offset, leader_epoch, leader, 0
        )

    def change_leader(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        log = self.logs[partition]
        ends = [
            offset
            for offset in range(log.high_watermark, len(log.records) + 1)
            if offset in (0, len(log.records))
            or log.records[offset][1:3] != log.records[offset - 1][1:3]
        ]
        del log.records[self.random.choice(ends) :]
        self.world.move(self.random.choice([1, 2, 3]), partition)

    # --- the loop ---------------------------------------------------------------------------------

    def carry_out(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.send(effect)
            elif isinstance(effect, CloseConnection):
                self.connections[effect.peer] = self.connections.get(effect.peer, 0) + 1

    def step(self, limit_ms: int) -> bool:
        """The next thing that happens; False when nothing does before `limit_ms`."""
        due_ms = self.core.next_deadline_ms()
        if self.agenda:
            due_ms = min(due_ms, min(self.agenda)[0])
        if due_ms > limit_ms:
            self.now_ms = limit_ms
            return False
        self.now_ms = max(self.now_ms, due_ms)
        arrived = sorted(entry for entry in self.agenda if entry[0] <= self.now_ms)
        self.agenda = [entry for entry in self.agenda if entry[0] > self.now_ms]
        for _, _, kind, what in arrived:
            match kind:
                case "request":
                    self.on_request(*what)
                case "event":
                    self.carry_out(self.core.handle(what, self.now_ms))
                case "answer":
                    (peer, version), correlation_id, body = what
                    if self.connections.get(peer) == version:
                        event = Answered(peer, correlation_id, body)
                        self.carry_out(self.core.handle(event, self.now_ms))
        self.carry_out(self.core.handle(Tick(), self.now_ms))
        return True

    def run(self) -> None:
        self.core.knows(TOPIC, 0)
        number = 0
        while self.now_ms < TROUBLE_MS:
            pause_ms = self.random.randint(1, 60)
            until_ms = self.now_ms + pause_ms
            while self.step(until_ms):
                pass
            if self.random.random() < 0.02:
                self.change_leader()
            if self.random.random() < 0.02:
                self.break_connection(self.random.choice([1, 2, 3]))
            if self.core.knows(TOPIC, self.now_ms):
                for _ in range(self.random.randint(0, 6)):
                    value = b"%06d" % number
                    partition = number % PARTITIONS
                    number += 1
                    handle = self.core.send(TOPIC, value, partition=partition, now_ms=self.now_ms)
                    assert handle is not None
                    self.handles.append((value, handle))
                    self.open.append((handle, self.now_ms))
            self.check_time()
        self.trouble = False
        end_ms = self.now_ms + DELIVERY_MS + REQUEST_MS + 10_000
        while self.step(end_ms):
            self.check_time()

    def check_time(self) -> None:
        self.open = [entry for entry in self.open if not entry[0].done()]
        for handle, sent_ms in self.open:
            limit_ms = sent_ms + DELIVERY_MS + REQUEST_MS
            assert self.now_ms <= limit_ms, handle


@pytest.mark.parametrize("seed", SEEDS)
def test_every_outcome_is_true(seed: int) -> None:
    model = Model(seed)
    model.run()
    assert len(model.handles) > 200
    logs = [[record[0] for record in log.records] for log in model.logs]
    for log in logs:
        assert len(set(log)) == len(log), "a record stands twice"
    delivered = 0
    for value, handle in model.handles:
        assert handle.done()
        log = logs[handle.partition]
        error = handle.exception()
        if error is None:
            where = handle.result()
            assert log[where.offset] == value
            delivered += 1
        elif error.definite:
            assert value not in log, f"{value!r} was said not to be there: {error}"
    assert delivered > len(model.handles) // 2
    for log in model.logs:
        by_session: dict[int, list[bytes]] = {}
        for value, producer_id, _, _ in log.records:
            by_session.setdefault(producer_id, []).append(value)
        for values in by_session.values():
            assert values == sorted(values), "records of one session are in send order"


def test_the_model_makes_all_kinds_of_trouble() -> None:
    codes: dict[ErrorCode | None, int] = {}
    fates: dict[bool, int] = {}
    sessions = 0
    for seed in range(6):
        model = Model(seed)
        model.run()
        sessions += model.next_producer_id - 1
        for _, handle in model.handles:
            for attempt in handle.attempts:
                codes[attempt.error] = codes.get(attempt.error, 0) + 1
            if isinstance(error := handle.exception(), SendFailed):
                fates[error.definite] = fates.get(error.definite, 0) + 1
    for code in (
        None,
        E.NONE,
        E.NOT_LEADER_OR_FOLLOWER,
        E.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        E.OUT_OF_ORDER_SEQUENCE_NUMBER,
        E.UNKNOWN_PRODUCER_ID,
    ):
        assert codes.get(code, 0) > 0, code
    assert sessions > 6, "no session has ended"
    assert fates.get(False, 0) > 0
