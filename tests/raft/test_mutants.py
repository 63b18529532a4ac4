"""Every rule is removed once, by an edit of the source, and the tests that guard it must fail."""

from __future__ import annotations

import importlib

import pytest

from tests.raft.mutation import Mutant, fails, mutated

MUTANTS = [
    Mutant(
        "(a) a voter that hears a leader ignores a vote request",
        "election",
        "    if hears_a_leader(state) and not request.leadership_transfer:\n        return\n",
        "",
        ("test_a_voter_that_hears_a_leader_ignores_candidates", "leadership_transfer.txt"),
    ),
    Mutant(
        "(a) a voter that hears a leader ignores a pre-vote request",
        "election",
        "    if hears_a_leader(state):\n        return\n",
        "",
        (
            "test_a_voter_that_hears_a_leader_ignores_candidates",
            "pre_vote_does_not_disturb.txt",
        ),
    ),
    Mutant(
        "(a) a leader hears itself",
        "election",
        "    if state.role is Role.LEADER:\n        return True\n",
        "",
        ("test_a_leader_hears_itself",),
    ),
    Mutant(
        "(a) except for a leadership transfer",
        "election",
        "hears_a_leader(state) and not request.leadership_transfer",
        "hears_a_leader(state)",
        ("test_a_leadership_transfer_is_excepted", "leadership_transfer.txt"),
    ),
    Mutant(
        "(b) there is a pre-vote",
        "node",
        "election.become_pre_candidate(state)",
        "election.become_candidate(state, leadership_transfer=False)",
        (
            "test_b_asking_for_a_pre_vote_changes_nothing_that_is_stored",
            "test_b_a_voter_that_was_cut_off_comes_back_with_its_old_term",
            "pre_vote_does_not_disturb.txt",
        ),
    ),
    Mutant(
        "(b) a pre-vote request raises no term",
        "election",
        "    _answer_pre_vote(\n        state,\n        request,\n        granted=",
        "    if request.term > state.term:\n"
        "        become_follower(state, request.term, None)\n"
        "    _answer_pre_vote(\n        state,\n        request,\n        granted=",
        ("test_b_granting_a_pre_vote_changes_nothing_that_is_stored",),
    ),
    Mutant(
        "(b) only answers to the present question count",
        "election",
        " and response.asked_term == state.term",
        "",
        ("test_b_an_answer_to_another_pre_vote_does_not_count",),
    ),
    Mutant(
        "(c) a leader of a lower term is answered",
        "replication",
        "        append_answers.refuse(state, request, prev_index=0, hint=(None, 0))\n",
        "",
        (
            "test_c_an_append_of_a_lower_term_is_answered_with_the_own_term",
            "test_c_a_voter_with_a_higher_term_gets_back_into_the_cluster",
            "lower_term_append.txt",
        ),
    ),
    Mutant(
        "(c) and steps down",
        "replication",
        "    if response.term > state.term:\n"
        "        election.become_follower(state, response.term, leader_id=None)\n"
        "        return\n"
        "    if response.term < state.term or",
        "    if response.term != state.term or",
        ("test_c_that_leader_steps_down", "lower_term_append.txt"),
    ),
    Mutant(
        "(d) a leader without a majority steps down",
        "replication",
        "if state.now_ms >= quorum_deadline_ms(state):",
        "if False:",
        (
            "test_d_a_leader_that_no_majority_answers_steps_down_in_time",
            "test_thesis_6_2_a_leader_without_a_majority_steps_down",
            "check_quorum.txt",
        ),
    ),
    Mutant(
        "(d) a refusal is a sign of life",
        "replication",
        "    progress.contact_ms = state.now_ms\n    if response.accepted:\n",
        "    if response.accepted:\n        progress.contact_ms = state.now_ms\n",
        ("test_d_any_answer_of_the_term_is_a_sign_of_life",),
    ),
    Mutant(
        "(e) stepping down keeps the vote",
        "election",
        "    if term > state.term:\n        _enter_term(state, term)\n",
        "    _enter_term(state, term)\n",
        (
            "test_e_stepping_down_keeps_term_and_vote",
            "test_e_losing_an_election_keeps_term_and_vote",
        ),
    ),
    Mutant(
        "(f) a message fires no timer",
        "node",
        "        self._advance_clock(now_ms)\n        state = self._state\n        sender",
        "        self.tick(now_ms)\n        state = self._state\n        sender",
        (
            "test_f_a_message_never_fires_a_timer",
            "test_f_a_timer_that_is_late_itself_believes_the_inbox",
        ),
    ),
    Mutant(
        "(g) the start counts as contact",
        "node",
        "            leader_contact_ms=now_ms,\n",
        "            leader_contact_ms=-1_000_000,\n",
        (
            "test_g_a_restarted_voter_votes_for_nobody_at_first",
            "test_g_restarts_do_not_help_a_candidate_against_a_leader_that_lives",
        ),
    ),
    Mutant(
        "(h) only entries of the own term are committed by counting",
        "replication",
        " and state.log.term_at(index) == state.term",
        "",
        ("test_5_4_2_entries_of_older_terms_are_not_committed_by_counting", "figure_8.txt"),
    ),
    Mutant(
        "(h) truncation on conflict only",
        "log",
        "            if self.term_at(entry.index) == entry.term:\n                continue\n",
        "",
        (
            "test_h_a_late_append_does_not_truncate",
            "test_store_changes_only_what_conflicts",
            "stale_append.txt",
        ),
    ),
    Mutant(
        "(h) truncation never below the commit index",
        "log",
        '        assert from_index > self.commit_index, "truncation below the commit index"\n',
        "",
        ("test_h_truncation_below_the_commit_index_is_impossible",),
    ),
    Mutant(
        "(h) the commit index is believed as far as the message reaches",
        "replication",
        "min(request.commit_index, match_index)",
        "min(request.commit_index, state.log.last_index)",
        (
            "test_h_the_commit_index_is_believed_as_far_as_the_message_reaches",
            "commit_not_beyond_message.txt",
        ),
    ),
    Mutant(
        "(i) one Ready is outstanding",
        "node",
        "        if state.outstanding is not None:\n            return None\n",
        "",
        ("test_i_at_most_one_ready_is_outstanding",),
    ),
    Mutant(
        "(i) the leader counts its disk, not its memory",
        "replication",
        "match_index[state.config.node_id] = state.log.durable_index",
        "match_index[state.config.node_id] = state.log.last_index",
        (
            "test_i_a_leader_sends_beside_its_sync_and_counts_itself_after_it",
            "slow_leader_disk.txt",
        ),
    ),
    Mutant(
        "(i) a confirmed append waits for the sync",
        "ready",
        "        return not hard_state_is_durable or message.match_index > durable_index\n",
        "        return False\n",
        ("test_i_a_follower_confirms_an_append_after_its_sync", "truncate_beside_sync.txt"),
    ),
    Mutant(
        "(i) a vote waits for the sync",
        "ready",
        "        return not hard_state_is_durable\n",
        "        return False\n",
        (
            "test_thesis_3_8_term_vote_and_log_are_persisted_before_a_server_answers",
            "vote_restart_vote.txt",
        ),
    ),
    Mutant(
        "(i) a candidate's own vote waits for the sync",
        "election",
        "    state.voted_for = state.config.node_id\n",
        "    state.voted_for = state.config.node_id\n"
        "    state.granted_by_voter[state.config.node_id] = True\n",
        ("test_i_a_candidate_counts_its_own_vote_after_its_sync",),
    ),
    Mutant(
        "(i) a sync of entries that were cut off does not count",
        "log",
        "        self.handed_index = min(self.handed_index, from_index - 1)\n",
        "",
        (
            "test_i_a_sync_of_entries_that_were_cut_off_meanwhile_does_not_count",
            "truncate_beside_sync.txt",
        ),
    ),
    Mutant(
        "(i) promises of a term that is over are dropped",
        "election",
        "    state.messages_after_durable.clear()\n",
        "",
        ("test_i_promises_of_a_term_that_is_over_are_not_kept_for_later",),
    ),
    Mutant(
        "a voter that restarts knows its vote",
        "node",
        "            voted_for=hard_state.voted_for,\n",
        "            voted_for=None,\n",
        ("vote_restart_vote.txt",),
    ),
    Mutant(
        "one vote per term",
        "election",
        "        and state.voted_for in (None, request.from_id)\n",
        "",
        ("test_5_2_a_voter_votes_for_at_most_one_candidate_in_a_term", "vote_restart_vote.txt"),
    ),
    Mutant(
        "no vote for an older log",
        "election",
        "        and state.voted_for in (None, request.from_id)\n"
        "        and state.log.is_up_to_date(request.last_index, request.last_term)\n",
        "        and state.voted_for in (None, request.from_id)\n",
        ("test_5_4_1_a_voter_refuses_who_has_an_older_log", "conflict_hints.txt"),
    ),
    Mutant(
        "the last term comes before the length",
        "log",
        "(last_term, last_index) >= (self.last_term, self.last_index)",
        "last_index >= self.last_index",
        ("test_5_4_1_a_voter_refuses_who_has_an_older_log",),
    ),
    Mutant(
        "the consistency check",
        "log",
        "return self.term_at(prev_index) == prev_term",
        "return prev_index <= self.last_index",
        ("test_5_3_the_consistency_check", "conflict_hints.txt"),
    ),
    Mutant(
        "a majority is more than half",
        "quorum",
        "voter_count // 2 + 1",
        "(voter_count + 1) // 2",
        ("split_vote.txt",),
    ),
    Mutant(
        "answers count for who gave them",
        "replication",
        "state.progress_by_voter[response.from_id]",
        "state.progress_by_voter[state.config.peers[-1].node_id]",
        ("five_nodes_commit.txt",),
    ),
    Mutant(
        "a voter is a node and its disk, as a sender",
        "node",
        "sender not in state.config.voters",
        "sender.node_id not in state.config.voter_ids",
        ("test_a_voter_is_a_node_and_its_disk", "wrong_disk.txt"),
    ),
    Mutant(
        "a voter is a node and its disk, as a target",
        "node",
        "target != own",
        "target.node_id != own.node_id",
        ("test_a_voter_is_a_node_and_its_disk", "wrong_disk.txt"),
    ),
    Mutant(
        "a hint passes over a whole term",
        "log",
        "            conflict_index -= 1\n",
        "            break\n",
        (
            "test_conflict_hint",
            "test_hints_lead_every_leader_to_the_end_of_the_common_part",
            "conflict_hints.txt",
        ),
    ),
    Mutant(
        "a lost append is noticed by the next heartbeat",
        "replication",
        "        progress.on_refused(\n",
        "        (lambda next_index: None)(\n",
        ("pipelining.txt", "test_5_5_a_crashed_follower_is_brought_up_to_date_after_its_restart"),
    ),
    Mutant(
        "a leader begins its term with an entry",
        "election",
        'state.term_start_index = state.log.append_own(state.term, b"")',
        "state.term_start_index = state.log.last_index + 1",
        ("test_8_a_leader_begins_its_term_with_an_empty_entry", "restart_all.txt"),
    ),
    Mutant(
        "a resumed process draws its election timer anew",
        "node",
        "            progress.contact_ms = min(state.now_ms, progress.contact_ms + gap_ms)\n"
        "        election.draw_election_timeout(state)\n",
        "            progress.contact_ms = min(state.now_ms, progress.contact_ms + gap_ms)\n",
        ("test_a_resumed_follower_draws_a_new_timeout", "pause.txt"),
    ),
    Mutant(
        "a resumed leader lets the others answer first",
        "node",
        "            progress.contact_ms = min(state.now_ms, progress.contact_ms + gap_ms)\n",
        "            pass\n",
        ("test_a_resumed_leader_lets_the_others_answer_first", "pause.txt"),
    ),
]

# Mutants that the random walks of test_walks must find without being told where to look.
WALKS = 20
FOUND_BY_WALKS = [
    "(h) the commit index is believed as far as the message reaches",
    "(i) the leader counts its disk, not its memory",
    "(i) a confirmed append waits for the sync",
    "(i) a sync of entries that were cut off does not count",
    "one vote per term",
    "the consistency check",
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_a_removed_rule_is_missed(mutant: Mutant) -> None:
    with mutated(mutant):
        survived = [killer for killer in mutant.killers if not fails(killer)]
    assert survived == []


def test_without_a_mutant_the_killers_pass() -> None:
    with mutated(Mutant("none", "quorum", "LOST =", "LOST =", ())):
        killers = sorted({killer for mutant in MUTANTS for killer in mutant.killers})
        assert [killer for killer in killers if fails(killer)] == []


@pytest.mark.parametrize("rule", FOUND_BY_WALKS)
def test_the_walks_find_what_is_unsafe(rule: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.rule == rule]
    with mutated(mutant):
        walk = importlib.import_module("tests.raft.test_walks").walk
        for seed in range(WALKS):
            try:
                walk(seed, 1_000)
            except AssertionError:
                return
    raise AssertionError(f"{WALKS} walks did not notice that a rule is gone: {rule}")
