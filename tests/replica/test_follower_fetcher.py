"""The transition table of a followed partition, against its picture in the README."""

from __future__ import annotations

from pathlib import Path

from broker.replica.follower_fetcher import NEXT_STATE, FetchState, Outcome

README = Path(__file__).parents[2] / "broker" / "replica" / "README.md"


def test_the_readme_shows_the_table() -> None:
    rows = [
        f"| {state.value} | {outcome.value} | {after.value} |"
        for (state, outcome), after in NEXT_STATE.items()
    ]
    assert "\n".join(rows) in README.read_text(encoding="utf-8")


def test_every_outcome_of_a_fetch_has_a_next_state() -> None:
    assert {outcome for _, outcome in NEXT_STATE} == set(Outcome)
    assert {state for state, _ in NEXT_STATE} == {FetchState.FETCHING}
