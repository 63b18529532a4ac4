"""Search, shrinking, stories and replay files, with bugs planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaos.bugs import REGISTRY
from chaos.hunt import versions
from chaos.hunt.pool import Pool, WorkerFailed
from chaos.hunt.replay import Replay, ReplayError, load
from chaos.hunt.search import search
from chaos.hunt.shrink import Case, Shrinker, case_of, names_of, violation_name
from chaos.hunt.story import tell
from chaos.mutants import MutantError
from chaos.sim.choices import Choices, from_seed
from chaos.sim.plan import Fault, Load, Plan, Setup, draw_plan, plan_from_json

pytestmark = pytest.mark.simulation

BUG = "ack-before-replication"


@pytest.fixture(scope="module")
def failing() -> Any:
    with Pool(1, BUG) as pool:
        found = search(pool, 1, 20)
        assert found.failures
        yield pool, found


def test_a_search_stops_at_the_first_failure_and_says_what_it_covered(failing: Any) -> None:
    _, found = failing
    assert len(found.failures) == 1
    assert found.failures[0]["seed"] == found.seeds
    assert found.facts["Acked"] > 0
    assert len(found.medians()) == 3
    assert found.runs_per_core_minute > 0
    assert "BecameLeader" not in found.not_met()


def test_a_search_goes_on_when_told_to_and_ends_when_its_time_is_over() -> None:
    with Pool(2, BUG) as pool:
        assert search(pool, 1, 3, keep_going=True).seeds == 3
        assert search(pool, 1, 3, limit_s=0).seeds == 0


def test_a_failing_run_shrinks_to_a_short_story_that_replays(failing: Any, tmp_path: Path) -> None:
    pool, found = failing
    first = found.failures[0]
    shrinker = Shrinker(pool, REGISTRY[BUG].trips, limit_s=40)
    case = shrinker.shrink(case_of(first))
    assert len(case.plan.faults) <= len(first["plan"]["faults"])
    result = pool.run(case.task(keep=True))
    assert set(names_of(result)) & set(REGISTRY[BUG].trips)
    story = tell(result["entries"])
    assert 1 <= len(story) <= 20
    assert "BROKEN: " in story[-1]
    assert pool.run(case.task())["trace_hash"] == result["trace_hash"]
    path = tmp_path / "replay.json"
    name = names_of(result)[0]
    Replay(
        case.plan, case.seed, case.draws, BUG, name, result["trace_hash"], versions.present()
    ).save(path)
    again = load(path)
    assert (again.plan, again.draws, again.mutant) == (case.plan, case.draws, BUG)


def test_the_same_run_without_the_bug_is_good(failing: Any) -> None:
    _, found = failing
    with Pool(1) as pool:
        assert pool.run({"seed": found.failures[0]["seed"]})["violations"] == []


def test_an_unknown_bug_is_refused_before_anything_starts() -> None:
    with pytest.raises(MutantError, match="there is no mutant nonsense; known: "):
        Pool(1, "nonsense")


def test_a_worker_that_ends_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with Pool(1) as pool, pytest.raises(WorkerFailed, match="ended with exit code 1"):
        pool.run({"plan": {}, "seed": 1, "draws": None})
    assert "PlanError" in capfd.readouterr().err


# --- shrinking ------------------------------------------------------------------------------------


class FakePool:
    """Runs fail when the faults that matter are there."""

    def __init__(self, needed: set[int]) -> None:
        self.needed = needed
        self.tried = 0

    def _result(self, task: dict[str, Any]) -> dict[str, Any]:
        self.tried += 1
        there = {fault["at_ms"] for fault in task["plan"]["faults"]}
        violations = ["lost-write: x"] if self.needed <= there else []
        return {"violations": violations, "draws": {}, "entries": []}

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        return self._result(task)

    def results(self, tasks: Any) -> Any:
        for task in tasks:
            yield self._result(task)


@pytest.mark.parametrize("needed", [set(), {3}, {0, 19}, {5, 6, 7}, set(range(0, 20, 4))])
def test_only_the_faults_that_matter_stay(needed: set[int]) -> None:
    faults = tuple(Fault(at, "kill", lasting_ms=80) for at in range(20))
    pool = FakePool(needed)
    shrinker = Shrinker(pool, ["lost-write"], limit_s=60)  # type: ignore[arg-type]
    case = shrinker.shrink(Case(Plan(Setup(partitions=3, churns=True), Load(), faults), 1))
    assert {fault.at_ms for fault in case.plan.faults} == needed
    assert case.plan.setup == Setup()
    assert pool.tried < 200


def test_a_violation_is_known_by_its_name() -> None:
    assert violation_name("raft: election safety: nodes") == "raft"


# --- stories --------------------------------------------------------------------------------------


def entry(time_ms: int, who: str, kind: str, text: str, place: str = "") -> tuple[Any, ...]:
    return (time_ms, who, kind, place, text)


def test_a_story_tells_what_was_done_what_followed_and_what_broke() -> None:
    acked = "LE=0 PE=0 leo=9 synced=9 hw=9 {'first': 7, 'last': 8, 'isr': (1, 2), 'ends': (9, 9)}"
    entries = [
        entry(1_000, "n1", "Acked", acked, "ab-0"),
        entry(1_001, "n1", "Acked", acked.replace("8", "9"), "ab-0"),
        entry(1_005, "n1", "crash", "is killed"),
        entry(1_005, "-", "fault", "kill: n1 is killed, down for 90 ms"),
        entry(1_095, "n1", "start", "starts"),
        entry(1_200, "n2", "Truncated", "leo=4 {'old_end': 9}", "ab-0"),
        entry(1_250, "n2", "Truncated", "leo=1 {'old_end': 5}", "ab-7"),
        entry(1_300, "-", "violation", "acked-durable: ab-0: acknowledged up to 9"),
        entry(1_400, "n3", "crash", "is killed"),
    ]
    assert tell(entries) == [
        "  0.000 s  n1 acknowledges p0 up to offset 9 (ISR (1, 2) at (9, 9))",
        "  0.004 s  n1 is killed, down for 90 ms",
        "  0.094 s  n1 starts again",
        "  0.199 s  n2 cuts p0 from 9 to 4",
        "  0.299 s  BROKEN: acked-durable: ab-0: acknowledged up to 9",
    ]


def test_a_long_story_keeps_what_weighs_most() -> None:
    entries = [entry(n, f"n{n}", "start", "starts") for n in range(40)]
    entries.append(entry(50, "-", "fault", "kill: n1 is killed"))
    entries.append(entry(60, "-", "violation", "raft: broken"))
    story = tell(entries, lines_max=5)
    assert len(story) == 5
    assert story[-2:] == ["  0.013 s  n1 is killed", "  0.023 s  BROKEN: raft: broken"]


# --- replay files ---------------------------------------------------------------------------------


def recorded(**changes: Any) -> dict[str, Any]:
    return {
        "replay": 1,
        "violation": "lost-write",
        "mutant": "",
        "trace_hash": "0-0",
        "program": versions.present(),
        "story": [],
        "seed": 1,
        "plan": draw_plan(Choices(from_seed(1))).to_json(),
        "draws": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no replay file"),
        ("{", "is no replay file"),
        ("[]", "is no replay file"),
        ("{}", "is no replay file"),
        (recorded(replay=9), "has replay version 9, this program reads 1"),
        (recorded(plan={}), "is damaged: not a plan"),
        (recorded(seed="1"), "is damaged: the seed is '1'"),
        (recorded(draws={"a": [1.5]}), "is damaged: the draws of 'a' are not numbers"),
        (recorded(draws=[1]), "is damaged"),
        (
            recorded(program={"commit": "abc123", "source": "0"}),
            "recorded by commit abc123, this is .*; go to that commit, or try --anyway",
        ),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ReplayError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("setup", {"nodes": "3"}, "nodes is '3'"),
        ("setup", {"nods": 3}, "Setup has no nods"),
        ("setup", {"voters": 9}, "the plan's cluster cannot be"),
        ("load", {"duration_ms": None}, "duration_ms is None"),
        ("faults", [{"at_ms": 1, "kind": "meteor"}], "no such fault: meteor"),
        ("faults", [{"at_ms": 1, "kind": "kill", "node": 99}], "names a node that is not there"),
        ("faults", [3], "not a plan: .*int"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(part: str, change: Any, message: str) -> None:
    raw = Plan().to_json()
    raw[part] = {**raw[part], **change} if isinstance(change, dict) else change
    with pytest.raises(Exception, match=message):
        plan_from_json(raw)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be read: No such file"):
        load(tmp_path / "none.json")


def test_a_file_of_another_program_may_be_tried_anyway(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(recorded(program={"source": "0"})))
    assert load(path, anyway=True).seed == 1
