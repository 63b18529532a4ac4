"""Where requests wait: order, deadlines, replacement."""

from __future__ import annotations

from broker.events import Connection, Plane
from broker.purgatory import AwaitedPart, ParkedFetch, ParkedProduce, Purgatory, failed_part
from broker.wire.errors import ErrorCode
from broker.wire.messages import ACKS_ALL, Appended, FetchRequest, Isolation

KEY = ("t", 0)


def connection(name: bytes) -> Connection:
    return Connection(Plane.BROKER, name)


def produce(deadline_ms: int = 1_000, parts: int = 1) -> ParkedProduce:
    return ParkedProduce(
        connection(b"p"), 1, ACKS_ALL, deadline_ms, (KEY,) * parts, [None] * parts, parts
    )


def fetch(name: bytes, deadline_ms: int = 1_000, key: tuple[str, int] = KEY) -> ParkedFetch:
    request = FetchRequest(-1, -1, 1, -1, 500, 1, 1_000, Isolation.READ_UNCOMMITTED, ())
    return ParkedFetch(connection(name), 1, request, deadline_ms, (key,))


def test_parts_come_out_when_the_watermark_passes_them_in_order() -> None:
    purgatory = Purgatory()
    parts = [AwaitedPart(produce(), 0, end - 1, end) for end in (10, 20, 30)]
    for part in parts:
        purgatory.await_commit(KEY, part)
    assert purgatory.committed(KEY, 9) == []
    assert purgatory.committed(KEY, 20) == parts[:2]
    assert purgatory.committed(KEY, 20) == []
    assert purgatory.all_committing(KEY) == parts[2:]


def test_a_duplicate_waits_for_its_old_place_not_behind_younger_batches() -> None:
    purgatory = Purgatory()
    young = AwaitedPart(produce(), 0, 29, 30)
    duplicate = AwaitedPart(produce(), 0, 9, 10)
    purgatory.await_commit(KEY, young)
    purgatory.await_commit(KEY, duplicate)
    assert purgatory.committed(KEY, 10) == [duplicate]


def test_own_writes_and_commits_are_awaited_apart() -> None:
    purgatory = Purgatory()
    part = AwaitedPart(produce(), 0, 0, 1)
    purgatory.await_write(KEY, part)
    assert purgatory.committed(KEY, 5) == []
    assert purgatory.written(KEY, 5) == [part]


def test_the_first_verdict_on_a_part_stands() -> None:
    parked = produce(parts=2)
    timed_out = failed_part(KEY, ErrorCode.REQUEST_TIMED_OUT, Appended.MAYBE)
    fenced = failed_part(KEY, ErrorCode.NOT_LEADER_OR_FOLLOWER, Appended.MAYBE)
    assert not parked.resolve(0, timed_out)
    assert not parked.resolve(0, fenced)
    assert parked.resolve(1, fenced)
    assert [part.error for part in parked.response().parts] == [timed_out.error, fenced.error]


def test_deadlines_name_only_who_still_waits() -> None:
    purgatory = Purgatory()
    answered, waiting = produce(100), produce(200)
    purgatory.park_produce(answered)
    purgatory.park_produce(waiting)
    purgatory.park_fetch(fetch(b"a", 150))
    answered.open_parts = 0
    assert purgatory.next_deadline_ms() == 150
    assert purgatory.expired(149) == ([], [])
    produces, fetches = purgatory.expired(200)
    assert produces == [waiting]
    assert [parked.connection.routing_id for parked in fetches] == [b"a"]
    waiting.open_parts = 0
    assert purgatory.next_deadline_ms() > 10**15


def test_a_fetch_is_found_by_its_partitions_until_it_is_taken() -> None:
    purgatory = Purgatory()
    purgatory.park_fetch(fetch(b"a"))
    purgatory.park_fetch(fetch(b"b"))
    purgatory.park_fetch(fetch(b"c", key=("t", 1)))
    names = [parked.connection.routing_id for parked in purgatory.fetches_on([KEY, KEY])]
    assert names == [b"a", b"b"]
    assert purgatory.take_fetch(connection(b"a")) is not None
    assert purgatory.take_fetch(connection(b"a")) is None
    assert [p.connection.routing_id for p in purgatory.fetches_on([KEY])] == [b"b"]
