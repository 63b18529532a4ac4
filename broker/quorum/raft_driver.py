"""The one loop that does for a RaftNode what `raft/ready.py` demands, in effects.

Promises leave only after their `Synced`: the driver holds them back together with the Ready that
they belong to. Nothing at all leaves before the recovered log is synced: until then there is no
RaftNode, and what arrives is dropped, as a network may drop it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from broker.config import NodeConfig
from broker.events import (
    Effect,
    Fact,
    Halt,
    Plane,
    Send,
    Store,
    StoreFailed,
    Sync,
    SyncToken,
)
from broker.ports import Disk, DiskError
from broker.quorum.raft_codec import RaftCodecError, decode_message, encode_message
from broker.quorum.raft_store import PATH, RaftStore, RaftStoreError, Recovered
from broker.wire.messages import RaftRequest
from raft.messages import RaftMessage
from raft.node import RaftNode
from raft.ready import Ready
from raft.types import Entry, RaftConfig, Snapshot, Voter

RAFT_LOG = ("raft", 0)
"""The log that a SyncToken of the metadata quorum names."""


FULL_DISK_RETRY_MS = 100
COMPACTION_RETRY_MS = 10_000


@dataclass(frozen=True, slots=True)
class DriverOutput:
    """Effects in order, and the entries that have become committed, in order, each once. A snapshot
    among them stands for all entries up to its index."""

    effects: tuple[Effect, ...]
    committed: tuple[Entry | Snapshot, ...]


def raft_config(config: NodeConfig, disk_id: str) -> RaftConfig:
    """Raft's settings of this voter. ValueError when node and disk are not among the voters."""
    named = {voter.node_id: voter.disk_id for voter in config.voters}.get(config.node_id)
    if named != disk_id:
        raise ValueError(
            f"node {config.node_id} has disk {disk_id}, but the voters name "
            f"{'disk ' + named if named else 'no such node'}: a voter that lost its disk has "
            "forgotten its votes and must not vote again"
        )
    return RaftConfig(
        node_id=config.node_id,
        disk_id=disk_id,
        voters=tuple(Voter(voter.node_id, voter.disk_id) for voter in config.voters),
        heartbeat_ms=config.controller_quorum_heartbeat_ms,
        election_timeout_ms_min=config.controller_quorum_election_timeout_ms,
        election_timeout_ms_max=2 * config.controller_quorum_election_timeout_ms,
        check_quorum_ms=config.controller_quorum_check_ms,
    )


class RaftDriver:
    """One voter: a RaftNode, its file, and at most one sync under way.

    In each turn: `on_pause` if there was one, `step` for all that arrived, `on_synced`, `tick`;
    then `pump`, which alone produces effects. After a `Halt` nothing more comes out.
    """

    def __init__(
        self, config: NodeConfig, disk_id: str, disk: Disk, draw: Callable[[str, int, int], int]
    ) -> None:
        self._config = config
        self._disk_id = disk_id
        self._draw = draw
        self._store = RaftStore(disk)
        self._recovered: Recovered | None = None
        self._node: RaftNode | None = None
        self._outstanding: Ready | None = None
        self._unwritten: Ready | None = None
        """The outstanding one, while the disk has no room for it."""
        self._retry_at_ms = 0
        # The sync under way: whose Synced we wait for, and when we stop waiting.
        self._token: SyncToken | None = None
        self._stall_deadline_ms = 0
        self._sync_count = 0
        # The file is being replaced by this one; the snapshot if it is of our own making.
        self._whole: bytes | None = None
        self._compaction: Snapshot | None = None
        self._compact_not_before_ms = 0
        # What the recovered file says of the state machine, until it is given out.
        self._recovered_snapshot: Snapshot | None = None
        self._halt_reason: str | None = None
        self._is_halted = False
        self._told_role: tuple[str, int, int] | None = None

    @property
    def node(self) -> RaftNode | None:
        """The voter, to be looked at; None until the recovered log is durable."""
        return self._node

    @property
    def is_leader(self) -> bool:
        return self._node is not None and self._node.is_leader

    # -- inputs ------------------------------------------------------------------------------------

    def start(self, now_ms: int) -> tuple[Effect, ...]:
        """Read the file and sync it. Halt when it is damaged, foreign, or not this voter's."""
        try:
            raft_config(self._config, self._disk_id)
            self._recovered = self._store.open()
        except (ValueError, RaftStoreError, DiskError) as error:
            return self._halt(str(error))
        return (self._sync(now_ms),)

    def step(self, request: RaftRequest, now_ms: int) -> bool:
        """Take in a message. False: it was not a Raft message of this cluster's voters for us."""
        if self._node is None or request.cluster_id != self._config.cluster_id:
            return False
        try:
            message = decode_message(request)
        except RaftCodecError:
            return False
        return self._node.step(message, now_ms)

    def tick(self, now_ms: int) -> None:
        if self._is_waiting and now_ms >= self._stall_deadline_ms:
            self._halt_reason = (
                f"sync of the metadata log hangs for {self._config.disk_stall_ms_max} ms"
            )
        if self._node is not None:
            self._node.tick(now_ms)

    def on_pause(self, gap_ms: int, now_ms: int) -> None:
        self._stall_deadline_ms += gap_ms
        if self._node is not None:
            self._node.on_pause(gap_ms, now_ms)

    def propose(self, data: bytes) -> int | None:
        """Append an entry; its index, or None when not leader (see RaftNode.propose)."""
        return None if self._node is None else self._node.propose(data)

    def hand_over(self) -> None:
        """Let another voter lead, if it can (see RaftNode.hand_over)."""
        if self._node is not None:
            self._node.hand_over()

    def on_synced(self, token: SyncToken, now_ms: int) -> None:
        """The sync under way is done; any other token is stale and ignored."""
        if token != self._token:
            return
        self._token = None
        if self._recovered is not None:
            self._become_voter(self._recovered, now_ms)
            self._recovered = None

    def on_sync_failed(self, token: SyncToken, reason: str) -> None:
        """What is on disk is unknown now and would stay so: the voter stops (never retried)."""
        if token == self._token:
            self._halt_reason = f"sync of the metadata log failed: {reason}"

    def on_stored(self, path: str) -> None:
        """The file was replaced, by our own snapshot or a leader's."""
        if path != PATH or self._whole is None:
            return
        self._store.on_replaced()
        self._whole = None
        if self._compaction is not None:
            assert self._node is not None
            if self._compaction.index > self._node.base_index:  # else a leader's overtook it
                self._node.compact(self._compaction)
            self._compaction = None

    def on_store_failed(self, failed: StoreFailed, now_ms: int) -> None:
        """A file that is still the old one, and will be, is as good as before: nobody was promised
        the new one yet, try again later. If it is the new one, or may yet become it, nobody knows
        what a later start will find."""
        if failed.path != PATH or self._whole is None:
            return
        if failed.hangs or self._store.holds(self._whole):
            self._halt_reason = f"the metadata log cannot be replaced: {failed.reason}"
            return
        self._whole = None
        if self._compaction is not None:
            self._compaction = None
            self._compact_not_before_ms = now_ms + COMPACTION_RETRY_MS
        else:
            self._unwritten = self._outstanding
            self._retry_at_ms = now_ms + FULL_DISK_RETRY_MS

    @property
    def wants_snapshot(self) -> bool:
        """The file has grown by more than a snapshot is worth, and nothing is being written."""
        node = self._node
        if node is None or self._is_waiting or self._outstanding is not None:
            return False
        size_bytes = 0 if node.snapshot is None else len(node.snapshot.data)
        return (
            self._store.grown_bytes
            > max(size_bytes, self._config.metadata_log_max_bytes_between_snapshots)
            and node.base_index < node.delivered_index <= node.durable_index
        )

    def compact(self, snapshot: Snapshot, now_ms: int) -> tuple[Effect, ...]:
        """Let a snapshot of all that was delivered take the place of the entries."""
        assert self._node is not None
        assert snapshot.index == self._node.delivered_index, "a snapshot of what is not applied"
        if now_ms < self._compact_not_before_ms:
            return ()
        self._compaction = snapshot
        on_disk = range(snapshot.index + 1, self._node.durable_index + 1)
        behind = tuple(entry for entry in self._node.entries() if entry.index in on_disk)
        return (self._replace(self._store.whole(snapshot, None, behind), now_ms),)

    # -- outputs -----------------------------------------------------------------------------------

    def pump(self, now_ms: int) -> DriverOutput:
        """Everything that is to be done now."""
        effects: list[Effect] = []
        committed: list[Entry | Snapshot] = []
        if self._is_halted:
            return DriverOutput((), ())
        if self._recovered_snapshot is not None:
            committed.append(self._recovered_snapshot)
            self._recovered_snapshot = None
        if self._halt_reason is None and self._node is not None:
            self._turn(self._node, now_ms, effects, committed)
        if self._halt_reason is not None:
            effects += self._halt(self._halt_reason)
        return DriverOutput(tuple(effects), tuple(committed))

    def next_deadline_ms(self) -> int | None:
        """When `tick` has something to do at the latest; None: only a Synced can move us."""
        deadlines = []
        if self._node is not None:
            deadlines.append(self._node.next_deadline_ms())
        if self._is_waiting:
            deadlines.append(self._stall_deadline_ms)
        if self._unwritten is not None:
            deadlines.append(self._retry_at_ms)
        return min(deadlines, default=None)

    # -- the order of raft/ready.py ----------------------------------------------------------------

    def _turn(
        self,
        node: RaftNode,
        now_ms: int,
        effects: list[Effect],
        committed: list[Entry | Snapshot],
    ) -> None:
        if self._unwritten is not None and now_ms >= self._retry_at_ms:
            self._write(self._unwritten, now_ms, effects)
        while not self._is_waiting and self._unwritten is None and self._halt_reason is None:
            if self._outstanding is not None:
                # Its sync is done: what it promises is durable.
                effects += self._sends(self._outstanding.messages_after_durable)
                ready, self._outstanding = self._outstanding, None
                node.advance(ready)
            self._tell_role(node, effects)
            next_ready = node.ready()
            if next_ready is None:
                break
            self._outstanding = next_ready
            effects += self._sends(next_ready.messages_now)
            if next_ready.snapshot is not None:
                committed.append(next_ready.snapshot)
            committed += next_ready.committed
            if next_ready.must_sync:
                self._write(next_ready, now_ms, effects)
        self._tell_role(node, effects)
        if self._unwritten is None:
            effects += self._sends(node.messages_beside_sync())

    def _write(self, ready: Ready, now_ms: int, effects: list[Effect]) -> None:
        """Write and begin to sync. A disk without room is asked again later. Until then this voter
        promises nothing and, if it leads, sends no heartbeats: it could not apply what it commits.
        """
        self._unwritten = None
        if ready.snapshot is not None:
            whole = self._store.whole(ready.snapshot, ready.hard_state, ready.entries)
            effects.append(self._replace(whole, now_ms))
            return
        try:
            self._store.append(ready.hard_state, ready.entries)
        except DiskError as error:
            if error.errno == errno.ENOSPC and error.unchanged:
                self._unwritten = ready
                self._retry_at_ms = now_ms + FULL_DISK_RETRY_MS
            else:
                self._halt_reason = f"the metadata log cannot be written: {error}"
            return
        effects.append(self._sync(now_ms))

    def _tell_role(self, node: RaftNode, effects: list[Effect]) -> None:
        role = (node.role.value, node.term, -1 if node.leader_id is None else node.leader_id)
        if role != self._told_role:
            self._told_role = role
            effects.append(
                Fact("RaftRole", details={"role": role[0], "term": role[1], "leader": role[2]})
            )

    def _become_voter(self, recovered: Recovered, now_ms: int) -> None:
        self._node = RaftNode(
            raft_config(self._config, self._disk_id),
            recovered.hard_state,
            recovered.entries,
            lambda low, high: self._draw("election_timeout", low, high),
            now_ms,
            recovered.snapshot,
        )
        self._recovered_snapshot = recovered.snapshot

    @property
    def _is_waiting(self) -> bool:
        """The disk has been asked for something, and nothing more is written before it answers."""
        return self._token is not None or self._whole is not None

    def _replace(self, whole: bytes, now_ms: int) -> Store:
        self._whole = whole
        self._sync_count += 1
        self._stall_deadline_ms = now_ms + self._config.disk_stall_ms_max
        return Store(PATH, self._sync_count, whole)

    def _sync(self, now_ms: int) -> Sync:
        files, directories = self._store.sync_files()
        self._sync_count += 1
        self._token = SyncToken(RAFT_LOG, self._sync_count, self._store.end_position)
        self._stall_deadline_ms = now_ms + self._config.disk_stall_ms_max
        return Sync(self._token, files, directories)

    def _sends(self, messages: Iterable[RaftMessage]) -> list[Send]:
        return [
            Send(
                message.to_id,
                Plane.CONTROLLER,
                correlation_id=0,
                body=encode_message(self._config.cluster_id, message),
                one_way=True,
            )
            for message in messages
        ]

    def _halt(self, reason: str) -> tuple[Effect, ...]:
        self._is_halted = True
        self._node = None
        return (Halt(reason),)
