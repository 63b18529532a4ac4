"""Raft nodes with fake disks and a network that is a list: the driver that `raft/ready.py` asks
for, under full control. Every action ends with a check of all invariants.

A disk keeps what was synced; a slow disk holds a Ready back until `sync`. A crash loses everything
that was not synced, or all but a prefix of the writes of the Ready that was held back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raft import invariants
from raft.messages import RaftMessage
from raft.node import RaftNode
from raft.ready import Ready
from raft.types import Entry, HardState, RaftConfig, Snapshot, Voter

Draw = Callable[[int, int], int]


@dataclass(slots=True)
class Disk:
    """What survives a power loss."""

    hard_state: HardState = field(default_factory=lambda: HardState(0, None))
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None

    @property
    def view(self) -> invariants.LogView:
        base_index = 0 if self.snapshot is None else self.snapshot.index
        return invariants.LogView(tuple(self.entries), base_index)

    def compact(self, snapshot: Snapshot) -> None:
        """In place of the entries that it stands for, as a whole."""
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index]
        self.snapshot = snapshot

    def write(self, ready: Ready, kept: int | None = None) -> None:
        """The writes of `ready` in their order; only the first `kept` of them if given."""
        if ready.snapshot is not None:
            if kept is None or kept > 0:
                self.snapshot = ready.snapshot
                self.hard_state = ready.hard_state or self.hard_state
                self.entries = list(ready.entries)
            return
        writes: list[HardState | Entry | int] = []
        if ready.hard_state is not None:
            writes.append(ready.hard_state)
        if ready.truncate_from is not None:
            writes.append(ready.truncate_from)
        writes.extend(ready.entries)
        for write in writes[:kept]:
            if isinstance(write, HardState):
                self.hard_state = write
            elif isinstance(write, Entry):
                assert write.index == self.view.last_index + 1, "a hole or an overwrite on disk"
                self.entries.append(write)
            else:
                del self.entries[write - 1 - self.view.base_index :]


@dataclass(slots=True)
class Host:
    """One voter's machine: its disk, and its process while it runs."""

    config: RaftConfig
    disk: Disk = field(default_factory=Disk)
    node: RaftNode | None = None
    is_slow: bool = False
    held_back: Ready | None = None
    # The process is stopped, not dead: its inbox fills and nothing in it moves.
    stopped_ms: int | None = None
    applied: list[Entry] = field(default_factory=list)


def default_draw(node_id: int) -> Draw:
    """Node 1 always times out first, then 2, and so on, 50 ms apart."""
    return lambda low, high: min(high, low + 50 * node_id)


class Cluster:
    """`voter_ids` on disks d1, d2, …; nobody runs until `start`."""

    def __init__(
        self,
        voter_ids: Iterable[int],
        draw_of: Callable[[int], Draw] = default_draw,
        **settings: int,
    ) -> None:
        voters = tuple(Voter(node_id, f"d{node_id}") for node_id in voter_ids)
        self.hosts = {
            voter.node_id: Host(RaftConfig(voter.node_id, voter.disk_id, voters, **settings))
            for voter in voters
        }
        self.draw_of = draw_of
        self.now_ms = 0
        self.installed_count = 0
        """Snapshots that followers took over from leaders."""
        # Messages on their way, oldest first.
        self.network: list[RaftMessage] = []
        self.cut_links: set[tuple[int, int]] = set()
        self.history = invariants.History()
        self.views: dict[int, invariants.NodeView] = {}

    # -- processes and disks -----------------------------------------------------------------

    def node(self, node_id: int) -> RaftNode:
        node = self.hosts[node_id].node
        assert node is not None, f"node {node_id} is down"
        return node

    @property
    def running(self) -> list[int]:
        return [node_id for node_id, host in self.hosts.items() if host.node is not None]

    @property
    def leaders(self) -> list[int]:
        return [node_id for node_id in self.running if self.node(node_id).is_leader]

    def start(self, *node_ids: int) -> None:
        """Start from the disk; all nodes if none is named."""
        for node_id in node_ids or self.hosts:
            host = self.hosts[node_id]
            assert host.node is None, f"node {node_id} runs already"
            host.node = RaftNode(
                host.config,
                host.disk.hard_state,
                tuple(host.disk.entries),
                self.draw_of(node_id),
                self.now_ms,
                host.disk.snapshot,
            )
            host.applied = self._restored(host.disk.snapshot)
            self.collect(node_id)
        for node_id in self.hosts:
            self.verify(node_id)

    def crash(self, node_id: int, kept: int = 0) -> None:
        """Power loss: of a Ready held back, the first `kept` writes survive."""
        host = self.hosts[node_id]
        if host.held_back is not None:
            host.disk.write(host.held_back, kept)
        host.node = None
        host.held_back = None
        host.stopped_ms = None
        host.applied = []
        self.verify(node_id)

    def sync(self, node_id: int) -> None:
        """The sync of the Ready held back returns."""
        host = self.hosts[node_id]
        assert host.node is not None
        assert host.held_back is not None, f"node {node_id} has no sync running"
        ready, host.held_back = host.held_back, None
        self._complete(host, host.node, ready)
        self.collect(node_id)

    def stop(self, node_id: int) -> None:
        """SIGSTOP."""
        self.hosts[node_id].stopped_ms = self.now_ms

    def resume(self, node_id: int, is_noticed: bool = True) -> None:
        """SIGCONT: a driver notices the gap between two turns, then drains the inbox."""
        host = self.hosts[node_id]
        assert host.stopped_ms is not None
        gap_ms, host.stopped_ms = self.now_ms - host.stopped_ms, None
        if is_noticed:
            self.node(node_id).on_pause(gap_ms, self.now_ms)
            self.collect(node_id)

    def collect(self, node_id: int) -> None:
        """Do what the node asks for, as far as its disk lets it; then check the invariants."""
        host = self.hosts[node_id]
        if host.node is not None:
            while (ready := host.node.ready()) is not None:
                self.network.extend(ready.messages_now)
                if ready.snapshot is not None:
                    host.applied = self._restored(ready.snapshot)
                    self.installed_count += 1
                host.applied.extend(ready.committed)
                if ready.must_sync and host.is_slow:
                    host.held_back = ready
                else:
                    self._complete(host, host.node, ready)
            if host.held_back is not None:
                self.network.extend(host.node.messages_beside_sync())
        self.verify(node_id)

    def _complete(self, host: Host, node: RaftNode, ready: Ready) -> None:
        host.disk.write(ready)
        self.network.extend(ready.messages_after_durable)
        node.advance(ready)

    def compact(self, node_id: int) -> bool:
        """Store what was applied as a snapshot, and let go of the entries; False if there is
        nothing new to do it for, or a sync is under way."""
        host = self.hosts[node_id]
        assert host.node is not None
        node = host.node
        index = min(len(host.applied), node.durable_index)
        if host.held_back is not None or index <= node.base_index:
            return False
        snapshot = Snapshot(index, host.applied[index - 1].term, b"%d" % index)
        host.disk.compact(snapshot)
        node.compact(snapshot)
        self.collect(node_id)
        return True

    def _restored(self, snapshot: Snapshot | None) -> list[Entry]:
        """What a snapshot stands for; its data are the index again, in digits."""
        if snapshot is None:
            return []
        assert snapshot.data == b"%d" % snapshot.index
        assert len(self.history.committed) >= snapshot.index
        return self.history.committed[: snapshot.index]

    # -- time and clients --------------------------------------------------------------------

    def wait(self, duration_ms: int) -> None:
        """Time passes; no timer fires."""
        self.now_ms += duration_ms

    def tick(self, node_id: int) -> None:
        self.node(node_id).tick(self.now_ms)
        self.collect(node_id)

    def fire(self, node_id: int) -> None:
        """Time passes until the node's next deadline, and only this node notices."""
        self.now_ms = max(self.now_ms, self.node(node_id).next_deadline_ms())
        self.tick(node_id)

    def propose(self, node_id: int, data: bytes) -> int | None:
        index = self.node(node_id).propose(data)
        self.collect(node_id)
        return index

    # -- network -----------------------------------------------------------------------------

    def deliver(self, position: int = 0) -> str:
        """Deliver one message; returns why it did not arrive, or an empty string."""
        message = self.network.pop(position)
        return self.step(message)

    def step(self, message: RaftMessage) -> str:
        """Hand a message, perhaps a forged or copied one, to its target."""
        if (message.from_id, message.to_id) in self.cut_links:
            return "cut"
        host = self.hosts[message.to_id]
        if host.node is None:
            return "down"
        is_taken = host.node.step(message, self.now_ms)
        self.collect(message.to_id)
        return "" if is_taken else "ignored"

    def settle(self) -> None:
        """Deliver everything in order until nothing is on its way, but to stopped processes."""
        for _ in range(10_000):
            awake = (
                position
                for position, message in enumerate(self.network)
                if self.hosts[message.to_id].stopped_ms is None
            )
            position = next(awake, None)
            if position is None:
                return
            self.deliver(position)
        raise AssertionError("the nodes do not stop talking")

    def run(self, duration_ms: int) -> None:
        """Time passes as it should: everything arrives at once, every timer fires when due."""
        end_ms = self.now_ms + duration_ms
        self.settle()
        while awake := [
            node_id for node_id in self.running if self.hosts[node_id].stopped_ms is None
        ]:
            deadline_ms = min(self.node(node_id).next_deadline_ms() for node_id in awake)
            if deadline_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, deadline_ms)
            for node_id in awake:
                self.tick(node_id)
            self.settle()
        self.now_ms = end_ms

    def cut(self, node_id: int, other_id: int) -> None:
        self.cut_links |= {(node_id, other_id), (other_id, node_id)}

    def elect(self, node_id: int) -> None:
        """The others have heard of no leader for long enough, and this node times out."""
        for _ in range(2):  # the first round may only teach it the present term
            if not self.node(node_id).is_leader:
                self.wait(self.hosts[node_id].config.election_timeout_ms_max)
                self.fire(node_id)
                self.settle()
        assert self.node(node_id).is_leader, f"node {node_id} was not elected"

    # -- checks ------------------------------------------------------------------------------

    def verify(self, node_id: int) -> None:
        """All invariants, after something happened to one node (the views of the others are
        those of last time)."""
        host = self.hosts[node_id]
        durable = host.disk.view
        if host.node is None:
            term = host.disk.hard_state.term
            self.views[node_id] = invariants.view_of_crashed(node_id, term, durable)
        else:
            view = invariants.view_of(host.node, durable)
            self.views[node_id] = view
            # What the node believes to be on its disk is there.
            for index in range(view.log.base_index + 1, host.node.durable_index + 1):
                assert durable.entry(index) == view.log.entry(index)
            if host.node.durable_index >= view.log.base_index:
                assert durable.base_index == view.log.base_index
        views = tuple(self.views.values())
        violations = invariants.check(views, len(self.hosts), self.history)
        assert not violations, "\n".join(violations)
        committed = self.history.committed[: len(host.applied)]
        assert host.applied == committed, f"node {node_id} applied something else"
