"""What travels when the entries a follower lacks are gone: a snapshot, in chunks (paper 7).

One chunk at a time is on its way to a follower; a heartbeat repeats it, so that lost messages need
no timer. A follower that has all of it asks its driver to store it in place of its log, and
confirms it like an append once that is durable: from then on it is a follower like any other.
"""

from __future__ import annotations

from raft import append_answers, election
from raft.messages import InstallSnapshot, InstallSnapshotResponse
from raft.progress import Progress
from raft.state import Incoming, RaftState
from raft.types import Role, Snapshot


def queue_chunk(state: RaftState, voter_id: int, progress: Progress) -> None:
    """The chunk that this follower waits for, unless it is on its way and no heartbeat is due."""
    snapshot = state.snapshot
    assert snapshot is not None, "entries are gone only when a snapshot stands for them"
    if progress.snapshot_index != snapshot.index:
        progress.begin_snapshot(snapshot.index)
    if progress.chunk_is_out and not progress.heartbeat_is_due:
        return
    progress.chunk_is_out = True
    voter = state.peer(voter_id)
    # Of what has wholly arrived the last byte is repeated: the answer may have been lost.
    start = min(progress.snapshot_position, max(len(snapshot.data) - 1, 0))
    state.send(
        InstallSnapshot(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=voter.node_id,
            to_disk_id=voter.disk_id,
            term=state.term,
            snapshot_index=snapshot.index,
            snapshot_term=snapshot.term,
            size_bytes=len(snapshot.data),
            position=start,
            data=snapshot.data[start : start + state.config.append_bytes_max],
        )
    )


def on_install_snapshot(state: RaftState, request: InstallSnapshot) -> None:
    """Take in a chunk, also one that comes again; install the snapshot when it is whole."""
    if request.term < state.term:
        _answer(state, request, position=0)
        return
    election.hear_leader(state, request.term, request.from_id)
    if request.snapshot_index <= state.log.commit_index:
        # All that it stands for is here, and committed.
        append_answers.accept(state, request, request.snapshot_index)
        return
    incoming = state.incoming
    place = (request.term, request.snapshot_index, request.snapshot_term)
    if incoming is None or (incoming.leader_term, incoming.index, incoming.term) != place:
        incoming = state.incoming = Incoming(*place)
    if request.position <= len(incoming.data):
        incoming.data[request.position :] = request.data
    if len(incoming.data) < request.size_bytes:
        _answer(state, request, position=len(incoming.data))
        return
    state.incoming = None
    if state.log.matches(request.snapshot_index, request.snapshot_term):
        # The log holds what the snapshot stands for, and more: nothing is to be thrown away.
        state.log.commit_to(request.snapshot_index)
    else:
        snapshot = Snapshot(incoming.index, incoming.term, bytes(incoming.data))
        state.snapshot = state.installing = snapshot
        state.log.restore(snapshot.index, snapshot.term)
    append_answers.accept(state, request, request.snapshot_index)


def _answer(state: RaftState, request: InstallSnapshot, position: int) -> None:
    state.send(
        InstallSnapshotResponse(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=request.from_id,
            to_disk_id=request.from_disk_id,
            term=state.term,
            snapshot_index=request.snapshot_index,
            position=position,
        )
    )


def on_install_snapshot_response(state: RaftState, response: InstallSnapshotResponse) -> None:
    """Go on where the follower says; any answer of the present term is a sign of life."""
    if response.term > state.term:
        election.become_follower(state, response.term, leader_id=None)
        return
    if response.term < state.term or state.role is not Role.LEADER:
        return
    progress = state.progress_by_voter[response.from_id]
    progress.contact_ms = state.now_ms
    if response.snapshot_index == progress.snapshot_index:
        progress.snapshot_position = response.position
        progress.chunk_is_out = False
