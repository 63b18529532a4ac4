"""A run in a file: its plan, its chance, the program that made it, and what it showed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.hunt import versions
from chaos.sim.choices import Draws
from chaos.sim.plan import Plan, PlanError, plan_from_json

REPLAY_VERSION = 1


class ReplayError(Exception):
    """A replay file that is none, is damaged, or is of another program. One line."""


@dataclass(frozen=True, slots=True)
class Replay:
    """`draws` None: chance comes from the seed. `violation`: the name of the first thing wrong."""

    plan: Plan
    seed: int
    draws: Draws | None
    mutant: str
    violation: str
    trace_hash: str
    program: dict[str, str]
    story: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        raw = {
            "replay": REPLAY_VERSION,
            "violation": self.violation,
            "mutant": self.mutant,
            "trace_hash": self.trace_hash,
            "program": self.program,
            "story": list(self.story),
            "seed": self.seed,
            "plan": self.plan.to_json(),
            "draws": self.draws,
        }
        # One line a member, the long lists in one: for people, and for small differences.
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in raw.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load(path: Path, *, anyway: bool = False) -> Replay:
    """The replay in a file. ReplayError unless this very program recorded it; with `anyway` other
    programs are let pass, which may draw otherwise."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ReplayError(f"{path} is no replay file: {error}") from error
    if not isinstance(raw, dict) or "replay" not in raw:
        raise ReplayError(f"{path} is no replay file")
    if raw["replay"] != REPLAY_VERSION:
        raise ReplayError(
            f"{path} has replay version {raw['replay']}, this program reads {REPLAY_VERSION}"
        )
    try:
        replay = Replay(
            plan_from_json(raw["plan"]),
            _number(raw["seed"]),
            _draws(raw["draws"]),
            str(raw["mutant"]),
            str(raw["violation"]),
            str(raw["trace_hash"]),
            {str(key): str(value) for key, value in raw["program"].items()},
            tuple(str(line) for line in raw["story"]),
        )
    except (KeyError, TypeError, AttributeError, PlanError) as error:
        raise ReplayError(f"{path} is damaged: {error}") from error
    why = versions.difference(replay.program) if not anyway else ""
    if why:
        raise ReplayError(f"{path}: {why}; go to that commit, or try --anyway")
    return replay


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"the seed is {value!r}")
    return value


def _draws(raw: Any) -> Draws | None:
    if raw is None:
        return None
    for label, values in raw.items():
        if not all(type(value) is int and value >= 0 for value in values):
            raise TypeError(f"the draws of {label!r} are not numbers")
    return {str(label): list(values) for label, values in raw.items()}
