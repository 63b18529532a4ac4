"""What a measurement cost and what it stood on: CPU and memory of processes, the disk's sync."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = "client"
PROBE_BYTES = 65_536
PROBE_COUNT = 200
GC_THRESHOLD = 50_000
SWITCH_INTERVAL_US = 500


def percentile(values: Sequence[int], percent: int) -> int:
    """The value that `percent` of the values do not exceed (nearest rank); 0 without values."""
    if not values:
        return 0
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, rank - 1)]


def tune_interpreter() -> dict[str, int]:
    """What a program does that sends as fast as it goes; client/README.md says why. Returns what
    it has set."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_US / 1e6)
    return {"gc_threshold": GC_THRESHOLD, "switch_interval_us": SWITCH_INTERVAL_US}


@dataclass(frozen=True, slots=True)
class SyncTimes:
    """How long fdatasync takes after an append of `size_bytes`, with nothing else going on."""

    size_bytes: int
    p50_us: int
    p99_us: int

    def to_json(self) -> dict[str, int]:
        return {"append_bytes": self.size_bytes, "p50_us": self.p50_us, "p99_us": self.p99_us}

    def __str__(self) -> str:
        return (
            f"fdatasync after {self.size_bytes // 1024} KiB: "
            f"p50 {self.p50_us / 1000:.2f} ms, p99 {self.p99_us / 1000:.2f} ms"
        )


def measure_sync(
    directory: Path, size_bytes: int = PROBE_BYTES, count: int = PROBE_COUNT
) -> SyncTimes:
    """Append and sync a file in `directory` so many times; the file is removed."""
    path = directory / f"sync-probe-{os.getpid()}"
    data = b"\x5a" * size_bytes
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    times_us = []
    try:
        for _ in range(count):
            os.write(descriptor, data)
            start_ns = time.perf_counter_ns()
            os.fdatasync(descriptor)
            times_us.append((time.perf_counter_ns() - start_ns) // 1_000)
    finally:
        os.close(descriptor)
        path.unlink()
    return SyncTimes(size_bytes, percentile(times_us, 50), percentile(times_us, 99))


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process at one moment."""

    cpu_ms: int
    """User and system time so far, all threads."""
    resident_bytes: int
    resident_peak_bytes: int


def sample(pid: int) -> ProcessSample | None:
    """From /proc; None when the process is gone or the system has no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    columns = stat.rsplit(")", 1)[1].split()
    ticks = int(columns[11]) + int(columns[12])
    sizes = {
        name: int(value.split()[0]) * 1024
        for line in status.splitlines()
        if (name := line.partition(":")[0]) in ("VmRSS", "VmHWM")
        and (value := line.partition(":")[2])
    }
    return ProcessSample(
        ticks * 1000 // os.sysconf("SC_CLK_TCK"), sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)
    )


class ProcessMeter:
    """Cores used by processes between its making and each `read`."""

    def __init__(self, pids: dict[str, int]) -> None:
        """`pids` by what they are called in the report."""
        self._pids = pids
        self._start = {name: sample(pid) for name, pid in pids.items()}
        self._start_ns = time.monotonic_ns()

    def read(self) -> dict[str, dict[str, float]]:
        """Per process: cores, resident_mb, resident_peak_mb. Processes that are gone are absent."""
        elapsed_ms = max(1, (time.monotonic_ns() - self._start_ns) // 1_000_000)
        shown = {}
        for name, pid in self._pids.items():
            before, now = self._start[name], sample(pid)
            if before is None or now is None:
                continue
            shown[name] = {
                "cores": round((now.cpu_ms - before.cpu_ms) / elapsed_ms, 2),
                "resident_mb": round(now.resident_bytes / 1e6, 1),
                "resident_peak_mb": round(now.resident_peak_bytes / 1e6, 1),
            }
        return shown


def machine() -> dict[str, Any]:
    """What kind of machine this is, as far as a result depends on it."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "load_1_min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
