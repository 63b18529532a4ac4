"""`prozess doctor`: is this machine fit for a cluster and a trial, and how fast is its disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from client.cli.common import (
    CLUSTER_ROOT,
    EXIT_BAD,
    EXIT_GOOD,
    Failure,
    expected,
    output_option,
    print_json,
)
from client.cli.version import package_versions

SYNC_COUNT = 200
SYNC_BYTES = 4_096
OPEN_FILES_MIN = 4_096
FREE_BYTES_MIN = 1 << 30


@click.command(epilog="Example: prozess doctor --provision")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory whose disk is measured.  [default: .prozess, or what is above it]",
)
@click.option("--provision", "provisions", is_flag=True, help="Build or download toxiproxy-server.")
@output_option
def doctor(data_dir: Path | None, provisions: bool, output: str) -> int:
    """Check Python, limits, the data disk and where toxiproxy-server comes from.

    Exit code 1 if something should be mended before a trial.
    """
    directory = _existing(data_dir if data_dir is not None else CLUSTER_ROOT)
    found: dict[str, Any] = {
        "versions": package_versions(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "disk": _disk(directory),
        "limits": _limits(),
        "toxiproxy": _toxiproxy(provisions),
    }
    found["advice"] = _advice(found)
    if output == "json":
        print_json(found)
    else:
        _print(found)
    return EXIT_BAD if found["advice"] else EXIT_GOOD


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def sync_times_us(directory: Path, count: int = SYNC_COUNT) -> list[int]:
    """How long fdatasync took after each of `count` small appends, in µs, shortest first."""
    sync = getattr(os, "fdatasync", os.fsync)
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(count):
            os.write(file.fileno(), bytes(SYNC_BYTES))
            start_ns = time.perf_counter_ns()
            sync(file.fileno())
            times.append((time.perf_counter_ns() - start_ns) // 1_000)
    return sorted(times)


def percentile(ordered: list[int], percent: int) -> int:
    """Nearest rank: the smallest value with at least `percent` of the values at or below it."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _disk(directory: Path) -> dict[str, Any]:
    try:
        times = sync_times_us(directory)
    except OSError as error:
        raise Failure(
            f"cannot write to {directory}: {error.strerror}; name another with --data-dir"
        ) from error
    return {
        "directory": str(directory),
        "fdatasync_p50_us": percentile(times, 50),
        "fdatasync_p99_us": percentile(times, 99),
        "free_bytes": shutil.disk_usage(directory).free,
    }


def _limits() -> dict[str, Any]:
    files, files_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    found: dict[str, Any] = {
        "open_files": files,
        "open_files_hard": files_hard,
        "processes": processes,
    }
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ports.exists():
        found["ephemeral_ports"] = [int(port) for port in ports.read_text().split()]
    return found


def _toxiproxy(provisions: bool) -> dict[str, Any]:
    from chaos.proc.provision import ProvisionError, provision

    with expected(ProvisionError):
        try:
            found = provision(
                may_install=provisions, say=lambda text: print(text, file=sys.stderr, flush=True)
            )
        except ModuleNotFoundError as error:
            return {
                "used": "none",
                "lost": {"extra": f"{error.name} is missing: pip install 'prozess[chaos]'"},
            }
    return {"used": found.describe(), "lost": dict(found.lost)}


def _advice(found: dict[str, Any]) -> list[str]:
    advice = []
    limits, disk = found["limits"], found["disk"]
    if sys.platform != "linux":
        advice.append("only Linux is tested: elsewhere nodes may outlive a killed launcher")
    if 0 <= limits["open_files"] < OPEN_FILES_MIN:
        advice.append(f"open files are limited to {limits['open_files']}: ulimit -n 65536")
    if disk["free_bytes"] < FREE_BYTES_MIN:
        advice.append(f"less than 1 GiB is free in {disk['directory']}")
    if found["toxiproxy"]["used"].startswith("built-in"):
        advice.append(
            "no toxiproxy-server yet: `prozess doctor --provision` builds or downloads it; without "
            "it a trial uses its own proxy"
        )
    return advice


def _print(found: dict[str, Any]) -> None:
    versions, disk, limits = found["versions"], found["disk"], found["limits"]
    click.echo(f"python     {versions['python']} on {found['platform']}, {found['cpus']} cpus")
    click.echo("packages   " + ", ".join(f"{n} {v}" for n, v in versions.items() if n != "python"))
    click.echo(
        f"disk       {disk['directory']}: fdatasync p50 {disk['fdatasync_p50_us']} µs, "
        f"p99 {disk['fdatasync_p99_us']} µs, {disk['free_bytes'] >> 30} GiB free"
    )
    click.echo(
        f"limits     open files {limits['open_files']} (hard {limits['open_files_hard']}), "
        f"processes {limits['processes']}"
        + (
            ", ephemeral ports {}-{}".format(*limits["ephemeral_ports"])
            if "ephemeral_ports" in limits
            else ""
        )
    )
    click.echo(f"toxiproxy  {found['toxiproxy']['used']}")
    for source, reason in found["toxiproxy"]["lost"].items():
        click.echo(f"           not {source}: {reason}")
    for line in found["advice"]:
        click.echo(f"! {line}")
