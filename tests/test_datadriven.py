"""The runner of text scenarios: what it refuses, compares and rewrites."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven import Command, ScenarioError, run_scenario

GOOD = """\
# A story.
add 1 2
add 3 by=4
----
3
7

quiet
----
ok
"""


def handle(command: Command) -> str:
    if command.verb == "add":
        if command.has("by"):
            return str(command.word_number(0) + command.number("by"))
        return str(sum(int(word) for word in command.rest()))
    if command.verb == "list":
        return " ".join(str(number) for number in command.numbers("of"))
    assert command.verb == "quiet", "what is that?"
    return ""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return tmp_path / "play.txt"


def test_a_scenario_that_agrees(scenario: Path) -> None:
    scenario.write_text(GOOD)
    run_scenario(scenario, handle)


def test_a_difference_shows_both_sides_and_the_place(scenario: Path) -> None:
    scenario.write_text(GOOD.replace("7", "8"))
    with pytest.raises(ScenarioError, match=r"(?s)play.txt:2:.*add 3 by=4.*expected:.*8.*actual"):
        run_scenario(scenario, handle)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("add 1\n----\n1\n", "opens with its story"),
        ("", "opens with its story"),
        ("# s\n" * 121, "at most 120"),
        ("# s\nadd 1\n", "no ---- after the last command"),
        ("# s\n----\n1\n", "---- without a command"),
        ("# s\nadd x\n----\n", "invalid literal|not an integer"),
        ("# s\nadd 1 by=x\n----\n", "'x' is not an integer"),
        ("# s\nadd 1 by=1 by=2\n----\n", "given twice"),
        ("# s\nadd 1 2 by=1\n----\n2\n", "not understood: 2"),
        ("# s\nquiet much=1\n----\nok\n", "not understood: much="),
        ("# s\nadd by=1\n----\n", "word 1 after 'add' is missing"),
        ("# s\nlist\n----\n", "option of= is missing"),
        ("# s\nsing\n----\n", "play.txt:2: sing: what is that"),
    ],
)
def test_what_is_refused(scenario: Path, text: str, problem: str) -> None:
    scenario.write_text(text)
    with pytest.raises((ScenarioError, ValueError), match=problem):
        run_scenario(scenario, handle)


def test_lists_may_be_empty(scenario: Path) -> None:
    scenario.write_text("# s\nlist of=1,2\nlist of=\n----\n1 2\n")
    run_scenario(scenario, handle)


def test_rewriting_puts_the_actual_output_into_the_file(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROZESS_REWRITE", "1")
    scenario.write_text(GOOD.replace("3\n7\n", "1\n2\n3\n").replace("\nok\n", "\n"))
    run_scenario(scenario, handle)
    assert scenario.read_text() == GOOD
