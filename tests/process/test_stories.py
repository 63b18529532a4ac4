"""What the README promises of real processes: bytes come back, through kills and restarts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.wire.errors import ErrorCode
from chaos.proc.cluster import Plan
from chaos.proc.health import replica_ends
from client.admin import Admin
from client.consumer import Consumer
from client.delivery import RecordHandle
from client.producer import Producer
from client.retry import SendFailed
from tests.process.stories import Story, parts_of, running

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with running(tmp_path_factory.mktemp("three"), Plan(name="three")) as story:
        yield story


def prozess(story: Story, *words: str, stdin: Path | None = None) -> subprocess.Popen[bytes]:
    with (stdin or Path(os.devnull)).open("rb") as source:
        return subprocess.Popen(
            [sys.executable, "-m", "client.cli", *words],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PROZESS_BROKERS": story.bootstrap},
        )


def read_all(story: Story, topic: str, partitions: int) -> dict[int, list[bytes]]:
    """Every record of a topic up to its present end, by partition."""
    found: dict[int, list[bytes]] = {number: [] for number in range(partitions)}
    with Consumer(bootstrap_servers=story.bootstrap, auto_offset_reset="earliest") as consumer:
        places = [(topic, number) for number in range(partitions)]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        while any(len(found[number]) < ends[topic, number] for number in range(partitions)):
            for record in consumer.poll(1_000):
                assert record.offset == len(found[record.partition])
                assert record.value is not None
                found[record.partition].append(record.value)
    return found


def test_a_file_goes_in_and_the_same_bytes_come_out(three: Story, tmp_path: Path) -> None:
    lines = b"".join(b"line %d of the file\n" % number for number in range(100_000))
    source = tmp_path / "f"
    source.write_bytes(lines)
    three.create_topic("plain")
    produced = prozess(three, "produce", "plain", stdin=source)
    assert produced.communicate()[1].startswith(b"prozess: 100000 records")
    assert produced.returncode == 0
    consumed = prozess(three, "consume", "plain", "-e")
    out, complaints = consumed.communicate()
    assert consumed.returncode == 0, complaints
    assert out == lines


def test_two_leaders_die_and_every_line_is_there_once_in_order(
    three: Story, tmp_path: Path
) -> None:
    three.create_topic("killed", partitions=3)
    lines = [b"%07d" % number for number in range(600_000)]
    source = tmp_path / "f"
    source.write_bytes(b"\n".join(lines) + b"\n")
    produced = prozess(three, "produce", "killed", stdin=source)
    for _ in range(2):
        time.sleep(1.0)
        victim = three.leader("killed")
        three.cluster.kill(victim)
        three.wait_for(
            "another leads",
            lambda view, dead=victim: parts_of(view, "killed")[0].leader not in (-1, dead),  # type: ignore[misc]
        )
        three.restart([victim])
        three.wait_whole()
    complaints = produced.communicate()[1]
    assert produced.returncode == 0, complaints
    three.wait_equal("killed")
    found = read_all(three, "killed", 3)
    assert sorted(line for part in found.values() for line in part) == lines
    assert all(part == sorted(part) for part in found.values())
    compared = prozess(three, "log", "dump", "--compare", str(three.cluster.paths.directory))
    out, complaints = compared.communicate()
    assert compared.returncode == 0, (out, complaints)


class Load:
    """A producer that sends until told to stop; then every handle has its outcome."""

    def __init__(self, story: Story, topic: str) -> None:
        self.sent: list[tuple[bytes, RecordHandle]] = []
        self._stop = threading.Event()
        self._producer = Producer(bootstrap_servers=story.bootstrap, delivery_timeout_ms=25_000)
        self._thread = threading.Thread(target=self._run, args=(topic,))
        self._thread.start()

    def _run(self, topic: str) -> None:
        while not self._stop.is_set():
            for _ in range(20):
                value = b"value %d" % len(self.sent)
                self.sent.append((value, self._producer.send(topic, value, partition=0)))
            self._stop.wait(0.005)

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.close(40.0)


def test_kill_all_three_under_load_and_nothing_acknowledged_is_missing(three: Story) -> None:
    three.create_topic("all")
    load = Load(three, "all")
    time.sleep(1.0)
    for node_id in three.cluster.node_ids:
        three.cluster.kill(node_id)
    three.restart(three.cluster.node_ids)
    three.wait_whole()
    time.sleep(0.5)
    load.finish()
    three.wait_equal("all")
    values = read_all(three, "all", 1)[0]
    acked = [(v, h) for v, h in load.sent if h.exception() is None]
    assert len(acked) > 100
    for value, handle in acked:
        assert values[handle.result(0).offset] == value
    assert len(set(values)) == len(values)


def test_a_leaders_log_rots_and_nobody_reads_it_or_misses_a_record(three: Story) -> None:
    """Found when it is read; another one leads then, and the log is refilled from it."""
    three.create_topic("rotten", segment_bytes="65536")
    values = [b"%05d %s" % (number, b"v" * 500) for number in range(1_000)]
    with Producer(bootstrap_servers=three.bootstrap) as producer:
        handles = [producer.send("rotten", value, partition=0) for value in values]
        for handle in handles:
            handle.result(20)
    three.wait_equal("rotten")
    leader = three.leader("rotten")
    data_dir = three.cluster.paths.node(leader).data
    segments = sorted(data_dir.glob("logs/rotten-0.*/*.log"))
    assert len(segments) > 1
    with segments[0].open("r+b") as file:
        file.seek(300)
        byte = file.read(1)[0]
        file.seek(300)
        file.write(bytes([byte ^ 4]))
    assert read_all(three, "rotten", 1)[0] == values
    assert three.leader("rotten") != leader
    three.wait_equal("rotten")
    compared = prozess(three, "log", "verify", str(data_dir))
    out, complaints = compared.communicate()
    assert compared.returncode == 0, (out, complaints)


def test_a_topic_grows_and_loses_its_beginning_for_good(three: Story) -> None:
    """Deleted records are gone on every replica: a kill of all three does not bring them back."""
    three.create_topic("life")
    with Producer(bootstrap_servers=three.bootstrap) as producer:
        for number in range(100):
            producer.send("life", b"%d" % number, partition=0)
        producer.flush(20)
    grown = prozess(three, "topic", "alter", "life", "-p", "3", "-X", "retention_ms=3600000")
    out, complaints = grown.communicate()
    assert grown.returncode == 0, complaints
    assert b"3 partitions" in out
    assert b"retention_ms=3600000" in out
    assert b"keys of life map to 3 partitions" in complaints
    deleted = prozess(three, "topic", "delete-records", "life", "-p", "0", "--before", "60")
    out, complaints = deleted.communicate()
    assert deleted.returncode == 0, complaints
    assert out.split() == [b"partition", b"begins", b"at", b"0", b"60"]
    for node_id in three.cluster.node_ids:
        three.cluster.kill(node_id)
    three.restart(three.cluster.node_ids)
    three.wait_equal("life")
    consumed = prozess(three, "consume", "life", "-e")
    out, complaints = consumed.communicate()
    assert consumed.returncode == 0, complaints
    assert out.split() == [b"%d" % number for number in range(60, 100)]


def test_without_a_quorum_nothing_is_acknowledged_and_afterwards_all_goes_on(three: Story) -> None:
    """Two of three combined nodes are gone: no quorum, so the ISR cannot shrink and the record
    cannot be committed; its outcome is unknown, and the watermark stands still."""
    three.create_topic("alone", assignments=[(1, 2, 3)])
    with Producer(
        bootstrap_servers=three.bootstrap, request_timeout_ms=1_000, delivery_timeout_ms=3_000
    ) as producer:
        producer.send("alone", b"before", partition=0).result(10)
        leader = three.leader("alone")
        others = [node_id for node_id in three.cluster.node_ids if node_id != leader]
        whole = three.wait_equal("alone")
        mark = replica_ends(whole, parts_of(whole, "alone")[0])[leader][1]
        for node_id in others:
            three.cluster.kill(node_id)
        with pytest.raises(SendFailed) as failed:
            producer.send("alone", b"during", partition=0).result(10)
        assert not failed.value.definite
        assert failed.value.code is ErrorCode.REQUEST_TIMED_OUT
    view = three.view()
    stood = [
        r.high_watermark
        for n in view.nodes
        if n.node_id == leader
        for r in n.replicas
        if r.topic_id == _topic_id(three, "alone")
    ]
    three.restart(others)
    three.wait_equal("alone")
    assert stood == [mark]
    with Producer(bootstrap_servers=three.bootstrap) as producer:
        producer.send("alone", b"after", partition=0).result(10)
    assert read_all(three, "alone", 1)[0][0] == b"before"


def _topic_id(story: Story, topic: str) -> str:
    from client.admin import Admin

    with Admin(bootstrap_servers=story.bootstrap) as admin:
        return admin.describe_topics([topic])[0].topic_id


METADATA_BYTES = 3_000


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    settings = {"metadata_log_max_bytes_between_snapshots": METADATA_BYTES}
    plan = Plan(name="five", node_count=5, controller_count=3, settings=settings)
    with running(tmp_path_factory.mktemp("five"), plan) as story:
        yield story


def test_below_min_isr_nothing_is_appended_until_a_replica_is_back(five: Story) -> None:
    """A topic on 1, 4, 5 with min.insync.replicas 2; 4 and 5 die; the quorum (1, 2, 3) stands."""
    five.create_topic("small", assignments=[(1, 4, 5)], min_insync_replicas="2")
    with Producer(bootstrap_servers=five.bootstrap) as producer:
        producer.send("small", b"before", partition=0).result(10)
    five.wait_equal("small")
    for node_id in (4, 5):
        five.cluster.kill(node_id)
    five.wait_for(
        "the ISR is the leader alone", lambda view: parts_of(view, "small")[0].isr == (1,)
    )
    before = replica_ends(five.view(), parts_of(five.view(), "small")[0])[1]
    with Producer(
        bootstrap_servers=five.bootstrap, request_timeout_ms=500, delivery_timeout_ms=1_500
    ) as producer:
        with pytest.raises(SendFailed) as failed:
            producer.send("small", b"refused", partition=0).result(10)
        assert failed.value.code is ErrorCode.NOT_ENOUGH_REPLICAS
        assert failed.value.definite
    assert replica_ends(five.view(), parts_of(five.view(), "small")[0])[1] == before
    five.restart([4])
    five.wait_for(
        "broker 4 is in sync again", lambda view: parts_of(view, "small")[0].isr == (1, 4)
    )
    with Producer(bootstrap_servers=five.bootstrap) as producer:
        producer.send("small", b"after", partition=0).result(10)
    five.restart([5])
    five.wait_equal("small")
    assert read_all(five, "small", 1)[0] == [b"before", b"after"]


def test_the_metadata_log_stays_short_and_who_was_away_gets_a_snapshot(five: Story) -> None:
    """A voter and a node that is none miss 40 topics; the entries are gone when they are back."""
    five.create_topic("stays", assignments=[(1, 4, 5)])
    with Producer(bootstrap_servers=five.bootstrap) as producer:
        producer.send("stays", b"before", partition=0).result(10)
    leader = five.view().controller_id
    away = [next(node_id for node_id in (1, 2, 3) if node_id != leader), 4]
    for node_id in away:
        five.cluster.kill(node_id)
    five.wait_for("they are missed", lambda view: not {*away} & {*parts_of(view, "stays")[0].isr})
    with Admin(bootstrap_servers=five.bootstrap) as admin:
        for number in range(40):
            admin.create_topic(f"passing-{number}", assignments=[(5,)])
            admin.delete_topic(f"passing-{number}")
    five.restart(away)
    five.wait_equal("stays")
    with Producer(bootstrap_servers=five.bootstrap) as producer:
        producer.send("stays", b"after", partition=0).result(10)
    assert read_all(five, "stays", 1)[0] == [b"before", b"after"]
    for node_id in away:
        log = five.cluster.paths.node(node_id).directory / "node.log"
        assert "Restored" in log.read_text()
    for node_id in (1, 2, 3):
        file = five.cluster.paths.node(node_id).data / "raft" / "quorum.log"
        assert file.stat().st_size < 4 * METADATA_BYTES
