"""A failing run in plain words: what was done to the cluster, what followed, what broke."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

LINES_MAX = 20
FAULT, CRASH, STARTS = "fault", "crash", "starts again"
PLACE = re.compile(r"\b[\w.]+-(\d+)\b")


class Event(NamedTuple):
    """A line of the story; the highest `weight` stays longest when there are too many."""

    time_ms: int
    weight: int
    key: str
    """Of several in a row with one key only the last is told; "" for none."""
    text: str


def tell(entries: Iterable[Sequence[Any]], lines_max: int = LINES_MAX) -> list[str]:
    """The story up to the first violation, at most `lines_max` lines, times from the first."""
    events = _in_a_row_once(_events(list(entries)))
    while len(events) > lines_max:
        lightest = min(event.weight for event in events)
        # The oldest of the lightest: what comes last explains most.
        events.pop(next(i for i, event in enumerate(events) if event.weight == lightest))
    if not events:
        return []
    start_ms = events[0].time_ms
    return [f"{(event.time_ms - start_ms) / 1_000:7.3f} s  {event.text}" for event in events]


def _in_a_row_once(events: Iterable[Event]) -> list[Event]:
    """What belongs together told once: acks in a row, a crash and the fault that it was, several
    nodes that start at a time."""
    kept: list[Event] = []
    for event in events:
        last = kept[-1] if kept else None
        in_a_row = (
            last is not None and event.key not in ("", FAULT, CRASH) and last.key == event.key
        )
        if in_a_row and last is not None:
            kept.pop()
            if event.key == STARTS and last.time_ms == event.time_ms:
                who = last.text.removesuffix(STARTS)
                event = event._replace(text=f"{who.rstrip()}, {event.text}")
            elif event.key == STARTS:
                kept.append(last)
        while event.key == FAULT and kept and kept[-1].key == CRASH:
            if kept[-1].time_ms != event.time_ms:
                break
            kept.pop()
        kept.append(event)
    return kept


def _events(entries: list[Sequence[Any]]) -> Iterator[Event]:
    end = next(
        (index for index, entry in enumerate(entries) if entry[2] == "violation"), len(entries)
    )
    violation = str(entries[end][4]) if end < len(entries) else ""
    concerned = _concerned(violation)
    about_quorum = violation.startswith(("raft", "metadata"))
    is_told: set[int] = set()
    for entry in entries[: end + 1]:
        time_ms, who, kind, place, text = entry
        number = place.rpartition("-")[2] if place else ""
        is_near = not concerned or number in concerned
        match kind:
            case "violation":
                yield Event(time_ms, 9, "", f"BROKEN: {text}")
            case "fault":
                yield Event(time_ms, 8, FAULT, text.partition(": ")[2])
            case "crash" | "wipe":
                yield Event(time_ms, 7, CRASH, f"{who} {text}")
            case "start":
                yield Event(time_ms, 6, STARTS, f"{who} {STARTS}")
            case "halt":
                yield Event(time_ms, 7, "", f"{who} gives up: {text}")
            case "Truncated" if is_near:
                fields = _fields(text)
                cut = f"cuts p{number} from {fields['old_end']} to {fields['leo']}"
                yield Event(time_ms, 7, "", f"{who} {cut}")
            case "BecameLeader" if is_near:
                fields = _fields(text)
                state = f"its log ends at {fields['leo']}, high watermark {fields['hw']}"
                leads = f"leads p{number} in leader epoch {fields['LE']}, ISR {fields['isr']}"
                yield Event(time_ms, 6, "", f"{who} {leads}; {state}")
            case "Acked" if is_near:
                fields = _fields(text)
                ends = f"ISR {fields['isr']} at {fields['ends']}"
                acks = f"acknowledges p{number} up to offset {fields['last']} ({ends})"
                yield Event(time_ms, 4, f"ack {who} {number}", f"{who} {acks}")
            case "RaftRole" if "'leader'" in text:
                fields = _fields(text)
                leads = f"leads the quorum in term {fields.get('term')}"
                if fields.get("role") == "leader":
                    yield Event(time_ms, 6 if about_quorum else 2, "", f"{who} {leads}")
            case "Applied":
                fields = _fields(text)
                index = int(fields["index"])
                if index not in is_told:
                    is_told.add(index)
                    yield from _changes(time_ms, str(fields["records"]), concerned)


def _changes(time_ms: int, records: str, concerned: set[str]) -> Iterator[Event]:
    for record in json.loads(records):
        number = str(record.get("partition", ""))
        if record["kind"] == "PartitionChanged" and (not concerned or number in concerned):
            eligible = f", eligible {record['elr']}" if record.get("elr") else ""
            text = (
                f"the controller: p{number} has leader {record['leader']} in leader epoch "
                f"{record['leader_epoch']}, ISR {record['isr']}{eligible}"
            )
            yield Event(time_ms, 5, "", text)


def _concerned(violation: str) -> set[str]:
    """The partitions that a violation names."""
    return set(PLACE.findall(violation.partition(": ")[2].partition(":")[0]))


def _fields(text: str) -> dict[str, Any]:
    """`LE=1 leo=2 … {'isr': (1, 2)}` as one table."""
    plain, brace, details = text.partition("{")
    fields: dict[str, Any] = dict(word.split("=", 1) for word in plain.split() if "=" in word)
    fields.update(ast.literal_eval(brace + details) if brace else {})
    return fields
