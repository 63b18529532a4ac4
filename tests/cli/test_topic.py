"""Topics on the command line: what is understood and what is shown."""

from __future__ import annotations

import pytest

from broker.wire.errors import ErrorCode
from broker.wire.messages import PartitionInfo, Setting, TopicInfo
from client.cli import topic
from client.cli.tables import table
from client.cli.topic import parse_assignment, topic_json

INFO = TopicInfo(
    ErrorCode.NONE,
    "t",
    "0" * 32,
    2,
    "ack",
    1_048_588,
    (Setting("retention_ms", "5"),),
    (
        PartitionInfo(0, 1, 4, 7, (1, 4, 5), (1, 5)),
        PartitionInfo(1, -1, 4, 9, (4, 5, 1), ()),
    ),
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1", ((1,),)),
        ("1,4,5", ((1, 4, 5),)),
        ("1,4,5;4,5,1", ((1, 4, 5), (4, 5, 1))),
        (" 1, 2 ; 2 ,1", ((1, 2), (2, 1))),
    ],
)
def test_assignments(text: str, rows: tuple[tuple[int, ...], ...]) -> None:
    assert parse_assignment(text) == rows


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no list of node ids"),
        ("1,2;", "partition 1"),
        ("1,,2", "no list of node ids"),
        ("1,x", "no list of node ids"),
        ("1,2;3,3", "partition 1 names a node twice"),
        ("-1", "no list of node ids"),
    ],
)
def test_what_is_no_assignment(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_assignment(text)


def test_a_topic_as_json() -> None:
    shown = topic_json(INFO)
    assert shown["topic"] == "t"
    assert shown["partitions"][0] == {
        "partition": 0,
        "leader": 1,
        "leader_epoch": 4,
        "partition_epoch": 7,
        "replicas": [1, 4, 5],
        "isr": [1, 5],
    }


def test_a_partition_without_leader_says_so() -> None:
    assert topic._partition_rows(INFO)[2] == ("1", "none", "4", "9", "4,5,1", "")


def test_tables_align_numbers_to_the_right() -> None:
    assert table([("topic", "count"), ("a", "7"), ("long name", "1,234")]) == (
        "topic      count\na              7\nlong name  1,234"
    )
