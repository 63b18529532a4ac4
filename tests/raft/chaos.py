"""What can happen to a cluster, as small deeds that any source of choices can drive: the
hypothesis machine (which shrinks) and the seeded walks (which go far) share them.

Every deed ends with a check of all invariants, made by `Cluster`.
"""

from __future__ import annotations

from raft.messages import PreVoteRequest, PreVoteResponse, TimeoutNow
from tests.raft.cluster import Cluster, Draw
from tests.raft.messages import said

NETWORK_MAX = 200


class Chaos:
    """A cluster under attack. Deeds that make no sense at the moment do nothing.

    Every `pick` is a number from anywhere; it is taken modulo the number of choices.
    """

    def __init__(self, voter_count: int, draw: Draw) -> None:
        self.cluster = Cluster(
            range(1, voter_count + 1),
            lambda node_id: draw,
            append_bytes_max=1,  # every entry travels alone, so that some arrive and some do not
            in_flight_appends_max=3,
        )
        self.proposal_count = 0
        self.cluster.start()

    def node_id(self, pick: int) -> int:
        return 1 + pick % len(self.cluster.hosts)

    def deliver(self, pick: int) -> None:
        """Any message, so that they overtake each other."""
        if self.cluster.network:
            self.cluster.deliver(pick % len(self.cluster.network))

    def deliver_first(self, count: int) -> None:
        """In order, as a good network does."""
        for _ in range(count):
            if self.cluster.network:
                self.cluster.deliver(0)

    def drop(self, pick: int) -> None:
        if self.cluster.network:
            self.cluster.network.pop(pick % len(self.cluster.network))

    def duplicate(self, pick: int) -> None:
        """The copy comes later than everything that is on its way."""
        if self.cluster.network:
            network = self.cluster.network
            network.append(network[pick % len(network)])

    def propose(self, pick: int) -> None:
        """To any node that believes it leads."""
        leaders = self.cluster.leaders
        if leaders:
            self.proposal_count += 1
            data = b"%03d" % self.proposal_count
            self.cluster.propose(leaders[pick % len(leaders)], data)

    def fire(self, pick: int) -> None:
        """One node's next timer, so that timers of nodes run apart; others may be due and late."""
        if self.node_id(pick) in self.cluster.running:
            self.cluster.fire(self.node_id(pick))

    def tick(self, duration_ms: int) -> None:
        self.cluster.wait(duration_ms)
        for node_id in self.cluster.running:
            self.cluster.tick(node_id)

    def campaign(self, pick: int) -> None:
        """Everybody has forgotten the leader, and one node times out."""
        node_id = self.node_id(pick)
        if node_id in self.cluster.running and not self.cluster.node(node_id).is_leader:
            self.cluster.wait(1000)
            self.cluster.fire(node_id)

    def duel(self, pick: int) -> None:
        """Two nodes win their pre-votes at the same time; their vote requests race."""
        rivals = [self.node_id(pick), self.node_id(pick // 5)]
        self.cluster.wait(1000)
        for node_id in rivals:
            if node_id in self.cluster.running and not self.cluster.node(node_id).is_leader:
                self.cluster.tick(node_id)
        for kind in (PreVoteRequest, PreVoteResponse):
            for message in [m for m in self.cluster.network if isinstance(m, kind)]:
                self.cluster.network.remove(message)
                self.cluster.step(message)

    def cut(self, pick: int) -> None:
        """A link fails, or a whole node is isolated."""
        node_id, other_id = self.node_id(pick), self.node_id(pick // 5)
        for peer_id in self.cluster.hosts if pick % 2 else [other_id]:
            self.cluster.cut(node_id, peer_id)

    def mend(self, pick: int) -> None:
        self.cluster.cut_links.clear()

    def pause(self, pick: int, gap_ms: int) -> None:
        node_id = self.node_id(pick)
        if node_id in self.cluster.running:
            self.cluster.wait(gap_ms)
            self.cluster.node(node_id).on_pause(gap_ms, self.cluster.now_ms)
            self.cluster.collect(node_id)

    def transfer(self, pick: int) -> None:
        """The leader orders an election at once."""
        node_id = self.node_id(pick)
        for leader_id in self.cluster.leaders:
            if leader_id != node_id:
                term = self.cluster.node(leader_id).term
                self.cluster.network.append(said(TimeoutNow, leader_id, node_id, term))

    def slow_down(self, pick: int) -> None:
        """The node's syncs wait from now on."""
        self.cluster.hosts[self.node_id(pick)].is_slow = True

    def speed_up(self, pick: int) -> None:
        self.cluster.hosts[self.node_id(pick)].is_slow = False
        self.sync(pick)

    def sync(self, pick: int) -> None:
        if self.cluster.hosts[self.node_id(pick)].held_back is not None:
            self.cluster.sync(self.node_id(pick))

    def compact(self, pick: int) -> None:
        """A snapshot takes the place of what was applied."""
        if self.node_id(pick) in self.cluster.running:
            self.cluster.compact(self.node_id(pick))

    def crash(self, pick: int, kept: int) -> None:
        """Power loss; a prefix of the write that was running may have reached the disk."""
        if self.node_id(pick) in self.cluster.running:
            self.cluster.crash(self.node_id(pick), kept)

    def restart(self, pick: int) -> None:
        if self.node_id(pick) not in self.cluster.running:
            self.cluster.start(self.node_id(pick))

    def reboot(self, pick: int, kept: int) -> None:
        """A crash and a quick restart, and nothing until the node would vote again: requests that
        are still on their way find a voter that has perhaps forgotten something."""
        self.crash(pick, kept)
        self.restart(pick)
        self.cluster.wait(500)

    def bound(self) -> None:
        """What is too much on its way is lost."""
        del self.cluster.network[:-NETWORK_MAX]

    def heal(self) -> None:
        """All faults end, and the cluster must come together: one leader, equal logs."""
        self.cluster.cut_links.clear()
        for pick in range(len(self.cluster.hosts)):
            self.restart(pick)
            self.speed_up(pick)
        self.cluster.run(20_000)
        (leader_id,) = self.cluster.leaders
        index = self.cluster.propose(leader_id, b"healed")
        self.cluster.run(1_000)
        assert self.cluster.leaders == [leader_id]
        for node_id in self.cluster.running:
            node = self.cluster.node(node_id)
            assert node.commit_index == node.durable_index == index
            applied = self.cluster.hosts[node_id].applied
            assert applied == self.cluster.hosts[leader_id].applied
            assert applied[node.base_index :] == list(node.entries())
