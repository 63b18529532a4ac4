"""The controller played by text files: see `tests/testdata/controller`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datadriven import run_scenario, scenario_paths
from tests.quorum.play import Play


@pytest.mark.parametrize("path", scenario_paths("controller"), ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    run_scenario(path, Play().handle)
