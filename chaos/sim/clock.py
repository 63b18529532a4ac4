"""Virtual time: a heap of what is to happen; the clock jumps from one to the next. And the clocks
of the nodes, which run fast or slow and jump ahead."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]

PERMILLE = 1_000


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
        heap = self._heap
        while heap and heap[0][0] <= end_ms:
            time_ms, _, action = heapq.heappop(heap)
            self.now_ms = time_ms
            action()
        self.now_ms = end_ms


class NodeClock:
    """A node's monotonic clock: `rate_permille` of its milliseconds pass in 1,000 true ones."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self._rate_permille = PERMILLE
        self._since_ms = clock.now_ms
        self._base_ms = clock.now_ms

    @property
    def now_ms(self) -> int:
        passed_ms = self._clock.now_ms - self._since_ms
        return self._base_ms + passed_ms * self._rate_permille // PERMILLE

    def set_rate(self, rate_permille: int) -> None:
        """From now on; what the clock shows does not go back."""
        self._base_ms = self.now_ms
        self._since_ms = self._clock.now_ms
        self._rate_permille = rate_permille

    def jump(self, ahead_ms: int) -> None:
        """As after a virtual machine was suspended. A monotonic clock never jumps back."""
        self._base_ms += ahead_ms

    def true_delay_ms(self, delay_ms: int) -> int:
        """How long, in true milliseconds, this clock takes to advance by `delay_ms`; rounded up."""
        return -(-delay_ms * PERMILLE // self._rate_permille)
