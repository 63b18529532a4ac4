"""Start a program that writes down its own pid and dies with its parent, whatever the program is.

Run as a script, by path, in an isolated interpreter without site packages:

    python -I -S leash.py PID_FILE PARENT_PID program argument …

It becomes the program (exec), so the pid stays. PARENT_PID 0 means: outlive the parent. The pid
file is written before exec: a launcher that dies at any moment leaves no process that nobody can
find. The parent's death is told by the kernel (PR_SET_PDEATHSIG survives exec); SIGKILL, because a
stopped process would keep any other signal waiting. Beware: the kernel watches the *thread* that
started us.
"""

from __future__ import annotations

import json
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def _die_with(parent_pid: int) -> None:
    if not sys.platform.startswith("linux"):
        return  # best effort elsewhere: `prozess down` finds the orphan by its pid file
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit(f"leash: the parent {parent_pid} is gone already")


def _stamp() -> dict[str, object]:
    """Pid, start time and boot id: together they name one process for ever."""
    stamp: dict[str, object] = {"pid": os.getpid(), "start_ticks": 0, "boot_id": ""}
    if sys.platform.startswith("linux"):
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
            stamp["start_ticks"] = int(stat.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            stamp["boot_id"] = boot.read().strip()
    return stamp


def main(arguments: list[str]) -> None:
    pid_file, parent_pid, *program = arguments
    if int(parent_pid):
        _die_with(int(parent_pid))
    temporary = f"{pid_file}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        json.dump(_stamp(), file)
    os.replace(temporary, pid_file)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"cannot start {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
