"""A rule-based state machine: hypothesis chooses what happens to 3 or 5 voters, every step is
checked against all invariants, and a failure shrinks to a short play.

Derandomized, so that a run today is the run of tomorrow; `nightly` looks further.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from tests.raft.chaos import Chaos

DEFAULT = settings(
    max_examples=40,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NIGHTLY = settings(DEFAULT, max_examples=3_000, stateful_step_count=100)

PICK = st.integers(0, 119)
NODE = st.integers(0, 4)
KEPT = st.integers(0, 4)


class RaftMachine(RuleBasedStateMachine):
    """One cluster; the deeds are told in `chaos.py`. Few rules that do much, as every choice of a
    rule is dear."""

    @initialize(
        voter_count=st.sampled_from([3, 5]),
        seed=st.integers(0, 999),
        slow=st.lists(NODE, max_size=4),
    )
    def begin(self, voter_count: int, seed: int, slow: list[int]) -> None:
        self.chaos = Chaos(voter_count, random.Random(seed).randint)
        for node in slow:
            self.chaos.slow_down(node)

    @rule(node=NODE, count=st.integers(0, 40))
    def campaign(self, node: int, count: int) -> None:
        self.chaos.campaign(node)
        self.chaos.deliver_first(count)

    @rule(pick=PICK, count=st.integers(0, 10))
    def duel(self, pick: int, count: int) -> None:
        self.chaos.duel(pick)
        self.chaos.deliver_first(count)

    @rule(pick=PICK, count=st.integers(0, 12))
    def propose(self, pick: int, count: int) -> None:
        self.chaos.propose(pick)
        self.chaos.deliver_first(count)

    @rule(duration_ms=st.sampled_from([1, 100, 500, 1600]), count=st.integers(0, 20))
    def tick(self, duration_ms: int, count: int) -> None:
        self.chaos.tick(duration_ms)
        self.chaos.deliver_first(count)
        self.chaos.bound()

    @rule(node=NODE)
    def fire(self, node: int) -> None:
        self.chaos.fire(node)

    @rule(picks=st.lists(PICK, min_size=1, max_size=8))
    def deliver_any(self, picks: list[int]) -> None:
        for pick in picks:
            self.chaos.deliver(pick)

    @rule(deed=st.sampled_from(["drop", "duplicate", "cut", "mend"]), pick=PICK)
    def network(self, deed: str, pick: int) -> None:
        getattr(self.chaos, deed)(pick)

    @rule(deed=st.sampled_from(["slow_down", "sync", "speed_up", "compact"]), node=NODE)
    def disk(self, deed: str, node: int) -> None:
        getattr(self.chaos, deed)(node)

    @rule(deed=st.sampled_from(["crash", "reboot"]), node=NODE, kept=KEPT)
    def crash(self, deed: str, node: int, kept: int) -> None:
        getattr(self.chaos, deed)(node, kept)

    @precondition(lambda self: len(self.chaos.cluster.running) < len(self.chaos.cluster.hosts))
    @rule()
    def restart(self) -> None:
        for node in range(len(self.chaos.cluster.hosts)):
            self.chaos.restart(node)

    @rule(deed=st.sampled_from(["pause", "transfer"]), node=NODE)
    def surprise(self, deed: str, node: int) -> None:
        if deed == "pause":
            self.chaos.pause(node, 3_000)
        else:
            self.chaos.transfer(node)

    def teardown(self) -> None:
        self.chaos.heal()


def test_machine() -> None:
    run_machine(RaftMachine, settings=DEFAULT)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_machine_for_long() -> None:
    run_machine(RaftMachine, settings=NIGHTLY)
