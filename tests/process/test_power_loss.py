"""All brokers lose power at once: real processes whose disks forget what was not synced."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chaos.proc.cluster import FORGETFUL, Plan
from chaos.proc.health import NO_NODE
from client.admin import Admin
from client.producer import Producer
from tests.process.stories import Story, parts_of, running
from tests.process.test_stories import Load, read_all

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("forgetful")
    with running(directory, Plan(name="forgetful"), FORGETFUL) as story:
        yield story


def lose_power(story: Story) -> None:
    for node_id in story.cluster.node_ids:
        story.cluster.kill(node_id)
    story.restart(story.cluster.node_ids)


def acked_and_held(story: Story, topic: str, load: Load) -> tuple[int, int]:
    """How many records were acknowledged, and how many of them are where that said."""
    load.finish()
    story.wait_equal(topic)
    values = read_all(story, topic, 1)[0]
    acked = [(value, handle) for value, handle in load.sent if handle.exception() is None]
    held = [
        value
        for value, handle in acked
        if (offset := handle.result(0).offset) < len(values) and values[offset] == value
    ]
    return len(acked), len(held)


def test_nothing_acknowledged_is_missing_and_nobody_has_to_help(forgetful: Story) -> None:
    forgetful.create_topic("ack")
    load = Load(forgetful, "ack")
    for _ in range(2):
        time.sleep(1.0)
        lose_power(forgetful)
        forgetful.wait_whole()
    time.sleep(0.5)
    acked, held = acked_and_held(forgetful, "ack", load)
    assert acked > 100
    assert held == acked
    with Producer(bootstrap_servers=forgetful.bootstrap) as producer:
        producer.send("ack", b"writable again", partition=0).result(10)


def test_with_async_it_costs_what_was_not_synced(forgetful: Story) -> None:
    """The stated price of that mode, and the proof that these disks do forget. Every replica has
    lost what it had counted, so none may lead: somebody has to say that the loss is accepted."""
    forgetful.create_topic("async", flush="async")
    load = Load(forgetful, "async")
    time.sleep(1.0)
    lose_power(forgetful)
    forgetful.wait_for(
        "nobody may lead",
        lambda view: (
            not any(node.fenced or not node.answered for node in view.nodes)
            and parts_of(view, "async")[0].leader == NO_NODE
        ),
    )
    with Admin(bootstrap_servers=forgetful.bootstrap) as admin:
        admin.alter_topic("async", {"unclean_leader_election_enable": "true"})
    forgetful.wait_whole()
    acked, held = acked_and_held(forgetful, "async", load)
    assert held < acked
