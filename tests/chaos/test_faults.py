"""The schedule keeps its bounds and repeats by its seed; shapes cut what they say."""

from __future__ import annotations

from itertools import pairwise

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.faults import (
    DEFAULT_KINDS,
    DEPOSING_FAULTS,
    OUTAGE_KINDS,
    PROFILES,
    Fault,
    FaultKind,
    Shape,
    Timing,
    Victim,
    choose_victim,
    lost_pairs,
    parse_kinds,
    schedule,
    seeded_draw,
    victims_of,
)
from client.cli.chaos import run as chaos_run

seeds = st.integers(0, 2**63)


@given(seed=seeds, load_ms=st.integers(0, 200_000), kinds=st.sets(st.sampled_from(FaultKind)))
def test_faults_keep_their_bounds(seed: int, load_ms: int, kinds: set[FaultKind]) -> None:
    asked = tuple(sorted(kinds, key=lambda kind: kind.value))
    timing = Timing()
    faults = schedule(seeded_draw(seed), load_ms, asked, timing)
    for number, fault in enumerate(faults):
        assert timing.first_ms <= fault.start_ms
        assert fault.end_ms + timing.tail_ms <= load_ms
        if fault.kind in OUTAGE_KINDS:
            assert timing.outage_min_ms <= fault.duration_ms <= timing.outage_max_ms
        elif number < DEPOSING_FAULTS:
            assert timing.deposing_min_ms <= fault.duration_ms <= timing.deposing_max_ms
            assert fault.victim is Victim.LEADER
            assert fault.shape not in (Shape.DEAF, Shape.CLIENTS)
        else:
            assert timing.duration_min_ms <= fault.duration_ms <= timing.duration_max_ms
        assert fault.kind in kinds
        assert (fault.shape is not None) == (fault.kind is FaultKind.PARTITION)
        assert (fault.latency_ms > 0) == (fault.kind is FaultKind.SLOW)
    for earlier, later in pairwise(faults):
        gap_ms = later.start_ms - earlier.end_ms - timing.restart_of(earlier.kind)
        assert timing.gap_min_ms <= gap_ms <= timing.gap_max_ms


@given(seed=seeds)
def test_every_kind_has_its_turn_in_half_a_minute(seed: int) -> None:
    faults = schedule(seeded_draw(seed), 30_000, DEFAULT_KINDS)
    assert {fault.kind for fault in faults} == set(DEFAULT_KINDS)


@given(seed=seeds)
def test_the_same_seed_gives_the_same_schedule(seed: int) -> None:
    first = schedule(seeded_draw(seed), 60_000, DEFAULT_KINDS)
    assert first == schedule(seeded_draw(seed), 60_000, DEFAULT_KINDS)
    assert first != schedule(seeded_draw(seed + 1), 60_000, DEFAULT_KINDS)


def test_the_rule_of_drawing_is_fixed_for_ever() -> None:
    """Recorded seeds must mean the same on other machines, in later versions."""
    draw = seeded_draw(7)
    assert [draw("a", 0, 999), draw("b", 0, 999), draw("a", -5, 5)] == [989, 921, 4]


def test_no_kinds_no_faults() -> None:
    assert schedule(seeded_draw(1), 60_000, ()) == ()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("kill,pause", (FaultKind.KILL, FaultKind.PAUSE)),
        (" partition , partition", (FaultKind.PARTITION,)),
        ("none", ()),
        ("", ()),
    ],
)
def test_kinds_are_parsed(text: str, kinds: tuple[FaultKind, ...]) -> None:
    assert parse_kinds(text) == kinds


@pytest.mark.parametrize(
    ("kind", "node_count", "expected"),
    [
        (FaultKind.KILL, 3, (2,)),
        (FaultKind.STOP, 3, (2,)),
        (FaultKind.KILL_MAJORITY, 3, (2, 3)),
        (FaultKind.KILL_MAJORITY, 5, (2, 3, 4)),
        (FaultKind.KILL_MAJORITY, 2, (2, 1)),
        (FaultKind.KILL_ALL, 3, (2, 3, 1)),
        (FaultKind.ROLLING, 3, (2, 3, 1)),
        (FaultKind.POWER_LOSS, 3, (2, 3, 1)),
    ],
)
def test_whom_a_fault_hits(kind: FaultKind, node_count: int, expected: tuple[int, ...]) -> None:
    assert victims_of(kind, 2, range(1, node_count + 1)) == expected


def test_profiles_are_told_by_the_command_line() -> None:
    (option,) = [option for option in chaos_run.params if option.name == "profile"]
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(PROFILES)
    assert set(PROFILES["nightly"]) == set(FaultKind)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(
        ValueError, match="unknown fault quake: take kill, kill-majority, kill-all, stop"
    ):
        parse_kinds("kill,quake")


def fault(victim: Victim, pick: int = 0) -> Fault:
    return Fault(0, 1_000, FaultKind.KILL, victim, pick)


def test_roles_are_resolved_when_the_time_has_come() -> None:
    nodes = (3, 1, 2)
    assert choose_victim(fault(Victim.LEADER), nodes, leader=2, controller=3) == 2
    assert choose_victim(fault(Victim.CONTROLLER), nodes, leader=2, controller=3) == 3
    assert choose_victim(fault(Victim.LEADER, 5), nodes, leader=None, controller=3) == 3
    assert [choose_victim(fault(Victim.ANY, pick), nodes, 2, 3) for pick in (0, 1, 2, 3)] == [
        1,
        2,
        3,
        1,
    ]


PAIRS = [
    (Shape.ISOLATE, "1>2 1>3 2>1 3>1"),
    (Shape.ISOLATE_WHOLLY, "1>2 1>3 1>c 2>1 3>1 c>1"),
    (Shape.HALVES, "1>2 1>3 2>1 3>1"),
    (Shape.MUTE, "1>2 1>3"),
    (Shape.DEAF, "2>1 3>1"),
    (Shape.CLIENTS, "1>c c>1"),
]


@pytest.mark.parametrize(("shape", "text"), PAIRS, ids=[shape.value for shape, _ in PAIRS])
def test_shapes_cut_what_they_say(shape: Shape, text: str) -> None:
    pairs = lost_pairs(shape, 1, (1, 2, 3), ("c",), pick=0)
    assert " ".join(f"{a}>{b}" for a, b in pairs) == text


def test_every_shape_has_a_row() -> None:
    assert [shape for shape, _ in PAIRS] == list(Shape)


@given(count=st.integers(1, 9), pick=st.integers(0, 2**31 - 1), data=st.data())
def test_halves_leave_a_majority_whole(count: int, pick: int, data: st.DataObject) -> None:
    nodes = tuple(range(1, count + 1))
    victim = data.draw(st.sampled_from(nodes))
    pairs = lost_pairs(Shape.HALVES, victim, nodes, (), pick)
    cut_off = {
        node for node in map(str, nodes) if sum(pair[0] == node for pair in pairs) * 2 > count
    }
    minority = sorted({a for a, b in pairs if (a, str(victim)) not in pairs} | {str(victim)})
    if count >= 3:
        assert str(victim) in minority
        assert len(minority) == (count - 1) // 2
        assert len(cut_off) <= count // 2
    assert all((b, a) in pairs for a, b in pairs)
