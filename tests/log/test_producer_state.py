"""The table of producers: every row of the verdicts, the five batches, wrap-around, replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.log import producer_state
from broker.log.producer_state import (
    BATCHES_KEPT,
    VERDICTS,
    EpochRelation,
    ProducerStateTable,
    SequenceRelation,
    Verdict,
    VerdictKind,
    last_sequence_of,
    verdict_table,
)
from broker.wire.batch_header import BatchHeader
from chaos.sim.disk import SimDisk
from tests.log.logs import append, create_log, make_batch, recovered_log

INT32_MAX = 2**31 - 1
PRODUCER = 7


def header(epoch: int, sequence: int, count: int = 1, producer_id: int = PRODUCER) -> BatchHeader:
    return BatchHeader(0, 100, 0, 2, 0, 0, count - 1, 0, 0, producer_id, epoch, sequence, count)


def table_of(*batches: tuple[int, int, int]) -> ProducerStateTable:
    """(epoch, sequence, count) each, one after the other from offset 100 on."""
    table = ProducerStateTable()
    offset = 100
    for epoch, sequence, count in batches:
        table.note(header(epoch, sequence, count), offset)
        offset += count
    return table


NEXT, DUPLICATE = VerdictKind.NEXT, VerdictKind.DUPLICATE
OUT_OF_ORDER, FENCED, UNKNOWN = VerdictKind.OUT_OF_ORDER, VerdictKind.FENCED, VerdictKind.UNKNOWN
TWO = ((3, 0, 10), (3, 10, 5))
WRAPPED = ((3, INT32_MAX - 4, 3), (3, INT32_MAX - 1, 4))


@pytest.mark.parametrize(
    ("known", "epoch", "sequence", "count", "kind"),
    [
        pytest.param((), 0, 0, 1, NEXT, id="unknown producer begins at 0"),
        pytest.param((), 9, 0, 1, NEXT, id="unknown producer begins at 0 in any epoch"),
        pytest.param((), 0, 1, 1, UNKNOWN, id="unknown producer does not begin at 0"),
        pytest.param((), 0, INT32_MAX, 1, UNKNOWN, id="unknown producer, last sequence"),
        pytest.param(TWO, 2, 0, 1, FENCED, id="older epoch, from 0"),
        pytest.param(TWO, 2, 15, 1, FENCED, id="older epoch, sequence that would follow"),
        pytest.param(TWO, 2, 10, 5, FENCED, id="older epoch, sequences of a kept batch"),
        pytest.param(TWO, 3, 10, 5, DUPLICATE, id="the last batch again"),
        pytest.param(TWO, 3, 0, 10, DUPLICATE, id="an older batch again, also one from 0"),
        pytest.param(TWO, 3, 10, 4, OUT_OF_ORDER, id="kept first sequence, other last"),
        pytest.param(TWO, 3, 11, 4, OUT_OF_ORDER, id="kept last sequence, other first"),
        pytest.param(TWO, 3, 15, 1, NEXT, id="follows"),
        pytest.param(TWO, 3, 16, 1, OUT_OF_ORDER, id="gap"),
        pytest.param(TWO, 3, 14, 1, OUT_OF_ORDER, id="overlap"),
        pytest.param(TWO, 3, 0, 1, OUT_OF_ORDER, id="same epoch from 0 again"),
        pytest.param(TWO, 4, 0, 1, NEXT, id="newer epoch from 0"),
        pytest.param(TWO, 4, 15, 1, OUT_OF_ORDER, id="newer epoch must begin at 0"),
        pytest.param(TWO, 4, 10, 5, OUT_OF_ORDER, id="newer epoch knows no duplicates"),
        pytest.param(WRAPPED, 3, 2, 1, NEXT, id="after a batch that wraps"),
        pytest.param(WRAPPED, 3, INT32_MAX - 1, 4, DUPLICATE, id="the batch that wraps, again"),
        pytest.param(((3, INT32_MAX, 1),), 3, 0, 1, NEXT, id="0 follows the last sequence"),
        pytest.param(((3, INT32_MAX - 1, 1),), 3, 0, 1, OUT_OF_ORDER, id="0 too early"),
        pytest.param(((3, INT32_MAX, 1),), 3, -(2**31), 1, OUT_OF_ORDER, id="never negative"),
        pytest.param(((32_766, 0, 1),), 32_767, 0, 1, NEXT, id="last epoch"),
    ],
)
def test_verdict(
    known: tuple[tuple[int, int, int], ...],
    epoch: int,
    sequence: int,
    count: int,
    kind: VerdictKind,
) -> None:
    assert table_of(*known).verdict(header(epoch, sequence, count)).kind is kind


def test_a_duplicate_is_told_its_offsets() -> None:
    table = table_of(*TWO)
    assert table.verdict(header(3, 0, 10)) == Verdict(DUPLICATE, 100, 109)
    assert table.verdict(header(3, 10, 5)) == Verdict(DUPLICATE, 110, 114)


def test_five_batches_are_kept() -> None:
    table = table_of(*((0, sequence, 1) for sequence in range(8)))
    kinds = [table.verdict(header(0, sequence)).kind for sequence in range(9)]
    assert kinds == [OUT_OF_ORDER] * 3 + [DUPLICATE] * BATCHES_KEPT + [NEXT]


def test_a_new_epoch_forgets_the_old_batches() -> None:
    table = table_of(*TWO, (4, 0, 1))
    assert table.verdict(header(3, 10, 5)).kind is FENCED
    assert table.verdict(header(4, 0)).kind is DUPLICATE
    assert table.verdict(header(4, 1)).kind is NEXT


def test_without_producer_id_everything_is_next() -> None:
    table = ProducerStateTable()
    plain = header(-1, -1, producer_id=-1)
    assert table.verdict(plain).kind is NEXT
    table.note(plain, 0)
    assert len(table) == 0


def test_a_verdict_changes_nothing() -> None:
    table = table_of(*TWO)
    before = table.entries()
    for sequence in (0, 10, 15, 99):
        table.verdict(header(3, sequence))
        table.verdict(header(4, sequence))
    assert table.entries() == before


def test_the_table_is_complete() -> None:
    """Every relation that can occur has its row, and no row cannot occur."""
    seen = set()
    for known in ((), TWO):
        for epoch in (2, 3, 4):
            for sequence, count in ((0, 1), (0, 10), (10, 5), (15, 1), (77, 1)):
                entry = table_of(*known).get(PRODUCER)
                batch = header(epoch, sequence, count)
                for forgotten_through in (PRODUCER - 1, PRODUCER):
                    seen.add(producer_state.relate(entry, batch, forgotten_through)[:2])
    assert seen == set(VERDICTS)
    assert {epoch for epoch, _ in VERDICTS} == set(EpochRelation)
    assert {sequence for _, sequence in VERDICTS} == set(SequenceRelation)


def test_the_readme_prints_the_table() -> None:
    readme = Path(producer_state.__file__).parent / "README.md"
    assert verdict_table() in readme.read_text(encoding="utf-8")


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(0, INT32_MAX), st.integers(0, INT32_MAX))
def test_last_sequence_wraps_to_zero(base_sequence: int, delta: int) -> None:
    last = last_sequence_of(base_sequence, delta)
    assert 0 <= last <= INT32_MAX
    plain = base_sequence + delta
    assert last == plain if plain <= INT32_MAX else last == plain - INT32_MAX - 1


# --- in a log -------------------------------------------------------------------------------------


def test_state_follows_the_bytes_through_truncation_and_restart() -> None:
    disk = SimDisk()
    log = create_log(disk)
    for at in range(30):
        append(log, make_batch(2, producer=(PRODUCER + at % 2, 0, at // 2 * 2)))
    expected = log.producers.entries()
    append(log, make_batch(1, producer=(PRODUCER, 1, 0)))
    append(log, make_batch(1, producer=(99, 0, 0)))
    assert log.producers.entries() != expected
    log.truncate_to(60)
    assert log.producers.entries() == expected

    disk.process_crash()
    assert recovered_log(disk).producers.entries() == expected


def test_a_truncated_epoch_gives_the_older_one_back_with_all_its_batches() -> None:
    log = create_log(SimDisk(), segment_bytes=10_000)
    for sequence in range(7):
        append(log, make_batch(producer=(PRODUCER, 0, sequence)))
    log.producers.take_snapshot(log.log_end_offset)
    append(log, make_batch(producer=(PRODUCER, 1, 0)))
    log.truncate_to(7)
    entry = log.producers.get(PRODUCER)
    assert entry is not None
    assert entry.producer_epoch == 0
    assert [batch.base_sequence for batch in entry.batches] == [2, 3, 4, 5, 6]


def test_snapshots_shorten_the_replay_and_go_when_they_are_old() -> None:
    table = ProducerStateTable(0)
    for sequence in range(10):
        table.note(header(0, sequence), sequence)
        table.take_snapshot(sequence + 1)
    table.forget_snapshots_before(6)
    at_eight = table_of()
    for sequence in range(8):
        at_eight.note(header(0, sequence), sequence)
    assert table.restore(8) == 8
    assert table.entries() == at_eight.entries()
    assert table.restore(6) == 6
    # Below what was promised never to be cut there is only the beginning.
    assert table.restore(5) == 0
    assert len(table) == 0


# --- forgetting -----------------------------------------------------------------------------------


def test_who_was_silent_for_long_is_forgotten_and_never_taken_for_new() -> None:
    table = table_of((3, 0, 10), (3, 10, 5))
    table.note(header(0, 0, producer_id=3), 115)
    assert table.age(1_000, 100) == 0, "their time begins now"
    assert table.age(99, 100) == 0
    table.note(header(0, 1, producer_id=3), 116)
    assert table.age(1, 100) == 1
    assert table.get(PRODUCER) is None
    assert table.get(3) is not None, "it wrote meanwhile"
    assert table.verdict(header(3, 15)).kind is UNKNOWN
    assert table.verdict(header(3, 0)).kind is UNKNOWN, "a late duplicate of its first batch"
    assert table.verdict(header(0, 0, producer_id=PRODUCER - 1)).kind is UNKNOWN
    assert table.verdict(header(0, 0, producer_id=PRODUCER + 1)).kind is NEXT
    assert table.verdict(header(0, 2, producer_id=3)).kind is NEXT


def test_a_cut_gives_a_producer_its_time_again() -> None:
    """What is written at the same offset afterwards is another batch."""
    table = ProducerStateTable()
    table.note(header(0, 0), 0)
    table.take_snapshot(1)
    table.note(header(0, 1), 1)
    table.age(0, 100)
    table.age(90, 100)
    table.restore(1)
    table.note(header(0, 1), 1)
    assert table.age(90, 100) == 0
    assert table.age(90, 100) == 0
    assert table.age(10, 100) == 1


@pytest.mark.parametrize("epoch", [32_765, 32_766, 32_767])
@pytest.mark.parametrize("last", [INT32_MAX - 3, INT32_MAX - 2, INT32_MAX - 1, INT32_MAX])
def test_at_the_end_of_sequences_and_epochs(epoch: int, last: int) -> None:
    """A batch of five whose predecessor ends at `last`: it follows across the end, its retry is
    known, and what would follow without the wrap is refused."""
    table = table_of((epoch, last - 9, 10))
    following = (last + 1) % (INT32_MAX + 1)
    assert table.verdict(header(epoch, following, 5)).kind is NEXT
    table.note(header(epoch, following, 5), 110)
    assert table.verdict(header(epoch, following, 5)) == Verdict(DUPLICATE, 110, 114)
    after = (following + 5) % (INT32_MAX + 1)
    assert table.verdict(header(epoch, after)).kind is NEXT
    assert table.verdict(header(epoch, (after + 1) % (INT32_MAX + 1))).kind is OUT_OF_ORDER
    assert table.verdict(header(epoch - 1, after)).kind is FENCED
