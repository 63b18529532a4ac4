"""`prozess sim`: whole clusters in virtual time, one seed one run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.common import EXIT_BAD, EXIT_GOOD, expected, output_option, print_json

if TYPE_CHECKING:
    from chaos.hunt.pool import Result
    from chaos.hunt.search import Found
    from chaos.hunt.shrink import Case
    from chaos.hunt.zoo import Row
    from chaos.sim.cluster import SimCluster

PROGRESS_S = 2.0
SHRINK_TIME_S = 120

seed_type = click.IntRange(0, 2**63 - 1)
mutant_option = click.option("--mutant", default="", help="Plant this bug (see chaos/bugs.py).")


def jobs_option(function: Any) -> Any:
    return click.option(
        "-j",
        "--jobs",
        default=len(os.sched_getaffinity(0)),
        show_default="one a core",
        type=click.IntRange(1, 256),
        help="Processes at a time.",
    )(function)


@click.group()
def sim() -> None:
    """Explore faulty histories of the real code in virtual time.

    Every run is a function of its seed. What fails is shrunk to a short story and a replay file.
    """


# --- one run --------------------------------------------------------------------------------------


@sim.command(epilog="Example: prozess sim run --seed 7 -v")
@click.option("--seed", required=True, type=seed_type, help="Draws the plan and all chance.")
@click.option("-v", "--verbose", is_flag=True, help="A status line whenever something changed.")
@mutant_option
@output_option
def run(seed: int, verbose: bool, mutant: str, output: str) -> int:
    """Run one seed. Exit code 0: nothing was broken. 1: something was.

    The legend of the status lines of -v is in chaos/README.md.
    """
    from chaos.bugs import REGISTRY
    from chaos.mutants import MutantError, apply_at_import

    # Before the first module of the program is imported: the bug is planted in this very process.
    with expected(MutantError):
        apply_at_import([mutant] if mutant else [], REGISTRY)
    from chaos.sim.run import run_seed

    result = run_seed(seed, on_step=_status_printer() if verbose else None)
    summary: dict[str, Any] = {
        "seed": result.seed,
        "trace_hash": result.trace_hash,
        "violations": list(result.violations),
        "acked": result.acked,
        "failed": result.failed,
        "unknown": result.unknown,
        "read": result.read,
        "leader_changes": result.leader_changes,
        "faults": result.faults,
        "crashes": result.crashes,
        "events": result.events,
        "virtual_ms": result.virtual_ms,
        "plan": result.plan.to_json(),
    }
    if output == "json":
        print_json(summary)
    else:
        _print_run(summary, mutant)
    return EXIT_BAD if result.violations else EXIT_GOOD


def _status_printer() -> Any:
    """Prints a status line after each step that changed anything but the time."""
    from chaos.sim.status import status_line

    last = ""

    def on_step(cluster: SimCluster) -> None:
        nonlocal last
        line = status_line(cluster)
        state = line.partition("|")[2]
        if state != last:
            last = state
            print(line)

    return on_step


def _print_run(summary: dict[str, Any], mutant: str) -> None:
    setup = summary["plan"]["setup"]
    print(
        f"seed {summary['seed']}: {setup['nodes']} nodes, {setup['voters']} voters, "
        f"{setup['partitions']} partitions, min ISR {setup['min_isr']}, flush={setup['flush']}"
    )
    print(
        f"{summary['acked']:,} acked, {summary['failed']:,} failed, {summary['unknown']:,} unknown,"
        f" {summary['read']:,} read; {summary['leader_changes']} leader changes, "
        f"{sum(summary['faults'].values())} faults, {summary['crashes']} crashes"
    )
    print(f"{summary['events']:,} events in {summary['virtual_ms'] / 1_000:.1f} s of virtual time")
    for violation in summary["violations"]:
        print(f"BROKEN: {violation}")
    print(f"trace_hash {summary['trace_hash']}")
    if summary["violations"]:
        print(f"shrink it:  prozess sim shrink {summary['seed']}{_planted(mutant)}")


def _planted(mutant: str) -> str:
    """The option that plants the bug again, for a command to be copied."""
    return f" --mutant {mutant}" if mutant else ""


# --- many runs ------------------------------------------------------------------------------------


@sim.command(epilog="Example: prozess sim search --seeds 2000 -j 2")
@click.option("--seeds", default=200, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--start", default=1, show_default=True, type=seed_type, help="The first one.")
@click.option("--time", "limit_s", default=None, type=click.IntRange(1), help="Seconds at most.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first failure.")
@jobs_option
@mutant_option
@output_option
def search(
    seeds: int,
    start: int,
    limit_s: int | None,
    keep_going: bool,
    jobs: int,
    mutant: str,
    output: str,
) -> int:
    """Run many seeds. Exit code 0: nothing was broken. 1: a seed failed, and how to replay it."""
    from chaos.hunt.pool import Pool, WorkerFailed
    from chaos.hunt.search import search as run_search
    from chaos.mutants import MutantError

    last_told = time.monotonic()

    def tell(found: Found, result: Result) -> None:
        nonlocal last_told
        if time.monotonic() - last_told >= PROGRESS_S:
            last_told = time.monotonic()
            rate = 60 * found.seeds / found.wall_s
            print(
                f"prozess: seed {result['seed']}, {found.seeds:,} of {seeds:,}, "
                f"{rate:,.0f} a minute, {len(found.failures)} failed",
                file=sys.stderr,
                flush=True,
            )

    with expected(WorkerFailed, MutantError), Pool(jobs, mutant) as pool:
        found = run_search(
            pool, start, seeds, limit_s=limit_s, keep_going=keep_going, on_result=tell
        )
    if output == "json":
        print_json(_search_json(found))
    else:
        _print_search(found, jobs, mutant)
    return EXIT_BAD if found.failures else EXIT_GOOD


def _search_json(found: Found) -> dict[str, Any]:
    acked, leader_changes, faults = found.medians()
    return {
        "seeds": found.seeds,
        "failures": [
            {"seed": result["seed"], "violations": result["violations"]}
            for result in found.failures
        ],
        "median": {"acked": acked, "leader_changes": leader_changes, "faults": faults},
        "runs_per_core_minute": round(found.runs_per_core_minute, 1),
        "events_per_core_second": round(found.events_per_core_second),
        "virtual_s": found.virtual_ms // 1_000,
        "wall_s": round(found.wall_s, 1),
        "facts": dict(sorted(found.facts.items())),
        "faults": dict(sorted(found.fault_kinds.items())),
        "not_met": found.not_met(),
    }


def _print_search(found: Found, jobs: int, mutant: str) -> None:
    acked, leader_changes, faults = found.medians()
    print(
        f"{found.seeds:,} seeds, {found.virtual_ms / 3_600_000:.1f} h of virtual time in "
        f"{found.wall_s:,.0f} s with {jobs} processes: {len(found.failures)} failed"
    )
    print(
        f"one core: {found.runs_per_core_minute:,.0f} runs a minute, "
        f"{found.events_per_core_second:,.0f} events a second"
    )
    print(
        f"the median run: {acked:,} acked records, {leader_changes} leader changes, {faults} faults"
    )
    print("became true: " + ", ".join(f"{n} {c:,}" for n, c in sorted(found.facts.items())))
    print("faults: " + ", ".join(f"{n} {c:,}" for n, c in sorted(found.fault_kinds.items())))
    if found.not_met():
        print("not met: " + ", ".join(found.not_met()))
    for result in found.failures:
        print(f"\nseed {result['seed']}:")
        for violation in result["violations"][:5]:
            print(f"  BROKEN: {violation[:500]}")
        print(f"  replay: prozess sim run --seed {result['seed']}{_planted(mutant)}")
        print(f"  shrink: prozess sim shrink {result['seed']}{_planted(mutant)}")


# --- what failed ----------------------------------------------------------------------------------


@sim.command(epilog="Example: prozess sim replay failure.json")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--anyway", is_flag=True, help="Also if another program recorded it.")
@click.option("--without-bug", is_flag=True, help="Without the mutant that it was recorded with.")
@output_option
def replay(path: Path, anyway: bool, without_bug: bool, output: str) -> int:
    """Repeat a recorded run. Exit code 0: nothing was broken. 1: it failed, again.

    2: the file is none, is damaged, or belongs to another program.
    """
    from chaos.hunt.pool import Pool, WorkerFailed
    from chaos.hunt.replay import ReplayError, load
    from chaos.hunt.shrink import Case
    from chaos.hunt.story import tell
    from chaos.mutants import MutantError

    with expected(ReplayError, WorkerFailed, MutantError):
        recorded = load(path, anyway=anyway)
        with Pool(1, "" if without_bug else recorded.mutant) as pool:
            case = Case(recorded.plan, recorded.seed, recorded.draws)
            result = pool.run(case.task(keep=True))
    story = tell(result["entries"]) if result["violations"] else []
    same = result["trace_hash"] == recorded.trace_hash
    if output == "json":
        print_json(
            {
                "violations": result["violations"],
                "trace_hash": result["trace_hash"],
                "as_recorded": same,
                "story": story,
            }
        )
    else:
        print("\n".join([*story, *(f"BROKEN: {text[:500]}" for text in result["violations"])]))
        print(f"trace_hash {result['trace_hash']}{'' if same else ', recorded with another'}")
    return EXIT_BAD if result["violations"] else EXIT_GOOD


@sim.command(epilog="Example: prozess sim shrink 4 --mutant truncate-to-high-watermark")
@click.argument("what", metavar="SEED|FILE")
@click.option(
    "--out",
    default=None,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the replay goes.  [default: failure-SEED.json]",
)
@click.option("--time", "limit_s", default=SHRINK_TIME_S, show_default=True, help="Seconds.")
@click.option("--anyway", is_flag=True, help="Also a file that another program recorded.")
@jobs_option
@mutant_option
def shrink(what: str, out: Path | None, limit_s: int, anyway: bool, jobs: int, mutant: str) -> int:
    """Make a failing run as small as it gets: a story, and a file to replay it.

    Exit code 0: it fails no more, or never did. 1: it fails; the story says how.
    """
    from chaos.hunt import versions
    from chaos.hunt.pool import Pool, WorkerFailed
    from chaos.hunt.replay import Replay, ReplayError, load
    from chaos.hunt.shrink import Case, Shrinker, case_of, names_of
    from chaos.hunt.story import tell
    from chaos.mutants import MutantError

    with expected(ReplayError, WorkerFailed, MutantError):
        case: Case | None = None
        if not what.isdigit():
            recorded = load(Path(what), anyway=anyway)
            case = Case(recorded.plan, recorded.seed, recorded.draws)
            mutant = mutant or recorded.mutant
        with Pool(jobs, mutant) as pool:
            result = pool.run({"seed": int(what)} if case is None else case.task())
            if not result["violations"]:
                print("nothing is broken in this run")
                return EXIT_GOOD
            # What broke first; what follows from it may be gone in a smaller run.
            shrinker = Shrinker(pool, names_of(result)[:1], limit_s, _tell_step)
            case = shrinker.shrink(case or case_of(result))
            result = pool.run(case.task(keep=True))
    story = tell(result["entries"])
    path = out or Path(f"failure-{case.seed}.json")
    Replay(
        case.plan,
        case.seed,
        case.draws,
        mutant,
        names_of(result)[0],
        result["trace_hash"],
        versions.present(),
        tuple(story),
    ).save(path)
    print("\n".join(story))
    print(f"\nreplay: prozess sim replay {path}")
    return EXIT_BAD


def _tell_step(what: str, case: Case, tries: int) -> None:
    print(
        f"prozess: {tries} tries, {what}: {len(case.plan.faults)} faults, "
        f"{case.plan.load.duration_ms:,} ms of load",
        file=sys.stderr,
        flush=True,
    )


# --- the zoo --------------------------------------------------------------------------------------


@sim.command(epilog="Example: prozess sim zoo -j 2 --only vote-twice,no-deduplication")
@click.option("--seeds", default=2_000, show_default=True, type=click.IntRange(1), help="At most.")
@click.option("--start", default=1, show_default=True, type=seed_type, help="The first seed.")
@click.option("--only", default="", help="Names of mutants, by commas.")
@click.option("--shrink", "shrinks", is_flag=True, help="Shrink what is found, and count lines.")
@click.option(
    "--write", is_flag=True, help="Put the scorecard and the first seeds where they are kept."
)
@jobs_option
@output_option
def zoo(
    seeds: int, start: int, only: str, shrinks: bool, write: bool, jobs: int, output: str
) -> int:
    """Plant each bug of the zoo and let the general search find it.

    Exit code 0: every bug that the search should meet was caught. 1: one was not.
    """
    from chaos.bugs import MUTANTS, REGISTRY
    from chaos.hunt.pool import WorkerFailed
    from chaos.hunt.scorecard import write_scorecard
    from chaos.hunt.zoo import run_zoo
    from chaos.mutants import MutantError, named

    with expected(MutantError, WorkerFailed):
        chosen = [named(name.strip(), REGISTRY) for name in only.split(",")] if only else MUTANTS
        hunted = [mutant for mutant in chosen if only or not mutant.elsewhere]
        started = time.monotonic()
        rows = run_zoo(
            hunted, jobs, first_seed=start, seeds_max=seeds, shrinks=shrinks, on_row=_tell_row
        )
    if write:
        write_scorecard(rows)
    missed = [row.mutant for row in rows if not row.is_caught]
    if output == "json":
        print_json([row.to_json() for row in rows])
    else:
        print(
            f"{len(rows) - len(missed)} of {len(rows)} bugs caught in "
            f"{time.monotonic() - started:,.0f} s"
            + (f"; not caught: {', '.join(missed)}" if missed else "")
        )
    return EXIT_BAD if missed else EXIT_GOOD


def _tell_row(row: Row) -> None:
    caught = f"{row.caught_by} at seed {row.seed}" if row.is_caught else "NOT CAUGHT"
    lines = f", told in {row.lines} lines" if row.lines else ""
    print(
        f"prozess: {row.mutant}: {caught} ({row.seeds_tried} seeds, {row.seconds:.1f} s{lines})",
        file=sys.stderr,
        flush=True,
    )
