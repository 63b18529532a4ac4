"""Raft's messages on the wire: there and back, and nothing malformed reaches a voter."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.quorum.raft_codec import KINDS, RaftCodecError, decode_message, encode_message
from broker.wire.messages import RaftRequest
from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVoteRequest,
    PreVoteResponse,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import Entry

number = st.integers(0, 2**40)
disk = st.text(max_size=6)
head = {
    "from_id": st.integers(1, 9),
    "from_disk_id": disk,
    "to_id": st.integers(1, 9),
    "to_disk_id": disk,
}


@st.composite
def appends(draw: st.DrawFn) -> AppendEntries:
    index, term = draw(number), draw(st.integers(0, 5))
    entries = []
    for position in range(draw(st.integers(0, 4))):
        term += draw(st.integers(0, 2))
        entries.append(Entry(index + 1 + position, term, draw(st.binary(max_size=5))))
    return AppendEntries(
        **{name: draw(values) for name, values in head.items()},
        term=term + draw(st.integers(0, 2)),
        prev_index=index,
        prev_term=entries[0].term if entries else term,
        entries=tuple(entries),
        commit_index=draw(number),
    )


MESSAGES = st.one_of(
    st.builds(PreVoteRequest, **head, term=number, last_index=number, last_term=number),
    st.builds(PreVoteResponse, **head, term=number, asked_term=number, granted=st.booleans()),
    st.builds(
        VoteRequest,
        **head,
        term=number,
        last_index=number,
        last_term=number,
        leadership_transfer=st.booleans(),
    ),
    st.builds(VoteResponse, **head, term=number, granted=st.booleans()),
    appends(),
    st.builds(
        AppendEntriesResponse,
        **head,
        term=number,
        accepted=st.booleans(),
        match_index=number,
        prev_index=number,
        conflict_term=st.none() | number,
        conflict_index=number,
    ),
    st.builds(TimeoutNow, **head, term=number),
)


@settings(deadline=None, derandomize=True, database=None)
@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: RaftMessage) -> None:
    request = encode_message("trial", message)
    assert (request.cluster_id, request.from_id) == ("trial", message.from_id)
    assert decode_message(request) == message


def test_kinds_are_for_ever() -> None:
    assert {kind: message_type.__name__ for kind, message_type in KINDS.items()} == {
        1: "PreVoteRequest",
        2: "PreVoteResponse",
        3: "VoteRequest",
        4: "VoteResponse",
        5: "AppendEntries",
        6: "AppendEntriesResponse",
        7: "TimeoutNow",
        8: "InstallSnapshot",
        9: "InstallSnapshotResponse",
    }


APPEND = AppendEntries(
    from_id=1,
    from_disk_id="a",
    to_id=2,
    to_disk_id="b",
    term=3,
    prev_index=4,
    prev_term=2,
    entries=(Entry(5, 2, b"x"), Entry(6, 3, b"y")),
    commit_index=4,
)


@pytest.mark.parametrize(
    "malformed",
    [
        replace(APPEND, term=-1),
        replace(APPEND, prev_index=-1, entries=()),
        replace(APPEND, prev_term=-1),
        replace(APPEND, commit_index=-1),
        replace(APPEND, prev_index=3),  # a hole
        replace(APPEND, prev_term=3),  # falling terms
        replace(APPEND, term=2),  # an entry of a term that the sender has not reached
        replace(APPEND, entries=(Entry(5, 3, b"x"), Entry(6, 2, b"y"))),
        replace(APPEND, entries=(Entry(5, 2, b"x"), Entry(5, 2, b"y"))),
    ],
)
def test_entries_that_no_leader_sends_are_refused(malformed: AppendEntries) -> None:
    """They would violate the log's invariants, and stop a healthy voter."""
    assert decode_message(encode_message("trial", APPEND)) == APPEND
    with pytest.raises(RaftCodecError):
        decode_message(encode_message("trial", malformed))


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (RaftRequest("trial", 1, 10, b"\x90"), "unknown Raft message kind 10"),
        (RaftRequest("trial", 1, 7, b""), "not msgpack"),
        (RaftRequest("trial", 1, 7, b"\x93\x01"), "not msgpack"),
        (RaftRequest("trial", 1, 7, b"\x90"), "not a row of 5 fields for TimeoutNow"),
        (
            RaftRequest("trial", 1, 7, msgpack.packb([1, "a", 2, "b", "3"])),
            "TimeoutNow.term cannot be str",
        ),
        (RaftRequest("trial", 4, 7, msgpack.packb([1, "a", 2, "b", 3])), "the message says 1"),
        (RaftRequest("trial", 1, 5, b"\xdd\xff\xff\xff\xff"), "not msgpack"),
        (RaftRequest("trial", 1, 5, b"\xdc\xff\xff" * 20_000), "array of 65535"),
    ],
)
def test_other_bytes_are_refused(request_: RaftRequest, what: str) -> None:
    with pytest.raises(RaftCodecError, match=what):
        decode_message(request_)
