"""One operating-system process, named so that a signal can never reach a stranger.

A pid alone is handed out again after its process is gone. Pid, start time and boot id together are
not, so a pid file written long ago is still safe to act on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from chaos.proc import leash

LEASH = Path(leash.__file__)
POLL_S = 0.02
HAS_PROC = Path("/proc/self/stat").exists()


class ProcessState(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start_ticks: int
    """Clock ticks after boot; 0 where the system does not tell."""
    boot_id: str


def boot_id() -> str:
    """Names this boot of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_pid_file(path: Path) -> ProcessId | None:
    """The process that a pid file names, None when there is no file or it is unreadable."""
    try:
        raw = json.loads(path.read_text(encoding="ascii"))
        return ProcessId(int(raw["pid"]), int(raw["start_ticks"]), str(raw["boot_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def this_process() -> ProcessId:
    """Names the calling process."""
    stat = _stat(os.getpid())
    return ProcessId(os.getpid(), stat[1] if stat else 0, boot_id())


def write_pid_file(path: Path, process: ProcessId) -> None:
    """Atomic, so that a reader sees a whole name or none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(
        json.dumps(
            {
                "pid": process.pid,
                "start_ticks": process.start_ticks,
                "boot_id": process.boot_id,
            }
        ),
        encoding="ascii",
    )
    temporary.replace(path)


def _stat(pid: int) -> tuple[str, int] | None:
    """(state letter, start ticks) of a pid, None when there is none.

    A process whose first thread has ended shows as a zombie while its other threads still hold its
    files and ports: that is "D" here, dying.
    """
    if HAS_PROC:
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        columns = text.rsplit(")", 1)[1].split()
        letter, thread_count = columns[0], int(columns[17])
        return "D" if letter in "ZXx" and thread_count > 1 else letter, int(columns[19])
    shown = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    shown_letter = shown.stdout.strip()[:1]
    return (shown_letter, 0) if shown_letter else None


def state_of(process: ProcessId | None) -> ProcessState:
    """What the process does now. A zombie is gone: it runs no code and holds no file."""
    if process is None or process.boot_id != boot_id():
        return ProcessState.GONE
    stat = _stat(process.pid)
    if stat is None or stat[1] != process.start_ticks or stat[0] in "ZXx":
        return ProcessState.GONE
    return ProcessState.PAUSED if stat[0] in "Tt" else ProcessState.RUNNING


def send_signal(process: ProcessId, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it is gone."""
    if not hasattr(os, "pidfd_open"):
        if state_of(process) is ProcessState.GONE:
            return False
        os.kill(process.pid, number)
        return True
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Checked after the descriptor is open: from here on it can only mean this process.
        if state_of(process) is ProcessState.GONE:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_for_state(process: ProcessId, wanted: ProcessState, timeout_ms: int) -> bool:
    """Whether the process reached the state in time."""
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    while state_of(process) is not wanted:
        if time.monotonic_ns() >= deadline_ns:
            return False
        time.sleep(POLL_S)
    return True


def ask_to_stop(process: ProcessId) -> None:
    """SIGTERM, heard by a paused process too."""
    send_signal(process, signal.SIGTERM)
    send_signal(process, signal.SIGCONT)


def await_stop(process: ProcessId, timeout_ms: int) -> bool:
    """After `ask_to_stop`: wait, and use force when the time is over. True if it went by itself."""
    if wait_for_state(process, ProcessState.GONE, timeout_ms):
        return True
    send_signal(process, signal.SIGKILL)
    wait_for_state(process, ProcessState.GONE, 5_000)
    return False


@cache
def _spawner() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def spawn(
    command: Sequence[str],
    *,
    pid_file: Path,
    log_file: Path,
    leashed: bool,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, output appended to `log_file`.

    With `leashed` it dies with this process. The session keeps the terminal's Ctrl-C away from it:
    only the launcher hears that and ends the others in good order.
    """
    pid_file.unlink(missing_ok=True)
    arguments = [sys.executable, "-I", "-S", str(LEASH), str(pid_file)]
    arguments += [str(os.getpid() if leashed else 0), *command]

    def start() -> subprocess.Popen[bytes]:
        with log_file.open("ab") as log:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=directory,
                env=None if environment is None else dict(environment),
            )

    # Death of the parent means death of the thread that forked: so that one thread lives as long
    # as this process does.
    return _spawner().submit(start).result()


def wait_for_pid_file(
    pid_file: Path, child: subprocess.Popen[bytes], timeout_ms: int = 10_000
) -> ProcessId | None:
    """The name that the child wrote; None when it ended or hung before it could."""
    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    while (process := read_pid_file(pid_file)) is None:
        if child.poll() is not None or time.monotonic_ns() >= deadline_ns:
            return read_pid_file(pid_file)
        time.sleep(POLL_S)
    return process
