"""`doctor` and `version`: complete, readable by programs, honest about what it could not do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.cli.doctor import _advice, percentile, sync_times_us
from client.cli.main import run


def test_version_names_python_and_the_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out.startswith("prozess 0.")
    assert run(["version", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"prozess", "python", "pyzmq", "crc32c"} <= set(found)
    assert "not installed" not in found.values()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toxiproxy-server"
    path.write_text("#!/bin/sh\necho toxiproxy-server version 2.12.0\n", encoding="ascii")
    path.chmod(0o755)
    monkeypatch.setenv("PROZESS_TOXIPROXY_BIN", str(path))


@pytest.mark.usefixtures("server")
def test_doctor_measures_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--data-dir", str(tmp_path / "not" / "yet"), "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if found["advice"] else 0)
    assert found["disk"]["directory"] == str(tmp_path)
    assert 0 <= found["disk"]["fdatasync_p50_us"] <= found["disk"]["fdatasync_p99_us"]
    assert found["toxiproxy"]["used"].startswith("toxiproxy 2.12.0 from PROZESS_TOXIPROXY_BIN")
    assert found["limits"]["open_files"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "toxiproxy-server"]
    run(["doctor", "--data-dir", str(tmp_path)])
    shown = capsys.readouterr().out
    for word in ("python", "fdatasync p50", "open files", "toxiproxy 2.12.0"):
        assert word in shown


def test_a_broken_toxiproxy_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROZESS_TOXIPROXY_BIN", "/nonexistent")
    assert run(["doctor"]) == 2
    assert "PROZESS_TOXIPROXY_BIN: /nonexistent does not run" in capsys.readouterr().err


def test_advice_says_what_to_do() -> None:
    found = {
        "limits": {"open_files": 256},
        "disk": {"free_bytes": 5, "directory": "/d"},
        "toxiproxy": {"used": "built-in proxy"},
    }
    assert [line.split(":")[0] for line in _advice(found)][-3:] == [
        "open files are limited to 256",
        "less than 1 GiB is free in /d",
        "no toxiproxy-server yet",
    ]


def test_percentiles_are_nearest_ranks(tmp_path: Path) -> None:
    values = list(range(1, 201))
    assert [percentile(values, p) for p in (0, 50, 99, 100)] == [1, 100, 198, 200]
    assert percentile([7], 99) == 7
    times = sync_times_us(tmp_path, 3)
    assert len(times) == 3
    assert times == sorted(times)
