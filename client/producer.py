"""The producer's face: send() from any thread, one thread of its own for the network.

`send` queues a record and returns a handle at once; it waits only for the metadata of a topic never
sent to, and while buffer_memory is full. A batch is encoded by the thread that fills it. The I/O
thread runs `sender.ProducerCore` on `connection.Connections` and tells everybody who waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import time_ns
from types import TracebackType
from typing import Any, TypeVar

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.record_encoder import Headers
from client.accumulator import PartitionQueue
from client.chance import drawing
from client.config import ProducerConfig, build_config
from client.connection import Connections, monotonic_ms
from client.delivery import (
    Completed,
    ProducerBatch,
    RangeHandle,
    RecordHandle,
    make_handle,
)
from client.errors import BufferFull, ClientTimeout, ClosedError
from client.events import NEVER_MS, Tick
from client.sender import ProducerCore, ProducerEffect

POLL_MS_MAX = 60_000

Taken = TypeVar("Taken")


class Producer:
    """Sends records to topics. Safe to use from any number of threads.

    Settings: a `ProducerConfig`, or its fields as keyword arguments. `on_delivery`, if given, is
    called with each batch that is done. Callbacks run in the I/O thread: they must not block, and
    one that raises ends the producer.

    A context manager: leaving it waits until everything is delivered or failed.
    """

    def __init__(
        self,
        config: ProducerConfig | None = None,
        *,
        on_delivery: Callable[[ProducerBatch], object] | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        """`seed` fixes jitter and sticky partitions. ConfigError names every wrong setting."""
        self.config = build_config(ProducerConfig, config, settings)
        self._on_delivery = on_delivery
        self._core = ProducerCore(self.config, drawing(seed), self._wait_for_batch)
        self._intake = self._core.intake
        self._connections = Connections(self.config)
        self._lock = threading.Lock()
        """Guards the core. Never held while waiting."""
        self._news = threading.Condition(threading.Lock())
        """Notified when batches were completed or metadata came: memory, topics, outcomes."""
        self._news_count = 0
        """Grows with each notification, so that none is missed between a look and the wait."""
        self._seen_refresh_count = 0
        self._is_closed = False
        self._is_stopping = False
        self._sleeps_until_ms = 0
        """When the I/O thread looks again by itself; 0 while it is about to. By `_lock`."""
        self._failure: BaseException | None = None
        """What ended the I/O thread, if it did not end by itself."""
        # What send() needs for every record, within reach. Closing replaces the latter two.
        self._acquire = self._lock.acquire
        self._release = self._lock.release
        self._sticky_batches = self._intake.sticky_batches
        self._find_open: Callable[[str, bytes | None, int | None], ProducerBatch | None] = (
            self._intake.find_open
        )
        self._thread = threading.Thread(target=self._run, name="prozess-producer", daemon=True)
        self._thread.start()

    # --- sending ----------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
        timestamp_ms: int | None = None,
        on_delivery: Callable[[RecordHandle], object] | None = None,
    ) -> RecordHandle:
        """Queue a record; the handle's `result()` says where it stands, or why not.

        `timestamp_ms`: since 1970, now by default. `on_delivery(handle)` is called in the I/O
        thread when the record is done.

        Raises, with nothing queued: ApiError (unknown topic after max_block_ms, no such partition),
        RecordTooLarge, BufferFull, ClosedError, TypeError and ValueError for what is no record.
        """
        if timestamp_ms is None:
            timestamp_ms = time_ns() // 1_000_000
        # The ordinary case: the batch that the record goes to is open and has room.
        self._acquire()
        try:
            if key is None and partition is None:
                batch = self._sticky_batches.get(topic)
            else:
                batch = self._find_open(topic, key, partition)
            if (
                batch is not None
                and (builder := batch.builder) is not None
                and builder.append(timestamp_ms, key, value, headers)
            ):
                index = batch.record_count
                batch.record_count = index + 1
                handle = make_handle((batch, index, timestamp_ms))
                if on_delivery is not None:
                    batch.callbacks.append((handle, on_delivery))
                return handle
        finally:
            self._release()
        return self._send(topic, value, key, headers, partition, timestamp_ms, on_delivery)

    def _send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        partition: int | None,
        timestamp_ms: int,
        on_delivery: Callable[[RecordHandle], object] | None,
    ) -> RecordHandle:
        intake = self._intake
        with self._lock:
            if intake.knows(topic) and not self._is_closed:
                handle = intake.append(
                    topic, value, key, headers, partition, timestamp_ms, monotonic_ms
                )
                if handle is not None:
                    if on_delivery is not None:
                        handle[0].callbacks.append((handle, on_delivery))
                    self._nudge()
                    return handle

        def attempt() -> RecordHandle | None:
            accepted = intake.append(
                topic, value, key, headers, partition, timestamp_ms, monotonic_ms
            )
            if accepted is not None and on_delivery is not None:
                accepted[0].callbacks.append((accepted, on_delivery))
            return accepted

        return self._accept(topic, attempt)

    def send_many(
        self,
        topic: str,
        values: Sequence[bytes],
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> RangeHandle:
        """Queue records without key or headers, all with one timestamp; much cheaper than `send`.

        Raises as `send`; the records before the offending one are queued then.
        """
        stamped_ms = time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        ranges: list[tuple[ProducerBatch, int, int, int]] = []
        start = 0

        def attempt() -> tuple[ProducerBatch, int, int, int] | None:
            return self._intake.extend(topic, values, start, partition, stamped_ms, monotonic_ms)

        while start < len(values):
            ranges.append(self._accept(topic, attempt))
            start += ranges[-1][2]
        return RangeHandle(tuple(ranges))

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has. Waits and raises as `send` does for its metadata."""

        def attempt() -> int | None:
            return self._core.cluster.metadata.topics[topic].partition_count

        return self._accept(topic, attempt)

    def _accept(self, topic: str, attempt: Callable[[], Taken | None]) -> Taken:
        """Try until it is taken, with waits for metadata and memory of at most max_block_ms."""
        deadline_ms = monotonic_ms() + self.config.max_block_ms
        while True:
            seen_count = self._news_count
            with self._lock:
                self._require_open()
                is_known = self._core.knows(topic, monotonic_ms())
                taken = attempt() if is_known else None
                if taken is None:
                    self._wake()
                else:
                    self._nudge()
            if taken is not None:
                return taken
            left_ms = deadline_ms - monotonic_ms()
            if left_ms <= 0:
                raise self._not_accepted(topic, is_known)
            self._wait_for_news(seen_count, left_ms)

    def _wait_for_news(self, seen_count: int, timeout_ms: int) -> None:
        with self._news:
            self._news.wait_for(
                lambda: self._news_count != seen_count or self._failure is not None,
                timeout_ms / 1_000,
            )

    def _not_accepted(self, topic: str, is_known: bool) -> Exception:
        if is_known:
            return BufferFull(
                f"{topic}: {self.config.buffer_memory} bytes of buffer_memory stayed full for "
                f"{self.config.max_block_ms} ms"
            )
        with self._lock:
            code = self._core.cluster.metadata.errors.get(topic)
            other_cluster = self._core.cluster.wrong_cluster_id
        if code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            return ApiError(code, f"topic {topic} does not exist")
        if code is not None:
            return ApiError(code, f"topic {topic}")
        mixed = f" (some belong to another cluster, {other_cluster})" if other_cluster else ""
        return ClientTimeout(
            f"no metadata of {topic} from {self.config.bootstrap_servers} within "
            f"{self.config.max_block_ms} ms{mixed}"
        )

    def _require_open(self) -> None:
        if self._failure is not None:
            raise ClosedError("the producer's I/O thread ended by an error") from self._failure
        if self._is_closed:
            raise ClosedError("the producer is closed")

    # --- waking the I/O thread --------------------------------------------------------------------

    def _nudge(self) -> None:
        """If a batch was opened or closed: wake the I/O thread if it has to act before it would.

        A closed batch behind a full window goes out with the next answer, which wakes it anyway.
        """
        intake = self._intake
        if intake.sealed_queue is None and intake.opened_ms == NEVER_MS:
            return
        due_ms = intake.opened_ms + self.config.linger_ms
        sealed = intake.sealed_queue
        if due_ms < self._sleeps_until_ms or (sealed is not None and self._may_send(sealed)):
            self._wake()
        intake.sealed_queue = None
        intake.opened_ms = NEVER_MS

    def _may_send(self, queue: PartitionQueue) -> bool:
        window = self.config.max_in_flight_requests_per_connection
        return queue.outstanding_count < window and not queue.is_recovering

    def _wake(self) -> None:
        if self._sleeps_until_ms:
            self._sleeps_until_ms = 0
            self._connections.wake()

    # --- waiting ----------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Send what is queued without lingering, and wait until each of it is done.

        ClientTimeout after `timeout` seconds; failures are the handles' to tell.
        """
        with self._lock:
            self._intake.seal_all()
            batches = self._core.unfinished()
            self._wake()
        if not self._wait(lambda: all(batch.outcome is not None for batch in batches), timeout):
            left = sum(batch.outcome is None for batch in batches)
            raise ClientTimeout(f"{left} batches are still under way after {timeout} s")

    def close(self, timeout: float | None = None) -> None:
        """Wait for what is queued, at most `timeout` seconds; what is left then fails.

        Records never sent fail definitely, others with an unknown outcome.
        """
        assert threading.current_thread() is not self._thread, "callbacks cannot close the producer"
        with self._lock:
            if self._is_stopping:
                return
            self._is_closed = True
            self._sticky_batches = {}
            self._find_open = _find_nothing
            self._intake.seal_all()
            batches = self._core.unfinished()
            self._wake()
        if self._failure is None:
            self._wait(lambda: all(batch.outcome is not None for batch in batches), timeout)
        with self._lock:
            self._is_stopping = True
            self._sleeps_until_ms = 0
            self._connections.wake()
        self._thread.join()
        self._connections.close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error nobody wants to wait for a cluster that may be the reason.
        self.close(None if error is None else self.config.request_timeout_ms / 1_000)

    def _wait_for_batch(self, batch: ProducerBatch, timeout: float | None) -> None:
        self._wait(lambda: batch.outcome is not None, timeout)

    def _wait(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        with self._news:
            over = self._news.wait_for(lambda: is_over() or self._failure is not None, timeout)
        if self._failure is not None and not is_over():
            raise ClosedError("the producer's I/O thread ended by an error") from self._failure
        return over

    # --- the I/O thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            timeout_ms = 0
            while not self._is_stopping:
                timeout_ms = self._turn(timeout_ms)
            with self._lock:
                effects = self._core.abort(monotonic_ms())
            self._connections.execute(effects)
            self._complete(effects)
        except BaseException as error:
            self._failure = error
            self._is_closed = True
            self._tell()
            raise

    def _turn(self, timeout_ms: int) -> int:
        """Take what has arrived, act, tell; for how long to wait next."""
        events = self._connections.poll(timeout_ms)
        effects: list[ProducerEffect] = []
        with self._lock:
            now_ms = monotonic_ms()
            for event in events:
                effects += self._core.handle(event, now_ms)
            effects += self._core.handle(Tick(), now_ms)
            deadline_ms = min(self._core.next_deadline_ms(), now_ms + POLL_MS_MAX)
            if self._core.accumulator.active and self.config.linger_ms:
                # Batches opened meanwhile are then found in time without waking us for each.
                deadline_ms = min(deadline_ms, now_ms + self.config.linger_ms)
            self._sleeps_until_ms = max(deadline_ms, 1)
        self._connections.execute(effects)
        self._complete(effects)
        return max(0, deadline_ms - monotonic_ms())

    def _complete(self, effects: list[ProducerEffect]) -> None:
        """Tell who waits, then run the callbacks of each batch that is done."""
        batches = [effect.batch for effect in effects if isinstance(effect, Completed)]
        if batches or self._core.cluster.refresh_count != self._seen_refresh_count:
            self._seen_refresh_count = self._core.cluster.refresh_count
            self._tell()
        for batch in batches:
            for handle, callback in batch.callbacks:
                callback(handle)
            batch.callbacks.clear()
            if self._on_delivery is not None:
                self._on_delivery(batch)

    def _tell(self) -> None:
        with self._news:
            self._news_count += 1
            self._news.notify_all()


def _find_nothing(topic: str, key: bytes | None, partition: int | None) -> ProducerBatch | None:
    """`Intake.find_open` of a closed producer."""
    return None
