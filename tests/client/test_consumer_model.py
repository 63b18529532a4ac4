"""The consumer core against a lossy model of a cluster: nothing is skipped, repeated or swapped.

Positions move only by reading and by what is announced as `PositionChanged`; so the records handed
out, cut at those events, are runs of consecutive offsets, each with the bytes of the log.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    EARLIEST_TIMESTAMP,
    FetchPart,
    FetchPartResult,
    FetchRequest,
    FetchResponse,
    ListOffsetsPartResult,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
)
from client.config import ConsumerConfig
from client.errors import CorruptRecords
from client.events import Answered, CloseConnection, Disconnected, Send, Tick
from client.fetcher import FetcherCore, PositionChanged
from tests.client.harness import TOPIC, World, stored

E = ErrorCode
PARTITIONS = 3
END_MS = 8_000
SEEDS = range(20)


class Model:
    """Logs that grow, shrink from the front and change leaders; a network that loses things."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(PARTITIONS)
        self.batches: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        """(next offset, bytes) per partition."""
        self.log_starts = [0] * PARTITIONS
        self.ends = [0] * PARTITIONS
        self.core = FetcherCore(
            ConsumerConfig(
                bootstrap_servers="host:9001",
                auto_offset_reset="earliest",
                request_timeout_ms=500,
                fetch_max_wait_ms=100,
            ),
            lambda label, low, high: self.random.randint(low, high),
        )
        self.now_ms = 0
        self.running = 0
        self.agenda: list[tuple[int, int, Any]] = []
        self.connections: dict[int, int] = {}
        self.trouble = True
        self.expected: list[int | None] = [None] * PARTITIONS
        """The offset that must come next; None before the first position."""
        self.read_count = 0
        self.resets: dict[str, int] = {}
        self.damaged_count = 0

    def chance(self, percent: int) -> bool:
        return self.trouble and self.random.randrange(100) < percent

    def later(self, delay_ms: int, what: Any) -> None:
        self.running += 1
        self.agenda.append((self.now_ms + delay_ms, self.running, what))

    # --- the brokers ------------------------------------------------------------------------------

    def grow(self) -> None:
        for partition in range(PARTITIONS):
            if self.random.random() < 0.4:
                first = self.ends[partition]
                count = self.random.randint(1, 5)
                values = [b"%d:%d" % (partition, first + n) for n in range(count)]
                self.ends[partition] = first + count
                self.batches[partition].append((self.ends[partition], stored(first, *values)))

    def cut_front(self) -> None:
        partition = self.random.randrange(PARTITIONS)
        batches = self.batches[partition]
        gone = self.random.randint(0, len(batches))
        if gone:
            self.log_starts[partition] = batches[gone - 1][0]
            del batches[:gone]

    def answer(self, peer: int, body: object) -> tuple[object, list[bytes]]:
        match body:
            case MetadataRequest(topics):
                return self.world.metadata(topics), []
            case ListOffsetsRequest(parts):
                return ListOffsetsResponse(
                    tuple(
                        ListOffsetsPartResult(
                            part.topic_id,
                            part.partition,
                            E.OFFSET_NOT_AVAILABLE if self.chance(20) else E.NONE,
                            self.log_starts[part.partition]
                            if part.timestamp_ms == EARLIEST_TIMESTAMP
                            else self.ends[part.partition],
                            -1,
                            0,
                        )
                        for part in parts
                    )
                ), []
            case FetchRequest():
                return self.fetch(peer, body)
        raise AssertionError(body)

    def fetch(self, peer: int, request: FetchRequest) -> tuple[FetchResponse, list[bytes]]:
        results = []
        payload = []
        for part in request.parts:
            code, data = self.read(peer, part)
            if data and self.chance(2):
                self.damaged_count += 1
                position = self.random.randrange(16, len(data))
                data = data[:position] + bytes((data[position] ^ 4,)) + data[position + 1 :]
            payload += [data] if data else []
            leader = self.world.leaders[part.partition]
            leader_epoch = self.world.leader_epochs[part.partition]
            results.append(
                FetchPartResult(
                    part.topic_id,
                    part.partition,
                    code,
                    leader,
                    leader_epoch,
                    self.ends[part.partition],
                    self.log_starts[part.partition],
                    self.ends[part.partition],
                    -1,
                    -1,
                    bool(data),
                )
            )
        return FetchResponse(request.fetch_round, 0, tuple(results)), payload

    def read(self, peer: int, part: FetchPart) -> tuple[ErrorCode, bytes]:
        partition = part.partition
        if self.world.leaders[partition] != peer:
            return E.NOT_LEADER_OR_FOLLOWER, b""
        if part.leader_epoch != self.world.leader_epochs[partition]:
            return E.FENCED_LEADER_EPOCH, b""
        if self.chance(3):
            return self.random.choice([E.OFFSET_NOT_AVAILABLE, E.BUSY, E.STORAGE_ERROR]), b""
        if not self.log_starts[partition] <= part.fetch_offset <= self.ends[partition]:
            return E.OFFSET_OUT_OF_RANGE, b""
        wanted = [data for end, data in self.batches[partition] if end > part.fetch_offset]
        return E.NONE, b"".join(wanted[: self.random.randint(1, 4)])

    # --- the network ------------------------------------------------------------------------------

    def carry_out(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    version = self.connections.setdefault(effect.peer, 0)
                    if not self.chance(3):
                        self.later(self.random.randint(0, 20), ((effect.peer, version), effect))
                case CloseConnection(peer):
                    self.connections[peer] = self.connections.get(peer, 0) + 1
                case PositionChanged():
                    self.on_position(effect)

    def on_position(self, change: PositionChanged) -> None:
        expected = self.expected[change.partition]
        assert change.old_offset == (-1 if expected is None else expected)
        self.expected[change.partition] = change.new_offset
        self.resets[change.reason] = self.resets.get(change.reason, 0) + 1

    def step(self) -> None:
        """Everything that arrives in the next moment, then a tick and a look at the records."""
        self.now_ms += self.random.randint(1, 15)
        arrived = sorted(entry for entry in self.agenda if entry[0] <= self.now_ms)
        self.agenda = [entry for entry in self.agenda if entry[0] > self.now_ms]
        for _, _, what in arrived:
            (peer, version), thing = what
            if self.connections.get(peer) != version:
                continue
            if isinstance(thing, Send):
                body, payload = self.answer(peer, thing.body)
                answer = Answered(peer, thing.correlation_id, body, payload)
                if not self.chance(3):
                    self.later(self.random.randint(0, 20), ((peer, version), answer))
            else:
                self.carry_out(self.core.handle(thing, self.now_ms))
        if self.chance(1):
            peer = self.random.choice([1, 2, 3])
            self.connections[peer] = self.connections.get(peer, 0) + 1
            self.carry_out(self.core.handle(Disconnected(peer), self.now_ms))
        self.carry_out(self.core.handle(Tick(), self.now_ms))
        self.look()

    def look(self) -> None:
        try:
            records = self.core.take(self.random.randint(1, 20))
        except CorruptRecords:
            assert self.damaged_count > 0
            return
        for record in records:
            assert record.offset == self.expected[record.partition]
            assert record.value == b"%d:%d" % (record.partition, record.offset)
            self.expected[record.partition] = record.offset + 1
            self.read_count += 1

    def run(self) -> None:
        self.core.assign([(TOPIC, partition) for partition in range(PARTITIONS)])
        while self.now_ms < END_MS:
            self.step()
            self.grow()
            if self.chance(2):
                self.world.move(self.random.choice([1, 2, 3]), self.random.randrange(PARTITIONS))
            if self.chance(1):
                self.cut_front()
            if self.chance(1):
                partition = self.random.randrange(PARTITIONS)
                offset = self.random.randint(self.log_starts[partition], self.ends[partition])
                self.core.seek(TOPIC, partition, offset)
            if self.chance(1):
                partition = self.random.randrange(PARTITIONS)
                self.core.pause(TOPIC, partition)
            for topic, partition in self.core.paused():
                if self.random.random() < 0.1:
                    self.core.resume(topic, partition)
        self.trouble = False
        for topic, partition in self.core.paused():
            self.core.resume(topic, partition)
        for _ in range(3_000):
            self.step()
            if self.expected == self.ends:
                return


@pytest.mark.parametrize("seed", SEEDS)
def test_records_come_as_they_stand_in_the_log(seed: int) -> None:
    model = Model(seed)
    model.run()
    assert model.expected == model.ends, "in the end everything is read"
    assert model.read_count > 500


def test_the_model_makes_all_kinds_of_trouble() -> None:
    reasons: dict[str, int] = {}
    damaged_count = 0
    for seed in range(6):
        model = Model(seed)
        model.run()
        damaged_count += model.damaged_count
        for reason, count in model.resets.items():
            reasons[reason] = reasons.get(reason, 0) + count
    assert sorted(reasons) == ["initial", "out of range", "seek"]
    assert damaged_count > 10
