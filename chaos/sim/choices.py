"""Every chance decision of a simulated run, through one recorder.

A run is the list of its draws: fed back, the list gives the same run. The generator is SplitMix64,
written out here so that no library or Python version can change what a seed means.
"""

from __future__ import annotations

from collections.abc import Sequence

_MASK = (1 << 64) - 1


class Choices:
    """`draw(label, low, high)`, bounds included, from a seed, or from a recorded list of values.

    A list that is used up, or whose value does not fit, is followed by the seed's numbers, so that
    a shortened or edited list still is a run.
    """

    def __init__(self, seed: int, recorded: Sequence[int] = ()) -> None:
        self._state = seed & _MASK
        self._recorded = tuple(recorded)
        self.values: list[int] = []
        self.labels: list[str] = []

    def _next(self) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def draw(self, label: str, low: int, high: int) -> int:
        assert low <= high, (label, low, high)
        position = len(self.values)
        value = low + self._next() % (high - low + 1)
        if position < len(self._recorded) and low <= self._recorded[position] <= high:
            value = self._recorded[position]
        self.values.append(value)
        self.labels.append(label)
        return value

    def chance(self, label: str, percent: int) -> bool:
        return self.draw(label, 1, 100) <= percent

    def pick(self, label: str, items: Sequence[int]) -> int:
        return items[self.draw(label, 0, len(items) - 1)]
