"""What a partition knows of each producer, so that a record is in the log at most once, in order.

Per producer id: its epoch and its last five batches (KIP-98, KAFKA-5494). A batch is judged before
it is written and noted after its bytes are in the file, never the other way round (KAFKA-6683).
The judgement is the table `VERDICTS` and nothing else; the README of this folder prints it.

Differing from Kafka, a producer that is unknown here must begin at sequence 0: with its state lost
any other sequence could be a late duplicate or follow a gap.

Entries are immutable, so a copy of the whole table is a shallow one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from broker.wire.batch_header import BatchHeader

BATCHES_KEPT = 5
SEQUENCE_COUNT = 2**31
"""Sequences are 0 to Int32.MAX, one per record, then 0 again."""


class EpochRelation(Enum):
    """The batch's producer epoch as seen from what is known."""

    NONE = "producer unknown"
    OLDER = "older epoch"
    SAME = "same epoch"
    NEWER = "newer epoch"


class SequenceRelation(Enum):
    """The batch's sequences as seen from what is known; the first that holds."""

    KEPT = "first and last of a kept batch"
    FOLLOWS = "follows the last batch"
    ZERO = "begins at 0"
    OTHER = "anything else"


class VerdictKind(Enum):
    NEXT = "append"
    DUPLICATE = "in the log: answer its offsets"
    OUT_OF_ORDER = "refuse: out of order"
    FENCED = "refuse: producer epoch fenced"
    UNKNOWN = "refuse: producer unknown"


VERDICTS: Mapping[tuple[EpochRelation, SequenceRelation], VerdictKind] = {
    (EpochRelation.NONE, SequenceRelation.ZERO): VerdictKind.NEXT,
    (EpochRelation.NONE, SequenceRelation.OTHER): VerdictKind.UNKNOWN,
    (EpochRelation.OLDER, SequenceRelation.ZERO): VerdictKind.FENCED,
    (EpochRelation.OLDER, SequenceRelation.OTHER): VerdictKind.FENCED,
    (EpochRelation.SAME, SequenceRelation.KEPT): VerdictKind.DUPLICATE,
    (EpochRelation.SAME, SequenceRelation.FOLLOWS): VerdictKind.NEXT,
    (EpochRelation.SAME, SequenceRelation.ZERO): VerdictKind.OUT_OF_ORDER,
    (EpochRelation.SAME, SequenceRelation.OTHER): VerdictKind.OUT_OF_ORDER,
    (EpochRelation.NEWER, SequenceRelation.ZERO): VerdictKind.NEXT,
    (EpochRelation.NEWER, SequenceRelation.OTHER): VerdictKind.OUT_OF_ORDER,
}


class Verdict(NamedTuple):
    """`base_offset` and `last_offset` are those in the log for a duplicate, else -1."""

    kind: VerdictKind
    base_offset: int = -1
    last_offset: int = -1


NEXT = Verdict(VerdictKind.NEXT)


class ProducerBatch(NamedTuple):
    base_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int


class ProducerEntry(NamedTuple):
    """`batches` are all of `producer_epoch`, oldest first, at least one."""

    producer_epoch: int
    batches: tuple[ProducerBatch, ...]


def last_sequence_of(base_sequence: int, last_offset_delta: int) -> int:
    """The sequence of a batch's last record; after Int32.MAX comes 0."""
    return (base_sequence + last_offset_delta) % SEQUENCE_COUNT


def relate(
    entry: ProducerEntry | None, header: BatchHeader
) -> tuple[EpochRelation, SequenceRelation, ProducerBatch | None]:
    """The row of the table for a batch, and the kept batch that it repeats."""
    zero_or_other = SequenceRelation.ZERO if header.base_sequence == 0 else SequenceRelation.OTHER
    if entry is None:
        return EpochRelation.NONE, zero_or_other, None
    if header.producer_epoch < entry.producer_epoch:
        return EpochRelation.OLDER, zero_or_other, None
    if header.producer_epoch > entry.producer_epoch:
        return EpochRelation.NEWER, zero_or_other, None
    last_sequence = last_sequence_of(header.base_sequence, header.last_offset_delta)
    for batch in entry.batches:
        if batch.base_sequence == header.base_sequence and batch.last_sequence == last_sequence:
            return EpochRelation.SAME, SequenceRelation.KEPT, batch
    if header.base_sequence == (entry.batches[-1].last_sequence + 1) % SEQUENCE_COUNT:
        return EpochRelation.SAME, SequenceRelation.FOLLOWS, None
    return EpochRelation.SAME, zero_or_other, None


class ProducerStateTable:
    """The table as of the log end, and copies of it as of earlier offsets.

    The copies let a truncation begin its replay near the new end: `restore` goes back to one,
    `note` brings it forward again.
    """

    __slots__ = ("_entries", "_snapshots")

    def __init__(self, start_offset: int = 0) -> None:
        self._entries: dict[int, ProducerEntry] = {}
        # (offset, entries as of it), ascending; the first is the empty beginning of the log.
        self._snapshots: list[tuple[int, dict[int, ProducerEntry]]] = [(start_offset, {})]

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, producer_id: int) -> ProducerEntry | None:
        return self._entries.get(producer_id)

    def entries(self) -> tuple[tuple[int, ProducerEntry], ...]:
        return tuple(sorted(self._entries.items()))

    def verdict(self, header: BatchHeader) -> Verdict:
        """May a leader append this batch? Followers and replay do not ask: they note (KAFKA-6003).

        A batch without a producer id is always next.
        """
        if not header.has_producer:
            return NEXT
        epoch, sequence, kept = relate(self._entries.get(header.producer_id), header)
        kind = VERDICTS[epoch, sequence]
        if kept is not None:
            return Verdict(kind, kept.base_offset, kept.last_offset)
        return Verdict(kind)

    def note(self, header: BatchHeader, base_offset: int) -> None:
        """A batch is in the log at `base_offset`. A new producer epoch forgets the old batches."""
        if not header.has_producer:
            return
        batch = ProducerBatch(
            header.base_sequence,
            last_sequence_of(header.base_sequence, header.last_offset_delta),
            base_offset,
            base_offset + header.last_offset_delta,
        )
        entry = self._entries.get(header.producer_id)
        if entry is None or entry.producer_epoch != header.producer_epoch:
            kept: tuple[ProducerBatch, ...] = (batch,)
        else:
            kept = (*entry.batches[1 - BATCHES_KEPT :], batch)
        self._entries[header.producer_id] = ProducerEntry(header.producer_epoch, kept)

    def take_snapshot(self, offset: int) -> None:
        """Remember the table as it is now, with everything below `offset` noted."""
        if offset > self._snapshots[-1][0]:
            self._snapshots.append((offset, dict(self._entries)))

    def forget_snapshots_before(self, offset: int) -> None:
        """The log will hardly be cut below `offset`: of the older copies the newest is enough."""
        needed = [slot for slot, (at, _) in enumerate(self._snapshots) if at <= offset]
        del self._snapshots[1 : max(needed, default=0)]

    def restore(self, end_offset: int) -> int:
        """Go back to the newest copy not above `end_offset`; note the batches from there on."""
        while self._snapshots[-1][0] > end_offset:
            self._snapshots.pop()
        offset, entries = self._snapshots[-1]
        self._entries = dict(entries)
        return offset


def verdict_table() -> str:
    """The table as Markdown."""
    lines = ["| producer epoch | sequences | verdict |", "|---|---|---|"]
    lines += [
        f"| {epoch.value} | {sequence.value} | {kind.value} |"
        for (epoch, sequence), kind in VERDICTS.items()
    ]
    return "\n".join(lines)
