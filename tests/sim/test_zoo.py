"""The first seed that met each planted bug meets it still; the scorecard is of the bugs there are.

Seeds are written by `prozess sim zoo --write`: a change of what is drawn moves them, and then the
zoo must be searched again.
"""

from __future__ import annotations

import json

import pytest

from chaos.bugs import MUTANTS, REGISTRY
from chaos.checker.anomalies import VOCABULARY
from chaos.hunt.pool import Pool
from chaos.hunt.scorecard import BEGIN, END, FIRST_SEEDS, README
from chaos.hunt.zoo import catches, hunt, run_zoo
from chaos.mutants import Mutant
from chaos.sim.invariants import INVARIANTS

pytestmark = pytest.mark.simulation

HUNTED = [mutant for mutant in MUTANTS if not mutant.elsewhere]
SEEDS: dict[str, tuple[int, str]] = json.loads(FIRST_SEEDS.read_text(encoding="utf-8"))


def test_every_hunted_bug_has_a_seed_and_no_other() -> None:
    assert set(SEEDS) == {mutant.name for mutant in HUNTED}
    assert len(HUNTED) >= 24


@pytest.mark.parametrize("mutant", HUNTED, ids=lambda mutant: mutant.name)
def test_its_first_seed_meets_the_bug(mutant: Mutant) -> None:
    seed, name = SEEDS[mutant.name]
    with Pool(1, mutant.name) as pool:
        result = pool.run({"seed": seed})
    assert catches(mutant, result) == name


def test_bugs_name_what_there_is_to_trip() -> None:
    names = {anomaly.name for anomaly in VOCABULARY} | set(INVARIANTS)
    for mutant in MUTANTS:
        assert mutant.trips, mutant.name
        assert set(mutant.trips) <= names, mutant.name


def test_the_scorecard_lists_every_bug() -> None:
    text = README.read_text(encoding="utf-8")
    card = text.partition(BEGIN)[2].partition(END)[0]
    for mutant in MUTANTS:
        assert f"| {mutant.name} |" in card, mutant.name


def test_a_bug_that_is_not_met_says_so() -> None:
    row = hunt(REGISTRY["empty-epoch-stays"], 1, 1, shrinks=False)
    assert (row.is_caught, row.seeds_tried) == (False, 1)


def test_a_zoo_keeps_the_order_of_its_bugs() -> None:
    chosen = [REGISTRY[name] for name in ("new-session-same-records", "unknown-called-failed")]
    rows = run_zoo(chosen, 2, seeds_max=3)
    assert [row.mutant for row in rows] == [mutant.name for mutant in chosen]
    assert all(row.is_caught for row in rows)
