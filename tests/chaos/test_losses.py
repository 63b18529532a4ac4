"""What flush=async lost: who came back without it, from which crash, and whether that is enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chaos.checker.losses import Loss, LossProver
from chaos.checker.replication_checker import Metadata, PartitionVersion
from chaos.checker.run_info import FaultRow
from chaos.evidence import Evidence, Fact, fact_from_row

KEY = ("ab" * 16, 0)
SECOND_NS = 1_000_000_000
UNCLEAN = {
    KEY: [
        PartitionVersion(1, 1, 3, 5, (1, 2, 3), (), 2),
        PartitionVersion(2, -1, 4, 6, (), (), 2),
        PartitionVersion(3, 3, 5, 7, (3,), (), 2),
    ]
}


def fact(
    node: int, kind: str, leo: int, epochs: tuple[int, int] = (-1, -1), **more: object
) -> Fact:
    row = {"node": node, "kind": kind, "topic": KEY[0], "p": 0, "leo": leo}
    return fact_from_row(row | {"le": epochs[0], "pe": epochs[1], "t": 9 * SECOND_NS} | more)


def began(node: int) -> list[Fact]:
    """Before the ack: an empty log, and a role."""
    return [fact(node, "Recovered", 0), fact(node, "BecameFollower", 0, (3, 4))]


def came_back(node: int, leo: int) -> list[Fact]:
    """After the ack: a crash took it out of the ISR, then it gets a role."""
    return [fact(node, "Recovered", leo), fact(node, "BecameFollower", leo, (3, 6))]


ACK = fact(1, "Acked", 20, (3, 5), first=10, last=19, isr=[1, 2, 3], min_isr=2, acks=-1)
POWER_LOSS = FaultRow(8 * SECOND_NS, "power-loss", "inject", "1,2,3", confirmed=True)
EARLIER = [
    FaultRow(2 * SECOND_NS, "kill", "inject", "2", confirmed=True),
    FaultRow(3 * SECOND_NS, "kill", "lift", "2", confirmed=True),
]
LATER = FaultRow(10 * SECOND_NS, "kill", "inject", "2", confirmed=True)


def prove(
    facts: dict[int, list[Fact]],
    lost: list[int],
    *,
    unclean: bool = False,
    versions: dict[tuple[str, int], list[PartitionVersion]] | None = None,
    crash: FaultRow = POWER_LOSS,
) -> list[Loss]:
    evidence = Evidence(facts={1: [*began(1), ACK], 2: began(2), 3: began(3)})
    for node, more in facts.items():
        evidence.facts[node] += more
    faults = [*EARLIER, crash, LATER]
    metadata = Metadata(versions=versions or {})
    prover = LossProver(evidence, metadata, faults, KEY, "t-0", unclean=unclean)
    return prover.prove((offset, 3) for offset in lost)


def test_enough_members_lost_their_tails() -> None:
    (loss,) = prove({1: came_back(1, 12), 3: came_back(3, 10)}, [14, 12, 13])
    assert loss.is_allowed
    assert loss.describe() == [
        "3 acked records of t-0, offsets 12 to 14, acked by node 1 in leader epoch 3, "
        "ISR [1, 2, 3], min ISR 2",
        "node 1 came back with log end 12 after power-loss number 2 (1000 ms before)",
        "node 3 came back with log end 10 after power-loss number 2 (1000 ms before)",
        "2 members lost their tails, 2 is min ISR",
    ]


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({3: came_back(3, 10)}, id="only one"),
        pytest.param({1: came_back(1, 20), 3: came_back(3, 10)}, id="the other one still had it"),
        pytest.param(
            {2: [fact(2, "Truncated", 12, (4, 6), old_end=20), *came_back(2, 12)]}
            | {3: came_back(3, 10)},
            id="the other one had cut it off before",
        ),
        pytest.param(
            {2: [fact(2, "Recovered", 10), fact(2, "BecameFollower", 10, (3, 5))]}
            | {3: came_back(3, 10)},
            id="the other one began before the ack",
        ),
    ],
)
def test_too_few_did(facts: dict[int, list[Fact]]) -> None:
    (loss,) = prove(facts, [13])
    assert not loss.is_allowed
    assert [tail.node for tail in loss.tails] == [3]


def test_a_loss_may_have_been_accepted() -> None:
    facts = {3: came_back(3, 10)}
    (loss,) = prove(facts, [13], unclean=True, versions=UNCLEAN)
    assert loss.is_allowed
    assert loss.describe()[-1] == (
        "1 members lost their tails, 2 is min ISR; accepted by the unclean election of node 3"
    )
    (forbidden,) = prove(facts, [13], unclean=False, versions=UNCLEAN)
    assert not forbidden.is_allowed


def test_an_ack_without_facts_proves_nothing() -> None:
    (loss,) = prove({1: came_back(1, 10), 2: came_back(2, 10)}, [25])
    assert not loss.is_allowed
    assert loss.describe()[0].endswith("acked by nobody whose facts we have")


def test_fates_that_differ_are_told_apart() -> None:
    losses = prove(
        {1: came_back(1, 10), 2: came_back(2, 10), 3: came_back(3, 15)}, [*range(10, 20)]
    )
    assert [(loss.first_offset, loss.record_count, len(loss.tails)) for loss in losses] == [
        (10, 5, 2),
        (15, 5, 3),
    ]
    assert replace(losses[1], first_offset=10).leader == 1


@pytest.mark.parametrize("kind", ["kill", "kill-majority", "kill-all", "power-loss"])
def test_every_kind_of_crash_is_named(kind: str) -> None:
    facts = {1: came_back(1, 12), 2: came_back(2, 12)}
    (loss,) = prove(facts, [13], crash=replace(POWER_LOSS, kind=kind))
    assert {tail.crash for tail in loss.tails} >= {f"{kind} number 2 (1000 ms before)"}


def test_a_crash_that_nobody_noted() -> None:
    early = [fact(1, "Recovered", 10, t=1), fact(1, "BecameFollower", 10, (3, 6))]
    (loss,) = prove({1: early, 2: came_back(2, 10)}, [13])
    assert loss.tails[0].crash == "a crash that nobody noted"
