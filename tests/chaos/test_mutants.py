"""The import hook that plants bugs, on a sample module; and every registered mutant."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.bugs import REGISTRY
from chaos.mutants import (
    Mutant,
    MutantError,
    apply_at_import,
    by_name,
    mutated_source,
    read_source,
)

SAMPLE = """
def decide(value):
    if value > 3:
        return "high"

    return "low"


class Log:
    def append(self, values):
        total = 0
        for value in values:
            total += value
            total += 1
        return total

    def other(self):
        total = 0
        return total
"""

BUG = Mutant(
    name="late-high",
    module="sample_of_mutants.core",
    function="decide",
    old_lines=("if value > 3:", '    return "high"', "", 'return "low"'),
    new_lines=("if value > 4:", '    return "high"', 'return "low"'),
    origin="a sample",
    trips=("lost-write",),
)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path, gone from sys.modules and sys.meta_path afterwards."""
    package = tmp_path / "sample_of_mutants"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "core.py").write_text(SAMPLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield package
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.startswith("sample_of_mutants")]:
        del sys.modules[name]


def test_the_edit_is_in_force_after_the_import(sample: Path) -> None:
    hook = apply_at_import([BUG.name], by_name([BUG]))
    assert hook is sys.meta_path[0]
    core = importlib.import_module("sample_of_mutants.core")
    assert [core.decide(4), core.decide(5)] == ["low", "high"]
    assert core.Log().append([1]) == 2


def test_without_names_nothing_is_hooked(sample: Path) -> None:
    before = list(sys.meta_path)
    assert apply_at_import([], REGISTRY) is None
    assert sys.meta_path == before
    core = importlib.import_module("sample_of_mutants.core")
    assert core.decide(4) == "high"


def test_byte_code_is_neither_used_nor_left_behind(sample: Path) -> None:
    path = {"PYTHONPATH": str(sample.parent)}
    show = "from sample_of_mutants.core import decide; print(decide(4))"
    plain = [sys.executable, "-c", show]
    mutate = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from chaos.mutants import Mutant, apply_at_import\n"
        f"apply_at_import([{BUG.name!r}], {{{BUG.name!r}: {BUG!r}}})\n"
    )
    planted = [sys.executable, "-c", mutate + show]

    def run(command: list[str]) -> str:
        return subprocess.run(
            command, env=path, cwd=Path(__file__).parents[2], check=True, capture_output=True
        ).stdout.decode()

    assert [run(plain), run(planted), run(plain)] == ["high\n", "low\n", "high\n"]
    assert len(list((sample / "__pycache__").glob("core.*"))) == 1


def test_two_mutants_in_one_module(sample: Path) -> None:
    second = Mutant(
        "no-one", BUG.module, "Log.append", ("total += 1",), ("total += 0",), "", "lost-write"
    )
    apply_at_import([BUG.name, "no-one"], by_name([BUG, second]))
    core = importlib.import_module("sample_of_mutants.core")
    assert (core.decide(4), core.Log().append([1])) == ("low", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old_lines": ("if value > 9:",)}, "late-high: its old lines occur 0 times"),
        (
            {"function": "Log.append", "old_lines": ("total = 0",), "new_lines": ("return (",)},
            "late-high: its new lines are not Python",
        ),
        ({"function": "Log"}, "late-high: .* has 1 functions Log, not one"),
        ({"function": "Log.missing"}, "has 0 functions Log.missing"),
        ({"old_lines": ()}, "occur 0 times"),
        ({"module": "sample_of_mutants.gone"}, "late-high: there is no source of module"),
        ({"module": "no_such_package.core"}, "late-high: No module named"),
    ],
)
def test_a_mutant_that_does_not_fit_is_refused_by_name(
    sample: Path, change: dict[str, object], message: str
) -> None:
    wrong = replace(BUG, **change)  # type: ignore[arg-type]
    before = list(sys.meta_path)
    with pytest.raises(MutantError, match=message):
        apply_at_import([wrong.name], by_name([wrong]))
    assert sys.meta_path == before


def test_lines_that_occur_twice_are_refused_even_with_other_indentation() -> None:
    source = "def f(x):\n    y = 1\n    if x:\n        y = 1\n    return y\n"
    mutant = Mutant("twice", "m", "f", ("y = 1",), ("y = 2",), "", ("lost-write",))
    with pytest.raises(MutantError, match="twice: its old lines occur 2 times"):
        mutated_source(source, [mutant])


def test_only_the_named_function_is_searched() -> None:
    mutant = Mutant(
        "once", "m", "Log.other", ("total = 0",), ("total = 9", "", "pass"), "", ("lost-write",)
    )
    edited = mutated_source(SAMPLE, [mutant])
    assert edited.count("total = 9") == 1
    assert "    def other(self):\n        total = 9\n\n        pass\n" in edited


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MutantError, match="no mutant nonsense; known: late-high"):
        apply_at_import(["nonsense"], by_name([BUG]))


def test_a_module_that_is_already_imported_is_refused(sample: Path) -> None:
    importlib.import_module("sample_of_mutants.core")
    with pytest.raises(MutantError, match=r"late-high: .* is already imported"):
        apply_at_import([BUG.name], by_name([BUG]))


def test_every_registered_mutant_fits_its_source_and_changes_it() -> None:
    for mutant in REGISTRY.values():
        source = read_source(mutant)
        edited = mutated_source(source, [mutant])
        assert ast.dump(ast.parse(edited)) != ast.dump(ast.parse(source)), mutant.name
        assert mutant.origin, mutant.name
