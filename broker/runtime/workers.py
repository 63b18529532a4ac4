"""A few threads that wait for the device, so that the loop never does. They decide nothing.

Jobs of one key run one at a time and in order; jobs of different keys run side by side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from broker.runtime.clock import now_ms
from broker.runtime.disk import Job, Outcome


@dataclass(slots=True)
class _Running:
    job: Job
    started_ms: int
    given_up: bool = False
    """Already reported as failed; what comes of it no longer matters."""


class Workers:
    """`notify` is called, from a worker's thread, whenever `completed` has something new."""

    def __init__(self, count: int, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._ready: SimpleQueue[Job | None] = SimpleQueue()
        """None ends the thread that takes it."""
        self._waiting: dict[str, deque[Job]] = {}
        """Per key with a job ready or running: the jobs behind it."""
        self._running: dict[int, _Running] = {}
        self._outcomes: deque[Outcome] = deque()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, args=(slot,), name=f"disk-{slot}", daemon=True)
            for slot in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        with self._lock:
            assert not self._stopping, "no work is taken after close"
            behind = self._waiting.get(job.key)
            if behind is not None:
                behind.append(job)
                return
            self._waiting[job.key] = deque()
        self._ready.put(job)

    def completed(self) -> list[Outcome]:
        """What became of jobs since the last call, in order of completion."""
        outcomes: list[Outcome] = []
        while self._outcomes:
            outcomes.append(self._outcomes.popleft())
        return outcomes

    def give_up_on_stalled(self, stall_ms: int) -> None:
        """Count jobs that run for longer as failed. Their threads stay with the device."""
        now = now_ms()
        with self._lock:
            for running in self._running.values():
                if not running.given_up and now - running.started_ms > stall_ms:
                    running.given_up = True
                    problem = f"no answer from the device for {stall_ms} ms"
                    self._tell(running.job.failed(problem, True))

    def close(self, *, timeout_s: float | None = None) -> None:
        """Finish everything submitted, then end the threads. Waits at most `timeout_s` each."""
        with self._lock:
            self._stopping = True
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    # --- in the threads ---------------------------------------------------------------------------

    def _work(self, slot: int) -> None:
        while (job := self._ready.get()) is not None:
            while job is not None:
                job = self._run(slot, job)

    def _run(self, slot: int, job: Job) -> Job | None:
        """Run a job; returns the one behind it, which is this thread's too."""
        running = _Running(job, now_ms())
        with self._lock:
            self._running[slot] = running
        try:
            outcome = job.run()
        except OSError as error:
            problem = f"{error.strerror or type(error).__name__} (errno {error.errno})"
            outcome = job.failed(problem, False)
        with self._lock:
            del self._running[slot]
            behind = self._waiting[job.key]
            next_job = behind.popleft() if behind else None
            if next_job is None:
                del self._waiting[job.key]
            if not running.given_up:
                self._tell(outcome)
        return next_job

    def _tell(self, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._outcomes.append(outcome)
            self._notify()
