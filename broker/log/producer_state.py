"""What a partition knows of each producer, so that a record is in the log at most once, in order.

Per producer id: its epoch and its last five batches (KIP-98, KAFKA-5494). A batch is judged before
it is written and noted after its bytes are in the file, never the other way round (KAFKA-6683).
The judgement is the table `VERDICTS` and nothing else; the README of this folder prints it.

Differing from Kafka, a producer that is unknown here must begin at sequence 0: with its state lost
any other sequence could be a late duplicate or follow a gap.

A producer that wrote nothing here for long is forgotten, and its id remembered by one number:
`forgotten_through`. An unknown producer at or below it is refused even at sequence 0, which could
be a late duplicate of what it wrote before (Kafka takes it). How long is measured by the clock of
this process while it runs: neither a jump of the wall clock nor a restart makes a producer older.

Entries are immutable, so a copy of the whole table is a shallow one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from broker.wire.batch_header import BatchHeader

BATCHES_KEPT = 5
SEQUENCE_COUNT = 2**31
"""Sequences are 0 to Int32.MAX, one per record, then 0 again."""


class EpochRelation(Enum):
    """The batch's producer epoch as seen from what is known."""

    NONE = "producer unknown"
    FORGOTTEN = "producer unknown, perhaps forgotten"
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
    (EpochRelation.FORGOTTEN, SequenceRelation.ZERO): VerdictKind.UNKNOWN,
    (EpochRelation.FORGOTTEN, SequenceRelation.OTHER): VerdictKind.UNKNOWN,
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


@dataclass(frozen=True, slots=True)
class ProducerSnapshot:
    """The table as of one offset, to be stored."""

    entries: Mapping[int, ProducerEntry]
    idle_ms: Mapping[int, int]
    forgotten_through: int
    is_incomplete: bool


def last_sequence_of(base_sequence: int, last_offset_delta: int) -> int:
    """The sequence of a batch's last record; after Int32.MAX comes 0."""
    return (base_sequence + last_offset_delta) % SEQUENCE_COUNT


def relate(
    entry: ProducerEntry | None, header: BatchHeader, forgotten_through: int = -1
) -> tuple[EpochRelation, SequenceRelation, ProducerBatch | None]:
    """The row of the table for a batch, and the kept batch that it repeats."""
    zero_or_other = SequenceRelation.ZERO if header.base_sequence == 0 else SequenceRelation.OTHER
    if entry is None:
        is_forgotten = header.producer_id <= forgotten_through
        relation = EpochRelation.FORGOTTEN if is_forgotten else EpochRelation.NONE
        return relation, zero_or_other, None
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

    `forgotten_through`: unknown producers up to this id may have written here. `is_incomplete`:
    the log begins at `start_offset`, and what was written below it is not known.
    """

    __slots__ = ("_entries", "_idle", "_snapshots", "forgotten_through", "is_incomplete")

    def __init__(self, start_offset: int = 0, *, beginning: ProducerSnapshot | None = None) -> None:
        entries = dict(beginning.entries) if beginning else {}
        self._entries: dict[int, ProducerEntry] = dict(entries)
        # (offset, entries as of it), ascending; the first is what is known of what lies below.
        self._snapshots: list[tuple[int, dict[int, ProducerEntry]]] = [(start_offset, entries)]
        # By producer: its last offset when it was last looked at, and for how long it is that.
        self._idle: dict[int, tuple[int, int]] = {}
        self.forgotten_through = -1
        self.is_incomplete = start_offset > 0
        if beginning is not None:
            self.forgotten_through = beginning.forgotten_through
            self.is_incomplete = beginning.is_incomplete
            for producer_id, entry in entries.items():
                idle_ms = beginning.idle_ms.get(producer_id, 0)
                self._idle[producer_id] = (entry.batches[-1].last_offset, idle_ms)

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
        entry = self._entries.get(header.producer_id)
        epoch, sequence, kept = relate(entry, header, self.forgotten_through)
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

    @property
    def known_from(self) -> int:
        """`restore` goes back to here at most."""
        return self._snapshots[0][0]

    def begin_again(self, start_offset: int) -> ProducerStateTable:
        """An empty table for a log that begins there, from which every batch is to be noted."""
        table = ProducerStateTable(start_offset)
        table.forgotten_through = self.forgotten_through
        return table

    def restore(self, end_offset: int) -> int:
        """Go back to the newest copy not above `end_offset`; note the batches from there on."""
        while self._snapshots[-1][0] > end_offset:
            self._snapshots.pop()
        offset, entries = self._snapshots[-1]
        self._entries = dict(entries)
        # The same last offset may soon be another batch's.
        self._idle = {}
        return offset

    def snapshot_at(self, offset: int) -> ProducerSnapshot | None:
        """The copy taken at `offset`, to be stored; None if there is none."""
        for at, entries in reversed(self._snapshots):
            if at == offset:
                idle_ms = {
                    producer_id: idle_ms
                    for producer_id, (_, idle_ms) in self._idle.items()
                    if producer_id in entries
                }
                return ProducerSnapshot(
                    entries, idle_ms, self.forgotten_through, self.is_incomplete
                )
        return None

    # --- forgetting -------------------------------------------------------------------------------

    def age(self, elapsed_ms: int, expiration_ms: int) -> int:
        """So much time went by since the last call: forget who was silent throughout
        `expiration_ms`; how many these are. A producer's time begins at the first call after its
        last batch, so it is never forgotten early."""
        forgotten = 0
        for producer_id, entry in list(self._entries.items()):
            last_offset = entry.batches[-1].last_offset
            seen_offset, idle_ms = self._idle.get(producer_id, (-1, 0))
            idle_ms = idle_ms + elapsed_ms if seen_offset == last_offset else 0
            if idle_ms < expiration_ms:
                self._idle[producer_id] = (last_offset, idle_ms)
                continue
            del self._entries[producer_id]
            del self._idle[producer_id]
            self.forgotten_through = max(self.forgotten_through, producer_id)
            forgotten += 1
        return forgotten

    def complete_from(self, next_producer_id: int) -> None:
        """We lead: no id below `next_producer_id` that is unknown here is certainly new. Whoever
        wrote below our beginning got its id before we were elected."""
        if self.is_incomplete:
            self.forgotten_through = max(self.forgotten_through, next_producer_id - 1)
            self.is_incomplete = False


def verdict_table() -> str:
    """The table as Markdown."""
    lines = ["| producer epoch | sequences | verdict |", "|---|---|---|"]
    lines += [
        f"| {epoch.value} | {sequence.value} | {kind.value} |"
        for (epoch, sequence), kind in VERDICTS.items()
    ]
    return "\n".join(lines)
