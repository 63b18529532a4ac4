"""Trials as a user holds them: valid without planted bugs, invalid with them, and judged alike
however often the evidence is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("cluster")]


def prozess(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "client.cli", "chaos", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def story(done: subprocess.CompletedProcess[str]) -> str:
    """What was printed, for whoever reads why an assertion failed."""
    return f"exit code {done.returncode}\n{done.stdout}\n{done.stderr[-3_000:]}"


def verdict_of(run_dir: Path) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads((run_dir / "verdict.json").read_text(encoding="utf-8"))
    return verdict


def test_a_trial_is_valid_and_judged_alike_every_time(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    held = prozess("run", "--time", "30", "--seed", "3", "-o", str(run_dir))
    assert held.returncode == 0, story(held)
    first = (run_dir / "verdict.json").read_bytes()
    verdict = verdict_of(run_dir)
    assert verdict["outcome"] == "valid"
    assert verdict["counts"]["acked"] > 1_000
    assert all(verdict["faults"][kind] >= 1 for kind in ("kill", "pause", "partition")), verdict
    assert {check["outcome"] for check in verdict["checks"]} == {"good"}
    again = prozess("check", str(run_dir))
    assert again.returncode == 0, story(again)
    assert (run_dir / "verdict.json").read_bytes() == first
    # What decides is the evidence: without one replica's data the verdict is not repeated.
    (run_dir / "data" / "1").rename(tmp_path / "away")
    without = prozess("check", str(run_dir))
    assert without.returncode == 2, story(without)


def test_truncation_to_the_high_watermark_loses_a_write_every_time(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    script = ("--script", "double-failover", "--mutant", "truncate-to-high-watermark")
    held = prozess("run", *script, "--time", "15", "--seed", "1", "-o", str(run_dir))
    assert held.returncode == 1, story(held)
    assert "lost-write" in verdict_of(run_dir)["found"], story(held)
    assert "lost-write" in held.stdout


def test_the_same_script_without_the_bug_finds_nothing_wrong(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    held = prozess(
        "run", "--script", "double-failover", "--time", "15", "--seed", "1", "-o", str(run_dir)
    )
    assert verdict_of(run_dir)["found"] == {}, story(held)
    assert held.returncode == 0, story(held)


def test_what_async_lost_is_proven_on_who_lost_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    fault = ("--nemesis", "power-loss", "--flush", "async")
    held = prozess("run", *fault, "--time", "10", "--seed", "1", "-o", str(run_dir))
    verdict = verdict_of(run_dir)
    assert verdict["found"] == {}, story(held)
    assert verdict["faults"] == {"power-loss": 1}
    by_crashes = [loss for loss in verdict["losses"] if len(loss["tails"]) >= loss["min_isr"] == 2]
    assert sum(loss["record_count"] for loss in by_crashes) > 0, story(held)
    for loss in verdict["losses"]:
        # Else somebody still held it, and who led first after the outage did not.
        assert loss in by_crashes or loss["unclean_election"], loss
        assert all(tail["crash"].startswith("power-loss number 1") for tail in loss["tails"])
    assert "came back with log end" in held.stdout


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_acks_before_replication_are_caught_within_five_seeds(tmp_path: Path) -> None:
    for seed in range(1, 6):
        run_dir = tmp_path / str(seed)
        held = prozess(
            *("run", "--time", "30", "--seed", str(seed), "-o", str(run_dir)),
            *("--mutant", "ack-before-replication"),
        )
        if "lost-write" in verdict_of(run_dir)["found"]:
            assert held.returncode == 1, story(held)
            return
    pytest.fail("five seeds did not notice acknowledgements before replication")


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_seeds_are_valid(seed: int, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    held = prozess("run", "--time", "30", "--seed", str(seed), "-o", str(run_dir))
    assert held.returncode == 0, story(held)
