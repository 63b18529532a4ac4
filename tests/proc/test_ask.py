"""Asking nodes: each node's own newest answer, and silence for everything that is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import zmq

from broker.wire import frames
from broker.wire.messages import DescribeNodeRequest, DescribeNodeResponse, MetadataResponse
from chaos.proc.ask import Asker
from chaos.proc.layout import ClusterSpec, NodeSpec
from chaos.proc.ports import claim_ports

DESCRIBED = DescribeNodeResponse(
    1, 7, ("controller", "broker"), 5, False, "leader", 3, 1, 10, 10, (), (), ()
)
METADATA = MetadataResponse("c", 10, 1, (), ())
Answers = list[bytes]
Behave = Callable[[int, frames.Message], list[Answers]]


def answer(message: frames.Message, body: object) -> Answers:
    parts = frames.encode(frames.Kind.RESPONSE, message.correlation_id, body)
    return [bytes(part) for part in parts]


def honest(number: int, message: frames.Message) -> list[Answers]:
    is_describe = isinstance(message.body, DescribeNodeRequest)
    return [answer(message, DESCRIBED if is_describe else METADATA)]


class FakeNode:
    """Answers as `behave` says, which is told how many requests came before."""

    def __init__(self, port: int) -> None:
        self.behave: Behave = honest
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.router.bind(f"tcp://127.0.0.1:{port}")
        self.ending = self.context.socket(zmq.PAIR)
        self.ending.bind("inproc://end")
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        end = self.context.socket(zmq.PAIR)
        end.connect("inproc://end")
        poller = zmq.Poller()
        poller.register(self.router, zmq.POLLIN)
        poller.register(end, zmq.POLLIN)
        count = 0
        while end not in (ready := dict(poller.poll())):
            if self.router in ready:
                sender, *parts = self.router.recv_multipart()
                for reply in self.behave(count, frames.decode(parts)):
                    self.router.send_multipart([sender, *reply])
                count += 1
        end.close()

    def close(self) -> None:
        self.ending.send(b"")
        self.thread.join()
        self.ending.close()
        self.router.close()
        self.context.term()


@pytest.fixture
def spec() -> Iterator[ClusterSpec]:
    with claim_ports(1) as claim:
        node = NodeSpec(1, ("controller", "broker"), "127.0.0.1", claim.ports[0], 1)
        yield ClusterSpec("x", "c", "local", "off", (node,))


@pytest.fixture
def node(spec: ClusterSpec) -> Iterator[FakeNode]:
    fake = FakeNode(spec.nodes[0].broker_port)
    yield fake
    fake.close()


def test_an_answer_of_the_last_round_is_not_taken_for_this_one(
    spec: ClusterSpec, node: FakeNode
) -> None:
    before: list[frames.Message] = []

    def repeats_itself(number: int, message: frames.Message) -> list[Answers]:
        if not isinstance(message.body, DescribeNodeRequest):
            return honest(number, message)
        late = [answer(old, replace(DESCRIBED, fenced=True)) for old in before]
        before[:] = [message]
        return honest(number, message) + late

    with Asker(spec) as asker:
        assert not asker.view(10_000).nodes[0].fenced
        node.behave = repeats_itself
        for _ in range(3):
            assert not asker.view(10_000).nodes[0].fenced


def test_garbage_is_no_answer_and_the_next_round_works(spec: ClusterSpec, node: FakeNode) -> None:
    with Asker(spec) as asker:
        node.behave = lambda number, message: [[b"HTTP/1.1 200 OK"], [b""], [b"\x01\x93"]]
        view = asker.view(300)
        assert not view.nodes[0].answered
        assert not view.has_metadata
        node.behave = honest
        view = asker.view(10_000)
        assert view.nodes[0].answered
        assert (view.nodes[0].pid, view.controller_id) == (7, 1)


def test_a_node_of_another_cluster_on_the_port_is_no_answer(
    spec: ClusterSpec, node: FakeNode
) -> None:
    node.behave = lambda number, message: (
        [answer(message, replace(DESCRIBED, node_id=9))]
        if isinstance(message.body, DescribeNodeRequest)
        else honest(number, message)
    )
    with Asker(spec) as asker:
        assert not asker.view(10_000).nodes[0].answered


def test_nobody_there_costs_one_timeout(spec: ClusterSpec) -> None:
    with Asker(spec) as asker:
        assert not asker.view(50).nodes[0].answered
