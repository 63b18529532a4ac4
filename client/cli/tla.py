"""`prozess tla`: the models of the protocol, and what breaks without each of its rules."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.common import EXIT_BAD, EXIT_GOOD, expected, output_option, print_json
from client.cli.tables import table

if TYPE_CHECKING:
    from tla.cases import Case, Mutant
    from tla.runner import Job, Outcome


@click.group()
def tla() -> None:
    """Check the TLA+ models of the protocol, and that they would notice."""


@tla.command(
    epilog="Example: prozess tla check --tier pr; "
    "TLA2TOOLS_JAR=~/tla2tools.jar prozess tla check --engine tlc --only Isr"
)
@click.option(
    "--tier",
    default="smoke",
    show_default=True,
    type=click.Choice(["smoke", "pr", "nightly"]),
    help="How much: small bounds in 60 s; mutants, liveness and more in 8 minutes; an hour.",
)
@click.option(
    "--engine",
    type=click.Choice(["tlc", "explorer"]),
    help="TLC needs Java and tla2tools.jar; the explorer is our own. Default: TLC if it is here.",
)
@click.option("--only", default="", metavar="TEXT", help="Runs whose name contains this.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Check this configuration instead; its name begins with the module's: Isr.mine.cfg.",
)
@click.option(
    "-j",
    "--jobs",
    default=min(2, len(os.sched_getaffinity(0))),
    show_default="two, or one a core",
    type=click.IntRange(1, 64),
    help="Runs at a time.",
)
@click.option("--write", is_flag=True, help="Note states and seconds in tla/ (for developers).")
@output_option
def check(
    tier: str,
    engine: str | None,
    only: str,
    config: Path | None,
    jobs: int,
    write: bool,
    output: str,
) -> int:
    """Explore all states of every model within its bounds.

    A model must hold and have as many states as ever; a mutant, which leaves out one rule, must
    break the claim that it names. Exit code 0: so it is. 1: it is not. 2: could not run.
    """
    from tla.errors import TlaError
    from tla.results import load, merged, save
    from tla.runner import judge_all, never_taken

    with expected(TlaError):
        runs = _runs(tier, only, config)
        todo, left = _jobs(runs, engine, compare=not write)
        started = time.monotonic()
        outcomes: list[Outcome] = []
        for outcome in judge_all(todo, jobs):
            outcomes.append(outcome)
            _progress(outcome, len(outcomes), len(todo))
        seconds = time.monotonic() - started
        complete = tier != "smoke" and not only and config is None
        missing = never_taken(outcomes) if complete else {}
        if write:
            save(merged(load(), outcomes))
    bad = [outcome for outcome in outcomes if outcome.problem]
    if output == "json":
        print_json([_row(outcome) for outcome in outcomes])
    else:
        _show(outcomes, left, missing, seconds)
    return EXIT_BAD if bad or missing else EXIT_GOOD


def _runs(tier: str, only: str, config: Path | None) -> list[Case | Mutant]:
    from tla.cases import FOLDER, MUTANTS, Case, Tier, cases_of
    from tla.errors import TlaError

    if config is not None:
        module = config.name.split(".")[0]
        if not (FOLDER / f"{module}.tla").exists():
            raise TlaError(f"{config}: there is no module {module}; name the file {module}.….cfg")
        return [Case(config.name, module, Tier.SMOKE, path=config)]
    runs: list[Case | Mutant] = [*cases_of(Tier(tier))]
    if Tier(tier) is not Tier.SMOKE:
        runs += MUTANTS
    runs = [run for run in runs if only in run.name]
    if not runs:
        raise TlaError(f"no run of tier {tier} is called like {only!r}")
    return runs


def _jobs(
    runs: list[Case | Mutant], engine: str | None, compare: bool
) -> tuple[list[Job], list[str]]:
    """What to run, long ones first, and the names of what only TLC can judge."""
    from tla.results import cost, expected_states, load
    from tla.runner import Job
    from tla.tools import JAR_VARIABLE, Tools, cache_folder, fetch_jar, find_jar, find_java

    tools: Tools | None = None
    if engine != "explorer":
        jar = find_jar(os.environ, cache_folder())
        if jar is None and engine == "tlc":
            jar = fetch_jar(cache_folder())
        if jar is not None:
            tools = Tools(find_java(), jar)
        else:
            print(
                f"no tla2tools.jar here ({JAR_VARIABLE} names one, --engine tlc fetches it): "
                "the explorer judges",
                file=sys.stderr,
            )
    results = load()
    mine = [run for run in runs if tools is not None or not run.needs_tlc]
    mine.sort(key=lambda run: -cost(results, run))
    jobs = [Job(run, tools, expected_states(results, run) if compare else None) for run in mine]
    return jobs, [run.name for run in runs if run not in mine]


def _progress(outcome: Outcome, done: int, count: int) -> None:
    if outcome.problem or sys.stderr.isatty() or done == count or done % 10 == 0:
        verdict = outcome.problem or ("killed" if outcome.is_mutant else "holds")
        print(f"{done} of {count}: {outcome.name}: {verdict}", file=sys.stderr, flush=True)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "engine": outcome.engine,
        "mutant": outcome.is_mutant,
        "distinct_states": outcome.distinct,
        "seconds": round(outcome.seconds, 3),
        "broken": outcome.broken or None,
        "story": list(outcome.story),
        "problem": outcome.problem or None,
    }


def _show(
    outcomes: list[Outcome], left: list[str], missing: dict[str, tuple[str, ...]], seconds: float
) -> None:
    rows = [("model", "engine", "states", "seconds", "verdict")]
    rows += [
        (o.name, o.engine, f"{o.distinct:,}", f"{o.seconds:.1f}", o.problem or "holds")
        for o in outcomes
        if not o.is_mutant
    ]
    if len(rows) > 1:
        print(table(rows))
    mutants = [outcome for outcome in outcomes if outcome.is_mutant]
    if mutants:
        killed = sum(not outcome.problem for outcome in mutants)
        print(f"{killed} of {len(mutants)} mutants are killed")
    for outcome in outcomes:
        if outcome.problem:
            print(f"\n{outcome.name}: {outcome.problem}")
            for line in outcome.story:
                print(f"  {line}")
    for module, names in missing.items():
        print(f"{module}: no run takes {', '.join(names)}")
    if left:
        print(f"{len(left)} runs are left to TLC: {', '.join(left)}")
    print(f"{seconds:.0f} s")
