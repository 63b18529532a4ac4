"""The harness's end of its worker processes: start, count, stop, reap."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from chaos.workload import WorkerPlan

COUNT_NAMES = ("ok", "fail", "info", "read")


class WorkerFailed(Exception):
    """A worker ended by its own fault; the run cannot be judged as if it had not."""


class WorkerProcess:
    """One `chaos.proc.worker`, its last counts, and whether its producers are done."""

    def __init__(self, plan: WorkerPlan, directory: Path) -> None:
        self.name = plan.name
        self.counts = dict.fromkeys(COUNT_NAMES, 0)
        self.producers_stopped = threading.Event()
        plan_path = directory / f"{plan.name}.json"
        plan.save(plan_path)
        self._log_path = directory / f"{plan.name}.log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "chaos.proc.worker", str(plan_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"read-{plan.name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.counts = json.loads(line)
            elif line.strip() == "stopped":
                self.producers_stopped.set()

    def check(self) -> None:
        """Raise WorkerFailed if the process has ended."""
        if self._process.poll() is not None:
            tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise WorkerFailed(f"worker {self.name} ended with {self._process.returncode}:\n{tail}")

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.check()
            raise

    def stop_producers(self) -> None:
        self._say("stop")

    def end(self, timeout_s: float) -> None:
        """End the process; its history is complete then. Kills it after the time-out."""
        if self._process.poll() is None:
            self._say("end")
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise WorkerFailed(f"worker {self.name} did not end in {timeout_s} s") from None
        if self._process.returncode != 0:
            self.check()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def wait_for_producers(workers: list[WorkerProcess], timeout_s: float) -> bool:
    """Whether all producers settled their sends in time."""
    deadline = time.monotonic() + timeout_s
    for worker in workers:
        while not worker.producers_stopped.wait(0.1):
            worker.check()
            if time.monotonic() > deadline:
                return False
    return True
