"""Producer, Consumer and Admin over real sockets, against a cluster of pretence."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.messages import (
    Appended,
    CreateTopicRequest,
    DeleteRecordsRequest,
    DescribeNodeRequest,
    MetadataRequest,
    ProducePart,
    ProduceRequest,
)
from client import (
    Admin,
    BufferFull,
    ClientTimeout,
    ClosedError,
    ConfigError,
    Consumer,
    OutcomeUnknown,
    Producer,
    RecordTooLarge,
    SendFailed,
)
from client.fetched import ConsumerRecord
from tests.client.fake_broker import LOSE_ACK, SILENCE, FakeCluster

WAIT_S = 20
"""Far more than anything here takes."""
FAST: dict[str, Any] = {"retry_backoff_ms": 10, "request_timeout_ms": 500}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as fake:
        fake.add_topic("t", 3)
        yield fake


def producer_of(cluster: FakeCluster, **settings: Any) -> Producer:
    return Producer(bootstrap_servers=cluster.bootstrap_servers, seed=1, **{**FAST, **settings})


def consumer_of(cluster: FakeCluster, **settings: Any) -> Consumer:
    settings = {"auto_offset_reset": "earliest", "fetch_max_wait_ms": 50, **settings}
    return Consumer(bootstrap_servers=cluster.bootstrap_servers, seed=1, **{**FAST, **settings})


def poll_count(consumer: Consumer, count: int) -> list[ConsumerRecord]:
    records: list[ConsumerRecord] = []
    while len(records) < count:
        got = consumer.poll(WAIT_S * 1_000, 1_000)
        assert got, f"{len(records)} of {count} records"
        records += got
    return records


class Once:
    """Does something odd to the first `count` batches, then nothing."""

    def __init__(self, what: ErrorCode | str, count: int = 1) -> None:
        self.what = what
        self.left = count

    def __call__(self, node: int, part: ProducePart) -> ErrorCode | str | None:
        self.left -= 1
        return self.what if self.left >= 0 else None


# --- producer -------------------------------------------------------------------------------------


def test_records_are_there_and_the_handles_say_where(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        handles = [producer.send("t", b"%d" % n, partition=1) for n in range(1_000)]
        results = [handle.result(WAIT_S) for handle in handles]
    assert [result.offset for result in results] == list(range(1_000))
    assert cluster.values("t", 1) == [b"%d" % n for n in range(1_000)]


def test_keys_headers_and_timestamps_arrive(cluster: FakeCluster) -> None:
    with producer_of(cluster, compression_type="zstd") as producer:
        sent = producer.send("t", None, b"key", [("h", b"1"), ("n", None)], timestamp_ms=77)
        where = sent.result(WAIT_S)
    with consumer_of(cluster) as consumer:
        consumer.assign([("t", where.partition)])
        (record,) = poll_count(consumer, 1)
    assert (record.key, record.value, record.timestamp_ms) == (b"key", None, 77)
    assert record.headers == (("h", b"1"), ("n", None))


def test_send_many(cluster: FakeCluster) -> None:
    values = [b"%05d" % n for n in range(20_000)]
    with producer_of(cluster, batch_size=16_384) as producer:
        handle = producer.send_many("t", values, partition=2)
        results = handle.result(WAIT_S)
    assert len(handle) == len(results) == 20_000
    assert [result.offset for result in results] == list(range(20_000))
    assert cluster.values("t", 2) == values


def test_many_threads_send_at_once(cluster: FakeCluster) -> None:
    with producer_of(cluster, batch_size=2_000) as producer:

        def work(number: int) -> None:
            for turn in range(500):
                producer.send("t", b"%d %d" % (number, turn), partition=0)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(WAIT_S)
    came = [value.split() for value in cluster.values("t", 0) if value is not None]
    for number in range(4):
        assert [int(turn) for who, turn in came if int(who) == number] == list(range(500))


@pytest.mark.parametrize("what", [LOSE_ACK, SILENCE, ErrorCode.NOT_ENOUGH_REPLICAS])
def test_trouble_with_some_batches_leaves_each_record_once_in_order(
    cluster: FakeCluster, what: ErrorCode | str
) -> None:
    cluster.on_produce = Once(what, 3)
    with producer_of(cluster, batch_size=1_000, linger_ms=0) as producer:
        handles = [producer.send("t", b"%04d" % n, partition=0) for n in range(500)]
        assert [handle.result(WAIT_S).offset for handle in handles] == list(range(500))
    assert cluster.values("t", 0) == [b"%04d" % n for n in range(500)]


def test_a_killed_leader_is_left_for_the_next_one(cluster: FakeCluster) -> None:
    with producer_of(cluster, batch_size=500) as producer:
        first = [producer.send("t", b"%03d" % n, partition=0) for n in range(100)]
        first[0].result(WAIT_S)
        cluster.kill(1)
        more = [producer.send("t", b"%03d" % n, partition=0) for n in range(100, 200)]
        cluster.move_leader("t", 0, 2)
        for handle in first + more:
            handle.result(WAIT_S)
    assert cluster.values("t", 0) == [b"%03d" % n for n in range(200)]


def test_a_restarted_node_is_found_again(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        producer.send("t", b"a", partition=0).result(WAIT_S)
        cluster.kill(1)
        handle = producer.send("t", b"b", partition=0)
        cluster.start(1)
        assert handle.result(WAIT_S).offset == 1
    assert cluster.values("t", 0) == [b"a", b"b"]


def test_a_muted_node_means_unknown(cluster: FakeCluster) -> None:
    with producer_of(cluster, delivery_timeout_ms=600) as producer:
        producer.send("t", b"a", partition=0).result(WAIT_S)
        cluster.mute = {1}
        handle = producer.send("t", b"b", partition=0)
        with pytest.raises(SendFailed) as caught:
            handle.result(WAIT_S)
        cluster.mute = set()
    assert not caught.value.definite
    assert {attempt.appended for attempt in handle.attempts} == {Appended.MAYBE}


def test_a_dead_node_means_definite(cluster: FakeCluster) -> None:
    with producer_of(cluster, delivery_timeout_ms=600) as producer:
        producer.send("t", b"a", partition=0).result(WAIT_S)
        cluster.kill(1)
        while producer.send("t", b"b", partition=1).result(WAIT_S).offset < 3:
            pass  # by now the broken connection has been noticed
        handle = producer.send("t", b"c", partition=0)
        with pytest.raises(SendFailed) as caught:
            handle.result(WAIT_S)
    assert caught.value.definite
    assert {attempt.appended for attempt in handle.attempts} == {Appended.NO}


def test_results_of_a_failed_batch_are_raised_for_each_record(cluster: FakeCluster) -> None:
    cluster.on_produce = Once(ErrorCode.INVALID_TIMESTAMP)
    with producer_of(cluster) as producer:
        handles = [producer.send("t", b"v", partition=0) for _ in range(3)]
        for handle in handles:
            with pytest.raises(SendFailed, match="INVALID_TIMESTAMP") as caught:
                handle.result(WAIT_S)
            assert caught.value.definite
        assert producer.send("t", b"w", partition=0).result(WAIT_S).offset == 0


def test_callbacks(cluster: FakeCluster) -> None:
    told: list[int] = []
    batches: list[int] = []
    with producer_of(cluster, on_delivery=lambda batch: batches.append(batch.record_count)) as p:
        for _ in range(10):
            p.send("t", b"v", partition=0, on_delivery=lambda h: told.append(h.result().offset))
    assert told == list(range(10))
    assert sum(batches) == 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_raises_ends_the_producer(cluster: FakeCluster) -> None:
    def bad(handle: object) -> None:
        raise LookupError("in the callback")

    producer = producer_of(cluster, delivery_timeout_ms=600)
    producer.send("t", b"v", partition=0, on_delivery=bad).result(WAIT_S)

    def send_on() -> None:
        while True:
            producer.send("t", b"v", partition=0).result(WAIT_S)

    with pytest.raises(ClosedError) as caught:
        send_on()
    assert isinstance(caught.value.__cause__, LookupError)
    producer.close()


def test_an_unknown_topic_is_refused_by_its_name(cluster: FakeCluster) -> None:
    with (
        producer_of(cluster, max_block_ms=2_000) as producer,
        pytest.raises(ApiError, match="topic nope does not exist") as caught,
    ):
        producer.send("nope", b"v")
    assert caught.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_a_topic_may_appear_while_send_waits(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        waiting = threading.Thread(target=lambda: producer.send("late", b"v"))
        waiting.start()
        while not any(
            isinstance(body, MetadataRequest) and "late" in (body.topics or ())
            for _, body in list(cluster.requests)
        ):
            waiting.join(0.01)
        cluster.add_topic("late")
        waiting.join(WAIT_S)
        assert not waiting.is_alive()
    assert cluster.values("late") == [b"v"]


def test_no_cluster_at_all_is_a_time_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            Producer(bootstrap_servers=address, max_block_ms=100) as producer,
            pytest.raises(ClientTimeout, match="no metadata of t"),
        ):
            producer.send("t", b"v")


def test_a_full_buffer_blocks_and_then_refuses(cluster: FakeCluster) -> None:
    sizes = {"batch_size": 1_000, "max_request_size": 1_000, "buffer_memory": 5_000}
    with producer_of(cluster, max_block_ms=1_000, delivery_timeout_ms=9_000, **sizes) as producer:
        producer.send("t", b"first", partition=0).result(WAIT_S)
        cluster.mute = {1, 2, 3}

        def send_on() -> None:
            while True:
                producer.send("t", bytes(500), partition=0)

        with pytest.raises(BufferFull):
            send_on()
        cluster.mute = set()
        producer.flush(WAIT_S)


def test_a_full_buffer_is_waited_for(cluster: FakeCluster) -> None:
    sizes = {"batch_size": 1_000, "max_request_size": 1_000, "buffer_memory": 3_000}
    with producer_of(cluster, **sizes) as producer:
        handles = [producer.send("t", bytes(400), partition=0) for _ in range(200)]
        assert [handle.result(WAIT_S).offset for handle in handles] == list(range(200))


def test_a_record_too_large_and_what_is_no_record(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        with pytest.raises(RecordTooLarge):
            producer.send("t", bytes(2_000_000))
        with pytest.raises(TypeError):
            producer.send("t", "text")  # type: ignore[arg-type]
        assert producer.send("t", b"v", partition=0).result(WAIT_S).offset == 0


def test_flush_has_a_time_limit(cluster: FakeCluster) -> None:
    cluster.mute = {1}
    with producer_of(cluster, delivery_timeout_ms=600) as producer:
        producer.send("t", b"v", partition=0)
        with pytest.raises(ClientTimeout, match="1 batches"):
            producer.flush(0.05)
        cluster.mute = set()


def test_close_with_a_limit_tells_the_fate_of_the_rest(cluster: FakeCluster) -> None:
    producer = producer_of(cluster)
    producer.send("t", b"v", partition=0).result(WAIT_S)
    cluster.on_produce = Once(SILENCE, 1_000)
    handles = [producer.send("t", b"v", partition=0) for _ in range(3)]
    producer.close(0.1)
    assert all(handle.done() for handle in handles)
    producer.close()
    with pytest.raises(ClosedError):
        producer.send("t", b"v")


def test_acks_0(cluster: FakeCluster) -> None:
    with producer_of(cluster, acks=0, enable_idempotence=False) as producer:
        assert producer.send("t", b"v", partition=0).result(WAIT_S).offset == -1
        with consumer_of(cluster) as consumer:
            consumer.assign([("t", 0)])
            assert poll_count(consumer, 1)[0].value == b"v"


def test_idle_clients_are_quiet(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        producer.send("t", b"v").result(WAIT_S)
        before = len(cluster.requests)
        producer.send("t", b"v").result(WAIT_S)
        kinds = [type(body) for _, body in cluster.requests[before:]]
    assert kinds == [ProduceRequest]


# --- consumer -------------------------------------------------------------------------------------


def filled(cluster: FakeCluster, count: int = 1_000) -> None:
    with producer_of(cluster, batch_size=1_000) as producer:
        for n in range(count):
            producer.send("t", b"%04d" % n, partition=n % 3, timestamp_ms=1_000 + n)


def test_consume_all_in_order(cluster: FakeCluster) -> None:
    filled(cluster)
    with consumer_of(cluster) as consumer:
        consumer.assign([("t", partition) for partition in consumer.partitions_for("t")])
        records = poll_count(consumer, 1_000)
        assert consumer.poll(0) == []
    for partition in range(3):
        own = [record for record in records if record.partition == partition]
        assert [record.offset for record in own] == list(range(len(own)))
        assert [record.value for record in own] == cluster.values("t", partition)


def test_consume_batches(cluster: FakeCluster) -> None:
    filled(cluster)
    count = 0
    with consumer_of(cluster) as consumer:
        consumer.assign([("t", 0)])
        while count < 334:
            batches = consumer.poll_batches(WAIT_S * 1_000)
            assert batches
            count += sum(len(batch.records()) for batch in batches)
    assert count == 334


def test_new_records_wake_a_waiting_poll(cluster: FakeCluster) -> None:
    with consumer_of(cluster, fetch_max_wait_ms=5_000) as consumer, producer_of(cluster) as p:
        consumer.assign([("t", 0)])
        assert consumer.poll(100) == []
        p.send("t", b"v", partition=0)
        assert poll_count(consumer, 1)[0].value == b"v"


def test_offsets(cluster: FakeCluster) -> None:
    filled(cluster)
    with consumer_of(cluster) as consumer:
        partitions = [("t", 0), ("t", 1)]
        assert consumer.beginning_offsets(partitions) == {("t", 0): 0, ("t", 1): 0}
        assert consumer.end_offsets(partitions) == {("t", 0): 334, ("t", 1): 333}
        found = consumer.offsets_for_times({("t", 0): 1_003, ("t", 1): 9_999})
        assert found == {("t", 0): (1, 1_003), ("t", 1): None}
        with pytest.raises(ApiError, match="t-9"):
            consumer.end_offsets([("t", 9)])
        with pytest.raises(ClientTimeout, match="nope-0"):
            consumer.end_offsets([("nope", 0)], timeout_ms=100)
        with pytest.raises(ApiError, match="nope"):
            consumer.partitions_for("nope")


def test_seeks(cluster: FakeCluster) -> None:
    filled(cluster)
    events: list[object] = []
    with Consumer(
        bootstrap_servers=cluster.bootstrap_servers,
        auto_offset_reset="earliest",
        on_event=events.append,
    ) as consumer:
        consumer.assign([("t", 0)])
        consumer.seek("t", 0, 100)
        assert poll_count(consumer, 1)[0].offset == 100
        consumer.seek_to_end()
        assert consumer.position("t", 0) == 334
        consumer.seek_to_beginning(("t", 0))
        assert poll_count(consumer, 1)[0].offset == 0
        consumer.seek_to_time("t", 0, 1_300)
        assert poll_count(consumer, 1)[0].timestamp_ms == 1_300
        with pytest.raises(ValueError, match="offset -1"):
            consumer.seek("t", 0, -1)
    assert [event.reason for event in events] == ["seek"] * 4  # type: ignore[attr-defined]


def test_reading_goes_on_after_a_leader_change(cluster: FakeCluster) -> None:
    filled(cluster)
    with consumer_of(cluster) as consumer:
        consumer.assign([("t", 0)])
        first = consumer.poll(WAIT_S * 1_000, 10)
        cluster.move_leader("t", 0, 3)
        cluster.kill(1)
        rest = poll_count(consumer, 334 - len(first))
    assert [record.offset for record in first + rest] == list(range(334))


def test_a_closed_consumer_says_so(cluster: FakeCluster) -> None:
    consumer = consumer_of(cluster)
    consumer.close()
    consumer.close()
    with pytest.raises(ClosedError):
        consumer.poll()


# --- admin ----------------------------------------------------------------------------------------


def test_topics(cluster: FakeCluster) -> None:
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        topic_id = admin.create_topic("new", 2, settings={"flush": "async"})
        (described,) = admin.describe_topics(["new"])
        assert (described.topic_id, len(described.partitions)) == (topic_id, 2)
        assert admin.list_topics() == ["new", "t"]
        with pytest.raises(ApiError, match="TOPIC_ALREADY_EXISTS"):
            admin.create_topic("new")
        admin.delete_topic("new")
        with pytest.raises(ApiError, match="topic new"):
            admin.describe_topics(["new"])


def test_a_creation_whose_answer_is_lost_is_not_called_refused(cluster: FakeCluster) -> None:
    cluster.lose_answers = {CreateTopicRequest: 1}
    with (
        Admin(bootstrap_servers=cluster.bootstrap_servers, **FAST) as admin,
        pytest.raises(OutcomeUnknown, match="TOPIC_ALREADY_EXISTS after an attempt"),
    ):
        admin.create_topic("new")
    cluster.lose_answers = {CreateTopicRequest: 1_000}
    with (
        Admin(bootstrap_servers=cluster.bootstrap_servers, **FAST) as admin,
        pytest.raises(OutcomeUnknown, match="no final answer"),
    ):
        admin.create_topic("newer", timeout_ms=700)


def test_a_question_whose_answer_is_lost_is_asked_again(cluster: FakeCluster) -> None:
    cluster.lose_answers = {MetadataRequest: 2, DescribeNodeRequest: 1}
    with Admin(bootstrap_servers=cluster.bootstrap_servers, **FAST) as admin:
        assert admin.list_topics() == ["t"]
        assert admin.describe_node(3).node_id == 3


def test_a_deletion_of_records_follows_the_leader(cluster: FakeCluster) -> None:
    with producer_of(cluster) as producer:
        for partition in (0, 1):
            producer.send_many("t", [b"x"] * 10, partition=partition).result(WAIT_S)
    cluster.deletion_errors = [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.REQUEST_TIMED_OUT]
    cluster.lose_answers = {DeleteRecordsRequest: 1}
    with Admin(bootstrap_servers=cluster.bootstrap_servers, **FAST) as admin:
        assert admin.delete_records("t", {1: 4, 0: 7}, timeout_ms=WAIT_S * 1_000) == {0: 7, 1: 4}
        assert cluster.count(DeleteRecordsRequest) == 3 + 1, "the lost answer was a refusal"


def test_a_deletion_of_records_that_is_refused_or_takes_too_long(cluster: FakeCluster) -> None:
    with Admin(bootstrap_servers=cluster.bootstrap_servers, **FAST) as admin:
        with pytest.raises(ApiError, match="OFFSET_OUT_OF_RANGE"):
            admin.delete_records("t", {2: 1})
        assert cluster.count(DeleteRecordsRequest) == 1
        with pytest.raises(ApiError, match="partitions 0 to 2"):
            admin.delete_records("t", {3: 0})
        cluster.deletion_errors = [ErrorCode.NOT_LEADER_OR_FOLLOWER] * 1_000
        with pytest.raises(ApiError, match="NOT_LEADER_OR_FOLLOWER"):
            admin.delete_records("t", {0: 0}, timeout_ms=2_000)
        assert cluster.count(DeleteRecordsRequest) > 3
        cluster.topics["t"].partitions[0].leader = -1
        with pytest.raises(ApiError, match="LEADER_NOT_AVAILABLE"):
            admin.delete_records("t", {0: 0}, timeout_ms=1_000)


def test_cluster_and_nodes(cluster: FakeCluster) -> None:
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        assert [broker.node_id for broker in admin.describe_cluster().brokers] == [1, 2, 3]
        assert admin.describe_node(2).node_id == 2
        with pytest.raises(ClientTimeout, match="node 9"):
            admin.describe_node(9, timeout_ms=100)


def test_one_dead_bootstrap_server_is_no_obstacle(cluster: FakeCluster) -> None:
    cluster.kill(1)
    with Admin(bootstrap_servers=cluster.bootstrap_servers) as admin:
        assert admin.list_topics() == ["t"]


def test_wrong_settings_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Consumer(bootstrap_servers="x", colour="red")
    assert len(caught.value.mistakes) == 2


def test_rubbish_on_the_line_is_no_answer() -> None:
    """A server that speaks something else: the connection is dropped, the call ends in time."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Admin(bootstrap_servers=address) as admin, pytest.raises(ClientTimeout):
            admin.list_topics(timeout_ms=100)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)
