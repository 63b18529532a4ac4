"""METADATA_FETCH: a voter gives committed entries to nodes that are no voters, or parks them."""

from __future__ import annotations

from dataclasses import dataclass

from broker.events import Connection
from broker.outbox import Outbox
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    MetadataEntry,
    MetadataFetchRequest,
    MetadataFetchResponse,
    SnapshotPart,
)
from raft.node import RaftNode
from raft.types import Snapshot

ENTRIES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Parked:
    connection: Connection
    correlation_id: int
    request: MetadataFetchRequest
    deadline_ms: int


class MetadataFetchHandler:
    def __init__(self, cluster_id: str, outbox: Outbox) -> None:
        self.cluster_id = cluster_id
        self.outbox = outbox
        self._parked: dict[int, Parked] = {}
        """By node: a newer request replaces the parked one, which nobody waits for any more."""

    def handle(
        self,
        connection: Connection,
        correlation_id: int,
        request: MetadataFetchRequest,
        node: RaftNode | None,
        now_ms: int,
    ) -> None:
        if request.cluster_id != self.cluster_id:
            error = ErrorCode.INCONSISTENT_CLUSTER_ID
            response = MetadataFetchResponse(error, -1, -1, (), None)
            self.outbox.reply(connection, correlation_id, response)
            return
        if node is None:
            # Our own metadata log is not yet on disk: let another voter be asked.
            response = MetadataFetchResponse(ErrorCode.BUSY, -1, -1, (), None)
            self.outbox.reply(connection, correlation_id, response)
            return
        wait_ms = min(max(request.max_wait_ms, 0), 60_000)
        parked = Parked(connection, correlation_id, request, now_ms + wait_ms)
        if node.commit_index >= request.from_index or wait_ms == 0:
            self._answer(parked, node)
        else:
            self._parked[request.node_id] = parked

    def tick(self, node: RaftNode | None, now_ms: int) -> None:
        """Answer who waited for what is now committed, or for too long."""
        if node is None:  # then nobody waits
            return
        due = [
            parked
            for parked in self._parked.values()
            if parked.deadline_ms <= now_ms or node.commit_index >= parked.request.from_index
        ]
        for parked in due:
            del self._parked[parked.request.node_id]
            self._answer(parked, node)

    def _answer(self, parked: Parked, node: RaftNode) -> None:
        request, commit_index = parked.request, node.commit_index
        entries: list[MetadataEntry] = []
        size_bytes = 0
        part: SnapshotPart | None = None
        if request.from_index <= node.base_index and node.snapshot is not None:
            part = _part(node.snapshot, request)
        elif request.from_index <= commit_index:
            for entry in node.entries_from(max(request.from_index, 1), ENTRIES_MAX):
                size_bytes += len(entry.data)
                if entries and size_bytes > request.max_bytes:
                    break
                entries.append(MetadataEntry(entry.index, entry.term, entry.data))
        response = MetadataFetchResponse(
            ErrorCode.NONE,
            -1 if node.leader_id is None else node.leader_id,
            commit_index,
            tuple(entries),
            part,
        )
        self.outbox.reply(parked.connection, parked.correlation_id, response)

    def next_deadline_ms(self) -> int | None:
        return min((parked.deadline_ms for parked in self._parked.values()), default=None)


def _part(snapshot: Snapshot, request: MetadataFetchRequest) -> SnapshotPart:
    """What follows of a snapshot that the asker has begun to read, or its beginning."""
    is_same = request.snapshot_index == snapshot.index
    start = max(request.snapshot_position, 0) if is_same else 0
    data = snapshot.data[start : start + max(request.max_bytes, 1)]
    return SnapshotPart(snapshot.index, snapshot.term, len(snapshot.data), start, data)
