"""What the nodes left behind, as plain rows: copied data directories and fact files.

Read only, and with no code of the log that wrote them: segments are walked batch by batch with the
published wire format alone, so that a broker which reads its own mistakes back as truth does not
convince its judge. Damage is a row's `problem`, never an exception: it is evidence.

    <data dir>/logs/<topic>-<partition>.<topic id>/<base offset>.log    batches
                                                  /leader-epoch-checkpoint
    <data dir>/high-watermark-checkpoint
    <data dir>/facts.jsonl
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from crc32c import crc32c

from broker.wire.batch_header import (
    ATTRIBUTES_POSITION,
    HEADER_BYTES,
    LOG_OVERHEAD_BYTES,
    MAGIC_POSITION,
    BatchHeader,
    read_header,
)
from broker.wire.record_batch import decode_batch
from broker.wire.record_decoder import CorruptBatch
from chaos.history import NO_VALUE, parse_value, payload_crc, value_id

NO_RECORD = -2
"""Value id of an offset that holds no record."""

UNKNOWN_OFFSET = -1

_HOLE_MAX = 1_000_000
"""A batch further behind the one before it is damage, not a log with a hole."""

_MAGIC_BYTE = b"\x02"


class BatchRow(NamedTuple):
    """One stored batch. `values` and `crcs` have one entry per offset from `base_offset`."""

    base_offset: int
    leader_epoch: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    digest: bytes
    values: array[int]
    crcs: array[int]

    @property
    def end_offset(self) -> int:
        return self.base_offset + len(self.values)


@dataclass(frozen=True, slots=True)
class ReplicaLog:
    """One partition on one node. `problem` says why reading stopped at `log_end_offset`; with
    `torn_tail` nothing readable follows in the last segment, which a crash may leave."""

    node: int
    topic: str
    topic_id: str
    partition: int
    batches: tuple[BatchRow, ...]
    log_start_offset: int
    log_end_offset: int
    high_watermark: int = UNKNOWN_OFFSET
    leader_epochs: tuple[tuple[int, int], ...] = ()
    problem: str = ""
    torn_tail: bool = False


class Fact(NamedTuple):
    """One line of a fact file; `details` has the keys that only its kind has."""

    number: int
    node: int
    incarnation: str
    kind: str
    topic_id: str
    partition: int
    leader_epoch: int
    partition_epoch: int
    log_end_offset: int
    high_watermark: int
    details: dict[str, Any]
    time_ns: int = -1
    """CLOCK_MONOTONIC of the node's machine; -1: not told."""


@dataclass(slots=True)
class Evidence:
    """Everything but the history. `facts` of one node are in the node's own order."""

    logs: dict[tuple[str, int], list[ReplicaLog]] = field(default_factory=dict)
    """By topic name and partition, ascending node."""
    topic_names: dict[str, str] = field(default_factory=dict)
    """By topic id."""
    facts: dict[int, list[Fact]] = field(default_factory=dict)
    """By node; a node without a fact file is absent."""
    missing_nodes: tuple[int, ...] = ()
    """Nodes without a copied data directory."""
    torn_facts: int = 0
    """Lines of fact files that are no JSON object: a crash cut them."""


def read_evidence(run_dir: Path, nodes: Iterable[int]) -> Evidence:
    """All that `run_dir` holds of these nodes."""
    evidence = Evidence()
    decoder = BatchDecoder()
    missing = []
    for node in sorted(nodes):
        data_dir = run_dir / "data" / str(node)
        if data_dir.is_dir():
            for log in read_data_dir(node, data_dir, decoder):
                add_log(evidence, log)
        else:
            missing.append(node)
        for path in (run_dir / "nodes" / str(node) / "facts.jsonl", data_dir / "facts.jsonl"):
            if path.is_file():
                with path.open("rb") as stream:
                    add_facts(evidence, node, stream)
                break
    evidence.missing_nodes = tuple(missing)
    return evidence


def add_log(evidence: Evidence, log: ReplicaLog) -> None:
    evidence.logs.setdefault((log.topic, log.partition), []).append(log)
    evidence.topic_names[log.topic_id] = log.topic


def add_facts(evidence: Evidence, node: int, lines: Iterable[bytes]) -> None:
    """Facts of one node from the lines of its file."""
    facts = evidence.facts.setdefault(node, [])
    for line in lines:
        if not line.strip():
            continue  # what each new process begins its part of the file with
        try:
            raw = json.loads(line)
        except ValueError:
            raw = None
        if type(raw) is not dict or "kind" not in raw:
            evidence.torn_facts += 1
            continue
        facts.append(fact_from_row(raw))


_COMMON_KEYS = frozenset(
    ("n", "t", "node", "incarnation", "kind", "topic", "p", "le", "pe", "leo", "synced", "hw")
)


def fact_from_row(raw: dict[str, Any]) -> Fact:
    """A fact from the object of one line; keys that are absent are -1 or empty."""
    return Fact(
        raw.get("n", -1),
        raw.get("node", -1),
        raw.get("incarnation", ""),
        raw["kind"],
        raw.get("topic", ""),
        raw.get("p", -1),
        raw.get("le", -1),
        raw.get("pe", -1),
        raw.get("leo", -1),
        raw.get("hw", -1),
        {key: value for key, value in raw.items() if key not in _COMMON_KEYS},
        raw.get("t", -1),
    )


def read_data_dir(node: int, data_dir: Path, decoder: BatchDecoder) -> Iterator[ReplicaLog]:
    """Every partition log in one data directory, by directory name."""
    high_watermarks = _read_offsets(data_dir / "high-watermark-checkpoint")
    logs_dir = data_dir / "logs"
    for directory in sorted(logs_dir.iterdir()) if logs_dir.is_dir() else ():
        name, dot, topic_id = directory.name.rpartition(".")
        topic, dash, partition = name.rpartition("-")
        if not (dot and dash and partition.isdigit() and directory.is_dir()):
            continue
        segments = [
            (path.name, path.read_bytes())
            for path in sorted(directory.glob("*.log"))
            if path.stem.isdigit()
        ]
        yield decode_replica(
            node,
            topic,
            topic_id,
            int(partition),
            segments,
            high_watermark=high_watermarks.get((topic_id, int(partition)), UNKNOWN_OFFSET),
            leader_epochs=_read_leader_epochs(directory / "leader-epoch-checkpoint"),
            decoder=decoder,
        )


def _checkpoint_rows(path: Path) -> list[list[str]]:
    """Rows behind version and count; empty when there is no file."""
    if not path.is_file():
        return []
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:] if line]


def _read_offsets(path: Path) -> dict[tuple[str, int], int]:
    rows = _checkpoint_rows(path)
    return {(row[0], int(row[1])): int(row[2]) for row in rows if len(row) == 3}


def _read_leader_epochs(path: Path) -> tuple[tuple[int, int], ...]:
    return tuple((int(row[0]), int(row[1])) for row in _checkpoint_rows(path) if len(row) == 2)


class BatchDecoder:
    """Decodes batches; equal bytes (the same batch on another replica) are decoded once."""

    def __init__(self) -> None:
        self._rows: dict[bytes, BatchRow] = {}

    def decode(self, batch: memoryview, header: BatchHeader) -> BatchRow:
        """CorruptBatch if the bytes are not the batch that its CRC and format promise."""
        digest = blake2b(batch, digest_size=16).digest()
        row = self._rows.get(digest)
        if row is None:
            row = self._rows[digest] = _decode(batch, header, digest)
        return row


def _decode(batch: memoryview, header: BatchHeader, digest: bytes) -> BatchRow:
    # decode_batch verifies the checksum; BatchRow keeps a place for offsets without a record.
    records = decode_batch(batch)
    values = array("q", [NO_RECORD]) * (header.last_offset_delta + 1)
    crcs = array("q", [-1]) * (header.last_offset_delta + 1)
    for offset, key, value in zip(records.offsets, records.keys, records.values, strict=True):
        uid, counter = parse_value(value)
        slot = offset - header.base_offset
        values[slot] = value_id(uid, counter) if uid >= 0 else NO_VALUE
        crcs[slot] = payload_crc(value, key)
    return BatchRow(
        header.base_offset,
        header.leader_epoch,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        digest,
        values,
        crcs,
    )


def decode_replica(
    node: int,
    topic: str,
    topic_id: str,
    partition: int,
    segments: Iterable[tuple[str, bytes]],
    *,
    high_watermark: int = UNKNOWN_OFFSET,
    leader_epochs: tuple[tuple[int, int], ...] = (),
    decoder: BatchDecoder,
) -> ReplicaLog:
    """One replica from its segment files, (name, bytes) in order of their names."""
    batches: list[BatchRow] = []
    files = list(segments)
    start = int(Path(files[0][0]).stem) if files else 0
    expected = start
    problem = ""
    torn_tail = False
    for number, (name, data) in enumerate(files):
        if int(Path(name).stem) != expected:
            problem = f"{name}: expected a segment from offset {expected}"
            break
        view = memoryview(data)
        position = 0
        while position < len(view):
            row, size_bytes, problem = _next_batch(view[position:], expected, decoder)
            if row is None:
                problem = f"{name} at byte {position}, offset {expected}: {problem}"
                torn_tail = number == len(files) - 1 and not _valid_batch_after(view, position)
                break
            batches.append(row)
            expected = row.end_offset
            position += size_bytes
        if problem:
            break
    return ReplicaLog(
        node,
        topic,
        topic_id,
        partition,
        tuple(batches),
        start,
        expected,
        high_watermark,
        leader_epochs,
        problem,
        torn_tail,
    )


def _next_batch(
    view: memoryview, expected_offset: int, decoder: BatchDecoder
) -> tuple[BatchRow | None, int, str]:
    """(row, size, "") of the batch at the start of `view`, or (None, 0, what is wrong)."""
    if len(view) < HEADER_BYTES:
        return None, 0, f"{len(view)} bytes are no batch"
    header = read_header(view)
    size_bytes = header.batch_length + LOG_OVERHEAD_BYTES
    if size_bytes < HEADER_BYTES or size_bytes > len(view):
        return None, 0, f"a batch of {size_bytes} bytes where {len(view)} are left"
    try:
        row = decoder.decode(view[:size_bytes], header)
    except CorruptBatch as error:
        return None, 0, str(error)
    if not 0 <= row.base_offset - expected_offset <= _HOLE_MAX:
        return None, 0, f"base offset {row.base_offset}"
    return row, size_bytes, ""


def _valid_batch_after(view: memoryview, position: int) -> bool:
    """Is there a whole batch with a good CRC anywhere behind `position`? Then the bad bytes are no
    torn tail but damage in the middle."""
    data = bytes(view[position:])
    at = data.find(_MAGIC_BYTE, 1 + MAGIC_POSITION)
    while at >= 0:
        start = at - MAGIC_POSITION
        if len(data) - start < HEADER_BYTES:
            return False
        header = read_header(data, start)
        size_bytes = header.batch_length + LOG_OVERHEAD_BYTES
        if HEADER_BYTES <= size_bytes <= len(data) - start and header.attributes < 64:
            body = memoryview(data)[start + ATTRIBUTES_POSITION : start + size_bytes]
            if crc32c(body) == header.crc:
                return True
        at = data.find(_MAGIC_BYTE, at + 1)
    return False
