"""A rule-based state machine: hypothesis chooses what happens to 3 or 5 voters, every step is
checked against all invariants, and a failure shrinks to a short play.

Derandomized, so that a run today is the run of tomorrow; `nightly` looks further.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from tests.raft.chaos import Chaos

DEFAULT = settings(
    max_examples=60,
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NIGHTLY = settings(DEFAULT, max_examples=3_000, stateful_step_count=150)

PICK = st.integers(0, 119)
NODE = st.integers(0, 4)


class RaftMachine(RuleBasedStateMachine):
    """One cluster; the deeds are told in `chaos.py`."""

    @initialize(voter_count=st.sampled_from([3, 5]), data=st.randoms(use_true_random=False))
    def begin(self, voter_count: int, data: st.DataObject) -> None:
        self.chaos = Chaos(voter_count, data.randint)  # type: ignore[attr-defined]

    @rule(node=NODE)
    def campaign_and_deliver(self, node: int) -> None:
        self.chaos.campaign(node)
        self.chaos.deliver_first(30)

    @rule(node=NODE)
    def campaign(self, node: int) -> None:
        self.chaos.campaign(node)

    @rule(pick=PICK)
    def duel(self, pick: int) -> None:
        self.chaos.duel(pick)

    @rule(pick=PICK)
    def cut(self, pick: int) -> None:
        self.chaos.cut(pick)

    @rule(pick=PICK)
    def mend(self, pick: int) -> None:
        self.chaos.mend(pick)

    @rule(node=NODE)
    def fire(self, node: int) -> None:
        self.chaos.fire(node)

    @rule(duration_ms=st.sampled_from([1, 50, 100, 500, 1600]))
    def tick(self, duration_ms: int) -> None:
        self.chaos.tick(duration_ms)

    @rule(pick=PICK)
    def propose(self, pick: int) -> None:
        self.chaos.propose(pick)

    @rule(count=st.integers(1, 12))
    def deliver_first(self, count: int) -> None:
        self.chaos.deliver_first(count)
        self.chaos.bound()

    @rule(picks=st.lists(PICK, min_size=1, max_size=8))
    def deliver_any(self, picks: list[int]) -> None:
        for pick in picks:
            self.chaos.deliver(pick)

    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        self.chaos.drop(pick)

    @rule(pick=PICK)
    def duplicate(self, pick: int) -> None:
        self.chaos.duplicate(pick)

    @rule(node=NODE)
    def slow_down(self, node: int) -> None:
        self.chaos.slow_down(node)

    @rule(node=NODE)
    def sync(self, node: int) -> None:
        self.chaos.sync(node)

    @rule(node=NODE)
    def speed_up(self, node: int) -> None:
        self.chaos.speed_up(node)

    @rule(node=NODE, kept=st.integers(0, 4))
    def crash(self, node: int, kept: int) -> None:
        self.chaos.crash(node, kept)

    @rule(node=NODE, kept=st.integers(0, 4))
    def reboot(self, node: int, kept: int) -> None:
        self.chaos.reboot(node, kept)

    @precondition(lambda self: len(self.chaos.cluster.running) < len(self.chaos.cluster.hosts))
    @rule(node=NODE)
    def restart(self, node: int) -> None:
        self.chaos.restart(node)

    @rule(node=NODE, gap_ms=st.sampled_from([200, 5_000]))
    def pause(self, node: int, gap_ms: int) -> None:
        self.chaos.pause(node, gap_ms)

    @rule(node=NODE)
    def transfer(self, node: int) -> None:
        self.chaos.transfer(node)

    def teardown(self) -> None:
        self.chaos.heal()


def test_machine() -> None:
    run_machine(RaftMachine, settings=DEFAULT)


@pytest.mark.nightly
def test_machine_for_long() -> None:
    run_machine(RaftMachine, settings=NIGHTLY)
