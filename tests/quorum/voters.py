"""Voters of one quorum, each a RaftDriver on a simulated disk, with the world in the test's hand.

Effects are executed at once except for two: messages lie in `network` until delivered, syncs in
`syncs` until finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.config import NodeConfig, VoterAddress
from broker.events import Fact, Halt, Send, Store, Sync
from broker.quorum.raft_driver import RaftDriver
from broker.wire.messages import RaftRequest
from chaos.sim.choices import Choices
from chaos.sim.disk import PendingSync, SimDisk
from raft.node import RaftNode
from raft.types import Entry, Snapshot


def config_of(node_id: int, voter_count: int) -> NodeConfig:
    voters = tuple(
        VoterAddress(voter, f"disk-{voter}", "127.0.0.1", 9000 + voter)
        for voter in range(1, voter_count + 1)
    )
    return NodeConfig(node_id=node_id, cluster_id="trial", data_dir="data", voters=voters)


@dataclass
class Voter:
    node_id: int
    choices: Choices
    voter_count: int = 3
    now_ms: int = 0
    disk: SimDisk = field(default_factory=SimDisk)
    network: list[tuple[int, RaftRequest]] = field(default_factory=list)
    syncs: list[tuple[Sync, PendingSync]] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)
    committed: list[Entry | Snapshot] = field(default_factory=list)
    driver: RaftDriver = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self, disk_id: str = "") -> None:
        """A new process on the disk as it is."""
        self.syncs.clear()
        self.stores.clear()
        self.committed.clear()
        self.driver = RaftDriver(
            config_of(self.node_id, self.voter_count),
            disk_id or f"disk-{self.node_id}",
            self.disk,
            self.choices.draw,
        )
        self.execute(self.driver.start(self.now_ms))

    @property
    def node(self) -> RaftNode:
        assert self.driver.node is not None
        return self.driver.node

    def execute(self, effects: tuple[object, ...]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    assert effect.one_way
                    assert isinstance(effect.body, RaftRequest)
                    self.network.append((effect.peer, effect.body))
                case Sync():
                    pending = self.disk.prepare_sync(effect.files, effect.directories)
                    self.syncs.append((effect, pending))
                    assert len(self.syncs) == 1, "at most one sync is under way"
                case Store():
                    self.stores.append(effect)
                    assert not self.syncs, "nothing is written beside a replacement"
                case Fact():
                    self.facts.append(effect)
                case Halt():
                    self.halted.append(effect.reason)
                case _:
                    raise AssertionError(f"unexpected {effect}")

    def pump(self) -> None:
        output = self.driver.pump(self.now_ms)
        self.execute(output.effects)
        self.committed += output.committed

    def step(self, request: RaftRequest) -> bool:
        taken = self.driver.step(request, self.now_ms)
        self.pump()
        return taken

    def tick(self) -> None:
        self.driver.tick(self.now_ms)
        self.pump()

    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.tick()

    def finish_sync(self) -> None:
        """The device is done with the sync under way."""
        effect, pending = self.syncs.pop(0)
        pending.complete()
        self.driver.on_synced(effect.token, self.now_ms)
        self.pump()

    def finish_all_syncs(self) -> None:
        while self.syncs:
            self.finish_sync()

    def finish_store(self) -> None:
        """The file is replaced."""
        effect = self.stores.pop(0)
        self.disk.store(effect.path, effect.data)
        self.driver.on_stored(effect.path)
        self.pump()

    def compact(self) -> None:
        """Ask for a snapshot of all that was delivered; `finish_store` ends it."""
        term = self.node.entries()[self.node.delivered_index - self.node.base_index - 1].term
        snapshot = Snapshot(self.node.delivered_index, term, b"snapshot")
        self.execute(self.driver.compact(snapshot, self.now_ms))

    def take_sent(self) -> list[str]:
        """What left since the last look: message names with their receivers."""
        sent = [f"{request.kind}->{peer}" for peer, request in self.network]
        self.network.clear()
        return sent

    def become_leader(self, sync: bool = True) -> None:
        """For a single voter."""
        self.finish_all_syncs()
        self.tick()
        self.finish_all_syncs()
