"""Where requests wait that cannot be answered yet: produces for commitment, fetches for bytes.

Keeps no batch bytes and decides nothing: callers say what became true and get what to answer.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.events import FAR_MS, Connection
from broker.wire.errors import ErrorCode
from broker.wire.messages import Appended, FetchRequest, ProducePartResult, ProduceResponse

PartitionKey = tuple[str, int]


@dataclass(slots=True)
class ParkedProduce:
    """One PRODUCE request. It is answered when no part is open any more."""

    connection: Connection
    correlation_id: int
    acks: int
    deadline_ms: int
    keys: tuple[PartitionKey, ...]
    results: list[ProducePartResult | None]
    open_parts: int = 0

    def resolve(self, index: int, result: ProducePartResult) -> bool:
        """Settle one part; True when that was the last open one. Later verdicts are ignored."""
        if self.results[index] is not None:
            return False
        self.results[index] = result
        self.open_parts -= 1
        return self.open_parts == 0

    def response(self) -> ProduceResponse:
        return ProduceResponse(tuple(result for result in self.results if result is not None))


@dataclass(slots=True)
class AwaitedPart:
    """A batch in the log that waits until `required_end` is reached by what its acks ask for."""

    parked: ParkedProduce
    index: int
    base_offset: int
    required_end: int


def _required_end(part: AwaitedPart) -> int:
    return part.required_end


@dataclass(slots=True)
class ParkedFetch:
    connection: Connection
    correlation_id: int
    request: FetchRequest
    deadline_ms: int
    keys: tuple[PartitionKey, ...]
    """Those that wake it; none if it is a session's, which knows better."""


@dataclass(slots=True)
class Purgatory:
    """Awaited parts per partition, ordered by what they require; one parked fetch a connection."""

    _committing: dict[PartitionKey, list[AwaitedPart]] = field(default_factory=dict)
    _writing: dict[PartitionKey, list[AwaitedPart]] = field(default_factory=dict)
    _fetches: dict[Connection, ParkedFetch] = field(default_factory=dict)
    _fetches_by_key: dict[PartitionKey, dict[Connection, None]] = field(default_factory=dict)
    _deadlines: list[tuple[int, int, ParkedProduce | ParkedFetch]] = field(default_factory=list)
    _running_number: int = 0

    # -- produces ----------------------------------------------------------------------------------

    def park_produce(self, parked: ParkedProduce) -> None:
        self._add_deadline(parked.deadline_ms, parked)

    def await_commit(self, key: PartitionKey, part: AwaitedPart) -> None:
        """acks=all: until the high watermark reaches the required end."""
        insort(self._committing.setdefault(key, []), part, key=_required_end)

    def await_write(self, key: PartitionKey, part: AwaitedPart) -> None:
        """acks=1: until the leader's own counted end reaches the required end."""
        insort(self._writing.setdefault(key, []), part, key=_required_end)

    def committed(self, key: PartitionKey, high_watermark: int) -> list[AwaitedPart]:
        return _take_reached(self._committing, key, high_watermark)

    def written(self, key: PartitionKey, counted_end: int) -> list[AwaitedPart]:
        return _take_reached(self._writing, key, counted_end)

    def all_committing(self, key: PartitionKey) -> list[AwaitedPart]:
        return self._committing.pop(key, [])

    def all_writing(self, key: PartitionKey) -> list[AwaitedPart]:
        return self._writing.pop(key, [])

    # -- fetches -----------------------------------------------------------------------------------

    def park_fetch(self, parked: ParkedFetch) -> None:
        assert parked.connection not in self._fetches, "a newer fetch replaces the parked one first"
        self._fetches[parked.connection] = parked
        for key in parked.keys:
            self._fetches_by_key.setdefault(key, {})[parked.connection] = None
        self._add_deadline(parked.deadline_ms, parked)

    def take_fetch(self, connection: Connection) -> ParkedFetch | None:
        """Un-park the fetch of a connection, if it has one."""
        parked = self._fetches.pop(connection, None)
        if parked is not None:
            for key in parked.keys:
                waiting = self._fetches_by_key.get(key)
                if waiting is not None:
                    waiting.pop(connection, None)
                    if not waiting:
                        del self._fetches_by_key[key]
        return parked

    def fetches_on(self, keys: Iterable[PartitionKey]) -> list[ParkedFetch]:
        """Parked fetches that name one of these partitions, each once, in the order of the keys."""
        found: dict[Connection, None] = {}
        for key in keys:
            found.update(self._fetches_by_key.get(key, {}))
        return [self._fetches[connection] for connection in found]

    # -- time --------------------------------------------------------------------------------------

    def _add_deadline(self, deadline_ms: int, parked: ParkedProduce | ParkedFetch) -> None:
        self._running_number += 1
        heapq.heappush(self._deadlines, (deadline_ms, self._running_number, parked))

    def next_deadline_ms(self) -> int:
        while self._deadlines and self._is_settled(self._deadlines[0][2]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else FAR_MS

    def _is_settled(self, parked: ParkedProduce | ParkedFetch) -> bool:
        if isinstance(parked, ParkedProduce):
            return parked.open_parts == 0
        return self._fetches.get(parked.connection) is not parked

    def expired(self, now_ms: int) -> tuple[list[ParkedProduce], list[ParkedFetch]]:
        """Requests whose deadline has come: fetches un-parked, produces still to be resolved."""
        produces: list[ParkedProduce] = []
        fetches: list[ParkedFetch] = []
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            parked = heapq.heappop(self._deadlines)[2]
            if self._is_settled(parked):
                continue
            if isinstance(parked, ParkedProduce):
                produces.append(parked)
            else:
                self.take_fetch(parked.connection)
                fetches.append(parked)
        return produces, fetches


def _take_reached(
    queues: dict[PartitionKey, list[AwaitedPart]], key: PartitionKey, end: int
) -> list[AwaitedPart]:
    queue = queues.get(key)
    if not queue or queue[0].required_end > end:
        return []
    count = 1
    while count < len(queue) and queue[count].required_end <= end:
        count += 1
    reached = queue[:count]
    del queue[:count]
    if not queue:
        del queues[key]
    return reached


def failed_part(
    key: PartitionKey,
    error: ErrorCode,
    appended: Appended,
    *,
    leader_id: int = -1,
    leader_epoch: int = -1,
    detail: str = "",
) -> ProducePartResult:
    return ProducePartResult(
        key[0], key[1], error, appended, -1, leader_epoch, leader_id, -1, detail
    )
