"""Three voters with their real files: slow syncs, lost messages, both kinds of crash, by seed.

Whatever happens, all agree on what is committed; and after a power loss of all three at once every
committed entry is still there, and the quorum goes on without an operator.
"""

from __future__ import annotations

import pytest

from chaos.sim.choices import Choices, from_seed
from raft.types import Entry
from tests.quorum.voters import Voter

STEPS = 1_500
IDS = (1, 2, 3)


class Quorum:
    def __init__(self, seed: int) -> None:
        self.choices = Choices(from_seed(seed))
        self.voters = {node_id: Voter(node_id, self.choices) for node_id in IDS}
        self.committed: dict[int, Entry] = {}
        self.leaders: dict[int, int] = {}
        self.proposed_count = 0

    def check(self, voter: Voter) -> None:
        assert voter.halted == []
        indexes = [entry.index for entry in voter.committed]
        assert indexes == list(range(1, len(indexes) + 1)), "in order, each once"
        for entry in voter.committed:
            assert self.committed.setdefault(entry.index, entry) == entry
        if voter.driver.is_leader:
            assert self.leaders.setdefault(voter.node.term, voter.node_id) == voter.node_id

    def step(self) -> None:
        voter = self.voters[self.choices.draw("voter", 1, 3)]
        what = self.choices.draw("what", 1, 1_000)
        if what <= 480:
            self.deliver(voter)
        elif what <= 700:
            if voter.syncs:
                voter.finish_sync()
        elif what <= 850:
            voter.wait(self.choices.draw("ms", 1, 150))
        elif what <= 992:
            self.propose(voter)
        else:
            self.crash(voter, power_loss=what % 2 == 0)
        self.check(voter)

    def deliver(self, sender: Voter) -> None:
        if not sender.network:
            return
        at = self.choices.draw("message", 0, len(sender.network) - 1)
        fate = self.choices.draw("fate", 1, 20)
        peer, request = sender.network[at] if fate == 1 else sender.network.pop(at)
        if fate != 2:
            self.voters[peer].step(request)
            self.check(self.voters[peer])

    def propose(self, voter: Voter) -> None:
        self.proposed_count += 1
        voter.driver.propose(b"%d" % self.proposed_count)
        voter.pump()

    def crash(self, voter: Voter, power_loss: bool) -> None:
        if power_loss:
            voter.disk.power_loss(self.choices.draw)
        else:
            voter.disk.process_crash()
        voter.start()

    def calm(self) -> None:
        """No more faults: everything arrives, every sync ends."""
        for _ in range(300):
            for voter in self.voters.values():
                voter.wait(20)
                voter.finish_all_syncs()
                self.check(voter)
            for sender in self.voters.values():
                while sender.network:
                    peer, request = sender.network.pop(0)
                    self.voters[peer].step(request)
                    self.voters[peer].finish_all_syncs()
                    self.check(self.voters[peer])


@pytest.mark.parametrize("seed", range(20))
def test_nothing_committed_is_lost(seed: int) -> None:
    quorum = Quorum(seed)
    for _ in range(STEPS):
        quorum.step()
    before = dict(quorum.committed)
    for voter in quorum.voters.values():
        quorum.crash(voter, power_loss=True)
        voter.network.clear()
    quorum.calm()
    leaders = [voter for voter in quorum.voters.values() if voter.driver.is_leader]
    assert len(leaders) == 1
    quorum.propose(leaders[0])
    quorum.calm()
    for voter in quorum.voters.values():
        held = {entry.index: entry for entry in voter.committed}
        assert held == quorum.committed
        assert voter.committed[-1].data == b"%d" % quorum.proposed_count
    assert before.items() <= quorum.committed.items()


def test_the_seeds_reach_what_they_are_for() -> None:
    """Elections, commits and crashes in between: else the test above would prove nothing."""
    quorums = [Quorum(seed) for seed in range(20)]
    for quorum in quorums:
        for _ in range(STEPS):
            quorum.step()
    assert sum(len(quorum.leaders) for quorum in quorums) >= 20
    assert sum(len(quorum.committed) for quorum in quorums) >= 200
