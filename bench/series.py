"""One series of measurements, kept as JSON and shown with the project's floors and aims.

    python bench/series.py --out series.json            about 20 minutes
    python bench/series.py --out series.json --quick    about 2 minutes: does it run, not how fast

Each part is one call of `prozess perf` on a fresh cluster of three nodes. See README.md for what
the numbers mean and when to believe them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Part(NamedTuple):
    name: str
    words: tuple[str, ...]
    quick: tuple[str, ...]
    """Options that make it short."""


PARTS = (
    Part(
        "produce matrix",
        ("produce", "--matrix", "--rounds", "3", "--seconds", "5"),
        ("--rounds", "1", "--seconds", "0.5", "--warmup", "0.2"),
    ),
    Part("consume poll", ("consume",), ("--records", "200000", "--rounds", "1")),
    Part("consume poll 256 KiB", ("consume", "--batch-kib", "256"), ("--records", "200000")),
    Part("consume batches", ("consume", "--batches"), ("--records", "200000", "--rounds", "1")),
    Part("latency ack", ("latency", "--seconds", "20"), ("--seconds", "2")),
    Part("latency async", ("latency", "--flush", "async", "--seconds", "20"), ("--seconds", "2")),
    Part("a minute", ("produce", "--seconds", "60", "-p", "3"), ("--seconds", "3")),
)


class Aim(NamedTuple):
    what: str
    value: float
    floor: float
    aim: float
    at_most: bool = False

    def verdict(self) -> str:
        def reached(bound: float) -> bool:
            return self.value <= bound if self.at_most else self.value >= bound

        if reached(self.aim):
            return "aim reached"
        return "above the floor" if reached(self.floor) else "BELOW THE FLOOR"


def aims(results: dict[str, dict[str, Any]]) -> list[Aim]:
    """What was asked for, against what was measured."""
    found: list[Aim] = []
    matrix = results.get("produce matrix", {}).get("rows", [])
    for row in matrix:
        where = f"{row['partitions']} partitions, {row['batch_kib']} KiB"
        ack, other = row["ack"]["records_per_s"], row["async"]["records_per_s"]
        if row["batch_kib"] == 64:
            found.append(Aim(f"produce ack, {where}, records/s", ack, 200_000, 450_000))
        if row["batch_kib"] == 256:
            found.append(Aim(f"produce async, {where}, records/s", other, 200_000, 1_000_000))
        found.append(Aim(f"ack/async, {where}", row["ratio"], 0.6, 0.6))
    for name in ("consume poll", "consume poll 256 KiB", "consume batches"):
        if name in results:
            rate = results[name]["records_per_s"]
            found.append(Aim(f"{name}, records/s", rate, 500_000, 1_200_000))
    latency = results.get("latency ack")
    if latency is not None and latency["fdatasync"] is not None:
        bound = 3 + 4 * latency["fdatasync"]["p99_us"] / 1_000
        p99 = latency["ack_p99_ms"]
        found.append(Aim("ack p99 at 500 records/s, ms", p99, bound, bound, at_most=True))
    for node, used in results.get("a minute", {}).get("processes", {}).items():
        if node.startswith("node"):
            peak = used["resident_peak_mb"]
            found.append(Aim(f"{node} resident at most, MB", peak, 200, 200, at_most=True))
    for name, result in results.items():
        changes = result["leader_or_isr_changes"]
        found.append(Aim(f"{name}: leader or ISR changes", changes, 0, 0, at_most=True))
    return found


def measure(part: Part, quick: bool) -> dict[str, Any]:
    words = [*part.words, *(part.quick if quick else ())]
    print(f"prozess perf {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "client.cli", "perf", *words, "-o", "json"],
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PROZESS_BROKERS"},
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--only", help="parts whose name contains this")
    arguments = parser.parse_args()
    results = {
        part.name: measure(part, arguments.quick)
        for part in PARTS
        if not arguments.only or arguments.only in part.name
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for aim in aims(results):
        print(f"{aim.what}: {aim.value:,.6g}  ({aim.verdict()}: {aim.floor:,.6g}, {aim.aim:,.6g})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
