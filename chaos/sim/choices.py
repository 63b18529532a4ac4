"""Every chance decision of a simulated run, through one recorder.

A run is a list of labelled draws. Each label has a stream of numbers of its own: a decision more or
less in one place (one message more on the network) does not move what all others draw, so that an
edited run stays close to the run it was made from. The generator is SplitMix64, written out here so
that no library and no version of Python can change what a seed means.

Draws are recorded as distances from their lower bound, and callers put the simplest case lowest:
a stream that is used up gives its lower bound, so the shortest record is the simplest run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15

Source = Callable[[str, int], int]
"""source(label, span): a number from 0 to span."""

Draws = dict[str, list[int]]
"""What was drawn, by label, as distances from the lower bound."""


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def from_seed(seed: int) -> Source:
    """A stream of numbers for each label, all determined by `seed`."""
    root = _mix((seed * _GAMMA) & _MASK)
    states: dict[str, int] = {}

    def source(label: str, span: int) -> int:
        state = states.get(label)
        if state is None:
            state = _mix(root ^ (zlib.crc32(label.encode()) * _GAMMA & _MASK))
        states[label] = state = (state + _GAMMA) & _MASK
        return _mix(state) % (span + 1)

    return source


def from_draws(draws: Mapping[str, Sequence[int]]) -> Source:
    """Recorded draws; whatever is used up or does not fit gives the lower bound."""
    streams = {label: iter(values) for label, values in draws.items()}

    def source(label: str, span: int) -> int:
        stream = streams.get(label)
        value = next(stream, 0) if stream is not None else 0
        return value if 0 <= value <= span else 0

    return source


class Choices:
    """`draw(label, low, high)`, bounds included, from a source; everything drawn is kept."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.draws: Draws = {}

    def draw(self, label: str, low: int, high: int) -> int:
        assert low <= high, (label, low, high)
        value = self._source(label, high - low)
        recorded = self.draws.get(label)
        if recorded is None:
            recorded = self.draws[label] = []
        recorded.append(value)
        return low + value

    def chance(self, label: str, percent: int) -> bool:
        """True in `percent` of 100 cases; the simplest is False."""
        return self.draw(label, 0, 99) >= 100 - percent

    def pick(self, label: str, items: Sequence[int]) -> int:
        """One of `items`; the first one is the simplest."""
        return items[self.draw(label, 0, len(items) - 1)]

    @property
    def count(self) -> int:
        return sum(map(len, self.draws.values()))
