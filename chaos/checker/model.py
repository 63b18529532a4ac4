"""A history as columns: what every check reads, built once.

Sends are numbered in the order of their invocation within a file, files in the order given. All
numbers of one kind stand in one array, so that a million operations take some hundred megabytes
and the checks are loops over integers. `History.send(i)` shows one send as an object.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chaos.history import (
    COUNTER_BITS,
    Attempt,
    Header,
    HistoryError,
    HistoryFile,
    value_name,
)

NEVER = 2**63 - 1
"""End time of an operation whose end was never seen."""

UNKNOWN, OK, FAIL = 0, 1, 2
"""Outcomes of a send. Unknown covers `info` and a missing end."""

OUTCOME_NAMES = ("unknown", "ok", "fail")

MANY_UNKNOWN = 65_535
"""Attempt count of a send whose end was never written: nobody knows how often it was tried."""


class Producer(NamedTuple):
    """One producer session."""

    producer_uid: int
    process: int
    acks: int
    idempotence: bool


class Send(NamedTuple):
    """One record's journey, for reports and tests; the columns are in `Sends`."""

    number: int
    process: int
    value: int
    crc: int
    place: int
    invoke_ns: int
    end_ns: int
    outcome: int
    offset: int
    leader_epoch: int
    error: str
    attempts: tuple[Attempt, ...]


class Poll(NamedTuple):
    """What one poll got from one partition: rows [start, end) of that partition's reads."""

    process: int
    place: int
    clock: int
    invoke_ns: int
    end_ns: int
    high_watermark: int
    start: int
    end: int


class ConsumerEvent(NamedTuple):
    """A consumer's position changed by other means than a poll."""

    process: int
    place: int
    clock: int
    time_ns: int
    kind: str
    offset: int
    detail: str


class Call(NamedTuple):
    """Another operation (list_offsets, admin). `value` is None unless it ended well."""

    process: int
    clock: int
    function: str
    argument: Any
    invoke_ns: int
    end_ns: int
    outcome: int
    value: Any


@dataclass(slots=True)
class Sends:
    """Columns; row i is send i. `place` numbers (topic, partition), -1 while not chosen; `clock`
    numbers boot ids: times compare only where it is equal."""

    process: array[int] = field(default_factory=lambda: array("q"))
    value: array[int] = field(default_factory=lambda: array("q"))
    crc: array[int] = field(default_factory=lambda: array("q"))
    place: array[int] = field(default_factory=lambda: array("i"))
    clock: array[int] = field(default_factory=lambda: array("h"))
    invoke_ns: array[int] = field(default_factory=lambda: array("q"))
    end_ns: array[int] = field(default_factory=lambda: array("q"))
    outcome: array[int] = field(default_factory=lambda: array("b"))
    offset: array[int] = field(default_factory=lambda: array("q"))
    leader_epoch: array[int] = field(default_factory=lambda: array("q"))
    attempt_count: array[int] = field(default_factory=lambda: array("H"))
    node: array[int] = field(default_factory=lambda: array("i"))
    """Who acked it, -1 if nobody did."""

    def __len__(self) -> int:
        return len(self.value)


@dataclass(slots=True)
class Reads:
    """All records read from one partition, by all consumers, in the order of the files."""

    offset: array[int] = field(default_factory=lambda: array("q"))
    value: array[int] = field(default_factory=lambda: array("q"))
    crc: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.offset)


@dataclass(slots=True)
class History:
    """Everything the clients saw in one run."""

    headers: list[tuple[str, Header]] = field(default_factory=list)
    torn_files: list[str] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    producers: dict[int, Producer] = field(default_factory=dict)
    sends: Sends = field(default_factory=Sends)
    by_value: dict[int, int] = field(default_factory=dict)
    details: dict[int, tuple[str, tuple[Attempt, ...]]] = field(default_factory=dict)
    """Error and attempts of the sends that did not succeed at the first attempt."""
    reads: dict[int, Reads] = field(default_factory=dict)
    polls: dict[int, list[Poll]] = field(default_factory=dict)
    """Per place, polls that got records."""
    sent_to: dict[int, array[int]] = field(default_factory=dict)
    """Per place, the numbers of its sends; -1 holds those whose partition is not known."""
    sessions: dict[int, list[Poll | ConsumerEvent]] = field(default_factory=dict)
    """Per process, its polls with records and its position changes, in order."""
    calls: list[Call] = field(default_factory=list)
    empty_polls: int = 0
    began_ns: dict[int, int] = field(default_factory=dict)
    """Per clock, the time of the first event: reports count from there."""

    def when(self, time_ns: int, clock: int) -> str:
        """A time as reports write it: `+12.345678 s` since the clients of that machine began."""
        micros = (time_ns - self.began_ns.get(clock, 0)) // 1_000
        return f"{'-' if micros < 0 else '+'}{abs(micros) // 10**6}.{abs(micros) % 10**6:06d} s"

    def place_of(self, argument: dict[str, Any]) -> int:
        """Place of a call about one partition, -1 if nothing was sent there or read from there."""
        key = (argument.get("topic"), argument.get("partition"))
        return next((place for place, known in enumerate(self.places) if known == key), -1)

    def place_name(self, place: int) -> str:
        if place < 0:
            return "?"
        topic, partition = self.places[place]
        return f"{topic}-{partition}"

    def producer_of(self, send: int) -> Producer:
        """The session of a send; one that never declared itself counts as the strictest kind."""
        uid = self.sends.value[send] >> COUNTER_BITS
        return self.producers.get(uid) or Producer(uid, self.sends.process[send], -1, True)

    def send(self, index: int) -> Send:
        sends = self.sends
        error, attempts = self.details.get(index, ("", ()))
        if not attempts and sends.outcome[index] == OK:
            attempts = (Attempt(sends.node[index], sends.leader_epoch[index], 0, "yes"),)
        return Send(
            index,
            sends.process[index],
            sends.value[index],
            sends.crc[index],
            sends.place[index],
            sends.invoke_ns[index],
            sends.end_ns[index],
            sends.outcome[index],
            sends.offset[index],
            sends.leader_epoch[index],
            error,
            attempts,
        )

    def describe_send(self, index: int) -> str:
        """One line for a report: who sent what when, and what came of it."""
        send, clock = self.send(index), self.sends.clock[index]
        line = (
            f"client {send.process} sent {value_name(send.value)} to {self.place_name(send.place)} "
            f"at {self.when(send.invoke_ns, clock)}"
        )
        if send.outcome == OK:
            node = send.attempts[-1].node if send.attempts else -1
            by = f" by node {node}" if node >= 0 else ""
            line += (
                f", acked at {self.when(send.end_ns, clock)}{by}: offset {send.offset}, "
                f"leader epoch {send.leader_epoch}"
            )
        elif send.outcome == FAIL:
            line += f", definitely refused at {self.when(send.end_ns, clock)}: {send.error}"
        else:
            line += f", outcome unknown{': ' + send.error if send.error else ''}"
        if len(send.attempts) > 1:
            line += f" ({len(send.attempts)} attempts)"
        return line


def load_history(paths: Iterable[Path]) -> History:
    """Read history files. HistoryError names file and line of damage."""
    return build_history(HistoryFile.open(path) for path in paths)


def build_history(files: Iterable[HistoryFile]) -> History:
    """Columns from files, in the order given."""
    history = History()
    places: dict[tuple[str, int], int] = {}
    clocks: dict[str, int] = {}
    for file in files:
        clock = clocks.setdefault(file.header.boot_id, len(clocks))
        _Loader(history, places, clock, file).run()
    history.sent_to = {place: array("q") for place in range(-1, len(places))}
    for number, place in enumerate(history.sends.place):
        history.sent_to[place].append(number)
    return history


class _Loader:
    """Feeds the events of one file to the columns."""

    def __init__(
        self, history: History, places: dict[tuple[str, int], int], clock: int, file: HistoryFile
    ) -> None:
        self.history = history
        self.places = places
        self.clock = clock
        self.file = file
        self.unplaced: dict[int, str] = {}
        self.open_sends: dict[int, int] = {}
        self.open_polls: dict[int, tuple[int, int]] = {}
        self.open_calls: dict[int, Call] = {}

    def run(self) -> None:
        history, file = self.history, self.file
        handlers = {
            "fail": self._on_end,
            "info": self._on_end,
            "records": self._on_records,
            "consumer": self._on_consumer,
            "producer": self._on_producer,
            "call": self._on_call,
            "answer": self._on_answer,
        }
        for events in file.chunks():
            try:
                for event in events[:1]:
                    self._note_first(event)
                for event in events:
                    kind = event[0]
                    if kind == "send":
                        self._on_send(event)
                    elif kind == "ok":
                        self._on_ok(event)
                    elif kind == "poll":
                        self.open_polls[event[1]] = (event[2], event[3])
                    else:
                        handlers[kind](event)
            except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
                raise HistoryError(f"{file.name}: bad event {event!r} ({error!r})") from error
        history.headers.append((file.name, file.header))
        if file.torn:
            history.torn_files.append(file.name)
        for call in self.open_calls.values():
            history.calls.append(call)

    def _note_first(self, event: list[Any]) -> None:
        """The first event of each chunk is early enough to count times from."""
        time_ns = event[1 if event[0] in ("producer", "consumer") else 2]
        began_ns = self.history.began_ns
        began_ns[self.clock] = min(began_ns.get(self.clock, time_ns), time_ns)

    def _place(self, topic: str, partition: int) -> int:
        key = (topic, partition)
        place = self.places.get(key)
        if place is None:
            place = self.places[key] = len(self.places)
            self.history.places.append(key)
            self.history.reads[place] = Reads()
            self.history.polls[place] = []
        return place

    def _on_send(self, event: list[Any]) -> None:
        _, op, time_ns, process, topic, partition, uid, counter, crc = event
        history = self.history
        sends = history.sends
        index = len(sends.value)
        value = uid << COUNTER_BITS | counter
        if history.by_value.setdefault(value, index) != index:
            raise ValueError(f"value {value_name(value)} is sent twice: it must be unique")
        if partition >= 0:
            place = self.places.get((topic, partition))
            sends.place.append(self._place(topic, partition) if place is None else place)
        else:
            sends.place.append(-1)
        sends.process.append(process)
        sends.value.append(value)
        sends.crc.append(crc)
        sends.clock.append(self.clock)
        sends.invoke_ns.append(time_ns)
        sends.end_ns.append(NEVER)
        sends.outcome.append(UNKNOWN)
        sends.offset.append(-1)
        sends.leader_epoch.append(-1)
        sends.attempt_count.append(MANY_UNKNOWN)
        sends.node.append(-1)
        self.open_sends[op] = index
        if partition < 0:
            self.unplaced[index] = topic

    def _on_ok(self, event: list[Any]) -> None:
        _, op, time_ns, partition, offset, leader_epoch, attempts = event
        history = self.history
        sends = history.sends
        index = self.open_sends.pop(op)
        if sends.place[index] < 0:
            sends.place[index] = self._place(self.unplaced.pop(index), partition)
        elif history.places[sends.place[index]][1] != partition:
            raise ValueError("acked in another partition than it was sent to")
        sends.end_ns[index] = time_ns
        sends.outcome[index] = OK
        sends.offset[index] = offset
        sends.leader_epoch[index] = leader_epoch
        sends.attempt_count[index] = len(attempts)
        if attempts:
            sends.node[index] = attempts[-1][0]
            if len(attempts) > 1:
                history.details[index] = ("", tuple(Attempt(*row) for row in attempts))

    def _on_end(self, event: list[Any]) -> None:
        kind, op, time_ns, error, attempts = event
        if op not in self.open_sends:
            self._end_other(kind, op, time_ns)
            return
        history = self.history
        index = self.open_sends.pop(op)
        sends = history.sends
        if kind == "fail":
            sends.outcome[index] = FAIL
            sends.end_ns[index] = time_ns
        sends.attempt_count[index] = len(attempts)
        history.details[index] = (str(error), tuple(Attempt(*row) for row in attempts))

    def _end_other(self, kind: str, op: int, time_ns: int) -> None:
        if op in self.open_calls:
            call = self.open_calls.pop(op)
            if kind == "fail":
                call = call._replace(outcome=FAIL, end_ns=time_ns)
            self.history.calls.append(call)
        else:
            self.open_polls.pop(op)

    def _on_records(self, event: list[Any]) -> None:
        _, op, time_ns, partitions = event
        invoke_ns, process = self.open_polls.pop(op)
        history = self.history
        if not partitions:
            history.empty_polls += 1
        for topic, partition, high_watermark, offsets, uids, counters, crcs in partitions:
            place = self._place(topic, partition)
            reads = history.reads[place]
            start = len(reads.offset)
            if not len(offsets) == len(uids) == len(counters) == len(crcs):
                raise ValueError("columns of different length")
            reads.offset.extend(offsets)
            reads.value.extend(
                [uid << COUNTER_BITS | n for uid, n in zip(uids, counters, strict=True)]
            )
            reads.crc.extend(crcs)
            poll = Poll(
                process,
                place,
                self.clock,
                invoke_ns,
                time_ns,
                high_watermark,
                start,
                len(reads.offset),
            )
            history.polls[place].append(poll)
            history.sessions.setdefault(process, []).append(poll)

    def _on_consumer(self, event: list[Any]) -> None:
        _, time_ns, process, kind, topic, partition, offset, detail = event
        place = self._place(topic, partition)
        self.history.sessions.setdefault(process, []).append(
            ConsumerEvent(process, place, self.clock, time_ns, kind, offset, detail)
        )

    def _on_producer(self, event: list[Any]) -> None:
        _, _time_ns, process, uid, settings = event
        self.history.producers[uid] = Producer(
            uid, process, int(settings["acks"]), bool(settings["idempotence"])
        )

    def _on_call(self, event: list[Any]) -> None:
        _, op, time_ns, process, function, argument = event
        self.open_calls[op] = Call(
            process, self.clock, function, argument, time_ns, NEVER, UNKNOWN, None
        )

    def _on_answer(self, event: list[Any]) -> None:
        _, op, time_ns, value = event
        call = self.open_calls.pop(op)
        self.history.calls.append(call._replace(end_ns=time_ns, outcome=OK, value=value))
