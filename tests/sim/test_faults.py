"""Each kind of fault does what it says, and is over when it says so."""

from __future__ import annotations

import pytest

from broker.wire import frames
from broker.wire.messages import MetadataRequest
from chaos.sim.choices import Choices, from_seed
from chaos.sim.clock import NodeClock, SimClock
from chaos.sim.network import Rule, SimNetwork
from chaos.sim.plan import FAULT_KINDS, Fault, FaultKind, Load, Plan, Setup
from chaos.sim.run import RunResult, rerun, run_seed

pytestmark = pytest.mark.simulation

SETUP = Setup(
    nodes=4,
    voters=3,
    partitions=1,
    segment_bytes=2_048,
    network_ms_max=3,
    sync_ms_max=4,
    producers=2,
    consumers=1,
    flush="ack",
    scrub_ms=500,
)
LOAD = Load(duration_ms=2_500, burst_max=8, gap_ms_max=40, value_bytes=120)


def run_with(*faults: Fault, setup: Setup = SETUP, seed: int = 1) -> RunResult:
    return rerun(Plan(setup, LOAD, faults), seed)


def sample(kind: FaultKind, node: int) -> Fault:
    low, high = kind.amount
    return Fault(
        at_ms=1_200,
        kind=kind.name,
        node=node,
        other=1 if node != 1 else 2,
        lasting_ms=min(kind.lasting_ms[1], 600),
        amount=(low + high) // 2 if kind.name != "crash-in-turn" else 5,
        message=kind.messages[0],
    )


@pytest.mark.parametrize("kind", FAULT_KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_fault_is_injected_and_survived(kind: FaultKind) -> None:
    for node in (4, 2, 3, 1):
        result = run_with(sample(kind, node))
        assert not result.violations, result.violations
        if result.faults:
            assert result.faults == {kind.name: 1}
            assert result.acked > 0
            return
    raise AssertionError(f"{kind.name} did nothing on any node")


@pytest.mark.parametrize(
    ("kind", "crashes"),
    [("kill", 1), ("power-loss", 1), ("power-loss-all", 4), ("pause", 0), ("stop", 0), ("wipe", 1)],
)
def test_what_ends_a_process_is_counted(kind: str, crashes: int) -> None:
    assert run_with(Fault(1_200, kind, node=4, lasting_ms=300)).crashes == crashes


def test_a_run_without_faults_elects_once() -> None:
    result = run_with()
    assert result.leader_changes == 1
    assert (result.failed, result.unknown, result.crashes) == (0, 0, 0)
    assert 0 < result.read <= result.acked


def test_a_fault_after_the_end_of_the_load_never_comes() -> None:
    assert run_with(Fault(9_000, "kill", node=1, lasting_ms=100)).faults == {}


def test_a_disk_that_others_cannot_spare_is_not_lost() -> None:
    """A voter keeps its disk, and so does the last member of an ISR."""
    assert run_with(Fault(1_200, "wipe", node=1, lasting_ms=300)).faults == {}
    alone = Setup(nodes=4, voters=3, replication_factor=1, min_isr=1)
    for node in (1, 2, 3, 4):
        result = run_with(Fault(1_200, "wipe", node=node, lasting_ms=300), setup=alone)
        assert not result.violations
    assert result.faults in ({}, {"wipe": 1})


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "passed"), [(1_000, 1_000), (900, 900), (1_100, 1_100)])
def test_a_clock_runs_at_its_rate(rate: int, passed: int) -> None:
    clock = SimClock()
    node_clock = NodeClock(clock)
    node_clock.set_rate(rate)
    start_ms = node_clock.now_ms
    clock.run_until(clock.now_ms + 1_000)
    assert node_clock.now_ms - start_ms == passed
    assert node_clock.true_delay_ms(passed) == 1_000


def test_a_clock_jumps_ahead_and_never_goes_back() -> None:
    clock = SimClock()
    node_clock = NodeClock(clock)
    seen = [node_clock.now_ms]
    for step in (lambda: node_clock.jump(500), lambda: node_clock.set_rate(900), lambda: None):
        step()
        clock.run_until(clock.now_ms + 7)
        seen.append(node_clock.now_ms)
    assert seen == sorted(seen)
    assert seen[1] - seen[0] == 507


# --- the network ----------------------------------------------------------------------------------


class Wire:
    """One sender and what arrived."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, Choices(from_seed(1)))
        self.arrived: list[int] = []

    def send(self, *numbers: int, source: str = "n1", target: str = "n2") -> None:
        for number in numbers:
            self.network.send(
                source,
                target,
                "x",
                frames.Kind.REQUEST,
                number,
                MetadataRequest(None),
                (),
                lambda message: self.arrived.append(message.correlation_id),
            )

    def wait(self, milliseconds: int = 10_000) -> list[int]:
        self.clock.run_until(self.clock.now_ms + milliseconds)
        return self.arrived


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(drop_percent=100), []),
        (Rule(source="n1", target="n2", message="MetadataRequest", drop_percent=100), []),
        (Rule(source="n2", drop_percent=100), [1, 2, 3]),
        (Rule(target="n3", drop_percent=100), [1, 2, 3]),
        (Rule(message="FetchRequest", drop_percent=100), [1, 2, 3]),
        (Rule(delay_ms_max=500), [1, 2, 3]),
    ],
)
def test_a_rule_meets_its_link_direction_and_message(rule: Rule, expected: list[int]) -> None:
    wire = Wire()
    wire.network.add_rule(rule)
    wire.send(1, 2, 3)
    assert wire.wait() == expected


def test_what_is_held_comes_in_order_with_what_followed_it() -> None:
    wire = Wire()
    number = wire.network.add_rule(Rule(hold=True))
    wire.send(1, 2)
    assert wire.wait() == []
    wire.network.lift_rule(number)
    wire.send(3)
    assert wire.wait() == [1, 2, 3]


def test_duplicates_come_once_more_and_late() -> None:
    wire = Wire()
    wire.network.add_rule(Rule(duplicate_percent=100))
    wire.send(1, 2)
    assert sorted(wire.wait()) == [1, 1, 2, 2]


def test_reordered_messages_overtake() -> None:
    wire = Wire()
    wire.network.add_rule(Rule(delay_ms_max=400, reorder=True))
    wire.send(*range(20))
    assert sorted(wire.wait()) == list(range(20))
    assert wire.arrived != list(range(20))


def test_two_cuts_of_one_link_are_taken_back_one_by_one() -> None:
    wire = Wire()
    for is_cut in (True, True, False):
        wire.network.set_cut("n1", "n2", is_cut)
    wire.send(1)
    assert wire.wait() == []
    wire.network.set_cut("n1", "n2", False)
    wire.send(2)
    assert wire.wait() == [2]


def test_a_run_is_judged_by_what_its_clients_saw() -> None:
    """Many clients at a time, admin operations beside them, and readers that keep up."""
    result = run_seed(2)
    assert result.acked > 100
    assert result.read > 0
