"""The nouns of Raft: roles, entries, what is persisted, and the configuration.

Owns no behaviour. Standard library only, like the whole package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """Raft paper figure 4, with the pre-candidate of Ongaro's thesis 9.6."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the Raft log.

    `index` counts from 1 without holes. Empty `data` is the entry that a leader appends at the
    start of its term; `RaftNode.propose` accepts no other empty entry.
    """

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What all entries up to `index`, the last of them of `term`, have made of the state machine.
    `data` is the driver's; it stands for the entries, which are then gone."""

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HardState:
    """What a voter must never forget. The commit index is volatile: a leader teaches it again."""

    term: int
    voted_for: int | None


@dataclass(frozen=True, slots=True)
class Voter:
    """A node *and* its disk: a node that comes back with an empty disk is another voter, because
    it has forgotten what it promised."""

    node_id: int
    disk_id: str


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """One voter's settings. Raises ValueError naming every mistake at once.

    `voters` is the whole static voter set, this node included. `election_timeout_ms_*` are the
    bounds of the random election timeout. A leader that no majority answered for
    `check_quorum_ms` steps down. `append_bytes_max` bounds the data of one AppendEntries (a single
    larger entry is sent alone) and of a chunk of a snapshot, `in_flight_appends_max` the unanswered
    ones per follower.
    """

    node_id: int
    disk_id: str
    voters: tuple[Voter, ...]
    heartbeat_ms: int = 100
    election_timeout_ms_min: int = 500
    election_timeout_ms_max: int = 1000
    check_quorum_ms: int = 1500
    append_bytes_max: int = 256 * 1024
    in_flight_appends_max: int = 16

    def __post_init__(self) -> None:
        mistakes = []
        voter_ids = [voter.node_id for voter in self.voters]
        if len(set(voter_ids)) != len(voter_ids):
            mistakes.append(f"a node id occurs twice among the voters {voter_ids}")
        if Voter(self.node_id, self.disk_id) not in self.voters:
            mistakes.append(f"node {self.node_id} with disk {self.disk_id} is not a voter")
        if not 0 < self.heartbeat_ms < self.election_timeout_ms_min:
            mistakes.append("heartbeat_ms must lie between 0 and election_timeout_ms_min")
        if self.election_timeout_ms_max < self.election_timeout_ms_min:
            mistakes.append("election_timeout_ms_max is below election_timeout_ms_min")
        if self.check_quorum_ms < self.election_timeout_ms_min:
            mistakes.append("check_quorum_ms is below election_timeout_ms_min")
        if self.append_bytes_max < 1:
            mistakes.append("append_bytes_max must be positive")
        if self.in_flight_appends_max < 1:
            mistakes.append("in_flight_appends_max must be positive")
        if mistakes:
            raise ValueError("; ".join(mistakes))

    @property
    def voter_ids(self) -> tuple[int, ...]:
        """Every voter's node id, ascending."""
        return tuple(sorted(voter.node_id for voter in self.voters))

    @property
    def peers(self) -> tuple[Voter, ...]:
        """The other voters, by ascending node id."""
        return tuple(
            sorted(
                (voter for voter in self.voters if voter.node_id != self.node_id),
                key=lambda voter: voter.node_id,
            )
        )
