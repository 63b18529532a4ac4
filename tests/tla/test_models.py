"""The models hold within their smallest bounds, and every mutant is killed: by the explorer."""

from __future__ import annotations

import re

import pytest

from tla.cases import CASES, FOLDER, MUTANTS, Case, Mutant, Tier, base_config
from tla.explorer.explore import actions_of
from tla.results import README, expected_states, load, with_tables
from tla.runner import Job, judge, never_taken

MODULES = tuple(dict.fromkeys(case.module for case in CASES))
MINE = [run for run in (*CASES, *MUTANTS) if not run.needs_tlc]
RULE = re.compile(r'(?:Kept|Rule)\("([a-z-]+)"')
# Taken in a mutant only: what must not be done.
FORBIDDEN = {"TakeBack", "Forget", "Scribble"}


@pytest.mark.simulation
@pytest.mark.parametrize("run", MINE, ids=lambda run: run.name)
def test_it_comes_out_as_it_must(run: Case | Mutant) -> None:
    expected = expected_states(load(), run)
    assert expected is not None or isinstance(run, Mutant), f"{run.name} is not in expected.json"
    outcome = judge(Job(run, None, expected))
    assert outcome.problem == ""
    if isinstance(run, Mutant):
        assert outcome.broken == run.claim
        assert outcome.story[-1] == f"{run.claim} does not hold"
        assert len(outcome.story) >= 3


@pytest.mark.simulation
@pytest.mark.parametrize("module", MODULES)
def test_every_action_is_taken_in_a_model_that_holds(module: str) -> None:
    cases = [case for case in CASES if case.module == module and case.tier is Tier.SMOKE]
    missing = never_taken([judge(Job(case, None, None)) for case in cases])
    assert set(missing.get(module, ())) <= FORBIDDEN


def test_every_rule_has_a_mutant_and_every_mutant_a_rule() -> None:
    for module in MODULES:
        text = (FOLDER / f"{module}.tla").read_text(encoding="utf-8")
        broken = {rule for m in MUTANTS if m.module == module for rule in m.broken}
        written = set(RULE.findall(text))
        inherited = (
            set(RULE.findall((FOLDER / "Isr.tla").read_text(encoding="utf-8")))
            if module == "IsrValues"
            else set()
        )
        assert written <= broken, module
        assert broken <= written | inherited, module


def test_no_claim_is_vacuous() -> None:
    """Each invariant and property that a model checks is broken by one of its mutants."""
    for case in CASES:
        config = case.config()
        broken = {mutant.claim for mutant in MUTANTS if mutant.module == case.module}
        claims = {c for c in (*config.invariants, *config.properties) if not c.startswith("TypeOK")}
        assert claims <= broken, case.name


def test_each_claim_about_behaviours_fails_without_fairness() -> None:
    claims = {(case.module, claim) for case in CASES for claim in case.liveness}
    assert claims == {(m.module, m.claim) for m in MUTANTS if m.unfair}


def test_names_are_unique_and_all_results_are_there() -> None:
    names = [run.name for run in (*CASES, *MUTANTS)]
    assert len(set(names)) == len(names)
    results = load()
    assert [name for name in names if name not in results] == []
    for run in (*CASES, *MUTANTS):
        assert "tlc" in results[run.name]["seconds"], run.name
        assert run.needs_tlc or "explorer" in results[run.name]["seconds"], run.name


def test_the_readme_shows_these_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text, load()) == text


# --- the code link --------------------------------------------------------------------------------

CODE_FILES = (
    "broker/replica/partition.py",
    "broker/quorum/elections.py",
    "raft/election.py",
    "raft/replication.py",
    "broker/log/producer_state.py",
)


def test_every_action_names_the_function_that_does_it() -> None:
    text = README.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (\w+) \| `(\w+)` \| \[`", text, re.MULTILINE))
    actions = {
        (module, action)
        for module in MODULES
        if module not in ("CommitLog", "MetaLog")
        for action in actions_of(FOLDER, base_config(module))
    }
    assert rows == actions


@pytest.mark.parametrize("path", CODE_FILES)
def test_every_function_of_the_rules_is_modelled_or_says_why_not(path: str) -> None:
    import ast

    text = README.read_text(encoding="utf-8")
    tree = ast.parse((FOLDER.parent / path).read_text(encoding="utf-8"))
    public = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef) and owner.name in ("Partition", "ProducerStateTable"):
            public += [
                f"{owner.name}.{n.name}"
                for n in owner.body
                if isinstance(n, ast.FunctionDef) and n.name[0] != "_"
            ]
    rows = re.findall(rf"^\| \[`([\w.]+)`\]\(\.\./{path}\) \| (\S.*) \|$", text, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(public)
