"""Hypothesis drives a simulated cluster: it decides what befalls whom, and every draw is its own.

The invariants of `chaos.sim.invariants` are watched at every step; a machine that ends heals the
cluster and waits until it is whole.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chaos import bounds
from chaos.history import Header, HistoryWriter
from chaos.sim.admin import TopicCreation, create_request
from chaos.sim.choices import Choices
from chaos.sim.client import SimProducer, SimStopwatch
from chaos.sim.cluster import SimCluster
from chaos.sim.invariants import Invariants
from chaos.sim.nemesis import Nemesis
from chaos.sim.plan import Fault, Load, Plan, Setup
from chaos.workload import ClientPlan

NODES = st.integers(1, 3)
LASTING = st.integers(50, 2_500)
SETUP = Setup(partitions=2, segment_bytes=2_048)
PLAN = Plan(SETUP, Load(gap_ms_max=60))


class ClusterMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        # Hypothesis chooses the faults; the small chances in between (delays) come in a pattern
        # that it chooses too.
        state = seed

        def source(label: str, span: int) -> int:
            nonlocal state
            state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
            return (state >> 33) % (span + 1)

        self.cluster = SimCluster(3, Choices(source))
        self.watcher = Invariants(self.cluster)
        self.nemesis = Nemesis(self.cluster, PLAN)
        self.cluster.start_all()
        creation = TopicCreation(self.cluster, create_request("t", SETUP))
        assert self.cluster.wait(20_000, "the topic is created", lambda: creation.is_done)
        history = HistoryWriter(lambda data: None, Header("simulated", "simulated", seed))
        watch = SimStopwatch(self.cluster)
        client = ClientPlan(0, "producer")
        self.producer = SimProducer(self.cluster, PLAN, "t", client, history, watch)

    def _befall(self, fault: Fault) -> None:
        self.nemesis.inject(fault)
        self._run(20)

    def _run(self, milliseconds: int) -> None:
        self.cluster.clock.run_until(self.cluster.clock.now_ms + milliseconds)

    @rule(milliseconds=st.integers(1, 2_000))
    def wait(self, milliseconds: int) -> None:
        self._run(milliseconds)

    @rule(
        kind=st.sampled_from(["kill", "power-loss", "pause", "stop", "clock-jump", "hang-disk"]),
        node=NODES,
        lasting=LASTING,
    )
    def one_node(self, kind: str, node: int, lasting: int) -> None:
        self._befall(Fault(0, kind, node=node, lasting_ms=lasting, amount=lasting))

    @rule(
        kind=st.sampled_from(["isolate", "cut-pair", "cut-one-way", "halves"]),
        node=NODES,
        other=NODES,
        lasting=LASTING,
    )
    def cut(self, kind: str, node: int, other: int, lasting: int) -> None:
        self._befall(Fault(0, kind, node=node, other=other, lasting_ms=lasting))

    @rule(
        message=st.sampled_from(["FetchRequest", "RaftRequest", "AlterPartitionRequest"]),
        node=NODES,
        lasting=LASTING,
    )
    def hold(self, message: str, node: int, lasting: int) -> None:
        self._befall(Fault(0, "hold-messages", node=node, lasting_ms=lasting, message=message))

    @rule(node=NODES, effects=st.integers(0, 60), lasting=LASTING)
    def crash_in_a_turn(self, node: int, effects: int, lasting: int) -> None:
        self._befall(Fault(0, "crash-in-turn", node=node, lasting_ms=lasting, amount=effects))

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "cluster"):
            assert not self.cluster.violations

    def teardown(self) -> None:
        if not hasattr(self, "cluster") or self.cluster.violations:
            return
        self.producer.stop_sending()
        self.nemesis.heal()
        limit_ms = 3 * bounds.heal_ms(self.cluster.nodes[1].config)
        self.cluster.wait(limit_ms, "all replicas are in sync and equal", self.cluster.converged)
        self.watcher.check_all()
        self.producer.end()
        assert not self.cluster.violations


ClusterMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, derandomize=True
)
TestClusterMachine = ClusterMachine.TestCase
