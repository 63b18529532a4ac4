"""Loads `raft` with one rule removed, to see that a test notices.

A mutant is an edit of one module's source: exact old text (which must occur exactly once), new
text, and the names of tests that must then fail. The edited package lives only inside `mutated`,
together with fresh copies of the test modules that use it; no file is changed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.datadriven import TESTDATA, run_scenario

RAFT = Path(__file__).parents[2] / "raft"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`rule` in words; `killers` are names of test functions in this folder, or `<name>.txt`
    scenarios. Every one of them must fail."""

    rule: str
    module: str
    old: str
    new: str
    killers: tuple[str, ...]

    def source(self) -> str:
        text = (RAFT / f"{self.module}.py").read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.rule}: {self.old!r} is not there exactly once"
        return text.replace(self.old, self.new)


class _MutantLoader(Loader):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def exec_module(self, module: ModuleType) -> None:
        path = f"raft/{self._mutant.module}.py ({self._mutant.rule})"
        exec(compile(self._mutant.source(), path, "exec"), module.__dict__)


class _MutantFinder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != f"raft.{self._mutant.module}":
            return None
        return spec_from_loader(fullname, _MutantLoader(self._mutant))


def _belongs(name: str) -> bool:
    is_us = name == __name__
    return not is_us and (name == "raft" or name.startswith(("raft.", "tests.raft.")))


@contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Inside, every import of `raft` and of `tests.raft` is fresh and sees the mutant."""
    originals = {name: sys.modules.pop(name) for name in list(sys.modules) if _belongs(name)}
    finder = _MutantFinder(mutant)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _belongs(name)]:
            del sys.modules[name]
        sys.modules.update(originals)


def calls_of(function: Callable[..., None]) -> Iterator[Callable[[], None]]:
    """A test function with every set of its `parametrize` values."""
    axes: list[list[dict[str, Any]]] = []
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "parametrize":
            names, rows = mark.args[:2]
            is_single = isinstance(names, str)
            keys = (names,) if is_single else tuple(names)
            axes.append(
                [dict(zip(keys, (row,) if is_single else row, strict=True)) for row in rows]
            )
    for combination in product(*axes):
        arguments = {key: value for part in combination for key, value in part.items()}
        yield lambda arguments=arguments: function(**arguments)  # type: ignore[misc]


def module_of(killer: str) -> str:
    """The one test module that defines this function."""
    paths = sorted(Path(__file__).parent.glob("test_*.py"))
    (path,) = [path for path in paths if f"\ndef {killer}(" in path.read_text(encoding="utf-8")]
    return path.stem


def fails(killer: str) -> bool:
    """Whether a killer fails, in the package as it is loaded now."""
    calls: Iterator[Callable[[], None]]
    if killer.endswith(".txt"):
        handle = importlib.import_module("tests.raft.scenario").RaftScenario().handle
        calls = iter([lambda: run_scenario(TESTDATA / "raft" / killer, handle)])
    else:
        module = importlib.import_module(f"tests.raft.{module_of(killer)}")
        calls = calls_of(getattr(module, killer))
    for call in calls:
        try:
            call()
        except AssertionError:
            return True
        except Exception as error:
            # pytest.raises reports a missing exception by an exception of its own.
            if type(error).__name__ != "Failed":
                raise
            return True
    return False
