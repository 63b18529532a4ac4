"""`prozess chaos`: hold a trial on real processes, judge a run again, list what is stored."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client.cli.common import Failure, expected, output_option, print_json
from client.cli.tables import table

if TYPE_CHECKING:
    from chaos.checker.verdict import Verdict
    from chaos.proc.trial import Progress

RUNS = Path("runs")
LATEST = "latest"
"""A link to the newest run."""


@click.group()
def chaos() -> None:
    """Try a cluster under faults and judge what happened."""


@chaos.command(
    epilog="Example: prozess chaos run --time 30 --seed 7    "
    "prozess chaos run --profile nightly --time 600"
)
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 9), help="Brokers.")
@click.option(
    "--time",
    "time_s",
    default=30,
    show_default=True,
    type=click.IntRange(5, 86_400),
    help="Seconds of load.",
)
@click.option("--seed", default=None, type=int, help="Same seed, same schedule. Default: drawn.")
@click.option(
    "--profile",
    default="quick",
    show_default=True,
    type=click.Choice(["quick", "process", "partition", "disk", "nightly"]),
    help="Fault kinds by a name: quick is kill, pause and partition; nightly is all there are.",
)
@click.option(
    "--nemesis",
    default=None,
    help="Fault kinds: kill, kill-majority, kill-all, stop, rolling, power-loss, pause, partition, "
    "reset, stall, slow; or none.  [default: those of the profile]",
)
@click.option("--mutant", "mutants", multiple=True, help="Plant this bug (see chaos/bugs.py).")
@click.option(
    "--flush",
    default="ack",
    show_default=True,
    type=click.Choice(["ack", "async", "always"]),
    help="When bytes count as held.",
)
@click.option(
    "--script",
    default="",
    help="A scripted sequence in place of the seeded faults: double-failover.",
)
@click.option(
    "-o",
    "--out",
    "out",
    default=None,
    type=click.Path(path_type=Path),
    help="Run directory. Default: runs/<time>-<seed>, with runs/latest pointing to it.",
)
def run(
    nodes: int,
    time_s: int,
    seed: int | None,
    profile: str,
    nemesis: str | None,
    mutants: tuple[str, ...],
    flush: str,
    script: str,
    out: Path | None,
) -> int:
    """Hold a trial: cluster, load, faults, healing, verdict.

    Exit code 0: valid. 1: a guarantee was broken. 2: unknown, or it could not be held. Ctrl-C ends
    the load, heals, and judges what there is.
    """
    from chaos.faults import PROFILES, parse_kinds
    from chaos.proc.layout import ClusterError
    from chaos.proc.links import ProxyError
    from chaos.proc.provision import ProvisionError
    from chaos.proc.scripts import SCRIPTS
    from chaos.proc.trial import Trial, TrialError, TrialOptions
    from chaos.proc.workers import WorkerFailed

    if seed is None:
        seed = time.time_ns() % 1_000_000
    try:
        kinds = PROFILES[profile] if nemesis is None else parse_kinds(nemesis)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--nemesis") from error
    if script and script not in SCRIPTS:
        raise click.BadParameter(f"take {', '.join(SCRIPTS)}", param_hint="--script")
    run_dir = out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    if run_dir.exists():
        raise Failure(f"{run_dir} exists: name another directory with -o")
    command = (
        f"prozess chaos run --nodes {nodes} --time {time_s} --seed {seed}"
        f" --nemesis {','.join(kind.value for kind in kinds) or 'none'}"
        f" --flush {flush}"
        + (f" --script {script}" if script else "")
        + "".join(f" --mutant {name}" for name in mutants)
    )
    options = TrialOptions(
        run_dir=run_dir,
        seed=seed,
        time_s=time_s,
        node_count=nodes,
        kinds=kinds,
        mutants=mutants,
        replication_factor=min(3, nodes),
        min_isr=max(1, min(3, nodes) - 1),
        flush=flush,
        script=script,
        command=command,
    )
    with expected(TrialError, ClusterError, ProxyError, ProvisionError, WorkerFailed):
        Trial(options, Display()).run()
    if out is None:
        _point_latest(run_dir)
    verdict = _judge(run_dir)
    print(verdict.render())
    print(f"\nevidence: {run_dir}\nreplay:   {command}\ncheck:    prozess chaos check {run_dir}")
    return verdict.exit_code


@chaos.command(epilog="Example: prozess chaos check runs/latest")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def check(run_dir: Path, as_json: bool) -> int:
    """Judge the evidence of a run again."""
    verdict = _judge(run_dir)
    print(verdict.to_json() if as_json else verdict.render())
    return verdict.exit_code


@chaos.command("list", epilog="Example: prozess chaos list")
@click.argument(
    "directory", default=RUNS, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@output_option
def list_runs(directory: Path, output: str) -> None:
    """The stored runs in DIRECTORY (default: runs), the oldest first, with their verdicts."""
    files = sorted(directory.glob("*/run.json"))
    runs = [_stored_run(path) for path in files if path.parent.name != LATEST]
    if output == "json":
        print_json(runs)
        return
    if not runs:
        raise Failure(f"{directory} holds no runs: `prozess chaos run` makes one")
    head = ("run", "seed", "verdict", "acked", "faults", "found")
    print(table([head, *(_run_cells(run) for run in runs)]))


def _stored_run(path: Path) -> dict[str, object]:
    """What run.json and verdict.json of a run say; a verdict is there once somebody judged."""
    info, verdict_path = _read_json(path), path.with_name("verdict.json")
    verdict = _read_json(verdict_path) if verdict_path.exists() else {}
    return {
        "directory": str(path.parent),
        "seed": info.get("seed"),
        "nemesis": info.get("nemesis", []),
        "mutants": info.get("mutants", []),
        "outcome": verdict.get("outcome", "not judged"),
        "acked": verdict.get("counts", {}).get("acked"),
        "found": verdict.get("found", {}),
        "command": info.get("command", ""),
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise Failure(f"{path} is no JSON: {error}") from error
    return value


def _run_cells(run: dict[str, object]) -> tuple[str, ...]:
    nemesis, mutants, found = run["nemesis"], run["mutants"], run["found"]
    assert isinstance(nemesis, list)
    assert isinstance(mutants, list)
    assert isinstance(found, dict)
    acked = f"{run['acked']:,}" if run["acked"] is not None else "-"
    planted = "".join(f" + {name}" for name in mutants)
    return (
        str(run["directory"]),
        str(run["seed"]),
        str(run["outcome"]),
        acked,
        (",".join(nemesis) or "none") + planted,
        ", ".join(f"{name} {count}" for name, count in found.items()) or "-",
    )


def _judge(run_dir: Path) -> Verdict:
    from chaos.checker.run_info import RunError
    from chaos.history import HistoryError
    from chaos.proc.trial import judge_run

    with expected(RunError, HistoryError):
        return judge_run(run_dir)


def _point_latest(run_dir: Path) -> None:
    latest = run_dir.parent / LATEST
    if latest.is_symlink():
        latest.unlink()
    if not latest.exists():
        latest.symlink_to(run_dir.name)


class Display:
    """One line that is rewritten on a terminal; elsewhere a line when the phase changes, and one
    every five seconds."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last = ("", 0.0)

    def __call__(self, progress: Progress) -> None:
        counts = "  ".join(f"{name} {count}" for name, count in progress.counts.items())
        seconds = f" {progress.seconds:4.1f} s" if progress.phase == "load" else ""
        fault = f"  [{progress.fault}]" if progress.fault else ""
        line = f"{progress.phase}{seconds}  {counts}{fault}"
        if self._is_terminal:
            print(f"\r\x1b[K{line[:150]}", end="", file=sys.stderr, flush=True)
            return
        now = time.monotonic()
        key = progress.phase + fault
        if key != self._last[0] or now - self._last[1] >= 5:
            self._last = (key, now)
            print(line, file=sys.stderr, flush=True)
