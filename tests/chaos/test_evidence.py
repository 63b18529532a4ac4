"""Copied data directories and fact files as rows; damage is a row, never an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.wire.batch_header import LOG_OVERHEAD_BYTES, prefix
from broker.wire.compression import Codec
from broker.wire.record_batch import encode_batch
from chaos.evidence import (
    NO_RECORD,
    BatchDecoder,
    ReplicaLog,
    decode_replica,
    fact_from_row,
    read_evidence,
)
from chaos.history import NO_VALUE, encode_value, payload_crc, value_id

TOPIC_ID = "0123456789abcdef0123456789abcdef"


def batch(
    base_offset: int,
    counters: list[int],
    *,
    leader_epoch: int = 0,
    codec: Codec = Codec.NONE,
    sequence: int = -1,
) -> bytes:
    records = [(0, b"k", encode_value(1, counter, 40), ()) for counter in counters]
    producer = 5 if sequence >= 0 else -1
    stored = encode_batch(
        records,
        codec=codec,
        producer_id=producer,
        producer_epoch=0 if sequence >= 0 else -1,
        base_sequence=sequence,
    )
    stored[:16] = prefix(base_offset, len(stored) - LOG_OVERHEAD_BYTES, leader_epoch)
    return bytes(stored)


def decode(*segments: tuple[int, bytes]) -> ReplicaLog:
    files = [(f"{base:020d}.log", data) for base, data in segments]
    return decode_replica(1, "t", TOPIC_ID, 0, files, decoder=BatchDecoder())


def test_rows_of_a_log_in_two_segments() -> None:
    log = decode(
        (0, batch(0, [0, 1], leader_epoch=3, sequence=7) + batch(2, [2], codec=Codec.GZIP)),
        (3, batch(3, [3])),
    )
    assert (log.log_start_offset, log.log_end_offset, log.problem) == (0, 4, "")
    first = log.batches[0]
    assert (first.leader_epoch, first.producer_id, first.base_sequence) == (3, 5, 7)
    assert list(first.values) == [value_id(1, 0), value_id(1, 1)]
    assert first.crcs[1] == payload_crc(encode_value(1, 1, 40), b"k")
    assert [row.base_offset for row in log.batches] == [0, 2, 3]
    assert [row.end_offset for row in log.batches] == [2, 3, 4]
    assert log.batches[1].values[0] == value_id(1, 2)


def test_a_log_may_start_late() -> None:
    log = decode((10, batch(10, [0])))
    assert (log.log_start_offset, log.log_end_offset) == (10, 11)


def test_equal_batches_are_decoded_once() -> None:
    decoder = BatchDecoder()
    rows = [
        decode_replica(node, "t", TOPIC_ID, 0, [("0.log", batch(0, [0]))], decoder=decoder).batches[
            0
        ]
        for node in (1, 2)
    ]
    assert rows[0] is rows[1]
    other = decode((0, batch(0, [0], leader_epoch=1))).batches[0]
    assert other.digest != rows[0].digest


def test_a_hole_is_told_and_a_leap_is_damage() -> None:
    hole = decode((0, batch(0, [0]) + batch(3, [1])))
    assert (hole.log_end_offset, hole.problem) == (4, "")
    leap = decode((0, batch(0, [0]) + batch(3_000_000, [1])))
    assert "base offset 3000000" in leap.problem
    assert leap.log_end_offset == 1
    back = decode((0, batch(0, [0, 1]) + batch(1, [1])))
    assert "base offset 1" in back.problem


def test_bytes_that_nobody_sent_have_no_identity() -> None:
    stored = encode_batch([(0, None, b"prozess:1:2:tampered", ()), (0, None, None, ())])
    log = decode((0, bytes(stored)))
    assert list(log.batches[0].values) == [NO_VALUE, NO_VALUE]
    assert NO_RECORD not in log.batches[0].values


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_cut_last_batch_is_a_torn_tail(cut: int) -> None:
    log = decode((0, batch(0, [0]) + batch(1, [1])[:-cut]))
    assert (log.log_end_offset, log.torn_tail) == (1, True)
    assert "offset 1" in log.problem


def test_every_flipped_byte_is_noticed() -> None:
    good = batch(0, [0, 1])
    for at in range(len(good)):
        flipped = bytearray(good)
        flipped[at] ^= 0x10
        log = decode((0, bytes(flipped)))
        if 12 <= at < 16:  # the leader epoch, which brokers write, is not in the checksum
            assert log.batches[0].leader_epoch != 0
        elif at < 8:
            assert log.problem or log.batches[0].base_offset != 0
        else:
            assert log.problem, f"byte {at}"


def test_damage_in_the_middle_is_no_torn_tail() -> None:
    good = batch(0, [0]), batch(1, [1]), batch(2, [2])
    damaged = bytearray(good[1])
    damaged[-1] ^= 1
    log = decode((0, good[0] + bytes(damaged) + good[2]))
    assert (log.log_end_offset, log.torn_tail) == (1, False)
    rolled = decode((0, good[0] + bytes(damaged)), (2, good[2]))
    assert (rolled.log_end_offset, rolled.torn_tail) == (1, False)
    zeros = decode((0, good[0] + bytes(5_000)))
    assert (zeros.log_end_offset, zeros.torn_tail) == (1, True)


def test_a_missing_segment_is_a_problem() -> None:
    log = decode((0, batch(0, [0])), (2, batch(2, [2])))
    assert "expected a segment from offset 1" in log.problem
    assert log.log_end_offset == 1


def data_dir(root: Path, node: int) -> Path:
    directory = root / "data" / str(node)
    log = directory / "logs" / f"my-topic-3.{TOPIC_ID}"
    log.mkdir(parents=True)
    (log / f"{0:020d}.log").write_bytes(batch(0, [0], leader_epoch=1))
    (log / f"{0:020d}.index").write_bytes(b"")
    (log / "leader-epoch-checkpoint").write_text("0\n2\n0 0\n1 0\n")
    (directory / "logs" / "notes.txt").write_text("not a log")
    (directory / "high-watermark-checkpoint").write_text(f"1\n1\n{TOPIC_ID} 3 1\n")
    return directory


def test_a_run_directory(tmp_path: Path) -> None:
    one, two = data_dir(tmp_path, 1), data_dir(tmp_path, 2)
    (one / "facts.jsonl").write_bytes(
        b'{"n":1,"node":1,"incarnation":"x","kind":"Acked","topic":"ab","p":3,"le":2,"pe":4,'
        b'"leo":9,"hw":8,"first":1,"last":2}\n{"n":2,"ki{"n":3,"kind":"Applied","index":7}\n'
        b'{"n":4,"kind":"BecameLeader","p":0}\n{"n":5,"ki'
    )
    (two / "high-watermark-checkpoint").unlink()
    evidence = read_evidence(tmp_path, [3, 2, 1])
    assert evidence.missing_nodes == (3,)
    assert evidence.topic_names == {TOPIC_ID: "my-topic"}
    first, second = evidence.logs[("my-topic", 3)]
    assert (first.node, first.high_watermark, first.leader_epochs) == (1, 1, ((0, 0), (1, 0)))
    assert (second.node, second.high_watermark) == (2, -1)
    assert [fact.kind for fact in evidence.facts[1]] == ["Acked", "BecameLeader"]
    assert evidence.torn_facts == 2
    assert 2 not in evidence.facts
    acked = evidence.facts[1][0]
    assert (acked.leader_epoch, acked.partition_epoch, acked.high_watermark) == (2, 4, 8)
    assert acked.details == {"first": 1, "last": 2}


def test_facts_may_lie_beside_the_data(tmp_path: Path) -> None:
    data_dir(tmp_path, 1)
    beside = tmp_path / "nodes" / "1"
    beside.mkdir(parents=True)
    (beside / "facts.jsonl").write_bytes(b'{"n":1,"kind":"BecameLeader"}\n')
    assert len(read_evidence(tmp_path, [1]).facts[1]) == 1


def test_absent_keys_of_a_fact() -> None:
    fact = fact_from_row({"kind": "RaftRole", "role": "leader"})
    assert (fact.partition, fact.topic_id, fact.details) == (-1, "", {"role": "leader"})
