"""The pulling side of replication: one link to each leader, one fetch outstanding on it.

Sans-IO. A round is sent when the last one is answered and everything it brought is synced, so that
its counted ends are as fresh as can be. While a sync takes long, a round goes out without it; when
it then completes, a newer round is sent that replaces the one parked at the leader.

What becomes of a partition is the table `NEXT_STATE`: (state, outcome) -> state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from broker.replica.partition import Partition, PartitionKey
from broker.wire.messages import (
    FetchPart,
    FetchRequest,
    FetchResponse,
    FetchSessionPart,
    Isolation,
    ReplicaName,
)

NO_SESSION = -1
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
    """Leader epoch and fetch offset that each partition was asked with; of a session, those that
    are listed."""


@dataclass(slots=True)
class FetchLink:
    """All partitions that this broker follows from one leader.

    From `session_partitions` of them on, rounds form a session: the leader remembers what was
    asked (`listed`), and a round says only what has changed. Whatever is not known to have arrived
    ends the session.
    """

    leader_id: int
    leader_broker_epoch: int
    session_partitions: int
    followed: dict[PartitionKey, Followed] = field(default_factory=dict)
    outstanding: Round | None = None
    fetch_round: int = 0
    echo: int = -1
    dirty_since_ms: int | None = None
    """When an append was made whose sync is still awaited."""
    late_sync: bool = False
    """A sync completed that the outstanding round did not know of."""
    resting: dict[PartitionKey, None] = field(default_factory=dict)
    """Those that are not fetching."""
    unsynced: dict[PartitionKey, None] = field(default_factory=dict)
    """Those that may have more than they vouch for."""
    changed: dict[PartitionKey, None] = field(default_factory=dict)
    """Those of which a session's next round may have something new to say."""
    listed: dict[PartitionKey, FetchPart] = field(default_factory=dict)
    session_id: int = NO_SESSION
    session_epoch: int = 0

    def follow(self, partition: Partition) -> None:
        known = self.followed.get(partition.key)
        if known is None or known.leader_epoch != partition.leader_epoch:
            self.followed[partition.key] = Followed(partition, partition.leader_epoch)
            self.resting.pop(partition.key, None)
            self.unsynced[partition.key] = None
            self.changed[partition.key] = None

    def on_registered(self, broker_epoch: int) -> None:
        """The leader has begun a new life: it will answer nothing that the last one was asked, and
        counts its answers anew."""
        if broker_epoch != self.leader_broker_epoch:
            self.leader_broker_epoch = broker_epoch
            self.lose_round()
            self.echo = -1

    def lose_round(self) -> None:
        """Nobody knows what became of the outstanding round, or the leader knows no session."""
        self.outstanding = None
        self.session_id = NO_SESSION
        self.listed = {}

    def unfollow(self, key: PartitionKey) -> None:
        if self.followed.pop(key, None) is not None:
            self.resting.pop(key, None)
            self.unsynced.pop(key, None)
            self.changed[key] = None

    def _is_dirty(self) -> bool:
        for key in tuple(self.unsynced):
            log = self.followed[key].partition.log
            if log.counted_end < log.log_end_offset:
                return True
            del self.unsynced[key]
        return False

    def on_synced(self, key: PartitionKey) -> None:
        """A log of this link got durable further than before."""
        self.late_sync = True
        self.changed[key] = None

    def should_send(self, now_ms: int) -> bool:
        """Whether a round is due. Wakes partitions whose back-off is over."""
        for key in tuple(self.resting):
            item = self.followed[key]
            if item.state is FetchState.BACKING_OFF and item.retry_at_ms <= now_ms:
                item.state = FetchState.FETCHING
                del self.resting[key]
                self.changed[key] = None
        if len(self.followed) == len(self.resting):
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
            for item in map(self.followed.__getitem__, self.resting)
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
        """The next round: every fetching partition at its log end, with what it vouches for; in a
        session those of which the leader does not know that."""
        self.fetch_round += 1
        self.late_sync = False
        self.dirty_since_ms = None
        session: FetchSessionPart | None = None
        if len(self.followed) < self.session_partitions:
            self.session_id = NO_SESSION
            parts = self._list(self.followed, part_bytes)[0]
        elif self.session_id == NO_SESSION:
            self.session_id, self.session_epoch = self.fetch_round, 0
            parts = self._list(self.followed, part_bytes)[0]
            session = FetchSessionPart(self.session_id, 0, ())
        else:
            self.session_epoch += 1
            parts, forgotten = self._list(self.changed, part_bytes, self.listed)
            session = FetchSessionPart(self.session_id, self.session_epoch, forgotten)
        self.changed = {}
        return FetchRequest(
            replica_id=node_id,
            broker_epoch=broker_epoch,
            fetch_round=self.fetch_round,
            echo=self.echo,
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=total_bytes,
            isolation=Isolation.READ_UNCOMMITTED,
            parts=parts,
            session=session,
        )

    def _list(
        self,
        keys: Iterable[PartitionKey],
        part_bytes: int,
        listed: dict[PartitionKey, FetchPart] | None = None,
    ) -> tuple[tuple[FetchPart, ...], tuple[ReplicaName, ...]]:
        """Parts of those that are fetching and not listed as they are; names of those that are
        listed and not fetching. `listed` None: nothing is."""
        if listed is None:
            listed = self.listed = {}
        parts: list[FetchPart] = []
        forgotten: list[ReplicaName] = []
        for key in keys:
            item = self.followed.get(key)
            if item is None or item.state is not FetchState.FETCHING:
                if listed.pop(key, None) is not None:
                    forgotten.append(ReplicaName(*key))
                continue
            log = item.partition.log
            part = FetchPart(
                topic_id=key[0],
                partition=key[1],
                leader_epoch=item.leader_epoch,
                last_fetched_epoch=log.last_fetched_epoch,
                fetch_offset=log.log_end_offset,
                synced_end=log.counted_end,
                log_start_offset=log.log_start_offset,
                max_bytes=part_bytes,
            )
            if listed.get(key) != part:
                listed[key] = part
                parts.append(part)
        return tuple(parts), tuple(forgotten)

    def sent(self, request: FetchRequest, correlation_id: int, now_ms: int) -> None:
        asked = {
            (part.topic_id, part.partition): (part.leader_epoch, part.fetch_offset)
            for part in request.parts
        }
        self.outstanding = Round(correlation_id, request.fetch_round, now_ms, asked)

    def asked(self, round_: Round, key: PartitionKey) -> tuple[int, int] | None:
        """Leader epoch and fetch offset that an answer to the round speaks of, each once."""
        asked = round_.asked.pop(key, None)
        if asked is None and self.session_id != NO_SESSION and key in self.listed:
            part = self.listed[key]
            asked = (part.leader_epoch, part.fetch_offset)
        return asked

    def take_answer(self, correlation_id: int, response: FetchResponse) -> Round | None:
        """The round that this answers; None for an answer to a round that was replaced, or to one
        that did not fit the leader's session."""
        round_ = self.outstanding
        if round_ is None or round_.correlation_id != correlation_id:
            return None
        self.outstanding = None
        self.echo = max(self.echo, response.counter)
        if response.session_lost:
            self.lose_round()
            return None
        return round_

    def settle(self, item: Followed, outcome: Outcome, retry_at_ms: int) -> None:
        """Note what became of a partition. One that brought bytes goes behind the others, else a
        few busy ones would fill every answer."""
        key = item.partition.key
        if outcome is Outcome.APPENDED:
            self.followed[key] = self.followed.pop(key)
        item.state = NEXT_STATE[item.state, outcome]
        item.retry_at_ms = retry_at_ms
        if item.state is not FetchState.FETCHING:
            self.resting[key] = None
        self.unsynced[key] = None
        self.changed[key] = None


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
