"""White-box checks: what the nodes did against what the metadata log had allowed them.

Joins use epochs and each node's own order, never clocks: an ack is judged by the (leader epoch,
partition epoch, ISR, min ISR) that the leader says it used, and that must be a committed metadata
entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from chaos.checker.anomalies import Findings
from chaos.evidence import Evidence, Fact

PartitionKey = tuple[str, int]
"""(topic id, partition)."""


class PartitionVersion(NamedTuple):
    """One committed state of a partition."""

    entry_index: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    elr: tuple[int, ...]
    min_isr: int


@dataclass(slots=True)
class Metadata:
    """The committed metadata entries as the nodes applied them, merged by index."""

    entries: dict[int, tuple[int, str]] = field(default_factory=dict)
    """By index: term and the JSON text of the records."""
    topic_names: dict[str, str] = field(default_factory=dict)
    versions: dict[PartitionKey, list[PartitionVersion]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicationSummary:
    """What the facts proved. `acks_judged`: acks=all acks joined with the metadata entries."""

    acks_judged: int
    leader_epoch_changes: int
    metadata_entries: int


def check_metadata(evidence: Evidence, findings: Findings) -> Metadata:
    """Merge the applied entries of all nodes; they must agree (state-machine safety)."""
    metadata = Metadata()
    for node, facts in sorted(evidence.facts.items()):
        last_index: dict[str, int] = {}
        for fact in facts:
            if fact.kind != "Applied":
                continue
            index = fact.details["index"]
            entry = (fact.details["term"], fact.details["records"])
            known = metadata.entries.setdefault(index, entry)
            if known != entry:
                findings.tell(
                    "metadata-divergence",
                    "metadata",
                    f"node {node} applied another entry at index {index} than a node before it",
                    f"one: term {known[0]} {known[1][:200]}",
                    f"other: term {entry[0]} {entry[1][:200]}",
                )
            before = last_index.get(fact.incarnation, 0)
            if index <= before:
                findings.tell(
                    "metadata-divergence",
                    "metadata",
                    f"node {node} applied index {index} after {before} in one life",
                )
            last_index[fact.incarnation] = index
    _replay(metadata)
    return metadata


def _replay(metadata: Metadata) -> None:
    """Versions of every partition, by index."""
    min_isr: dict[str, int] = {}
    for index in sorted(metadata.entries):
        for record in json.loads(metadata.entries[index][1]):
            kind = record["kind"]
            if kind == "TopicCreated":
                metadata.topic_names[record["topic_id"]] = record["name"]
                min_isr[record["topic_id"]] = record["min_insync_replicas"]
            elif kind == "TopicConfigured":
                if record["name"] == "min_insync_replicas":
                    min_isr[record["topic_id"]] = int(record["value"])
            elif kind in ("PartitionCreated", "PartitionChanged"):
                topic_id = record["topic_id"]
                metadata.versions.setdefault((topic_id, record["partition"]), []).append(
                    PartitionVersion(
                        index,
                        record["leader"],
                        record.get("leader_epoch", 0),
                        record.get("partition_epoch", 0),
                        tuple(sorted(record["isr"])),
                        tuple(sorted(record.get("elr", ()))),
                        min_isr.get(topic_id, -1),
                    )
                )


def unclean_elections(
    versions: Iterable[PartitionVersion],
) -> Iterator[tuple[PartitionVersion, PartitionVersion]]:
    """(before, after) where a new leader was neither in the ISR nor eligible before."""
    for before, after in pairwise(versions):
        if after.leader not in (-1, before.leader, *before.isr, *before.elr):
            yield before, after


def check_elections(
    evidence: Evidence, metadata: Metadata, findings_for: Callable[[str], Findings]
) -> None:
    """A new leader comes from the ISR or from the eligible replicas of the version before it.
    `findings_for` tells where findings of a topic go, by its name."""
    for key, versions in sorted(metadata.versions.items()):
        topic = _topic_name(evidence, metadata, key[0])
        for before, after in unclean_elections(versions):
            findings_for(topic).tell(
                "unclean-election",
                f"{topic}-{key[1]}",
                f"node {after.leader} became leader in leader epoch {after.leader_epoch} "
                f"(metadata index {after.entry_index})",
                f"before: leader {before.leader}, ISR {before.isr}, eligible {before.elr} "
                f"(metadata index {before.entry_index})",
            )


def check_facts(
    evidence: Evidence, metadata: Metadata, findings_for: Callable[[str], Findings]
) -> ReplicationSummary:
    """Acks, leaderships and high watermarks, per partition."""
    by_partition: dict[PartitionKey, list[Fact]] = {}
    for _, facts in sorted(evidence.facts.items()):
        for fact in facts:
            if fact.partition >= 0:
                by_partition.setdefault((fact.topic_id, fact.partition), []).append(fact)
    acks = 0
    changes = 0
    for key, facts in sorted(by_partition.items()):
        topic = _topic_name(evidence, metadata, key[0])
        name, findings = f"{topic}-{key[1]}", findings_for(topic)
        versions = metadata.versions.get(key)
        judged = _check_acks(name, facts, versions, findings)
        acks += judged if versions else 0
        changes += _check_leaders(name, facts, findings)
        _check_lives(name, facts, findings)
    return ReplicationSummary(acks, changes, len(metadata.entries))


def _check_acks(
    name: str, facts: list[Fact], versions: list[PartitionVersion] | None, findings: Findings
) -> int:
    """E1 and E2: acks=all acks stand on a committed ISR of at least min ISR, and below its ends."""
    allowed = {
        (v.leader, v.leader_epoch, v.partition_epoch, v.isr, v.min_isr) for v in versions or ()
    }
    count = 0
    for fact in facts:
        if fact.kind != "Acked" or fact.details.get("acks") != -1:
            continue
        count += 1
        last = fact.details["last"]
        isr = tuple(sorted(fact.details["isr"]))
        min_isr = fact.details["min_isr"]
        if len(isr) < min_isr:
            findings.tell(
                "ack-below-min-isr",
                name,
                _ack_line(fact),
                f"the ISR has {len(isr)} members, min.insync.replicas is {min_isr}",
            )
        used = (fact.node, fact.leader_epoch, fact.partition_epoch, isr, min_isr)
        if versions is not None and used not in allowed:
            nearby = [v for v in versions if v.leader_epoch == fact.leader_epoch][-3:]
            findings.tell(
                "ack-outside-committed-isr",
                name,
                _ack_line(fact),
                "no committed entry says so; in this leader epoch there are:",
                *(_version_line(version) for version in nearby),
            )
        ends = dict(zip(fact.details["isr"], fact.details.get("ends", ()), strict=False))
        # -1: not heard from since its last restart; it had the record before that.
        behind = sorted(node for node, end in ends.items() if 0 <= end <= last)
        if fact.high_watermark <= last or behind:
            findings.tell(
                "ack-before-isr",
                name,
                _ack_line(fact),
                f"its high watermark was {fact.high_watermark}, counted ends {ends or 'not told'}",
            )
    return count


def _check_leaders(name: str, facts: list[Fact], findings: Findings) -> int:
    """E5 and E9. Returns the number of leader-epoch changes after the first."""
    leaders: dict[int, Fact] = {}
    acked_end: dict[int, Fact] = {}
    for fact in facts:
        if fact.kind not in ("BecameLeader", "Acked"):
            continue
        first = leaders.setdefault(fact.leader_epoch, fact)
        if first.node != fact.node:
            findings.tell(
                "two-leaders-one-epoch",
                name,
                f"nodes {first.node} and {fact.node} both led in leader epoch {fact.leader_epoch}",
                f"node {first.node}: {first.kind}, its fact {first.number}",
                f"node {fact.node}: {fact.kind}, its fact {fact.number}",
            )
        if fact.kind == "Acked" and fact.details.get("acks") == -1:
            best = acked_end.get(fact.leader_epoch)
            if best is None or fact.details["last"] > best.details["last"]:
                acked_end[fact.leader_epoch] = fact
    highest: Fact | None = None
    began = {fact.leader_epoch: fact for fact in reversed(facts) if fact.kind == "BecameLeader"}
    for leader_epoch in sorted({*began, *acked_end}):
        start = began.get(leader_epoch)
        if start and highest and start.log_end_offset <= highest.details["last"]:
            findings.tell(
                "incomplete-leader",
                name,
                f"node {start.node} became leader of leader epoch {leader_epoch} with log end "
                f"{start.log_end_offset}",
                "before: " + _ack_line(highest),
            )
        here = acked_end.get(leader_epoch)
        if here and (highest is None or here.details["last"] > highest.details["last"]):
            highest = here
    return max(0, len(began) - 1)


def _check_lives(name: str, facts: list[Fact], findings: Findings) -> None:
    """E6 and E7 within the life of one process: leader epochs do not go back, nor does the high
    watermark of one leadership."""
    epochs: dict[tuple[int, str], Fact] = {}
    watermarks: dict[tuple[int, str, int], Fact] = {}
    leading: dict[tuple[int, str], int] = {}
    for fact in facts:
        life = (fact.node, fact.incarnation)
        if fact.kind in ("BecameLeader", "BecameFollower"):
            before = epochs.get(life)
            if before is not None and fact.leader_epoch < before.leader_epoch:
                findings.tell(
                    "leader-epoch-regression",
                    name,
                    f"node {fact.node} went from leader epoch {before.leader_epoch} (fact "
                    f"{before.number}) back to {fact.leader_epoch} (fact {fact.number})",
                )
            epochs[life] = fact
            leading[life] = fact.leader_epoch if fact.kind == "BecameLeader" else -1
        if fact.high_watermark >= 0 and 0 <= fact.leader_epoch == leading.get(life):
            key = (*life, fact.leader_epoch)
            before = watermarks.get(key)
            if before is not None and fact.high_watermark < before.high_watermark:
                findings.tell(
                    "high-watermark-regression",
                    name,
                    f"leader {fact.node} in leader epoch {fact.leader_epoch} went from high "
                    f"watermark {before.high_watermark} (fact {before.number}) back to "
                    f"{fact.high_watermark} (fact {fact.number})",
                )
            watermarks[key] = fact


# --- text -----------------------------------------------------------------------------------------


def _topic_name(evidence: Evidence, metadata: Metadata, topic_id: str) -> str:
    return metadata.topic_names.get(topic_id) or evidence.topic_names.get(topic_id) or topic_id


def _ack_line(fact: Fact) -> str:
    details: dict[str, Any] = fact.details
    return (
        f"node {fact.node} acked offsets {details['first']} to {details['last']} in leader epoch "
        f"{fact.leader_epoch}, partition epoch {fact.partition_epoch}, ISR {details['isr']}, "
        f"min ISR {details['min_isr']} (fact {fact.number})"
    )


def _version_line(version: PartitionVersion) -> str:
    return (
        f"index {version.entry_index}: leader {version.leader}, partition epoch "
        f"{version.partition_epoch}, ISR {list(version.isr)}, min ISR {version.min_isr}"
    )
