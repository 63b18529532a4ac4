"""How a node that is not a voter learns committed metadata: it pulls from any voter.

A stale voter is late, never wrong: it gives only what it knows as committed. After a silence the
next voter is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.events import Plane, ResetLink
from broker.outbox import Outbox
from broker.wire.errors import ErrorCode
from broker.wire.messages import MetadataFetchRequest, MetadataFetchResponse, SnapshotPart
from raft.types import Entry, Snapshot

WAIT_MS = 500
RETRY_MS = 100
MAX_BYTES = 1_048_576


@dataclass(slots=True)
class MetadataFeed:
    cluster_id: str
    node_id: int
    voters: tuple[int, ...]
    outbox: Outbox
    timeout_ms: int
    next_index: int = 1
    asked: int = 0
    """Position in `voters` of the one that is asked."""
    snapshot_index: int = 0
    snapshot: bytearray = field(default_factory=bytearray)
    """The beginning of the snapshot that the voter asked gives instead of entries."""
    correlation_id: int | None = None
    sent_at_ms: int = 0
    not_before_ms: int = 0

    def poll(self, now_ms: int) -> None:
        """Keep one request outstanding; replace one that got no answer."""
        if self.correlation_id is None and now_ms < self.not_before_ms:
            return
        if self.correlation_id is not None:
            if now_ms - self.sent_at_ms < self.timeout_ms + WAIT_MS:
                return
            self.outbox.add(ResetLink(self.voters[self.asked], Plane.CONTROLLER))
            self._ask_next_voter()
        request = MetadataFetchRequest(
            self.cluster_id,
            self.node_id,
            self.next_index,
            WAIT_MS,
            MAX_BYTES,
            self.snapshot_index,
            len(self.snapshot),
        )
        voter = self.voters[self.asked]
        self.correlation_id = self.outbox.send(voter, Plane.CONTROLLER, request)
        self.sent_at_ms = now_ms

    def _ask_next_voter(self) -> None:
        self.asked = (self.asked + 1) % len(self.voters)
        self._forget_snapshot()

    def _forget_snapshot(self) -> None:
        self.snapshot_index = 0
        self.snapshot = bytearray()

    def on_response(
        self, correlation_id: int, response: MetadataFetchResponse, now_ms: int
    ) -> tuple[Entry | Snapshot, ...]:
        """The new entries, in order and each once, or a snapshot in place of them."""
        if correlation_id != self.correlation_id:
            return ()
        self.correlation_id = None
        if response.error is not ErrorCode.NONE:
            self._ask_next_voter()
            self.not_before_ms = now_ms + RETRY_MS
            return ()
        if response.snapshot is not None:
            return self._on_part(response.snapshot)
        self._forget_snapshot()
        fresh = tuple(
            Entry(entry.index, entry.term, entry.data)
            for entry in response.entries
            if entry.index >= self.next_index
        )
        if fresh:
            assert fresh[0].index == self.next_index, (fresh[0].index, self.next_index)
            self.next_index = fresh[-1].index + 1
        return fresh

    def _on_part(self, part: SnapshotPart) -> tuple[Snapshot, ...]:
        if part.index < self.next_index:
            return ()
        if part.index != self.snapshot_index or part.position != len(self.snapshot):
            self._forget_snapshot()
            if part.position:
                return ()  # of another one than we have begun: ask for its beginning
            self.snapshot_index = part.index
        self.snapshot += part.data
        if len(self.snapshot) < part.size_bytes:
            return ()
        whole = Snapshot(part.index, part.term, bytes(self.snapshot))
        self.next_index = part.index + 1
        self._forget_snapshot()
        return (whole,)

    def on_unsent(self, correlation_id: int, now_ms: int) -> None:
        """The voter asked is not connected: try the next one soon."""
        if correlation_id == self.correlation_id:
            self.correlation_id = None
            self._ask_next_voter()
            self.not_before_ms = now_ms + RETRY_MS

    def next_deadline_ms(self) -> int:
        if self.correlation_id is None:
            return self.not_before_ms
        return self.sent_at_ms + self.timeout_ms + WAIT_MS
