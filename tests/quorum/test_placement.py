"""Placement of replicas: properties for every size, and one picture."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.quorum.placement import stripe


@settings(deadline=None, derandomize=True, database=None)
@given(st.sets(st.integers(1, 99), min_size=1, max_size=8), st.data())
def test_replicas_are_distinct_and_spread(brokers: set[int], data: st.DataObject) -> None:
    names = sorted(brokers)
    factor = data.draw(st.integers(1, len(names)))
    count = data.draw(st.integers(1, 40))
    start = data.draw(st.integers(0, len(names) - 1))
    placed = stripe(names, count, factor, start)
    assert len(placed) == count
    for replicas in placed:
        assert len(replicas) == len(set(replicas)) == factor
        assert set(replicas) <= brokers
    leaders = Counter(replicas[0] for replicas in placed)
    assert max(leaders.values()) - min(leaders[name] for name in names) <= 1
    assert placed[0][0] == names[start]


def test_followers_move_on_in_each_round() -> None:
    """So the partitions of one dead leader do not all fall to the same successor."""
    assert stripe((1, 2, 3, 4), 9, 2, 0) == (
        (1, 2),
        (2, 3),
        (3, 4),
        (4, 1),
        (1, 3),
        (2, 4),
        (3, 1),
        (4, 2),
        (1, 4),
    )
