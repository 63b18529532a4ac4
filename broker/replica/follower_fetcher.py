"""The pulling side of replication: one link to each leader, one fetch outstanding on it.

Sans-IO. A round is sent when the last one is answered and everything it brought is synced, so that
its counted ends are as fresh as can be. While a sync takes long, a round goes out without it; when
it then completes, a newer round is sent that replaces the one parked at the leader.

What becomes of a partition is the table `NEXT_STATE`: (state, outcome) -> state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from broker.replica.partition import Partition, PartitionKey
from broker.wire.messages import FetchPart, FetchRequest, FetchResponse, Isolation

SYNC_PATIENCE_MS = 50
"""A sync that takes longer does not hold up the link's other partitions."""


class FetchState(Enum):
    FETCHING = "fetching"
    BACKING_OFF = "backing off"
    STOPPED = "stopped"
    """Wait for metadata: the leader calls our epoch old, or our log is damaged."""


class Outcome(Enum):
    APPENDED = "appended"
    EMPTY = "empty"
    DIVERGED = "diverged"
    OUT_OF_RANGE = "out of range"
    FENCED = "fenced"
    REFUSED = "refused"
    CORRUPT = "corrupt"
    DAMAGED = "damaged"


NEXT_STATE: dict[tuple[FetchState, Outcome], FetchState] = {
    (FetchState.FETCHING, Outcome.APPENDED): FetchState.FETCHING,
    (FetchState.FETCHING, Outcome.EMPTY): FetchState.FETCHING,
    (FetchState.FETCHING, Outcome.DIVERGED): FetchState.FETCHING,
    (FetchState.FETCHING, Outcome.OUT_OF_RANGE): FetchState.BACKING_OFF,
    (FetchState.FETCHING, Outcome.FENCED): FetchState.STOPPED,
    (FetchState.FETCHING, Outcome.REFUSED): FetchState.BACKING_OFF,
    (FetchState.FETCHING, Outcome.CORRUPT): FetchState.BACKING_OFF,
    (FetchState.FETCHING, Outcome.DAMAGED): FetchState.STOPPED,
}
"""Any other pair is impossible: only fetching partitions are in a round."""


@dataclass(slots=True)
class Followed:
    """One partition on a link. A new leader epoch makes a new one, whatever the leader."""

    partition: Partition
    leader_epoch: int
    state: FetchState = FetchState.FETCHING
    retry_at_ms: int = 0


@dataclass(slots=True)
class Round:
    correlation_id: int
    fetch_round: int
    sent_at_ms: int
    asked: dict[PartitionKey, tuple[int, int]]
    """Leader epoch and fetch offset that each partition was asked with."""


@dataclass(slots=True)
class FetchLink:
    """All partitions that this broker follows from one leader."""

    leader_id: int
    leader_broker_epoch: int
    followed: dict[PartitionKey, Followed] = field(default_factory=dict)
    outstanding: Round | None = None
    fetch_round: int = 0
    echo: int = -1
    dirty_since_ms: int | None = None
    """When an append was made whose sync is still awaited."""
    late_sync: bool = False
    """A sync completed that the outstanding round did not know of."""

    def follow(self, partition: Partition) -> None:
        known = self.followed.get(partition.key)
        if known is None or known.leader_epoch != partition.leader_epoch:
            self.followed[partition.key] = Followed(partition, partition.leader_epoch)

    def on_registered(self, broker_epoch: int) -> None:
        """The leader has begun a new life: it will answer nothing that the last one was asked, and
        counts its answers anew."""
        if broker_epoch != self.leader_broker_epoch:
            self.leader_broker_epoch = broker_epoch
            self.outstanding = None
            self.echo = -1

    def unfollow(self, key: PartitionKey) -> None:
        self.followed.pop(key, None)

    def _is_dirty(self) -> bool:
        return any(
            item.partition.log.counted_end < item.partition.log.log_end_offset
            for item in self.followed.values()
        )

    def on_synced(self) -> None:
        """A log of this link got durable further than before."""
        self.late_sync = True

    def should_send(self, now_ms: int) -> bool:
        """Whether a round is due. Wakes partitions whose back-off is over."""
        for item in self.followed.values():
            if item.state is FetchState.BACKING_OFF and item.retry_at_ms <= now_ms:
                item.state = FetchState.FETCHING
        if not any(item.state is FetchState.FETCHING for item in self.followed.values()):
            self.dirty_since_ms = None
            return False
        dirty = self._is_dirty()
        if self.outstanding is not None:
            return self.late_sync and not dirty
        if not dirty:
            self.dirty_since_ms = None
            return True
        if self.dirty_since_ms is None:
            self.dirty_since_ms = now_ms
        return now_ms - self.dirty_since_ms >= SYNC_PATIENCE_MS

    def next_deadline_ms(self, fetch_timeout_ms: int) -> int | None:
        deadlines = [
            item.retry_at_ms
            for item in self.followed.values()
            if item.state is FetchState.BACKING_OFF
        ]
        if self.outstanding is not None:
            deadlines.append(self.outstanding.sent_at_ms + fetch_timeout_ms)
        elif self.dirty_since_ms is not None:
            deadlines.append(self.dirty_since_ms + SYNC_PATIENCE_MS)
        return min(deadlines, default=None)

    def make_request(
        self, node_id: int, broker_epoch: int, *, wait_ms: int, part_bytes: int, total_bytes: int
    ) -> FetchRequest:
        """The next round: every fetching partition at its log end, with what it vouches for."""
        self.fetch_round += 1
        self.late_sync = False
        self.dirty_since_ms = None
        return FetchRequest(
            replica_id=node_id,
            broker_epoch=broker_epoch,
            fetch_round=self.fetch_round,
            echo=self.echo,
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=total_bytes,
            isolation=Isolation.READ_UNCOMMITTED,
            parts=tuple(
                FetchPart(
                    topic_id=item.partition.key[0],
                    partition=item.partition.key[1],
                    leader_epoch=item.leader_epoch,
                    last_fetched_epoch=item.partition.log.last_fetched_epoch,
                    fetch_offset=item.partition.log.log_end_offset,
                    synced_end=item.partition.log.counted_end,
                    log_start_offset=item.partition.log.log_start_offset,
                    max_bytes=part_bytes,
                )
                for item in self.followed.values()
                if item.state is FetchState.FETCHING
            ),
        )

    def sent(self, request: FetchRequest, correlation_id: int, now_ms: int) -> None:
        self.outstanding = Round(
            correlation_id,
            request.fetch_round,
            now_ms,
            {
                (part.topic_id, part.partition): (part.leader_epoch, part.fetch_offset)
                for part in request.parts
            },
        )

    def take_answer(self, correlation_id: int, response: FetchResponse) -> Round | None:
        """The round that this answers; None for an answer to a round that was replaced."""
        round_ = self.outstanding
        if round_ is None or round_.correlation_id != correlation_id:
            return None
        self.outstanding = None
        self.echo = max(self.echo, response.counter)
        return round_

    def settle(self, item: Followed, outcome: Outcome, retry_at_ms: int) -> None:
        """Note what became of a partition. One that brought bytes goes behind the others, else a
        few busy ones would fill every answer."""
        if outcome is Outcome.APPENDED:
            self.followed[item.partition.key] = self.followed.pop(item.partition.key)
        item.state = NEXT_STATE[item.state, outcome]
        item.retry_at_ms = retry_at_ms


def truncation_offset(partition: Partition, diverging_epoch: int, diverging_end_offset: int) -> int:
    """Where to cut after the leader said that its epoch E ends at `diverging_end_offset`.

    Our newest epoch at or below E decides: if it is E itself, the smaller of both ends; if it is
    older, its own end, and the next round asks again (KIP-101, KIP-279). Without any such epoch
    nothing below the leader's end can be shared but what is there.
    """
    log = partition.log
    local = log.epochs.end_offset_for(diverging_epoch, log.log_end_offset)
    if local is None:
        return min(diverging_end_offset, log.log_end_offset)
    local_epoch, local_end = local
    if local_epoch == diverging_epoch:
        return min(local_end, diverging_end_offset, log.log_end_offset)
    return min(local_end, log.log_end_offset)
