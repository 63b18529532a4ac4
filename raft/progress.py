"""What a leader knows about one follower.

Probing: where the logs agree is unknown, so one empty append at a time asks for it. Otherwise
entries are sent ahead of the answers, up to a number in flight. Lost messages need no timer: a
heartbeat names `next_index - 1`, which a follower that missed something must refuse.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Invariant: `match_index < next_index`, and `match_index` only grows within a leadership."""

    # The next entry to send; optimistic, not confirmed, unless probing.
    next_index: int
    # When this follower last answered in this term; the start of the leadership at first.
    contact_ms: int
    # Known to be on the follower's disk and equal to the leader's log.
    match_index: int = 0
    is_probing: bool = True
    # The one probe is on its way; a heartbeat repeats it.
    probe_is_out: bool = False
    # Something has to be sent even if there is no news.
    heartbeat_is_due: bool = False
    # Highest commit index that this follower was told.
    sent_commit_index: int = 0
    # The snapshot that is being sent, 0 for none: how much of it has arrived, and whether the next
    # chunk is on its way.
    snapshot_index: int = 0
    snapshot_position: int = 0
    chunk_is_out: bool = False
    # Last index of every append that is sent and not answered, ascending.
    in_flight: deque[int] = field(default_factory=deque)

    def on_accepted(self, match_index: int) -> None:
        """The follower's log is confirmed up to `match_index`."""
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, self.match_index + 1)
        while self.in_flight and self.in_flight[0] <= self.match_index:
            self.in_flight.popleft()
        if self.is_probing:
            self.is_probing = False
            self.next_index = self.match_index + 1

    def begin_snapshot(self, index: int) -> None:
        """The entries that this follower lacks are gone."""
        self.snapshot_index = index
        self.snapshot_position = 0
        self.chunk_is_out = False
        self.in_flight.clear()

    def is_stale_refusal(self, prev_index: int) -> bool:
        """A refusal of something that was confirmed since, or of another probe than the last."""
        if self.is_probing:
            return prev_index != self.next_index - 1
        return prev_index <= self.match_index

    def on_refused(self, next_index: int) -> None:
        """Ask again at `next_index`; nothing below the confirmed part is ever asked for."""
        self.next_index = max(self.match_index + 1, next_index)
        self.is_probing = True
        self.probe_is_out = False
        self.in_flight.clear()
