"""What flush=async may lose, proven: which acked records, by which crashes, and whether enough.

Under flush=async an acked record may vanish when at least min.insync.replicas members of the ISR
that acked it lose what they had not synced (the fault budget of G1), or when an operator let an
unclean election take place. Every other loss is a lost write, whatever the flush mode. Joined by
epochs and each node's own order: a node came back *after* an ack if the next role that it took is
of later (leader, partition) epochs than the ack, since a crash puts it out of the ISR before it may
take one. Times only name the crash.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chaos.checker.replication_checker import Metadata, PartitionKey, unclean_elections
from chaos.checker.run_info import FaultRow
from chaos.evidence import Evidence, Fact

_ROLES = ("BecameLeader", "BecameFollower", "BecameOffline")
_LIFE = (*_ROLES, "Recovered", "Truncated")
_CRASHES = ("kill", "kill-majority", "kill-all", "power-loss")


@dataclass(frozen=True, slots=True)
class TailLoss:
    """A member of the ISR that held the record and came back from a crash without it."""

    node: int
    log_end_offset: int
    """With which it came back."""
    crash: str
    """What was done to it, in words."""

    def describe(self) -> str:
        return f"node {self.node} came back with log end {self.log_end_offset} after {self.crash}"


@dataclass(frozen=True, slots=True)
class Loss:
    """Consecutive offsets of acked records that are gone, all with one fate."""

    place: str
    first_offset: int
    last_offset: int
    record_count: int
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    min_isr: int
    tails: tuple[TailLoss, ...]
    unclean_election: str
    """The first one after the ack, in words; empty if there was none."""

    @property
    def is_allowed(self) -> bool:
        """Did enough members lose their tails, or somebody accept the loss?"""
        return 0 < self.min_isr <= len(self.tails) or bool(self.unclean_election)

    def describe(self) -> list[str]:
        """What was lost, and how; the last line is the reckoning."""
        offsets = f"offsets {self.first_offset} to {self.last_offset}"
        if self.leader < 0:
            by = "by nobody whose facts we have"
        else:
            by = (
                f"by node {self.leader} in leader epoch {self.leader_epoch}, ISR {list(self.isr)}, "
                f"min ISR {self.min_isr}"
            )
        enough = self.min_isr <= len(self.tails)
        reckoning = f"{len(self.tails)} members lost their tails, {self.min_isr} is min ISR"
        if not enough and self.unclean_election:
            reckoning += f"; accepted by {self.unclean_election}"
        return [
            f"{self.record_count:,} acked records of {self.place}, {offsets}, acked {by}",
            *(tail.describe() for tail in self.tails),
            reckoning,
        ]


class LossProver:
    """Finds the fate of lost records of one partition."""

    def __init__(
        self,
        evidence: Evidence,
        metadata: Metadata,
        faults: Sequence[FaultRow],
        key: PartitionKey,
        place: str,
        *,
        unclean: bool,
    ) -> None:
        """`unclean`: the topic lets whoever is alive lead."""
        self._place = place
        self._faults = [fault for fault in faults if fault.is_injected]
        self._lives: dict[int, list[Fact]] = {node: [] for node in evidence.facts}
        """What tells how each node got and lost its tail: a few facts of thousands."""
        self._acks: dict[int, list[Fact]] = {}
        """By leader epoch, ascending: one node acks in one epoch."""
        for node, facts in evidence.facts.items():
            for fact in facts:
                if (fact.topic_id, fact.partition) != key:
                    continue
                if fact.kind == "Acked":
                    self._acks.setdefault(fact.leader_epoch, []).append(fact)
                elif fact.kind in _LIFE:
                    self._lives[node].append(fact)
        for acks in self._acks.values():
            acks.sort(key=_first)
        self._crashes: dict[tuple[int, str], str] = {}
        """By node and the life that began after it, in words."""
        self._unclean = [
            (after.leader_epoch, f"the unclean election of node {after.leader}")
            for _, after in unclean_elections(metadata.versions.get(key, ()) if unclean else ())
        ]

    def prove(self, lost: Iterable[tuple[int, int]]) -> list[Loss]:
        """Losses from (offset, leader epoch of the ack) of each record, neighbours together."""
        losses: list[Loss] = []
        for leader_epoch, offset in sorted((epoch, offset) for offset, epoch in lost):
            loss = self._fate(offset, leader_epoch)
            if losses and _continues(losses[-1], loss):
                losses[-1] = replace(
                    losses[-1], last_offset=offset, record_count=losses[-1].record_count + 1
                )
            else:
                losses.append(loss)
        return losses

    def _fate(self, offset: int, leader_epoch: int) -> Loss:
        ack = self._ack_of(offset, leader_epoch)
        unclean = next((text for epoch, text in self._unclean if epoch > leader_epoch), "")
        if ack is None:
            return Loss(self._place, offset, offset, 1, -1, leader_epoch, (), 0, (), unclean)
        isr = tuple(sorted(ack.details["isr"]))
        tails = [self._tail_loss(node, offset, ack) for node in isr]
        return Loss(
            self._place,
            offset,
            offset,
            1,
            ack.node,
            leader_epoch,
            isr,
            ack.details["min_isr"],
            tuple(tail for tail in tails if tail is not None),
            unclean,
        )

    def _ack_of(self, offset: int, leader_epoch: int) -> Fact | None:
        acks = self._acks.get(leader_epoch, [])
        at = bisect_right(acks, offset, key=_first) - 1
        return acks[at] if at >= 0 and offset <= acks[at].details["last"] else None

    def _tail_loss(self, node: int, offset: int, ack: Fact) -> TailLoss | None:
        """How this member lost the record; None if it still had it or cut it off itself."""
        back: Fact | None = None
        for fact in self._lives.get(node, ()):
            is_later = _epochs(fact) > _epochs(ack)
            if fact.kind == "Recovered":
                back = fact if fact.log_end_offset <= offset else None
            elif fact.kind in _ROLES and not is_later:
                back = None  # this life began before the ack: what it lacked it fetched
            elif is_later and (back is not None or _cuts(fact, offset)):
                break
        if back is None:
            return None
        life = (node, back.incarnation)
        if life not in self._crashes:
            self._crashes[life] = self._crash_before(node, back)
        return TailLoss(node, back.log_end_offset, self._crashes[life])

    def _crash_before(self, node: int, back: Fact) -> str:
        """The last thing done to this node before it came back."""
        crashes = [
            (fault.time_ns, number, fault.kind)
            for number, fault in enumerate(self._faults, 1)
            if fault.kind in _CRASHES
            and str(node) in fault.target.split(",")
            and fault.time_ns <= back.time_ns
        ]
        if not crashes:
            return "a crash that nobody noted"
        time_ns, number, kind = max(crashes)
        return f"{kind} number {number} ({(back.time_ns - time_ns) // 1_000_000} ms before)"


def _first(fact: Fact) -> int:
    first: int = fact.details["first"]
    return first


def _cuts(fact: Fact, offset: int) -> bool:
    return fact.kind == "Truncated" and fact.log_end_offset <= offset


def _epochs(fact: Fact) -> tuple[int, int]:
    return fact.leader_epoch, fact.partition_epoch


def _continues(before: Loss, loss: Loss) -> bool:
    """Is this the next offset, with the same fate?"""
    return loss.first_offset == before.last_offset + 1 and loss == replace(
        before, first_offset=loss.first_offset, last_offset=loss.last_offset, record_count=1
    )
