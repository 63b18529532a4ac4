"""One test per sentence of "In Search of an Understandable Consensus Algorithm" (the Raft paper)
and of the chapters of Ongaro's thesis that we use. Section numbers are the paper's unless said."""

from __future__ import annotations

import pytest

from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.lone import HIGH, LOW, Lone
from tests.raft.messages import entries_of, said

# -- 5.1 basics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_5_1_a_larger_term_is_taken_and_makes_a_follower(role: Role) -> None:
    lone = Lone()
    if role is Role.CANDIDATE:
        lone.become_candidate()
    elif role is Role.LEADER:
        lone.become_leader()
    assert lone.node.role is role
    lone.hear(said(AppendEntries, 2, 1, term=9))
    assert (lone.node.role, lone.node.term, lone.node.leader_id) == (Role.FOLLOWER, 9, 2)


def test_5_1_a_request_with_a_stale_term_is_refused() -> None:
    lone = Lone(hard_state=HardState(5, None))
    lone.wait(LOW - 1)
    lone.hear(said(AppendEntries, 2, 1, term=4, entries=entries_of(4)))
    assert lone.sent() == [said(AppendEntriesResponse, 1, 2, term=5, accepted=False)]
    assert lone.node.last_index == 0


def test_5_1_a_stale_vote_request_is_refused() -> None:
    lone = Lone(hard_state=HardState(5, None))
    lone.now_ms = LOW
    lone.hear(said(VoteRequest, 2, 1, term=4))
    assert lone.sent() == [said(VoteResponse, 1, 2, term=5, granted=False)]


# -- 5.2 leader election ---------------------------------------------------------------------------


def test_5_2_a_server_starts_as_follower_and_remains_one_while_it_hears_a_leader() -> None:
    lone = Lone()
    for _ in range(50):
        lone.wait(LOW - 1)
        lone.hear(said(AppendEntries, 2, 1, term=1))
    assert lone.node.role is Role.FOLLOWER


def test_5_2_leaders_send_periodic_heartbeats_to_all() -> None:
    lone = Lone(heartbeat_ms=100)
    lone.become_leader()
    lone.hear(*(said(AppendEntriesResponse, n, 1, term=1, match_index=1) for n in (2, 3)))
    lone.sent()
    lone.wait(99)
    assert lone.sent() == []
    lone.wait(1)
    heartbeats = [
        said(AppendEntries, 1, n, term=1, prev_index=1, prev_term=1, commit_index=1) for n in (2, 3)
    ]
    assert lone.sent() == heartbeats
    assert lone.node.next_deadline_ms() == lone.now_ms + 100


def test_5_2_a_follower_without_a_leader_begins_an_election() -> None:
    """It raises its term, votes for itself, and asks all others in parallel; the pre-vote of the
    thesis comes first."""
    lone = Lone()
    lone.wait(LOW - 1)
    assert lone.sent() == []
    lone.wait(1)
    assert lone.sent() == [said(PreVoteRequest, 1, n, term=0) for n in (2, 3)]
    lone.hear(said(PreVoteResponse, 2, 1, term=0))
    assert lone.node.role is Role.CANDIDATE
    assert (lone.node.term, lone.node.voted_for) == (1, 1)
    assert lone.sent() == [said(VoteRequest, 1, n, term=1) for n in (2, 3)]


@pytest.mark.parametrize(
    ("voter_count", "granting", "refusing", "role"),
    [
        (1, (), (), Role.LEADER),
        (3, (2,), (), Role.LEADER),
        (3, (2,), (3,), Role.LEADER),
        (3, (), (2,), Role.CANDIDATE),
        (3, (), (2, 3), Role.FOLLOWER),
        (5, (2,), (), Role.CANDIDATE),
        (5, (2, 3), (), Role.LEADER),
        (5, (2, 3), (4, 5), Role.LEADER),
        (5, (2,), (3, 4), Role.CANDIDATE),
        (5, (), (2, 3, 4), Role.FOLLOWER),
    ],
)
def test_5_2_a_candidate_wins_with_a_majority_of_the_whole_cluster(
    voter_count: int, granting: tuple[int, ...], refusing: tuple[int, ...], role: Role
) -> None:
    lone = Lone(voter_count)
    lone.become_candidate()
    lone.hear(*(said(VoteResponse, n, 1, term=1) for n in granting))
    lone.hear(*(said(VoteResponse, n, 1, term=1, granted=False) for n in refusing))
    assert lone.node.role is role
    assert lone.node.term == 1


def test_5_2_a_voter_votes_for_at_most_one_candidate_in_a_term() -> None:
    lone = Lone()
    lone.now_ms = LOW
    lone.hear(said(VoteRequest, 2, 1, term=1))
    lone.hear(said(VoteRequest, 3, 1, term=1))
    lone.hear(said(VoteRequest, 2, 1, term=1))
    assert lone.sent() == [
        said(VoteResponse, 1, 2, term=1),
        said(VoteResponse, 1, 3, term=1, granted=False),
        said(VoteResponse, 1, 2, term=1),
    ]


def test_5_2_a_candidate_recognizes_a_leader_of_its_term() -> None:
    lone = Lone()
    lone.become_candidate()
    lone.hear(said(AppendEntries, 3, 1, term=1))
    assert (lone.node.role, lone.node.leader_id, lone.node.voted_for) == (Role.FOLLOWER, 3, 1)


def test_5_2_a_candidate_refuses_a_leader_of_an_older_term_and_continues() -> None:
    lone = Lone(hard_state=HardState(4, None))
    lone.become_candidate()
    lone.hear(said(AppendEntries, 3, 1, term=4))
    assert (lone.node.role, lone.node.term) == (Role.CANDIDATE, 5)


def test_5_2_election_timeouts_are_drawn_anew_from_a_fixed_interval() -> None:
    drawn = iter([700, 900, 500, 1000])
    bounds = []

    def draw(low: int, high: int) -> int:
        bounds.append((low, high))
        return next(drawn)

    lone = Lone(draw=draw)
    deadlines = []
    for _ in range(3):
        deadlines.append(lone.node.next_deadline_ms() - lone.now_ms)
        lone.wait(deadlines[-1])
    assert deadlines == [700, 900, 500]
    assert set(bounds) == {(LOW, HIGH)}


def test_5_2_a_candidate_that_wins_nothing_tries_again_in_a_new_term() -> None:
    lone = Lone()
    lone.become_candidate()
    lone.become_candidate()
    assert (lone.node.role, lone.node.term) == (Role.CANDIDATE, 2)


def test_5_2_giving_a_vote_restarts_the_election_timer() -> None:
    lone = Lone(draw=lambda low, high: high)
    lone.wait(HIGH - 1)
    lone.hear(said(VoteRequest, 2, 1, term=1))
    assert lone.node.next_deadline_ms() == lone.now_ms + HIGH


def test_5_2_refusing_a_vote_does_not() -> None:
    lone = Lone(entries=entries_of(1), draw=lambda low, high: high)
    lone.wait(HIGH - 1)
    lone.hear(said(VoteRequest, 2, 1, term=2))
    assert lone.node.next_deadline_ms() == lone.now_ms + 1


# -- 5.3 log replication ---------------------------------------------------------------------------


def test_5_3_a_leader_appends_and_replicates_in_parallel() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    assert cluster.propose(1, b"x") == 2
    assert [(m.from_id, m.to_id) for m in cluster.network] == [(1, 2), (1, 3)]
    cluster.settle()
    assert [cluster.node(n).entries() for n in (2, 3)] == [cluster.node(1).entries()] * 2


def test_5_3_only_a_leader_takes_proposals() -> None:
    lone = Lone()
    assert lone.node.propose(b"x") is None
    lone.become_candidate()
    assert lone.node.propose(b"x") is None


@pytest.mark.parametrize(
    ("voter_count", "acceptors", "is_committed"),
    [(3, 0, False), (3, 1, True), (5, 1, False), (5, 2, True), (5, 4, True)],
)
def test_5_3_an_entry_is_committed_once_on_a_majority(
    voter_count: int, acceptors: int, is_committed: bool
) -> None:
    lone = Lone(voter_count)
    lone.become_leader()
    lone.node.propose(b"x")
    lone.work()
    for node_id in range(2, 2 + acceptors):
        lone.hear(said(AppendEntriesResponse, node_id, 1, term=1, match_index=2))
    assert lone.node.commit_index == (2 if is_committed else 0)


def test_5_3_committing_commits_all_preceding_entries_also_of_other_leaders() -> None:
    lone = Lone(entries=entries_of(1, 1, 2))
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=3, match_index=4))
    assert lone.node.commit_index == 4
    assert [entry.term for entry in lone.applied] == [1, 1, 2, 3]


def test_5_3_followers_learn_the_commit_index_and_apply_in_order() -> None:
    lone = Lone()
    entries = entries_of(1, 1, 1)
    lone.hear(said(AppendEntries, 2, 1, term=1, entries=entries))
    assert lone.applied == []
    news = {"prev_index": 3, "prev_term": 1}
    lone.hear(said(AppendEntries, 2, 1, term=1, commit_index=2, **news))
    lone.hear(said(AppendEntries, 2, 1, term=1, commit_index=1, **news))
    lone.hear(said(AppendEntries, 2, 1, term=1, commit_index=3, **news))
    assert lone.applied == list(entries)


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "answer"),
    [
        (0, 0, {"match_index": 1}),
        (2, 1, {"match_index": 3}),
        (3, 3, {"match_index": 4}),
        (3, 2, {"accepted": False, "prev_index": 3, "conflict_term": 3, "conflict_index": 3}),
        (5, 3, {"accepted": False, "prev_index": 5, "conflict_index": 5}),
    ],
)
def test_5_3_the_consistency_check(
    prev_index: int, prev_term: int, answer: dict[str, int | bool]
) -> None:
    lone = Lone(entries=entries_of(1, 1, 3, 3))
    request_entries = entries_of(3, first_index=prev_index + 1) if prev_index else entries_of(1)
    lone.hear(
        said(
            AppendEntries,
            2,
            1,
            4,
            prev_index=prev_index,
            prev_term=prev_term,
            entries=request_entries,
        )
    )
    assert lone.sent() == [said(AppendEntriesResponse, 1, 2, term=4, **answer)]


def test_5_3_a_conflicting_entry_goes_with_all_that_follow_it() -> None:
    lone = Lone(entries=entries_of(1, 2, 2, 2))
    new = entries_of(3, first_index=2)
    lone.hear(said(AppendEntries, 2, 1, 3, prev_index=1, prev_term=1, entries=new))
    assert [entry.term for entry in lone.node.entries()] == [1, 3]


def test_5_3_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    lone = Lone(entries=entries_of(1, 2, 2))
    lone.become_leader()
    before = lone.node.entries()
    refusal = {"accepted": False, "prev_index": 3, "conflict_index": 1}
    lone.hear(said(AppendEntriesResponse, 2, 1, term=3, **refusal))
    assert lone.node.entries() == before


def test_5_3_a_refused_leader_goes_back_until_the_logs_agree() -> None:
    lone = Lone(entries=entries_of(1, 1, 1))
    lone.become_leader()
    for end in (2, 1):
        refusal = {"accepted": False, "prev_index": end + 1, "conflict_index": end + 1}
        lone.hear(said(AppendEntriesResponse, 2, 1, term=2, **refusal))
        probe = said(AppendEntries, 1, 2, term=2, prev_index=end, prev_term=1)
        assert lone.sent() == [probe]
    lone.hear(said(AppendEntriesResponse, 2, 1, term=2, match_index=1))
    (append,) = lone.sent()
    assert isinstance(append, AppendEntries)
    assert [entry.index for entry in append.entries] == [2, 3, 4]


def test_5_3_a_follower_that_does_not_answer_is_asked_for_ever() -> None:
    lone = Lone(check_quorum_ms=1_000_000)
    lone.become_leader()
    for _ in range(200):
        lone.wait(100)
        probe = said(AppendEntries, 1, 3, term=1)
        assert lone.sent_to(3) == [probe]


# -- 5.4 safety ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own_terms", "last_index", "last_term", "is_granted"),
    [
        ((), 0, 0, True),
        ((1,), 1, 1, True),
        ((1,), 2, 1, True),
        ((1, 1), 1, 1, False),
        ((1, 1), 1, 2, True),
        ((1, 2), 3, 1, False),
        ((2,), 0, 0, False),
    ],
)
def test_5_4_1_a_voter_refuses_who_has_an_older_log(
    own_terms: tuple[int, ...], last_index: int, last_term: int, is_granted: bool
) -> None:
    lone = Lone(entries=entries_of(*own_terms))
    lone.now_ms = LOW
    end = {"last_index": last_index, "last_term": last_term}
    lone.hear(said(PreVoteRequest, 2, 1, term=8, **end), said(VoteRequest, 3, 1, term=9, **end))
    answers = [m.granted for m in lone.sent() if isinstance(m, PreVoteResponse | VoteResponse)]
    assert answers == [is_granted] * 2
    assert lone.node.term == 9


def test_5_4_2_entries_of_older_terms_are_not_committed_by_counting() -> None:
    lone = Lone(entries=entries_of(1, 2))
    lone.become_leader()
    for node_id in (2, 3):
        lone.hear(said(AppendEntriesResponse, node_id, 1, term=3, match_index=2))
    assert lone.node.match_index_by_voter == {1: 3, 2: 2, 3: 2}
    assert lone.node.commit_index == 0
    lone.hear(said(AppendEntriesResponse, 2, 1, term=3, match_index=3))
    assert lone.node.commit_index == 3


# -- 5.5 crashes, 5.6 timing, 8 clients ------------------------------------------------------------


def test_5_5_requests_are_idempotent() -> None:
    lone = Lone()
    append = said(AppendEntries, 2, 1, term=1, entries=entries_of(1, 1), commit_index=1)
    lone.hear(append)
    once = (lone.node.entries(), lone.node.commit_index, lone.sent())
    lone.hear(append)
    assert (lone.node.entries(), lone.node.commit_index, lone.sent()) == once


def test_5_5_a_crashed_follower_is_brought_up_to_date_after_its_restart() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    cluster.crash(3)
    for number in range(100):
        cluster.propose(1, b"%d" % number)
        cluster.run(10)
    cluster.start(3)
    cluster.run(200)
    assert cluster.node(3).entries() == cluster.node(1).entries()
    assert cluster.node(3).commit_index == cluster.node(1).commit_index == 101


def test_5_6_a_heartbeat_comes_several_times_within_an_election_timeout() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.run(60_000)
    assert [(n, cluster.node(n).term) for n in cluster.leaders] == [(1, 1)]


def test_8_a_leader_begins_its_term_with_an_empty_entry() -> None:
    lone = Lone(entries=entries_of(1, 2))
    lone.become_leader()
    assert [(e.index, e.term, e.data) for e in lone.node.entries()[2:]] == [(3, 3, b"")]
    assert lone.node.term_start_index == 3
    with pytest.raises(AssertionError, match="leader's own"):
        lone.node.propose(b"")


# -- Ongaro's thesis -------------------------------------------------------------------------------


def test_thesis_3_8_term_vote_and_log_are_persisted_before_a_server_answers() -> None:
    lone = Lone()
    lone.now_ms = LOW
    lone.node.step(said(VoteRequest, 2, 1, term=1), lone.now_ms)
    ready = lone.take_ready()
    assert ready.hard_state == HardState(1, 2)
    assert (ready.must_sync, ready.messages_now) == (True, ())
    assert ready.messages_after_durable == (said(VoteResponse, 1, 2, term=1),)


def test_thesis_3_10_leadership_transfer_starts_an_election_at_once() -> None:
    lone = Lone()
    lone.hear(said(AppendEntries, 2, 1, term=1))
    lone.sent()
    lone.hear(said(TimeoutNow, 2, 1, term=1))
    requests = [said(VoteRequest, 1, n, term=2, leadership_transfer=True) for n in (2, 3)]
    assert lone.sent() == requests


def test_thesis_3_10_a_leader_hands_over_to_who_has_the_whole_log() -> None:
    """Whoever lacks an entry could not be elected; who has it is asked, by the leader only."""
    lone = Lone()
    lone.node.hand_over()
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 3, 1, term=1, match_index=1))
    lone.node.propose(b"x")
    lone.sent()
    lone.node.hand_over()
    assert TimeoutNow not in map(type, lone.node.messages_beside_sync())
    lone.hear(said(AppendEntriesResponse, 3, 1, term=1, match_index=2))
    lone.sent()
    lone.node.hand_over()
    assert lone.node.messages_beside_sync() == (said(TimeoutNow, 1, 3, term=1),)
    assert lone.node.is_leader, "until the other one is elected"


def test_thesis_6_2_a_leader_without_a_majority_steps_down() -> None:
    lone = Lone(5, check_quorum_ms=1500)
    lone.become_leader()
    lone.wait(1400)
    lone.hear(said(AppendEntriesResponse, 2, 1, term=1, match_index=1))
    lone.wait(100)
    assert lone.node.role is Role.FOLLOWER


def test_thesis_9_6_a_pre_vote_needs_a_majority_before_the_term_is_raised() -> None:
    lone = Lone(5)
    lone.wait(LOW)
    assert (lone.node.role, lone.node.term) == (Role.PRE_CANDIDATE, 0)
    lone.hear(said(PreVoteResponse, 2, 1, term=0))
    assert (lone.node.role, lone.node.term) == (Role.PRE_CANDIDATE, 0)
    lone.hear(said(PreVoteResponse, 3, 1, term=0))
    assert (lone.node.role, lone.node.term) == (Role.CANDIDATE, 1)


def test_thesis_10_2_1_a_leader_sends_before_it_has_written() -> None:
    lone = Lone()
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=1, match_index=1))
    lone.node.propose(b"x")
    ready = lone.take_ready()
    assert ready.must_sync
    appends = [m for m in ready.messages_now if isinstance(m, AppendEntries) and m.entries]
    assert [append.to_id for append in appends] == [2]
    assert ready.messages_after_durable == ()
