"""Every invariant is violated once by hand, and seen; and a near miss is not."""

from __future__ import annotations

from raft.invariants import History, LogView, NodeView, check
from raft.types import Entry
from tests.raft.messages import entries_of


def view(
    node_id: int,
    *terms: int,
    term: int = 5,
    leads: bool = False,
    commit: int = 0,
    durable: int | None = None,
) -> NodeView:
    entries = entries_of(*terms)
    return NodeView(node_id, term, leads, commit, LogView(entries), LogView(entries[:durable]))


def found(history: History, *views: NodeView) -> list[str]:
    return [violation.split(":")[0] for violation in check(views, len(views), history)]


def test_two_leaders_of_one_term() -> None:
    history = History()
    assert found(history, view(1, leads=True), view(2), view(3)) == []
    assert found(history, view(1, leads=True), view(2, term=6, leads=True), view(3)) == []
    # Not at the same time, but in the same term.
    assert found(history, view(1), view(2), view(3, leads=True)) == ["election safety"]


def test_two_entries_committed_at_one_index() -> None:
    history = History()
    assert found(history, view(1, 1, 2, commit=2), view(2, 1, 2, commit=1), view(3, 1, 3)) == []
    views = view(1, 1, 2, commit=2), view(2, 1, 2, commit=2), view(3, 1, 3, commit=2)
    assert found(history, *views) == ["state-machine safety"]


def test_a_node_that_restarted_is_compared_again() -> None:
    history = History()
    assert found(history, view(1, 1, 2, commit=2), view(2, 1, 2, commit=2), view(3)) == []
    assert found(history, view(1, 1, 2, commit=2), view(2, 1, 2), view(3)) == []
    views = view(1, 1, 2, commit=2), view(2, 3, 2, commit=1), view(3, 1, 2)
    assert "state-machine safety" in found(history, *views)


def test_a_leader_that_lacks_a_committed_entry() -> None:
    history = History()
    views = view(1, 1, 2, commit=2, term=2), view(2, 1, 2), view(3, 1)
    assert found(history, *views) == []
    # A leader of an older term may well lack it.
    assert found(history, *views[:2], view(3, 1, term=1, leads=True)) == []
    assert found(history, *views[:2], view(3, 1, term=6, leads=True)) == ["leader completeness"]


def test_equal_entries_above_different_ones() -> None:
    history = History()
    assert found(history, view(1, 1, 2), view(2, 1, 3), view(3, 1, 2, 2)) == []
    assert found(history, view(1, 1, 2, 4), view(2, 1, 3, 4), view(3)) == ["log matching"]
    other = NodeView(2, 5, False, 0, LogView((Entry(1, 1, b"other"),)), LogView(()))
    assert found(history, view(1, 1), other, view(3)) == ["log matching"]


def test_a_committed_entry_that_is_not_on_the_disks_of_a_majority() -> None:
    history = History()
    views = view(1, 1, 1, commit=2), view(2, 1, 1), view(3, 1, 1, durable=1)
    assert found(history, *views) == []
    # Nor may it ever cease to be there.
    views = view(1, 1, 1, commit=2), view(2, 1, 1, durable=1), view(3, 1, 1, durable=1)
    assert found(history, *views) == ["durability"]


def test_a_commit_index_beyond_the_log() -> None:
    assert found(History(), view(1, 1, commit=2), view(2), view(3)) == [
        "node 1 commits 2 of 1 entries"
    ]
