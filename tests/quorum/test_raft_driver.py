"""The driver keeps promises behind syncs. Syncs finish only when the test says so."""

from __future__ import annotations

import errno
import re

import pytest

from broker.events import Fact, Halt, Plane, Send, Sync, SyncToken
from broker.quorum.raft_codec import decode_message, encode_message
from broker.quorum.raft_store import PATH
from broker.wire.messages import RaftRequest
from chaos.sim.choices import Choices, from_seed
from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVoteResponse,
    RaftMessage,
    VoteRequest,
    VoteResponse,
)
from raft.types import Entry
from tests.quorum.voters import Voter, config_of

FAR_MS = 10_000


def voter(node_id: int = 1, voter_count: int = 3) -> Voter:
    return Voter(node_id, Choices(from_seed(7)), voter_count)


def started(node_id: int = 1, voter_count: int = 3) -> Voter:
    one = voter(node_id, voter_count)
    one.finish_sync()
    assert one.network == []
    return one


def head(from_id: int, to_id: int = 1) -> dict[str, object]:
    return {
        "from_id": from_id,
        "from_disk_id": f"disk-{from_id}",
        "to_id": to_id,
        "to_disk_id": f"disk-{to_id}",
    }


def vote_request(from_id: int = 2, term: int = 5) -> RaftRequest:
    # Transfer: otherwise a voter that has just started ignores it.
    return encode_message(
        "trial",
        VoteRequest(
            **head(from_id),  # type: ignore[arg-type]
            term=term,
            last_index=9,
            last_term=4,
            leadership_transfer=True,
        ),
    )


def append(
    *entries: Entry, term: int = 5, prev_index: int = 0, prev_term: int = 0, commit_index: int = 0
) -> RaftRequest:
    return encode_message(
        "trial",
        AppendEntries(
            **head(2),  # type: ignore[arg-type]
            term=term,
            prev_index=prev_index,
            prev_term=prev_term,
            entries=entries,
            commit_index=commit_index,
        ),
    )


def said(one: Voter) -> list[RaftMessage]:
    messages = [decode_message(request) for _, request in one.network]
    one.network.clear()
    return messages


# --- nothing before the recovered log is durable --------------------------------------------------


def test_recovered_is_not_durable() -> None:
    """What a process crash left readable may vanish by a power loss: nobody hears of it before it
    is synced, and no timer runs."""
    one = voter()
    [(sync, _)] = one.syncs
    assert sync.files == (PATH,)
    assert set(sync.directories) == {"raft", "."}
    assert not one.step(vote_request())
    one.wait(FAR_MS)
    assert one.driver.propose(b"x") is None
    assert not one.driver.is_leader
    assert (one.network, one.committed, one.facts) == ([], [], [])
    one.finish_sync()
    assert one.step(vote_request())


def test_start_counts_from_the_end_of_recovery() -> None:
    """A slow first sync must not make the voter a candidate at once."""
    one = voter()
    one.now_ms = FAR_MS
    one.finish_sync()
    one.tick()
    assert one.network == []
    assert one.driver.next_deadline_ms() in range(FAR_MS + 500, FAR_MS + 1_001)


# --- promises wait for Synced ---------------------------------------------------------------------


def test_a_vote_leaves_after_its_sync() -> None:
    one = started()
    one.step(vote_request(from_id=2))
    assert one.network == []
    one.wait(50)
    assert one.network == [], "no other turn lets it out"
    one.finish_sync()
    [answer] = said(one)
    assert isinstance(answer, VoteResponse)
    assert answer.granted
    # The vote is known now; the other candidate hears no at once, as nothing new is promised.
    one.step(vote_request(from_id=3))
    [answer] = said(one)
    assert isinstance(answer, VoteResponse)
    assert not answer.granted


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("synced", [False, True])
def test_nobody_votes_twice_in_a_term(synced: bool, power_loss: bool) -> None:
    one = started()
    one.step(vote_request(from_id=2))
    if synced:
        one.finish_sync()
    first = [message for message in said(one) if getattr(message, "granted", False)]
    if power_loss:
        one.disk.power_loss(lambda label, low, high: low)
    else:
        one.disk.process_crash()
    one.start()
    one.finish_all_syncs()
    one.step(vote_request(from_id=3))
    one.finish_all_syncs()
    second = [message for message in said(one) if getattr(message, "granted", False)]
    assert len(first) == int(synced)
    assert len(first) + len(second) <= 1
    # Only the vote that surely vanished may be given again.
    assert len(second) == int(power_loss and not synced)


def test_an_append_is_confirmed_after_its_sync() -> None:
    one = started()
    one.step(append(Entry(1, 5, b"a"), Entry(2, 5, b"b")))
    assert one.network == []
    # More arrives meanwhile; it joins the next sync, and the first Synced does not confirm it.
    one.step(append(Entry(3, 5, b"c"), prev_index=2, prev_term=5))
    assert one.network == []
    one.finish_sync()
    confirmed = [m.match_index for m in said(one) if isinstance(m, AppendEntriesResponse)]
    assert confirmed == [2]
    one.finish_sync()
    confirmed = [m.match_index for m in said(one) if isinstance(m, AppendEntriesResponse)]
    assert confirmed == [3]


def test_an_old_token_confirms_nothing() -> None:
    one = started()
    one.step(append(Entry(1, 5, b"a")))
    [(sync, _)] = one.syncs
    token = sync.token
    for other in (
        SyncToken(("raft", 0), token.generation - 1, token.end_offset),
        SyncToken(("raft", 0), token.generation, token.end_offset - 1),
        SyncToken(("topic", 0), token.generation, token.end_offset),
    ):
        one.driver.on_synced(other, one.now_ms)
        one.driver.on_sync_failed(other, "EIO")
        one.pump()
    assert (one.network, one.halted) == ([], [])
    one.finish_sync()
    assert len(said(one)) == 1


def test_a_leader_counts_itself_after_its_sync() -> None:
    """A single voter is its own majority: nothing is committed before it is on its disk."""
    one = started(voter_count=1)
    one.tick()
    assert not one.driver.is_leader, "its own vote is not durable yet"
    one.finish_sync()
    assert one.driver.is_leader
    one.finish_all_syncs()
    assert [entry.data for entry in one.committed] == [b""]
    assert one.driver.propose(b"a") == 2
    one.pump()
    assert len(one.committed) == 1
    assert one.driver.propose(b"b") == 3
    one.pump()
    one.finish_sync()
    assert [entry.data for entry in one.committed] == [b"", b"a"]
    one.finish_sync()
    assert [entry.data for entry in one.committed] == [b"", b"a", b"b"]


def elected() -> Voter:
    """Node 1, leader of three by the vote of node 2."""
    one = started()
    one.wait(1_001)
    term = one.node.term
    one.step(
        encode_message(
            "trial",
            PreVoteResponse(
                **head(2),  # type: ignore[arg-type]
                term=term,
                asked_term=term,
                granted=True,
            ),
        )
    )
    assert not any(isinstance(message, VoteRequest) for message in said(one))
    one.finish_sync()
    assert [type(message) for message in said(one)] == [VoteRequest, VoteRequest]
    granted = VoteResponse(**head(2), term=term + 1, granted=True)  # type: ignore[arg-type]
    one.step(encode_message("trial", granted))
    assert one.driver.is_leader
    return one


def test_a_leader_goes_on_beside_its_sync() -> None:
    """Heartbeats and new entries leave while its own disk is slow; it may be the slowest of all."""
    one = elected()
    assert one.syncs, "its first entry is being synced"
    assert {message.to_id for message in said(one)} == {2, 3}
    one.wait(100)
    assert {message.to_id for message in said(one)} == {2, 3}

    def confirm(peer: int, match_index: int) -> None:
        confirmed = AppendEntriesResponse(
            **head(peer),  # type: ignore[arg-type]
            term=one.node.term,
            accepted=True,
            match_index=match_index,
            prev_index=0,
            conflict_term=None,
            conflict_index=0,
        )
        one.step(encode_message("trial", confirmed))

    confirm(2, 0)
    confirm(3, 0)
    sent = [message for message in said(one) if isinstance(message, AppendEntries)]
    assert [(m.to_id, len(m.entries)) for m in sent if m.entries] == [(2, 1), (3, 1)]
    # A majority without the leader has it: committed, though not on the leader's disk.
    confirm(2, 1)
    assert one.node.commit_index == 0
    confirm(3, 1)
    assert one.node.commit_index == 1
    one.finish_all_syncs()
    assert [entry.index for entry in one.committed] == [1]


def test_a_role_is_told_before_what_follows_from_it() -> None:
    """A crash between the two effects then leaves no message without its explanation."""
    one = started()
    one.now_ms += 1_001
    one.driver.tick(one.now_ms)
    effects = one.driver.pump(one.now_ms).effects
    assert [type(effect) for effect in effects] == [Fact, Send, Send]


def test_each_role_is_told_once() -> None:
    one = elected()
    told = [(fact.details["role"], fact.details["term"]) for fact in one.facts]
    assert told == [
        ("follower", 0),
        ("pre-candidate", 0),
        ("candidate", 1),
        ("leader", 1),
    ]
    assert {fact.kind for fact in one.facts} == {"RaftRole"}
    assert one.facts[-1].details["leader"] == 1
    effects = one.driver.pump(one.now_ms).effects
    assert effects == ()


# --- when the disk fails --------------------------------------------------------------------------


def test_a_failed_sync_ends_the_voter() -> None:
    """Never retried into success: the kernel may have dropped the pages and report the next one
    as done."""
    one = started()
    one.step(vote_request())
    [(sync, _)] = one.syncs
    one.driver.on_sync_failed(sync.token, "EIO")
    one.pump()
    assert one.halted == ["sync of the metadata log failed: EIO"]
    one.driver.on_synced(sync.token, one.now_ms)
    one.wait(FAR_MS)
    assert not one.step(vote_request(from_id=3))
    assert (one.network, len(one.halted)) == ([], 1)
    assert one.driver.propose(b"x") is None


def test_a_failed_write_ends_the_voter() -> None:
    one = started()
    one.disk.fail_next("append", path_part=PATH)
    one.step(vote_request())
    assert one.halted == [
        "the metadata log cannot be written: raft/quorum.log: append failed (errno 5)"
    ]
    assert one.network == []


def test_a_full_disk_keeps_the_voter_silent_until_there_is_room() -> None:
    one = started()
    one.disk.fail_next("append", path_part=PATH, error=errno.ENOSPC)
    one.disk.fail_next("append", path_part=PATH, error=errno.ENOSPC)
    one.step(vote_request(from_id=2))
    one.wait(99)
    assert (one.network, one.syncs, one.halted) == ([], [], [])
    one.wait(1)
    assert (one.network, one.syncs, one.halted) == ([], [], []), "still full"
    one.wait(100)
    assert one.network == [], "written is not durable"
    one.finish_sync()
    [answer] = said(one)
    assert isinstance(answer, VoteResponse)
    assert answer.granted


def test_a_leader_whose_disk_is_full_lets_others_lead() -> None:
    """It could neither count nor apply anything: the followers must miss it."""
    one = elected()
    one.finish_all_syncs()
    said(one)
    one.disk.fail_next("append", path_part=PATH, error=errno.ENOSPC)
    assert one.driver.propose(b"x") is not None
    one.pump()
    one.wait(99)
    assert said(one) == []
    one.wait(1)
    assert {message.to_id for message in said(one)} == {2, 3}, "there is room again"


def test_a_sync_that_hangs_has_failed() -> None:
    one = started()
    one.step(vote_request())
    limit_ms = config_of(1, 3).disk_stall_ms_max
    # The process itself stood still for an hour: the device is not to blame.
    one.now_ms += 3_600_000
    one.driver.on_pause(3_600_000, one.now_ms)
    one.wait(limit_ms - 1)
    assert one.halted == []
    assert one.driver.next_deadline_ms() is not None
    one.wait(1)
    assert one.halted == ["sync of the metadata log hangs for 20000 ms"]


# --- who may vote ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disk_id", "what"),
    [("wiped", "node 1 has disk wiped, but the voters name disk disk-1: .* must not vote again")],
)
def test_a_wiped_disk_cannot_vote(disk_id: str, what: str) -> None:
    one = voter()
    one.start(disk_id)
    assert one.syncs == []
    [reason] = one.halted
    assert re.match(what, reason)


def test_a_damaged_file_stops_the_voter() -> None:
    one = started()
    one.step(vote_request())
    one.finish_sync()
    one.step(append(Entry(1, 5, b"a")))
    one.finish_sync()
    one.disk.process_crash()
    one.disk.corrupt(PATH, 20, 1)
    said(one)
    one.start()
    [reason] = one.halted
    assert reason.startswith("raft/quorum.log: position 8: damaged")
    one.wait(FAR_MS)
    assert not one.step(vote_request())
    assert one.network == []


@pytest.mark.parametrize(
    "request_",
    [
        RaftRequest("another", 2, vote_request().kind, vote_request().body),
        RaftRequest("trial", 2, 77, b""),
        RaftRequest("trial", 2, 3, b"garbage"),
        RaftRequest("trial", 3, vote_request().kind, vote_request().body),
    ],
)
def test_strange_messages_change_nothing(request_: RaftRequest) -> None:
    one = started()
    assert not one.step(request_)
    assert (one.network, one.syncs, one.node.term) == ([], [], 0)


def test_effects_are_addressed() -> None:
    one = elected()
    one.finish_all_syncs()
    one.network.clear()
    one.now_ms += 100
    one.driver.tick(one.now_ms)
    effects = one.driver.pump(one.now_ms).effects
    assert [(e.peer, e.plane, e.one_way) for e in effects if isinstance(e, Send)] == [
        (2, Plane.CONTROLLER, True),
        (3, Plane.CONTROLLER, True),
    ]
    assert not any(isinstance(effect, Sync | Halt) for effect in effects)
