"""The explorer: the subset of TLA+ it knows, and how it refuses the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tla.errors import TlaError
from tla.explorer.explore import Found, explore
from tla.explorer.parser import parse_module
from tla.explorer.values import Function, function_of, model_value, show
from tla.model import parse_config

COUNTER = """---- MODULE Counter ----
EXTENDS Naturals, Sequences, FiniteSets
CONSTANT Limit
VARIABLES n, seen
vars == <<n, seen>>
Init == n = 0 /\\ seen = {{}}
Up == /\\ n < Limit
      /\\ n' = n + 1
      /\\ seen' = seen \\cup {{n}}
Jump(by) ==
    /\\ n + by <= Limit
    /\\ n' = n + by
    /\\ UNCHANGED seen
Next == Up \\/ \\E by \\in 2..3 : Jump(by)
Spec == Init /\\ [][Next]_vars
{claims}
====
"""
CONFIG = "SPECIFICATION Spec\nCONSTANT Limit = {limit}\n{more}"


def explored(tmp_path: Path, claims: str = "", more: str = "", limit: int = 4) -> Found:
    (tmp_path / "Counter.tla").write_text(COUNTER.format(claims=claims))
    config = parse_config(CONFIG.format(limit=limit, more=more), "Counter.cfg", "Counter")
    return explore(tmp_path, config)


def value_of(tmp_path: Path, expression: str) -> str:
    """An expression's value, by the state in which an invariant about it is broken."""
    text = "---- MODULE One ----\nEXTENDS Naturals, Sequences, FiniteSets\nVARIABLE x\n"
    text += f"Init == x = ({expression})\nNext == UNCHANGED x\nSpec == Init /\\ [][Next]_x\n"
    text += "No == FALSE\n====\n"
    (tmp_path / "One.tla").write_text(text)
    config = parse_config("SPECIFICATION Spec\nINVARIANT No\n", "One.cfg", "One")
    return explore(tmp_path, config).steps[0].state["x"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("{1, 2} \\cup {2, 3}", "{1, 2, 3}"),
        ("{n \\in 1..5 : n > 3}", "{4, 5}"),
        ("{n + 1 : n \\in {1, 2}}", "{2, 3}"),
        ("[n \\in 1..3 |-> n * n]", "<<1, 4, 9>>"),
        ("[n \\in {2, 3} |-> n]", "(2 :> 2 @@ 3 :> 3)"),
        ("[a |-> 1, b |-> {2}]", "[a |-> 1, b |-> {2}]"),
        ("[[a |-> 1] EXCEPT !.a = @ + 1]", "[a |-> 2]"),
        ("[<<<<1>>, <<2>>>> EXCEPT ![2][1] = 5]", "<<<<1>>, <<5>>>>"),
        ("CHOOSE n \\in 1..9 : n * n = 49", "7"),
        ("LET double(n) == n + n\n    four == double(2) IN double(four)", "8"),
        ("IF 1 \\in {2} THEN 1 ELSE Cardinality(SUBSET {1, 2})", "4"),
        ("SubSeq(<<1, 2, 3>>, 2, 3) \\o Tail(<<4, 5>>)", "<<2, 3, 5>>"),
        ("DOMAIN [a |-> 1]", '{"a"}'),
        ("UNION {{1}, {2}}", "{1, 2}"),
        ("\\A n \\in 1..3 : \\E m \\in 1..3 : n # m", "TRUE"),
        ("Cardinality([{1, 2} -> {1, 2, 3}])", "9"),
        ("<<1, 2>> \\in [1..2 -> 1..2]", "TRUE"),
        ("[a |-> 1] \\in [a : {2}]", "FALSE"),
        ("3 - 1 - 1", "1"),
        ("~(1 = 2) => 2 <= 1", "FALSE"),
    ],
)
def test_values(tmp_path: Path, expression: str, value: str) -> None:
    assert value_of(tmp_path, expression) == value


def test_all_states_are_found_and_actions_counted(tmp_path: Path) -> None:
    found = explored(tmp_path)
    reached = {(0, frozenset())}
    frontier = list(reached)
    while frontier:
        n, seen = frontier.pop()
        nexts = [(n + by, seen) for by in (2, 3) if n + by <= 4]
        nexts += [(n + 1, seen | {n})] if n < 4 else []
        for state in nexts:
            if state not in reached:
                reached.add(state)
                frontier.append(state)
    assert found.distinct == len(reached)
    assert set(found.taken) == {"Up", "Jump"}
    assert found.broken == ""


def test_the_way_to_a_broken_invariant_is_shortest(tmp_path: Path) -> None:
    found = explored(tmp_path, "Low == n < 4", "INVARIANT Low")
    assert found.broken == "Low"
    assert len(found.steps) == 3
    assert "Jump" in [step.action for step in found.steps]


def test_a_step_that_is_no_step_of_the_other_module_is_found(tmp_path: Path) -> None:
    claims = "Slow == n' <= n + 2\nStart == n = 0\nAtMostTwo == Start /\\ [][Slow]_vars"
    found = explored(tmp_path, claims, "PROPERTY AtMostTwo")
    assert found.broken == "AtMostTwo"
    assert [step.action for step in found.steps] == ["Init", "Jump"]
    assert found.steps[-1].state["n"] == "3"


def test_claims_about_behaviours_are_left_to_tlc(tmp_path: Path) -> None:
    found = explored(tmp_path, "Ends == <>(n = Limit)", "PROPERTY Ends")
    assert found.unjudged == ("Ends",)


@pytest.mark.parametrize(
    ("claims", "more", "message"),
    [
        ("Bad == n +", "INVARIANT Bad", r"Counter.tla:17:1: no expression begins with '===='"),
        ("Bad == m = 1", "INVARIANT Bad", "m is not defined"),
        ("Bad == n = 1", "INVARIANT Missing", "Counter has no Missing"),
        ("Bad == n ? 1", "", r"Counter.tla:16:10: cannot read"),
        ("Bad == (n = 1", "", "'\\)' expected"),
        ("Bad == <<1>>[n + 2] = 1", "INVARIANT Bad", "Bad cannot be evaluated"),
        ("Init == n = 1", "", "Init is defined twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, claims: str, more: str, message: str
) -> None:
    with pytest.raises(TlaError, match=message):
        explored(tmp_path, claims, more)


def test_a_variable_that_a_step_forgets(tmp_path: Path) -> None:
    text = COUNTER.format(claims="").replace("    /\\ UNCHANGED seen\n", "")
    (tmp_path / "Counter.tla").write_text(text)
    config = parse_config(CONFIG.format(limit=2, more=""), "Counter.cfg", "Counter")
    with pytest.raises(TlaError, match="Jump does not say what becomes of seen"):
        explore(tmp_path, config)


def test_a_constant_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "Counter.tla").write_text(COUNTER.format(claims=""))
    config = parse_config("SPECIFICATION Spec", "Counter.cfg", "Counter")
    with pytest.raises(TlaError, match="gives no value to Limit"):
        explore(tmp_path, config)


def test_lists_end_where_a_token_stands_left_of_their_bullets() -> None:
    text = """---- MODULE M ----
A == /\\ 1 = 1
     /\\ \\/ 2 = 3
        \\/ 4 = 4
     => FALSE
B == 1
===="""
    module = parse_module(text, "M.tla")
    assert list(module.definitions) == ["A", "B"]
    assert module.definitions["A"].body.operator == "=>"  # type: ignore[union-attr]


def test_values_are_equal_however_they_are_made() -> None:
    assert function_of([(2, "b"), (1, "a")]) == ("a", "b")
    assert hash(Function(a=1, b=2)) == hash(Function(b=2, a=1))
    assert show(model_value("r1")) == "r1"
    assert show(Function(a=(1, frozenset({2})))) == "[a |-> <<1, {2}>>]"
