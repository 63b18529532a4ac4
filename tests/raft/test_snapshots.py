"""A follower whose next entries are gone gets what they made of the state machine (paper 7)."""

from __future__ import annotations

import pytest

from raft.messages import AppendEntries, AppendEntriesResponse, InstallSnapshot
from tests.raft.cluster import Cluster
from tests.raft.messages import said


def behind(entry_count: int = 12, **settings: int) -> Cluster:
    """Node 1 leads and has let go of its entries; node 3 was down and has none of them."""
    cluster = Cluster((1, 2, 3), append_bytes_max=settings.get("append_bytes_max", 1))
    cluster.start(1, 2)
    cluster.elect(1)
    for number in range(entry_count - 1):
        cluster.propose(1, b"%d" % number)
    cluster.settle()
    assert cluster.compact(1)
    assert cluster.node(1).base_index == entry_count
    cluster.hosts[3].is_slow = False
    cluster.start(3)
    return cluster


def chunks(cluster: Cluster) -> list[tuple[int, bytes]]:
    return [(m.position, m.data) for m in cluster.network if isinstance(m, InstallSnapshot)]


def caught_up(cluster: Cluster, node_id: int = 3) -> bool:
    leader = cluster.node(1)
    return (
        cluster.node(node_id).last_index == leader.last_index
        and leader.match_index_by_voter[node_id] == leader.last_index
        and cluster.hosts[node_id].applied == cluster.hosts[1].applied
    )


def test_it_arrives_in_chunks_and_entries_follow() -> None:
    cluster = behind()
    cluster.run(200)
    assert cluster.installed_count == 1
    assert caught_up(cluster)
    assert cluster.node(3).base_index == 12
    cluster.propose(1, b"more")
    cluster.run(200)
    assert caught_up(cluster)
    assert [entry.data for entry in cluster.node(3).entries()] == [b"more"]


def test_one_chunk_at_a_time_and_a_heartbeat_repeats_the_one_that_was_lost() -> None:
    cluster = behind()
    cluster.fire(1)
    while not chunks(cluster):
        cluster.deliver()
    before = chunks(cluster)
    assert set(before) == {(0, b"1")}
    cluster.propose(1, b"x")
    assert chunks(cluster) == before, "however much is to be said"
    cluster.network.clear()
    cluster.fire(1)
    assert chunks(cluster) == [(0, b"1")]
    cluster.run(200)
    assert caught_up(cluster)


def test_a_follower_that_starts_again_in_the_middle_gets_it_from_the_beginning() -> None:
    cluster = behind()
    cluster.fire(1)
    while chunks(cluster) != [(1, b"2")]:
        cluster.deliver()
    cluster.crash(3)
    cluster.start(3)
    cluster.run(300)
    assert cluster.installed_count == 1
    assert caught_up(cluster)


def test_a_leader_that_lets_go_of_more_meanwhile_sends_the_newer_one() -> None:
    cluster = behind()
    cluster.fire(1)
    while chunks(cluster) != [(1, b"2")]:
        cluster.deliver()
    cluster.cut(1, 3)
    for number in range(5):
        cluster.propose(1, b"later %d" % number)
    cluster.settle()
    assert cluster.compact(1)
    cluster.cut_links.clear()
    cluster.run(300)
    assert cluster.node(3).base_index == 17
    assert caught_up(cluster)


def being_stored() -> Cluster:
    """Node 3 knows its leader, and has begun to store the snapshot."""
    cluster = behind()
    cluster.hosts[3].is_slow = True
    cluster.run(150)
    cluster.sync(3)
    cluster.run(200)
    return cluster


def test_it_is_confirmed_when_it_is_durable() -> None:
    cluster = being_stored()
    assert cluster.installed_count == 1
    assert cluster.node(1).match_index_by_voter[3] == 0
    assert cluster.node(3).durable_index == 0
    cluster.sync(3)
    cluster.run(100)
    assert cluster.node(1).match_index_by_voter[3] == 12


@pytest.mark.parametrize("kept", [0, 1])
def test_a_power_loss_leaves_the_old_log_or_the_snapshot_and_nothing_between(kept: int) -> None:
    cluster = being_stored()
    cluster.crash(3, kept)
    assert (cluster.hosts[3].disk.snapshot is None) == (kept == 0)
    cluster.hosts[3].is_slow = False
    cluster.start(3)
    assert len(cluster.hosts[3].applied) == (12 if kept else 0)
    cluster.run(300)
    assert caught_up(cluster)


def test_what_is_committed_already_is_confirmed_and_nothing_is_replaced() -> None:
    cluster = behind()
    cluster.run(200)
    cluster.propose(1, b"more")
    cluster.run(200)
    before = cluster.node(3).entries()
    late = said(
        InstallSnapshot,
        1,
        3,
        cluster.node(1).term,
        snapshot_index=5,
        snapshot_term=1,
        size_bytes=1,
        position=0,
        data=b"5",
    )
    cluster.step(late)
    assert cluster.node(3).entries() == before
    assert cluster.installed_count == 1


def test_a_log_that_holds_what_it_stands_for_is_kept_with_all_that_follows() -> None:
    """Paper 7: entries behind the snapshot's last one are retained."""
    cluster = Cluster((1, 2, 3))
    cluster.start()
    cluster.elect(1)
    for number in range(4):
        cluster.propose(1, b"%d" % number)
    # Node 3 has all of it, and knows of nothing that it is committed.
    for message in [m for m in cluster.network if isinstance(m, AppendEntries) and m.to_id == 3]:
        cluster.network.remove(message)
        cluster.step(message)
    node = cluster.node(3)
    assert (node.commit_index, node.last_index) == (1, 5)
    whole = said(
        InstallSnapshot,
        1,
        3,
        node.term,
        snapshot_index=3,
        snapshot_term=node.term,
        size_bytes=1,
        position=0,
        data=b"3",
    )
    cluster.history.committed.extend(cluster.node(1).entries()[1:3])
    cluster.history.committed_in_term.extend([node.term] * 2)
    cluster.step(whole)
    assert cluster.installed_count == 0
    assert (node.base_index, node.commit_index, node.last_index) == (0, 3, 5)


def test_an_append_from_before_the_snapshot_is_confirmed_up_to_it() -> None:
    cluster = behind()
    cluster.run(200)
    term = cluster.node(1).term
    old = said(AppendEntries, 1, 3, term, prev_index=2, prev_term=term, entries=(), commit_index=2)
    cluster.network.clear()
    cluster.step(old)
    [answer] = [m for m in cluster.network if isinstance(m, AppendEntriesResponse)]
    assert (answer.accepted, answer.match_index) == (True, 12)


def test_letting_go_twice_of_the_same_is_a_mistake() -> None:
    cluster = behind()
    snapshot = cluster.node(1).snapshot
    assert snapshot is not None
    with pytest.raises(AssertionError):
        cluster.node(1).compact(snapshot)
