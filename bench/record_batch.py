"""Microseconds per record to encode and decode batches, and per message for the codec.

    .venv/bin/python bench/record_batch.py [batch KiB, default 64]

Processor time of one process, best of several interleaved rounds. Compare figures of one run only:
the same code differs by a third between runs on a shared machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from broker.wire import frames
from broker.wire.codec import Coder
from broker.wire.messages import (
    BrokerHeartbeatRequest,
    FetchPart,
    FetchRequest,
    Isolation,
    ProducePart,
    ProduceRequest,
)
from broker.wire.record_batch import BatchBuilder, Codec, Headers, check_batch, decode_batch

NOW_MS = 1_700_000_000_000
ROUNDS = 9
TOPIC_ID = "0123456789abcdef" * 2

Row = tuple[bytes | None, bytes, Headers]
Job = tuple[str, Callable[[], object], int]


def rows_of(kind: str) -> list[Row]:
    """Records of about 100 bytes: alike or of mixed lengths, with or without keys and headers."""
    rows: list[Row] = []
    for index in range(1_000):
        text = b'{"user":%d,"event":"page-view","path":"/catalogue/%d"}' % (
            index * 7919,
            index % 50,
        )
        size = 100 if "alike" in kind else 80 + index * 31 % 41
        headers: Headers = (("trace", b"0123456789abcdef"),) if "headers" in kind else ()
        key = b"user-%07d" % index if "keyed" in kind else None
        rows.append((key, (text * 3)[:size], headers))
    return rows


def fill(rows: list[Row], batch_bytes: int) -> BatchBuilder:
    builder = BatchBuilder(batch_bytes)
    append = builder.append
    while True:
        for key, value, headers in rows:
            if not append(NOW_MS, key, value, headers):
                return builder


def extend(values: list[bytes], batch_bytes: int) -> BatchBuilder:
    builder = BatchBuilder(batch_bytes)
    while builder.extend(NOW_MS, values) == len(values):
        pass
    return builder


def columns_only(batch: bytearray) -> int:
    return len(decode_batch(batch))


def batch_jobs(batch_bytes: int) -> list[Job]:
    jobs: list[Job] = []
    for kind in ("alike", "mixed", "alike keyed", "mixed keyed", "mixed headers"):
        rows = rows_of(kind)
        builder = fill(rows, batch_bytes)
        batch = builder.seal()
        count = builder.record_count
        jobs += [
            (f"{kind}: append", lambda rows=rows: fill(rows, batch_bytes), count),
            (f"{kind}: seal", builder.seal, count),
            (f"{kind}: decode to columns", lambda batch=batch: columns_only(batch), count),
            (f"{kind}: decode to records", lambda batch=batch: list(decode_batch(batch)), count),
        ]
    values = [value for _, value, _ in rows_of("mixed")]
    jobs.append(
        (
            "mixed: extend",
            lambda: extend(values, batch_bytes),
            extend(values, batch_bytes).record_count,
        )
    )
    builder = fill(rows_of("mixed"), batch_bytes)
    for codec in Codec:
        packed = builder.seal(codec)
        count = builder.record_count
        jobs += [
            (f"mixed {codec.name}: seal", lambda codec=codec: builder.seal(codec), count),
            (f"mixed {codec.name}: decode", lambda packed=packed: columns_only(packed), count),
        ]
    plain = builder.seal()
    jobs.append(("check_batch, whole batch", lambda: check_batch(plain), 1))
    return jobs


def message_jobs() -> list[Job]:
    part = FetchPart(TOPIC_ID, 0, 5, 5, 123_456, 123_456, 0, 1 << 20)
    parts_100 = (part,) * 100
    fetch = FetchRequest(2, 77, 9, 5, 250, 1, 1 << 20, Isolation.READ_UNCOMMITTED, (part,))
    fetch_100 = FetchRequest(2, 77, 9, 5, 250, 1, 1 << 20, Isolation.READ_UNCOMMITTED, parts_100)
    jobs: list[Job] = []
    for name, message in (
        ("heartbeat", BrokerHeartbeatRequest(3, 12_345, 99_999, False)),
        ("produce", ProduceRequest(-1, 30_000, (ProducePart(TOPIC_ID, 0, 5),))),
        ("fetch of 1", fetch),
        ("fetch of 100", fetch_100),
    ):
        coder = Coder(type(message))
        data = coder.encode(message)
        payload = [b""] * getattr(message, "payload_frames", 0)
        sent = frames.encode(frames.Kind.REQUEST, 1, message, payload)
        jobs += [
            (f"{name}: encode", lambda coder=coder, message=message: coder.encode(message), 1),
            (f"{name}: decode", lambda coder=coder, data=data: coder.decode(data), 1),
            (f"{name}: decode with envelope", lambda sent=sent: frames.decode(sent), 1),
        ]
    return jobs


def best_us(jobs: list[Job]) -> dict[str, float]:
    """Per job the best round's time for one of its units; the rounds of all jobs interleave."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, job, units in jobs:
            repeats = max(1, 2_000 // units)
            start = time.process_time()
            for _ in range(repeats):
                job()
            taken_us = (time.process_time() - start) * 1e6 / repeats / units
            best[name] = min(best.get(name, taken_us), taken_us)
    return best


def main() -> None:
    batch_bytes = (int(sys.argv[1]) if len(sys.argv) > 1 else 64) * 1024
    print(f"batches of {batch_bytes // 1024} KiB, us per record")
    for name, taken_us in best_us(batch_jobs(batch_bytes)).items():
        print(f"{taken_us:8.3f}  {name}")
    print("us per message")
    for name, taken_us in best_us(message_jobs()).items():
        print(f"{taken_us:8.3f}  {name}")


if __name__ == "__main__":
    main()
