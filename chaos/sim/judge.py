"""The end of a run: the same checkers as for real runs, on the same kind of evidence."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checker.judge import judge_evidence
from chaos.checker.model import build_history
from chaos.checker.run_info import FaultRow, Gates, RunInfo, TopicInfo
from chaos.history import HistoryFile
from chaos.sim.client import NS_PER_MS
from chaos.sim.cluster import SimCluster
from chaos.sim.evidence import FactRecorder, collect
from chaos.sim.plan import TOPIC, Setup

NO_GATES = Gates(
    acked_seconds_percent_min=0,
    leader_epoch_changes_min=0,
    faults_confirmed=False,
    converged=False,
    all_acked_compared=False,
    facts_present=False,
)
"""A single seed need not be worth much; `search` says what its seeds are worth together."""


def judge(
    cluster: SimCluster,
    setup: Setup,
    history: bytes,
    recorder: FactRecorder,
    faults: Sequence[FaultRow],
    *,
    seed: int,
    heal_ms: int,
    converged: bool,
) -> None:
    """Every anomaly becomes a violation of the run, by its name."""
    run = RunInfo(
        seed=seed,
        nodes=tuple(cluster.nodes),
        topics={
            TOPIC: TopicInfo(setup.partitions, setup.replication_factor, setup.min_isr, setup.flush)
        },
        heal_ns=heal_ms * NS_PER_MS,
        converged_ns=cluster.clock.now_ms * NS_PER_MS if converged else None,
        interrupted=not converged,  # the run has told of it already
        gates=NO_GATES,
    )
    model = build_history([HistoryFile.from_bytes("history", history)])
    verdict = judge_evidence(run, model, collect(cluster, recorder), faults)
    for example in verdict.examples:
        cluster.violate(example.anomaly, f"{example.place}: {'; '.join(example.lines)}")
    for name in verdict.found:
        if not any(line.startswith(f"{name}: ") for line in cluster.violations):
            cluster.violate(name, f"{verdict.found[name]} times")
