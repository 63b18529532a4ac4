"""How the log travels: a leader's appends and their answers, commit, heartbeats, check-quorum.

Invariants: a follower confirms only what is on its disk, a leader counts itself only for what is
on its own, and only entries of the leader's own term are committed by counting.
"""

from __future__ import annotations

from raft import append_answers, election, quorum, snapshots
from raft.messages import AppendEntries, AppendEntriesResponse
from raft.progress import Progress
from raft.state import RaftState
from raft.types import Entry, Role


def on_leader_tick(state: RaftState) -> None:
    """Steps down when no majority answered for `check_quorum_ms`; else heartbeats when due."""
    if state.now_ms >= quorum_deadline_ms(state):
        election.become_follower(state, state.term, leader_id=None)
    elif state.now_ms >= state.heartbeat_deadline_ms:
        state.heartbeat_deadline_ms = state.now_ms + state.config.heartbeat_ms
        for progress in state.progress_by_voter.values():
            progress.heartbeat_is_due = True


def quorum_deadline_ms(state: RaftState) -> int:
    """When this leader must step down unless more followers answer. It always hears itself."""
    contact_ms_by_voter = {
        voter: progress.contact_ms for voter, progress in state.progress_by_voter.items()
    }
    contact_ms_by_voter[state.config.node_id] = state.now_ms
    majority_contact_ms = quorum.committed_index(state.config.voter_ids, contact_ms_by_voter)
    return majority_contact_ms + state.config.check_quorum_ms


def queue_appends(state: RaftState) -> None:
    """Queue what every follower may be sent now: once per Ready, however many proposals came."""
    for voter_id, progress in state.progress_by_voter.items():
        if progress.next_index <= state.log.base_index:
            snapshots.queue_chunk(state, voter_id, progress)
        elif progress.is_probing:
            if progress.heartbeat_is_due or not progress.probe_is_out:
                progress.probe_is_out = True
                _send_append(state, voter_id, progress, ())
        else:
            _send_ahead(state, voter_id, progress)
        progress.heartbeat_is_due = False


def _send_ahead(state: RaftState, voter_id: int, progress: Progress) -> None:
    """Entries without waiting for answers; an empty append if only a heartbeat or the commit index
    is owed. News of the commit index wait while the window is full: nobody seems to listen."""
    has_sent = False
    while (
        progress.next_index <= state.log.last_index
        and len(progress.in_flight) < state.config.in_flight_appends_max
    ):
        entries = state.log.slice_bytes(progress.next_index, state.config.append_bytes_max)
        _send_append(state, voter_id, progress, entries)
        progress.next_index = entries[-1].index + 1
        progress.in_flight.append(entries[-1].index)
        has_sent = True
    has_commit_news = (
        min(state.log.commit_index, progress.next_index - 1) > progress.sent_commit_index
        and len(progress.in_flight) < state.config.in_flight_appends_max
    )
    if not has_sent and (progress.heartbeat_is_due or has_commit_news):
        _send_append(state, voter_id, progress, ())


def _send_append(
    state: RaftState, voter_id: int, progress: Progress, entries: tuple[Entry, ...]
) -> None:
    prev_index = progress.next_index - 1
    prev_term = state.log.term_at(prev_index)
    assert prev_term is not None, "the follower needs entries that this log no longer has"
    voter = state.peer(voter_id)
    if not progress.is_probing:
        progress.sent_commit_index = min(state.log.commit_index, prev_index + len(entries))
    state.send(
        AppendEntries(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=voter.node_id,
            to_disk_id=voter.disk_id,
            term=state.term,
            prev_index=prev_index,
            prev_term=prev_term,
            entries=entries,
            commit_index=state.log.commit_index,
        )
    )


def on_append_entries(state: RaftState, request: AppendEntries) -> None:
    """Paper 5.3. A leader of a lower term is told the present one, so that it steps down."""
    if request.term < state.term:
        append_answers.refuse(state, request, prev_index=0, hint=(None, 0))
        return
    election.hear_leader(state, request.term, request.from_id)
    if request.prev_index < state.log.base_index:
        # What it asks about is committed here and gone: both logs agree there.
        append_answers.accept(state, request, state.log.base_index)
        return
    if not state.log.matches(request.prev_index, request.prev_term):
        hint = state.log.conflict_hint(request.prev_index)
        append_answers.refuse(state, request, prev_index=request.prev_index, hint=hint)
        return
    state.log.store(request.prev_index, request.entries)
    # What follows this message's entries in our log may be another leader's, so that the commit
    # index is believed no further than the message itself reaches.
    match_index = request.prev_index + len(request.entries)
    state.log.commit_to(min(request.commit_index, match_index))
    append_answers.accept(state, request, match_index)


def on_append_entries_response(state: RaftState, response: AppendEntriesResponse) -> None:
    """Any answer of the present term is a sign of life, also a refusal."""
    if response.term > state.term:
        election.become_follower(state, response.term, leader_id=None)
        return
    if response.term < state.term or state.role is not Role.LEADER:
        return
    progress = state.progress_by_voter[response.from_id]
    progress.contact_ms = state.now_ms
    if response.accepted:
        assert response.match_index <= state.log.last_index
        progress.on_accepted(response.match_index)
        maybe_commit(state)
    elif not progress.is_stale_refusal(response.prev_index):
        progress.on_refused(
            state.log.next_after_conflict(
                response.prev_index, response.conflict_term, response.conflict_index
            )
        )


def maybe_commit(state: RaftState) -> None:
    """Paper 5.4.2: an entry of an older term is on a majority in figure 8 too, and is overwritten
    there; it is committed only together with an entry of this leader's own term above it."""
    index = quorum.committed_index(state.config.voter_ids, match_index_by_voter(state))
    if index > state.log.commit_index and state.log.term_at(index) == state.term:
        state.log.commit_to(index)


def match_index_by_voter(state: RaftState) -> dict[int, int]:
    """How far every voter's disk agrees with this leader's log, its own disk included."""
    match_index = {
        voter: progress.match_index for voter, progress in state.progress_by_voter.items()
    }
    match_index[state.config.node_id] = state.log.durable_index
    return match_index


def on_durable(state: RaftState) -> None:
    """The leader's own log counts from here on like a follower's answer."""
    if state.role is Role.LEADER:
        maybe_commit(state)
