"""Seeded random walks: longer than the hypothesis machine goes, too long to shrink by it.

A failing seed is replayed with `walk(seed, steps)`; the number of steps can be lowered by hand.
The counts at the end show that the walks come to the interesting places at all.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.raft.chaos import Chaos

WEIGHTS = {
    "deliver_first": 60,
    "deliver": 12,
    "propose": 12,
    "campaign": 8,
    "restart": 8,
    "tick": 6,
    "sync": 6,
    "duel": 4,
    "fire": 4,
    "drop": 4,
    "duplicate": 3,
    "speed_up": 2,
    "slow_down": 2,
    "crash": 2,
    "reboot": 2,
    "mend": 2,
    "cut": 1,
    "pause": 1,
    "transfer": 1,
    "compact": 4,
}


def walk(seed: int, steps: int) -> Counter[str]:
    choices = random.Random(seed)
    chaos = Chaos(choices.choice((3, 5)), choices.randint)
    for pick in choices.sample(range(5), choices.randrange(4)):
        chaos.slow_down(pick)
    # Every walk has a character of its own: some deeds are common in it, others rare or absent.
    weights = [weight * choices.choice((0, 1, 2, 4)) for weight in WEIGHTS.values()]
    for deed in choices.choices(list(WEIGHTS), weights, k=steps):
        pick = choices.randrange(120)
        if deed == "deliver_first":
            chaos.deliver_first(1 + pick % 8)
        elif deed == "tick":
            chaos.tick((1, 20, 50, 100, 300)[pick % 5])
        elif deed in ("crash", "reboot"):
            getattr(chaos, deed)(pick, choices.randrange(5))
        elif deed == "pause":
            chaos.pause(pick, 3_000)
        else:
            getattr(chaos, deed)(pick)
        chaos.bound()
    chaos.heal()
    history = chaos.cluster.history
    seen = Counter(
        leaders=len(history.leader_by_term),
        committed=len(history.committed),
        installed=chaos.cluster.installed_count,
    )
    for host in chaos.cluster.hosts.values():
        assert host.node is not None
        seen["terms"] = max(seen["terms"], host.node.term)
    return seen


def test_walks() -> None:
    seen: Counter[str] = Counter()
    for seed in range(24):
        seen += walk(seed, 1_000)
    assert seen["leaders"] > 100
    assert seen["committed"] > 300
    assert seen["installed"] > 10


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_walks_for_long() -> None:
    for seed in range(1_000, 2_000):
        walk(seed, 2_000)
