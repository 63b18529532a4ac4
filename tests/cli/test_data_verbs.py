"""topic, produce, consume, log and perf against real brokers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.proc.cluster import Plan
from tests.process.bad_input import Ended, prozess
from tests.process.stories import Story, running

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("cluster")]

PERF = ("--replication-factor", "1", "--seconds", "0.2")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with running(tmp_path_factory.mktemp("verbs"), Plan(name="verbs")) as story:
        yield story


def good(story: Story, *words: str, stdin: bytes = b"") -> Ended:
    ended = prozess(story, *words, stdin=stdin)
    assert ended.code == 0, ended.err
    return ended


def lines_of_json(ended: Ended) -> list[Any]:
    return [json.loads(line) for line in ended.out.splitlines()]


def test_the_life_of_a_topic(story: Story) -> None:
    good(story, "topic", "create", "life", "-p", "2", "-X", "flush=async")
    assert prozess(story, "topic", "create", "life").code == 1
    good(story, "topic", "create", "life", "--if-not-exists")
    (shown,) = lines_of_json(good(story, "topic", "describe", "life", "-o", "json"))[0]
    assert (shown["flush"], len(shown["partitions"])) == ("async", 2)
    assert all(sorted(part["replicas"]) == [1, 2, 3] for part in shown["partitions"])
    assert "life" in [
        row["topic"] for row in lines_of_json(good(story, "topic", "list", "-o", "json"))[0]
    ]
    good(story, "topic", "delete", "life")
    assert prozess(story, "topic", "delete", "life").code == 1
    good(story, "topic", "delete", "life", "--if-exists")


def test_replicas_as_assigned(story: Story) -> None:
    created = good(story, "topic", "create", "assigned", "--assign", "3,1;2,3", "-o", "json")
    (shown,) = lines_of_json(created)
    assert [part["replicas"] for part in shown["partitions"]] == [[3, 1], [2, 3]]
    assert [part["leader"] for part in shown["partitions"]] == [3, 2]


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_bytes_come_back_as_they_went_in(codec: str, story: Story) -> None:
    topic = f"bytes-{codec}"
    data = b"plain\n\n\x00\xff binary\r\n" + b"long" * 5_000 + b"\nlast without line feed"
    good(story, "produce", topic, "--create", "-z", codec, stdin=data)
    assert good(story, "consume", topic, "-e").out == data + b"\n"
    # There already, so that --create has nothing to do.
    good(story, "produce", topic, "--create", stdin=b"more\n")
    assert good(story, "consume", topic, "-e", "-o", "-1").out == b"more\n"


def test_keys_headers_and_partitions(story: Story) -> None:
    words = ("produce", "keyed", "--create", "--partitions", "3", "-H", "from=test", "-k", ":")
    good(story, *words, stdin=b"".join(b"k%d:v%d\n" % (n % 10, n) for n in range(100)))
    shown = good(story, "consume", "keyed", "-e", "-f", r"%p %k %s %h %K %S\n").out
    rows = [line.split() for line in shown.splitlines()]
    assert len(rows) == 100
    partition_of: dict[bytes, set[bytes]] = {}
    for partition, key, value, headers, key_size, value_size in rows:
        partition_of.setdefault(key, set()).add(partition)
        assert (headers, int(key_size), int(value_size)) == (b"from=test", 2, len(value))
    assert all(len(partitions) == 1 for partitions in partition_of.values())
    for key in partition_of:
        numbers = [int(row[2][1:]) for row in rows if row[1] == key]
        assert numbers == sorted(numbers), "records of one key stay in order"
    good(story, "produce", "keyed", "-p", "2", stdin=b"here\n")
    assert good(story, "consume", "keyed", "-p", "2", "-o", "-1", "-e").out == b"here\n"


def test_where_reading_begins_and_ends(story: Story) -> None:
    good(story, "produce", "range", "--create", stdin=b"".join(b"%d\n" % n for n in range(10)))
    assert good(story, "consume", "range", "-e", "-o", "7").out == b"7\n8\n9\n"
    assert good(story, "consume", "range", "-e", "-o", "-2").out == b"8\n9\n"
    assert good(story, "consume", "range", "-e", "-o", "-200", "-c", "2").out == b"0\n1\n"
    assert good(story, "consume", "range", "-c", "3").out == b"0\n1\n2\n"
    assert good(story, "consume", "range", "-e", "-o", "end").out == b""
    first = lines_of_json(good(story, "consume", "range", "-c", "1", "-J"))[0]
    at_first = good(story, "consume", "range", "-e", "-o", f"@{first['timestamp_ms']}").out
    assert at_first.startswith(b"0\n")
    later = str(int(time.time() * 1_000) + 1_000_000)
    assert good(story, "consume", "range", "-e", "-o", f"@{later}").out == b""


def test_the_summary_as_json(story: Story) -> None:
    (shown,) = lines_of_json(
        good(story, "produce", "summed", "--create", "-o", "json", stdin=b"a\nb\n")
    )
    assert (shown["sent"], shown["delivered"]) == (2, 2)
    assert shown["failed"] == {"count": 0}
    assert shown["partitions"] == [
        {"partition": 0, "count": 2, "first_offset": 0, "last_offset": 1}
    ]


def test_what_replicas_hold(story: Story) -> None:
    good(story, "produce", "held", "--create", "-k", "=", stdin=b"k=v\n")
    story.wait_equal("held")
    directory = story.cluster.paths.directory
    words = ("log", "dump", "--compare", "--below", "end", "-o", "json", str(directory))
    rows = lines_of_json(good(story, *words))
    (held,) = [row for row in rows if row["replica"] == "held-0"]
    assert held["identical"]
    assert held["below"] == 1
    assert len(held["sources"]) == 3
    dumped = good(story, "log", "dump", "--records", "-o", "json", str(directory / "nodes" / "2"))
    records = [
        record
        for row in lines_of_json(dumped)
        if row["type"] == "batch" and "held-0" in row["file"]
        for record in row["records"]
    ]
    assert [(record["key"], record["value"]) for record in records] == [("k", "v")]
    good(story, "log", "verify", str(directory))


@pytest.mark.parametrize(
    "words",
    [
        ("produce", *PERF, "--warmup", "0", "-p", "2"),
        ("latency", *PERF, "--rate", "100"),
        ("consume", "-r", "1", "--records", "2000", "--rounds", "1"),
        ("consume", "-r", "1", "--records", "2000", "--rounds", "1", "--batches"),
    ],
    ids=lambda words: " ".join(words),
)
def test_perf_measures_and_leaves_nothing_behind(words: tuple[str, ...], story: Story) -> None:
    (shown,) = lines_of_json(good(story, "perf", *words, "-o", "json"))
    assert shown["records"] > 0
    assert shown["records_per_s"] > 0
    assert shown["leader_or_isr_changes"] == 0
    assert set(shown["processes"]) == {"client", "node 1", "node 2", "node 3"}
    assert shown["settings"]["replication_factor"] == 1
    (topics,) = lines_of_json(good(story, "topic", "list", "-o", "json"))
    assert not [row for row in topics if row["topic"].startswith("perf-")]


def test_perf_brings_its_own_cluster(tmp_path: Path) -> None:
    words = ("perf", "produce", "-n", "1", "-r", "1", "--seconds", "0.2", "--warmup", "0")
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", *words],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PROZESS_BROKERS"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"records/s" in done.stdout
    assert b"fdatasync after 64 KiB" in done.stdout
    assert list((tmp_path / ".prozess").iterdir()) == []
