"""One simulated run: a plan, chance, and the judgement."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import bounds
from chaos.history import Header, HistoryWriter
from chaos.sim.admin import TopicChurn, TopicCreation, create_request
from chaos.sim.choices import Choices, Draws, from_draws, from_seed
from chaos.sim.client import SimConsumer, SimProducer, SimStopwatch
from chaos.sim.cluster import SimCluster, Watcher
from chaos.sim.evidence import FactRecorder
from chaos.sim.invariants import Invariants
from chaos.sim.judge import judge
from chaos.sim.nemesis import Nemesis
from chaos.sim.node import SimNode
from chaos.sim.plan import CHURNED_TOPIC, TOPIC, Plan, Setup, draw_plan
from chaos.sim.trace import Entry
from chaos.workload import ClientPlan

START_LIMIT_MS = 30_000
HEAL_FACTOR = 3
"""Faults are worse than any bound foresees (messages that arrive seconds late, split votes)."""
CHURNER = 900
CHURN_GAP_MS_MAX = 1_000
SETTLE_MS = 600
"""From the end of the load to the end of all faults."""


OnStep = Callable[[SimCluster], None]


def _node_settings(setup: Setup) -> dict[str, int]:
    return {
        "replica_high_watermark_checkpoint_interval_ms": setup.checkpoint_ms,
        "producer_id_expiration_ms": setup.producer_expiry_ms,
        "producer_id_expiration_check_interval_ms": max(setup.producer_expiry_ms // 7, 1),
        "log_scrub_interval_ms": setup.scrub_ms,
        "replica_fetch_session_partitions": setup.session_partitions,
        "log_retention_check_interval_ms": 300,
        "metadata_log_max_bytes_between_snapshots": setup.snapshot_bytes,
    }


@dataclass(frozen=True, slots=True)
class RunResult:
    seed: int
    plan: Plan
    trace_hash: str
    violations: tuple[str, ...]
    acked: int
    failed: int
    unknown: int
    read: int
    leader_changes: int
    faults: dict[str, int]
    """What was injected, by kind."""
    facts: dict[str, int]
    """What became true, by kind: the coverage of the protocol."""
    crashes: int
    events: int
    """That cores have handled."""
    virtual_ms: int
    entries: tuple[Entry, ...]
    """The end of the trace, or all of it."""
    draws: Draws = field(default_factory=dict)


def run_seed(seed: int, *, keep_trace: bool = False, on_step: OnStep | None = None) -> RunResult:
    """The run of a seed: it draws the plan and all the rest. Deterministic. `on_step` is called
    after each turn of a node."""
    choices = Choices(from_seed(seed))
    run = _Run(draw_plan(choices), choices, seed, keep_trace)
    if on_step is not None:
        run.cluster.watchers.append(_Stepper(run.cluster, on_step))
    return run.play()


def rerun(
    plan: Plan, seed: int, draws: Draws | None = None, *, keep_trace: bool = False
) -> RunResult:
    """A plan that is given; chance from recorded draws, or else from the seed."""
    choices = Choices(from_seed(seed) if draws is None else from_draws(draws))
    return _Run(plan, choices, seed, keep_trace).play()


class _Stepper(Watcher):
    def __init__(self, cluster: SimCluster, on_step: OnStep) -> None:
        self._cluster = cluster
        self._on_step = on_step

    def after_turn(self, node: SimNode) -> None:
        self._on_step(self._cluster)


class _Run:
    """Start, load and faults, healing, judgement."""

    def __init__(self, plan: Plan, choices: Choices, seed: int, keep_trace: bool) -> None:
        setup = plan.setup
        self.plan = plan
        self.seed = seed
        self.cluster = SimCluster(
            setup.nodes,
            choices,
            setup.voters,
            keep_trace=keep_trace,
            node_settings=_node_settings(setup),
        )
        self.cluster.network.delay_ms_max = setup.network_ms_max
        self.cluster.sync_ms_max = setup.sync_ms_max
        self.recorder = FactRecorder(self.cluster)
        self.invariants = Invariants(self.cluster)
        self.nemesis = Nemesis(self.cluster, plan)
        self.watch = SimStopwatch(self.cluster)
        self.written = bytearray()
        self.history = self._history(self.written.extend)
        self.producers: list[SimProducer] = []
        self.consumers: list[SimConsumer] = []
        self.churn: TopicChurn | None = None
        self.churner: SimProducer | None = None

    def _history(self, sink: Callable[[bytes], object]) -> HistoryWriter:
        return HistoryWriter(sink, Header("simulated", "simulated", self.seed))

    def play(self) -> RunResult:
        cluster = self.cluster
        cluster.start_all()
        creation = TopicCreation(cluster, create_request(TOPIC, self.plan.setup))
        if cluster.wait(START_LIMIT_MS, "the topic is created", lambda: creation.is_done):
            self._load()
            self._heal_and_judge()
        return self._result()

    def _load(self) -> None:
        """Clients and faults side by side."""
        cluster = self.cluster
        self._begin_clients()
        self.nemesis.schedule()
        cluster.clock.run_until(cluster.clock.now_ms + self.plan.load.duration_ms)
        for producer in self._all_producers():
            producer.stop_sending()
        if self.churn is not None:
            self.churn.stop()
        cluster.clock.run_until(cluster.clock.now_ms + SETTLE_MS)

    def _begin_clients(self) -> None:
        setup = self.plan.setup
        for process in range(setup.producers):
            self.producers.append(self._producer(TOPIC, process, self.history))
        for process in range(setup.producers, setup.producers + setup.consumers):
            client = ClientPlan(process, "consumer")
            self.consumers.append(
                SimConsumer(self.cluster, self.plan, TOPIC, client, self.history, self.watch)
            )
        if setup.churns:
            request = create_request(CHURNED_TOPIC, setup)
            self.churn = TopicChurn(self.cluster, request, CHURN_GAP_MS_MAX)
            # Nothing is judged of what is written to it, but that nobody stumbles over it.
            unjudged = self._history(lambda data: None)
            self.churner = self._producer(CHURNED_TOPIC, CHURNER, unjudged)

    def _producer(self, topic: str, process: int, history: HistoryWriter) -> SimProducer:
        client = ClientPlan(process, "producer")
        return SimProducer(self.cluster, self.plan, topic, client, history, self.watch)

    def _all_producers(self) -> list[SimProducer]:
        return [*self.producers, *([self.churner] if self.churner is not None else [])]

    def _heal_and_judge(self) -> None:
        cluster = self.cluster
        heal_ms = cluster.clock.now_ms
        self.nemesis.heal()
        limit_ms = HEAL_FACTOR * bounds.heal_ms(cluster.nodes[1].config)
        limit_ms += self.plan.setup.delivery_timeout_ms
        converged = cluster.wait(
            limit_ms, "all sends end", lambda: all(p.is_settled for p in self.producers)
        ) and cluster.wait(limit_ms, "all replicas are in sync and equal", cluster.converged)
        cluster.clock.run_until(cluster.clock.now_ms + 1_000)
        for producer in self._all_producers():
            producer.end()
        for consumer in self.consumers:
            consumer.end()
        self.invariants.check_all()
        self.history.close()
        judge(
            cluster,
            self.plan.setup,
            bytes(self.written),
            self.recorder,
            self.nemesis.injected,
            seed=self.seed,
            heal_ms=heal_ms,
            converged=converged,
        )
        # A history is part of what must be equal in equal runs.
        cluster.tell("-", "history", f"{zlib.crc32(self.written):08x}")

    def _result(self) -> RunResult:
        cluster = self.cluster

        def count(outcome: str) -> int:
            return sum(producer.counts[outcome] for producer in self.producers)

        return RunResult(
            seed=self.seed,
            plan=self.plan,
            trace_hash=cluster.trace.hash,
            violations=tuple(cluster.violations),
            acked=count("ok"),
            failed=count("fail"),
            unknown=count("info"),
            read=sum(consumer.read_count for consumer in self.consumers),
            leader_changes=cluster.leader_changes,
            faults=dict(Counter(fault.kind for fault in self.nemesis.injected)),
            facts=dict(cluster.fact_counts),
            crashes=cluster.crashes,
            events=cluster.event_count,
            virtual_ms=cluster.clock.now_ms,
            entries=tuple(cluster.trace.entries),
            draws=cluster.choices.draws,
        )
