"""`raft/README.md` names what exists, and its example runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tests.raft.test_mutants import MUTANTS

RAFT = Path(__file__).parents[2] / "raft"
TEXT = (RAFT / "README.md").read_text(encoding="utf-8")
TESTS = "\n".join(
    path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")
)


def test_every_module_is_in_the_reading_order() -> None:
    listed = re.findall(r"^\d+\. `(\w+)`", TEXT, re.MULTILINE)
    modules = [path.stem for path in RAFT.glob("*.py") if path.stem != "__init__"]
    assert sorted(listed) == sorted(modules)


def test_every_function_that_is_named_exists() -> None:
    named = re.findall(r"`(\w+)\.(\w+)`", TEXT)
    assert len(named) > 20
    for module_name, name in named:
        if name == "txt":
            continue
        module = importlib.import_module(f"raft.{module_name}")
        owners = [module, getattr(module, "RaftNode", None), getattr(module, "RaftLog", None)]
        assert any(hasattr(owner, name) for owner in owners), f"raft.{module_name}.{name}"


def test_every_test_and_play_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    modules = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert [name for name in sorted(named - modules) if f"def {name}(" not in TESTS] == []
    plays = re.findall(r"`(\w+\.txt)`", TEXT)
    folder = Path(__file__).parents[1] / "testdata" / "raft"
    assert [play for play in plays if not (folder / play).exists()] == []


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(example, "raft/README.md", "exec"), {})


def test_every_rule_of_the_table_was_taken_out_and_missed() -> None:
    """The tests that a row names are killers of mutants of that rule, and every rule has some."""
    rows = re.findall(r"^\| (\([a-i]\)) \|(.*)$", TEXT, re.MULTILINE)
    assert [letter for letter, _ in rows] == [f"({letter})" for letter in "abcdefghi"]
    for letter, row in rows:
        mutants = [mutant for mutant in MUTANTS if mutant.rule.startswith(letter)]
        killers = {killer for mutant in mutants for killer in mutant.killers}
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, letter
        assert named <= killers, letter
