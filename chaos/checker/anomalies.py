"""The vocabulary of what can be wrong, and the collector of what was found.

Every anomaly has one name, one definition and one guarantee that it breaks; the table in the
README is generated from here (`table()`; a test compares). Findings are counted without
limit and shown a few at a time, each with a counterexample of at most ten lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

COUNTEREXAMPLE_LINES_MAX = 10
EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Anomaly:
    """`breaks`: a guarantee (G1 to G8, L1). `evidence`: what it takes to see it."""

    name: str
    breaks: str
    evidence: str
    definition: str


VOCABULARY: tuple[Anomaly, ...] = (
    Anomaly(
        "lost-write",
        "G1",
        "history + dumps or reads",
        "a record acked with acks=all is on no replica at its offset, or other bytes are there; "
        "without dumps: a consumer went past its offset and nobody ever read it",
    ),
    Anomaly(
        "missing-on-replica",
        "G1",
        "history + dumps",
        "an acked record is on some replicas and missing, or another one, on a replica whose "
        "log claims to be committed up to there",
    ),
    Anomaly(
        "bad-ack-offset",
        "G1",
        "history + dumps",
        "a record was acked with an offset that is negative or at which another record stands, "
        "while the record itself is elsewhere in the log",
    ),
    Anomaly(
        "inconsistent-offsets",
        "G3",
        "history",
        "one offset of one partition showed two different records (in acks, reads or dumps)",
    ),
    Anomaly(
        "hole",
        "G3",
        "dumps",
        "an offset below the high watermark holds no record",
    ),
    Anomaly(
        "unfilled-offset",
        "G3",
        "history",
        "an offset below an acked one was given to nobody, and no send of unknown outcome began "
        "early enough to be there",
    ),
    Anomaly(
        "send-order",
        "G3",
        "history",
        "records of one producer session stand in the log in another order than they were sent",
    ),
    Anomaly(
        "realtime-inversion",
        "G3",
        "history",
        "an acks=all send that began after another one was acked (or read) got a lower offset",
    ),
    Anomaly(
        "log-end-regression",
        "G4",
        "history",
        "a log end or high watermark was reported that contradicts the real-time order of appends "
        "and other reports (same broker and leader epoch, or linearizable reads)",
    ),
    Anomaly(
        "nonmonotonic-poll",
        "G4",
        "history",
        "a consumer got an offset at or below one it had already got, without a seek",
    ),
    Anomaly(
        "poll-skip",
        "G4",
        "history",
        "a consumer was taken past records that exist, without a seek",
    ),
    Anomaly(
        "taken-back",
        "G4",
        "history + dumps",
        "a record that a consumer was given is on no replica at its offset",
    ),
    Anomaly(
        "position-refused",
        "G4",
        "history",
        "a position that a consumer had reached by reading was refused as out of range",
    ),
    Anomaly(
        "phantom",
        "G8",
        "history",
        "a record was read, or stands below the high watermark, that nobody sent to that partition",
    ),
    Anomaly(
        "corrupt",
        "G8",
        "history",
        "a record has other bytes than were sent under its identity",
    ),
    Anomaly(
        "failed-read",
        "G8",
        "history",
        "a record whose send definitely failed was read or stands below the high watermark",
    ),
    Anomaly(
        "future-read",
        "G8",
        "history",
        "a record was read before it was sent",
    ),
    Anomaly(
        "duplicate",
        "G5",
        "history",
        "one record stands at two offsets, although the producer was idempotent or tried once",
    ),
    Anomaly(
        "duplicate-sequence",
        "G5",
        "dumps",
        "two batches of one producer epoch in one log share a sequence number",
    ),
    Anomaly(
        "sequence-gap",
        "G5",
        "dumps",
        "a batch does not continue the sequence of the batch before it in its producer epoch",
    ),
    Anomaly(
        "sequence-order",
        "G5",
        "dumps",
        "sequence numbers of one producer epoch go back along the log",
    ),
    Anomaly(
        "producer-epoch-regression",
        "G6",
        "dumps",
        "a batch of an older producer epoch stands behind one of a newer epoch",
    ),
    Anomaly(
        "ack-below-min-isr",
        "G2",
        "facts",
        "a leader acked acks=all with fewer than min.insync.replicas members in the ISR it used",
    ),
    Anomaly(
        "ack-outside-committed-isr",
        "G2",
        "facts",
        "the (leader epoch, partition epoch, ISR, min ISR) of an ack equal no committed metadata "
        "entry that names the acking node as leader",
    ),
    Anomaly(
        "ack-before-isr",
        "G2",
        "facts",
        "a leader acked a record before its high watermark, or the counted end of a member of its "
        "ISR, was above the record",
    ),
    Anomaly(
        "divergence",
        "G3",
        "dumps",
        "two replicas differ below both their high watermarks, or hold different bytes for one "
        "(leader epoch, offset) anywhere",
    ),
    Anomaly(
        "two-leaders-one-epoch",
        "G6",
        "facts",
        "two nodes led, or acked for, one partition in one leader epoch",
    ),
    Anomaly(
        "leader-epoch-regression",
        "G6",
        "facts + dumps",
        "leader epochs go back along a log, or in the life of one process",
    ),
    Anomaly(
        "high-watermark-regression",
        "G4",
        "facts",
        "the high watermark of one leader in one leader epoch went back",
    ),
    Anomaly(
        "incomplete-leader",
        "G1",
        "facts",
        "a node became leader with a log that ends below a record acked with acks=all before",
    ),
    Anomaly(
        "unclean-election",
        "G1",
        "facts",
        "the metadata made a node leader that was neither in the ISR nor eligible",
    ),
    Anomaly(
        "metadata-divergence",
        "G7",
        "facts",
        "two nodes applied different entries at one index, or a node applied indexes out of order",
    ),
    Anomaly(
        "damaged-log",
        "G1",
        "dumps",
        "a copied log of a node that ran well until the end cannot be read as batches",
    ),
    Anomaly(
        "not-started",
        "G1",
        "run",
        "a node would not start again on its own data",
    ),
    Anomaly(
        "not-converged",
        "L1",
        "run + dumps",
        "after the last fault the replicas did not become equal within the limit",
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One occurrence. `lines` is the counterexample, the first line says what is wrong."""

    anomaly: str
    place: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """All occurrences counted, the first few kept."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Finding] = field(default_factory=list)

    def add(
        self, anomaly: str, place: str, lines: Callable[[], Iterable[str]], count: int = 1
    ) -> None:
        """Note `count` occurrences. `lines` is only called if this one will be shown."""
        known = self.counts.get(anomaly, 0)
        if not known:
            assert anomaly in _NAMES, f"{anomaly} is not in the vocabulary"
        shown = sum(example.anomaly == anomaly for example in self.examples) if known else 0
        self.counts[anomaly] = known + count
        if shown < EXAMPLES_MAX:
            text = tuple(lines())
            if len(text) > COUNTEREXAMPLE_LINES_MAX:
                cut = len(text) - COUNTEREXAMPLE_LINES_MAX + 1
                text = (*text[: COUNTEREXAMPLE_LINES_MAX - 1], f"… and {cut} more lines")
            self.examples.append(Finding(anomaly, place, text))

    def withdraw(self, anomaly: str, count: int) -> None:
        """So many occurrences are told elsewhere."""
        self.counts[anomaly] -= count
        if not self.counts[anomaly]:
            del self.counts[anomaly]

    def tell(self, anomaly: str, place: str, *lines: str) -> None:
        """`add` for a counterexample that is at hand anyway."""
        self.add(anomaly, place, lambda: lines)

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Anomalies found, in the order of the vocabulary."""
        return tuple(anomaly.name for anomaly in VOCABULARY if anomaly.name in self.counts)


_NAMES = frozenset(anomaly.name for anomaly in VOCABULARY)


def anomaly_named(name: str) -> Anomaly:
    return next(anomaly for anomaly in VOCABULARY if anomaly.name == name)


def table() -> str:
    """The README's table."""
    rows = ["| anomaly | breaks | evidence | definition |", "|---|---|---|---|"]
    rows += [f"| `{a.name}` | {a.breaks} | {a.evidence} | {a.definition} |" for a in VOCABULARY]
    return "\n".join(rows)
