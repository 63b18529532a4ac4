"""Who leads: timeouts, pre-votes, votes, and every change of role.

Invariants: at most one leader per term (a voter votes once per term and its vote is on disk before
it is told or counted), and no voter that hears a living leader helps to depose it.
"""

from __future__ import annotations

from raft import quorum
from raft.messages import (
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.progress import Progress
from raft.quorum import VoteResult
from raft.state import RaftState
from raft.types import HardState, Role


def draw_election_timeout(state: RaftState) -> None:
    """A new random timeout, from now on (paper 5.2)."""
    low, high = state.config.election_timeout_ms_min, state.config.election_timeout_ms_max
    state.election_timeout_ms = state.draw(low, high)
    assert low <= state.election_timeout_ms <= high
    restart_election_timer(state)


def restart_election_timer(state: RaftState) -> None:
    state.election_deadline_ms = state.now_ms + state.election_timeout_ms


def hears_a_leader(state: RaftState) -> bool:
    """Thesis 4.2.3: a leader was heard within the minimum election timeout. A leader hears itself,
    as long as check-quorum leaves it in office."""
    if state.role is Role.LEADER:
        return True
    silence_ms = state.now_ms - state.leader_contact_ms
    return silence_ms < state.config.election_timeout_ms_min


def become_follower(state: RaftState, term: int, leader_id: int | None) -> None:
    """Of a new term, or of the present one: then term and vote stay as they are, since a vote
    that was forgotten on stepping down could be given a second time."""
    assert term >= state.term
    was_leader = state.role is Role.LEADER
    if term > state.term:
        _enter_term(state, term)
    state.role = Role.FOLLOWER
    state.leader_id = leader_id
    state.granted_by_voter.clear()
    state.progress_by_voter.clear()
    state.term_start_index = None
    if was_leader:
        draw_election_timeout(state)


def _enter_term(state: RaftState, term: int) -> None:
    state.term = term
    state.voted_for = None
    # Promises that were waiting for a sync belong to a term that is over: nobody can use them,
    # and the log entries they speak of may be cut off before they ever reach the disk.
    state.messages_after_durable.clear()


def become_pre_candidate(state: RaftState) -> None:
    """Persists and raises nothing: a voter cut off from the others comes back with its old term
    (thesis 9.6)."""
    assert state.role is not Role.LEADER
    become_follower(state, state.term, leader_id=None)
    state.role = Role.PRE_CANDIDATE
    state.granted_by_voter[state.config.node_id] = True
    draw_election_timeout(state)
    for voter in state.config.peers:
        state.send(
            PreVoteRequest(
                from_id=state.config.node_id,
                from_disk_id=state.config.disk_id,
                to_id=voter.node_id,
                to_disk_id=voter.disk_id,
                term=state.term,
                last_index=state.log.last_index,
                last_term=state.log.last_term,
            )
        )
    _decide(state)


def on_pre_vote_request(state: RaftState, request: PreVoteRequest) -> None:
    if hears_a_leader(state):
        return
    _answer_pre_vote(
        state,
        request,
        granted=request.term >= state.term
        and state.log.is_up_to_date(request.last_index, request.last_term),
    )


def _answer_pre_vote(state: RaftState, request: PreVoteRequest, granted: bool) -> None:
    state.send(
        PreVoteResponse(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=request.from_id,
            to_disk_id=request.from_disk_id,
            term=state.term,
            asked_term=request.term,
            granted=granted,
        )
    )


def on_pre_vote_response(state: RaftState, response: PreVoteResponse) -> None:
    if response.term > state.term:
        become_follower(state, response.term, leader_id=None)
        return
    if state.role is Role.PRE_CANDIDATE and response.asked_term == state.term:
        state.granted_by_voter[response.from_id] = response.granted
        _decide(state)


def become_candidate(state: RaftState, leadership_transfer: bool) -> None:
    """Paper 5.2. The own vote counts in `on_durable`, not here: before that a crash would forget
    it, and the voter could vote for another in the same term."""
    assert state.role is not Role.LEADER
    become_follower(state, state.term, leader_id=None)
    _enter_term(state, state.term + 1)
    state.role = Role.CANDIDATE
    state.voted_for = state.config.node_id
    draw_election_timeout(state)
    for voter in state.config.peers:
        state.send(
            VoteRequest(
                from_id=state.config.node_id,
                from_disk_id=state.config.disk_id,
                to_id=voter.node_id,
                to_disk_id=voter.disk_id,
                term=state.term,
                last_index=state.log.last_index,
                last_term=state.log.last_term,
                leadership_transfer=leadership_transfer,
            )
        )


def on_vote_request(state: RaftState, request: VoteRequest) -> None:
    """Paper 5.2, 5.4.1. A voter that hears a leader neither answers nor takes the term."""
    if hears_a_leader(state) and not request.leadership_transfer:
        return
    if request.term > state.term:
        become_follower(state, request.term, leader_id=None)
    granted = (
        request.term == state.term
        and state.voted_for in (None, request.from_id)
        and state.log.is_up_to_date(request.last_index, request.last_term)
    )
    if granted:
        state.voted_for = request.from_id
        restart_election_timer(state)
    state.send(
        VoteResponse(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=request.from_id,
            to_disk_id=request.from_disk_id,
            term=state.term,
            granted=granted,
        )
    )


def on_vote_response(state: RaftState, response: VoteResponse) -> None:
    if response.term > state.term:
        become_follower(state, response.term, leader_id=None)
    elif response.term == state.term and state.role is Role.CANDIDATE:
        state.granted_by_voter[response.from_id] = response.granted
        _decide(state)


def hear_leader(state: RaftState, term: int, leader_id: int) -> None:
    """A message that only the leader of `term`, not below ours, sends: it is the leader."""
    if term > state.term or state.role is not Role.FOLLOWER:
        assert state.role is not Role.LEADER or term > state.term, "two leaders in one term"
        become_follower(state, term, leader_id=leader_id)
    assert state.leader_id in (None, leader_id), "two leaders in one term"
    state.leader_id = leader_id
    state.leader_contact_ms = state.now_ms
    restart_election_timer(state)


def on_durable(state: RaftState) -> None:
    """The hard state reached the disk: a candidate's vote for itself counts from now on."""
    own_vote = HardState(state.term, state.config.node_id)
    if state.role is Role.CANDIDATE and state.durable_hard_state == own_vote:
        state.granted_by_voter[state.config.node_id] = True
        _decide(state)


def hand_over(state: RaftState) -> None:
    """A leader that is about to go asks its best follower to be elected, once that one has the
    whole log: without it the follower could not win. Safety needs nothing new, it is an election
    like any other."""
    progress = state.progress_by_voter
    if not progress:
        return
    best = max(state.config.peers, key=lambda voter: progress[voter.node_id].match_index)
    if progress[best.node_id].match_index == state.log.last_index:
        state.send(
            TimeoutNow(
                from_id=state.config.node_id,
                from_disk_id=state.config.disk_id,
                to_id=best.node_id,
                to_disk_id=best.disk_id,
                term=state.term,
            )
        )


def on_timeout_now(state: RaftState, message: TimeoutNow) -> None:
    """The leader hands over: no pre-vote, and the voters are told why they are asked although
    they have just heard a leader."""
    if message.term > state.term:
        become_follower(state, message.term, leader_id=message.from_id)
    if message.term == state.term and state.leader_id == message.from_id:
        become_candidate(state, leadership_transfer=True)


def _decide(state: RaftState) -> None:
    result = quorum.vote_result(state.config.voter_ids, state.granted_by_voter)
    if result is VoteResult.LOST:
        become_follower(state, state.term, leader_id=None)
    elif result is VoteResult.WON and state.role is Role.PRE_CANDIDATE:
        become_candidate(state, leadership_transfer=False)
    elif result is VoteResult.WON:
        become_leader(state)


def become_leader(state: RaftState) -> None:
    """Starts with an empty entry of its own term: only such an entry can be committed by counting,
    and it commits everything before it (paper 5.4.2 and 8)."""
    assert state.role is Role.CANDIDATE
    next_index = state.log.last_index + 1
    state.role = Role.LEADER
    state.leader_id = state.config.node_id
    state.granted_by_voter.clear()
    for voter in state.config.peers:
        state.progress_by_voter[voter.node_id] = Progress(next_index, state.now_ms)
    state.heartbeat_deadline_ms = state.now_ms + state.config.heartbeat_ms
    state.term_start_index = state.log.append_own(state.term, b"")
