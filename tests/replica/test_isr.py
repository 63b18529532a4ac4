"""Who is in sync, who may join: one test for each condition."""

from __future__ import annotations

import pytest

from broker.replica.isr import FollowerProgress, laggards, may_join

LAG_MS = 3_000


def test_caught_up_is_measured_by_the_counted_end() -> None:
    progress = FollowerProgress(-1, last_caught_up_ms=0)
    progress.on_fetch(7, 1, counted_end=10, leader_end=10, now_ms=500)
    assert progress.last_caught_up_ms == 500
    progress.on_fetch(7, 2, counted_end=10, leader_end=20, now_ms=900)
    assert progress.last_caught_up_ms == 500


def test_who_always_reaches_the_end_of_the_last_fetch_is_in_sync_under_load() -> None:
    """The leader's end moves on between fetches: the follower was caught up at its last fetch."""
    progress = FollowerProgress(-1, last_caught_up_ms=0)
    for turn in range(1, 50):
        progress.on_fetch(7, turn, counted_end=turn * 10, leader_end=turn * 10 + 10, now_ms=turn)
    assert progress.last_caught_up_ms == 48


def test_an_older_round_changes_nothing() -> None:
    progress = FollowerProgress(-1, last_caught_up_ms=0)
    assert progress.on_fetch(7, 5, counted_end=10, leader_end=20, now_ms=1)
    assert not progress.on_fetch(7, 4, counted_end=20, leader_end=20, now_ms=2)
    assert not progress.on_fetch(7, 5, counted_end=20, leader_end=20, now_ms=2)
    assert progress.counted_end == 10


def test_a_new_incarnation_starts_from_nothing() -> None:
    progress = FollowerProgress(-1, last_caught_up_ms=0)
    progress.on_fetch(7, 900, counted_end=10, leader_end=10, now_ms=1)
    assert progress.on_fetch(8, 1, counted_end=2, leader_end=10, now_ms=2)
    assert (progress.counted_end, progress.broker_epoch) == (2, 8)


def fetched(counted_end: int, broker_epoch: int = 7) -> FollowerProgress:
    return FollowerProgress(broker_epoch, 0, counted_end=counted_end, fetch_round=1)


@pytest.mark.parametrize(
    ("story", "progress", "registered", "fenced", "in_sync", "expected"),
    [
        ("holds everything", fetched(12), 7, False, True, True),
        ("below the watermark", fetched(9), 7, False, True, False),
        ("has the watermark, not the epoch's start", fetched(11), 7, False, True, False),
        ("another incarnation fetched", fetched(12, broker_epoch=6), 7, False, True, False),
        ("is fenced", fetched(12), 7, True, True, False),
        ("has not fetched in this epoch", FollowerProgress(-1, 0), 7, False, True, False),
        ("fell silent and was removed for it", fetched(12), 7, False, False, False),
    ],
)
def test_may_join(
    story: str,
    progress: FollowerProgress,
    registered: int,
    fenced: bool,
    in_sync: bool,
    expected: bool,
) -> None:
    joins = may_join(
        progress,
        high_watermark=10,
        epoch_start_offset=12,
        registered_broker_epoch=registered,
        is_fenced=fenced,
        is_in_sync=in_sync,
    )
    assert joins is expected, story


def test_laggards_are_the_silent_and_the_slow_never_the_leader() -> None:
    progress = {
        2: FollowerProgress(7, last_caught_up_ms=1_000, counted_end=5),
        3: FollowerProgress(7, last_caught_up_ms=1_000, counted_end=10),
        4: FollowerProgress(7, last_caught_up_ms=3_000, counted_end=5),
    }

    def late(now_ms: int) -> tuple[int, ...]:
        return laggards((1, 2, 3, 4), 1, progress, leader_end=10, now_ms=now_ms, lag_ms_max=LAG_MS)

    assert late(4_000) == ()
    assert late(4_001) == (2,)
    assert late(6_001) == (2, 4)
