"""The copied logs judged by themselves and against each other.

Equal (leader epoch, offset) means equal bytes on all replicas, also above the high watermark;
below it the logs are equal altogether. Leader epochs never go back along a log, and the sequences
of one producer epoch stand in it without gap, repetition or step back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from chaos.checker.anomalies import Findings
from chaos.checker.replicas import PartitionDump
from chaos.evidence import BatchRow, ReplicaLog

SEQUENCE_MODULUS = 2**31


def check_dump(dump: PartitionDump, findings: Findings) -> None:
    """E4, E6 and F1 to F3 on the copied logs of one partition."""
    logs = dump.logs
    for log in logs:
        _check_readable(dump, log, findings)
    for variant in dump.variants:
        _check_epochs(dump.place_name, variant.logs[0], findings)
        _check_sequences(dump.place_name, variant.logs[0], findings)
    representatives = [variant.logs[0] for variant in dump.variants]
    for number, log in enumerate(representatives):
        for other in representatives[number + 1 :]:
            _compare(dump, log, other, findings)
    ends = sorted({log.log_end_offset for log in logs})
    if dump.converged and len(ends) > 1:
        findings.tell(
            "not-converged",
            dump.place_name,
            "the run says that all replicas were equal, but their log ends are not",
            *(f"node {log.node}: log end {log.log_end_offset}" for log in logs),
        )


def _check_readable(dump: PartitionDump, log: ReplicaLog, findings: Findings) -> None:
    """A torn tail above the high watermark is what a crash leaves; all else is damage."""
    if log.problem and (
        dump.converged or not log.torn_tail or log.log_end_offset < log.high_watermark
    ):
        findings.tell(
            "damaged-log",
            dump.place_name,
            f"node {log.node}: {log.problem}",
            f"high watermark {log.high_watermark}, readable up to {log.log_end_offset}",
        )


def _check_epochs(name: str, log: ReplicaLog, findings: Findings) -> None:
    before: BatchRow | None = None
    for batch in log.batches:
        if before is not None and batch.leader_epoch < before.leader_epoch:
            findings.tell(
                "leader-epoch-regression",
                name,
                f"node {log.node}: leader epoch {before.leader_epoch} at offset "
                f"{before.base_offset}, then {batch.leader_epoch} at offset {batch.base_offset}",
            )
        before = batch


def _check_sequences(name: str, log: ReplicaLog, findings: Findings) -> None:
    """One producer epoch: 0, 1, 2, … without gap, repetition or step back."""
    last: dict[int, BatchRow] = {}
    for batch in log.batches:
        if batch.producer_id < 0 or batch.base_sequence < 0:
            continue
        before = last.get(batch.producer_id)
        last[batch.producer_id] = batch
        if before is None or batch.producer_epoch > before.producer_epoch:
            expected = 0
            # What stood before the log start is gone: anything may continue it.
            if before is None and log.log_start_offset > 0:
                continue
        elif batch.producer_epoch < before.producer_epoch:
            _sequence_finding("producer-epoch-regression", name, log, before, batch, findings)
            last[batch.producer_id] = before
            continue
        else:
            expected = (before.base_sequence + len(before.values)) % SEQUENCE_MODULUS
        if batch.base_sequence == expected:
            continue
        ahead = (batch.base_sequence - expected) % SEQUENCE_MODULUS
        if ahead < SEQUENCE_MODULUS // 2:
            anomaly = "sequence-gap"
        elif _holds_sequence(log, batch):
            anomaly = "duplicate-sequence"
            last[batch.producer_id] = before or batch
        else:
            anomaly = "sequence-order"
        _sequence_finding(anomaly, name, log, before, batch, findings)


def _holds_sequence(log: ReplicaLog, batch: BatchRow) -> bool:
    """Does an earlier batch of the same producer epoch hold one of the sequences of `batch`?"""
    for other in log.batches:
        if other is batch:
            return False
        if (other.producer_id, other.producer_epoch) == (batch.producer_id, batch.producer_epoch):
            distance = (batch.base_sequence - other.base_sequence) % SEQUENCE_MODULUS
            back = (other.base_sequence - batch.base_sequence) % SEQUENCE_MODULUS
            if distance < len(other.values) or back < len(batch.values):
                return True
    return False


def _sequence_finding(
    anomaly: str,
    name: str,
    log: ReplicaLog,
    before: BatchRow | None,
    batch: BatchRow,
    findings: Findings,
) -> None:
    lines = [
        f"node {log.node}, producer {batch.producer_id}: {_batch_line(batch)}",
        "it is the first batch of this producer in the log"
        if before is None
        else f"the one before: {_batch_line(before)}",
    ]
    findings.tell(anomaly, name, *lines)


def _compare(dump: PartitionDump, log: ReplicaLog, other: ReplicaLog, findings: Findings) -> None:
    """Equal below both committed ends; equal bytes wherever offset and leader epoch are equal."""
    agreed_end = min(dump.committed_end_of(log), dump.committed_end_of(other))
    base_offsets = [batch.base_offset for batch in other.batches]
    for batch in log.batches:
        rivals = list(_overlapping(batch, other, base_offsets))
        if any(rival.digest == batch.digest for rival in rivals):
            continue
        clash = any(rival.leader_epoch == batch.leader_epoch for rival in rivals)
        committed = other.log_start_offset <= batch.base_offset < agreed_end
        if not clash and not committed:
            continue
        findings.tell(
            "divergence",
            dump.place_name,
            f"nodes {log.node} and {other.node} differ at offset {batch.base_offset} "
            f"(committed up to {agreed_end})",
            f"node {log.node}: {_batch_line(batch)}",
            f"node {other.node}: {_batch_line(rivals[0]) if rivals else 'no batch there'}",
        )


def _overlapping(batch: BatchRow, other: ReplicaLog, base_offsets: list[int]) -> Iterator[BatchRow]:
    """Batches of `other` that share an offset with `batch`."""
    at = max(0, bisect_left(base_offsets, batch.base_offset) - 1)
    while at < len(base_offsets) and base_offsets[at] < batch.end_offset:
        if other.batches[at].end_offset > batch.base_offset:
            yield other.batches[at]
        at += 1


def _batch_line(batch: BatchRow) -> str:
    return (
        f"offsets {batch.base_offset} to {batch.end_offset - 1}, leader epoch "
        f"{batch.leader_epoch}, producer epoch {batch.producer_epoch}, sequence "
        f"{batch.base_sequence}"
    )
