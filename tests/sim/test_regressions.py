"""Runs that failed once, shrunk; each must pass now, and its story says what it showed."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.hunt.replay import load
from chaos.sim.run import rerun
from tests.datadriven import TESTDATA

pytestmark = pytest.mark.simulation

REPLAYS = sorted((TESTDATA / "sim" / "replays").glob("*.json"))


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.stem)
def test_a_run_that_failed_once_is_good_now(path: Path) -> None:
    recorded = load(path, anyway=True)
    assert recorded.story, "a replay without its story teaches nobody"
    assert rerun(recorded.plan, recorded.seed, recorded.draws).violations == ()


def test_there_are_some() -> None:
    assert REPLAYS
