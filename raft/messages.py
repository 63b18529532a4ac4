"""What voters say to each other.

Plain frozen data: ints, strs, bools, bytes, None and `tuple[Entry, ...]`, so that a codec maps a
message to an array field by field. `term` is always the sender's own current term, in requests
and in answers, also in those of a pre-vote (which asks for `term + 1` without taking it).
"""

from __future__ import annotations

from dataclasses import dataclass

from raft.types import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields every message begins with. Who is meant and who speaks is a (node, disk) pair."""

    from_id: int
    from_disk_id: str
    to_id: int
    to_disk_id: str
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreVoteRequest(Header):
    """Would you vote for me in `term + 1`? (thesis 9.6). Changes nothing at either side.

    `last_index`, `last_term`: the end of the sender's log.
    """

    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreVoteResponse(Header):
    """`asked_term` repeats the request's term, so that an answer to an older question is known."""

    asked_term: int
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRequest(Header):
    """Raft paper 5.2 and 5.4.1. `leadership_transfer`: the present leader asked for this election,
    so a voter answers although it has just heard that leader (thesis 3.10)."""

    last_index: int
    last_term: int
    leadership_transfer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResponse(Header):
    """A vote for the receiver in `term`, or a refusal."""

    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendEntries(Header):
    """Raft paper 5.3: append `entries` after (`prev_index`, `prev_term`). Without entries it is a
    heartbeat, a probe, or news of `commit_index`."""

    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendEntriesResponse(Header):
    """Accepted: the log agrees with the leader's, durably, up to `match_index`.

    Refused: there is nothing of `prev_term` at `prev_index` (repeated from the request).
    `conflict_term` is the term that stands there instead and `conflict_index` the first index of
    it that may differ; a log that is too short says None and its end + 1. Fields that mean
    nothing are 0 or None: in a refusal because of a lower term `term` says it all.
    """

    accepted: bool
    match_index: int
    prev_index: int
    conflict_term: int | None
    conflict_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshot(Header):
    """Raft paper 7: a chunk of the snapshot that stands for all entries up to `snapshot_index`, the
    last of them of `snapshot_term`. It has `size_bytes`; this is what is there from `position` on.
    """

    snapshot_index: int
    snapshot_term: int
    size_bytes: int
    position: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshotResponse(Header):
    """The follower has the snapshot up to `position`; a whole one is confirmed like an append."""

    snapshot_index: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow(Header):
    """Leadership transfer (thesis 3.10): start an election now, without pre-vote."""


RaftMessage = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | InstallSnapshot
    | InstallSnapshotResponse
    | TimeoutNow
)
