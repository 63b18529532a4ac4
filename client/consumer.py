"""The consumer's face: assign partitions, poll for records. Runs in the caller's thread.

Between two polls ZeroMQ's own thread receives the chunk that was asked for by the last one, so the
caller decodes one while the next arrives, and no thread of ours is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from client.chance import drawing
from client.config import ConsumerConfig, build_config
from client.connection import Connections, monotonic_ms
from client.errors import ClientTimeout, ClosedError
from client.fetched import ConsumerRecord, FetchedBatch
from client.fetcher import FetcherCore, PositionChanged, TopicPartition
from client.offsets import Lookup
from client.polling import PollingDriver


class OffsetAndTimestamp(NamedTuple):
    offset: int
    timestamp_ms: int


class Consumer:
    """Reads assigned partitions in the order of their offsets. For one thread at a time.

    Settings: a `ConsumerConfig`, or its fields as keyword arguments. `on_event`, if given, is told
    of every position set other than by reading (`PositionChanged`). A context manager.
    """

    def __init__(
        self,
        config: ConsumerConfig | None = None,
        *,
        on_event: Callable[[PositionChanged], object] | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        """`seed` fixes the jitter. ConfigError names every wrong setting."""
        self.config = build_config(ConsumerConfig, config, settings)
        self._on_event = on_event
        self._core = FetcherCore(self.config, drawing(seed))
        self._connections = Connections(self.config)
        self._driver = PollingDriver(self._core, self._connections, self._on_effect)
        self._is_closed = False

    def _on_effect(self, effect: object) -> None:
        if self._on_event is not None and isinstance(effect, PositionChanged):
            self._on_event(effect)

    # --- what to read -----------------------------------------------------------------------------

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read exactly these (topic, partition); those kept keep their positions.

        A new one starts where `auto_offset_reset` says, unless a `seek` follows.
        """
        self._require_open()
        self._core.assign(partitions)

    def assignment(self) -> list[TopicPartition]:
        return self._core.assignment()

    def partitions_for(self, topic: str, timeout_ms: int | None = None) -> list[int]:
        """The partitions of a topic. ApiError if it does not exist, ClientTimeout."""
        self._require_open()
        cluster = self._core.cluster
        cluster.want(topic)
        metadata = cluster.metadata

        def is_answered() -> bool:
            return topic in metadata.topics or topic in metadata.errors

        cluster.request_refresh(monotonic_ms())
        self._wait(is_answered, timeout_ms, f"no metadata of {topic}")
        if topic not in metadata.topics:
            raise ApiError(metadata.errors[topic], f"topic {topic}")
        return list(range(metadata.topics[topic].partition_count))

    # --- reading ----------------------------------------------------------------------------------

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> list[ConsumerRecord]:
        """Up to `max_records` records (default max_poll_records); waits only if there are none.

        Empty after `timeout_ms`. Raises what stops a partition: ApiError, NoOffset,
        CorruptRecords; the other partitions go on with the next call.
        """
        self._require_open()
        limit = self.config.max_poll_records if max_records is None else max_records
        deadline_ms = monotonic_ms() + timeout_ms
        while True:
            records = self._core.take(limit)
            if records:
                self._driver.turn_if_due()  # the next chunk comes while these are worked on
                return records
            left_ms = deadline_ms - monotonic_ms()
            self._driver.turn(max(0, left_ms), self._core.has_something)
            if left_ms <= 0:
                return self._core.take(limit)

    def poll_batches(self, timeout_ms: int = 0, max_batches: int = 64) -> list[FetchedBatch]:
        """As `poll`, with whole batches, undecoded: `FetchedBatch.records()` decodes one."""
        self._require_open()
        deadline_ms = monotonic_ms() + timeout_ms
        while True:
            batches = self._core.take_batches(max_batches)
            if batches:
                self._driver.turn_if_due()
                return batches
            left_ms = deadline_ms - monotonic_ms()
            self._driver.turn(max(0, left_ms), self._core.has_something)
            if left_ms <= 0:
                return self._core.take_batches(max_batches)

    def pause(self, topic: str, partition: int) -> None:
        """Hand out nothing of it until `resume`; what was fetched is kept."""
        self._core.pause(topic, partition)

    def resume(self, topic: str, partition: int) -> None:
        self._core.resume(topic, partition)

    def paused(self) -> list[TopicPartition]:
        return self._core.paused()

    # --- positions --------------------------------------------------------------------------------

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`, at the next poll."""
        if offset < 0:
            raise ValueError(f"offset {offset}: take 0 or more, or seek_to_beginning or _end")
        self._core.seek(topic, partition, offset)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read on from the first offsets there are; all assigned partitions by default."""
        for topic, partition in partitions or self.assignment():
            self._core.seek_to(topic, partition, EARLIEST_TIMESTAMP)

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read only what is committed from now on; all assigned partitions by default."""
        for topic, partition in partitions or self.assignment():
            self._core.seek_to(topic, partition, LATEST_TIMESTAMP)

    def seek_to_time(self, topic: str, partition: int, timestamp_ms: int) -> None:
        """Read on from the first record at or after a time; from the end if there is none."""
        if timestamp_ms < 0:
            raise ValueError(f"timestamp {timestamp_ms}: take milliseconds since 1970")
        self._core.seek_to(topic, partition, timestamp_ms)

    def position(self, topic: str, partition: int, timeout_ms: int | None = None) -> int:
        """The offset of the next record that poll will return. Looks it up if need be."""
        self._require_open()
        core = self._core
        self._wait(
            lambda: core.position(topic, partition) is not None,
            timeout_ms,
            f"no position of {topic}-{partition}",
        )
        position = core.position(topic, partition)
        assert position is not None, "it was waited for"
        return position

    def beginning_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """The first offset of each that can be read. ApiError, ClientTimeout."""
        wanted = dict.fromkeys(partitions, EARLIEST_TIMESTAMP)
        return {entry: found.offset for entry, found in self._look_up(wanted, timeout_ms).items()}

    def end_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """The high watermark of each: one beyond the last record that can be read."""
        wanted = dict.fromkeys(partitions, LATEST_TIMESTAMP)
        return {entry: found.offset for entry, found in self._look_up(wanted, timeout_ms).items()}

    def offsets_for_times(
        self, timestamps_ms: Mapping[TopicPartition, int], timeout_ms: int | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after each time; None where no record is that young."""
        for (topic, partition), timestamp_ms in timestamps_ms.items():
            if timestamp_ms < 0:
                raise ValueError(f"{topic}-{partition}: timestamp {timestamp_ms} is before 1970")
        found = self._look_up(timestamps_ms, timeout_ms)
        return {
            entry: OffsetAndTimestamp(lookup.offset, lookup.found_timestamp_ms)
            if lookup.offset >= 0
            else None
            for entry, lookup in found.items()
        }

    def _look_up(
        self, wanted: Mapping[TopicPartition, int], timeout_ms: int | None
    ) -> dict[TopicPartition, Lookup]:
        self._require_open()
        lookups = {
            (topic, partition): self._core.lookups.start(Lookup(topic, partition, timestamp_ms))
            for (topic, partition), timestamp_ms in wanted.items()
        }
        names = ", ".join(f"{topic}-{partition}" for topic, partition in wanted)
        try:
            self._wait(
                lambda: all(lookup.is_done for lookup in lookups.values()),
                timeout_ms,
                f"no offsets of {names}",
            )
        finally:
            for lookup in lookups.values():
                self._core.lookups.cancel(lookup)
        for (topic, partition), lookup in lookups.items():
            if lookup.error is not ErrorCode.NONE:
                raise ApiError(lookup.error, f"{topic}-{partition}")
        return lookups

    def _wait(self, is_over: Callable[[], bool], timeout_ms: int | None, what: str) -> None:
        limit_ms = self.config.default_api_timeout_ms if timeout_ms is None else timeout_ms
        if not self._driver.run_until(is_over, monotonic_ms() + limit_ms):
            raise ClientTimeout(
                f"{what} within {limit_ms} ms from {self.config.bootstrap_servers}"
                f"{self._core.cluster.explain_errors()}"
            )

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop connections and buffers. Nothing is waited for."""
        if not self._is_closed:
            self._is_closed = True
            self._connections.close()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the consumer is closed")

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
