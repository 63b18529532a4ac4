"""Order: of sends within a producer session, of polls within a consumer session, and in real time.

A producer session is one producer object, its order the counter of its records. A consumer session
is one process and partition between position changes (assign, seek, reset). Real time compares only
operations of one boot id; operations of other machines keep their offsets and lose their times.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

from chaos.checker import linearizability
from chaos.checker.anomalies import Findings
from chaos.checker.linearizability import ALWAYS, NEVER, Operation, Violation
from chaos.checker.log_checker import Content
from chaos.checker.model import (
    FAIL,
    MANY_UNKNOWN,
    OK,
    Call,
    ConsumerEvent,
    History,
    Poll,
)
from chaos.checker.witness import Witness
from chaos.history import COUNTER_BITS, value_name

# --- producer sessions ----------------------------------------------------------------------------


def check_send_order(
    history: History, content: Content, witness: Witness, findings: Findings
) -> None:
    """Records of one session must stand in the log as they were sent. Without idempotence a retry
    may overtake or be overtaken, so only records that were tried once are compared."""
    sends, place = history.sends, content.place
    last: dict[int, tuple[int, int]] = {}
    idempotent = {uid: producer.idempotence for uid, producer in history.producers.items()}
    numbers = sorted(history.sent_to[place], key=sends.value.__getitem__)
    for number in numbers:
        value = sends.value[number]
        offset = content.positions.get(value)
        if offset is None:
            continue
        uid = value >> COUNTER_BITS
        if not idempotent.get(uid, True) and sends.attempt_count[number] != 1:
            continue
        before = last.get(uid)
        if before is not None and offset <= before[0]:
            earlier = before[1]
            findings.add(
                "send-order",
                history.place_name(place),
                lambda earlier=earlier, number=number, offset=offset, at=before[0]: [  # type: ignore[misc]
                    f"{value_name(sends.value[number])} was sent after "
                    f"{value_name(sends.value[earlier])} and stands before it: "
                    f"offset {offset} against {at}",
                    history.describe_send(earlier),
                    history.describe_send(number),
                    *witness.replicas_at(place, offset),
                ],
            )
        else:
            last[uid] = (offset, number)


# --- consumer sessions ----------------------------------------------------------------------------


def check_polls(
    history: History,
    contents: dict[int, Content],
    witness: Witness,
    findings_for: Callable[[int], Findings],
) -> None:
    """Positions of every consumer only go forward, and past nothing that exists. `findings_for`
    tells where findings of a place go."""
    for session in history.sessions.values():
        _SessionChecker(history, contents, witness, findings_for).run(session)


class _SessionChecker:
    """Follows one process through its polls."""

    def __init__(
        self,
        history: History,
        contents: dict[int, Content],
        witness: Witness,
        findings_for: Callable[[int], Findings],
    ) -> None:
        self.history = history
        self.contents = contents
        self.witness = witness
        self.findings_for = findings_for
        self.positions: dict[int, int] = {}
        self.by_reading: dict[int, bool] = {}

    def run(self, session: list[Poll | ConsumerEvent]) -> None:
        for step in session:
            if isinstance(step, ConsumerEvent):
                self._on_event(step)
            else:
                self._on_poll(step)

    def _on_event(self, event: ConsumerEvent) -> None:
        place = event.place
        if (
            event.kind == "out_of_range"
            and self.by_reading.get(place)
            and event.offset == self.positions[place]
        ):
            self._found(
                "position-refused",
                event,
                f"offset {event.offset} was refused, although everything below it had been read",
            )
        known = event.offset >= 0 and event.kind in ("assign", "seek", "reset")
        if known:
            self.positions[place] = event.offset
        else:
            self.positions.pop(place, None)
        self.by_reading[place] = False

    def _on_poll(self, poll: Poll) -> None:
        offsets = self.history.reads[poll.place].offset[poll.start : poll.end]
        if not offsets:
            return
        place, first = poll.place, offsets[0]
        position = self.positions.get(place, first)
        if first != position or offsets != array("q", range(first, first + len(offsets))):
            for offset in offsets:
                if offset < position:
                    self._found(
                        "nonmonotonic-poll",
                        poll,
                        f"offset {offset} was delivered when the position was {position}",
                    )
                elif offset > position:
                    self._check_skipped(poll, position, offset)
                position = offset + 1
        self.positions[place] = offsets[-1] + 1
        self.by_reading[place] = True

    def _check_skipped(self, poll: Poll, start_offset: int, end_offset: int) -> None:
        seen = self.contents[poll.place].seen
        # A jump may be absurdly long: then walk what is known instead of the jump.
        walk = range(start_offset, end_offset) if end_offset - start_offset <= len(seen) else seen
        skipped = min(
            (o for o in walk if o in seen and start_offset <= o < end_offset), default=None
        )
        if skipped is not None:
            self._found(
                "poll-skip",
                poll,
                f"the position went from {start_offset} to {end_offset} past offset {skipped}",
                skipped,
            )

    def _found(
        self, anomaly: str, step: Poll | ConsumerEvent, text: str, offset: int | None = None
    ) -> None:
        self.findings_for(step.place).add(
            anomaly,
            self.history.place_name(step.place),
            lambda: [
                f"consumer {step.process}: {text}",
                *self.witness.session_before(step),
                self.witness.step(step),
                *([] if offset is None else self.witness.at_offset(step.place, offset)[:4]),
            ],
        )


# --- real time ------------------------------------------------------------------------------------

_READ_TAG = 1 << 60
"""Tags from here on are polls, below are sends, -1 is nobody in particular."""

_operation: Callable[[tuple[int, int, int, int]], Operation] = partial(tuple.__new__, Operation)
"""`Operation._make` without its overhead: a million of them are made."""

_ANOMALY_OF = {"inversion": "realtime-inversion", "hole": "unfilled-offset"}
"""A shared offset is told with its witnesses as inconsistent-offsets by the content check."""


def check_real_time(
    history: History, content: Content, witness: Witness, findings: Findings, *, dense: bool
) -> int:
    """Linearizability of the acks=all appends of one partition, with what consumers had seen.
    `dense`: every record in the log comes from this history. Returns the operations checked."""
    clocks = sorted({history.sends.clock[number] for number in history.sent_to[content.place]})
    total = 0
    for clock in clocks:
        view = _ClockView(history, content, clock)
        result = linearizability.check(
            view.operations, candidates=view.candidates, dense=dense and view.bounded
        )
        total += result.operation_count
        for violation in result.violations:
            _report(history, content, violation, witness, findings)
        hidden = result.violation_count - len(result.violations)
        if hidden and result.violations[-1].kind in _ANOMALY_OF:
            name = _ANOMALY_OF[result.violations[-1].kind]
            findings.add(name, history.place_name(content.place), list, hidden)
    return total


class _ClockView:
    """The appends of one partition as one machine can order them: `operations` have an offset,
    `candidates` were never seen. `bounded`: no send can have left any number of copies."""

    def __init__(self, history: History, content: Content, clock: int) -> None:
        self.operations: list[Operation] = []
        self.candidates: list[Operation] = []
        self.bounded = True
        self._history = history
        self._content = content
        self._clock = clock
        self._taken: set[int] = set()
        self._promised = {u: producer.acks == -1 for u, producer in history.producers.items()}
        self._add_sends()
        for number in history.sent_to[-1]:
            self.candidates.append(Operation(0, ALWAYS, NEVER, number))
        self._add_copies()
        self.operations.extend(_seen_by_polls(history, content.place, clock))

    def _begin_ns(self, number: int) -> int:
        """When a send began, or ALWAYS if it promises nothing or is of another clock."""
        sends = self._history.sends
        if sends.clock[number] != self._clock:
            return ALWAYS
        promised = self._promised.get(sends.value[number] >> COUNTER_BITS, True)
        return sends.invoke_ns[number] if promised else ALWAYS

    def _add_sends(self) -> None:
        sends, positions, taken = self._history.sends, self._content.positions, self._taken
        outcomes, offsets, attempts = sends.outcome, sends.offset, sends.attempt_count
        for number in self._history.sent_to[self._content.place]:
            outcome = outcomes[number]
            if outcome == FAIL:
                continue
            begin_ns = self._begin_ns(number)
            if outcome == OK and begin_ns != ALWAYS and offsets[number] >= 0:
                offset, end_ns = offsets[number], sends.end_ns[number]
            else:
                offset, end_ns = positions.get(sends.value[number], -1), NEVER
            if offset < 0:
                self.candidates.append(Operation(0, begin_ns, NEVER, number))
            elif offset not in taken:
                taken.add(offset)
                self.operations.append(_operation((2 * offset + 1, begin_ns, end_ns, number)))
            if attempts[number] > 1:
                self._add_ghosts(number, begin_ns)

    def _add_ghosts(self, number: int, begin_ns: int) -> None:
        """Without idempotence every further attempt may have left a copy."""
        if self._history.producer_of(number).idempotence:
            return
        attempts = self._history.sends.attempt_count[number]
        if attempts == MANY_UNKNOWN:
            self.bounded = False
        else:
            self.candidates.extend([Operation(0, begin_ns, NEVER, number)] * (attempts - 1))

    def _add_copies(self) -> None:
        """Whatever else was seen: further copies of a send, or records of nobody."""
        for offset, value in self._content.seen.items():
            if offset not in self._taken:
                number = self._history.by_value.get(value, -1)
                begin_ns = ALWAYS if number < 0 else self._begin_ns(number)
                self.operations.append(Operation(2 * offset + 1, begin_ns, NEVER, number))


def _seen_by_polls(history: History, place: int, clock: int) -> Iterator[Operation]:
    """Who was given offset o knew that the log ended above it."""
    offsets = history.reads[place].offset
    for number, poll in enumerate(history.polls[place]):
        if poll.clock == clock and poll.end > poll.start:
            end_offset = max(offsets[poll.start : poll.end]) + 1
            yield linearizability.seen_below(end_offset, poll.end_ns, _READ_TAG + number)


def _report(
    history: History, content: Content, violation: Violation, witness: Witness, findings: Findings
) -> None:
    place = content.place

    def tell(operation: Operation | None) -> list[str]:
        if operation is None or operation.tag < 0:
            return []
        if operation.tag >= _READ_TAG:
            return [witness.step(history.polls[place][operation.tag - _READ_TAG])]
        return [history.describe_send(operation.tag)]

    if violation.kind not in _ANOMALY_OF:
        return
    if violation.kind == "inversion":
        text = "the first ended before the second began, but stands behind it in the log"
    else:
        text = (
            f"offset {violation.offset} was given to nobody: no send of unknown outcome began "
            "before the log had passed it"
        )
    findings.add(
        _ANOMALY_OF[violation.kind],
        history.place_name(place),
        lambda: [text, *tell(violation.later), *tell(violation.earlier)],
    )


# --- log ends -------------------------------------------------------------------------------------


def check_log_ends(history: History, content: Content, witness: Witness, findings: Findings) -> int:
    """Reported log ends (list_offsets latest, or a high watermark) against appends and each other.
    They bind only within one leadership of one broker life, or if the read was linearizable: a
    deposed leader may be late. Returns the number of reports judged."""
    groups: dict[tuple[int, ...], list[tuple[int, Call]]] = {}
    for number, call in enumerate(history.calls):
        if _is_log_end(call) and history.place_of(call.argument) == content.place:
            value = call.value
            life = (value["node"], value["broker_epoch"], value["leader_epoch"])
            group = (call.clock, *(() if value.get("linearizable") else life))
            groups.setdefault(group, []).append((number, call))
    for group, calls in sorted(groups.items()):
        leader_epoch = group[-1] if len(group) > 1 else None
        operations = [
            linearizability.read_end(
                call.value["offset"], call.invoke_ns, call.end_ns, _READ_TAG + number
            )
            for number, call in calls
        ]
        operations.extend(_acked_appends(history, content, group[0], leader_epoch))
        result = linearizability.check(operations, dense=False, limit=len(operations))
        for violation in result.violations:
            first, second = violation.later, violation.earlier
            if first is None or second is None or max(first.tag, second.tag) < _READ_TAG:
                continue
            lines = [_end_line(history, operation) for operation in (first, second)]
            findings.tell(
                "log-end-regression",
                history.place_name(content.place),
                "the first ended before the second began, but saw or made a longer log",
                *lines,
            )
    return sum(len(calls) for calls in groups.values())


def _is_log_end(call: Call) -> bool:
    return (
        call.function == "list_offsets"
        and call.outcome == OK
        and call.argument.get("at") == "latest"
    )


def _acked_appends(
    history: History, content: Content, clock: int, leader_epoch: int | None
) -> Iterator[Operation]:
    """acks=all appends of one clock, of one leader epoch or of all."""
    sends = history.sends
    for number in history.sent_to[content.place]:
        if (
            sends.outcome[number] == OK
            and sends.offset[number] >= 0
            and sends.clock[number] == clock
            and leader_epoch in (None, sends.leader_epoch[number])
            and history.producer_of(number).acks == -1
        ):
            yield linearizability.append_at(
                sends.offset[number], sends.invoke_ns[number], sends.end_ns[number], number
            )


def _end_line(history: History, operation: Operation) -> str:
    if operation.tag < _READ_TAG:
        return history.describe_send(operation.tag)
    call = history.calls[operation.tag - _READ_TAG]
    return (
        f"client {call.process} was told log end {call.value['offset']} by node "
        f"{call.value['node']} in leader epoch {call.value['leader_epoch']}, "
        f"{history.when(call.invoke_ns, call.clock)} to {history.when(call.end_ns, call.clock)}"
    )


# --- unavailability -------------------------------------------------------------------------------


def unavailable_windows(
    history: History, place: int, start_ns: int, end_ns: int, longer_than_ms: int
) -> list[tuple[int, int]]:
    """Gaps [from, to) between acks of one partition in the load phase, longest first."""
    sends = history.sends
    acks = sorted(
        sends.end_ns[number]
        for number in history.sent_to[place]
        if sends.outcome[number] == OK and start_ns <= sends.end_ns[number] < end_ns
    )
    edges = [start_ns, *acks, end_ns]
    gaps = [(low, high) for low, high in pairwise(edges) if high - low > longer_than_ms * 1_000_000]
    return sorted(gaps, key=lambda gap: (gap[0] - gap[1], gap[0]))
