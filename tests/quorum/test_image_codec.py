"""An image is the same after it was a snapshot, and tells what changed between two."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.quorum.image import MetadataDelta, MetadataImage, difference
from broker.quorum.image_codec import image_of, snapshot_of
from broker.quorum.records import (
    BrokerFenced,
    MetadataFormatError,
    PartitionChanged,
    PartitionCreated,
    ProducerIdsAllocated,
    Record,
    RegisterBroker,
    TopicCreated,
    TopicDeleted,
)
from broker.quorum.rows import pack
from raft.types import Snapshot

ENTRIES: tuple[tuple[Record, ...], ...] = (
    (),
    (RegisterBroker(2, 2, "b", "d2", "h", 2), BrokerFenced(2, 2, False)),
    (RegisterBroker(1, 3, "a", "d1", "h", 1), BrokerFenced(1, 3, False)),
    (
        TopicCreated("id-t", "t", 2, "ack", 4_096, 1_024),
        PartitionCreated("id-t", 0, (2, 1), (1, 2), 2),
        PartitionCreated("id-t", 1, (1, 2), (1, 2), 1),
    ),
    (
        TopicCreated("id-u", "u", 1, "async", 4_096, 1_024),
        PartitionCreated("id-u", 0, (1,), (1,), 1),
    ),
    (ProducerIdsAllocated(1, 3, 1_000),),
    (PartitionChanged("id-t", 0, 1, 1, 1, (1,), (2,)),),
    (RegisterBroker(2, 8, "b2", "d2", "h", 2),),
    (TopicDeleted("id-u"),),
)


def images() -> list[MetadataImage]:
    image = MetadataImage()
    found = [image]
    for index, records in enumerate(ENTRIES, start=1):
        image, _ = image.apply_entry(index, 1 + index // 4, records)
        found.append(image)
    return found


@pytest.mark.parametrize("image", images()[1:], ids=lambda image: str(image.index))
def test_an_image_comes_back_in_the_same_order(image: MetadataImage) -> None:
    snapshot = snapshot_of(image)
    assert (snapshot.index, snapshot.term) == (image.index, image.term)
    back = image_of(snapshot)
    assert back == image
    assert list(back.brokers) == list(image.brokers), "the same bytes on every node"
    assert list(back.topics) == list(image.topics)
    assert snapshot_of(back) == snapshot


def test_entries_go_on_behind_a_snapshot_as_if_there_were_none() -> None:
    states = images()
    for start, image in enumerate(states[1:-1], start=1):
        following = image_of(snapshot_of(image))
        for later in states[start + 1 :]:
            records = ENTRIES[later.index - 1]
            following, _ = following.apply_entry(later.index, later.term, records)
            assert following == later


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "version none"),
        (b"\x02" + pack((0, (), ())), "version 02"),
        (b"\x01\xc1", "not msgpack"),
        (b"\x01" + pack((0, ())), "not enough values"),
        (b"\x01" + pack((0, ((1,),), ())), "not a row of 8 fields for BrokerImage"),
        (b"\x01" + pack((0, (), (5,))), "not a snapshot"),
    ],
)
def test_other_bytes_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(MetadataFormatError, match=what):
        image_of(Snapshot(1, 1, data))


def test_the_difference_of_two_images_is_what_the_entries_between_said() -> None:
    states = images()
    assert difference(states[0], states[5]) == MetadataDelta(
        ("id-t", "id-u"), (), (("id-t", 0), ("id-t", 1), ("id-u", 0)), (2, 1)
    )
    assert difference(states[5], states[9]) == MetadataDelta((), ("id-u",), (("id-t", 0),), (2,))
    for before in states:
        assert difference(before, before) == MetadataDelta()
    for before, after in pairwise(states):
        _, delta = before.apply_entry(after.index, after.term, ENTRIES[after.index - 1])
        assert difference(before, after) == delta
