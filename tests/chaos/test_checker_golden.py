"""Every anomaly has a golden history that trips it and a near miss that does not.

The files in tests/testdata/histories are small stories; this file turns them into real history
lines, real segment bytes and real fact lines, and judges them. Times are milliseconds. A line is

    run [open|unhealed] [rf=3] [power_loss] [async] [not_started=2]
    producer p1 acks=1 idempotence=no
    send p1#0 t-0 0..5 ok 0 [le=0] [node=1] [attempts=1] [clock=a]   (or: fail, info, or no end)
    poll c9 t-0 6..7 0=p1#0 1=p1#1! 2=?                              (! other bytes, ? nobody's)
    assign|seek|reset|out_of_range|close c9 t-0 0                    (the position)
    ends c9 t-0 6..7 3 le=0 node=1 | ends … linearizable             (list_offsets)
    log 1,2 t-0 [hw=2] [start=0] [torn] [damaged]: p1#0 p1#1 le=1 pid=1 pe=0 seq=0 | @5 p1#3
    fact 1 Acked t-0 le=0 pe=0 first=0 last=1 isr=1,2 min_isr=2 hw=2 [life=b]
    meta 1,2 index=3 t-0 leader=1 le=0 pe=0 isr=1,2,3 [elr=3] [min_isr=2] [term=1]
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from broker.wire.batch_header import prefix
from broker.wire.record_batch import encode_batch
from chaos.checker.anomalies import COUNTEREXAMPLE_LINES_MAX, VOCABULARY, anomaly_named
from chaos.checker.judge import judge_evidence
from chaos.checker.model import build_history
from chaos.checker.run_info import run_info
from chaos.checker.verdict import REPORT_LINES_MAX, Verdict
from chaos.evidence import BatchDecoder, Evidence, add_facts, add_log, decode_replica
from chaos.history import (
    Attempt,
    Header,
    HistoryFile,
    HistoryWriter,
    PolledPartition,
    encode_value,
    payload_crc,
)

HISTORIES = Path(__file__).parents[1] / "testdata" / "histories"
TOPIC_ID = "00" * 16
MS = 1_000_000
VALUE_BYTES = 32


def identity(name: str) -> tuple[int, int]:
    """`p3#7` is (3, 7), `?` is (-1, -1)."""
    if name.startswith("?"):
        return -1, -1
    uid, _, counter = name.rstrip("!").removeprefix("p").partition("#")
    return int(uid), int(counter)


def payload(name: str) -> bytes:
    if name.startswith("?"):
        return b"bytes that nobody sent"
    return encode_value(*identity(name), VALUE_BYTES + name.endswith("!"))


def split(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words and `key=value` options; `0=p1#0` is a plain word."""
    options = dict(w.split("=", 1) for w in words if "=" in w and w[0].isalpha())
    return [w for w in words if not ("=" in w and w[0].isalpha())], options


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def times(text: str) -> tuple[int, int]:
    begin, _, end = text.partition("..")
    return int(begin) * MS, int(end or -1) * MS


class Story:
    """Collects the lines of one story and judges what they tell."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[list[bytes], HistoryWriter]] = {}
        self.evidence = Evidence()
        self.facts: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.healed, self.converged, self.replica_count = False, False, 3
        self.run: dict[str, Any] = {}
        self.topic: dict[str, Any] = {}
        self.decoder = BatchDecoder()

    def writer(self, clock: str) -> HistoryWriter:
        if clock not in self.files:
            chunks: list[bytes] = []
            self.files[clock] = (chunks, HistoryWriter(chunks.append, Header(clock, "here", 1)))
        return self.files[clock][1]

    def tell(self, line: str) -> None:
        verb, *words = line.split()
        plain, options = split(words)
        if verb in ("assign", "seek", "reset", "out_of_range", "close"):
            topic, partition = plain[1].split("-")
            process, offset = int(plain[0][1:]), int(plain[2])
            self.writer("a").consumer(0, process, verb, topic, int(partition), offset)
        elif verb == "log":
            head, _, tail = line.partition(":")
            self.on_log(head.split()[1:], tail.split("|"))
        else:
            getattr(self, f"on_{verb}")(plain, options)

    def on_run(self, plain: list[str], options: dict[str, str]) -> None:
        self.healed = "unhealed" in plain
        self.converged = not ("unhealed" in plain or "open" in plain) and self.converged
        if "open" in plain or "unhealed" in plain:
            self.run["open"] = True
        self.run["power_loss"] = "power_loss" in plain
        self.topic["flush"] = "async" if "async" in plain else "ack"
        self.replica_count = int(options.get("rf", 3))
        self.run["not_started"] = numbers(options.get("not_started", ""))

    def on_producer(self, plain: list[str], options: dict[str, str]) -> None:
        uid = int(plain[0][1:])
        acks = {"all": -1, "1": 1, "0": 0}[options.get("acks", "all")]
        settings = {"acks": acks, "idempotence": options.get("idempotence", "yes") == "yes"}
        self.writer("a").producer(0, uid, uid, settings)

    def on_send(self, plain: list[str], options: dict[str, str]) -> None:
        name, place, when, *outcome = plain
        topic, partition = place.split("-")
        begin, end = times(when)
        uid, counter = identity(name)
        writer = self.writer(options.get("clock", "a"))
        crc = payload_crc(payload(name))
        op = writer.send(begin, uid, topic, int(partition), uid, counter, crc)
        leader_epoch = int(options.get("le", 0))
        attempt = Attempt(int(options.get("node", 1)), leader_epoch, 7, "maybe")
        attempts = [attempt] * int(options.get("attempts", 1))
        if outcome and outcome[0] == "ok":
            writer.ok(op, end, int(partition), int(outcome[1]), leader_epoch, attempts)
        elif outcome == ["fail"]:
            writer.fail(op, end, "NOT_ENOUGH_REPLICAS", attempts)
        elif outcome == ["info"]:
            writer.info(op, end, "REQUEST_TIMED_OUT", attempts)
        else:
            assert not outcome, plain

    def on_poll(self, plain: list[str], options: dict[str, str]) -> None:
        consumer, place, when, *rows = plain
        topic, partition = place.split("-")
        begin, end = times(when)
        pairs = [row.split("=", 1) for row in rows]
        offsets = [int(offset) for offset, _ in pairs]
        ids = [identity(name) for _, name in pairs]
        crcs = [payload_crc(payload(name)) for _, name in pairs]
        uids, counters = [uid for uid, _ in ids], [counter for _, counter in ids]
        writer = self.writer(options.get("clock", "a"))
        op = writer.poll(begin, int(consumer[1:]))
        part = PolledPartition(topic, int(partition), -1, offsets, uids, counters, crcs)
        writer.records(op, end, [part])

    def on_ends(self, plain: list[str], options: dict[str, str]) -> None:
        consumer, place, when, end_offset, *rest = plain
        topic, partition = place.split("-")
        begin, end = times(when)
        writer = self.writer("a")
        argument = {"topic": topic, "partition": int(partition), "at": "latest"}
        op = writer.call(begin, int(consumer[1:]), "list_offsets", argument)
        answer = {
            "offset": int(end_offset),
            "node": int(options.get("node", 1)),
            "leader_epoch": int(options.get("le", 0)),
            "broker_epoch": int(options.get("be", 1)),
            "linearizable": "linearizable" in rest,
        }
        writer.answer(op, end, answer)

    def on_log(self, head: list[str], batches: list[str]) -> None:
        plain, options = split(head)
        topic, partition = plain[1].split("-")
        next_offset = start = int(options.get("start", 0))
        data = bytearray()
        for batch in batches:
            names, settings = split(batch.split())
            if names and names[0].startswith("@"):
                next_offset = int(names.pop(0)[1:])
            if not names:
                continue
            stored = encode_batch(
                [(0, None, payload(name), ()) for name in names],
                producer_id=int(settings.get("pid", -1)),
                producer_epoch=int(settings.get("pe", 0 if "pid" in settings else -1)),
                base_sequence=int(settings.get("seq", -1)),
            )
            stored[:16] = prefix(next_offset, len(stored) - 12, int(settings.get("le", 0)))
            data += stored
            next_offset += len(names)
        if "torn" in plain:
            data += b"\0" * 70
        if "damaged" in plain:
            whole = encode_batch([(0, None, b"x", ())])
            data += b"\0" * 70 + whole
        for node in numbers(plain[0]):
            log = decode_replica(
                node,
                topic,
                TOPIC_ID,
                int(partition),
                [(f"{start:020d}.log", bytes(data))],
                high_watermark=int(options.get("hw", next_offset)),
                decoder=self.decoder,
            )
            add_log(self.evidence, log)
        self.converged = "open" not in self.run

    def on_fact(self, plain: list[str], options: dict[str, str]) -> None:
        node, kind = int(plain[0]), plain[1]
        partition = int(plain[2].split("-")[1])
        row: dict[str, Any] = {"n": len(self.facts[node]), "node": node, "kind": kind}
        row |= {"incarnation": options.pop("life", "a"), "topic": TOPIC_ID, "p": partition}
        if kind == "Acked":
            row |= {"acks": -1, "first": 0, "isr": numbers(options.pop("isr"))}
        if "ends" in options:
            row["ends"] = numbers(options.pop("ends"))
        self.facts[node].append(row | {key: int(value) for key, value in options.items()})

    def on_meta(self, plain: list[str], options: dict[str, str]) -> None:
        change = {
            "kind": "PartitionChanged",
            "topic_id": TOPIC_ID,
            "partition": int(plain[1].split("-")[1]),
            "leader": int(options["leader"]),
            "leader_epoch": int(options["le"]),
            "partition_epoch": int(options["pe"]),
            "isr": numbers(options["isr"]),
            "elr": numbers(options.get("elr", "")),
        }
        topic = {
            "kind": "TopicCreated",
            "topic_id": TOPIC_ID,
            "name": "t",
            "min_insync_replicas": int(options.get("min_isr", 2)),
        }
        for node in numbers(plain[0]):
            row = {"node": node, "kind": "Applied", "incarnation": options.get("life", "a")}
            row |= {"n": len(self.facts[node]), "index": int(options["index"])}
            row |= {"term": int(options.get("term", 1)), "records": json.dumps([topic, change])}
            self.facts[node].append(row)

    def judge(self) -> Verdict:
        for node, rows in self.facts.items():
            add_facts(self.evidence, node, [json.dumps(row).encode() for row in rows])
        for _, writer in self.files.values():
            writer.flush()
        history = build_history(
            HistoryFile.from_bytes(name, b"".join(chunks))
            for name, (chunks, _) in sorted(self.files.items())
        )
        topic = {"partitions": 2, "replication_factor": self.replica_count, "min_isr": 2}
        run = {
            "version": 1,
            "seed": 1,
            "boot_id": "a",
            "host": "here",
            "nodes": [1, 2, 3],
            "topics": {"t": topic | self.topic},
            "load_start_ns": 0,
            "load_end_ns": 1_000 * MS,
            "heal_ns": 1_000 * MS if self.healed or self.converged else None,
            "converged_ns": 1_500 * MS if self.converged else None,
            "heal_limit_ms": 30_000,
            "nemesis": [],
            "mutants": [],
            "interrupted": False,
            **{key: value for key, value in self.run.items() if key != "open"},
        }
        return judge_evidence(run_info(run), history, self.evidence, [])


def read_story(path: Path) -> tuple[set[str], dict[str, list[str]]]:
    """(anomalies that the first section trips, lines of both sections)."""
    expected = {path.stem}
    sections: dict[str, list[str]] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.partition("  #")[0].strip()
        if line.startswith("== "):
            current = sections.setdefault(line.removeprefix("== "), [])
        elif line.startswith("also: "):
            expected |= set(line.removeprefix("also: ").split())
        elif line and not line.startswith("#"):
            current.append(line)
    assert list(sections) == ["trips", "near miss"], path
    return expected, sections


def judge_story(lines: list[str]) -> Verdict:
    story = Story()
    for line in lines:
        story.tell(line)
    return story.judge()


NAMES = sorted(path.stem for path in HISTORIES.glob("*.txt"))


def test_every_anomaly_has_a_golden_history_and_no_other_has() -> None:
    assert sorted(anomaly.name for anomaly in VOCABULARY) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_history_trips_exactly_its_anomaly(name: str) -> None:
    expected, sections = read_story(HISTORIES / f"{name}.txt")
    verdict = judge_story(sections["trips"])
    assert set(verdict.found) == expected, verdict.render(0)
    assert verdict.outcome == "invalid"
    assert verdict.exit_code == 1
    broken = [check.guarantee for check in verdict.checks if name in check.anomalies]
    assert broken == [anomaly_named(name).breaks]
    shown = next(example for example in verdict.examples if example.anomaly == name)
    assert 1 <= len(shown.lines) <= COUNTEREXAMPLE_LINES_MAX
    text = verdict.render()
    assert name in text
    assert len(text.splitlines()) <= REPORT_LINES_MAX


@pytest.mark.parametrize("name", NAMES)
def test_the_near_miss_is_legal(name: str) -> None:
    _, sections = read_story(HISTORIES / f"{name}.txt")
    verdict = judge_story(sections["near miss"])
    assert not verdict.found, verdict.render(0)
    assert verdict.outcome != "invalid"


FINER_POINTS: dict[str, tuple[str, dict[str, int]]] = {
    "a single attempt leaves one copy, with or without idempotence": (
        """
        producer p1 idempotence=no
        send p1#0 t-0 0..5 ok 0 attempts=1
        log 1,2,3 t-0: p1#0 | p1#0
        """,
        {"duplicate": 1},
    ),
    "a missing replica may have what the others lack": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1
        log 1,2 t-0: p1#0
        """,
        {},
    ),
    "a refused record in the log, which nobody read": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 fail
        log 1,2,3 t-0: p1#0 | p1#1
        """,
        {"failed-read": 1},
    ),
    "a record in the log of a partition it was not sent to": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-1 6..9 info
        log 1,2,3 t-0: p1#0 | p1#1
        """,
        {"phantom": 1},
    ),
    "bytes of nobody where an acked record belongs are damage": (
        """
        send p1#0 t-0 0..5 ok 0
        poll c9 t-0 6..7 0=?
        """,
        {"corrupt": 1, "lost-write": 1},
    ),
    "where another record was read the acked one is lost, once": (
        """
        send p1#0 t-0 0..5 ok 0
        send p2#0 t-0 0..5 info
        send p1#1 t-0 6..9 ok 1
        poll c9 t-0 10..11 0=p2#0 1=p1#1
        """,
        {"lost-write": 1},
    ),
    "after a refused position nobody has passed what lies between": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1
        send p1#2 t-0 10..11 ok 2
        seek c9 t-0 0
        out_of_range c9 t-0 0
        poll c9 t-0 20..21 2=p1#2
        """,
        {},
    ),
    "what was passed over and never read by anybody is lost": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1
        send p1#2 t-0 10..11 ok 2
        seek c9 t-0 0
        poll c9 t-0 20..21 2=p1#2
        poll c8 t-0 20..21 1=p1#1
        """,
        {"lost-write": 1, "poll-skip": 1},
    ),
    "an offset that readers never had may be a hole in their eyes only": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 2
        seek c9 t-0 0
        poll c9 t-0 20..21 0=p1#0 2=p1#1
        send p2#0 t-0 1.. info
        """,
        {},
    ),
    "without idempotence a retry may have filled the offset before": (
        """
        producer p1 idempotence=no
        send p1#0 t-0 0..5 ok 1 attempts=2
        """,
        {},
    ),
    "without idempotence and without an end there may be any number of copies": (
        """
        producer p2 idempotence=no
        send p1#0 t-0 0..5 ok 2
        send p2#0 t-0 0..
        """,
        {},
    ),
    "a refused send fills no offset": (
        """
        send p1#0 t-0 0..5 ok 1
        send p2#0 t-0 0..4 fail
        """,
        {"unfilled-offset": 1},
    ),
    "a copy is an append of its own, as old as its send": (
        """
        producer p1 idempotence=no
        send p1#0 t-0 20..25 ok 2 attempts=2
        send p2#0 t-0 0..5 ok 1
        log 1,2,3 t-0: p1#0 | p2#0 | p1#0
        """,
        {"realtime-inversion": 1},
    ),
    "a new consumer starts where it likes": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1
        assign c9 t-0 0
        poll c9 t-0 10..11 0=p1#0
        close c9 t-0 0
        poll c9 t-0 12..13 1=p1#1
        assign c8 t-0 0
        poll c8 t-0 10..11 0=p1#0 1=p1#1
        close c8 t-0 2
        poll c8 t-0 12..13 0=p1#0
        """,
        {},
    ),
    "a poll may return other partitions in between": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-1 0..5 ok 0
        send p1#2 t-0 6..9 ok 1
        poll c9 t-0 10..11 0=p1#0
        poll c9 t-1 10..11 0=p1#1
        poll c9 t-0 12..13 1=p1#2
        """,
        {},
    ),
    "a linearizable read of the end binds across leaders": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1 node=2 le=1
        ends c9 t-0 10..11 2 node=2 le=1 linearizable
        ends c9 t-0 12..13 1 node=1 le=0 linearizable
        log 1,2,3 t-0: p1#0 p1#1
        """,
        {"log-end-regression": 2},
    ),
    "the ack of another leader says nothing about this one's end": (
        """
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1 node=2 le=1
        ends c9 t-0 12..13 1 node=1 le=0
        log 1,2,3 t-0: p1#0 p1#1
        """,
        {},
    ),
    "a leader need not have heard again from a member that restarted": (
        """
        send p1#0 t-0 0..5 ok 0
        log 1,2,3 t-0: p1#0
        meta 1,2,3 index=3 t-0 leader=1 le=0 pe=0 isr=1,2,3
        fact 1 Acked t-0 le=0 pe=0 last=0 isr=1,2,3 min_isr=2 hw=1 ends=1,1,-1
        """,
        {},
    ),
    "an ack at a high watermark that has not passed the record": (
        """
        meta 1 index=3 t-0 leader=1 le=0 pe=0 isr=1,2,3
        fact 1 Acked t-0 le=0 pe=0 last=4 isr=1,2,3 min_isr=2 hw=4 ends=5,5,5
        """,
        {"ack-before-isr": 1},
    ),
    "an ack that a member of the ISR is known not to have": (
        """
        meta 1 index=3 t-0 leader=1 le=0 pe=0 isr=1,2,3
        fact 1 Acked t-0 le=0 pe=0 last=4 isr=1,2,3 min_isr=2 hw=5 ends=5,4,5
        """,
        {"ack-before-isr": 1},
    ),
    "an ack by a node that the metadata does not name as leader": (
        """
        send p1#0 t-0 0..5 ok 0
        log 1,2,3 t-0: p1#0
        meta 1,2,3 index=3 t-0 leader=1 le=0 pe=0 isr=1,2,3
        fact 2 Acked t-0 le=0 pe=0 last=0 isr=1,2,3 min_isr=2 hw=1
        """,
        {"ack-outside-committed-isr": 1},
    ),
    "a new leader's log ends exactly behind the acked record": (
        """
        meta 1,2,3 index=3 t-0 leader=1 le=1 pe=0 isr=1,2,3
        fact 1 Acked t-0 le=1 pe=0 last=5 isr=1,2,3 min_isr=2 hw=6
        fact 2 BecameLeader t-0 le=2 leo=5
        fact 3 BecameLeader t-0 le=3 leo=6
        """,
        {"incomplete-leader": 1},
    ),
    "equal logs but for one byte below the high watermark": (
        """
        run open
        send p1#0 t-0 0..5 ok 0
        log 1,2 t-0: p1#0 le=3
        log 3 t-0: p1#0 le=2
        """,
        {"divergence": 1},
    ),
}


@pytest.mark.parametrize("point", FINER_POINTS)
def test_finer_points(point: str) -> None:
    story, expected = FINER_POINTS[point]
    verdict = judge_story([line.strip() for line in story.strip().splitlines()])
    assert verdict.found == expected, verdict.render(0)


def test_what_only_a_laggard_lacks_is_not_compared() -> None:
    """Nothing is wrong, but the proof is not complete."""
    story = """
        run open
        send p1#0 t-0 0..5 ok 0
        send p1#1 t-0 6..9 ok 1
        log 1 t-0 hw=1: p1#0
        log 2,3 t-0: p1#0 | p1#1
    """
    verdict = judge_story([line.strip() for line in story.strip().splitlines()])
    assert not verdict.found
    gate = next(gate for gate in verdict.gates if gate.name == "all-acked-compared")
    assert not gate.passed
    assert gate.text.startswith("1 of 2 acked records compared")


def test_a_lost_write_is_told_with_its_fate() -> None:
    """Who promised it with which ISR, who cut it off, who led without it."""
    story = """
        send p1#0 t-0 0..5 ok 0 node=2
        send p1#1 t-0 6..9 ok 1 node=2
        log 1,2,3 t-0: p1#0
        fact 1 BecameLeader t-0 le=0 leo=0
        fact 1 Acked t-0 le=0 pe=1 first=1 last=1 isr=1,2 min_isr=2 hw=2 ends=2,1
        fact 2 BecameLeader t-0 le=1 leo=1
        fact 1 Truncated t-0 le=1 leo=1 old_end=2
    """
    verdict = judge_story([line.strip() for line in story.strip().splitlines()])
    [lost] = [example for example in verdict.examples if example.anomaly == "lost-write"]
    assert lost.lines == (
        "p1#1 was acked at offset 1 of t-0 and is gone",
        "client 1 sent p1#1 to t-0 at +0.006000 s, acked at +0.009000 s by node 2: offset 1, "
        "leader epoch 0",
        "nodes 1, 2, 3 hold nothing at offset 1 (log end 1)",
        "node 1 acked it in leader epoch 0, ISR [1, 2], counted ends [2, 1]",
        "node 1 cut its log from 2 to 1 in leader epoch 1",
        "node 2 became leader in leader epoch 1 with log end 1",
    )
