"""Planted bugs, as named source edits that exist only while a trial wants them.

The brokers carry no fault switch. A mutant says: in this function of this module, these lines
become those lines. `apply_at_import` puts an import hook in front of Python's own that makes the
edit before the module is compiled, so it must run before the module is first imported; only the
chaos entry points and the simulator call it. The old lines must occur exactly once in the function,
and a test applies every registered mutant: when the code moves on, a mutant breaks loudly instead
of quietly testing nothing. The bugs themselves are in `bugs`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    `function` is the qualified name in `module` (`Partition.on_fetch`). `old_lines` and `new_lines`
    are written without the indentation of their place. `origin` names the real bug it re-creates,
    or the rule it breaks. It must trip one of `trips`: anomalies of the checker's vocabulary, or
    invariants of the simulator. `elsewhere`: why the simulator's general search does not meet it,
    and which test does.
    """

    name: str
    module: str
    function: str
    old_lines: tuple[str, ...]
    new_lines: tuple[str, ...]
    origin: str
    trips: tuple[str, ...]
    elsewhere: str = ""


class MutantError(Exception):
    """A mutant that is unknown, does not fit its source, or comes too late. Names it."""


def by_name(mutants: Sequence[Mutant]) -> dict[str, Mutant]:
    """The registry; a name that is given twice is a mistake."""
    table = {mutant.name: mutant for mutant in mutants}
    assert len(table) == len(mutants), "two mutants share a name"
    return table


def named(name: str, registry: Mapping[str, Mutant]) -> Mutant:
    """MutantError for a name that is not in `registry`, with those that are."""
    if name not in registry:
        known = ", ".join(sorted(registry)) or "none"
        raise MutantError(f"there is no mutant {name}; known: {known}")
    return registry[name]


def apply_at_import(names: Iterable[str], registry: Mapping[str, Mutant]) -> MetaPathFinder | None:
    """Make every later import of the mutants' modules compile the edited source.

    Everything is checked now: MutantError for an unknown name, lines that do not occur exactly
    once, or a module that is already imported. Returns the hook (None without names); taking it
    out of `sys.meta_path` ends the effect for modules not yet imported.
    """
    chosen: dict[str, list[Mutant]] = {}
    for name in names:
        mutant = named(name, registry)
        chosen.setdefault(mutant.module, []).append(mutant)
    for module, mutants in chosen.items():
        mutated_source(read_source(mutants[0]), mutants)
        if module in sys.modules:
            raise MutantError(f"{mutants[0].name}: {module} is already imported; apply it earlier")
    if not chosen:
        return None
    finder = _MutatingFinder(chosen)
    sys.meta_path.insert(0, finder)
    return finder


def read_source(mutant: Mutant) -> str:
    """Source text of the mutant's module, without importing it (its parent packages are)."""
    try:
        spec = find_spec(mutant.module)
    except ModuleNotFoundError as error:
        raise MutantError(f"{mutant.name}: {error}") from error
    if spec is None or not isinstance(spec.loader, SourceFileLoader):
        raise MutantError(f"{mutant.name}: there is no source of module {mutant.module}")
    source = spec.loader.get_source(mutant.module)
    assert source is not None
    return source


def mutated_source(source: str, mutants: Iterable[Mutant]) -> str:
    """`source` with every edit made, in order. MutantError unless each fits exactly once."""
    for mutant in mutants:
        source = _edit(source, mutant)
    return source


def _edit(source: str, mutant: Mutant) -> str:
    lines = source.split("\n")
    start, end = _function_lines(source, mutant)
    size = len(mutant.old_lines)
    found = [
        at
        for at in range(start, end - size + 1)
        if size and _matches(lines[at : at + size], mutant.old_lines)
    ]
    if len(found) != 1:
        raise MutantError(
            f"{mutant.name}: its old lines occur {len(found)} times in "
            f"{mutant.module}.{mutant.function}, not once"
        )
    at = found[0]
    indent = _indent(lines[at])
    lines[at : at + size] = [indent + line if line else "" for line in mutant.new_lines]
    edited = "\n".join(lines)
    try:
        ast.parse(edited)
    except SyntaxError as error:
        raise MutantError(f"{mutant.name}: its new lines are not Python: {error}") from error
    return edited


def _matches(lines: Sequence[str], old_lines: Sequence[str]) -> bool:
    indent = _indent(lines[0])
    return all(
        line == indent + old if old else not line.strip()
        for line, old in zip(lines, old_lines, strict=True)
    )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _function_lines(source: str, mutant: Mutant) -> tuple[int, int]:
    """Lines [start, end) of the function, from 0."""
    nodes: list[Any] = [ast.parse(source)]
    for part in mutant.function.split("."):
        nodes = [
            child
            for node in nodes
            for child in node.body
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and child.name == part
        ]
    if len(nodes) != 1 or isinstance(nodes[0], ast.ClassDef):
        raise MutantError(
            f"{mutant.name}: {mutant.module} has {len(nodes)} functions {mutant.function}, not one"
        )
    return nodes[0].lineno - 1, nodes[0].end_lineno


class _MutatingFinder(MetaPathFinder):
    """Finds the chosen modules where Python would, and gives them another loader."""

    def __init__(self, chosen: dict[str, list[Mutant]]) -> None:
        self._chosen = chosen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mutants = self._chosen.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if mutants else None
        if mutants is None or spec is None or spec.origin is None:
            return None
        spec.loader = _MutatingLoader(fullname, spec.origin, mutants)
        return spec


class _MutatingLoader(SourceFileLoader):
    """Compiles the edited source every time: byte code is neither read nor written."""

    def __init__(self, fullname: str, path: str, mutants: list[Mutant]) -> None:
        super().__init__(fullname, path)
        self._mutants = mutants

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        assert source is not None
        edited = mutated_source(source, self._mutants)
        return compile(edited, self.get_filename(fullname), "exec", dont_inherit=True)
