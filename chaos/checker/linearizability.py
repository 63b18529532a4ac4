"""Linearizability of a partition log: complete, in one sort and one running maximum.

An append returns its offset, so the offsets fix the order of all appends and of every read between
them: put a read of the log end e at key 2e and an append at offset o at key 2o + 1. A linearization
must follow the keys, and it exists if and only if nothing with a larger key ended before something
with a smaller key began. So: walk the keys upwards with the running maximum of the begin times; an
operation that ended before that maximum and the operation that holds it are the whole
counterexample. (The general problem is NP-hard; this one is not, because offsets are visible.)

Unknown appends. One that was seen has an offset and never ended. One that was never seen may be
left out, unless an offset below the log end is filled by nobody: then it is the only candidate.
The latest begin that a hole tolerates grows with its offset, so handing out candidates by begin
time to holes by offset decides whether all holes can be filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

ALWAYS = -1
"""Begin of an operation that constrains nobody after it: before all times."""

NEVER = 2**63 - 1
"""End of an operation that constrains nobody before it."""


class Operation(NamedTuple):
    """One operation on the key line. `tag` is the caller's: it finds the operation again."""

    key: int
    invoke_ns: int
    end_ns: int
    tag: int


def append_at(offset: int, invoke_ns: int, end_ns: int, tag: int) -> Operation:
    """An append that got `offset`; `end_ns` NEVER when its outcome is unknown."""
    return Operation(2 * offset + 1, invoke_ns, end_ns, tag)


def read_end(end_offset: int, invoke_ns: int, end_ns: int, tag: int) -> Operation:
    """A linearizable read of the log end."""
    return Operation(2 * end_offset, invoke_ns, end_ns, tag)


def seen_below(end_offset: int, end_ns: int, tag: int) -> Operation:
    """Somebody had read up to `end_offset` by `end_ns`: the log end was at least that. Says nothing
    about how far the log reached, so it binds only what lies below."""
    return Operation(2 * end_offset, ALWAYS, end_ns, tag)


@dataclass(frozen=True, slots=True)
class Violation:
    """Why there is no linearization.

    kind inversion: `later` has the larger offset but ended before `earlier`, which has the smaller
    one, began. kind same-offset: two appends were given one offset. kind hole: nobody can have
    filled `offset`; `earlier` and `later` are absent or name who was too late for whom.
    """

    kind: str
    offset: int
    earlier: Operation | None = None
    later: Operation | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """All violations are counted, the first `limit` are shown."""

    operation_count: int
    violation_count: int
    violations: tuple[Violation, ...]


def check(
    operations: Iterable[Operation],
    *,
    candidates: Sequence[Operation] = (),
    start_offset: int = 0,
    dense: bool = True,
    limit: int = 3,
) -> Result:
    """Is there an order of the operations that the log and real time both allow?

    `operations`: everything with a known offset. `candidates`: unknown appends never seen anywhere
    (their key is ignored). `dense`: every offset from `start_offset` up to the largest one must be
    filled by an operation or a candidate; pass False when others may have written too.
    """
    ordered = sorted(operations)
    violations: list[Violation] = []
    count = _walk(ordered, violations, limit)
    if dense:
        count += _fill_holes(ordered, candidates, start_offset, violations, limit)
    return Result(len(ordered) + len(candidates), count, tuple(violations))


def _walk(ordered: list[Operation], violations: list[Violation], limit: int) -> int:
    """Inversions and shared offsets, by ascending key."""
    count = 0
    latest: Operation | None = None
    latest_begin = ALWAYS
    group_latest: Operation | None = None
    group_begin = ALWAYS
    group_key = -1
    for operation in ordered:
        key, invoke_ns, end_ns, _ = operation
        if key != group_key:
            if group_begin > latest_begin:
                latest_begin, latest = group_begin, group_latest
            group_key, group_begin = key, ALWAYS
        elif key & 1:
            count += 1
            if len(violations) < limit:
                violations.append(Violation("same-offset", key >> 1, group_latest, operation))
        if end_ns < latest_begin:
            count += 1
            if len(violations) < limit:
                violations.append(Violation("inversion", key >> 1, latest, operation))
        if invoke_ns > group_begin or group_begin == ALWAYS:
            group_begin, group_latest = invoke_ns, operation
    return count


def _fill_holes(
    ordered: list[Operation],
    candidates: Sequence[Operation],
    start_offset: int,
    violations: list[Violation],
    limit: int,
) -> int:
    """Holes below the log end that no candidate can have filled in time."""
    waiting = sorted(candidates, key=lambda operation: operation.invoke_ns)
    count = 0
    taken = 0
    for hole in _holes(ordered, start_offset):
        offset = hole.start_offset
        deadline_ns = hole.first_above.end_ns
        while (
            offset < hole.end_offset
            and taken < len(waiting)
            and waiting[taken].invoke_ns <= deadline_ns
        ):
            offset += 1
            taken += 1
        if offset < hole.end_offset:
            count += hole.end_offset - offset
            if len(violations) < limit:
                late = waiting[taken] if taken < len(waiting) else None
                violations.append(Violation("hole", offset, late, hole.first_above))
    return count


class _Hole(NamedTuple):
    """Offsets [start_offset, end_offset) that nobody is known to fill. `first_above` ended first of
    all operations with larger keys: whoever fills the hole must have begun by then."""

    start_offset: int
    end_offset: int
    first_above: Operation


def _holes(ordered: list[Operation], start_offset: int) -> list[_Hole]:
    """By ascending offset."""
    holes: list[_Hole] = []
    first: Operation | None = None
    unfilled_end = start_offset  # exclusive end of the offsets below the operation before
    for operation in reversed(ordered):
        filled_end = (operation.key + 1) >> 1
        if first is not None and filled_end < unfilled_end:
            low = max(filled_end, start_offset)
            if low < unfilled_end:
                holes.append(_Hole(low, unfilled_end, first))
        unfilled_end = operation.key >> 1
        if first is None or operation.end_ns < first.end_ns:
            first = operation
    if first is not None and start_offset < unfilled_end:
        holes.append(_Hole(start_offset, unfilled_end, first))
    holes.reverse()
    return holes
