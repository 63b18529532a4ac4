"""A counterexample in a few lines: who did what, and what changed by it."""

from __future__ import annotations

from collections.abc import Sequence

from tla.model import Step

CHANGE_WIDTH_MAX = 160


def story(claim: str, steps: Sequence[Step]) -> list[str]:
    """One line a step, with the variables that it changed; the last one breaks `claim`."""
    lines = []
    before: dict[str, str] = {}
    for number, step in enumerate(steps):
        if number == 0:
            lines.append("0. at the start")
        else:
            changed = [
                f"{name}: {value}"
                for name, value in step.state.items()
                if before.get(name) != value
            ]
            text = "; ".join(changed) or "nothing more, for ever"
            if len(text) > CHANGE_WIDTH_MAX:
                text = text[: CHANGE_WIDTH_MAX - 1] + "…"
            lines.append(f"{number}. {step.action or 'a step'}: {text}")
        before = step.state or before
    lines.append(f"{claim} does not hold")
    return lines
