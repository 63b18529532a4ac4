"""`prozess chaos list`: stored runs with their verdicts."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from client.cli.chaos import list_runs


def store(directory: Path, seed: int, verdict: dict[str, object] | None, **more: object) -> None:
    directory.mkdir(parents=True)
    info = {"seed": seed, "nemesis": ["kill", "pause"], "mutants": [], "command": "again"} | more
    (directory / "run.json").write_text(json.dumps(info), encoding="utf-8")
    if verdict is not None:
        (directory / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")


def listed(*words: str) -> Result:
    return CliRunner().invoke(list_runs, words)


def test_runs_and_verdicts(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    valid = {"outcome": "valid", "counts": {"acked": 12_345}, "found": {}}
    invalid = {"outcome": "invalid", "counts": {"acked": 7}, "found": {"lost-write": 3}}
    store(runs / "1", 11, valid)
    store(runs / "2", 12, invalid, mutants=["ack-before-replication"], nemesis=[])
    store(runs / "3", 13, None)
    (runs / "latest").symlink_to("3")
    (runs / "notes").mkdir()
    lines = [line.split() for line in listed(str(runs)).output.splitlines()]
    assert lines == [
        ["run", "seed", "verdict", "acked", "faults", "found"],
        [str(runs / "1"), "11", "valid", "12,345", "kill,pause", "-"],
        [*f"{runs / '2'} 12 invalid 7 none + ack-before-replication lost-write 3".split()],
        [*f"{runs / '3'} 13 not judged - kill,pause -".split()],
    ]
    rows = json.loads(listed(str(runs), "-o", "json").output)
    assert [(row["seed"], row["outcome"]) for row in rows] == [
        (11, "valid"),
        (12, "invalid"),
        (13, "not judged"),
    ]
    assert rows[1]["found"] == {"lost-write": 3}


def test_nothing_there(tmp_path: Path) -> None:
    empty = listed(str(tmp_path))
    assert empty.exit_code != 0
    assert "holds no runs: `prozess chaos run` makes one" in empty.output
    assert json.loads(listed(str(tmp_path), "-o", "json").output) == []


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    store(tmp_path / "1", 1, None)
    (tmp_path / "1" / "run.json").write_text("{", encoding="utf-8")
    broken = listed(str(tmp_path))
    assert broken.exit_code != 0
    assert f"{tmp_path / '1' / 'run.json'} is no JSON" in broken.output
