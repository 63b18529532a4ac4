"""Does the general search meet every planted bug, and how soon?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from chaos.hunt.pool import Pool, Result
from chaos.hunt.shrink import Shrinker, case_of, names_of
from chaos.hunt.story import tell
from chaos.mutants import Mutant

SEEDS_MAX = 2_000
SHRINK_TIME_S = 30.0


@dataclass(frozen=True, slots=True)
class Row:
    """How one mutant fared. `seed` 0: not caught; `lines` 0: not shrunk."""

    mutant: str
    caught_by: str
    seed: int
    seeds_tried: int
    seconds: float
    lines: int = 0
    violation: str = ""
    story: tuple[str, ...] = ()
    case: dict[str, Any] | None = None
    """Plan, seed and draws of the shrunk run."""

    @property
    def is_caught(self) -> bool:
        return self.seed > 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def catches(mutant: Mutant, result: Result) -> str:
    """The first violation of a run that the mutant must trip; "" if there is none."""
    for name in names_of(result):
        if name in mutant.trips:
            return name
    return ""


def hunt(mutant: Mutant, first_seed: int, seeds_max: int, *, shrinks: bool) -> Row:
    """Run seeds with the bug planted until it shows itself."""
    started = time.monotonic()
    tried = 0
    with Pool(1, mutant.name) as pool:
        for seed in range(first_seed, first_seed + seeds_max):
            tried += 1
            result = pool.run({"seed": seed})
            name = catches(mutant, result)
            if name:
                seconds = time.monotonic() - started
                violation = next(v for v in result["violations"] if v.startswith(f"{name}: "))
                row = Row(mutant.name, name, seed, tried, seconds, violation=violation)
                return _shrunk(pool, row, result) if shrinks else row
    return Row(mutant.name, "", 0, tried, time.monotonic() - started)


def _shrunk(pool: Pool, row: Row, result: Result) -> Row:
    shrinker = Shrinker(pool, [row.caught_by], SHRINK_TIME_S)
    case = shrinker.shrink(case_of(result))
    task = case.task(keep=True)
    story = tell(pool.run(task)["entries"])
    return replace(
        row,
        lines=len(story),
        story=tuple(story),
        case={name: task[name] for name in ("plan", "seed", "draws")},
    )


def run_zoo(
    mutants: Sequence[Mutant],
    jobs: int,
    *,
    first_seed: int = 1,
    seeds_max: int = SEEDS_MAX,
    shrinks: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """`jobs` mutants at a time; rows in the order of `mutants`."""
    rows: list[Row] = []
    with ThreadPoolExecutor(jobs) as executor:
        hunts = [
            executor.submit(hunt, mutant, first_seed, seeds_max, shrinks=shrinks)
            for mutant in mutants
        ]
        try:
            for each in hunts:
                rows.append(each.result())
                on_row(rows[-1])
        except BaseException:
            for each in hunts:
                each.cancel()
            raise
    return rows
