"""The rules (a) to (i) of `raft/README.md`, where the paper leaves a choice or says too little."""

from __future__ import annotations

from typing import Any

import pytest

from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVoteRequest,
    PreVoteResponse,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.lone import HIGH, LOW, Lone
from tests.raft.messages import entries_of, said

# -- (a) who hears a leader helps nobody to depose it ----------------------------------------------


@pytest.mark.parametrize("kind", [PreVoteRequest, VoteRequest])
def test_a_voter_that_hears_a_leader_ignores_candidates(kind: type[RaftMessage]) -> None:
    lone = Lone()
    lone.hear(said(AppendEntries, 2, 1, term=1))
    lone.sent()
    lone.now_ms += LOW - 1
    lone.hear(said(kind, 3, 1, term=7))
    assert lone.sent() == []
    assert (lone.node.term, lone.node.voted_for, lone.node.leader_id) == (1, None, 2)


@pytest.mark.parametrize("kind", [PreVoteRequest, VoteRequest])
def test_a_leader_hears_itself(kind: type[RaftMessage]) -> None:
    lone = Lone()
    lone.become_leader()
    lone.hear(said(kind, 3, 1, term=7, last_index=9, last_term=6))
    assert lone.sent() == []
    assert lone.node.is_leader


@pytest.mark.parametrize("kind", [PreVoteRequest, VoteRequest])
def test_a_voter_that_has_lost_its_leader_answers(kind: type[RaftMessage]) -> None:
    lone = Lone(draw=lambda low, high: high)
    lone.hear(said(AppendEntries, 2, 1, term=1))
    lone.sent()
    lone.now_ms += LOW
    lone.hear(said(kind, 3, 1, term=7))
    (answer,) = lone.sent()
    assert isinstance(answer, PreVoteResponse | VoteResponse)
    assert answer.granted


def test_a_leadership_transfer_is_excepted() -> None:
    lone = Lone()
    lone.hear(said(AppendEntries, 2, 1, term=1))
    lone.sent()
    lone.hear(said(VoteRequest, 3, 1, term=2, leadership_transfer=True))
    assert lone.sent() == [said(VoteResponse, 1, 3, term=2)]


# -- (b) a pre-vote persists and bumps nothing -----------------------------------------------------


def test_b_asking_for_a_pre_vote_changes_nothing_that_is_stored() -> None:
    lone = Lone(hard_state=HardState(3, 2))
    lone.now_ms = HIGH
    lone.node.tick(lone.now_ms)
    ready = lone.take_ready()
    assert lone.node.role is Role.PRE_CANDIDATE
    assert (ready.hard_state, ready.must_sync) == (None, False)
    assert [m.term for m in ready.messages_now] == [3, 3]


def test_b_granting_a_pre_vote_changes_nothing_that_is_stored() -> None:
    lone = Lone(hard_state=HardState(3, 2))
    lone.now_ms = LOW - 1
    lone.node.tick(lone.now_ms)
    lone.now_ms = LOW
    deadline_ms = lone.node.next_deadline_ms()
    lone.node.step(said(PreVoteRequest, 3, 1, term=8), lone.now_ms)
    lone.node.step(said(PreVoteRequest, 2, 1, term=8), lone.now_ms)
    ready = lone.take_ready()
    assert (ready.hard_state, ready.must_sync) == (None, False)
    assert ready.messages_now == tuple(
        said(PreVoteResponse, 1, n, term=3, asked_term=8) for n in (3, 2)
    )
    assert (lone.node.term, lone.node.voted_for) == (3, 2)
    assert lone.node.next_deadline_ms() == deadline_ms


def test_b_a_voter_that_was_cut_off_comes_back_with_its_old_term() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    cluster.cut(3, 1)
    cluster.cut(3, 2)
    cluster.run(20_000)
    cluster.cut_links.clear()
    cluster.run(2_000)
    assert [(n, cluster.node(n).term) for n in cluster.leaders] == [(1, 1)]


def test_b_an_answer_to_another_pre_vote_does_not_count() -> None:
    lone = Lone(hard_state=HardState(3, None))
    lone.wait(LOW)
    lone.hear(said(PreVoteResponse, 2, 1, term=2, asked_term=2))
    assert lone.node.term == 3
    lone.hear(said(PreVoteResponse, 2, 1, term=2, asked_term=3))
    assert lone.node.role is Role.CANDIDATE


def test_b_a_refused_pre_candidate_learns_the_term() -> None:
    lone = Lone(hard_state=HardState(3, None))
    lone.wait(LOW)
    lone.hear(said(PreVoteResponse, 2, 1, term=5, asked_term=3, granted=False))
    assert (lone.node.role, lone.node.term) == (Role.FOLLOWER, 5)


# -- (c) a leader of a lower term is told ----------------------------------------------------------


def test_c_an_append_of_a_lower_term_is_answered_with_the_own_term() -> None:
    lone = Lone(hard_state=HardState(4, None))
    lone.hear(said(AppendEntries, 2, 1, term=3))
    assert lone.sent() == [said(AppendEntriesResponse, 1, 2, term=4, accepted=False)]
    assert lone.node.leader_id is None


def test_c_that_leader_steps_down() -> None:
    lone = Lone()
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=4, accepted=False))
    assert (lone.node.role, lone.node.term, lone.node.leader_id) == (Role.FOLLOWER, 4, None)
    assert lone.node.match_index_by_voter == {}


def test_c_a_voter_with_a_higher_term_gets_back_into_the_cluster() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    cluster.crash(3)
    cluster.hosts[3].disk.hard_state = HardState(9, 3)
    cluster.start(3)
    cluster.run(3_000)
    (leader,) = cluster.leaders
    assert {cluster.node(n).term for n in (1, 2, 3)} == {10}
    assert {cluster.node(n).leader_id for n in (1, 2, 3)} == {leader}


# -- (d) check-quorum ------------------------------------------------------------------------------


def test_d_a_leader_that_no_majority_answers_steps_down_in_time() -> None:
    lone = Lone(check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1499)
    assert lone.node.is_leader
    assert lone.node.next_deadline_ms() == lone.now_ms + 1
    lone.wait(1)
    assert lone.node.role is Role.FOLLOWER
    assert lone.node.propose(b"x") is None


@pytest.mark.parametrize("fields", [{"match_index": 1}, {"accepted": False, "prev_index": 1}])
def test_d_any_answer_of_the_term_is_a_sign_of_life(fields: dict[str, Any]) -> None:
    lone = Lone(check_quorum_ms=1500)
    lone.become_leader()
    for _ in range(20):
        lone.wait(1000)
        lone.hear(said(AppendEntriesResponse, 3, 1, term=1, **fields))
    assert lone.node.is_leader


def test_d_an_answer_of_an_older_term_is_none() -> None:
    lone = Lone(hard_state=HardState(4, None), check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1000)
    lone.hear(said(AppendEntriesResponse, 3, 1, term=4, match_index=0))
    lone.wait(500)
    assert lone.node.role is Role.FOLLOWER


def test_d_a_single_voter_needs_no_answers() -> None:
    lone = Lone(1)
    lone.wait(0)
    lone.wait(1_000_000)
    assert lone.node.is_leader


# -- (e) stepping down keeps term and vote ---------------------------------------------------------


def test_e_stepping_down_keeps_term_and_vote() -> None:
    lone = Lone(check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1500)
    assert lone.node.role is Role.FOLLOWER
    assert (lone.node.term, lone.node.voted_for) == (1, 1)
    lone.sent()
    lone.hear(said(VoteRequest, 2, 1, term=1, last_index=9, last_term=1))
    assert lone.sent() == [said(VoteResponse, 1, 2, term=1, granted=False)]


def test_e_losing_an_election_keeps_term_and_vote() -> None:
    lone = Lone()
    lone.become_candidate()
    lone.hear(*(said(VoteResponse, n, 1, term=1, granted=False) for n in (2, 3)))
    assert lone.node.role is Role.FOLLOWER
    assert (lone.node.term, lone.node.voted_for) == (1, 1)


def test_e_a_leader_that_stepped_down_waits_a_whole_timeout() -> None:
    lone = Lone(check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1500)
    assert lone.node.next_deadline_ms() == lone.now_ms + LOW


# -- (f) the inbox before the timer ----------------------------------------------------------------


def test_f_a_message_never_fires_a_timer() -> None:
    lone = Lone()
    lone.now_ms = 10 * HIGH
    lone.hear(said(AppendEntries, 2, 1, term=1))
    lone.wait(0)
    assert lone.node.role is Role.FOLLOWER
    assert lone.sent() == [said(AppendEntriesResponse, 1, 2, term=1)]


def test_f_a_timer_that_is_late_itself_believes_the_inbox() -> None:
    """Both are due: the heartbeat in the inbox, and the timer. The driver's order decides."""
    late, hasty = Lone(), Lone()
    heartbeat = said(AppendEntries, 2, 1, term=1)
    late.now_ms = 5 * HIGH
    late.hear(heartbeat)
    late.wait(0)
    assert late.sent() == [said(AppendEntriesResponse, 1, 2, term=1)]
    hasty.wait(5 * HIGH)
    hasty.hear(heartbeat)
    assert [type(message) for message in hasty.sent()][:2] == [PreVoteRequest] * 2


# -- (g) after a restart the last contact is "just now" --------------------------------------------


@pytest.mark.parametrize("kind", [PreVoteRequest, VoteRequest])
def test_g_a_restarted_voter_votes_for_nobody_at_first(kind: type[RaftMessage]) -> None:
    lone = Lone(hard_state=HardState(3, None))
    lone.now_ms = LOW - 1
    lone.hear(said(kind, 2, 1, term=5))
    assert lone.sent() == []
    lone.now_ms = LOW
    lone.hear(said(kind, 2, 1, term=5))
    assert len(lone.sent()) == 1


def test_g_restarts_do_not_help_a_candidate_against_a_leader_that_lives() -> None:
    """Node 3 hears nothing of leader 1. Node 2 does, restarts, and must not vote for node 3."""
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    cluster.cut_links = {(1, 3)}
    cluster.run(5_000)
    cluster.crash(2)
    cluster.start(2)
    cluster.fire(3)
    cluster.settle()
    cluster.tick(1)
    cluster.settle()
    assert [(n, cluster.node(n).term) for n in cluster.leaders] == [(1, 1)]


def test_g_a_restarted_leader_does_not_lead_its_old_term() -> None:
    lone = Lone(hard_state=HardState(3, 1), entries=entries_of(3))
    assert lone.node.role is Role.FOLLOWER
    lone.hear(*(said(VoteResponse, n, 1, term=3) for n in (2, 3)))
    assert lone.node.role is Role.FOLLOWER
    lone.become_leader()
    assert lone.node.term == 4


# -- (h) commit and truncation ---------------------------------------------------------------------


def test_h_a_late_append_does_not_truncate() -> None:
    lone = Lone(entries=entries_of(1, 1, 1))
    late = said(AppendEntries, 2, 1, term=1, entries=entries_of(1), commit_index=0)
    lone.hear(late)
    assert lone.sent() == [said(AppendEntriesResponse, 1, 2, term=1, match_index=1)]
    assert lone.node.last_index == 3


def test_h_truncation_below_the_commit_index_is_impossible() -> None:
    lone = Lone()
    lone.hear(said(AppendEntries, 2, 1, term=1, entries=entries_of(1, 1), commit_index=2))
    with pytest.raises(AssertionError, match="truncation below the commit index"):
        lone.hear(said(AppendEntries, 3, 1, term=2, entries=entries_of(2)))


def test_h_the_commit_index_is_believed_as_far_as_the_message_reaches() -> None:
    lone = Lone(entries=entries_of(1, 2, 2))
    prev = {"prev_index": 1, "prev_term": 1}
    lone.hear(said(AppendEntries, 2, 1, term=3, commit_index=3, **prev))
    assert lone.node.commit_index == 1


# -- (i) one Ready, and promises after the sync ----------------------------------------------------


def test_i_at_most_one_ready_is_outstanding() -> None:
    lone = Lone()
    lone.become_leader()
    lone.node.propose(b"x")
    ready = lone.take_ready()
    lone.node.propose(b"y")
    assert lone.node.ready() is None
    lone.node.advance(ready)
    assert [entry.data for entry in lone.take_ready().entries] == [b"y"]


def test_i_only_the_outstanding_ready_can_be_advanced() -> None:
    lone = Lone()
    lone.become_leader()
    lone.node.propose(b"x")
    ready = lone.take_ready()
    lone.node.advance(ready)
    with pytest.raises(AssertionError, match="not the outstanding one"):
        lone.node.advance(ready)


def test_i_a_leader_sends_beside_its_sync_and_counts_itself_after_it() -> None:
    lone = Lone()
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=1, match_index=1))
    lone.sent()
    lone.node.propose(b"x")
    ready = lone.take_ready()
    assert lone.node.match_index_by_voter == {1: 1, 2: 1, 3: 0}
    lone.node.propose(b"y")
    beside = lone.node.messages_beside_sync()
    assert [m.entries[0].data for m in beside if isinstance(m, AppendEntries)] == [b"y"]
    lone.node.step(said(AppendEntriesResponse, 2, 1, term=1, match_index=3), lone.now_ms)
    assert lone.node.commit_index == 1
    lone.node.advance(ready)
    assert lone.node.commit_index == 2


def test_i_a_follower_confirms_an_append_after_its_sync() -> None:
    lone = Lone(hard_state=HardState(1, None))
    lone.node.step(said(AppendEntries, 2, 1, term=1, entries=entries_of(1)), 0)
    ready = lone.take_ready()
    assert ready.messages_now == ()
    assert ready.messages_after_durable == (
        said(AppendEntriesResponse, 1, 2, term=1, match_index=1),
    )
    assert lone.node.messages_beside_sync() == ()


def test_i_what_is_on_disk_already_is_confirmed_beside_a_sync() -> None:
    """A heartbeat is answered although the disk is slow, else its leader would step down."""
    lone = Lone(entries=entries_of(1))
    prev = {"prev_index": 1, "prev_term": 1}
    lone.node.step(
        said(AppendEntries, 2, 1, term=1, entries=entries_of(1, first_index=2), **prev), 0
    )
    lone.take_ready()
    lone.node.step(said(AppendEntries, 2, 1, term=1, **prev), 0)
    assert lone.node.messages_beside_sync() == (
        said(AppendEntriesResponse, 1, 2, term=1, match_index=1),
    )


def test_i_a_candidate_counts_its_own_vote_after_its_sync() -> None:
    lone = Lone()
    lone.wait(LOW)
    lone.node.step(said(PreVoteResponse, 2, 1, term=0), lone.now_ms)
    ready = lone.take_ready()
    assert ready.hard_state == HardState(1, 1)
    assert [type(m) for m in ready.messages_after_durable] == [VoteRequest, VoteRequest]
    lone.node.step(said(VoteResponse, 2, 1, term=1), lone.now_ms)
    assert lone.node.role is Role.CANDIDATE
    lone.node.advance(ready)
    assert lone.node.is_leader


def test_i_promises_of_a_term_that_is_over_are_not_kept_for_later() -> None:
    lone = Lone(hard_state=HardState(1, None))
    lone.node.step(said(AppendEntries, 2, 1, term=1, entries=entries_of(1, 1)), 0)
    lone.node.step(said(AppendEntries, 3, 1, term=2, entries=entries_of(2)), 0)
    ready = lone.take_ready()
    assert ready.entries == entries_of(2)
    assert ready.messages_after_durable == (
        said(AppendEntriesResponse, 1, 3, term=2, match_index=1),
    )


def test_i_a_sync_of_entries_that_were_cut_off_meanwhile_does_not_count() -> None:
    lone = Lone(entries=entries_of(1))
    prev = {"prev_index": 1, "prev_term": 1}
    old, new = entries_of(1, 1, 1, first_index=2), entries_of(2, 2, first_index=2)
    lone.node.step(said(AppendEntries, 2, 1, term=1, entries=old, **prev), 0)
    ready = lone.take_ready()
    lone.node.step(said(AppendEntries, 3, 1, term=2, entries=new, **prev), 0)
    lone.node.advance(ready)
    assert lone.node.durable_index == 1
    ready = lone.take_ready()
    assert (ready.truncate_from, ready.entries) == (2, new)
    lone.node.advance(ready)
    assert lone.node.durable_index == 3


# -- identity and pauses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"from_disk_id": "wiped"},
        {"to_disk_id": "wiped"},
        {"to_id": 2},
        {"from_id": 4, "from_disk_id": "d4"},
        {"from_id": 1, "from_disk_id": "d1"},
    ],
)
@pytest.mark.parametrize(
    "kind", [VoteRequest, VoteResponse, PreVoteRequest, AppendEntries, TimeoutNow]
)
def test_a_voter_is_a_node_and_its_disk(kind: type[RaftMessage], changes: dict[str, Any]) -> None:
    lone = Lone()
    lone.now_ms = LOW
    message = said(kind, **{"from_id": 2, "to_id": 1, "term": 5, **changes})
    assert lone.node.step(message, lone.now_ms) is False
    assert lone.node.ready() is None
    assert lone.node.term == 0


def test_a_resumed_follower_draws_a_new_timeout() -> None:
    drawn = iter([500, 800])
    lone = Lone(draw=lambda low, high: next(drawn))
    lone.now_ms = 60_000
    lone.node.on_pause(59_900, lone.now_ms)
    assert lone.node.next_deadline_ms() == 60_800
    lone.wait(799)
    assert lone.node.role is Role.FOLLOWER


def test_a_resumed_leader_lets_the_others_answer_first() -> None:
    lone = Lone(check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1000)
    lone.now_ms += 60_000
    lone.node.on_pause(60_000, lone.now_ms)
    lone.wait(499)
    assert lone.node.is_leader
    lone.wait(1)
    assert lone.node.role is Role.FOLLOWER


def test_a_pause_never_makes_a_contact_younger_than_now() -> None:
    lone = Lone()
    lone.now_ms = 100
    lone.node.on_pause(5_000, lone.now_ms)
    lone.now_ms += LOW
    lone.hear(said(PreVoteRequest, 2, 1, term=0))
    assert len(lone.sent()) == 1
