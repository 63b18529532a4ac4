"""The loop without a thread: what has arrived is taken before anything is called overdue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from broker.wire.messages import FetchRequest
from client import polling
from client.events import CloseConnection, Event
from client.polling import PollingDriver
from tests.client.harness import TOPIC, FetcherHarness, stored


class Waiting:
    """A network in which answers wait until somebody looks."""

    def __init__(self) -> None:
        self.arrived: list[Event] = []
        self.executed: list[Any] = []
        self.waits: list[int] = []

    def poll(self, timeout_ms: int) -> list[Event]:
        self.waits.append(timeout_ms)
        events, self.arrived = self.arrived, []
        return events

    def execute(self, effects: Iterable[object]) -> None:
        self.executed += effects


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now_ms = [5_000]
    monkeypatch.setattr(polling, "monotonic_ms", lambda: now_ms[0])
    return now_ms


def test_answers_that_waited_longer_than_the_time_out_are_taken(clock: list[int]) -> None:
    consumer = FetcherHarness()
    consumer.core.assign([(TOPIC, 0)])
    consumer.core.seek(TOPIC, 0, 0)
    consumer.tick()
    consumer.advance(100)
    (send,) = consumer.take(FetchRequest)
    network = Waiting()
    consumer.sent.append(send)
    consumer.give({0: stored(0, b"a")})
    assert consumer.core.take(1)
    driver = PollingDriver(consumer.core, network)
    clock[0] = consumer.now_ms
    driver.turn(0)
    (fetch,) = [effect for effect in network.executed if isinstance(effect.body, FetchRequest)]
    clock[0] += 60_000
    empty = consumer.full_answer(fetch, {})
    network.arrived = [empty]
    network.executed.clear()
    driver.turn(0)
    assert not any(isinstance(effect, CloseConnection) for effect in network.executed), (
        network.executed
    )


def test_what_is_there_already_is_not_waited_for(clock: list[int]) -> None:
    consumer = FetcherHarness()
    consumer.core.assign([(TOPIC, 0)])
    consumer.core.seek(TOPIC, 0, 0)
    consumer.tick()
    (send,) = consumer.take(FetchRequest)
    network = Waiting()
    network.arrived = [consumer.full_answer(send, {0: stored(0, b"a")})]
    clock[0] = consumer.now_ms
    PollingDriver(consumer.core, network).turn(60_000, consumer.core.has_something)
    assert network.waits == [0]
    assert [record.value for record in consumer.core.take(5)] == [b"a"]
    assert not consumer.core.take(5)
    assert not consumer.core.has_something()


def test_run_until_ends_at_its_deadline(clock: list[int]) -> None:
    consumer = FetcherHarness()
    network = Waiting()
    driver = PollingDriver(consumer.core, network)
    looks = []

    def is_over() -> bool:
        looks.append(clock[0])
        clock[0] += 10
        return False

    assert not driver.run_until(is_over, 5_100)
    assert looks[-1] <= 5_100
