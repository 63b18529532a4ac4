"""Stories of replication, as text: see `theatre` for the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven import run_scenario, scenario_paths
from tests.replica.theatre import Theatre

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("path", scenario_paths("replication"), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    run_scenario(path, Theatre().handle)
