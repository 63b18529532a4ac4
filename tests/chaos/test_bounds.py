"""The bounds of L1, from the configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.config import KAFKA_TIMING, NodeConfig
from chaos import bounds

LOCAL = NodeConfig(node_id=1, cluster_id="c", data_dir="d")


def test_the_default_timing() -> None:
    assert (bounds.recover_ms(LOCAL), bounds.heal_ms(LOCAL)) == (15_500, 23_600)


def test_kafkas_timing_takes_longer() -> None:
    kafka = replace(LOCAL, **KAFKA_TIMING)  # type: ignore[arg-type]
    assert bounds.recover_ms(kafka) > 4 * bounds.recover_ms(LOCAL)


@pytest.mark.parametrize(
    "setting",
    [
        "controller_quorum_check_ms",
        "controller_quorum_election_timeout_ms",
        "broker_session_timeout_ms",
        "controller_request_timeout_ms",
        "replica_fetch_timeout_ms",
        "replica_lag_time_max_ms",
    ],
)
def test_each_timeout_that_is_waited_for_counts(setting: str) -> None:
    slower = replace(LOCAL, **{setting: getattr(LOCAL, setting) + 1_000})
    assert bounds.recover_ms(slower) > bounds.recover_ms(LOCAL)


def test_healing_includes_recovery() -> None:
    assert bounds.heal_terms(LOCAL)[: len(bounds.recover_terms(LOCAL))] == bounds.recover_terms(
        LOCAL
    )
