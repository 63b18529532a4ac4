"""From a failing run to the smallest one that fails in the same way.

The plan is shrunk, not the draws: faults are left out (delta debugging), then the cluster, the
clients and the load are made simpler, the run is cut short, and what is left of the faults is made
shorter. Then chance itself: labels whose draws may all be the simplest. Every candidate is a run of
its own; several are tried at a time, and the first that still fails is taken, so the result does
not depend on how many workers there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from chaos.hunt.pool import Pool, Result, Task
from chaos.sim.choices import Draws
from chaos.sim.plan import Fault, Load, Plan, Setup, plan_from_json


@dataclass(frozen=True, slots=True)
class Case:
    """A run: `draws` None means that chance comes from the seed."""

    plan: Plan
    seed: int
    draws: Draws | None = None

    def task(self, *, keep: bool = False) -> Task:
        return {"plan": self.plan.to_json(), "seed": self.seed, "draws": self.draws, "keep": keep}


def violation_name(violation: str) -> str:
    return violation.partition(": ")[0]


def names_of(result: Result) -> list[str]:
    """Names of a run's violations, in order, each once."""
    return list(dict.fromkeys(violation_name(line) for line in result["violations"]))


class Shrinker:
    """`wanted`: names of which a smaller run must show at least one."""

    def __init__(
        self,
        pool: Pool,
        wanted: Sequence[str],
        limit_s: float,
        on_step: Callable[[str, Case, int], None] = lambda what, case, tries: None,
    ) -> None:
        self._pool = pool
        self._wanted = set(wanted)
        self._deadline = time.monotonic() + limit_s
        self._on_step = on_step
        self.tries = 0

    @property
    def is_out_of_time(self) -> bool:
        return time.monotonic() >= self._deadline

    def shrink(self, case: Case) -> Case:
        """The smallest failing case found; `case` itself must fail."""
        case = self._without_faults(case)
        before = None
        while case != before and not self.is_out_of_time:
            before = case
            case = self._until_stuck(case, "cut short", _shorter)
            case = self._until_stuck(case, "simpler cluster and load", _simpler)
            case = self._without_faults(case)
            case = self._until_stuck(case, "shorter faults", _weaker_faults)
        return self._simplest_chance(case)

    # -- trying ----------------------------------------------------------------------------------

    def _fails(self, result: Result) -> bool:
        return any(name in self._wanted for name in names_of(result))

    def _first_failing(self, candidates: Sequence[Case]) -> Case | None:
        """The first of `candidates` that fails, or None."""
        results = self._pool.results(candidate.task() for candidate in candidates)
        try:
            for candidate, result in zip(candidates, results, strict=False):
                self.tries += 1
                if self._fails(result):
                    return candidate
                if self.is_out_of_time:
                    return None
        finally:
            results.close()  # type: ignore[attr-defined]
        return None

    def _until_stuck(
        self, case: Case, what: str, options: Callable[[Case], Iterator[Case]]
    ) -> Case:
        """Take whatever option still fails, again and again."""
        while not self.is_out_of_time:
            smaller = self._first_failing(list(options(case)))
            if smaller is None:
                break
            case = smaller
            self._on_step(what, case, self.tries)
        return case

    # -- faults ----------------------------------------------------------------------------------

    def _without_faults(self, case: Case) -> Case:
        """Delta debugging (Zeller, Hildebrandt 2002), complements only."""
        parts = 2
        while len(case.plan.faults) >= 1 and not self.is_out_of_time:
            faults = case.plan.faults
            parts = min(parts, len(faults))
            bounds = [number * len(faults) // parts for number in range(parts + 1)]
            candidates = [
                replace(case, plan=replace(case.plan, faults=faults[:low] + faults[high:]))
                for low, high in pairwise(bounds)
            ]
            smaller = self._first_failing(candidates)
            if smaller is not None:
                case = smaller
                parts = max(parts - 1, 2)
                self._on_step("fewer faults", case, self.tries)
            elif parts >= len(faults):
                break
            else:
                parts = min(2 * parts, len(faults))
        return case

    # -- chance ----------------------------------------------------------------------------------

    def _simplest_chance(self, case: Case) -> Case:
        """Record the draws; leave out whole labels where the simplest values will do."""
        result = self._pool.run(case.task(keep=True))
        draws: Draws = result["draws"]
        recorded = replace(case, draws=draws)
        if not self._fails(self._pool.run(recorded.task())):
            return case
        case = recorded
        for label in sorted(draws, key=lambda label: -len(draws[label])):
            if self.is_out_of_time:
                break
            assert case.draws is not None
            fewer = {name: values for name, values in case.draws.items() if name != label}
            smaller = self._first_failing([replace(case, draws=fewer)])
            if smaller is not None:
                case = smaller
        self._on_step("simpler chance", case, self.tries)
        return case


# --- simpler plans --------------------------------------------------------------------------------


def _with(case: Case, *, setup: Setup | None = None, load: Load | None = None) -> Case:
    plan = case.plan
    return replace(case, plan=replace(plan, setup=setup or plan.setup, load=load or plan.load))


def _shorter(case: Case) -> Iterator[Case]:
    """An earlier end of the load, with the faults after it gone."""
    duration_ms = case.plan.load.duration_ms
    for percent in (25, 50, 75, 90):
        shorter_ms = duration_ms * percent // 100
        if shorter_ms < 200:
            continue
        faults = tuple(fault for fault in case.plan.faults if fault.at_ms < shorter_ms)
        load = replace(case.plan.load, duration_ms=shorter_ms)
        yield replace(case, plan=replace(case.plan, load=load, faults=faults))


def _simpler(case: Case) -> Iterator[Case]:
    """One setting at its simplest."""
    setup, load = case.plan.setup, case.plan.load
    simplest = Setup()
    for name in (
        "consumers",
        "churns",
        "producers",
        "partitions",
        "segment_bytes",
        "linger_ms",
        "network_ms_max",
        "sync_ms_max",
        "batch_bytes",
        "request_timeout_ms",
        "delivery_timeout_ms",
        "idempotence",
        "flush",
    ):
        value = getattr(simplest, name)
        if getattr(setup, name) != value:
            yield _with(case, setup=replace(setup, **{name: value}))
    used = [number for fault in case.plan.faults for number in (fault.node, fault.other)]
    if setup.nodes > max([3, *used]):
        fewer = max([3, *used])
        yield _with(case, setup=replace(setup, nodes=fewer, voters=min(setup.voters, fewer)))
    if load.burst_max > 1:
        yield _with(case, load=replace(load, burst_max=1))
    for gap_ms_max in (2_000, 500, 200):
        if load.gap_ms_max < gap_ms_max:
            yield _with(case, load=replace(load, gap_ms_max=gap_ms_max))


def _weaker_faults(case: Case) -> Iterator[Case]:
    """One fault half as long, or half as far in the future."""
    faults = case.plan.faults
    for index, fault in enumerate(faults):
        for weaker in _weaker(fault):
            changed = (*faults[:index], weaker, *faults[index + 1 :])
            yield replace(case, plan=replace(case.plan, faults=changed))


def _weaker(fault: Fault) -> Iterator[Fault]:
    if fault.lasting_ms > 100:
        yield replace(fault, lasting_ms=fault.lasting_ms // 2)
    if fault.amount > 1 and fault.kind in ("crash-in-turn", "pause-in-turn", "crash-in-disk-call"):
        yield replace(fault, amount=fault.amount // 2)


def case_of(result: Result) -> Case:
    """The case of a run by seed."""
    return Case(plan_from_json(result["plan"]), result["seed"])
