"""The sort-and-running-maximum check against an exhaustive search, and its counterexamples."""

from __future__ import annotations

from random import Random

import pytest

from chaos.checker.linearizability import (
    ALWAYS,
    NEVER,
    Operation,
    append_at,
    check,
    read_end,
    seen_below,
)

CANDIDATE = -1


def linearizable_by_search(
    operations: list[Operation], candidates: list[Operation], dense: bool
) -> bool:
    """Try every order that real time allows on a log that starts empty."""
    everything = operations + [candidate._replace(key=CANDIDATE) for candidate in candidates]
    must = (1 << len(operations)) - 1
    seen: set[tuple[int, int]] = set()

    def search(done: int, log_end: int) -> bool:
        if done & must == must:
            return True
        if (done, log_end) in seen:
            return False
        seen.add((done, log_end))
        deadline = min(op.end_ns for i, op in enumerate(operations) if not done >> i & 1)
        for i, op in enumerate(everything):
            if done >> i & 1 or op.invoke_ns > deadline:
                continue
            if op.key == CANDIDATE:
                after = log_end + 1
            elif op.key & 1:
                after = log_end + 1 if op.key == 2 * log_end + 1 else -1
            elif op.invoke_ns == ALWAYS:
                after = log_end if op.key <= 2 * log_end else -1
            else:
                after = log_end if op.key == 2 * log_end else -1
            if after >= 0 and search(done | 1 << i, after):
                return True
        # Without `dense` strangers may append at any time.
        top = max((op.key + 1) >> 1 for op in operations)
        return not dense and log_end < top and search(done, log_end + 1)

    return not operations or search(0, 0)


def random_history(rng: Random) -> tuple[list[Operation], list[Operation]]:
    """Small histories near the border: mostly sensible offsets, sometimes disturbed."""
    operations: list[Operation] = []
    candidates: list[Operation] = []
    time, log_end = 0, 0
    for tag in range(rng.randint(1, 7)):
        time += rng.randint(0, 3)
        begin = time
        end = begin + rng.randint(0, 6)
        kind = rng.random()
        if kind < 0.55:
            offset = max(0, log_end + (rng.randint(-2, 2) if rng.random() < 0.35 else 0))
            unknown = rng.random() < 0.15
            operations.append(append_at(offset, begin, NEVER if unknown else end, tag))
            log_end = max(log_end, offset) + 1
        elif kind < 0.7:
            candidates.append(append_at(0, begin, NEVER, tag))
            log_end += rng.random() < 0.5
        elif kind < 0.87:
            operations.append(read_end(max(0, log_end - rng.randint(0, 1)), begin, end, tag))
        else:
            operations.append(seen_below(max(0, log_end - rng.randint(0, 2)), end, tag))
    rng.shuffle(operations)
    return operations, candidates


@pytest.mark.parametrize("dense", [True, False])
def test_it_agrees_with_an_exhaustive_search(dense: bool) -> None:
    rng = Random(20_817)
    verdicts = {True: 0, False: 0}
    for number in range(6_000):
        operations, candidates = random_history(rng)
        ours = check(operations, candidates=candidates, dense=dense).violation_count == 0
        search = linearizable_by_search(operations, candidates, dense)
        assert ours == search, f"history {number}: {operations} {candidates}"
        verdicts[search] += 1
    assert min(verdicts.values()) > 1_000, f"the generator is one-sided: {verdicts}"


def test_a_later_append_with_a_lower_offset_is_named_with_the_one_it_overtook() -> None:
    first = append_at(10, 0, 5, tag=1)
    second = append_at(9, 6, 8, tag=2)
    result = check([second, append_at(8, 0, 9, tag=3), first], dense=False)
    assert result.violation_count == 1
    [violation] = result.violations
    assert (violation.kind, violation.earlier, violation.later) == ("inversion", second, first)


def test_concurrent_appends_may_take_any_order() -> None:
    assert check([append_at(1, 0, 5, 1), append_at(0, 5, 8, 2)]).violation_count == 0


def test_a_read_end_below_an_acked_append_is_an_inversion() -> None:
    result = check([append_at(0, 0, 1, 1), append_at(1, 0, 2, 2), read_end(1, 3, 4, 3)])
    assert [violation.kind for violation in result.violations] == ["inversion"]


def test_what_was_seen_binds_only_what_lies_below() -> None:
    later_append_above = [append_at(0, 0, 1, 1), append_at(1, 4, 5, 2), seen_below(1, 3, 3)]
    assert check(later_append_above).violation_count == 0
    early = check([append_at(0, 4, 5, 1), seen_below(1, 3, 2)])
    assert [violation.kind for violation in early.violations] == ["inversion"]


def test_an_unknown_append_fills_a_hole_only_if_it_began_in_time() -> None:
    acked = append_at(1, 0, 5, 1)
    assert check([acked], candidates=[append_at(0, 5, NEVER, 2)]).violation_count == 0
    late = check([acked], candidates=[append_at(0, 6, NEVER, 2)])
    assert [(v.kind, v.offset) for v in late.violations] == [("hole", 0)]


def test_a_hole_of_absurd_size_costs_nothing() -> None:
    result = check([append_at(10**15, 0, 5, 1)], candidates=[append_at(0, 0, NEVER, 2)])
    assert result.violation_count == 10**15 - 1
    assert len(result.violations) == 1


def test_one_offset_for_two_appends() -> None:
    result = check([append_at(0, 0, 5, 1), append_at(0, 1, 6, 2)])
    assert [violation.kind for violation in result.violations] == ["same-offset"]
