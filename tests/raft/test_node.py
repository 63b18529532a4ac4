"""The face of a node: configuration, start, what it tells of itself, the driver's contract."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from raft import messages
from raft.messages import AppendEntriesResponse, RaftMessage, VoteRequest, VoteResponse
from raft.ready import Ready
from raft.types import Entry, HardState, RaftConfig, Voter
from tests.raft.cluster import Cluster, Disk
from tests.raft.lone import Lone
from tests.raft.messages import entries_of, said

VOTERS = (Voter(1, "d1"), Voter(3, "d3"), Voter(2, "d2"))


def test_voters_are_known_in_order() -> None:
    config = RaftConfig(3, "d3", VOTERS)
    assert config.voter_ids == (1, 2, 3)
    assert config.peers == (Voter(1, "d1"), Voter(2, "d2"))


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"node_id": 4}, "node 4 with disk d1 is not a voter"),
        ({"disk_id": "wiped"}, "node 1 with disk wiped is not a voter"),
        ({"voters": (*VOTERS, Voter(2, "other"))}, "occurs twice"),
        ({"heartbeat_ms": 0}, "heartbeat_ms must lie"),
        ({"heartbeat_ms": 500}, "heartbeat_ms must lie"),
        ({"election_timeout_ms_max": 499}, "election_timeout_ms_max is below"),
        ({"check_quorum_ms": 499}, "check_quorum_ms is below"),
        ({"append_bytes_max": 0}, "append_bytes_max"),
        ({"in_flight_appends_max": 0}, "in_flight_appends_max"),
    ],
)
def test_a_wrong_configuration_is_refused(changes: dict[str, Any], mistake: str) -> None:
    settings: dict[str, Any] = {"node_id": 1, "disk_id": "d1", "voters": VOTERS, **changes}
    with pytest.raises(ValueError, match=mistake):
        RaftConfig(**settings)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"not a voter; heartbeat_ms .*; append_bytes_max"):
        RaftConfig(9, "d9", VOTERS, heartbeat_ms=0, append_bytes_max=0)


def test_a_log_ahead_of_the_stored_term_is_damage() -> None:
    with pytest.raises(ValueError, match="the log ends in term 3, the stored term is 2"):
        Lone(hard_state=HardState(2, None), entries=entries_of(1, 3))


def test_messages_are_made_of_what_any_codec_knows() -> None:
    plain = {int, str, bool, bytes, int | None, tuple[Entry, ...]}
    for kind in get_args(RaftMessage):
        hints = get_type_hints(kind)
        assert {hints[field.name] for field in fields(kind)} <= plain
        header = [field.name for field in fields(kind)][:5]
        assert header == ["from_id", "from_disk_id", "to_id", "to_disk_id", "term"]


def test_proposals_of_one_turn_travel_together() -> None:
    lone = Lone()
    lone.become_leader()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=1, match_index=1))
    lone.sent()
    assert [lone.node.propose(data) for data in (b"a", b"b", b"c")] == [2, 3, 4]
    ready = lone.take_ready()
    (append,) = ready.messages_now
    assert isinstance(append, messages.AppendEntries)
    assert append.entries == ready.entries


def test_a_ready_that_is_only_news_needs_no_sync() -> None:
    lone = Lone()
    lone.become_leader()
    lone.node.step(said(AppendEntriesResponse, 2, 1, term=1, match_index=1), lone.now_ms)
    ready = lone.take_ready()
    assert (ready.must_sync, ready.committed) == (False, lone.node.entries())
    lone.node.advance(ready)
    assert lone.node.ready() is None


def test_entries_from_shows_committed_entries_only() -> None:
    lone = Lone()
    lone.become_leader()
    for data in (b"a", b"b", b"c"):
        lone.node.propose(data)
    lone.work()
    lone.hear(said(AppendEntriesResponse, 2, 1, term=1, match_index=3))
    assert [e.index for e in lone.node.entries_from(0, 99)] == [1, 2, 3]
    assert [e.index for e in lone.node.entries_from(2, 99)] == [2, 3]
    assert [e.index for e in lone.node.entries_from(1, 2)] == [1, 2]
    assert lone.node.entries_from(4, 99) == ()
    assert lone.node.entries_from(1, 0) == ()


def test_time_does_not_go_back() -> None:
    lone = Lone()
    lone.node.tick(400)
    lone.node.tick(300)
    assert lone.node.next_deadline_ms() == 500
    lone.now_ms = 600
    lone.wait(0)
    assert lone.node.next_deadline_ms() == 1100


def test_a_crash_after_any_prefix_of_a_write_leaves_a_log_that_starts() -> None:
    """Every prefix of (hard state, truncation, entries) that the disk may hold is accepted, and
    the node then catches up."""
    for kept in range(6):
        cluster = Cluster((1, 2, 3))
        hosts = cluster.hosts
        hosts[1].disk = Disk(HardState(3, None), list(entries_of(1, 1, 3, 3)))
        hosts[2].disk = Disk(HardState(3, None), list(entries_of(1, 1, 3, 3)))
        hosts[3].disk = Disk(HardState(2, None), list(entries_of(1, 2, 2)))
        hosts[3].is_slow = True
        cluster.start(1, 2)
        cluster.elect(1)
        cluster.start(3)
        cluster.run(200)
        held_back = hosts[3].held_back
        assert held_back is not None
        assert held_back.hard_state == HardState(4, None)
        cluster.sync(3)
        cluster.settle()
        held_back = hosts[3].held_back
        assert held_back is not None
        assert (held_back.truncate_from, len(held_back.entries)) == (2, 4)
        cluster.crash(3, kept)
        hosts[3].is_slow = False
        cluster.start(3)
        cluster.run(200)
        assert cluster.node(3).entries() == cluster.node(1).entries()
        assert cluster.node(3).durable_index == 5


def test_hard_state_is_given_out_once() -> None:
    lone = Lone(1)
    lone.now_ms = 0
    lone.node.tick(0)
    first = lone.take_ready()
    assert first == Ready(HardState(1, 1), None, (), None, (), (), (), True)
    lone.node.advance(first)
    second = lone.take_ready()
    assert second == Ready(None, None, (Entry(1, 1, b""),), None, (), (), (), True)
    lone.node.advance(second)
    third = lone.take_ready()
    assert third == Ready(None, None, (), None, (), (), (Entry(1, 1, b""),), False)


def test_a_vote_in_the_present_term_is_stored_before_it_is_told() -> None:
    """The term may be on disk for long; the vote is what is new."""
    lone = Lone(hard_state=HardState(5, None))
    lone.wait(lone.node.config.election_timeout_ms_min)
    lone.node.step(said(VoteRequest, 2, 1, term=5), lone.now_ms)
    ready = lone.take_ready()
    assert ready.hard_state == HardState(5, 2)
    assert [type(message) for message in ready.messages_after_durable] == [VoteResponse]
