"""What a run is: a cluster, a load and a list of faults, in plain values.

A seed draws a plan (swarm testing: each seed switches kinds of faults and settings on and off), and
the rest of the run's chance. A plan can be edited: shrinking removes faults and simplifies settings
while everything else is drawn as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from chaos.sim.choices import Choices

TOPIC = "t"
"""The judged topic."""
CHURNED_TOPIC = "u"
"""Created and deleted all the time, when the plan says so."""

NEVER_MS = 86_400_000
"""Longer than any run."""
FLUSH_MODES = ("ack", "ack", "ack", "always", "async")

NODE_MESSAGES = (
    "FetchRequest",
    "FetchResponse",
    "AlterPartitionRequest",
    "AlterPartitionResponse",
    "BrokerHeartbeatRequest",
    "BrokerHeartbeatResponse",
    "BrokerRegistrationRequest",
    "BrokerRegistrationResponse",
    "RaftRequest",
    "MetadataFetchRequest",
    "MetadataFetchResponse",
)
MESSAGES = (
    *NODE_MESSAGES,
    "ProduceRequest",
    "ProduceResponse",
    "MetadataRequest",
    "MetadataResponse",
    "InitProducerIdRequest",
    "InitProducerIdResponse",
)


@dataclass(frozen=True, slots=True)
class Setup:
    """The cluster, its topic and its clients."""

    nodes: int = 3
    voters: int = 3
    partitions: int = 1
    replication_factor: int = 3
    min_isr: int = 2
    flush: str = "ack"
    segment_bytes: int = 134_217_728
    network_ms_max: int = 1
    sync_ms_max: int = 1
    producers: int = 1
    consumers: int = 0
    idempotence: bool = True
    batch_bytes: int = 4_096
    linger_ms: int = 0
    request_timeout_ms: int = 1_500
    delivery_timeout_ms: int = 20_000
    checkpoint_ms: int = 5_000
    """How often brokers move their recovery points, and store what may then be believed."""
    producer_expiry_ms: int = NEVER_MS
    """After how much silence a partition forgets a producer."""
    scrub_ms: int = NEVER_MS
    """How often brokers read what is cold."""
    snapshot_bytes: int = 4_194_304
    """After how much of it voters let a snapshot stand for their metadata log."""
    session_partitions: int = 200
    """From how many partitions on a link on its rounds form a session."""
    churns: bool = False
    """A topic beside the judged one is created and deleted all the time, and written to."""


@dataclass(frozen=True, slots=True)
class Load:
    """What every producer sends: bursts of 1 to `burst_max` records, pauses between them."""

    duration_ms: int = 8_000
    burst_max: int = 6
    gap_ms_max: int = 120
    value_bytes: int = 40


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that befalls the cluster, `at_ms` after the load began, for `lasting_ms`.

    `node` and `other` are node ids; what `amount` and `message` mean depends on the kind.
    """

    at_ms: int
    kind: str
    node: int = 1
    other: int = 1
    lasting_ms: int = 0
    amount: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What is drawn for faults of a kind, and where they may be drawn at all."""

    name: str
    weight: int
    lasting_ms: tuple[int, int]
    amount: tuple[int, int] = (0, 0)
    messages: tuple[str, ...] = ("",)
    crashes: bool = False
    """May end a process without warning, or cost it what is not synced."""
    loses_disk: bool = False
    """Costs a replica what it vouched for: within the budget that repair can cope with."""


FAULT_KINDS = (
    # processes
    FaultKind("kill", 3, (50, 3_000), crashes=True),
    FaultKind("power-loss", 3, (50, 3_000), crashes=True),
    FaultKind("power-loss-all", 1, (50, 1_500), crashes=True),
    FaultKind("stop", 2, (50, 3_000)),
    FaultKind("pause", 2, (50, 3_000)),
    FaultKind("kill-leader", 3, (50, 2_500), (0, 7), crashes=True),
    FaultKind("kill-controller", 2, (50, 2_500), crashes=True),
    FaultKind("pause-leader", 2, (300, 4_000), (0, 7)),
    FaultKind("pause-in-turn", 1, (300, 3_000), (0, 200)),
    FaultKind("crash-in-turn", 2, (50, 2_000), (0, 400), crashes=True),
    FaultKind("crash-in-disk-call", 2, (50, 2_000), (1, 60), ("before", "torn", "after"), True),
    # links
    FaultKind("isolate", 2, (200, 4_000), (0, 1)),
    FaultKind("halves", 1, (200, 4_000)),
    FaultKind("cut-pair", 2, (200, 4_000)),
    FaultKind("cut-one-way", 2, (200, 4_000)),
    FaultKind("slow-link", 1, (200, 3_000), (5, 400)),
    FaultKind("loss", 2, (200, 2_000), (1, 15)),
    FaultKind("drop-messages", 2, (200, 3_000), (20, 100), MESSAGES),
    FaultKind("delay-messages", 2, (200, 3_000), (20, 1_500), MESSAGES),
    FaultKind("hold-messages", 2, (200, 3_000), (0, 0), MESSAGES),
    FaultKind("late-duplicates", 1, (500, 5_000), (2, 30), NODE_MESSAGES),
    FaultKind("reorder", 1, (200, 3_000), (5, 60)),
    # disks
    FaultKind("slow-disk", 2, (200, 3_000), (10, 300)),
    FaultKind("hang-disk", 1, (300, 3_000), crashes=True),
    FaultKind("fail-sync", 1, (100, 2_000), crashes=True),
    FaultKind("fail-write", 1, (100, 2_000), (0, 1), crashes=True),
    FaultKind("full-disk", 1, (100, 1_500), (0, 2_000)),
    FaultKind("wipe", 1, (50, 2_000), crashes=True, loses_disk=True),
    FaultKind("bit-flip", 1, (50, 1_000), (0, 1_000_000), crashes=True, loses_disk=True),
    FaultKind("bit-rot", 2, (0, 0), (0, 1_000_000), loses_disk=True),
    # clocks
    FaultKind("clock-rate", 1, (500, 6_000), (900, 1_100)),
    FaultKind("clock-jump", 1, (0, 0), (50, 3_000)),
)
KINDS_BY_NAME = {kind.name: kind for kind in FAULT_KINDS}
FAULT_NAMES = tuple(KINDS_BY_NAME)


@dataclass(frozen=True, slots=True)
class Plan:
    setup: Setup = Setup()
    load: Load = Load()
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class PlanError(Exception):
    """A plan that cannot be read; says what is wrong with it."""


def plan_from_json(raw: Any) -> Plan:
    """The plan that `to_json` wrote. PlanError for anything else."""
    try:
        plan = Plan(
            _read(Setup, raw["setup"]),
            _read(Load, raw["load"]),
            tuple(_read(Fault, fault) for fault in raw["faults"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"not a plan: {error!r}") from error
    unknown = [fault.kind for fault in plan.faults if fault.kind not in KINDS_BY_NAME]
    if unknown:
        raise PlanError(f"no such fault: {', '.join(sorted(set(unknown)))}")
    setup = plan.setup
    if not 1 <= setup.voters <= setup.nodes or not 1 <= setup.replication_factor <= setup.nodes:
        raise PlanError("the plan's cluster cannot be: voters and replicas are at most the nodes")
    named = [fault for fault in plan.faults if not min(fault.node, fault.other) >= 1]
    named += [fault for fault in plan.faults if max(fault.node, fault.other) > setup.nodes]
    if named:
        raise PlanError(f"the plan's fault {named[0].kind} names a node that is not there")
    return plan


def _read(kind: type[Any], raw: Mapping[str, Any]) -> Any:
    types = {"int": int, "str": str, "bool": bool}
    expected = {item.name: types[str(item.type)] for item in fields(kind)}
    for name, value in raw.items():
        if name not in expected:
            raise TypeError(f"{kind.__name__} has no {name}")
        if type(value) is not expected[name]:
            raise TypeError(f"{name} is {value!r}")
    return kind(**raw)


# --- drawing --------------------------------------------------------------------------------------


def draw_plan(choices: Choices) -> Plan:
    """Any plan in which no guarantee is given up: what would break a promise on its own (a crash
    under flush=async, the loss of the last good disk) is not drawn, or not done when it is due."""
    setup = _draw_setup(choices)
    load = Load(
        duration_ms=choices.draw("plan: duration", 6_000, 10_000),
        burst_max=choices.pick("plan: burst", (3, 6, 12)),
        gap_ms_max=choices.pick("plan: gap", (120, 60, 200)),
        value_bytes=choices.pick("plan: value bytes", (40, 120, 400)),
    )
    return Plan(setup, load, _draw_faults(choices, setup, load.duration_ms))


def _draw_setup(choices: Choices) -> Setup:
    nodes = choices.pick("plan: nodes", (3, 3, 5, 4))
    voters = 3 if nodes < 5 else choices.pick("plan: voters", (3, 5))
    replication_factor = choices.pick("plan: replicas", (3, 3, 3, 2))
    return Setup(
        nodes=nodes,
        voters=voters,
        partitions=choices.draw("plan: partitions", 1, 3),
        replication_factor=replication_factor,
        min_isr=min(replication_factor, choices.pick("plan: min isr", (2, 2, 1, 3))),
        flush=FLUSH_MODES[choices.draw("plan: flush", 0, len(FLUSH_MODES) - 1)],
        segment_bytes=choices.pick("plan: segment bytes", (134_217_728, 4_096, 2_048)),
        network_ms_max=choices.pick("plan: network", (3, 1, 10, 30)),
        sync_ms_max=choices.pick("plan: sync", (4, 1, 20)),
        producers=choices.draw("plan: producers", 1, 4),
        consumers=choices.draw("plan: consumers", 0, 2),
        idempotence=not choices.chance("plan: no idempotence", 10),
        batch_bytes=choices.pick("plan: batch bytes", (4_096, 512, 16_384)),
        linger_ms=choices.pick("plan: linger", (0, 5)),
        request_timeout_ms=choices.pick("plan: request timeout", (1_500, 500, 3_000)),
        delivery_timeout_ms=choices.pick("plan: delivery timeout", (20_000, 5_000)),
        checkpoint_ms=choices.pick("plan: checkpoint", (5_000, 500)),
        producer_expiry_ms=choices.pick("plan: producer expiry", (NEVER_MS, NEVER_MS, 700)),
        scrub_ms=choices.pick("plan: scrub", (NEVER_MS, 500)),
        snapshot_bytes=choices.pick("plan: snapshot bytes", (4_194_304, 2_000, 500)),
        session_partitions=choices.pick("plan: session", (200, 1, 2)),
        churns=choices.chance("plan: churns", 25),
    )


def _draw_faults(choices: Choices, setup: Setup, duration_ms: int) -> tuple[Fault, ...]:
    allowed = [kind for kind in FAULT_KINDS if _may_happen(kind, setup)]
    switched_on = [kind for kind in allowed if choices.chance("plan: fault kind", 40)]
    kinds = switched_on or allowed
    weights = [kind.weight for kind in kinds]
    gap_ms_max = choices.pick("plan: fault gap", (1_200, 500, 3_000))
    faults = []
    at_ms = choices.draw("fault: at", 100, 800)
    while at_ms < duration_ms:
        kind = kinds[_weighted(choices, weights)]
        faults.append(
            Fault(
                at_ms=at_ms,
                kind=kind.name,
                node=choices.draw("fault: node", 1, setup.nodes),
                other=choices.draw("fault: other", 1, setup.nodes),
                lasting_ms=choices.draw("fault: lasting", *kind.lasting_ms),
                amount=choices.draw("fault: amount", *kind.amount),
                message=kind.messages[choices.draw("fault: message", 0, len(kind.messages) - 1)],
            )
        )
        at_ms += choices.draw("fault: gap", 50, gap_ms_max)
    return tuple(faults)


def _may_happen(kind: FaultKind, setup: Setup) -> bool:
    if (kind.crashes or kind.loses_disk) and setup.flush == "async":
        return False  # there every crash may cost records: that mode's stated price
    if kind.loses_disk:
        # Somebody else must hold every acknowledged record; a voter without its disk has no vote.
        if kind.name == "bit-rot" and setup.scrub_ms == NEVER_MS:
            return False  # nobody would find it before the end
        return setup.min_isr > 1 and (kind.name != "wipe" or setup.voters < setup.nodes)
    return True


def _weighted(choices: Choices, weights: list[int]) -> int:
    drawn = choices.draw("fault: kind", 0, sum(weights) - 1)
    for index, weight in enumerate(weights):
        drawn -= weight
        if drawn < 0:
            return index
    raise AssertionError("the weights sum up")
