"""The parts of `prozess perf` that need no cluster: numbers, order of runs, tables, checks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.cli.common import Failure
from client.cli.perf_load import Checked, Load, require_growth
from client.cli.perf_machine import ProcessMeter, machine, measure_sync, percentile, sample
from client.cli.perf_matrix import Cell, Measured, cells, matrix_table, schedule, summarise
from client.retry import SendFailed
from tests.cli.fakes import FakeSender, failure


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, 0),
        ([7], 50, 7),
        ([7], 99, 7),
        ([3, 1, 2], 50, 2),
        ([4, 3, 2, 1], 50, 2),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 101)), 100, 100),
        (list(range(1, 1_001)), 99, 990),
    ],
)
def test_percentiles_are_values_that_occurred(
    values: list[int], percent: int, expected: int
) -> None:
    assert percentile(values, percent) == expected


def test_a_load_in_numbers() -> None:
    load = Load(1_000, 100_000, 500_000_000, [1_000, 2_000, 9_000])
    assert load.to_json() == {
        "records": 1_000,
        "seconds": 0.5,
        "records_per_s": 2_000,
        "mb_per_s": 0.2,
        "ack_p50_ms": 2.0,
        "ack_p99_ms": 9.0,
        "ack_max_ms": 9.0,
    }


# --- results are looked at ------------------------------------------------------------------------


def test_every_batch_of_handles_is_checked() -> None:
    sender = FakeSender(batch_records=7)
    checked = Checked()
    for _ in range(10):
        checked.add([sender.send("t", b"v") for _ in range(20)])
    assert 0 < checked.delivered_count < 200, "the last batch is not complete yet"
    sender.complete_all()
    checked.finish()
    assert checked.delivered_count == 200


@pytest.mark.parametrize("bad_batch", [0, 3, 9])
def test_one_failed_batch_ends_the_measurement(bad_batch: int) -> None:
    sender = FakeSender(batch_records=5)
    sender.outcomes[bad_batch] = failure(definite=False)
    checked = Checked()
    handles = [sender.send("t", b"v") for _ in range(50)]
    sender.complete_all()
    with pytest.raises(SendFailed):
        checked.add(handles)


def test_the_log_must_have_grown_by_what_was_acknowledged() -> None:
    before, after = {("t", 0): 5, ("t", 1): 0}, {("t", 0): 15, ("t", 1): 10}
    require_growth(before, after, 20)
    for count in (19, 21):
        with pytest.raises(Failure, match=f"{count} records were acknowledged"):
            require_growth(before, after, count)


# --- the series -----------------------------------------------------------------------------------


def test_each_round_visits_every_configuration_once() -> None:
    configurations = cells()
    assert len(configurations) == 18
    visits = list(schedule(configurations, 3))
    for number in range(3):
        seen = [cell for at, cell in visits if at == number]
        assert sorted(seen) == sorted(configurations)


def test_modes_are_neighbours_and_take_turns() -> None:
    visits = [cell for _, cell in schedule(cells((1,), (16, 64)), 2)]
    assert [(cell.batch_kib, cell.flush) for cell in visits] == [
        (16, "ack"),
        (16, "async"),
        (64, "ack"),
        (64, "async"),
        (16, "async"),
        (16, "ack"),
        (64, "async"),
        (64, "ack"),
    ]


def test_the_ratio_is_that_of_neighbours() -> None:
    """The machine was half as fast in the second round; the ratio knows nothing of it."""
    ack, other = Cell(1, 64, "ack"), Cell(1, 64, "async")
    rows = summarise(
        {
            ack: [Measured(60, 1.0, 2.0), Measured(30, 1.0, 2.0), Measured(60, 3.0, 4.0)],
            other: [Measured(100, 1.0, 2.0), Measured(50, 1.0, 2.0), Measured(100, 1.0, 2.0)],
        }
    )
    assert len(rows) == 1
    assert rows[0]["ratio"] == 0.6
    assert rows[0]["ack"]["records_per_s"] == 60
    assert rows[0]["ack"]["records_per_s_min"] == 30
    assert rows[0]["rounds"] == 3


def test_the_table() -> None:
    run = [Measured(500_000, 1.25, 3.5)]
    rows = summarise({Cell(3, 16, "ack"): run, Cell(3, 16, "async"): run})
    assert matrix_table(rows).splitlines() == [
        "partitions  batch KiB  ack k/s  ms       async k/s  ms       ack/async",
        "         3         16      500  1.2/3.5        500  1.2/3.5       1.00",
    ]


# --- the machine ----------------------------------------------------------------------------------


def test_this_process_can_be_measured() -> None:
    shown = ProcessMeter({"client": os.getpid()}).read()
    assert set(shown["client"]) == {"cores", "resident_mb", "resident_peak_mb"}
    assert shown["client"]["resident_mb"] > 1


def test_a_process_that_is_gone_is_left_out() -> None:
    gone = 2**22 + 1  # beyond the largest pid that Linux hands out
    assert sample(gone) is None
    assert ProcessMeter({"gone": gone}).read() == {}


def test_the_probe_of_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    times = measure_sync(tmp_path, size_bytes=4_096, count=5)
    assert 0 <= times.p50_us <= times.p99_us
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_described() -> None:
    assert machine()["cpus"] >= 1
