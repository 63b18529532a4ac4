"""Seeds that once failed, each with what it showed."""

from __future__ import annotations

import pytest

from chaos.sim.run import run_seed
from chaos.sim.setup import Setup

pytestmark = pytest.mark.simulation

LATE = Setup(nodes=5, voters=3, wipes=True, segment_bytes=4_096, duplicate_percent=20)


@pytest.mark.parametrize(
    ("seed", "setup", "what"),
    [
        (
            57,
            LATE,
            "a broker that lost its disk is a member until it registers: no second loss yet",
        ),
        (83, LATE, "the registration of a dead process comes late and looks like a newer life"),
    ],
)
def test_a_seed_that_failed_once(seed: int, setup: Setup, what: str) -> None:
    result = run_seed(seed, setup=setup)
    assert not result.violations, f"{what}: {list(result.violations)}"
