"""What a follower says to an append, or to a snapshot, which it confirms like one."""

from __future__ import annotations

from raft.messages import AppendEntries, AppendEntriesResponse, InstallSnapshot
from raft.state import RaftState


def accept(state: RaftState, request: AppendEntries | InstallSnapshot, match_index: int) -> None:
    """Our log is the leader's up to `match_index`; sent when that is on disk."""
    _answer(state, request, accepted=True, match_index=match_index)


def refuse(
    state: RaftState, request: AppendEntries, prev_index: int, hint: tuple[int | None, int]
) -> None:
    """Nothing was taken. `hint`: (conflict term, conflict index) of `RaftLog.conflict_hint`."""
    _answer(state, request, accepted=False, match_index=0, prev_index=prev_index, hint=hint)


def _answer(
    state: RaftState,
    request: AppendEntries | InstallSnapshot,
    *,
    accepted: bool,
    match_index: int,
    prev_index: int = 0,
    hint: tuple[int | None, int] = (None, 0),
) -> None:
    conflict_term, conflict_index = hint
    state.send(
        AppendEntriesResponse(
            from_id=state.config.node_id,
            from_disk_id=state.config.disk_id,
            to_id=request.from_id,
            to_disk_id=request.from_disk_id,
            term=state.term,
            accepted=accepted,
            match_index=match_index,
            prev_index=prev_index,
            conflict_term=conflict_term,
            conflict_index=conflict_index,
        )
    )
