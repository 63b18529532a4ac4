"""Which brokers hold the replicas of a new topic."""

from __future__ import annotations

from collections.abc import Sequence


def stripe(
    brokers: Sequence[int], partition_count: int, replication_factor: int, start: int
) -> tuple[tuple[int, ...], ...]:
    """Replicas per partition, preferred leader first (the placement of Kafka's AdminUtils).

    Leaders go round the brokers from `start`; the followers of one partition go round from behind
    its leader, one further in each round of leaders, so that a dead broker's load is spread.
    `replication_factor` is from 1 to the number of brokers, which are all different.
    """
    count = len(brokers)
    assert 1 <= replication_factor <= count, (brokers, replication_factor)
    placed = []
    for partition in range(partition_count):
        leader = start + partition
        behind = [
            1 + (partition // count + place) % (count - 1)
            for place in range(replication_factor - 1)
        ]
        placed.append(tuple(brokers[(leader + step) % count] for step in [0, *behind]))
    return tuple(placed)
