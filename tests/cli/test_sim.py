"""`prozess sim`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.simulation


def prozess(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own: bugs are planted at import."""
    return subprocess.run(
        [sys.executable, "-m", "client.cli", "sim", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_one_seed(tmp_path: Path) -> None:
    done = prozess("run", "--seed", "7", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    again = json.loads(prozess("run", "--seed", "7", "-o", "json", cwd=tmp_path).stdout)
    assert f"trace_hash {again['trace_hash']}" in done.stdout
    assert again["violations"] == []
    assert again["seed"] == 7


def test_a_seed_step_by_step(tmp_path: Path) -> None:
    lines = prozess("run", "--seed", "7", "-v", cwd=tmp_path).stdout.splitlines()
    assert lines[0].split()[:4] == ["1000", "|", "c1?", "c2?"]
    assert any(" C" in line and ":L0 " in line for line in lines)


def test_a_search_that_finds_nothing(tmp_path: Path) -> None:
    done = prozess("search", "--seeds", "4", "-j", "2", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("4 seeds, ")
    assert "the median run: " in done.stdout
    summary = json.loads(prozess("search", "--seeds", "4", "-o", "json", cwd=tmp_path).stdout)
    assert (summary["seeds"], summary["failures"]) == (4, [])


def test_from_a_failure_to_its_replay(tmp_path: Path) -> None:
    """A search with a bug planted fails, shrinks, replays, is good without the bug."""
    bug = ("--mutant", "ack-before-replication")
    found = prozess("search", "--seeds", "20", *bug, cwd=tmp_path)
    assert found.returncode == 1
    line = next(line for line in found.stdout.splitlines() if "shrink: " in line)
    words = line.split()[3:]
    assert words[0] == "shrink"
    shrunk = prozess(*words, "--time", "30", "--out", "small.json", cwd=tmp_path)
    assert shrunk.returncode == 1
    story = shrunk.stdout.splitlines()
    assert "replay: prozess sim replay small.json" in story
    assert any("BROKEN: " in line for line in story)
    assert len(story) <= 25
    replayed = json.loads(prozess("replay", "small.json", "-o", "json", cwd=tmp_path).stdout)
    assert replayed["as_recorded"]
    assert replayed["violations"]
    good = prozess("replay", "small.json", "--without-bug", cwd=tmp_path)
    assert good.returncode == 0


def test_a_run_that_is_good_does_not_shrink(tmp_path: Path) -> None:
    done = prozess("shrink", "7", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing is broken in this run\n")
    assert not list(tmp_path.iterdir())


def test_the_zoo_tells_what_was_not_caught(tmp_path: Path) -> None:
    done = prozess("zoo", "--only", "empty-epoch-stays", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "0 of 1 bugs caught" in done.stdout
    assert "not caught: empty-epoch-stays" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--seed", "1", "--mutant", "nonsense"), "there is no mutant nonsense; known: "),
        (("run", "--seed", "-1"), "-1 is not in the range"),
        (("run",), "Missing option '--seed'"),
        (("search", "--seeds", "0"), "0 is not in the range"),
        (("search", "--mutant", "nonsense"), "there is no mutant nonsense"),
        (("replay", "none.json"), "none.json cannot be read: No such file"),
        (("replay", "broken.json"), "broken.json is no replay file"),
        (("replay", "old.json"), "recorded by commit 0123456789ab, this is"),
        (("shrink", "none.json"), "none.json cannot be read"),
        (("zoo", "--only", "nonsense"), "there is no mutant nonsense"),
    ],
)
def test_bad_use_is_one_line_that_says_what_to_do(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    old = {
        "replay": 1,
        "violation": "raft",
        "mutant": "",
        "trace_hash": "0-0",
        "program": {"commit": "0123456789ab", "source": "0"},
        "story": [],
        "seed": 1,
        "plan": {"setup": {}, "load": {}, "faults": []},
        "draws": None,
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    done = prozess(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
