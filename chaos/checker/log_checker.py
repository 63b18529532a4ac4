"""Content of the logs: is everything that was acked there, and nothing that was not sent?

One pass per partition over acks, reads and dumps. What counts as seen is what a consumer was given
(always below the high watermark) or what stands in a copied log below its committed end. Rules:

* only acks=all acks promise anything; acks=1 may be lost and acks=0 knows no offset;
* lost means proven: absent from every copied replica, or, without dumps, passed over by a consumer
  and never read by anyone. An acked record above all that was seen is "not compared", not lost;
* a second copy of a record is legal only for a producer without idempotence that tried more than
  once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chaos.checker.anomalies import Findings
from chaos.checker.model import FAIL, OK, ConsumerEvent, History
from chaos.checker.replicas import PartitionDump, Variant
from chaos.checker.witness import Witness
from chaos.evidence import NO_RECORD
from chaos.history import COUNTER_BITS, NO_VALUE, value_name


@dataclass(slots=True)
class Content:
    """What is known of one partition after its content was checked; later checks build on it."""

    place: int
    acked: dict[int, int] = field(default_factory=dict)
    """Offset to value, acks=all acks only."""
    seen: dict[int, int] = field(default_factory=dict)
    """Offset to value, from dumps below the committed end and from reads."""
    positions: dict[int, int] = field(default_factory=dict)
    """Value to its lowest seen offset."""
    copies: list[tuple[int, int]] = field(default_factory=list)
    """(value, offset) of every further one."""
    read_offsets_end: int = 0
    acked_count: int = 0
    """acks=all acks."""
    compared: int = 0
    """Of these, those that were compared with every replica (or, without dumps, read)."""
    lost: list[int] = field(default_factory=list)
    """Numbers of the sends that were acked and are gone."""


def check_content(
    history: History, place: int, dump: PartitionDump | None, witness: Witness, findings: Findings
) -> Content:
    """Judge one partition."""
    return _ContentChecker(history, place, dump, witness, findings).run()


class _ContentChecker:
    def __init__(
        self,
        history: History,
        place: int,
        dump: PartitionDump | None,
        witness: Witness,
        findings: Findings,
    ) -> None:
        self.history = history
        self.place = place
        self.name = history.place_name(place)
        self.dump = dump if dump is not None and dump.variants else None
        self.witness = witness
        self.findings = findings
        self.content = Content(place)

    def run(self) -> Content:
        numbers = self._note_acks()
        self.content.acked_count = len(numbers)
        self._note_dumps()
        stored_count = len(self.content.seen)
        self._check_reads()
        if len(self.content.seen) > stored_count:
            self._check_taken_back()
        self._index_positions()
        if self.dump is not None:
            for variant in self.dump.variants:
                self._check_records_of(variant)
                self._check_acked_on(variant, numbers)
        else:
            self._check_acked_by_reads(numbers)
        return self.content

    def _note_acks(self) -> list[int]:
        """acks=all acks: one record per offset. Returns the numbers of these sends."""
        history, acked, sends = self.history, self.content.acked, self.history.sends
        promised = {uid: producer.acks == -1 for uid, producer in history.producers.items()}
        outcomes, offsets, values = sends.outcome, sends.offset, sends.value
        numbers = []
        for number in history.sent_to[self.place]:
            value = values[number]
            if outcomes[number] != OK or not promised.get(value >> COUNTER_BITS, True):
                continue
            numbers.append(number)
            if offsets[number] < 0:
                self._bad_ack(number)
            elif acked.setdefault(offsets[number], value) != value:
                self._inconsistent(offsets[number])
        return numbers

    def _note_dumps(self) -> None:
        """Take what stands below the committed end of the first variant as seen."""
        if self.dump is None:
            return
        variant = self.dump.variants[0]
        length = max(0, self.dump.committed_end - variant.start_offset)
        held = enumerate(variant.values[:length], variant.start_offset)
        self.content.seen = {offset: value for offset, value in held if value != NO_RECORD}

    def _check_reads(self) -> None:
        """Every record that a consumer got: sent, unchanged, not refused, one per offset."""
        history, seen = self.history, self.content.seen
        reads, sends = history.reads[self.place], history.sends
        send_of, crcs, outcomes, places = (
            history.by_value.get,
            sends.crc,
            sends.outcome,
            sends.place,
        )
        begins, clocks = sends.invoke_ns, sends.clock
        for poll in history.polls[self.place]:
            offsets = reads.offset[poll.start : poll.end]
            values = reads.value[poll.start : poll.end]
            ends_ns = poll.end_ns
            for offset, value, crc in zip(
                offsets, values, reads.crc[poll.start : poll.end], strict=True
            ):
                if seen.setdefault(offset, value) != value:
                    self._inconsistent(offset)
                number = send_of(value)
                if number is None:
                    self._foreign(offset, value)
                    continue
                if (
                    crcs[number] != crc
                    or outcomes[number] == FAIL
                    or places[number] != self.place
                    or begins[number] > ends_ns
                ):
                    late = begins[number] > ends_ns and clocks[number] == poll.clock
                    self._bad_record(offset, value, number, crc, late)
            if offsets:
                self.content.read_offsets_end = max(self.content.read_offsets_end, max(offsets) + 1)

    def _check_taken_back(self) -> None:
        """Some read offset is not below the committed end of the dumps: is it anywhere?"""
        if self.dump is None or not self.dump.complete:
            return
        variants = self.dump.variants
        for offset, value in self.content.seen.items():
            if all(variant.value_at(offset) == NO_RECORD for variant in variants):
                text = (
                    f"{value_name(value)} was read at offset {offset}, which nobody holds any more"
                )
                self._at_offset("taken-back", offset, text)

    def _index_positions(self) -> None:
        """Where each record stands, and second copies."""
        content = self.content
        for offset in sorted(content.seen):
            value = content.seen[offset]
            if value >= 0 and content.positions.setdefault(value, offset) != offset:
                content.copies.append((value, offset))
                self._duplicate(value)

    def _check_records_of(self, variant: Variant) -> None:
        """Every record of a dump below the committed end: sent, unchanged, not refused; no hole."""
        assert self.dump is not None
        history, sends = self.history, self.history.sends
        length = max(0, self.dump.committed_end - variant.start_offset)
        seen = self.content.seen
        hole_start = -1
        rows = zip(variant.values[:length], variant.crcs[:length], strict=True)
        for offset, (value, crc) in enumerate(rows, variant.start_offset):
            if value == NO_RECORD:
                hole_start = offset if hole_start < 0 else hole_start
                continue
            if hole_start >= 0:
                self._hole(variant, hole_start, offset)
                hole_start = -1
            if seen.get(offset, value) != value:
                self._inconsistent(offset)
            number = history.by_value.get(value)
            if number is None:
                self._foreign(offset, value)
            elif (
                sends.crc[number] != crc
                or sends.outcome[number] == FAIL
                or sends.place[number] != self.place
            ):
                self._bad_record(offset, value, number, crc, late=False)

    def _check_acked_on(self, variant: Variant, numbers: list[int]) -> None:
        """Every acked record at its offset on these replicas."""
        assert self.dump is not None
        sends = self.history.sends
        start, values = variant.start_offset, variant.values
        ends = [self.dump.committed_end_of(log) for log in variant.logs]
        claimed_end = max(ends)
        first = variant is self.dump.variants[0]
        for number in numbers:
            offset = sends.offset[number]
            position = offset - start
            if 0 <= position < len(values) and values[position] == sends.value[number]:
                self.content.compared += first
                continue
            if offset < 0:
                continue
            elsewhere = self._held_by_others(variant, offset, sends.value[number])
            if not elsewhere and first and self.dump.complete:
                self._other_record_at(number)
                self.content.compared += 1
            elif elsewhere and (self.dump.converged or offset < claimed_end):
                self._missing(variant, number)
                self.content.compared += first

    def _held_by_others(self, variant: Variant, offset: int, value: int) -> bool:
        assert self.dump is not None
        return any(
            other.value_at(offset) == value for other in self.dump.variants if other is not variant
        )

    def _check_acked_by_reads(self, numbers: list[int]) -> None:
        """Without dumps: an acked record is lost if another one was read at its offset, or if a
        consumer went past it and nobody ever read anything there."""
        covered = passed_ranges(self.history, self.place)
        sends, seen = self.history.sends, self.content.seen
        at = 0
        for offset, number in sorted((sends.offset[number], number) for number in numbers):
            while at < len(covered) and covered[at][1] <= offset:
                at += 1
            if offset < 0:
                continue
            if offset in seen:
                if seen[offset] == sends.value[number]:
                    self.content.compared += 1
                else:
                    self._other_record_at(number)
            elif at < len(covered) and covered[at][0] <= offset:
                self._lost(number)

    # --- findings ---------------------------------------------------------------------------------

    def _at_offset(self, anomaly: str, offset: int, text: str) -> None:
        self.findings.add(
            anomaly, self.name, lambda: [text, *self.witness.at_offset(self.place, offset)]
        )

    def _inconsistent(self, offset: int) -> None:
        text = f"offset {offset} of {self.name} showed different records"
        self._at_offset("inconsistent-offsets", offset, text)

    def _foreign(self, offset: int, value: int) -> None:
        """A record that nobody sent: damaged bytes if another one is known to belong there."""
        known = self.content.acked.get(offset, self.content.seen.get(offset, NO_VALUE))
        if value == NO_VALUE and known != NO_VALUE:
            anomaly, text = "corrupt", "bytes that no client sent"
        else:
            anomaly, text = "phantom", f"{value_name(value)}, which no client sent"
        self._at_offset(anomaly, offset, f"offset {offset} of {self.name} holds {text}")

    def _bad_record(self, offset: int, value: int, number: int, crc: int, late: bool) -> None:
        sends = self.history.sends
        name = value_name(value)
        if sends.crc[number] != crc:
            text = f"{name} was sent with crc {sends.crc[number]:08x} and is {crc:08x} at {offset}"
            self._of_value("corrupt", value, text)
        if sends.outcome[number] == FAIL:
            self._of_value("failed-read", value, f"{name} definitely failed, but is at {offset}")
        if sends.place[number] not in (self.place, -1):
            there = self.history.place_name(sends.place[number])
            self._of_value("phantom", value, f"{name} was sent to {there}, but is in {self.name}")
        if late:
            self._of_value("future-read", value, f"{name} was read at {offset} before it was sent")

    def _of_value(self, anomaly: str, value: int, text: str) -> None:
        self.findings.add(
            anomaly, self.name, lambda: [text, *self.witness.of_value(self.place, value)]
        )

    def _duplicate(self, value: int) -> None:
        number = self.history.by_value.get(value)
        if number is None:
            return
        producer = self.history.producer_of(number)
        attempts = self.history.sends.attempt_count[number]
        if producer.idempotence or attempts <= 1:
            why = "an idempotent producer" if producer.idempotence else "a single attempt"
            self._of_value("duplicate", value, f"{value_name(value)} is there twice, from {why}")

    def _bad_ack(self, number: int) -> None:
        value = self.history.sends.value[number]
        offset = self.history.sends.offset[number]
        self._of_value("bad-ack-offset", value, f"{value_name(value)} was acked at offset {offset}")

    def _other_record_at(self, number: int) -> None:
        """The acked record is not at its offset: acked with a wrong offset, or lost."""
        sends = self.history.sends
        offset = sends.offset[number]
        if self.content.positions.get(sends.value[number], offset) != offset:
            self._bad_ack(number)
        else:
            self._lost(number)

    def _lost(self, number: int) -> None:
        sends = self.history.sends
        value, offset = sends.value[number], sends.offset[number]
        name = value_name(value)
        self.content.lost.append(number)
        self.findings.add(
            "lost-write",
            self.name,
            lambda: [
                f"{name} was acked at offset {offset} of {self.name} and is gone",
                *self.witness.of_value(self.place, value)[:1],
                *self.witness.replicas_at(self.place, offset),
                *self.witness.fate(self.place, offset),
            ],
        )

    def _missing(self, variant: Variant, number: int) -> None:
        sends = self.history.sends
        value, offset = sends.value[number], sends.offset[number]
        nodes = ", ".join(str(node) for node in variant.nodes)
        self.findings.add(
            "missing-on-replica",
            self.name,
            lambda: [
                f"{value_name(value)}, acked at offset {offset}, is missing on node {nodes}",
                self.history.describe_send(number),
                *self.witness.replicas_at(self.place, offset),
            ],
        )

    def _hole(self, variant: Variant, start_offset: int, end_offset: int) -> None:
        nodes = ", ".join(str(node) for node in variant.nodes)
        self._at_offset(
            "hole",
            start_offset,
            f"node {nodes} holds nothing at offsets {start_offset} to {end_offset - 1} of "
            f"{self.name}, below the high watermark",
        )


def passed_ranges(history: History, place: int) -> list[tuple[int, int]]:
    """Offset ranges [start, end) that some consumer went through, merged, ascending."""
    ranges: list[tuple[int, int]] = []
    offsets = history.reads[place].offset
    for session in history.sessions.values():
        position = -1
        for step in session:
            if step.place != place:
                continue
            if isinstance(step, ConsumerEvent):
                position = -1 if step.kind in ("out_of_range", "close") else step.offset
                continue
            got = offsets[step.start : step.end]
            if got:
                low, end = min(got), max(got) + 1
                ranges.append((position if 0 <= position <= low else low, end))
                position = end
    merged: list[tuple[int, int]] = []
    for low, end in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((low, end))
    return merged
