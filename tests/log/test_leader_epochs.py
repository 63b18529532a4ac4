"""Leader epochs: assign, truncate, look up (KIP-101, KIP-279)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.log.leader_epochs import LeaderEpochs
from chaos.sim.disk import SimDisk
from tests.log.logs import append_many, create_log, make_batch, recovered_log, stamped

ENTRIES = ((2, 10), (4, 20), (7, 35))


@pytest.mark.parametrize(
    ("leader_epoch", "start_offset", "expected"),
    [
        pytest.param(9, 50, (*ENTRIES, (9, 50)), id="newer"),
        pytest.param(7, 35, ENTRIES, id="known"),
        pytest.param(7, 40, ENTRIES, id="goes on"),
        pytest.param(9, 35, (*ENTRIES[:2], (9, 35)), id="the epoch before wrote nothing"),
        pytest.param(9, 20, (*ENTRIES[:1], (9, 20)), id="two epochs before wrote nothing"),
        pytest.param(7, 30, (*ENTRIES[:2], (7, 30)), id="began earlier than thought"),
        pytest.param(5, 40, (*ENTRIES[:2], (5, 40)), id="an older one where the latest stood"),
        pytest.param(1, 0, ((1, 0),), id="older than all"),
    ],
)
def test_assign(
    leader_epoch: int, start_offset: int, expected: tuple[tuple[int, int], ...]
) -> None:
    epochs = LeaderEpochs(ENTRIES)
    epochs.assign(leader_epoch, start_offset)
    assert epochs.entries() == expected


@pytest.mark.parametrize(
    ("leader_epoch", "expected"),
    [
        pytest.param(8, None, id="newer than any"),
        pytest.param(7, (7, 60), id="latest ends with the log"),
        pytest.param(6, (4, 35), id="between: the one below, ends where the next begins"),
        pytest.param(4, (4, 35), id="known"),
        pytest.param(2, (2, 20), id="first"),
        pytest.param(1, (1, 10), id="below the first: nothing of it is left"),
    ],
)
def test_end_offset_for(leader_epoch: int, expected: tuple[int, int] | None) -> None:
    assert LeaderEpochs(ENTRIES).end_offset_for(leader_epoch, 60) == expected


def test_an_empty_cache_knows_nothing() -> None:
    epochs = LeaderEpochs()
    assert (epochs.last_epoch(), epochs.last_start_offset()) == (-1, -1)
    assert epochs.end_offset_for(0, 0) is None
    assert epochs.epoch_of(5) == -1


@pytest.mark.parametrize(
    ("end_offset", "count"), [(100, 3), (36, 3), (35, 2), (21, 2), (20, 1), (10, 0), (0, 0)]
)
def test_truncate(end_offset: int, count: int) -> None:
    epochs = LeaderEpochs(ENTRIES)
    epochs.truncate_to(end_offset)
    assert epochs.entries() == ENTRIES[:count]


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=12))
def test_entries_always_ascend(assigned: list[tuple[int, int]]) -> None:
    epochs = LeaderEpochs()
    for leader_epoch, start_offset in assigned:
        epochs.assign(leader_epoch, start_offset)
        entries = epochs.entries()
        assert entries == tuple(sorted(entries))
        assert len({epoch for epoch, _ in entries}) == len({start for _, start in entries})
        assert len({epoch for epoch, _ in entries}) == len(entries)
        assert epochs.epoch_of(start_offset) == leader_epoch


def test_truncating_at_the_end_still_forgets_an_epoch_without_batches() -> None:
    """KAFKA-10706: else follower and leader never agree."""
    log = create_log(SimDisk())
    append_many(log, 5, leader_epoch=3)
    log.epochs.assign(4, log.log_end_offset)
    generation = log.generation
    log.truncate_to(log.log_end_offset + 10)
    assert log.epochs.entries() == ((3, 0),)
    assert log.log_end_offset == 5
    assert log.generation == generation


@pytest.mark.parametrize(
    ("leader_epoch", "expected"),
    [
        pytest.param(3, ((3, 0),), id="the last batch's epoch goes on"),
        pytest.param(4, ((3, 0), (4, 5)), id="an epoch between"),
        pytest.param(5, ((3, 0), (5, 5)), id="the own one after all"),
    ],
)
def test_an_own_epoch_without_batches_is_forgotten_when_an_older_one_writes_there(
    leader_epoch: int, expected: tuple[tuple[int, int], ...]
) -> None:
    """Else this log says, when it leads again, that the older epoch ended before that batch, and
    its followers cut off what is committed."""
    log = create_log(SimDisk())
    append_many(log, 5, leader_epoch=3)
    log.epochs.assign(5, log.log_end_offset)
    log.append_as_follower(stamped(make_batch(), 5, leader_epoch))
    assert log.epochs.entries() == expected
    assert log.epochs.end_offset_for(leader_epoch, log.log_end_offset) == (leader_epoch, 6)


def test_what_a_follower_tells_is_the_epoch_of_its_last_batch() -> None:
    log = create_log(SimDisk())
    assert log.last_fetched_epoch == -1
    append_many(log, 2, leader_epoch=3)
    log.epochs.assign(4, log.log_end_offset)
    assert log.last_fetched_epoch == 3
    append_many(log, 2, leader_epoch=5)
    assert log.last_fetched_epoch == 5
    log.truncate_to(2)
    assert log.last_fetched_epoch == 3


def test_recovery_finds_the_epochs_in_the_batches() -> None:
    disk = SimDisk()
    log = create_log(disk)
    for leader_epoch in (1, 4, 6):
        append_many(log, 4, leader_epoch)
    disk.process_crash()
    assert recovered_log(disk).epochs.entries() == ((1, 0), (4, 4), (6, 8))
