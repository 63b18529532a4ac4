"""Every text scenario of `tests/testdata/raft`; the verbs are in `scenario.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven import run_scenario, scenario_paths
from tests.raft.scenario import RaftScenario


@pytest.mark.parametrize("path", scenario_paths("raft"), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    scenario = RaftScenario()
    run_scenario(path, scenario.handle)
    # Nobody may have said anything that the story does not tell.
    assert scenario.cluster.network == []
