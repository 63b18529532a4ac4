"""Who says what about an offset or a record: the lines of a counterexample.

Slow on purpose and on demand: everything is searched again, because only a few examples are shown.
"""

from __future__ import annotations

from chaos.checker.model import OK, ConsumerEvent, History, Poll
from chaos.checker.replicas import PartitionDump
from chaos.evidence import NO_RECORD, Evidence, Fact
from chaos.history import value_name


class Witness:
    """Searches one history and the dumps of its partitions."""

    def __init__(
        self, history: History, dumps: dict[int, PartitionDump], evidence: Evidence
    ) -> None:
        self._history = history
        self._dumps = dumps
        self._evidence = evidence

    def at_offset(self, place: int, offset: int) -> list[str]:
        """Acks of the offset, who read it, what the replicas hold there."""
        sends = self._history.sends
        lines = [
            self._history.describe_send(number)
            for number in self._history.sent_to.get(place, ())
            if sends.offset[number] == offset and sends.outcome[number] == OK
        ]
        return lines[:3] + self._reads_of(place, offset) + self.replicas_at(place, offset)

    def of_value(self, place: int, value: int) -> list[str]:
        """The send of a record, and where it was seen."""
        number = self._history.by_value.get(value)
        lines = [] if number is None else [self._history.describe_send(number)]
        offsets: list[int] = []
        for variant in self._dumps[place].variants if place in self._dumps else ():
            held = [
                variant.start_offset + position
                for position, stored in enumerate(variant.values)
                if stored == value
            ]
            if held:
                where = ", ".join(str(offset) for offset in held[:4])
                lines.append(f"{_nodes(variant.nodes)} {_hold(variant.nodes)} it at offset {where}")
            else:
                lines.append(f"{_nodes(variant.nodes)} {_hold(variant.nodes)} it nowhere")
        reads = self._history.reads[place]
        for poll in self._history.polls[place]:
            if value in reads.value[poll.start : poll.end]:
                at = poll.start + reads.value[poll.start : poll.end].index(value)
                if reads.offset[at] not in offsets:
                    offsets.append(reads.offset[at])
                    lines.append(self._read_line(poll, at))
            if len(offsets) >= 3:
                break
        return lines

    def replicas_at(self, place: int, offset: int) -> list[str]:
        """What every replica holds at an offset, one line for equal ones."""
        lines = []
        for variant in self._dumps[place].variants if place in self._dumps else ():
            value = variant.value_at(offset)
            if value == NO_RECORD:
                what = f"nothing at offset {offset} (log end {variant.end_offset})"
            else:
                what = f"{value_name(value)} at offset {offset}"
            lines.append(f"{_nodes(variant.nodes)} {_hold(variant.nodes)} {what}")
        return lines

    def fate(self, place: int, offset: int) -> list[str]:
        """Who promised this offset with which ISR, who cut it off, and who led after that."""
        topic, partition = self._history.places[place]
        acked: list[Fact] = []
        cut: list[Fact] = []
        began: list[Fact] = []
        for _, facts in sorted(self._evidence.facts.items()):
            for fact in facts:
                if (
                    fact.partition != partition
                    or self._evidence.topic_names.get(fact.topic_id) != topic
                ):
                    continue
                low = fact.log_end_offset
                if fact.kind == "Acked" and fact.details["first"] <= offset <= fact.details["last"]:
                    acked.append(fact)
                elif fact.kind == "Truncated" and low <= offset < fact.details["old_end"]:
                    cut.append(fact)
                elif fact.kind == "BecameLeader" and low <= offset:
                    began.append(fact)
        promised = max((fact.leader_epoch for fact in acked), default=-1)
        after = [fact for fact in began if fact.leader_epoch > promised >= 0]
        return [
            *(
                f"node {fact.node} acked it in leader epoch {fact.leader_epoch}, ISR "
                f"{fact.details['isr']}, counted ends {fact.details.get('ends', 'not told')}"
                for fact in acked[-1:]
            ),
            *(
                f"node {fact.node} cut its log from {fact.details['old_end']} to "
                f"{fact.log_end_offset} in leader epoch {fact.leader_epoch}"
                for fact in cut[:3]
            ),
            *(
                f"node {fact.node} became leader in leader epoch {fact.leader_epoch} with log end "
                f"{fact.log_end_offset}"
                for fact in sorted(after, key=lambda fact: fact.leader_epoch)[:2]
            ),
        ]

    def session_before(self, event: Poll | ConsumerEvent, limit: int = 3) -> list[str]:
        """The last things that happened to this consumer in this partition before `event`."""
        session = self._history.sessions[event.process]
        stop = next(i for i, step in enumerate(session) if step is event)
        before = [step for step in session[:stop] if step.place == event.place]
        return [self.step(step) for step in before[-limit:]]

    def step(self, step: Poll | ConsumerEvent) -> str:
        """One line for a poll or a position change."""
        place = self._history.place_name(step.place)
        if isinstance(step, ConsumerEvent):
            kind = step.kind.replace("_", " ")
            when = self._history.when(step.time_ns, step.clock)
            detail = f" ({step.detail})" if step.detail else ""
            return f"consumer {step.process} {kind} at {when}: {place} offset {step.offset}{detail}"
        offsets = self._history.reads[step.place].offset[step.start : step.end]
        return (
            f"consumer {step.process} got {len(offsets)} records of {place} at "
            f"{self._history.when(step.end_ns, step.clock)}: offsets {_ranges(list(offsets))}"
        )

    def _reads_of(self, place: int, offset: int) -> list[str]:
        """One line per different record read there, at most three."""
        reads = self._history.reads[place]
        lines: list[str] = []
        seen: list[tuple[int, int]] = []
        for poll in self._history.polls[place]:
            offsets = reads.offset[poll.start : poll.end]
            if offset in offsets:
                at = poll.start + offsets.index(offset)
                record = (reads.value[at], reads.crc[at])
                if record not in seen:
                    seen.append(record)
                    lines.append(self._read_line(poll, at))
            if len(lines) == 3:
                break
        return lines

    def _read_line(self, poll: Poll, at: int) -> str:
        reads = self._history.reads[poll.place]
        return (
            f"consumer {poll.process} read {value_name(reads.value[at])} (crc {reads.crc[at]:08x}) "
            f"at offset {reads.offset[at]} at {self._history.when(poll.end_ns, poll.clock)}"
        )


def _nodes(nodes: tuple[int, ...]) -> str:
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(str(node) for node in nodes)}"


def _hold(nodes: tuple[int, ...]) -> str:
    return "hold" if len(nodes) > 1 else "holds"


def _ranges(offsets: list[int]) -> str:
    """`3-7, 9, 4-5` in the order of arrival, at most five runs."""
    runs: list[list[int]] = []
    for offset in offsets:
        if runs and offset == runs[-1][1] + 1:
            runs[-1][1] = offset
        else:
            runs.append([offset, offset])
    text = [str(low) if low == high else f"{low}-{high}" for low, high in runs[:5]]
    return ", ".join(text) + (", …" if len(runs) > 5 else "")
