"""The only clock: milliseconds that never go back, and nanoseconds for evidence."""

from __future__ import annotations

import time


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def now_ns() -> int:
    return time.monotonic_ns()
