"""What must hold over all nodes at every moment: Raft paper figure 3, and two rules about disks.

Pure: `check` reads views and a `History` and returns what is violated, in words; an empty tuple is
a clean bill. It costs little enough to run after every step of a simulation: a node's committed
prefix is compared once, and only what is not committed is compared again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raft import quorum
from raft.node import RaftNode
from raft.types import Entry


@dataclass(frozen=True, slots=True)
class NodeView:
    """One voter as somebody outside sees it. `log` is what it has in memory (for a crashed node: on
    disk), `durable` what a power loss would leave."""

    node_id: int
    term: int
    is_leader: bool
    commit_index: int
    log: LogView
    durable: LogView


@dataclass(frozen=True, slots=True)
class LogView:
    """Entries from `base_index + 1` on; a snapshot stands for those before."""

    entries: tuple[Entry, ...]
    base_index: int = 0

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.entries)

    def entry(self, index: int) -> Entry | None:
        """None where there is none, or a snapshot stands for it."""
        if not self.base_index < index <= self.last_index:
            return None
        return self.entries[index - self.base_index - 1]

    def holds(self, entry: Entry) -> bool:
        """Itself, or what a snapshot made of it."""
        return entry.index <= self.base_index or self.entry(entry.index) == entry


def view_of(node: RaftNode, durable: LogView | None = None) -> NodeView:
    """A living node. Without evidence from its disk the node's own belief is taken."""
    log = LogView(node.entries(), node.base_index)
    if durable is None:
        # While a snapshot is being stored nobody else knows what the disk holds.
        count = max(node.durable_index - node.base_index, 0)
        is_stored = node.durable_index >= node.base_index
        durable = LogView(log.entries[:count], log.base_index if is_stored else 0)
    return NodeView(
        node_id=node.config.node_id,
        term=node.term,
        is_leader=node.is_leader,
        commit_index=node.commit_index,
        log=log,
        durable=durable,
    )


def view_of_crashed(node_id: int, term: int, durable: LogView) -> NodeView:
    """A node that is down is what its disk holds."""
    return NodeView(node_id, term, False, 0, durable, durable)


@dataclass(slots=True)
class History:
    """What was seen so far; the checks below are the only writers."""

    # Who led a term: an entry is never changed.
    leader_by_term: dict[int, int] = field(default_factory=dict)
    # Every entry that some node once held to be committed, index 1 first; only ever extended.
    committed: list[Entry] = field(default_factory=list)
    # The term of the node that first showed that entry as committed.
    committed_in_term: list[int] = field(default_factory=list)
    # How far a node's log was compared with `committed` since its last start.
    compared_index_by_node: dict[int, int] = field(default_factory=dict)
    # (term, how much of `committed` the leader of that term was compared with).
    compared_by_leader_term: dict[int, int] = field(default_factory=dict)


def check(views: Sequence[NodeView], voter_count: int, history: History) -> tuple[str, ...]:
    """Every invariant over one moment; extends `history`. Returns the violations."""
    return (
        *election_safety(views, history),
        *state_machine_safety(views, history),
        *leader_completeness(views, history),
        *log_matching(views),
        *durable_majority(views, voter_count, history),
    )


def election_safety(views: Sequence[NodeView], history: History) -> list[str]:
    """At most one leader is elected in a term, over the whole history."""
    violations = []
    for view in views:
        if view.is_leader:
            known = history.leader_by_term.setdefault(view.term, view.node_id)
            if known != view.node_id:
                violations.append(
                    f"election safety: nodes {known} and {view.node_id} both lead term {view.term}"
                )
    return violations


def state_machine_safety(views: Sequence[NodeView], history: History) -> list[str]:
    """No two nodes ever hold different entries to be committed at one index."""
    violations = []
    for view in views:
        if view.commit_index > view.log.last_index:
            violations.append(
                f"node {view.node_id} commits {view.commit_index} of {view.log.last_index} entries"
            )
            continue
        if view.log.base_index > len(history.committed):
            violations.append(
                f"node {view.node_id} has a snapshot up to {view.log.base_index}, and nobody was "
                f"seen to commit more than {len(history.committed)}"
            )
            continue
        start = history.compared_index_by_node.get(view.node_id, 0)
        if view.commit_index < start:
            start = 0
        start = max(start - view.log.base_index, 0)
        for entry in view.log.entries[start : max(view.commit_index - view.log.base_index, 0)]:
            if entry.index > len(history.committed):
                history.committed.append(entry)
                history.committed_in_term.append(view.term)
            elif history.committed[entry.index - 1] != entry:
                violations.append(
                    f"state-machine safety: node {view.node_id} commits {entry}, "
                    f"before it was {history.committed[entry.index - 1]}"
                )
        history.compared_index_by_node[view.node_id] = view.commit_index
    return violations


def leader_completeness(views: Sequence[NodeView], history: History) -> list[str]:
    """What was committed in an earlier term is in the log of every leader of a later one."""
    violations = []
    for view in views:
        if not view.is_leader:
            continue
        start = history.compared_by_leader_term.get(view.term, 0)
        for position in range(start, len(history.committed)):
            entry = history.committed[position]
            is_earlier = history.committed_in_term[position] < view.term
            if is_earlier and not view.log.holds(entry):
                violations.append(
                    f"leader completeness: leader {view.node_id} of term {view.term} has "
                    f"{view.log.entry(entry.index)} where {entry} is committed"
                )
        history.compared_by_leader_term[view.term] = len(history.committed)
    return violations


def log_matching(views: Sequence[NodeView]) -> list[str]:
    """If two logs hold an entry of one term at one index, they are equal up to there.

    What both hold to be committed is compared by `state_machine_safety` already.
    """
    violations = []
    for position, one in enumerate(views):
        for other in views[position + 1 :]:
            both_committed = min(one.commit_index, other.commit_index)
            both_committed = max(both_committed, one.log.base_index, other.log.base_index)
            must_agree = False
            shorter = min(one.log.last_index, other.log.last_index)
            for index in range(shorter, both_committed, -1):
                ours, theirs = one.log.entry(index), other.log.entry(index)
                assert ours is not None
                assert theirs is not None
                must_agree = must_agree or ours.term == theirs.term
                if must_agree and ours != theirs:
                    violations.append(
                        f"log matching: nodes {one.node_id} and {other.node_id} agree above "
                        f"{ours} and {theirs}"
                    )
                    break
    return violations


def durable_majority(views: Sequence[NodeView], voter_count: int, history: History) -> list[str]:
    """The newest committed entry, and with it every one below, is on the disks of a majority;
    for ever. Views of all voters are needed, also of those that are down."""
    if not history.committed:
        return []
    newest = history.committed[-1]
    holders = [view.node_id for view in views if view.durable.holds(newest)]
    if len(holders) >= quorum.majority(voter_count):
        return []
    return [f"durability: {newest} is committed, but on the disks of {holders} only"]
