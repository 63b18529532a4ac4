"""Calls that are repeated until answered, and metadata that stays fresh."""

from __future__ import annotations

from typing import Any

from broker.wire.errors import ErrorCode
from broker.wire.messages import CreateTopicRequest, CreateTopicResponse, DescribeNodeRequest
from client.admin import AdminCore
from client.cluster import METADATA_HEDGE_MS, Call, ClusterCore
from client.config import AdminConfig
from client.events import Disconnected
from tests.client.harness import TOPIC, Harness, World, lowest

E = ErrorCode
CREATE = CreateTopicRequest("new", 1, 1, (), (), 1_000)


class AdminHarness(Harness):
    def __init__(self, world: World | None = None, **settings: Any) -> None:
        config = AdminConfig(**{"bootstrap_servers": "host:9001", **settings})
        self.cluster = ClusterCore(config, lowest)
        super().__init__(AdminCore(self.cluster), world or World())
        self.tick()
        self.advance(100)

    def start(self, body: object = CREATE, node: int | None = None, limit_ms: int = 10_000) -> Call:
        call = Call(body, node, self.now_ms + limit_ms)
        self.cluster.start(call)
        self.tick()
        return call

    def reply(self, error: ErrorCode, *, maybe_done: bool = False) -> None:
        (send,) = self.take(CreateTopicRequest)
        self.feed(self.answer_to(send, CreateTopicResponse(error, "", "id", maybe_done)))


def test_an_answer_ends_a_call() -> None:
    admin = AdminHarness()
    call = admin.start()
    admin.reply(E.NONE)
    assert call.done
    assert isinstance(call.answer, CreateTopicResponse)
    assert not call.maybe_done


def test_a_refusal_is_an_answer() -> None:
    admin = AdminHarness()
    call = admin.start()
    admin.reply(E.INVALID_CONFIG)
    assert call.done
    assert call.last_error is E.INVALID_CONFIG


def test_a_retriable_error_is_tried_again_and_its_doubt_remembered() -> None:
    admin = AdminHarness()
    call = admin.start()
    admin.reply(E.NOT_CONTROLLER)
    assert not call.maybe_done
    admin.advance(100)
    admin.reply(E.NOT_CONTROLLER, maybe_done=True)
    admin.advance(100)
    admin.reply(E.TOPIC_ALREADY_EXISTS)
    assert call.done
    assert call.maybe_done


def test_a_lost_answer_leaves_a_doubt_unless_nothing_was_sent() -> None:
    admin = AdminHarness()
    call = admin.start()
    (send,) = admin.sent
    admin.disconnect(send.peer, unsent=True)
    assert not call.maybe_done
    admin.advance(100)
    (send,) = admin.sent
    admin.disconnect(send.peer)
    assert call.maybe_done


def test_another_broker_is_asked_after_a_failure() -> None:
    admin = AdminHarness()
    admin.start()
    (first,) = admin.sent
    admin.disconnect(first.peer)
    admin.advance(30)
    (second,) = admin.sent
    assert first.peer != second.peer


def test_time_ends_a_call_once_its_last_attempt_is_over() -> None:
    admin = AdminHarness()
    call = admin.start(limit_ms=1_000)
    admin.advance(2_900)
    assert not call.done, "its attempt is under way"
    admin.advance(200)
    assert call.done
    assert call.answer is None
    assert call.maybe_done


def test_a_node_is_asked_itself() -> None:
    admin = AdminHarness()
    admin.start(DescribeNodeRequest(False), node=3)
    assert [send.peer for send in admin.sent] == [3]


def test_a_node_that_nobody_knows_is_waited_for() -> None:
    admin = AdminHarness()
    call = admin.start(DescribeNodeRequest(False), node=4)
    admin.advance(500)
    assert admin.sent == []
    admin.world.node_count = 4
    admin.world.index += 1
    admin.advance(200)
    assert [send.peer for send in admin.sent] == [4]
    assert not call.done


def test_fenced_brokers_are_asked_last() -> None:
    admin = AdminHarness(World(node_count=1))
    assert admin.cluster.router.any_peer(admin.now_ms) == 1
    assert admin.cluster.router.any_peer(admin.now_ms, avoid=[1]) == -1


def test_metadata_is_refreshed_when_it_is_old() -> None:
    admin = AdminHarness(metadata_max_age_ms=10_000)
    before = admin.metadata_requests
    admin.advance(35_000)
    assert admin.metadata_requests - before == 3


def test_a_silent_broker_is_hedged_until_one_answers() -> None:
    admin = AdminHarness()
    admin.answers_metadata = False
    admin.cluster.want(TOPIC)
    admin.tick()
    assert len(admin.sent) == 1
    admin.advance(METADATA_HEDGE_MS * 2)
    assert len({send.peer for send in admin.sent}) == 3
    last = admin.sent.pop()
    admin.feed(admin.answer_to(last, admin.world.metadata()))
    admin.advance(METADATA_HEDGE_MS * 3)
    assert len(admin.sent) == 2, "answered: nobody else is asked"


def test_another_cluster_is_named() -> None:
    admin = AdminHarness()
    admin.world.cluster_id = "other"
    admin.cluster.want(TOPIC)
    admin.advance(1_000)
    assert "other" in admin.cluster.explain_errors()
    assert admin.metadata_requests < 10


def test_all_brokers_gone_brings_the_bootstrap_address_back() -> None:
    admin = AdminHarness(reconnect_backoff_ms=400)
    admin.feed(*(Disconnected(node) for node in (1, 2, 3)))
    admin.start()
    assert [send.peer for send in admin.sent] == [-1]


def test_a_node_that_moved_is_sought_at_its_new_address() -> None:
    admin = AdminHarness()
    call = admin.start(DescribeNodeRequest(False), node=2)
    (old,) = admin.sent
    admin.world.port_shift = 100
    admin.world.index += 1
    admin.cluster.request_refresh(admin.now_ms)
    admin.advance(100)
    assert 2 in admin.closed
    (new,) = admin.sent
    assert (old.address, new.address) == ("host:9002", "host:9102")
    assert call.maybe_done


def test_rests_grow_with_failures_and_end_with_an_answer() -> None:
    admin = AdminHarness()
    router = admin.cluster.router
    rests = []
    for _ in range(5):
        admin.feed(Disconnected(1))
        rests.append(router.ready_ms(1) - admin.now_ms)
        admin.now_ms += 1_000
    assert rests == [25, 50, 100, 200, 250]
