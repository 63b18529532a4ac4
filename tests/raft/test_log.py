"""The Raft log by itself: positions, conflicts, hints, and what a disk still lacks."""

from __future__ import annotations

from itertools import product

import pytest

from raft.log import RaftLog
from raft.types import Entry
from tests.raft.messages import entries_of


def terms(log: RaftLog) -> list[int]:
    return [entry.term for entry in log.slice(log.first_index, log.last_index + 1)]


@pytest.mark.parametrize(
    ("stored", "prev_index", "sent", "result", "truncate_from"),
    [
        ((), 0, (1, 1), [1, 1], None),
        ((1, 1), 2, (2,), [1, 1, 2], None),
        ((1, 1, 1), 0, (1,), [1, 1, 1], None),
        ((1, 1, 1), 1, (), [1, 1, 1], None),
        ((1, 1, 1), 1, (1, 1, 1), [1, 1, 1, 1], None),
        ((1, 1, 1), 1, (2,), [1, 2], 2),
        ((1, 1, 1), 1, (1, 2), [1, 1, 2], 3),
        ((1, 1, 1), 0, (2, 2, 2, 2), [2, 2, 2, 2], 1),
    ],
)
def test_store_changes_only_what_conflicts(
    stored: tuple[int, ...],
    prev_index: int,
    sent: tuple[int, ...],
    result: list[int],
    truncate_from: int | None,
) -> None:
    log = RaftLog(entries_of(*stored))
    log.store(prev_index, entries_of(*sent, first_index=prev_index + 1))
    assert terms(log) == result
    first_new = truncate_from or len(stored) + 1
    unwritten = log.slice(first_new, log.last_index + 1) if len(result) >= first_new else ()
    assert log.take_unwritten() == (truncate_from, unwritten)


def test_a_cut_through_entries_that_were_never_handed_out_needs_no_truncation_on_disk() -> None:
    log = RaftLog(entries_of(1))
    log.store(1, entries_of(2, 2, first_index=2))
    log.store(1, entries_of(3, first_index=2))
    assert log.take_unwritten() == (None, entries_of(3, first_index=2))


def test_two_cuts_before_a_write_are_one_at_the_lower_index() -> None:
    log = RaftLog(entries_of(1, 1, 1, 1))
    log.store(3, entries_of(2, 2, first_index=4))
    log.store(1, entries_of(3, first_index=2))
    assert log.take_unwritten() == (2, entries_of(3, first_index=2))


def test_only_one_write_is_outstanding() -> None:
    log = RaftLog()
    log.append_own(1, b"x")
    log.take_unwritten()
    log.append_own(1, b"y")
    with pytest.raises(AssertionError, match="one write is outstanding"):
        log.take_unwritten()
    log.mark_durable()
    assert log.durable_index == 1
    assert log.take_unwritten() == (None, (Entry(2, 1, b"y"),))


def test_the_commit_index_never_goes_back_nor_beyond_the_end() -> None:
    log = RaftLog(entries_of(1, 1, 1))
    log.commit_to(2)
    log.commit_to(1)
    assert log.take_committed() == entries_of(1, 1)
    assert log.take_committed() == ()
    with pytest.raises(AssertionError, match="beyond the end"):
        log.commit_to(4)


@pytest.mark.parametrize(
    ("stored", "prev_index", "commit_index", "hint"),
    [
        ((), 3, 0, (None, 1)),
        ((1, 1), 3, 0, (None, 3)),
        ((1, 2, 2, 2), 4, 0, (2, 2)),
        ((2, 2, 2, 2), 4, 0, (2, 1)),
        ((2, 2, 2, 2), 4, 2, (2, 3)),
        ((1, 2, 3, 3), 2, 0, (2, 2)),
    ],
)
def test_conflict_hint(
    stored: tuple[int, ...], prev_index: int, commit_index: int, hint: tuple[int | None, int]
) -> None:
    log = RaftLog(entries_of(*stored))
    log.commit_to(commit_index)
    assert log.conflict_hint(prev_index) == hint


def test_hints_lead_every_leader_to_the_end_of_the_common_part() -> None:
    """All pairs of logs of up to 5 entries of terms 1 to 3: the leader's next question is lower
    than the last, never below the end of the common part, and gets there with one question per
    term and not per entry."""
    logs = [
        candidate
        for length in range(6)
        for candidate in product((1, 2, 3), repeat=length)
        if list(candidate) == sorted(candidate)
    ]
    for ours, theirs in product(logs, logs):
        common = 0
        while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
            common += 1
        leader, follower = RaftLog(entries_of(*ours)), RaftLog(entries_of(*theirs))
        prev_index, questions = len(ours), 0
        while not follower.matches(prev_index, leader.term_at(prev_index) or 0):
            next_index = leader.next_after_conflict(prev_index, *follower.conflict_hint(prev_index))
            assert common < next_index <= prev_index
            prev_index, questions = next_index - 1, questions + 1
        assert prev_index <= common or theirs[:prev_index] != ours[:prev_index]
        assert questions <= 4


@pytest.mark.parametrize(
    ("bytes_max", "indexes"), [(1, [2]), (4, [2, 3]), (5, [2, 3]), (6, [2, 3, 4]), (99, [2, 3, 4])]
)
def test_slice_bytes_takes_at_least_one_entry(bytes_max: int, indexes: list[int]) -> None:
    log = RaftLog(entries_of(1, 1, 1, 1))
    assert [entry.index for entry in log.slice_bytes(2, bytes_max)] == indexes


def test_a_log_may_begin_after_index_1() -> None:
    log = RaftLog(entries_of(4, 4, first_index=8), base_index=7, base_term=3)
    assert (log.first_index, log.last_index, log.commit_index) == (8, 9, 7)
    assert [log.term_at(index) for index in (6, 7, 8, 9, 10)] == [None, 3, 4, 4, None]
    assert log.matches(7, 3)
    log.store(7, entries_of(5, first_index=8))
    assert terms(log) == [5]
    assert log.take_unwritten() == (8, entries_of(5, first_index=8))
    log.commit_to(8)
    assert log.take_committed() == entries_of(5, first_index=8)


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(2, 1, b""),),
        (Entry(1, 1, b""), Entry(3, 1, b"")),
        (Entry(1, 2, b""), Entry(2, 1, b"")),
        (Entry(1, 1, b""), Entry(1, 1, b"")),
    ],
)
def test_a_damaged_log_is_refused(entries: tuple[Entry, ...]) -> None:
    with pytest.raises(ValueError, match="Raft log is damaged"):
        RaftLog(entries)
