"""From evidence to a verdict: every check in order, then the gates.

`judge(run_dir)` reads a run directory (see README.md); `judge_evidence` is the same for evidence
that is already in memory, as the simulator has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.checker import dump_checker, order_checker, replication_checker
from chaos.checker.anomalies import VOCABULARY, Findings
from chaos.checker.log_checker import Content, check_content
from chaos.checker.losses import Loss, LossProver
from chaos.checker.model import FAIL, OK, UNKNOWN, History, load_history
from chaos.checker.replicas import PartitionDump, compare_replicas
from chaos.checker.replication_checker import Metadata, ReplicationSummary
from chaos.checker.run_info import FaultRow, RunInfo, read_faults, read_run_info
from chaos.checker.verdict import (
    GUARANTEES,
    CheckResult,
    Gate,
    Verdict,
    Window,
)
from chaos.checker.witness import Witness
from chaos.evidence import Evidence, read_evidence

WINDOW_MIN_MS = 1_000
"""Shorter times without acks are not worth a line."""

SECOND_NS = 1_000_000_000

ALLOWED = {
    "lost-write": "flush=async: min.insync.replicas members lost their tails, or it was accepted"
}
"""Why an anomaly is no finding under flush=async after a power loss."""
ALLOWED_ANY = "flush=async and a power loss: no promise"


def judge(run_dir: Path) -> Verdict:
    """Judge a run directory. RunError, HistoryError: it cannot be judged, and why."""
    run = read_run_info(run_dir)
    history = load_history(sorted(run_dir.glob("history-*.jsonl")))
    return judge_evidence(run, history, read_evidence(run_dir, run.nodes), read_faults(run_dir))


def judge_evidence(
    run: RunInfo, history: History, evidence: Evidence, faults: Sequence[FaultRow]
) -> Verdict:
    """Run all checks on what a run left."""
    return _Trial(run, history, evidence, faults).verdict()


@dataclass(slots=True)
class _Judged:
    """What the checks counted."""

    acked_all: int = 0
    compared: int = 0
    operations: int = 0


class _Trial:
    def __init__(
        self, run: RunInfo, history: History, evidence: Evidence, faults: Sequence[FaultRow]
    ) -> None:
        self.run = run
        self.history = history
        self.evidence = evidence
        self.faults = faults
        self.findings = Findings()
        self.suspended = Findings()
        self.judged = _Judged()
        self.losses: list[Loss] = []
        self.dumps = self._dumps()
        self.witness = Witness(history, self.dumps, evidence)

    def verdict(self) -> Verdict:
        self._check_run()
        metadata = replication_checker.check_metadata(self.evidence, self.findings)
        self._check_partitions(metadata)
        summary = self._check_replication(metadata)
        gates = tuple(self._gates(summary))
        found = {name: self.findings.counts[name] for name in self.findings.names}
        outcome = "invalid" if found else "valid" if all(g.passed for g in gates) else "unknown"
        return Verdict(
            outcome=outcome,  # type: ignore[arg-type]
            checks=tuple(self._check_results(summary)),
            gates=gates,
            found=found,
            examples=tuple(self.findings.examples),
            counts=self._counts(summary),
            seed=self.run.seed,
            mutants=self.run.mutants,
            faults=dict(sorted(Counter(f.kind for f in self.faults if f.is_injected).items())),
            windows=tuple(self._windows()),
            allowed=tuple(
                (name, self.suspended.counts[name], ALLOWED.get(name, ALLOWED_ANY))
                for name in self.suspended.names
            ),
            losses=tuple(self.losses),
            notes=tuple(self._notes()),
            command=self.run.command,
        )

    # --- evidence ---------------------------------------------------------------------------------

    def _dumps(self) -> dict[int, PartitionDump]:
        """Dumps of the topics under test, by place of the history."""
        dumps = {}
        for place, (topic, partition) in enumerate(self.history.places):
            logs = self.evidence.logs.get((topic, partition))
            info = self.run.topics.get(topic)
            if logs and info:
                dumps[place] = compare_replicas(
                    self.history.place_name(place),
                    logs,
                    replica_count=info.replication_factor,
                    converged=self.run.converged_ns is not None,
                )
        return dumps

    def _findings_of_topic(self, topic: str) -> Findings:
        """Where findings of a topic go: flush=async promises nothing after a power loss."""
        info = self.run.topics.get(topic)
        if self.run.power_loss and info is not None and info.flush == "async":
            return self.suspended
        return self.findings

    def _findings_of_elections(self, topic: str) -> Findings:
        info = self.run.topics.get(topic)
        return self.suspended if info is not None and info.unclean else self.findings

    def _findings_for(self, place: int) -> Findings:
        return self._findings_of_topic(self.history.places[place][0])

    # --- checks -----------------------------------------------------------------------------------

    def _check_run(self) -> None:
        run = self.run
        for node in run.not_started:
            self.findings.tell("not-started", f"node {node}", f"node {node} would not start again")
        if run.heal_ns is not None and run.converged_ns is None and not run.interrupted:
            self.findings.tell(
                "not-converged",
                "cluster",
                f"{run.heal_limit_ms} ms after the last fault the replicas were not yet equal",
            )

    def _check_partitions(self, metadata: Metadata) -> None:
        history = self.history
        contents: dict[int, Content] = {}
        for place in range(len(history.places)):
            findings = self._findings_for(place)
            dump = self.dumps.get(place)
            content = check_content(history, place, dump, self.witness, findings)
            contents[place] = content
            if findings is self.suspended:
                self._prove_losses(place, content, metadata)
            self.judged.compared += content.compared
            self.judged.acked_all += content.acked_count
            order_checker.check_send_order(history, content, self.witness, findings)
            self.judged.operations += order_checker.check_real_time(
                history, content, self.witness, findings, dense=True
            )
            order_checker.check_log_ends(history, content, self.witness, findings)
            if dump is not None:
                dump_checker.check_dump(dump, findings)
        order_checker.check_polls(history, contents, self.witness, self._findings_for)

    def _prove_losses(self, place: int, content: Content, metadata: Metadata) -> None:
        """A loss that flush=async does not explain is a lost write as everywhere."""
        if not content.lost:
            return
        topic, partition = self.history.places[place]
        topic_id = next(known for known, name in self.evidence.topic_names.items() if name == topic)
        prover = LossProver(
            self.evidence,
            metadata,
            self.faults,
            (topic_id, partition),
            self.history.place_name(place),
            unclean=self.run.topics[topic].unclean,
        )
        sends = self.history.sends
        for loss in prover.prove((sends.offset[n], sends.leader_epoch[n]) for n in content.lost):
            if loss.is_allowed:
                self.losses.append(loss)
                continue
            self.suspended.withdraw("lost-write", loss.record_count)
            self.findings.add("lost-write", loss.place, loss.describe, loss.record_count)

    def _check_replication(self, metadata: Metadata) -> ReplicationSummary:
        replication_checker.check_elections(self.evidence, metadata, self._findings_of_elections)
        return replication_checker.check_facts(self.evidence, metadata, self._findings_of_topic)

    # --- what it amounts to -----------------------------------------------------------------------

    def _gates(self, summary: ReplicationSummary) -> list[Gate]:
        needed, run = self.run.gates, self.run
        good, total = self._acked_seconds()
        percent = 100 * good // total if total else 0
        changes = self._leader_epoch_changes(summary)
        gates = [
            Gate(
                "acked-seconds",
                total > 0 and percent >= needed.acked_seconds_percent_min,
                f"acked writes in {good} of {total} seconds of load "
                f"({needed.acked_seconds_percent_min} % needed)",
            ),
            Gate(
                "leader-epoch-changes",
                changes >= needed.leader_epoch_changes_min,
                f"{changes} leader-epoch changes ({needed.leader_epoch_changes_min} needed)",
            ),
        ]
        if needed.faults_confirmed and run.nemesis:
            seen = {fault.kind for fault in self.faults if fault.is_injected and fault.confirmed}
            missing = [kind for kind in run.nemesis if kind not in seen]
            text = f"not confirmed: {', '.join(missing)}" if missing else "each kind confirmed"
            gates.append(
                Gate("faults-confirmed", not missing, f"faults {', '.join(run.nemesis)}: {text}")
            )
        if needed.converged:
            gates.append(self._converged_gate())
        if needed.all_acked_compared:
            compared, acked = self.judged.compared, self.judged.acked_all
            gates.append(
                Gate(
                    "all-acked-compared",
                    compared == acked and self._dumps_complete(),
                    f"{compared:,} of {acked:,} acked records compared byte by byte with every "
                    "replica",
                )
            )
        if needed.facts_present:
            silent = [node for node in run.nodes if not self.evidence.facts.get(node)]
            text = f"no facts from {silent}" if silent else "facts from every node"
            gates.append(Gate("facts-present", not silent, text))
        return gates

    def _converged_gate(self) -> Gate:
        run = self.run
        if run.converged_ns is not None and run.heal_ns is not None:
            after_ms = (run.converged_ns - run.heal_ns) // 1_000_000
            return Gate("converged", True, f"replicas equal {after_ms} ms after the last fault")
        why = "the run was interrupted" if run.interrupted else "the replicas did not become equal"
        return Gate("converged", False, why)

    def _dumps_complete(self) -> bool:
        return len(self.dumps) == len(self.history.places) and all(
            dump.complete for dump in self.dumps.values()
        )

    def _acked_seconds(self) -> tuple[int, int]:
        """(seconds with an ack, all seconds) of the load phase."""
        start_ns, end_ns = self.run.load_start_ns, self.run.load_end_ns
        sends = self.history.sends
        if start_ns is None:
            return 0, 0
        ends = [
            end for end, outcome in zip(sends.end_ns, sends.outcome, strict=True) if outcome == OK
        ]
        if end_ns is None:
            end_ns = max(ends, default=start_ns)
        total = max(1, (end_ns - start_ns) // SECOND_NS)
        acked = {(end - start_ns) // SECOND_NS for end in ends}
        return sum(0 <= second < total for second in acked), total

    def _leader_epoch_changes(self, summary: ReplicationSummary) -> int:
        """As the facts tell, or at least as many as left a trace in the logs."""
        traced = 0
        for dump in self.dumps.values():
            epochs = {batch.leader_epoch for log in dump.logs for batch in log.batches}
            traced += max(0, len(epochs) - 1)
        return max(summary.leader_epoch_changes, traced)

    def _windows(self) -> list[Window]:
        start_ns, end_ns = self.run.load_start_ns, self.run.load_end_ns
        if start_ns is None or end_ns is None:
            return []
        windows = [
            Window(self.history.place_name(place), low, (high - low) // 1_000_000)
            for place in range(len(self.history.places))
            for low, high in order_checker.unavailable_windows(
                self.history, place, start_ns, end_ns, WINDOW_MIN_MS
            )
        ]
        return sorted(windows, key=lambda window: (-window.duration_ms, window.place))

    def _counts(self, summary: ReplicationSummary) -> dict[str, int]:
        outcomes = Counter(self.history.sends.outcome)
        return {
            "sends": len(self.history.sends),
            "acked": outcomes[OK],
            "failed": outcomes[FAIL],
            "unknown": outcomes[UNKNOWN],
            "acked_all": self.judged.acked_all,
            "acked_compared": self.judged.compared,
            "records_read": sum(len(reads) for reads in self.history.reads.values()),
            "polls": sum(len(polls) for polls in self.history.polls.values()),
            "operations_ordered": self.judged.operations,
            "acks_in_facts": summary.acks_judged,
            "metadata_entries": summary.metadata_entries,
            "leader_epoch_changes": self._leader_epoch_changes(summary),
            "faults": sum(fault.is_injected for fault in self.faults),
            "faults_confirmed": sum(f.is_injected and f.confirmed for f in self.faults),
        }

    def _check_results(self, summary: ReplicationSummary) -> list[CheckResult]:
        judged, facts = self.judged, bool(summary.metadata_entries)
        replicas = max((len(dump.logs) for dump in self.dumps.values()), default=0)
        stored = f"{judged.compared:,} records on {replicas} replicas"
        if self.losses:
            gone = sum(loss.record_count for loss in self.losses)
            stored += f", {gone:,} gone as flush=async allows"
        basis = {
            "G1": (judged.compared > 0, stored),
            "G2": (
                facts and summary.acks_judged > 0,
                f"{summary.acks_judged:,} acks joined with {summary.metadata_entries} entries",
            ),
            "G3": (judged.operations > 0, f"{judged.operations:,} operations"),
            "G4": (any(self.history.polls.values()), "polls of every consumer"),
            "G5": (bool(self.dumps), "sequences in the logs"),
            "G6": (bool(self.evidence.facts), "facts of every node"),
            "G7": (facts, f"{summary.metadata_entries} entries"),
            "G8": (bool(len(self.history.sends)), "records read and stored"),
            "L1": (self.run.heal_ns is not None, "logs at the end"),
        }
        results = []
        for guarantee, meaning in GUARANTEES:
            found = tuple(
                anomaly.name
                for anomaly in VOCABULARY
                if anomaly.breaks == guarantee and anomaly.name in self.findings.counts
            )
            enough, text = basis[guarantee]
            if found:
                results.append(CheckResult(guarantee, "broken", found, ", ".join(found)))
            elif enough:
                results.append(CheckResult(guarantee, "good", (), f"{meaning} ({text})"))
            else:
                results.append(CheckResult(guarantee, "not judged", (), f"{meaning}: no evidence"))
        return results

    def _notes(self) -> list[str]:
        notes = []
        if self.run.interrupted:
            notes.append("the run was interrupted: judged by what there is")
        if self.history.torn_files:
            notes.append(f"torn last line in {', '.join(self.history.torn_files)}")
        if self.evidence.missing_nodes:
            notes.append(f"no copied data of nodes {list(self.evidence.missing_nodes)}")
        if self.evidence.torn_facts:
            notes.append(f"{self.evidence.torn_facts} lines of fact files were cut by crashes")
        return notes
