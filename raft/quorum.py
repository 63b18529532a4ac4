"""Majority arithmetic, pure. Invariant: two majorities of one voter set share a voter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum


class VoteResult(Enum):
    """Pending is a verdict of its own: neither won nor lost."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(voter_count: int) -> int:
    """The smallest number of voters of which any two groups overlap."""
    return voter_count // 2 + 1


def committed_index(voter_ids: Sequence[int], match_index_by_voter: Mapping[int, int]) -> int:
    """The highest index that a majority has reached; a voter without an entry stands at 0.

    Raft paper figure 2, "rules for servers, leaders", without the condition on the term.
    """
    reached = sorted((match_index_by_voter.get(voter, 0) for voter in voter_ids), reverse=True)
    return reached[majority(len(voter_ids)) - 1]


def vote_result(voter_ids: Sequence[int], granted_by_voter: Mapping[int, bool]) -> VoteResult:
    """Won: a majority granted. Lost: so many refused that no majority is left. Else pending."""
    needed = majority(len(voter_ids))
    granted = sum(1 for voter in voter_ids if granted_by_voter.get(voter) is True)
    refused = sum(1 for voter in voter_ids if granted_by_voter.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voter_ids) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
