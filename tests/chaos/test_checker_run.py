"""Whole run directories: clean ones are valid, and surgery on one record is found and named.

`CleanRun` plays a small correct cluster (no broker code: a list is the log) and keeps it as plain
rows; a surgeon edits the rows; `write` makes the run directory, with real segments, that is judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.wire.batch_header import LOG_OVERHEAD_BYTES, prefix
from broker.wire.record_batch import encode_batch
from chaos.checker.anomalies import Findings, table
from chaos.checker.judge import ALLOWED, judge
from chaos.checker.run_info import RunError
from chaos.checker.verdict import REPORT_LINES_MAX, Verdict
from chaos.history import (
    Attempt,
    Header,
    HistoryWriter,
    PolledPartition,
    encode_value,
    payload_crc,
    value_name,
)

TOPIC_ID = "ab" * 16
MS = 1_000_000
NODES = (1, 2, 3)
SECONDS = 12


@dataclass
class Sent:
    uid: int
    counter: int
    partition: int
    begin_ms: int
    end_ms: int
    outcome: str
    offset: int = -1
    leader_epoch: int = 0

    @property
    def name(self) -> str:
        return value_name(self.uid << 40 | self.counter)


@dataclass
class Stored:
    uid: int
    counter: int
    leader_epoch: int
    payload: bytes


@dataclass
class Polled:
    consumer: int
    partition: int
    time_ms: int
    rows: list[tuple[int, int, int, int]]
    """(offset, uid, counter, crc)"""


@dataclass
class CleanRun:
    """A correct run of 4 producers and 2 consumers on 2 partitions."""

    seed: int
    sends: list[Sent] = field(default_factory=list)
    logs: dict[tuple[int, int], list[Stored | None]] = field(default_factory=dict)
    polls: list[Polled] = field(default_factory=list)
    facts: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        log: dict[int, list[Stored]] = {0: [], 1: []}
        stored_ms: dict[int, list[int]] = {0: [], 1: []}
        counters = dict.fromkeys(range(1, 5), 0)
        for time_ms in range(0, SECONDS * 1_000, 20):
            uid = rng.randint(1, 4)
            partition = rng.randint(0, 1)
            sent = Sent(uid, counters[uid], partition, time_ms, time_ms + rng.randint(1, 90), "ok")
            counters[uid] += 1
            sent.leader_epoch = time_ms // 2_500
            luck = rng.random()
            if luck < 0.05:
                sent.outcome = "fail"
            elif luck < 0.12:
                sent.outcome = "info"
            if sent.outcome == "ok" or (sent.outcome == "info" and luck < 0.09):
                if sent.outcome == "ok":
                    sent.offset = len(log[partition])
                stored_ms[partition].append(sent.end_ms)
                payload = encode_value(uid, sent.counter, 60)
                log[partition].append(Stored(uid, sent.counter, sent.leader_epoch, payload))
            self.sends.append(sent)
        for consumer in (8, 9):
            for partition in (0, 1):
                self.poll_all(rng, consumer, partition, log[partition], stored_ms[partition])
        self.logs = {(n, p): list(log[p]) for n in NODES for p in (0, 1)}
        self.facts = {node: self.facts_of(node) for node in NODES}
        self.faults = [
            {"time_ns": 1, "kind": kind, "action": action, "target": "2", "confirmed": True}
            for kind in ("kill", "pause")
            for action in ("inject", "lift")
        ]
        self.run = self.run_json()

    def poll_all(
        self, rng: Random, consumer: int, partition: int, log: list[Stored], ends_ms: list[int]
    ) -> None:
        """Polls from the start, never ahead of what is committed."""
        position, time_ms = 0, 500
        while position < len(log):
            time_ms += rng.randint(50, 400)
            end = position
            while end < len(log) and ends_ms[end] < time_ms - 5 and end < position + 40:
                end += 1
            rows = [
                (at, log[at].uid, log[at].counter, payload_crc(log[at].payload))
                for at in range(position, end)
            ]
            self.polls.append(Polled(consumer, partition, time_ms, rows))
            position = end

    def facts_of(self, node: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        topic = {
            "kind": "TopicCreated",
            "topic_id": TOPIC_ID,
            "name": "t",
            "min_insync_replicas": 2,
        }
        for leader_epoch in range(5):
            changes = [
                {
                    "kind": "PartitionChanged",
                    "topic_id": TOPIC_ID,
                    "partition": partition,
                    "leader": 1 + leader_epoch % 3,
                    "leader_epoch": leader_epoch,
                    "partition_epoch": leader_epoch,
                    "isr": [1, 2, 3],
                    "elr": [],
                }
                for partition in (0, 1)
            ]
            rows.append(
                {
                    "kind": "Applied",
                    "index": leader_epoch + 1,
                    "term": 1,
                    "records": json.dumps([topic, *changes]),
                }
            )
            if node != 1 + leader_epoch % 3:
                continue
            for partition in (0, 1):
                log = self.logs[(node, partition)]
                start = sum(r is not None and r.leader_epoch < leader_epoch for r in log)
                end = sum(r is not None and r.leader_epoch <= leader_epoch for r in log)
                common = {"topic": TOPIC_ID, "p": partition, "le": leader_epoch}
                common |= {"pe": leader_epoch}
                rows.append(common | {"kind": "BecameLeader", "leo": start, "hw": start})
                rows += [
                    common
                    | {"kind": "Acked", "leo": end, "hw": at + 1, "first": at, "last": at}
                    | {"isr": [1, 2, 3], "min_isr": 2, "acks": -1, "ends": [end, end, end]}
                    for at in range(start, end)
                ]
        return [row | {"n": n, "node": node, "incarnation": "a"} for n, row in enumerate(rows)]

    def run_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "seed": self.seed,
            "boot_id": "boot",
            "host": "here",
            "nodes": list(NODES),
            "topics": {"t": {"partitions": 2, "replication_factor": 3, "min_isr": 2}},
            "load_start_ns": 0,
            "load_end_ns": SECONDS * 1_000 * MS,
            "heal_ns": SECONDS * 1_000 * MS,
            "converged_ns": (SECONDS * 1_000 + 800) * MS,
            "heal_limit_ms": 30_000,
            "nemesis": ["kill", "pause"],
            "mutants": [],
            "interrupted": False,
            "command": f"prozess chaos run --seed {self.seed}",
        }

    # --- the run directory ------------------------------------------------------------------------

    def write(self, run_dir: Path) -> Path:
        run_dir.mkdir(exist_ok=True)
        (run_dir / "run.json").write_text(json.dumps(self.run))
        (run_dir / "faults.jsonl").write_text("".join(json.dumps(f) + "\n" for f in self.faults))
        self.write_histories(run_dir)
        for node in NODES:
            data_dir = run_dir / "data" / str(node)
            data_dir.mkdir(parents=True)
            facts = "".join(json.dumps(row) + "\n" for row in self.facts.get(node, ()))
            if facts:
                (data_dir / "facts.jsonl").write_text(facts)
            for partition in (0, 1):
                self.write_log(data_dir, partition, self.logs[(node, partition)])
        return run_dir

    def write_histories(self, run_dir: Path) -> None:
        header = Header("boot", "here", self.seed)
        producers = HistoryWriter.open(run_dir / "history-producers.jsonl", header)
        for uid in range(1, 5):
            producers.producer(0, uid, uid, {"acks": -1, "idempotence": True})
        for sent in self.sends:
            crc = payload_crc(encode_value(sent.uid, sent.counter, 60))
            begin_ns = sent.begin_ms * MS
            place = ("t", sent.partition, sent.uid, sent.counter, crc)
            op = producers.send(begin_ns, sent.uid, *place)
            leader = 1 + sent.leader_epoch % 3
            told = "no" if sent.outcome == "fail" else "yes"
            attempt = Attempt(leader, sent.leader_epoch, 0, told)
            if sent.outcome == "ok":
                end_ns = sent.end_ms * MS
                where = (sent.partition, sent.offset, sent.leader_epoch)
                producers.ok(op, end_ns, *where, [attempt])
            elif sent.outcome == "fail":
                producers.fail(op, sent.end_ms * MS, "NOT_ENOUGH_REPLICAS", [attempt])
            else:
                producers.info(op, sent.end_ms * MS, "REQUEST_TIMED_OUT", [attempt])
        producers.close()
        consumers = HistoryWriter.open(run_dir / "history-consumers.jsonl", header)
        for consumer in (8, 9):
            for partition in (0, 1):
                consumers.consumer(0, consumer, "assign", "t", partition, 0)
        for poll in self.polls:
            op = consumers.poll(poll.time_ms * MS - MS, poll.consumer)
            columns = [list(column) for column in zip(*poll.rows, strict=True)] or [[]] * 4
            part = PolledPartition("t", poll.partition, -1, *columns)
            consumers.records(op, poll.time_ms * MS, [part] if poll.rows else [])
        consumers.close()

    def write_log(self, data_dir: Path, partition: int, records: list[Stored | None]) -> None:
        directory = data_dir / "logs" / f"t-{partition}.{TOPIC_ID}"
        directory.mkdir(parents=True)
        data = bytearray()
        for offset, record in enumerate(records):
            if record is not None:
                stored = encode_batch([(0, None, record.payload, ())])
                length = len(stored) - LOG_OVERHEAD_BYTES
                stored[:16] = prefix(offset, length, record.leader_epoch)
                data += stored
        (directory / f"{0:020d}.log").write_bytes(data)

    # --- help for surgeons ------------------------------------------------------------------------

    def acked(self, rng: Random) -> Sent:
        """An acked record somewhere in the middle."""
        acked = [sent for sent in self.sends if sent.outcome == "ok"]
        return acked[rng.randint(len(acked) // 4, len(acked) // 2)]

    def set_on(self, nodes: tuple[int, ...], sent: Sent, record: Stored | None) -> None:
        for node in nodes:
            self.logs[(node, sent.partition)][sent.offset] = record

    def stored(self, sent: Sent) -> Stored:
        record = self.logs[(1, sent.partition)][sent.offset]
        assert record is not None
        return record

    def poll_of(self, consumer: int, sent: Sent) -> tuple[Polled, int]:
        for poll in self.polls:
            if (poll.consumer, poll.partition) == (consumer, sent.partition):
                for at, row in enumerate(poll.rows):
                    if row[0] == sent.offset:
                        return poll, at
        raise AssertionError("everything is read")


Surgery = Callable[[CleanRun, Random], str]
"""Damages the run; returns the record that the report must name."""


def lose_a_record(run: CleanRun, rng: Random) -> str:
    """Its place is taken by a record of unknown outcome; nobody had read it."""
    victim = run.acked(rng)
    run.polls = [poll for poll in run.polls if poll.time_ms < victim.begin_ms]
    run.sends.append(Sent(5, 0, victim.partition, 0, 50, "info"))
    other = replace(run.stored(victim), uid=5, counter=0, payload=encode_value(5, 0, 60))
    run.set_on(NODES, victim, other)
    return victim.name


def lose_a_tail_that_was_read(run: CleanRun, rng: Random) -> str:
    """Of unknown outcome, so no ack is broken; but a consumer had it."""
    victim = max((s for s in run.sends if s.partition == 0), key=lambda s: s.offset)
    for log in [run.logs[(node, 0)] for node in NODES]:
        del log[victim.offset :]
    for sent in run.sends:
        if sent.partition == 0 and sent.offset >= victim.offset:
            sent.outcome = "info"
    return victim.name


def empty_an_offset(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    run.set_on(NODES, victim, None)
    return victim.name


def lose_the_tail_on_one_replica(run: CleanRun, rng: Random) -> str:
    victim = max((s for s in run.sends if s.partition == 0), key=lambda s: s.offset)
    log = run.logs[(3, 0)]
    del log[victim.offset :]
    return victim.name


def change_bytes_on_one_replica(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    payload = encode_value(victim.uid, victim.counter, 61)
    run.set_on((2,), victim, replace(run.stored(victim), payload=payload))
    return victim.name


def store_twice(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    for node in NODES:
        log = run.logs[(node, victim.partition)]
        assert log[-1] is not None
        log.append(replace(run.stored(victim), leader_epoch=log[-1].leader_epoch))
    return victim.name


def swap_in_one_readers_eyes(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    poll, at = run.poll_of(8, victim)
    other = at + 1 if at + 1 < len(poll.rows) else at - 1
    (offset, *one), (next_offset, *two) = poll.rows[at], poll.rows[other]
    poll.rows[at], poll.rows[other] = (offset, *two), (next_offset, *one)  # type: ignore[assignment]
    return victim.name


def change_bytes_in_one_readers_eyes(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    poll, at = run.poll_of(9, victim)
    poll.rows[at] = (*poll.rows[at][:3], poll.rows[at][3] ^ 1)
    return victim.name


def delay_a_send_past_a_later_ack(run: CleanRun, rng: Random) -> str:
    """Nobody read it early: only the acks contradict each other."""
    victim = run.acked(rng)
    run.polls = []
    later = [
        s.end_ms
        for s in run.sends
        if s.outcome == "ok" and s.partition == victim.partition and s.offset > victim.offset
    ]
    victim.begin_ms = min(later) + 1
    victim.end_ms = victim.begin_ms + 5
    return victim.name


def forget_a_send(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    run.sends.remove(victim)
    return victim.name


def call_an_ack_a_refusal(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    victim.outcome = "fail"
    return victim.name


def read_back(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    poll, at = run.poll_of(8, victim)
    run.polls.insert(run.polls.index(poll) + 1, replace(poll, rows=poll.rows[at : at + 1]))
    return f"offset {victim.offset} was delivered"


def read_past(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    poll, at = run.poll_of(8, victim)
    del poll.rows[at]
    return f"past offset {victim.offset}"


def ack_at_the_neighbours_offset(run: CleanRun, rng: Random) -> str:
    victim = run.acked(rng)
    other = next(
        s
        for s in run.sends
        if (s.partition, s.offset) == (victim.partition, victim.offset + 1) or s is victim
    )
    wrong = other if other is not victim else victim
    wrong.offset = 0 if wrong is victim else victim.offset
    return wrong.name


SURGERIES: list[tuple[Surgery, set[str]]] = [
    (lose_a_record, {"lost-write"}),
    (lose_a_tail_that_was_read, {"taken-back"}),
    (empty_an_offset, {"lost-write", "hole", "taken-back"}),
    (lose_the_tail_on_one_replica, {"missing-on-replica", "not-converged"}),
    (change_bytes_on_one_replica, {"corrupt", "divergence"}),
    (store_twice, {"duplicate"}),
    (swap_in_one_readers_eyes, {"inconsistent-offsets"}),
    (change_bytes_in_one_readers_eyes, {"corrupt"}),
    (delay_a_send_past_a_later_ack, {"realtime-inversion"}),
    (forget_a_send, {"phantom"}),
    (call_an_ack_a_refusal, {"failed-read"}),
    (read_back, {"nonmonotonic-poll"}),
    (read_past, {"poll-skip"}),
    (ack_at_the_neighbours_offset, {"bad-ack-offset", "inconsistent-offsets"}),
]


def judged(run: CleanRun, run_dir: Path) -> Verdict:
    return judge(run.write(run_dir))


@pytest.mark.parametrize("seed", range(12))
def test_a_clean_run_is_valid(seed: int, tmp_path: Path) -> None:
    verdict = judged(CleanRun(seed), tmp_path / "run")
    assert verdict.outcome == "valid", verdict.render(0)
    assert verdict.exit_code == 0
    assert {check.outcome for check in verdict.checks} == {"good"}
    text = verdict.render()
    assert text.startswith(f"VERDICT: VALID (seed {seed})")
    assert f"again: prozess chaos run --seed {seed}" in text
    assert len(text.splitlines()) <= REPORT_LINES_MAX


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("surgery", "expected"), SURGERIES, ids=lambda x: getattr(x, "__name__", "")
)
def test_surgery_on_one_record_is_found_and_named(
    surgery: Surgery, expected: set[str], seed: int, tmp_path: Path
) -> None:
    run = CleanRun(seed)
    named = surgery(run, Random(seed))
    verdict = judged(run, tmp_path / "run")
    assert set(verdict.found) == expected, verdict.render(0)
    assert verdict.exit_code == 1
    assert named in verdict.render(0)


# --- gates: nothing wrong was found, but that proves little ---------------------------------------


def few_acks(run: CleanRun, run_dir: Path) -> None:
    run.run["load_end_ns"] = 40_000 * MS


def no_failover(run: CleanRun, run_dir: Path) -> None:
    run.run["gates"] = {"leader_epoch_changes_min": 9}


def unconfirmed_fault(run: CleanRun, run_dir: Path) -> None:
    run.faults[0]["confirmed"] = False


def fault_that_never_came(run: CleanRun, run_dir: Path) -> None:
    run.run["nemesis"] = ["kill", "pause", "partition"]


def interrupted(run: CleanRun, run_dir: Path) -> None:
    run.run |= {"interrupted": True, "load_end_ns": None, "heal_ns": None, "converged_ns": None}


def silent_node(run: CleanRun, run_dir: Path) -> None:
    del run.facts[2]


GATES = [
    (few_acks, "acked-seconds", "acked writes in 13 of 40 seconds of load (60 % needed)"),
    (no_failover, "leader-epoch-changes", "8 leader-epoch changes (9 needed)"),
    (unconfirmed_fault, "faults-confirmed", "faults kill, pause: not confirmed: kill"),
    (fault_that_never_came, "faults-confirmed", "not confirmed: partition"),
    (interrupted, "converged", "the run was interrupted"),
    (silent_node, "facts-present", "no facts from [2]"),
]


@pytest.mark.parametrize(
    ("change", "gate", "text"), GATES, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_failed_gate_makes_the_run_unknown(
    change: Callable[[CleanRun, Path], None], gate: str, text: str, tmp_path: Path
) -> None:
    run = CleanRun(3)
    change(run, tmp_path)
    verdict = judged(run, tmp_path / "run")
    assert (verdict.outcome, verdict.exit_code) == ("unknown", 2), verdict.render(0)
    assert [failed.name for failed in verdict.gates if not failed.passed] == [gate]
    assert any(text in reason for reason in verdict.reasons)
    assert text in verdict.render()


def test_an_anomaly_beats_a_failed_gate(tmp_path: Path) -> None:
    run = CleanRun(3)
    store_twice(run, Random(3))
    few_acks(run, tmp_path)
    verdict = judged(run, tmp_path / "run")
    assert verdict.outcome == "invalid"


def test_a_missing_data_directory_is_unknown_not_lost(tmp_path: Path) -> None:
    run_dir = CleanRun(4).write(tmp_path / "run")
    (run_dir / "data" / "3").rename(tmp_path / "elsewhere")
    verdict = judge(run_dir)
    assert verdict.outcome == "unknown"
    failed = {gate.name for gate in verdict.gates if not gate.passed}
    assert failed == {"all-acked-compared", "facts-present"}
    assert verdict.notes == ("no copied data of nodes [3]",)


def test_without_dumps_what_readers_passed_over_is_lost_and_the_rest_not_compared(
    tmp_path: Path,
) -> None:
    run = CleanRun(5)
    victim = run.acked(Random(5))
    for consumer in (8, 9):
        poll, at = run.poll_of(consumer, victim)
        del poll.rows[at]
    run_dir = run.write(tmp_path / "run")
    (run_dir / "data").rename(tmp_path / "elsewhere")
    verdict = judge(run_dir)
    assert set(verdict.found) == {"lost-write"}
    assert victim.name in verdict.render()
    assert verdict.counts["acked_compared"] == verdict.counts["acked_all"] - 1


def test_torn_files_are_judged_by_what_there_is(tmp_path: Path) -> None:
    run_dir = CleanRun(6).write(tmp_path / "run")
    path = run_dir / "history-consumers.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with (run_dir / "data" / "1" / "facts.jsonl").open("ab") as stream:
        stream.write(b'{"n": 99')
    verdict = judge(run_dir)
    assert verdict.outcome == "valid"
    assert verdict.notes == (
        "torn last line in history-consumers.jsonl",
        "1 lines of fact files were cut by crashes",
    )


def come_back_empty(run: CleanRun, *nodes: int) -> None:
    """At the end these nodes find nothing in their logs."""
    for node in nodes:
        life = {"node": node, "incarnation": "b", "topic": TOPIC_ID, "leo": 0}
        for partition in (0, 1):
            run.facts[node].append(life | {"n": 1, "kind": "Recovered", "p": partition})


def test_flush_async_promises_nothing_after_a_power_loss(tmp_path: Path) -> None:
    run = CleanRun(7)
    lose_a_record(run, Random(7))
    run.run["power_loss"] = True
    assert judged(run, tmp_path / "ack").found == {"lost-write": 1}
    run.run["topics"]["t"]["flush"] = "async"
    unproven = judged(run, tmp_path / "unproven")
    assert unproven.found == {"lost-write": 1}, "nobody came back from a crash without it"
    assert "0 members lost their tails, 2 is min ISR" in unproven.render()
    come_back_empty(run, 1, 2)
    verdict = judged(run, tmp_path / "async")
    assert verdict.outcome == "valid"
    assert verdict.allowed == (("lost-write", 1, ALLOWED["lost-write"]),)
    (loss,) = verdict.losses
    assert (loss.record_count, [tail.node for tail in loss.tails]) == (1, [1, 2])
    assert "node 2 came back with log end 0 after a crash that nobody noted" in verdict.render()
    run.run["power_loss"] = False
    assert judged(run, tmp_path / "no-power-loss").found == {"lost-write": 1}


def test_a_ruin_of_a_run_is_told_in_forty_lines(tmp_path: Path) -> None:
    run = CleanRun(8)
    surgeries: list[Surgery] = [
        lose_the_tail_on_one_replica,
        change_bytes_on_one_replica,
        store_twice,
        swap_in_one_readers_eyes,
        change_bytes_in_one_readers_eyes,
        read_back,
        read_past,
        ack_at_the_neighbours_offset,
        call_an_ack_a_refusal,
        forget_a_send,
    ]
    for number, surgery in enumerate(surgeries):
        surgery(run, Random(number))
    run.run["mutants"] = ["everything"]
    verdict = judged(run, tmp_path / "run")
    assert len(verdict.found) > 8
    lines = verdict.render().splitlines()
    assert len(lines) <= REPORT_LINES_MAX
    assert lines[0] == "VERDICT: INVALID (seed 8, with planted bug everything)"
    assert any(line.startswith("also found: ") for line in lines)
    assert all(name in verdict.render(0) for name in verdict.found)
    raw = json.loads(verdict.to_json())
    assert (raw["outcome"], raw["exit_code"]) == ("invalid", 1)
    assert raw["found"] == verdict.found
    assert raw["examples"][0]["lines"]


def test_the_same_directory_gives_the_same_verdict(tmp_path: Path) -> None:
    run_dir = CleanRun(9).write(tmp_path / "run")
    assert judge(run_dir) == judge(run_dir)


def test_times_without_acks(tmp_path: Path) -> None:
    run = CleanRun(10)
    for sent in run.sends:
        if sent.partition == 1 and 3_000 <= sent.end_ms < 6_000 and sent.outcome == "ok":
            sent.outcome = "info"
    verdict = judged(run, tmp_path / "run")
    assert verdict.outcome == "valid"
    assert [window.place for window in verdict.windows] == ["t-1"]
    assert 2_900 < verdict.windows[0].duration_ms < 3_300
    assert "longest time without an ack" in verdict.render()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "run.json cannot be read: No such file"),
        ("{", "run.json is not JSON"),
        ('{"version": 2}', "run.json has version 2, this build reads 1"),
        ('{"version": 1}', "run.json lacks 'topics'"),
        ("[]", "run.json is malformed"),
    ],
)
def test_a_directory_that_cannot_be_judged(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        judge(tmp_path)


def test_an_unknown_gate_is_refused(tmp_path: Path) -> None:
    run = CleanRun(11)
    run.run["gates"] = {"luck": 1}
    with pytest.raises(RunError, match="luck"):
        judged(run, tmp_path / "run")


# --- the vocabulary -------------------------------------------------------------------------------


def test_the_readme_has_the_generated_table() -> None:
    readme = Path(__file__).parents[2] / "chaos" / "checker" / "README.md"
    assert table() in readme.read_text(encoding="utf-8")


def test_a_counterexample_has_at_most_ten_lines_and_three_are_kept() -> None:
    findings = Findings()
    for number in range(7):
        findings.add("hole", "t-0", lambda number=number: [f"{number}"] * 30)
    assert findings.counts == {"hole": 7}
    assert [len(example.lines) for example in findings.examples] == [10, 10, 10]
    assert findings.examples[0].lines[-1] == "… and 21 more lines"
    assert findings.names == ("hole",)
    with pytest.raises(AssertionError, match="nonsense is not in the vocabulary"):
        findings.tell("nonsense", "t-0", "?")
