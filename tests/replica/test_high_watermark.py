"""What counts as committed: tables, and the same as a property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.replica.high_watermark import (
    UNKNOWN_END,
    advance,
    effective_min_isr,
    maximal_isr,
)


@pytest.mark.parametrize(
    ("story", "current", "ends", "isr_size", "min_isr", "expected"),
    [
        ("all have it", 0, [5, 5, 5], 3, 2, 5),
        ("the slowest decides", 0, [9, 4, 7], 3, 2, 4),
        ("the leader's own sync counts too", 0, [3, 8, 8], 3, 2, 3),
        ("a member not yet heard of in this epoch", 2, [9, UNKNOWN_END, 9], 3, 2, 2),
        ("never back, whatever members say", 6, [5, 5, 5], 3, 2, 6),
        ("committed ISR below min: it stands still", 3, [9], 1, 2, 3),
        ("alone, and that is enough", 3, [9], 1, 1, 9),
        ("exactly min", 3, [9, 8], 2, 2, 8),
    ],
)
def test_advance(
    story: str, current: int, ends: list[int], isr_size: int, min_isr: int, expected: int
) -> None:
    assert advance(current, ends, isr_size=isr_size, min_isr=min_isr) == expected, story


@pytest.mark.parametrize(
    ("committed", "proposed", "expected"),
    [
        ((1, 2, 3), None, (1, 2, 3)),
        ((1, 2), (1, 2, 3), (1, 2, 3)),
        ((1, 2, 3), (1, 2), (1, 2, 3)),
        ((1, 2), (1, 3), (1, 2, 3)),
    ],
    ids=["none pending", "a joining member counts at once", "a leaving one still counts", "both"],
)
def test_maximal_isr(
    committed: tuple[int, ...], proposed: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    assert maximal_isr(committed, proposed) == expected


def test_min_isr_is_bounded_by_the_number_of_replicas() -> None:
    assert effective_min_isr(2, 3) == 2
    assert effective_min_isr(3, 1) == 1


@given(
    current=st.integers(0, 50),
    ends=st.lists(st.integers(-1, 100), min_size=1, max_size=5),
    min_isr=st.integers(1, 5),
)
def test_it_never_passes_a_member_and_never_goes_back(
    current: int, ends: list[int], min_isr: int
) -> None:
    moved = advance(current, ends, isr_size=len(ends), min_isr=min_isr)
    assert moved >= current
    if moved > current:
        assert moved <= min(ends)
        assert len(ends) >= min_isr
