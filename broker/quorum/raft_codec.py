"""Raft's messages as `RaftRequest`: a kind number, and the msgpack row of the message's fields."""

from __future__ import annotations

from broker.quorum.rows import RowError, from_row, pack, to_row
from broker.wire.bounded_msgpack import MalformedMessage, unpack
from broker.wire.messages import RaftRequest
from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVoteRequest,
    PreVoteResponse,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

KINDS: dict[int, type[RaftMessage]] = {
    1: PreVoteRequest,
    2: PreVoteResponse,
    3: VoteRequest,
    4: VoteResponse,
    5: AppendEntries,
    6: AppendEntriesResponse,
    7: TimeoutNow,
    8: InstallSnapshot,
    9: InstallSnapshotResponse,
}
_KIND_OF = {message_type: kind for kind, message_type in KINDS.items()}


class RaftCodecError(Exception):
    """The request holds no well-formed Raft message."""


def encode_message(cluster_id: str, message: RaftMessage) -> RaftRequest:
    body = pack(to_row(message))
    return RaftRequest(cluster_id, message.from_id, _KIND_OF[type(message)], body)


def decode_message(request: RaftRequest) -> RaftMessage:
    """The message in `request`. Raises RaftCodecError for what no voter of this version sends."""
    message_type = KINDS.get(request.kind)
    if message_type is None:
        raise RaftCodecError(f"unknown Raft message kind {request.kind}")
    try:
        message = from_row(message_type, unpack(request.body))
    except (RowError, MalformedMessage) as error:
        raise RaftCodecError(str(error)) from error
    if message.from_id != request.from_id:
        raise RaftCodecError(f"from {request.from_id}, but the message says {message.from_id}")
    if message.term < 0:
        raise RaftCodecError(f"term {message.term}")
    if isinstance(message, AppendEntries):
        _check_entries(message)
    if isinstance(message, InstallSnapshot):
        _check_chunk(message)
    return message


def _check_chunk(message: InstallSnapshot) -> None:
    """A chunk lies within the snapshot, whose last entry is not of a later term than its sender."""
    end = message.position + len(message.data)
    if not 0 <= message.position < end <= message.size_bytes:
        raise RaftCodecError(f"bytes {message.position} to {end} of {message.size_bytes}")
    if message.snapshot_index < 1 or not 1 <= message.snapshot_term <= message.term:
        raise RaftCodecError(
            f"a snapshot up to entry {message.snapshot_index} of term {message.snapshot_term}"
        )


def _check_entries(message: AppendEntries) -> None:
    """Entries follow `prev` without holes, in terms that neither fall nor pass the sender's."""
    index, term = message.prev_index, message.prev_term
    if index < 0 or term < 0 or message.commit_index < 0:
        raise RaftCodecError("a negative index or term")
    for entry in message.entries:
        if entry.index != index + 1 or not term <= entry.term <= message.term:
            raise RaftCodecError(
                f"entry {entry.index} of term {entry.term} after entry {index} of term {term}"
            )
        index, term = entry.index, entry.term
