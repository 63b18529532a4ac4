"""The leash: the program keeps the pid that was written down, and dies with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from chaos.proc import leash
from chaos.proc.process import (
    ProcessState,
    boot_id,
    read_pid_file,
    spawn,
    state_of,
    wait_for_pid_file,
)

START = [sys.executable, "-I", "-S", leash.__file__]


def test_the_pid_file_names_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    shown = subprocess.run(
        [*START, str(pid_file), "0", sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    )
    process = read_pid_file(pid_file)
    assert process is not None
    assert process.pid == int(shown.stdout)
    assert process.start_ticks > 0
    assert process.boot_id == boot_id() != ""
    assert state_of(process) is ProcessState.GONE
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_a_parent_that_is_gone_already_stops_the_start(tmp_path: Path) -> None:
    shown = subprocess.run(
        [*START, str(tmp_path / "pid"), "1", "true"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 1
    assert shown.stderr == "leash: the parent 1 is gone already\n"
    assert not (tmp_path / "pid").exists()


def test_a_program_that_does_not_start_is_told(tmp_path: Path) -> None:
    child = spawn(
        ["/nonexistent/program"],
        pid_file=tmp_path / "pid",
        log_file=tmp_path / "log",
        leashed=True,
    )
    assert child.wait() == 1
    assert (
        tmp_path / "log"
    ).read_text() == "cannot start /nonexistent/program: No such file or directory\n"


def test_an_older_pid_file_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text('{"pid": 1, "start_ticks": 1, "boot_id": "x"}', encoding="ascii")
    child = spawn(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        pid_file=tmp_path / "pid",
        log_file=tmp_path / "log",
        leashed=True,
    )
    process = wait_for_pid_file(tmp_path / "pid", child)
    assert process is not None
    assert process.pid == child.pid != os.getpid()
    child.wait()  # its input is empty, so it ends
