"""Answers that nobody reads: bounded in bytes, per connection and for the node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from broker.config import NodeConfig
from broker.events import Connection, Plane, Received, Reply
from broker.runtime.network import Network
from broker.runtime.reply_memory import REPLIES_PER_CONNECTION, ReplyMemory
from broker.wire import frames
from broker.wire.errors import ErrorCode
from broker.wire.messages import FetchPartResult, FetchResponse, MetadataRequest
from chaos.proc.ports import claim_ports

A, B = (Connection(Plane.BROKER, name) for name in (b"a", b"b"))
MIB = 1_048_576


class Frame:
    def __init__(self) -> None:
        self.done = False


def test_what_has_left_makes_room() -> None:
    memory = ReplyMemory(100)
    first, second = Frame(), Frame()
    assert memory.admits(A, 60)
    memory.hold(A, 60, [first, second])
    assert not memory.admits(B, 50)
    assert memory.admits(B, 40)
    first.done = True
    assert not memory.admits(B, 50)
    second.done = True
    assert memory.admits(B, 100)
    assert memory.total_bytes == 0


def test_one_answer_is_admitted_whatever_its_size() -> None:
    memory = ReplyMemory(100)
    assert memory.admits(A, 1_000)
    memory.hold(A, 1_000, [Frame()])
    assert not memory.admits(B, 1)


def test_who_does_not_read_takes_nobody_elses_share() -> None:
    memory = ReplyMemory(1_000)
    for _ in range(REPLIES_PER_CONNECTION):
        assert memory.admits(A, 10)
        memory.hold(A, 10, [Frame()])
    assert not memory.admits(A, 10)
    assert memory.admits(B, 10)


# --- on real sockets ------------------------------------------------------------------------------


class Asker:
    """A client that reads only when told to."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], port: int) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVHWM, 1)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def ask(self) -> None:
        parts = frames.encode(frames.Kind.REQUEST, 1, MetadataRequest(()))
        self.socket.send_multipart(parts)

    def has_answer(self) -> bool:
        if not self.socket.poll(2_000):
            return False
        return frames.decode(self.socket.recv_multipart()).payload[0][:4] == b"vvvv"


@pytest.fixture
def node() -> Iterator[tuple[Network, dict[str, int], int]]:
    counters: dict[str, int] = {}

    def count(name: str, by: int = 1) -> None:
        counters[name] = counters.get(name, 0) + by

    with claim_ports(1) as claim:
        config = NodeConfig(
            node_id=1,
            cluster_id="c",
            data_dir="unused",
            roles=("broker",),
            broker_port=claim.ports[0],
            response_bytes_max=24 * MIB,
        )
        network = Network(config, count)
        yield network, counters, claim.ports[0]
        network.close()


def answer_all(network: Network, wanted: int) -> None:
    """Answer so many requests, each with 4 MiB of batches."""
    part = FetchPartResult("t" * 32, 0, ErrorCode.NONE, 1, 2, 3, 0, 4, -1, -1, True)
    answered = 0
    while answered < wanted:
        events: list[Any] = network.poll(2_000)
        assert events, "the requests arrive"
        for event in events:
            assert isinstance(event, Received)
            body = FetchResponse(1, 1, (part,))
            network.reply(Reply(event.connection, 1, body, (b"v" * (4 * MIB),)))
            network.flush()
            answered += 1


def test_a_peer_that_asks_and_does_not_read_starves_nobody(
    node: tuple[Network, dict[str, int], int],
) -> None:
    network, counters, port = node
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        lazy, busy = Asker(context, port), Asker(context, port)
        for _ in range(20):
            lazy.ask()
        answer_all(network, 20)
        # Some megabytes are in the kernel's buffers, four answers in ZeroMQ's queue.
        assert counters["replies_dropped_memory"] >= 5
        for _ in range(4):
            busy.ask()
            answer_all(network, 1)
            assert busy.has_answer()
        kept = 20 - counters["replies_dropped_memory"]
        assert all(lazy.has_answer() for _ in range(kept))
        lazy.ask()
        answer_all(network, 1)
        assert lazy.has_answer()
    finally:
        context.destroy(0)
