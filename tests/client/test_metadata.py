"""Beliefs about the cluster never go back."""

from __future__ import annotations

from broker.wire.errors import ErrorCode
from broker.wire.messages import NO_LEADER
from client.metadata import ClusterMetadata, Leader
from tests.client.harness import TOPIC, World


def known(world: World) -> ClusterMetadata:
    metadata = ClusterMetadata()
    assert metadata.apply(world.metadata())
    return metadata


def test_leaders_and_addresses() -> None:
    metadata = known(World(2))
    assert metadata.leader(TOPIC, 1) == Leader(1, 0)
    assert metadata.leader(TOPIC, 2) is None
    assert metadata.leader("other", 0) is None
    assert metadata.address(3) == "host:9003"
    assert metadata.address(4) is None


def test_an_older_answer_is_ignored() -> None:
    world = World()
    stale = world.metadata()
    world.move(2)
    world.node_count = 4
    metadata = known(world)
    metadata.apply(stale)
    assert metadata.leader(TOPIC, 0) == Leader(2, 1)
    assert 4 in metadata.brokers


def test_a_leader_epoch_never_goes_back_for_the_same_topic_id() -> None:
    world = World()
    metadata = known(world)
    assert metadata.learn_leader(TOPIC, "id-1", 0, 3, 5)
    world.index += 1
    metadata.apply(world.metadata())
    assert metadata.leader(TOPIC, 0) == Leader(3, 5)


def test_a_recreated_topic_starts_anew() -> None:
    world = World()
    metadata = known(world)
    metadata.learn_leader(TOPIC, "id-1", 0, 3, 5)
    world.index += 1
    world.topic_id = "id-2"
    metadata.apply(world.metadata())
    assert metadata.leader(TOPIC, 0) == Leader(1, 0)


def test_an_old_answer_does_not_bring_a_deleted_topic_back() -> None:
    world = World()
    stale = world.metadata()
    metadata = known(world)
    world.index += 1
    world.topic_error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    metadata.apply(world.metadata())
    assert TOPIC not in metadata.topics
    assert metadata.errors[TOPIC] is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    metadata.apply(stale)
    assert TOPIC not in metadata.topics


def test_hints_are_taken_only_forward_and_of_known_nodes() -> None:
    metadata = known(World())
    assert not metadata.learn_leader(TOPIC, "id-1", 0, 2, 0)
    assert not metadata.learn_leader(TOPIC, "id-1", 0, 9, 1)
    assert not metadata.learn_leader(TOPIC, "id-0", 0, 2, 1)
    assert not metadata.learn_leader(TOPIC, "id-1", 7, 2, 1)
    assert not metadata.learn_leader(TOPIC, "id-1", 0, -1, 1)
    assert metadata.learn_leader(TOPIC, "id-1", 0, 2, 1)
    assert metadata.leader(TOPIC, 0) == Leader(2, 1)


def test_no_leader_is_said_so() -> None:
    world = World()
    world.move(-1)
    assert known(world).leader(TOPIC, 0) == Leader(NO_LEADER, 1)


def test_another_cluster_is_refused() -> None:
    world = World()
    metadata = known(world)
    world.cluster_id = "other"
    world.move(2)
    assert not metadata.apply(world.metadata())
    assert metadata.leader(TOPIC, 0) == Leader(1, 0)
