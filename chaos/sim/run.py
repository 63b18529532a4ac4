"""One simulated run: a seed, a workload, faults, healing, and the judgement.

What it must show: every acknowledged record stands at its offset with its bytes on every replica,
once; what certainly failed stands nowhere; replicas are equal; one leader an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from chaos.sim.choices import Choices
from chaos.sim.client import SimAdmin, SimProducer, TopicChurn, create_request
from chaos.sim.cluster import SimCluster
from chaos.sim.judge import judge
from chaos.sim.nemesis import inject_fault
from chaos.sim.setup import TOPIC, Setup, draw_setup

START_LIMIT_MS = 30_000
HEAL_LIMIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class RunResult:
    seed: int
    trace_hash: str
    violations: tuple[str, ...]
    acked: int
    failed: int
    unknown: int
    leader_changes: int
    crashes: int
    steps: int
    draws: int
    tail: tuple[str, ...]


def run_varied(seed: int, *, load_ms: int = 8_000, keep_trace: bool = False) -> RunResult:
    """As `run_seed`, on a setup that is drawn too."""
    choices = Choices(seed)
    return _run(seed, choices, draw_setup(choices), load_ms, keep_trace)


def run_seed(
    seed: int, *, load_ms: int = 8_000, keep_trace: bool = False, setup: Setup | None = None
) -> RunResult:
    """Run one seed from an empty cluster to its judgement. Deterministic."""
    return _run(seed, Choices(seed), setup or Setup(), load_ms, keep_trace)


def _run(seed: int, choices: Choices, setup: Setup, load_ms: int, keep_trace: bool) -> RunResult:
    cluster = SimCluster(setup.nodes, choices, setup.voters)
    cluster.trace.keep_all = keep_trace
    cluster.network.duplicate_percent = setup.duplicate_percent
    partitions = choices.draw("partitions", 1, 3)
    cluster.start_all()
    request = create_request(TOPIC, partitions, 3, setup.min_isr, setup.flush, setup.segment_bytes)
    admin = SimAdmin(cluster, request)
    producers: list[SimProducer] = []
    if cluster.wait(START_LIMIT_MS, "the topic is created", lambda: admin.created):
        for number in range(choices.draw("producers", 1, 3)):
            producers.append(SimProducer(cluster, f"c{number}", TOPIC, partitions))
        _load(cluster, producers, setup, load_ms)
        _heal_and_judge(cluster, producers)
    outcomes = [producer.outcomes() for producer in producers]
    return RunResult(
        seed=seed,
        trace_hash=f"{cluster.trace.checksum:08x}-{cluster.trace.count}",
        violations=tuple(cluster.violations),
        acked=sum(len(acked) for acked, _, _ in outcomes),
        failed=sum(len(failed) for _, failed, _ in outcomes),
        unknown=sum(len(unknown) for _, _, unknown in outcomes),
        leader_changes=cluster.leader_changes,
        crashes=cluster.crashes,
        steps=cluster.steps,
        draws=len(choices.values),
        tail=tuple(cluster.trace.lines if keep_trace else cluster.trace.lines[-60:]),
    )


def _load(cluster: SimCluster, producers: list[SimProducer], setup: Setup, load_ms: int) -> None:
    """Send and break things, both as drawn."""
    choices, clock = cluster.choices, cluster.clock
    may_crash = setup.flush != "async"
    cluster.crash_between_effects = may_crash and choices.chance("crash_between_effects", 50)
    churn = _churn(cluster, setup) if setup.churns else None
    end_ms = clock.now_ms + load_ms
    next_fault_ms = clock.now_ms + 500
    while clock.now_ms < end_ms:
        for producer in (*producers, *([churn.producer] if churn else [])):
            producer.send_some(choices.draw("burst", 0, 6))
        clock.run_until(clock.now_ms + choices.draw("gap", 5, 60))
        if clock.now_ms >= next_fault_ms:
            inject_fault(cluster, setup)
            next_fault_ms = clock.now_ms + choices.draw("fault_gap", 100, 1_500)
    if churn is not None:
        churn.topic.stop()
        churn.producer.stop()


@dataclass(frozen=True, slots=True)
class _Churn:
    topic: TopicChurn
    producer: SimProducer


def _churn(cluster: SimCluster, setup: Setup) -> _Churn:
    """Nothing is judged of what is written to it, but that nobody stumbles over it."""
    request = create_request("u", 2, 3, setup.min_isr, setup.flush, setup.segment_bytes)
    topic = TopicChurn(cluster, request, cluster.choices.pick("churn_ms", (200, 2_000)))
    return _Churn(topic, SimProducer(cluster, "churner", "u", 2))


# -- the end -------------------------------------------------------------------------------------


def _heal_and_judge(cluster: SimCluster, producers: list[SimProducer]) -> None:
    cluster.crash_between_effects = False
    cluster.clock.run_until(cluster.clock.now_ms + 3_100)
    cluster.network.heal()
    for node in cluster.nodes.values():
        if node.paused:
            node.resume()
    cluster.start_all()
    cluster.wait(HEAL_LIMIT_MS, "all sends end", lambda: all(item.all_done() for item in producers))
    for producer in producers:
        producer.stop()
    if cluster.wait(HEAL_LIMIT_MS, "replicas converge", cluster.converged):
        judge(cluster, producers)
