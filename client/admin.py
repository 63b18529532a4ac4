"""The administrator's face: topics, cluster, single nodes. Runs in the caller's thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from broker.wire.errors import ERRORS, ApiError, ErrorCode
from broker.wire.messages import (
    AlterTopicRequest,
    AlterTopicResponse,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteRecordsPart,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    DescribeNodeRequest,
    DescribeNodeResponse,
    MetadataRequest,
    MetadataResponse,
    Setting,
    TopicInfo,
)
from client.chance import drawing
from client.cluster import Call, ClusterCore
from client.config import AdminConfig, build_config
from client.connection import Connections, monotonic_ms
from client.errors import ClientTimeout, ClosedError, OutcomeUnknown
from client.events import Effect, Event, Tick
from client.polling import PollingDriver
from client.retry import backoff_ms

Answer = TypeVar("Answer")


class AdminCore:
    """A `ClusterCore` with nothing but calls on it."""

    def __init__(self, cluster: ClusterCore) -> None:
        self.cluster = cluster

    def handle(self, event: Event, now_ms: int) -> list[Effect]:
        self.cluster.absorb(event, now_ms)
        if isinstance(event, Tick):
            self.cluster.run(now_ms)
        return self.cluster.take_effects()

    def next_deadline_ms(self) -> int:
        return self.cluster.next_deadline_ms()


class Admin:
    """Creates, deletes and describes. For one thread at a time. A context manager.

    Settings: an `AdminConfig`, or its fields as keyword arguments. Every call ends after its
    `timeout_ms` (default default_api_timeout_ms) plus one request_timeout_ms at the latest.
    """

    def __init__(
        self, config: AdminConfig | None = None, *, seed: int | None = None, **settings: Any
    ) -> None:
        self.config = build_config(AdminConfig, config, settings)
        self._draw = drawing(seed)
        self._core = AdminCore(ClusterCore(self.config, self._draw))
        self._connections = Connections(self.config)
        self._driver = PollingDriver(self._core, self._connections)
        self._is_closed = False

    # --- topics -----------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        *,
        assignments: Iterable[Sequence[int]] = (),
        settings: Mapping[str, object] | None = None,
        timeout_ms: int | None = None,
    ) -> str:
        """Create a topic and return its id; -1 takes the cluster's default.

        `assignments`: the replicas of each partition, preferred leader first, instead of the
        cluster's own placement. `settings`: see `broker.config.TopicConfig`. Raises ApiError for a
        refusal, OutcomeUnknown if it may have happened, ClientTimeout if it certainly has not.
        """
        request = CreateTopicRequest(
            name,
            partitions,
            replication_factor,
            tuple(tuple(replicas) for replicas in assignments),
            tuple(Setting(key, str(value)) for key, value in (settings or {}).items()),
            self._parking_ms(),
        )
        answer = self._change(request, CreateTopicResponse, f"create topic {name}", timeout_ms)
        return answer.topic_id

    def delete_topic(self, name: str, *, timeout_ms: int | None = None) -> None:
        """Delete a topic and its records. Raises as `create_topic`."""
        request = DeleteTopicRequest(name, self._parking_ms())
        self._change(request, DeleteTopicResponse, f"delete topic {name}", timeout_ms)

    def alter_topic(
        self, name: str, settings: Mapping[str, object], *, timeout_ms: int | None = None
    ) -> None:
        """Change settings of a topic that is there; all but flush can be. Raises as
        `create_topic`."""
        wanted = tuple(Setting(key, str(value)) for key, value in settings.items())
        request = AlterTopicRequest(name, wanted, self._parking_ms())
        self._change(request, AlterTopicResponse, f"alter topic {name}", timeout_ms)

    def create_partitions(
        self,
        name: str,
        partition_count: int,
        *,
        assignments: Iterable[Sequence[int]] = (),
        timeout_ms: int | None = None,
    ) -> None:
        """Let a topic have `partition_count` partitions in all. Records stay where they are, but
        keys map to other partitions from now on. Raises as `create_topic`."""
        request = CreatePartitionsRequest(
            name,
            partition_count,
            tuple(tuple(replicas) for replicas in assignments),
            self._parking_ms(),
        )
        self._change(request, CreatePartitionsResponse, f"partitions of {name}", timeout_ms)

    def delete_records(
        self, name: str, before: Mapping[int, int], *, timeout_ms: int | None = None
    ) -> dict[int, int]:
        """Delete the records of partitions below an offset; -1: all that are committed.

        Returns where each partition begins now, on every member of its ISR; once it does it stays
        so. Whoever leads is asked again while the leader changes or a member is not heard of: twice
        is as once. ApiError for the first partition that is refused (OFFSET_OUT_OF_RANGE above the
        high watermark) or, when time is over, with the last error; the others may be done or not.
        """
        limit_ms = self.config.default_api_timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = monotonic_ms() + limit_ms
        topic = self.describe_topics([name], timeout_ms=limit_ms)[0]
        return {
            partition: self._delete_records_of(topic, partition, offset, deadline_ms)
            for partition, offset in sorted(before.items())
        }

    def _delete_records_of(
        self, topic: TopicInfo, partition: int, offset: int, deadline_ms: int
    ) -> int:
        if not 0 <= partition < len(topic.partitions):
            detail = f"{topic.name} has partitions 0 to {len(topic.partitions) - 1}"
            raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, detail)
        part = DeleteRecordsPart(topic.topic_id, partition, offset)
        what = f"deletion of records of {topic.name}-{partition}"
        failures = 0
        while True:
            leader = topic.partitions[partition].leader_id
            error = ErrorCode.LEADER_NOT_AVAILABLE
            if leader >= 0:
                left_ms = max(1, deadline_ms - monotonic_ms())
                request = DeleteRecordsRequest((part,), min(self._parking_ms(), left_ms))
                call = self._call(request, leader, min(left_ms, self.config.request_timeout_ms))
                error = ErrorCode.REQUEST_TIMED_OUT
                if isinstance(call.answer, DeleteRecordsResponse):
                    (result,) = call.answer.parts
                    if result.error is ErrorCode.NONE:
                        return result.log_start_offset
                    error = result.error
            failures += 1
            again_ms = monotonic_ms() + self._backoff_ms(failures)
            if not ERRORS[error].retriable or again_ms >= deadline_ms:
                raise ApiError(error, what)
            self._driver.run_until(lambda: False, again_ms)
            try:
                topic = self._look_again(topic, max(1, deadline_ms - monotonic_ms()))
            except ClientTimeout:
                raise ApiError(error, what) from None  # why it took so long

    def _look_again(self, topic: TopicInfo, timeout_ms: int) -> TopicInfo:
        now = self.describe_topics([topic.name], timeout_ms=timeout_ms)[0]
        if now.topic_id != topic.topic_id:
            raise ApiError(ErrorCode.UNKNOWN_TOPIC_ID, f"{topic.name} is another topic by now")
        return now

    def _backoff_ms(self, failures: int) -> int:
        config = self.config
        return backoff_ms(
            failures, config.retry_backoff_ms, config.retry_backoff_max_ms, self._draw
        )

    def list_topics(self, *, timeout_ms: int | None = None) -> list[str]:
        """The names of all topics, sorted."""
        return sorted(topic.name for topic in self.describe_cluster(timeout_ms=timeout_ms).topics)

    def describe_topics(
        self, names: Iterable[str] | None = None, *, timeout_ms: int | None = None
    ) -> list[TopicInfo]:
        """Partitions, leaders, replicas and settings of the named topics, or of all.

        ApiError for the first that does not exist.
        """
        wanted = None if names is None else tuple(names)
        answer = self._ask(MetadataRequest(wanted), None, MetadataResponse, "metadata", timeout_ms)
        for topic in answer.topics:
            if topic.error is not ErrorCode.NONE:
                raise ApiError(topic.error, f"topic {topic.name}")
        return sorted(answer.topics, key=lambda topic: topic.name)

    # --- cluster ----------------------------------------------------------------------------------

    def describe_cluster(self, *, timeout_ms: int | None = None) -> MetadataResponse:
        """Brokers, active controller and all topics, as one broker knows them."""
        return self._ask(MetadataRequest(None), None, MetadataResponse, "metadata", timeout_ms)

    def describe_node(
        self, node_id: int, *, replicas: bool = True, timeout_ms: int | None = None
    ) -> DescribeNodeResponse:
        """What one node says of itself: roles, Raft, replicas, counters."""
        what = f"description of node {node_id}"
        request = DescribeNodeRequest(replicas)
        return self._ask(request, node_id, DescribeNodeResponse, what, timeout_ms)

    # --- calls ------------------------------------------------------------------------------------

    def _parking_ms(self) -> int:
        return max(1, self.config.request_timeout_ms * 3 // 4)

    def _change(
        self, request: object, kind: type[Answer], what: str, timeout_ms: int | None
    ) -> Answer:
        """A call that changes something: an error after an unknown attempt is no refusal."""
        call = self._call(request, None, timeout_ms)
        if not isinstance(call.answer, kind):
            if call.maybe_done:
                raise OutcomeUnknown(f"{what}: no final answer; it may have happened")
            raise ClientTimeout(f"{what}: {self._why(call)}")
        error = getattr(call.answer, "error", ErrorCode.NONE)
        if error is not ErrorCode.NONE:
            detail = str(getattr(call.answer, "detail", ""))
            if call.maybe_done:
                raise OutcomeUnknown(
                    f"{what}: {error.name} after an attempt without a final answer; "
                    "it may have happened then"
                )
            raise ApiError(error, f"{what}: {detail}" if detail else what)
        return call.answer

    def _ask(
        self,
        request: object,
        node_id: int | None,
        kind: type[Answer],
        what: str,
        timeout_ms: int | None,
    ) -> Answer:
        call = self._call(request, node_id, timeout_ms)
        if not isinstance(call.answer, kind):
            raise ClientTimeout(f"no {what}: {self._why(call)}")
        return call.answer

    def _call(self, request: object, node_id: int | None, timeout_ms: int | None) -> Call:
        if self._is_closed:
            raise ClosedError("the admin is closed")
        limit_ms = self.config.default_api_timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = monotonic_ms() + limit_ms
        call = Call(request, node_id, deadline_ms)
        self._core.cluster.start(call)
        try:
            # The last attempt's answer may take one request time-out more.
            self._driver.run_until(lambda: call.done, deadline_ms + self.config.request_timeout_ms)
        finally:
            self._core.cluster.cancel(call)
        return call

    def _why(self, call: Call) -> str:
        if call.last_error is not ErrorCode.NONE:
            return f"the last answer was {call.last_error.name}"
        return (
            f"no answer from {self.config.bootstrap_servers}{self._core.cluster.explain_errors()}"
        )

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._connections.close()

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
