"""RaftNode: one voter as a state machine without I/O, clock or chance of its own. Dispatch only.

The driver's part: in every turn call `on_pause` first if the process was held up, then `step` for
*every* message that has arrived, and only then `tick`: a heartbeat that is already in the inbox
must win against the election timeout. Then `ready`, with the obligations of `ready.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raft import election, replication, snapshots
from raft.log import RaftLog
from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVoteRequest,
    PreVoteResponse,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.ready import Ready
from raft.state import RaftState
from raft.types import Entry, HardState, RaftConfig, Role, Snapshot, Voter


class RaftNode:
    """A voter, started or restarted as a follower.

    `hard_state`, `snapshot` and the `entries` behind it are what the disk holds; they must be
    *durable*, not merely readable, before they are given here. `draw(low, high)` returns an integer
    of [low, high]. Times are milliseconds of any clock that does not go back. Raises ValueError
    when the stored log is damaged or ahead of the stored term.
    """

    def __init__(
        self,
        config: RaftConfig,
        hard_state: HardState,
        entries: Iterable[Entry],
        draw: Callable[[int, int], int],
        now_ms: int,
        snapshot: Snapshot | None = None,
    ) -> None:
        base = (0, 0) if snapshot is None else (snapshot.index, snapshot.term)
        log = RaftLog(entries, *base)
        if log.last_term > hard_state.term:
            raise ValueError(
                f"Raft state is damaged: the log ends in term {log.last_term}, "
                f"the stored term is {hard_state.term}"
            )
        # The start counts as contact with a leader: who has just come back knows nothing, and
        # its vote could depose a leader that all others hear.
        self._state = RaftState(
            config=config,
            log=log,
            draw=draw,
            now_ms=now_ms,
            term=hard_state.term,
            voted_for=hard_state.voted_for,
            durable_hard_state=hard_state,
            leader_contact_ms=now_ms,
            snapshot=snapshot,
        )
        election.draw_election_timeout(self._state)
        if not config.peers:
            self._state.election_deadline_ms = now_ms

    # -- inputs ------------------------------------------------------------------------------

    def step(self, message: RaftMessage, now_ms: int) -> bool:
        """Take in one message; never fires a timer. False: it was not for this voter, or its
        sender is none (an id with another disk id is somebody else), and nothing happened."""
        self._advance_clock(now_ms)
        state = self._state
        sender = Voter(message.from_id, message.from_disk_id)
        target = Voter(message.to_id, message.to_disk_id)
        own = Voter(state.config.node_id, state.config.disk_id)
        if target != own or sender == own or sender not in state.config.voters:
            return False
        match message:
            case PreVoteRequest():
                election.on_pre_vote_request(state, message)
            case PreVoteResponse():
                election.on_pre_vote_response(state, message)
            case VoteRequest():
                election.on_vote_request(state, message)
            case VoteResponse():
                election.on_vote_response(state, message)
            case AppendEntries():
                replication.on_append_entries(state, message)
            case AppendEntriesResponse():
                replication.on_append_entries_response(state, message)
            case InstallSnapshot():
                snapshots.on_install_snapshot(state, message)
            case InstallSnapshotResponse():
                snapshots.on_install_snapshot_response(state, message)
            case TimeoutNow():
                election.on_timeout_now(state, message)
        return True

    def tick(self, now_ms: int) -> None:
        """Fire what is due. Call it after `step` of everything that has arrived."""
        self._advance_clock(now_ms)
        state = self._state
        if state.role is Role.LEADER:
            replication.on_leader_tick(state)
        elif state.now_ms >= state.election_deadline_ms:
            election.become_pre_candidate(state)

    def on_pause(self, gap_ms: int, now_ms: int) -> None:
        """The process was held up for `gap_ms` until `now_ms`: nobody was silent, we were deaf.

        The election timer starts again with a new draw, and what we know of the others is as much
        younger as the pause was long. This can only delay an election or a stepping down.
        """
        self._advance_clock(now_ms)
        state = self._state
        state.leader_contact_ms = min(state.now_ms, state.leader_contact_ms + gap_ms)
        for progress in state.progress_by_voter.values():
            progress.contact_ms = min(state.now_ms, progress.contact_ms + gap_ms)
        election.draw_election_timeout(state)

    def propose(self, data: bytes) -> int | None:
        """Append `data` (not empty) to the log and return its index, or None when not leader.

        The entry is committed when it comes back in `Ready.committed` *with the same term*; until
        then its fate is unknown.
        """
        assert data, "the empty entry is the leader's own"
        state = self._state
        if state.role is not Role.LEADER:
            return None
        return state.log.append_own(state.term, data)

    def hand_over(self) -> None:
        """Let the voter with most of the log stand for election now (thesis 3.10); nothing when
        not leader. It may fail, and then this leader stays: ask again."""
        if self._state.role is Role.LEADER:
            election.hand_over(self._state)

    def compact(self, snapshot: Snapshot) -> None:
        """`snapshot` is durable, with everything behind it: what it stands for may go. It must be
        of entries that were delivered; no Ready may be outstanding."""
        state = self._state
        assert state.outstanding is None, "compaction beside a Ready"
        assert state.log.term_at(snapshot.index) == snapshot.term, "a snapshot of another log"
        state.log.compact_to(snapshot.index)
        state.snapshot = snapshot

    # -- outputs -----------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """What has to be done now; None when there is nothing or one Ready is outstanding."""
        state = self._state
        if state.outstanding is not None:
            return None
        replication.queue_appends(state)
        hard_state = None if state.hard_state == state.durable_hard_state else state.hard_state
        truncate_from, entries = state.log.take_unwritten()
        snapshot, state.installing = state.installing, None
        ready = Ready(
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
            truncate_from=truncate_from,
            messages_now=tuple(state.messages_now),
            messages_after_durable=tuple(state.messages_after_durable),
            committed=state.log.take_committed(),
            must_sync=hard_state is not None or bool(entries) or snapshot is not None,
        )
        state.messages_now.clear()
        state.messages_after_durable.clear()
        is_empty = not (
            ready.must_sync or ready.messages_now or ready.messages_after_durable or ready.committed
        )
        if is_empty:
            return None
        state.outstanding = ready
        return ready

    def messages_beside_sync(self) -> tuple[RaftMessage, ...]:
        """What promises nothing and may leave while a Ready is outstanding (also when none is)."""
        state = self._state
        replication.queue_appends(state)
        messages = tuple(state.messages_now)
        state.messages_now.clear()
        return messages

    def advance(self, ready: Ready) -> None:
        """Everything in `ready` that must be durable is."""
        state = self._state
        assert ready is state.outstanding, "advance of a Ready that is not the outstanding one"
        state.outstanding = None
        if ready.hard_state is not None:
            state.durable_hard_state = ready.hard_state
        state.log.mark_durable()
        election.on_durable(state)
        replication.on_durable(state)

    def next_deadline_ms(self) -> int:
        """When `tick` has something to do at the latest."""
        state = self._state
        if state.role is Role.LEADER:
            return min(state.heartbeat_deadline_ms, replication.quorum_deadline_ms(state))
        return state.election_deadline_ms

    # -- what is known -----------------------------------------------------------------------

    @property
    def config(self) -> RaftConfig:
        return self._state.config

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def is_leader(self) -> bool:
        return self._state.role is Role.LEADER

    @property
    def term(self) -> int:
        return self._state.term

    @property
    def voted_for(self) -> int | None:
        return self._state.voted_for

    @property
    def durable_hard_state(self) -> HardState:
        """Term and vote as this voter vouches for them: synced."""
        return self._state.durable_hard_state

    @property
    def leader_id(self) -> int | None:
        """The leader of `term` as far as known; itself for a leader."""
        return self._state.leader_id

    @property
    def commit_index(self) -> int:
        return self._state.log.commit_index

    @property
    def last_index(self) -> int:
        return self._state.log.last_index

    @property
    def base_index(self) -> int:
        """Entries up to here are gone; a snapshot stands for them."""
        return self._state.log.base_index

    @property
    def delivered_index(self) -> int:
        """How far entries, or a snapshot, were given out to be applied."""
        return self._state.log.delivered_index

    @property
    def snapshot(self) -> Snapshot | None:
        return self._state.snapshot

    @property
    def hard_state(self) -> HardState:
        return self._state.hard_state

    @property
    def durable_index(self) -> int:
        """How far this node's log is known to be on its own disk."""
        return self._state.log.durable_index

    @property
    def term_start_index(self) -> int | None:
        """Index of this leader's first own entry; when it is applied, everything that earlier
        leaders committed is applied too. None when not leader."""
        return self._state.term_start_index

    @property
    def match_index_by_voter(self) -> dict[int, int]:
        """A leader's knowledge of every voter's disk, itself included; empty when not leader."""
        return replication.match_index_by_voter(self._state) if self.is_leader else {}

    def entries(self) -> tuple[Entry, ...]:
        """The log from `base_index + 1` on, uncommitted entries included: for checks and dumps."""
        log = self._state.log
        return log.slice(log.first_index, log.last_index + 1)

    def entries_from(self, index: int, limit: int) -> tuple[Entry, ...]:
        """*Committed* entries from `index` on, at most `limit`: what may be shown to others."""
        log = self._state.log
        start_index = max(index, log.first_index)
        end_index = min(start_index + limit, log.commit_index + 1)
        return log.slice(start_index, end_index) if start_index < end_index else ()

    def _advance_clock(self, now_ms: int) -> None:
        self._state.now_ms = max(self._state.now_ms, now_ms)
