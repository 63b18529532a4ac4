"""Messages in few words: `said(VoteRequest, 2, 1, term=3)` is a vote request from node 2 to node 1,
both on their own disks, with the plainest values in all other fields."""

from __future__ import annotations

from typing import Any, TypeVar

from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Header,
    InstallSnapshot,
    InstallSnapshotResponse,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import Entry

M = TypeVar("M", bound=Header)

PLAIN: dict[type[Header], dict[str, Any]] = {
    PreVoteRequest: {"last_index": 0, "last_term": 0},
    PreVoteResponse: {"asked_term": 0, "granted": True},
    VoteRequest: {"last_index": 0, "last_term": 0, "leadership_transfer": False},
    VoteResponse: {"granted": True},
    AppendEntries: {"prev_index": 0, "prev_term": 0, "entries": (), "commit_index": 0},
    AppendEntriesResponse: {
        "accepted": True,
        "match_index": 0,
        "prev_index": 0,
        "conflict_term": None,
        "conflict_index": 0,
    },
    InstallSnapshot: {},
    InstallSnapshotResponse: {},
    TimeoutNow: {},
}


def said(kind: type[M], from_id: int, to_id: int, term: int, **fields: Any) -> M:
    """A message of `kind`; any field can be given, also the disk ids."""
    values: dict[str, Any] = {
        "from_id": from_id,
        "from_disk_id": f"d{from_id}",
        "to_id": to_id,
        "to_disk_id": f"d{to_id}",
        "term": term,
        **PLAIN[kind],
        **fields,
    }
    return kind(**values)


def entries_of(*terms: int, first_index: int = 1) -> tuple[Entry, ...]:
    """Entries of these terms at ascending indexes."""
    return tuple(Entry(first_index + n, term, b"t%d" % term) for n, term in enumerate(terms))
