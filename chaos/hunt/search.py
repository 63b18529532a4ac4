"""Many seeds, and what they covered together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

from chaos.hunt.pool import Pool, Result, Task
from chaos.sim.plan import FAULT_NAMES

PROTOCOL_EVENTS = (
    "BecameLeader",
    "BecameFollower",
    "BecameOffline",
    "Appended",
    "HwAdvanced",
    "Truncated",
    "IsrProposed",
    "IsrResult",
    "Acked",
    "Recovered",
    "RaftRole",
    "Applied",
)


@dataclass(slots=True)
class Found:
    """What a search has seen so far. Counts are per seed, in the order of the seeds."""

    seeds: int = 0
    failures: list[Result] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    leader_changes: list[int] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    events: int = 0
    virtual_ms: int = 0
    worker_s: float = 0.0
    """Time that workers spent, all together."""
    wall_s: float = 0.0
    fault_kinds: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.acked.append(result["acked"])
        self.leader_changes.append(result["leader_changes"])
        self.faults.append(sum(result["faults"].values()))
        self.events += result["events"]
        self.virtual_ms += result["virtual_ms"]
        self.worker_s += result["wall_s"]
        self.fault_kinds.update(result["faults"])
        self.facts.update(result["facts"])
        if result["violations"]:
            self.failures.append(result)

    def medians(self) -> tuple[int, int, int]:
        """(acked records, leader changes, faults) of the median run."""
        if not self.seeds:
            return 0, 0, 0
        return (
            int(median(self.acked)),
            int(median(self.leader_changes)),
            int(median(self.faults)),
        )

    @property
    def runs_per_core_minute(self) -> float:
        return 60 * self.seeds / self.worker_s if self.worker_s else 0.0

    @property
    def events_per_core_second(self) -> float:
        return self.events / self.worker_s if self.worker_s else 0.0

    def not_met(self) -> list[str]:
        """Kinds of faults and protocol events that no seed had."""
        return [
            name
            for names, counts in (
                (FAULT_NAMES, self.fault_kinds),
                (PROTOCOL_EVENTS, self.facts),
            )
            for name in names
            if not counts[name]
        ]


def search(
    pool: Pool,
    start: int,
    count: int,
    *,
    limit_s: float | None = None,
    keep_going: bool = False,
    on_result: Callable[[Found, Result], None] = lambda found, result: None,
) -> Found:
    """Run seeds `start` to `start + count - 1`; stop at the first failure unless told to go on, or
    after `limit_s` between two seeds."""
    found = Found()
    started = time.monotonic()

    def tasks() -> Iterator[Task]:
        for seed in range(start, start + count):
            if limit_s is not None and time.monotonic() - started >= limit_s:
                return
            yield {"seed": seed}

    for result in pool.results(tasks()):
        found.add(result)
        found.wall_s = time.monotonic() - started
        on_result(found, result)
        if found.failures and not keep_going:
            break
    return found
