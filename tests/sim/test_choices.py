"""The recorder of chance: streams by label, and the simplest where a record ends."""

from __future__ import annotations

import pytest

from chaos.sim.choices import Choices, from_draws, from_seed


def drawn(choices: Choices, labels: str) -> list[int]:
    return [choices.draw(label, 10, 1_000_000) for label in labels]


def test_a_seed_means_the_same_numbers_for_ever() -> None:
    choices = Choices(from_seed(7))
    assert [choices.draw("a", 0, 999) for _ in range(5)] == [912, 0, 81, 998, 749]


def test_labels_do_not_move_one_another() -> None:
    alone = drawn(Choices(from_seed(1)), "aaa")
    beside = drawn(Choices(from_seed(1)), "abcacba")
    assert alone == [beside[0], beside[3], beside[6]]


def test_recorded_draws_give_the_same_run() -> None:
    first = Choices(from_seed(3))
    values = drawn(first, "abcabca")
    again = Choices(from_draws(first.draws))
    assert drawn(again, "abcabca") == values
    assert again.draws == first.draws
    assert first.count == 7


@pytest.mark.parametrize("draws", [{}, {"a": []}, {"a": [99]}, {"a": [-1]}, {"b": [3]}])
def test_what_is_used_up_or_does_not_fit_is_the_lower_bound(draws: dict[str, list[int]]) -> None:
    assert Choices(from_draws(draws)).draw("a", 5, 8) == 5


def test_the_simplest_is_the_first_item_and_no_fault() -> None:
    choices = Choices(from_draws({}))
    assert choices.pick("x", (4, 5, 6)) == 4
    assert not choices.chance("x", 99)


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (100, 200)])
def test_chances_at_the_ends_are_certain(percent: int, expected: int) -> None:
    choices = Choices(from_seed(1))
    assert sum(choices.chance("x", percent) for _ in range(200)) == expected
