"""From what the client library tells to events of a history: the same for real and simulated
clients."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.history import Attempt, HistoryWriter, PolledPartition, parse_value, payload_crc
from client.delivery import RecordHandle
from client.fetched import ConsumerRecord
from client.fetcher import PositionChanged

NO_CODE = -1


def write_end(history: HistoryWriter, op: int, time_ns: int, handle: RecordHandle) -> str:
    """The end of a send whose handle is done: ok, fail or info, which is returned."""
    attempts = _attempts(handle)
    error = handle.exception()
    if error is None:
        where = handle.result(0)
        history.ok(op, time_ns, where.partition, where.offset, where.leader_epoch, attempts)
        return "ok"
    if error.definite:
        history.fail(op, time_ns, error.code.name, attempts)
        return "fail"
    history.info(op, time_ns, error.code.name, attempts)
    return "info"


def _attempts(handle: RecordHandle) -> list[Attempt]:
    return [
        Attempt(
            attempt.node_id,
            attempt.leader_epoch,
            NO_CODE if attempt.error is None else int(attempt.error),
            attempt.appended.name.lower(),
        )
        for attempt in handle.attempts
    ]


def polled_partitions(records: Sequence[ConsumerRecord]) -> list[PolledPartition]:
    """What one poll returned, by partition, in its order."""
    columns: dict[tuple[str, int], tuple[list[int], list[int], list[int], list[int]]] = {}
    for record in records:
        offsets, uids, counters, crcs = columns.setdefault(
            (record.topic, record.partition), ([], [], [], [])
        )
        uid, counter = parse_value(record.value)
        offsets.append(record.offset)
        uids.append(uid)
        counters.append(counter)
        crcs.append(payload_crc(record.value, record.key))
    return [
        PolledPartition(topic, partition, -1, *lists)
        for (topic, partition), lists in columns.items()
    ]


def write_position(
    history: HistoryWriter, time_ns: int, process: int, event: PositionChanged
) -> None:
    """A position that was set other than by reading."""
    place = (event.topic, event.partition)
    if event.reason == "out of range":
        history.consumer(time_ns, process, "out_of_range", *place, event.old_offset)
    kind = {"seek": "seek", "initial": "assign", "out of range": "reset"}[event.reason]
    history.consumer(time_ns, process, kind, *place, event.new_offset)
