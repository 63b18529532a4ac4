"""Virtual time: a heap of what is to happen; the clock jumps from one to the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class SimClock:
    """Events at the same millisecond happen in the order in which they were scheduled."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self._heap: list[tuple[int, int, Action]] = []
        self._running_number = 0

    def at(self, time_ms: int, action: Action) -> None:
        self._running_number += 1
        heapq.heappush(self._heap, (max(time_ms, self.now_ms), self._running_number, action))

    def after(self, delay_ms: int, action: Action) -> None:
        self.at(self.now_ms + delay_ms, action)

    def run_until(self, end_ms: int) -> None:
        """Do everything that is due before `end_ms`; the clock then stands at `end_ms`."""
        while self._heap and self._heap[0][0] <= end_ms:
            time_ms, _, action = heapq.heappop(self._heap)
            self.now_ms = time_ms
            action()
        self.now_ms = end_ms
