"""Every mutable field of a Raft node, who writes it and what holds for it.

`election`, `replication` and `node` are functions over this one object; the log keeps its own
fields (`log.py`), and so does the leader's view of each follower (`progress.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raft.log import RaftLog
from raft.messages import RaftMessage
from raft.progress import Progress
from raft.ready import Ready, waits_for_durability
from raft.types import HardState, RaftConfig, Role, Snapshot, Voter


@dataclass(slots=True)
class Incoming:
    """The beginning of a snapshot that the leader of `leader_term` sends: another one may have made
    other bytes of the same entries."""

    leader_term: int
    index: int
    term: int
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class RaftState:
    config: RaftConfig
    log: RaftLog
    # draw(low, high) gives an integer of [low, high]; the only source of chance.
    draw: Callable[[int, int], int]
    # The latest time anybody told; written by node, never goes back.
    now_ms: int

    # Grows only. Written by election.become_follower and become_candidate.
    term: int
    # Whom this voter voted for in `term`; from None to one id and no further within a term.
    # Written by election.on_vote_request, become_candidate; reset with a new term.
    voted_for: int | None
    # (term, voted_for) as it stands on disk. Written by node.advance.
    durable_hard_state: HardState
    role: Role = Role.FOLLOWER
    # The leader of `term` as far as known; itself for a leader. Never two in one term.
    leader_id: int | None = None

    # Verdicts of this candidacy or pre-candidacy; empty in the other roles. Written by election.
    granted_by_voter: dict[int, bool] = field(default_factory=dict)
    # One per other voter while leading, else empty. Written by become_leader, then replication.
    progress_by_voter: dict[int, Progress] = field(default_factory=dict)
    # Index of this leader's first own entry; None when not leading. Written by become_leader.
    term_start_index: int | None = None

    # The present random timeout, and when it ends. Meaningless for a leader. Written by election.
    election_timeout_ms: int = 0
    election_deadline_ms: int = 0
    # When a message of a legitimate leader last came; the start counts as one. While it is
    # younger than the minimum election timeout, nobody else gets a vote.
    leader_contact_ms: int = 0
    # When a leader next owes everybody a sign of life. Written by replication.
    heartbeat_deadline_ms: int = 0

    # Emptied into each Ready. Written by send.
    messages_now: list[RaftMessage] = field(default_factory=list)
    messages_after_durable: list[RaftMessage] = field(default_factory=list)
    # Stands for the entries before the log's first. Written by node and snapshots.
    snapshot: Snapshot | None = None
    # The same, while the driver does not yet know that it is to be stored. Written by snapshots.
    installing: Snapshot | None = None
    # What has arrived of a leader's snapshot. Written by snapshots.
    incoming: Incoming | None = None
    # The Ready whose advance is awaited. Written by node.
    outstanding: Ready | None = None

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.voted_for)

    def send(self, message: RaftMessage) -> None:
        """Queue `message` for the next Ready, behind durability if it promises something."""
        hard_state_is_durable = self.hard_state == self.durable_hard_state
        if waits_for_durability(message, hard_state_is_durable, self.log.durable_index):
            self.messages_after_durable.append(message)
        else:
            self.messages_now.append(message)

    def peer(self, node_id: int) -> Voter:
        """The voter with this id; only ever asked for ids that are voters."""
        return next(voter for voter in self.config.voters if voter.node_id == node_id)
