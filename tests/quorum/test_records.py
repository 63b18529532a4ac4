"""Entries of the metadata log: bytes and back, nothing else taken for one, images that compare."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.quorum.image import MetadataDelta, MetadataImage
from broker.quorum.record_text import describe_records
from broker.quorum.records import (
    RECORD_TYPES,
    BrokerFenced,
    MetadataFormatError,
    PartitionChanged,
    PartitionCreated,
    ProducerIdsAllocated,
    Record,
    RegisterBroker,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    decode_entry,
    encode_entry,
)

ids = st.integers(0, 2**40)
nodes = st.lists(st.integers(1, 9), max_size=5).map(tuple)
text = st.text(max_size=8)
RECORDS = st.one_of(
    st.builds(RegisterBroker, ids, ids, text, text, text, ids),
    st.builds(BrokerFenced, ids, ids, st.booleans()),
    st.builds(TopicCreated, text, text, ids, text, ids, ids),
    st.builds(TopicConfigured, text, text, text),
    st.builds(TopicDeleted, text),
    st.builds(PartitionCreated, text, ids, nodes, nodes, ids, ids, ids),
    st.builds(PartitionChanged, text, ids, st.integers(-1, 9), ids, ids, nodes, nodes),
    st.builds(ProducerIdsAllocated, ids, ids, ids),
)


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(RECORDS, max_size=6))
def test_an_entry_comes_back_as_it_was(records: list[Record]) -> None:
    data = encode_entry(records)
    assert data, "only Raft's own entry is empty"
    assert decode_entry(data) == tuple(records)


def test_rafts_own_entry_says_nothing() -> None:
    assert decode_entry(b"") == ()


def packed(*rows: object) -> bytes:
    return b"\x01" + bytes(msgpack.packb(rows))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x02\x90", "version 2, this program knows 1"),
        (b"\x01", "not msgpack"),
        (b"\x01\x90\x90", "not msgpack"),
        (b"\x01\x07", "not an array of records"),
        (packed(7), "does not begin with its tag"),
        (packed([]), "does not begin with its tag"),
        (packed(["4", "t"]), "does not begin with its tag"),
        (packed([99, "t"]), "unknown record tag 99"),
        (packed([4]), "not a row of 1 fields for TopicDeleted"),
        (packed([4, "t", "u"]), "not a row of 1 fields for TopicDeleted"),
        (packed([4, b"t"]), "TopicDeleted.topic_id cannot be bytes"),
        (packed([2, 1, 2, 1]), "BrokerFenced.fenced cannot be int"),
        (packed([2, True, 2, True]), "BrokerFenced.node_id cannot be bool"),
        (packed([6, "t", 0, 1, 0, 1, [1, None], []]), "PartitionChanged.isr cannot be tuple"),
    ],
)
def test_other_bytes_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(MetadataFormatError, match=what):
        decode_entry(data)


def test_tags_are_for_ever() -> None:
    """A log written by an older program is read by a newer one: this table may only grow."""
    assert {tag: record_type.__name__ for tag, record_type in RECORD_TYPES.items()} == {
        1: "RegisterBroker",
        2: "BrokerFenced",
        3: "TopicCreated",
        4: "TopicDeleted",
        5: "PartitionCreated",
        6: "PartitionChanged",
        7: "ProducerIdsAllocated",
        8: "TopicConfigured",
    }


def test_bytes_of_an_entry() -> None:
    """Golden: version, then one array for each record."""
    entry = [BrokerFenced(1, 5, True), PartitionChanged("t", 0, -1, 3, 4, (1,), (2, 3))]
    assert encode_entry(entry).hex() == "0192" + "94020105c3" + "9806a17400ff0304" + "9101920203"


def test_evidence_names_every_field() -> None:
    assert describe_records([TopicDeleted("abc")]) == '[{"kind":"TopicDeleted","topic_id":"abc"}]'


# --- image ----------------------------------------------------------------------------------------

CREATED: tuple[Record, ...] = (
    TopicCreated("id", "t", 2, "ack", 4_096, 1_024),
    PartitionCreated("id", 0, (1, 2), (1, 2), 1),
    PartitionCreated("id", 1, (2, 1), (1, 2), 2),
)


def test_a_delta_tells_what_an_entry_changed() -> None:
    image, delta = MetadataImage().apply_entry(1, 1, CREATED)
    assert delta == MetadataDelta(topics_created=("id",), partitions_changed=(("id", 0), ("id", 1)))
    after, delta = image.apply_entry(
        2,
        1,
        (
            RegisterBroker(1, 2, "a", "d", "h", 1),
            PartitionChanged("id", 1, -1, 1, 1, (1,), ()),
            BrokerFenced(1, 2, False),
            PartitionChanged("id", 1, 1, 2, 2, (1,), (2,)),
        ),
    )
    assert delta == MetadataDelta(partitions_changed=(("id", 1),), brokers_changed=(1,))
    assert after.partition("id", 1) != image.partition("id", 1)
    assert after.partition("id", 0) is image.partition("id", 0)
    gone, delta = after.apply_entry(3, 2, (TopicDeleted("id"), ProducerIdsAllocated(1, 2, 1_000)))
    assert delta == MetadataDelta(topics_deleted=("id",))
    assert (gone.topics, gone.ids_by_name, gone.next_producer_id) == ({}, {}, 1_000)
    assert (gone.index, gone.term) == (3, 2)


def test_an_image_never_changes() -> None:
    image, _ = MetadataImage().apply_entry(1, 1, CREATED)
    image.apply_entry(2, 1, (TopicDeleted("id"),))
    assert image == MetadataImage().apply_entry(1, 1, CREATED)[0]
    assert image.topic_named("t") is image.topics["id"]
    assert image.topic_named("u") is None
    assert image.partition("id", 2) is None
    assert image.partition("id", -1) is None


@pytest.mark.parametrize(
    "impossible",
    [
        PartitionChanged("id", 0, 1, 0, 2, (1,), ()),  # skips a partition epoch
        PartitionChanged("id", 0, 2, 0, 1, (2,), ()),  # another leader in the same leader epoch
        PartitionChanged("id", 0, 1, 2, 1, (1,), ()),  # skips a leader epoch
        PartitionChanged("id", 0, 2, 1, 1, (1,), ()),  # a leader outside the ISR
        PartitionChanged("id", 0, 1, 0, 1, (1, 3), ()),  # an ISR member that is no replica
        PartitionChanged("id", 0, 1, 0, 1, (2, 1), ()),  # not sorted
        PartitionChanged("id", 0, 1, 0, 1, (1, 2), (2,)),  # in both sets
        PartitionChanged("id", 0, 1, 0, 1, (1,), (3,)),  # an eligible leader that is no replica
        PartitionCreated("id", 5, (1,), (1,), 1),  # a hole in the numbers
        TopicCreated("id", "u", 1, "ack", 4_096, 1_024),  # the id is taken
        TopicCreated("other", "t", 1, "ack", 4_096, 1_024),  # the name is taken
        ProducerIdsAllocated(1, 1, 0),  # ids given twice
    ],
)
def test_impossible_facts_stop_the_node(impossible: Record) -> None:
    image, _ = MetadataImage().apply_entry(1, 1, CREATED)
    with pytest.raises(AssertionError):
        image.apply_entry(2, 1, (impossible,))


def test_only_the_last_incarnations_are_remembered() -> None:
    image = MetadataImage()
    for index in range(1, 13):
        image, _ = image.apply_entry(
            index, 1, (RegisterBroker(1, index, f"life-{index}", "d", "h", 1),)
        )
    former = image.brokers[1].former_incarnations
    assert former == tuple(f"life-{number}" for number in range(4, 12))


@pytest.mark.parametrize(("index", "term"), [(1, 1), (0, 1), (2, 0)])
def test_entries_come_in_order(index: int, term: int) -> None:
    image, _ = MetadataImage().apply_entry(1, 1, ())
    with pytest.raises(AssertionError):
        image.apply_entry(index, term, ())
