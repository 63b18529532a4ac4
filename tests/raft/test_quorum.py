"""The tables of `tests/testdata/quorum`: who has what, drawn as bars, and what follows.

commit 1=5 2=3 3=-      match index by voter; `-` is a voter nobody heard of
vote 1=y 2=n 3=-        yes, no, silent
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from raft.quorum import VoteResult, committed_index, majority, vote_result
from tests.datadriven import Command, run_scenario, scenario_paths


def handle(command: Command) -> str:
    voters = [int(name) for name in command.options]
    values = {voter: command.text_of(str(voter)) for voter in voters}
    if command.verb == "commit":
        match = {voter: int(value) for voter, value in values.items() if value != "-"}
        width = max([0, *match.values()])
        index = committed_index(voters, match)
        bars = [f"{voter} {'=' * match.get(voter, 0):{width}} {values[voter]}" for voter in voters]
        return "\n".join([*bars, f"{' ' * (index + 1)}^ {index}"])
    if command.verb == "vote":
        granted = {voter: value == "y" for voter, value in values.items() if value != "-"}
        return vote_result(voters, granted).value
    raise command.error("no such verb")


@pytest.mark.parametrize("path", scenario_paths("quorum"), ids=lambda path: path.stem)
def test_table(path: Path) -> None:
    run_scenario(path, handle)


@pytest.mark.parametrize("voter_count", range(1, 8))
def test_any_two_majorities_share_a_voter_and_no_smaller_groups_do(voter_count: int) -> None:
    size = majority(voter_count)
    assert 2 * size > voter_count
    assert 2 * (size - 1) <= voter_count


@pytest.mark.parametrize("voter_count", range(1, 6))
def test_committed_index_is_the_highest_that_a_majority_reached(voter_count: int) -> None:
    voters = range(voter_count)
    for indexes in product(range(4), repeat=voter_count):
        index = committed_index(voters, dict(enumerate(indexes)))
        assert sum(reached >= index for reached in indexes) >= majority(voter_count)
        assert sum(reached > index for reached in indexes) < majority(voter_count)


@pytest.mark.parametrize("voter_count", range(1, 6))
def test_a_vote_is_pending_as_long_as_both_ends_are_possible(voter_count: int) -> None:
    voters = range(voter_count)
    for verdicts in product((True, False, None), repeat=voter_count):
        heard = {voter: v for voter, v in enumerate(verdicts) if v is not None}
        silent = verdicts.count(None)
        can_win = verdicts.count(True) + silent >= majority(voter_count)
        has_won = verdicts.count(True) >= majority(voter_count)
        expected = VoteResult.WON if has_won else VoteResult.PENDING if can_win else VoteResult.LOST
        assert vote_result(voters, heard) is expected
