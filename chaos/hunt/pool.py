"""Several workers, and results in the order of the tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from chaos.bugs import REGISTRY
from chaos.mutants import named

Task = dict[str, Any]
Result = dict[str, Any]


class WorkerFailed(Exception):
    """A worker ended by its own fault."""


class Worker:
    """One `chaos.hunt.worker`."""

    def __init__(self, mutant: str = "") -> None:
        words = [sys.executable, "-m", "chaos.hunt.worker"]
        if mutant:
            named(mutant, REGISTRY)
            words += ["--mutant", mutant]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, text=True
        )

    def begin(self, task: Task) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def result(self) -> Result:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        result: Result = json.loads(line)
        return result

    def run(self, task: Task) -> Result:
        self.begin(task)
        return self.result()

    def _fail(self) -> None:
        code = self._process.wait()
        raise WorkerFailed(f"a simulation ended with exit code {code}; its message is above")

    def end(self) -> None:
        """Whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not taken any more is not missed


class Pool:
    """`count` workers with the same mutant or none."""

    def __init__(self, count: int, mutant: str = "") -> None:
        self._workers = [Worker(mutant) for _ in range(count)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()

    def run(self, task: Task) -> Result:
        return self._workers[0].run(task)

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """In the order of the tasks; as many are under way as there are workers. Whoever stops
        early closes the iterator, which waits for what is under way."""
        waiting: deque[Worker] = deque()
        idle = deque(self._workers)
        try:
            for task in tasks:
                if not idle:
                    worker = waiting.popleft()
                    result = worker.result()
                    idle.append(worker)
                    yield result
                worker = idle.popleft()
                worker.begin(task)
                waiting.append(worker)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for worker in waiting:
                worker.result()
