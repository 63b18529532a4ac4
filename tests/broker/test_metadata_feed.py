"""A node that is no voter learns by entries, or by a snapshot where entries are gone."""

from __future__ import annotations

from broker.events import Send
from broker.metadata_feed import MetadataFeed
from broker.outbox import Outbox
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    MetadataEntry,
    MetadataFetchRequest,
    MetadataFetchResponse,
    SnapshotPart,
)
from raft.types import Entry, Snapshot


class Asker:
    def __init__(self) -> None:
        self.outbox = Outbox(8, "off")
        self.feed = MetadataFeed("trial", 8, (1, 2), self.outbox, 1_000)
        self.now_ms = 0

    def asked(self) -> tuple[int, int, int, int]:
        """(voter, first index, snapshot, position) of a new request."""
        self.now_ms += 1_000
        self.feed.poll(self.now_ms)
        (send,) = [effect for effect in self.outbox.take() if isinstance(effect, Send)]
        request = send.body
        assert isinstance(request, MetadataFetchRequest)
        return send.peer, request.from_index, request.snapshot_index, request.snapshot_position

    def told(
        self, *entries: int, part: SnapshotPart | None = None, error: ErrorCode = ErrorCode.NONE
    ) -> tuple[Entry | Snapshot, ...]:
        rows = tuple(MetadataEntry(index, 1, b"%d" % index) for index in entries)
        response = MetadataFetchResponse(error, 1, 99, rows, part)
        assert self.feed.correlation_id is not None
        return self.feed.on_response(self.feed.correlation_id, response, self.now_ms)


def part(index: int, position: int, data: bytes, size_bytes: int = 6) -> SnapshotPart:
    return SnapshotPart(index, 1, size_bytes, position, data)


def test_entries_come_each_once_and_in_order() -> None:
    asker = Asker()
    assert asker.asked() == (1, 1, 0, 0)
    assert asker.told(1, 2) == (Entry(1, 1, b"1"), Entry(2, 1, b"2"))
    assert asker.asked() == (1, 3, 0, 0)
    assert asker.told(2, 3) == (Entry(3, 1, b"3"),)


def test_a_snapshot_comes_in_parts_and_entries_follow_it() -> None:
    asker = Asker()
    asker.asked()
    assert asker.told(part=part(7, 0, b"abcd")) == ()
    assert asker.asked() == (1, 1, 7, 4)
    assert asker.told(part=part(7, 4, b"ef")) == (Snapshot(7, 1, b"abcdef"),)
    assert asker.asked() == (1, 8, 0, 0)
    assert asker.told(8) == (Entry(8, 1, b"8"),)


def test_another_voter_may_have_made_other_bytes_of_it() -> None:
    asker = Asker()
    asker.asked()
    asker.told(part=part(7, 0, b"abcd"))
    asker.asked()
    asker.told(error=ErrorCode.BUSY)
    assert asker.asked() == (2, 1, 0, 0), "from its beginning"


def test_a_voter_that_made_a_newer_one_meanwhile_begins_with_that() -> None:
    asker = Asker()
    asker.asked()
    asker.told(part=part(7, 0, b"abcd"))
    asker.asked()
    assert asker.told(part=part(9, 0, b"xyz")) == ()
    assert asker.asked() == (1, 1, 9, 3)
    assert asker.told(part=part(9, 3, b"uvw")) == (Snapshot(9, 1, b"xyzuvw"),)


def test_parts_that_do_not_fit_are_asked_for_anew() -> None:
    asker = Asker()
    asker.asked()
    assert asker.told(part=part(7, 4, b"ef")) == ()
    assert asker.asked() == (1, 1, 0, 0)


def test_a_snapshot_of_what_is_known_changes_nothing() -> None:
    asker = Asker()
    asker.asked()
    asker.told(1, 2, 3)
    asker.asked()
    assert asker.told(part=part(2, 0, b"abcdef")) == ()
    assert asker.asked()[1] == 4
