"""Who is in sync: what a leader knows of each follower, and when it may join or must leave the ISR.

Pure. All comparisons use the counted end (what is synced, under flush=ack), never the mere log end.
Sources: KIP-497, KIP-841, KIP-903, KAFKA-7128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.replica.high_watermark import UNKNOWN_END


@dataclass(slots=True)
class FollowerProgress:
    """A leader's knowledge of a follower in one leader epoch; dropped when an epoch changes."""

    broker_epoch: int
    """Incarnation of the follower this knowledge is about; -1 until its first fetch."""
    last_caught_up_ms: int
    """When its counted end last reached what the leader's log end was. A new leader grants `now` to
    ISR members, so that they get a full lag period to show themselves."""
    counted_end: int = UNKNOWN_END
    fetch_round: int = -1
    leader_end_at_last_fetch: int = -1
    last_fetch_ms: int = -1
    log_start_offset: int = -1

    def on_fetch(
        self, broker_epoch: int, fetch_round: int, counted_end: int, leader_end: int, now_ms: int
    ) -> bool:
        """Take a fetch into account. False for a round that is not newer: it changes nothing."""
        if broker_epoch == self.broker_epoch and fetch_round <= self.fetch_round:
            return False
        if broker_epoch != self.broker_epoch:
            self.counted_end = UNKNOWN_END
            self.leader_end_at_last_fetch = -1
        if counted_end >= leader_end:
            self.last_caught_up_ms = now_ms
        elif 0 <= self.leader_end_at_last_fetch <= counted_end:
            self.last_caught_up_ms = max(self.last_caught_up_ms, self.last_fetch_ms)
        self.broker_epoch = broker_epoch
        self.fetch_round = fetch_round
        self.counted_end = counted_end
        self.leader_end_at_last_fetch = leader_end
        self.last_fetch_ms = now_ms
        return True

    def is_in_sync(self, leader_end: int, now_ms: int, lag_ms_max: int) -> bool:
        return self.counted_end >= leader_end or now_ms - self.last_caught_up_ms <= lag_ms_max


def may_join(
    progress: FollowerProgress,
    *,
    high_watermark: int,
    epoch_start_offset: int,
    registered_broker_epoch: int,
    is_fenced: bool,
    is_in_sync: bool,
) -> bool:
    """Whether a replica outside the ISR may be proposed for it.

    It must have fetched in this leader epoch as its present incarnation (KIP-903), hold everything
    committed and everything up to the start of the leader's epoch (KAFKA-7128), be unfenced, and
    keep up: one that was just removed as a laggard still holds all that is committed, and would
    be taken in and removed again for ever.
    """
    return (
        not is_fenced
        and is_in_sync
        and progress.broker_epoch == registered_broker_epoch
        and progress.counted_end >= high_watermark
        and progress.counted_end >= epoch_start_offset
    )


def laggards(
    isr: tuple[int, ...],
    leader_id: int,
    progress: Mapping[int, FollowerProgress],
    *,
    leader_end: int,
    now_ms: int,
    lag_ms_max: int,
) -> tuple[int, ...]:
    """ISR members that have not been caught up within the lag limit, in order."""
    return tuple(
        node_id
        for node_id in isr
        if node_id != leader_id and not progress[node_id].is_in_sync(leader_end, now_ms, lag_ms_max)
    )
