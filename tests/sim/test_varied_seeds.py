"""Seeds on drawn clusters: five nodes, observers, other flush modes and min ISR, small segments,
late duplicates of messages, topics that come and go, stops in good order, lost disks."""

from __future__ import annotations

import pytest

from chaos.sim.choices import Choices
from chaos.sim.run import RunResult, run_seed, run_varied
from chaos.sim.setup import Setup, draw_setup

pytestmark = pytest.mark.simulation


def explain(result: RunResult) -> str:
    story = "\n".join(result.tail)
    return f"seed {result.seed}: {list(result.violations)}\n{story}"


@pytest.mark.parametrize("seed", range(1, 19))
def test_a_varied_seed_breaks_no_guarantee(seed: int) -> None:
    result = run_varied(seed, load_ms=6_000)
    assert not result.violations, explain(result)
    assert result.acked > 0


@pytest.mark.parametrize("seed", range(1, 9))
def test_brokers_may_lose_their_disks(seed: int) -> None:
    setup = Setup(nodes=5, voters=3, segment_bytes=4_096, wipes=True)
    result = run_seed(seed, setup=setup, load_ms=6_000)
    assert not result.violations, explain(result)
    assert result.acked > 0


def test_the_setups_differ() -> None:
    setups = [draw_setup(Choices(seed)) for seed in range(1, 60)]
    assert {setup.nodes for setup in setups} == {3, 5}
    assert {setup.flush for setup in setups} == {"ack", "always", "async"}
    assert {setup.min_isr for setup in setups} == {1, 2, 3}
    for switch in ("churns", "stops", "wipes", "duplicate_percent"):
        assert len({getattr(setup, switch) for setup in setups}) > 1, switch


def test_a_disk_is_lost_in_some_of_them() -> None:
    setup = Setup(nodes=5, voters=3, wipes=True)
    results = [run_seed(seed, setup=setup, load_ms=6_000, keep_trace=True) for seed in (1, 2, 3, 4)]
    lost = [line for result in results for line in result.tail if "loses its disk" in line]
    assert lost
