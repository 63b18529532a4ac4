"""Runs cases and mutants, some at a time, and says of each whether it came out as it must."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from tla.cases import FOLDER, Case, Mutant, base_config
from tla.explorer.explore import Found, actions_of, explore
from tla.story import story
from tla.tlc import run_tlc
from tla.tools import Tools


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problem` is empty if the run came out as it must."""

    name: str
    module: str
    is_mutant: bool
    engine: str
    distinct: int
    seconds: float
    broken: str
    story: tuple[str, ...]
    problem: str
    actions: tuple[str, ...] = ()
    """The actions that were taken; the explorer counts them."""


@dataclass(frozen=True, slots=True)
class Job:
    run: Case | Mutant
    tools: Tools | None
    """None: the explorer."""
    expected: int | None

    @property
    def engine(self) -> str:
        return "explorer" if self.tools is None else "tlc"


def judge(job: Job) -> Outcome:
    """Run one job here. TlaError if it cannot be run."""
    run = job.run
    config = run.config()
    started = time.monotonic()
    if job.tools is None:
        found = explore(FOLDER, config)
    else:
        found = run_tlc(FOLDER, config, job.tools)
    seconds = time.monotonic() - started
    is_mutant = isinstance(run, Mutant)
    told = story(found.broken, found.steps) if found.broken else []
    return Outcome(
        run.name,
        run.module,
        is_mutant,
        job.engine,
        found.distinct,
        seconds,
        found.broken,
        tuple(told),
        _problem(job, found),
        tuple(sorted(found.taken)),
    )


def _problem(job: Job, found: Found) -> str:
    if isinstance(job.run, Mutant):
        return "" if found.broken else f"survives: {job.run.claim} is never broken"
    if found.broken:
        return f"{found.broken} is broken"
    if found.unjudged:
        return f"{', '.join(found.unjudged)} cannot be judged by the explorer"
    if job.expected is not None and found.distinct != job.expected:
        return f"{found.distinct} distinct states, {job.expected} expected"
    return ""


def never_taken(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, ...]]:
    """Actions of each module that none of the runs took: dead letters, or bounds that forbid them.

    Only the explorer says what it took; TLC's state graphs are the same, as their sizes show.
    """
    taken: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.engine == "explorer":
            taken.setdefault(outcome.module, set()).update(outcome.actions)
    missing = {
        module: tuple(name for name in actions_of(FOLDER, base_config(module)) if name not in seen)
        for module, seen in taken.items()
    }
    return {module: names for module, names in missing.items() if names}


def judge_all(jobs: Sequence[Job], processes: int) -> Iterator[Outcome]:
    """All outcomes, as they come. Runs that were large last time should stand first."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(judge, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
