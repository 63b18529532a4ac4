"""The series over partitions, batch sizes and flush modes: its order, and its table.

Rounds are interleaved: each visits every configuration once, ack and async next to each other and
in turn first, so that what the machine does meanwhile falls on all alike. Shown are medians.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from client.cli.tables import table

PARTITIONS = (1, 3, 12)
BATCH_KIB = (16, 64, 256)
FLUSH_MODES = ("ack", "async")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One configuration."""

    partitions: int
    batch_kib: int
    flush: str

    @property
    def topic(self) -> str:
        return f"{self.partitions}-{self.flush}"


def cells(
    partitions: Sequence[int] = PARTITIONS, batch_kib: Sequence[int] = BATCH_KIB
) -> list[Cell]:
    """All configurations in the order of the table."""
    return [
        Cell(count, size, flush)
        for count in partitions
        for size in batch_kib
        for flush in FLUSH_MODES
    ]


def schedule(configurations: Sequence[Cell], rounds: int) -> Iterator[tuple[int, Cell]]:
    """(round, configuration): pairs of modes stay together, and take turns in going first."""
    pairs = [configurations[at : at + 2] for at in range(0, len(configurations), 2)]
    for number in range(rounds):
        for pair in pairs:
            for cell in pair if number % 2 == 0 else reversed(pair):
                yield number, cell


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one configuration."""

    records_per_s: int
    ack_p50_ms: float
    ack_p99_ms: float


def summarise(runs: dict[Cell, list[Measured]]) -> list[dict[str, Any]]:
    """One row per partitions and batch size; `ratio` is the median of the rounds' ack / async."""
    rows = []
    for cell in sorted(runs):
        if cell.flush != "ack":
            continue
        ack, other = runs[cell], runs[Cell(cell.partitions, cell.batch_kib, "async")]
        ratios = [
            first.records_per_s / max(1, second.records_per_s)
            for first, second in zip(ack, other, strict=True)
        ]
        rows.append(
            {
                "partitions": cell.partitions,
                "batch_kib": cell.batch_kib,
                "ack": _medians(ack),
                "async": _medians(other),
                "ratio": round(median(ratios), 2),
                "rounds": len(ack),
            }
        )
    return rows


def _medians(runs: Sequence[Measured]) -> dict[str, float]:
    rates = [run.records_per_s for run in runs]
    return {
        "records_per_s": int(median(rates)),
        "records_per_s_min": min(rates),
        "records_per_s_max": max(rates),
        "ack_p50_ms": round(median(run.ack_p50_ms for run in runs), 2),
        "ack_p99_ms": round(median(run.ack_p99_ms for run in runs), 2),
    }


def matrix_table(rows: Sequence[dict[str, Any]]) -> str:
    """For eyes: thousands of records a second, and acknowledgement times in brackets."""
    lines = [("partitions", "batch KiB", "ack k/s", "ms", "async k/s", "ms", "ack/async")]
    for row in rows:
        lines.append(
            (
                str(row["partitions"]),
                str(row["batch_kib"]),
                _thousands(row["ack"]),
                _times(row["ack"]),
                _thousands(row["async"]),
                _times(row["async"]),
                f"{row['ratio']:.2f}",
            )
        )
    return table(lines)


def _thousands(medians: dict[str, float]) -> str:
    return f"{medians['records_per_s'] / 1000:.0f}"


def _times(medians: dict[str, float]) -> str:
    return f"{medians['ack_p50_ms']:.1f}/{medians['ack_p99_ms']:.1f}"
