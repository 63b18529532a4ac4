"""The real driver's randomness: one generator per client, by a seed if one is given."""

from __future__ import annotations

import random

from client.events import Draw


def drawing(seed: int | None) -> Draw:
    """draw(label, low, high) from a generator of its own; None takes the system's entropy."""
    generator = random.Random(seed)

    def draw(label: str, low: int, high: int) -> int:
        return generator.randint(low, high)

    return draw
