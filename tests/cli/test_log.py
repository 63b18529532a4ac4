"""Dumps, damage, torn tails and comparisons of data directories made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    LEADER_EPOCH_NAME,
    RECOVERY_POINT_PATH,
    encode_epochs,
    encode_offsets,
)
from broker.wire.batch_header import PREFIX
from broker.wire.record_batch import Codec, encode_batch
from client.cli.main import run

TOPIC_ID = "ab" * 16


def batch(
    base_offset: int,
    leader_epoch: int = 1,
    count: int = 3,
    codec: Codec = Codec.NONE,
    timestamp_ms: int = 1_000,
) -> bytes:
    data = encode_batch(
        [
            (
                timestamp_ms + number,
                b"k%d" % number,
                b"value %d" % (base_offset + number),
                (("h", b"x"),),
            )
            for number in range(count)
        ],
        codec=codec,
        producer_id=7,
        producer_epoch=0,
        base_sequence=base_offset,
    )
    PREFIX.pack_into(data, 0, base_offset, len(data) - 12, leader_epoch)
    return bytes(data)


def log_of(*base_offsets: int, leader_epoch: int = 1) -> bytes:
    return b"".join(batch(base_offset, leader_epoch) for base_offset in base_offsets)


def make_data_dir(
    data_dir: Path,
    segments: dict[int, bytes],
    *,
    high_watermark: int | None = None,
    recovery_point: int | None = None,
    topic: str = "t",
    partition: int = 0,
) -> Path:
    """A data directory with one replica; its partition directory."""
    directory = data_dir / "logs" / f"{topic}-{partition}.{TOPIC_ID}"
    directory.mkdir(parents=True)
    for base_offset, data in segments.items():
        (directory / f"{base_offset:020d}.log").write_bytes(data)
    (directory / LEADER_EPOCH_NAME).write_bytes(encode_epochs([(1, 0)]))
    for name, offset in (
        (HIGH_WATERMARK_PATH, high_watermark),
        (RECOVERY_POINT_PATH, recovery_point),
    ):
        if offset is not None:
            (data_dir / name).write_bytes(encode_offsets({(TOPIC_ID, partition): offset}))
    return directory


def dump_json(
    capsys: pytest.CaptureFixture[str], *words: str, verb: str = "dump"
) -> tuple[int, list[dict[str, Any]]]:
    code = run(["log", verb, "-o", "json", *words])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of_type(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["type"] == kind]


# --- what is there --------------------------------------------------------------------------------


def test_every_batch_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segments = {0: log_of(0, 3), 6: batch(6, 2, 40, Codec.LZ4)}
    make_data_dir(tmp_path, segments, high_watermark=8, recovery_point=6)
    code, rows = dump_json(capsys, str(tmp_path))
    assert code == 0
    batches = of_type(rows, "batch")
    assert [(row["base_offset"], row["last_offset"]) for row in batches] == [
        (0, 2),
        (3, 5),
        (6, 45),
    ]
    assert [row["position"] for row in batches] == [0, len(batch(0)), 0]
    assert [row["codec"] for row in batches] == ["none", "none", "lz4"]
    assert [row["leader_epoch"] for row in batches] == [1, 1, 2]
    assert batches[1]["producer_id"] == 7
    assert batches[1]["base_sequence"] == 3
    (summary,) = of_type(rows, "replica")
    assert summary["topic"] == "t"
    assert (summary["log_start_offset"], summary["log_end_offset"]) == (0, 46)
    assert (summary["records"], summary["batches"], summary["segments"]) == (46, 3, 2)
    assert (summary["high_watermark"], summary["recovery_point"]) == (8, 6)
    assert summary["leader_epochs"] == [[1, 0]]
    assert summary["bytes"] == sum(map(len, segments.values()))


def test_records_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data_dir(tmp_path, {0: batch(0, count=2, codec=Codec.GZIP)})
    _, rows = dump_json(capsys, str(tmp_path), "--records")
    assert of_type(rows, "batch")[0]["records"] == [
        {
            "offset": number,
            "timestamp_ms": 1_000 + number,
            "key": f"k{number}",
            "value": f"value {number}",
            "headers": [["h", "x"]],
        }
        for number in range(2)
    ]


@pytest.mark.parametrize(
    "below",
    ["nodes/1/data", "nodes/1", ".", f"nodes/1/data/logs/t-0.{TOPIC_ID}"],
)
def test_any_level_may_be_named(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data_dir(tmp_path / "nodes/1/data", {0: log_of(0, 3)}, high_watermark=3)
    code, rows = dump_json(capsys, str(tmp_path / below))
    assert code == 0
    assert of_type(rows, "replica")[0]["log_end_offset"] == 6
    assert of_type(rows, "replica")[0]["high_watermark"] == 3


def test_a_single_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = make_data_dir(tmp_path, {0: log_of(0), 3: log_of(3, 6)})
    code, rows = dump_json(capsys, str(directory / f"{3:020d}.log"))
    assert code == 0
    assert [row["base_offset"] for row in of_type(rows, "batch")] == [3, 6]


def test_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data_dir(tmp_path, {0: log_of(0)}, high_watermark=3, recovery_point=3)
    assert run(["log", "dump", str(tmp_path), "--records"]) == 0
    out = capsys.readouterr().out
    assert "7/0:0" in out
    assert "'k1' = 'value 1' h:'x'" in out
    assert "offsets 0 to 3, 3 records, 1 batches" in out
    assert out.rstrip().endswith("leader epochs 1 from 0; whole")


# --- what is wrong --------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(log_of(0, 3, 6))
    size = len(batch(0))
    data[size + 70] ^= 4
    directory = make_data_dir(tmp_path, {0: bytes(data)})
    code, rows = dump_json(capsys, str(tmp_path))
    assert code == 1
    (damage,) = of_type(rows, "damage")
    assert damage["file"] == str(directory / f"{0:020d}.log")
    assert (damage["position"], damage["offset"]) == (size, 3)
    assert "checksum mismatch" in damage["reason"]
    assert [row["base_offset"] for row in of_type(rows, "batch")] == [0, 6]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (batch(4), "base offset 4 instead of 3"),
        (batch(2), "base offset 2 instead of 3"),
        (batch(3, leader_epoch=0), "leader epoch 0 after 1"),
        (b"\0" * 100, "no batch: magic byte 0"),
        (batch(3)[:-1], "the file ends within a batch"),
        (b"short", "5 bytes are no batch header"),
    ],
)
def test_what_cannot_follow(
    second: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Above nothing that was promised these are torn tails, below it damage."""
    data_dir = tmp_path / "below"
    make_data_dir(data_dir, {0: batch(0) + second}, high_watermark=4, recovery_point=0)
    code, rows = dump_json(capsys, str(data_dir))
    assert code == 1
    assert reason in of_type(rows, "damage")[0]["reason"]

    data_dir = tmp_path / "above"
    make_data_dir(data_dir, {0: batch(0) + second}, high_watermark=3, recovery_point=3)
    code, rows = dump_json(capsys, str(data_dir))
    assert code == 0
    assert reason in of_type(rows, "replica")[0]["torn_tail"]


def test_a_bad_batch_before_a_good_one_is_no_torn_tail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(log_of(0, 3, 6))
    data[len(batch(0)) + 80] ^= 1
    make_data_dir(tmp_path, {0: bytes(data)}, high_watermark=0, recovery_point=0)
    code, rows = dump_json(capsys, str(tmp_path))
    assert code == 1
    assert of_type(rows, "damage")


def test_a_log_that_lost_what_it_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data_dir(tmp_path, {0: log_of(0)}, high_watermark=6)
    code, rows = dump_json(capsys, str(tmp_path))
    assert code == 1
    assert of_type(rows, "damage")[0]["reason"] == "the log ends at 3, but held all below 6"


def test_segments_that_do_not_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data_dir(tmp_path, {0: log_of(0), 6: log_of(6)}, high_watermark=9)
    code, rows = dump_json(capsys, str(tmp_path))
    assert code == 1
    assert "begins at 6" in of_type(rows, "damage")[0]["reason"]


def test_a_checkpoint_that_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data_dir(tmp_path, {0: log_of(0)})
    (tmp_path / HIGH_WATERMARK_PATH).write_bytes(b"1\n7\nnonsense\n")
    assert run(["log", "dump", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert HIGH_WATERMARK_PATH in err


def test_verify_reads_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data_dir(tmp_path, {0: log_of(0, 3)})
    code, rows = dump_json(capsys, str(tmp_path), verb="verify")
    assert code == 0
    assert [row["type"] for row in rows] == ["replica"]
    assert rows[0]["records"] == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "does not exist"), ("empty", "holds no logs"), ("file.txt", "is no segment")],
)
def test_what_holds_no_log(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    assert run(["log", "dump", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


# --- replicas side by side ------------------------------------------------------------------------


def compare(
    capsys: pytest.CaptureFixture[str], root: Path, *words: str
) -> tuple[int, list[dict[str, Any]]]:
    return dump_json(capsys, "--compare", *words, *(str(root / name) for name in "abc"))


def make_replicas(root: Path, *logs: bytes, high_watermarks: tuple[int, ...] = (6, 6, 6)) -> None:
    for name, log, high_watermark in zip("abc", logs, high_watermarks, strict=True):
        make_data_dir(root / name, {0: log}, high_watermark=high_watermark)


def test_replicas_that_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_of(0, 3)
    make_replicas(tmp_path, log, log, log)
    code, (row,) = compare(capsys, tmp_path)
    assert code == 0
    assert row["identical"]
    assert (row["below"], row["batches"]) == (6, 2)


def test_the_lowest_checkpointed_high_watermark_is_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_replicas(
        tmp_path,
        log_of(0, 3) + batch(6, 1),
        log_of(0, 3) + batch(6, 2),
        log_of(0, 3),
        high_watermarks=(9, 6, 6),
    )
    code, (row,) = compare(capsys, tmp_path)
    assert (code, row["below"]) == (0, 6)
    code, (row,) = compare(capsys, tmp_path, "--below", "9")
    assert code == 1
    assert row["batches"] == 2
    assert "offsets 6-8 of leader epoch 2" in row["difference"]
    assert f"{tmp_path / 'c'} ends at 6" in row["difference"]


def test_a_replica_that_is_short_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_replicas(tmp_path, log_of(0, 3), log_of(0, 3), log_of(0))
    code, (row,) = compare(capsys, tmp_path)
    assert code == 1
    assert f"{tmp_path / 'c'} ends at 3" in row["difference"]


def test_all_replicas_are_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_replicas(tmp_path, log_of(0), log_of(0), log_of(0))
    code, (row,) = compare(capsys, tmp_path, "--below", "6")
    assert code == 1
    assert "ends at 3" in row["difference"]


def test_one_bit_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = batch(0) + batch(3, timestamp_ms=1_001)
    make_replicas(tmp_path, log_of(0, 3), log_of(0, 3), other)
    code, (row,) = compare(capsys, tmp_path, "--below", "end")
    assert (code, row["identical"], row["batches"]) == (1, False, 1)


def test_damage_below_the_limit_is_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = bytearray(log_of(0, 3))
    bad[-1] ^= 1
    make_replicas(tmp_path, log_of(0, 3), log_of(0, 3), bytes(bad))
    code, (row,) = compare(capsys, tmp_path)
    assert code == 1
    assert "damage in" in row["difference"]
    code, (row,) = compare(capsys, tmp_path, "--below", "3")
    assert code == 0


def test_a_whole_cluster_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for node in (1, 2, 3):
        data_dir = tmp_path / "nodes" / str(node) / "data"
        make_data_dir(data_dir, {0: log_of(0)}, high_watermark=3)
        make_data_dir(data_dir, {0: log_of(0, 3)}, partition=1)
    code, rows = dump_json(capsys, "--compare", str(tmp_path), "--below", "end")
    assert code == 0
    assert [(row["replica"], row["below"]) for row in rows] == [("t-0", 3), ("t-1", 6)]


def test_nothing_to_compare_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data_dir(tmp_path, {0: log_of(0)})
    assert run(["log", "dump", "--compare", str(tmp_path)]) == 1
    assert "nothing to compare" in capsys.readouterr().err
