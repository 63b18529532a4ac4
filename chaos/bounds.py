"""How long the cluster may take to recover, from its configuration: the bounds of L1.

Each is a sum of what happens one after the other at worst, when nothing is broken any more. They
bound waiting that the protocol does by itself; time that a busy machine takes comes on top.
"""

from __future__ import annotations

from typing import NamedTuple

from broker.config import NodeConfig

ELECTION_ROUNDS = 2
"""A first round of votes may be split; that a second one is too, happens once in hundreds."""
CONTROLLER_CALLS = 3
"""Registration, heartbeat that unfences, change of the ISR."""
DISK_STALL_SHARE = 10
"""Of `disk_stall_ms_max`, what a disk that is not broken may hang: one part in this many."""


class Term(NamedTuple):
    what: str
    milliseconds: int


def recover_terms(config: NodeConfig) -> tuple[Term, ...]:
    """From the last fault to the first new acknowledgement on every partition."""
    election_ms_max = 2 * config.controller_quorum_election_timeout_ms
    return (
        Term("a deposed controller steps down", config.controller_quorum_check_ms),
        Term("votes", ELECTION_ROUNDS * election_ms_max),
        Term("sessions of dead brokers end", config.broker_session_timeout_ms),
        Term(
            "calls to a controller that is gone time out",
            CONTROLLER_CALLS * config.controller_request_timeout_ms,
        ),
        Term("fetches to a leader that is gone time out", config.replica_fetch_timeout_ms),
        Term("laggards leave the ISR", config.replica_lag_time_max_ms),
        Term("the client learns of it", config.controller_request_timeout_ms),
        Term("a hung sync ends", config.disk_stall_ms_max // DISK_STALL_SHARE),
    )


def heal_terms(config: NodeConfig) -> tuple[Term, ...]:
    """From the last fault to all replicas in every ISR, equal."""
    return (
        *recover_terms(config),
        Term("a restarted broker is known by its session", config.broker_session_timeout_ms),
        Term("fetches and their back-off", config.replica_fetch_timeout_ms),
        Term("a follower catches up and joins", config.replica_lag_time_max_ms),
        Term(
            "the ISR changes",
            config.controller_request_timeout_ms + config.replica_fetch_backoff_ms,
        ),
        Term("equal, seen twice", 1_000),
    )


def recover_ms(config: NodeConfig) -> int:
    """T_recover of L1."""
    return sum(term.milliseconds for term in recover_terms(config))


def heal_ms(config: NodeConfig) -> int:
    """T_heal of L1."""
    return sum(term.milliseconds for term in heal_terms(config))
