"""Placement of records: golden values, and stickiness."""

from __future__ import annotations

import importlib
import warnings

import pytest

from client.partitioner import (
    murmur2,
    murmur2_partition,
    murmur3_partition,
    next_sticky,
    partition_for_key,
)

with warnings.catch_warnings():
    # The library reads its resources in a way that Python 3.11 warns of.
    warnings.simplefilter("ignore")
    kafka_murmur2 = importlib.import_module("kafka.partitioner.default").murmur2

# From Kafka's own UtilsTest.testMurmur2, as unsigned numbers.
KAFKA_MURMUR2 = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "signed"), KAFKA_MURMUR2)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@pytest.mark.parametrize("length", range(40))
def test_murmur2_agrees_with_an_independent_client(length: int) -> None:
    key = bytes(range(200, 200 + length)) if length < 56 else b""
    assert murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("key", "partition"), [(b"", 0), (b"a", 2), (b"abc", 6), (b"key-1", 4), (b"\xff" * 9, 7)]
)
def test_murmur3_golden(key: bytes, partition: int) -> None:
    assert murmur3_partition(key, 12) == partition


def test_the_setting_chooses_the_function() -> None:
    assert partition_for_key("murmur3", b"abc", 12) == murmur3_partition(b"abc", 12)
    assert partition_for_key("murmur2", b"abc", 12) == murmur2_partition(b"abc", 12)
    assert murmur2_partition(b"abc", 12) != murmur3_partition(b"abc", 12)


def ticket(number: int):  # type: ignore[no-untyped-def]
    def draw(label: str, low: int, high: int) -> int:
        assert low <= number <= high
        return number

    return draw


def test_the_next_sticky_partition_is_another_one() -> None:
    chosen = {next_sticky(1, [0, 0, 0], ticket(number)) for number in range(2)}
    assert chosen == {0, 2}


def test_the_only_partition_stays() -> None:
    assert next_sticky(0, [7], ticket(0)) == 0


def test_partitions_without_a_leader_are_passed_over() -> None:
    assert next_sticky(1, [None, 0, 0], ticket(0)) == 2


def test_if_only_the_current_one_has_a_leader_it_stays() -> None:
    assert next_sticky(1, [None, 3, None], ticket(0)) == 1


def test_without_any_leader_all_others_are_equal() -> None:
    assert {next_sticky(0, [None, None, None], ticket(n)) for n in range(2)} == {1, 2}


def test_long_queues_are_less_likely() -> None:
    # Weights 1 and 3 for partitions 1 and 2.
    chosen = [next_sticky(0, [2, 2, 0], ticket(number)) for number in range(4)]
    assert chosen == [1, 2, 2, 2]
