"""Hypothesis against the producer table: whatever is appended, cut and replayed, the table is what
the batches of the log say, and its verdicts are the ones that they call for."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.log.producer_state import ProducerStateTable, VerdictKind
from broker.wire.batch_header import MAGIC, BatchHeader

PRODUCERS = st.integers(0, 2)
KEPT = 5
WRAP = 2**31


class Batch(NamedTuple):
    producer_id: int
    producer_epoch: int
    base_sequence: int
    count: int
    base_offset: int

    @property
    def header(self) -> BatchHeader:
        return BatchHeader(
            self.base_offset,
            100,
            0,
            MAGIC,
            0,
            0,
            self.count - 1,
            0,
            0,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.count,
        )

    @property
    def next_sequence(self) -> int:
        return (self.base_sequence + self.count) % WRAP


def expected(log: list[Batch], batch: Batch) -> tuple[VerdictKind, int]:
    """The verdict from the log alone, and the offset that a duplicate is answered with."""
    mine = [other for other in log if other.producer_id == batch.producer_id]
    if not mine:
        return (VerdictKind.UNKNOWN if batch.base_sequence else VerdictKind.NEXT), -1
    epoch = mine[-1].producer_epoch
    if batch.producer_epoch < epoch:
        return VerdictKind.FENCED, -1
    if batch.producer_epoch > epoch:
        return (VerdictKind.OUT_OF_ORDER if batch.base_sequence else VerdictKind.NEXT), -1
    of_epoch: list[Batch] = []
    for other in reversed(mine):
        if other.producer_epoch != epoch:
            break
        of_epoch.append(other)
    for other in of_epoch[:KEPT]:
        if (other.base_sequence, other.count) == (batch.base_sequence, batch.count):
            return VerdictKind.DUPLICATE, other.base_offset
    if batch.base_sequence == of_epoch[0].next_sequence:
        return VerdictKind.NEXT, -1
    return VerdictKind.OUT_OF_ORDER, -1


class ProducerMachine(RuleBasedStateMachine):
    @initialize(start=st.sampled_from([0, 1_000]), first=st.sampled_from([0, WRAP - 12]))
    def begin(self, start: int, first: int) -> None:
        self.start = start
        self.table = ProducerStateTable(start)
        self.log: list[Batch] = []
        if first:
            # As a follower gets it: a producer that is about to begin at 0 again.
            self._note(Batch(0, 0, first, 3, start))

    @property
    def end(self) -> int:
        return self.log[-1].base_offset + self.log[-1].count if self.log else self.start

    def _note(self, batch: Batch) -> None:
        self.table.note(batch.header, batch.base_offset)
        self.log.append(batch)

    def _offer(self, batch: Batch) -> None:
        """A leader asks, and appends what is next."""
        kind, base_offset = expected(self.log, batch)
        verdict = self.table.verdict(batch.header)
        assert (verdict.kind, verdict.base_offset) == (kind, base_offset)
        if kind is VerdictKind.NEXT:
            self._note(batch)

    def _last_of(self, producer_id: int) -> Batch | None:
        mine = [batch for batch in self.log if batch.producer_id == producer_id]
        return mine[-1] if mine else None

    @rule(producer_id=PRODUCERS, count=st.integers(1, 6))
    def next_batch(self, producer_id: int, count: int) -> None:
        last = self._last_of(producer_id)
        epoch, sequence = (last.producer_epoch, last.next_sequence) if last else (0, 0)
        self._offer(Batch(producer_id, epoch, sequence, count, self.end))

    @rule(back=st.integers(1, 8))
    def retry(self, back: int) -> None:
        if len(self.log) >= back:
            self._offer(self.log[-back]._replace(base_offset=self.end))

    @rule(
        producer_id=PRODUCERS,
        epoch=st.integers(0, 2),
        sequence=st.integers(0, 12),
        count=st.integers(1, 4),
    )
    def anything(self, producer_id: int, epoch: int, sequence: int, count: int) -> None:
        self._offer(Batch(producer_id, epoch, sequence, count, self.end))

    @rule()
    def roll(self) -> None:
        self.table.take_snapshot(self.end)

    @rule(kept=st.integers(0, 12))
    def truncate(self, kept: int) -> None:
        """As `PartitionLog.truncate_to`: back to a copy, and forward over what is left."""
        self.log = self.log[: max(0, len(self.log) - kept)]
        offset = self.table.restore(self.end)
        for batch in self.log:
            if batch.base_offset >= offset:
                self.table.note(batch.header, batch.base_offset)

    @rule()
    def restart(self) -> None:
        self.table = ProducerStateTable(self.start)
        for batch in self.log:
            self.table.note(batch.header, batch.base_offset)

    @rule(offset=st.integers(0, 60))
    def forget_old_copies(self, offset: int) -> None:
        self.table.forget_snapshots_before(min(self.start + offset, self.end))

    @invariant()
    def the_table_is_what_a_replay_gives(self) -> None:
        if not hasattr(self, "log"):
            return
        replayed = ProducerStateTable(self.start)
        for batch in self.log:
            replayed.note(batch.header, batch.base_offset)
        assert self.table.entries() == replayed.entries()


ProducerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
TestProducerMachine = ProducerMachine.TestCase
