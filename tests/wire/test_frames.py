"""The envelope: what goes in comes out, and anything else is `MalformedMessage`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import msgpack
import pytest

from broker.wire import frames
from broker.wire.batch_header import Buffer
from broker.wire.codec import MalformedMessage
from broker.wire.errors import ErrorCode
from broker.wire.frames import Kind, UnsupportedVersion
from broker.wire.messages import (
    REQUESTS,
    RESPONSES,
    Api,
    BrokerHeartbeatRequest,
    FetchPartResult,
    FetchResponse,
    ListOffsetsResponse,
    MetadataRequest,
    ProducePart,
    ProduceRequest,
    ProduceResponse,
    RaftRequest,
)

TOPIC_ID = "0123456789abcdef0123456789abcdef"
PRODUCE = ProduceRequest(-1, 1_000, (ProducePart(TOPIC_ID, 0, 1), ProducePart(TOPIC_ID, 1, 1)))
HEARTBEAT = BrokerHeartbeatRequest(1, 2, 3, False, ())
RESULT = FetchPartResult(TOPIC_ID, 0, ErrorCode.NONE, 1, 2, 3, 0, 4, -1, -1, True)


def header_of(*envelope: object, version: int = frames.PROTOCOL_VERSION) -> bytes:
    return bytes((version,)) + bytes(msgpack.packb(envelope))


def test_a_request_with_payload_comes_back() -> None:
    batches: list[Buffer] = [b"first", memoryview(bytearray(b"second"))]
    sent = frames.encode(Kind.REQUEST, 77, PRODUCE, batches)
    message = frames.decode(sent)
    assert message[:4] == (Kind.REQUEST, Api.PRODUCE, 77, PRODUCE)
    assert len(sent) == 3


def test_payload_frames_are_passed_through_not_copied() -> None:
    batches: list[Buffer] = [bytearray(b"first"), memoryview(b"second")]
    sent = frames.encode(Kind.REQUEST, 1, PRODUCE, batches)
    assert sent[1] is batches[0]
    assert sent[2] is batches[1]
    payload = frames.decode(sent).payload
    assert payload[0] is batches[0]
    assert payload[1] is batches[1]


def test_golden_bytes() -> None:
    assert frames.encode(Kind.REQUEST, 300, HEARTBEAT) == [
        bytes.fromhex("0194003fcd012c95010203c290")
    ]


@pytest.mark.parametrize("api", REQUESTS)
def test_each_request_is_named_by_its_class(api: Api) -> None:
    assert (Kind.REQUEST, REQUESTS[api]) in frames._WRITERS
    assert frames._WRITERS[Kind.ONEWAY, REQUESTS[api]][0] is api


def test_requests_and_responses_have_classes_of_their_own() -> None:
    """Else the class of a body would not say its api."""
    assert len(set(REQUESTS.values())) == len(REQUESTS)
    assert len(set(RESPONSES.values())) == len(RESPONSES)


def test_a_response_is_read_as_the_response_of_its_api() -> None:
    sent = frames.encode(Kind.RESPONSE, 5, ListOffsetsResponse(()))
    assert frames.decode(sent).body == ListOffsetsResponse(())
    assert frames.decode(sent).api is Api.LIST_OFFSETS


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.RESPONSE, HEARTBEAT),
        (Kind.REQUEST, ProduceResponse(())),
        (Kind.ONEWAY, ProduceResponse(())),
        (Kind.REQUEST, "a string"),
    ],
)
def test_a_body_that_is_no_message_of_its_kind_is_not_sent(kind: Kind, body: object) -> None:
    with pytest.raises(KeyError):
        frames.encode(kind, 1, body)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_number_of_payload_frames_is_what_the_body_declares(count: int) -> None:
    sent = frames.encode(Kind.REQUEST, 1, PRODUCE, [b"a", b"b"])
    with pytest.raises(MalformedMessage, match=f"{count} payload frames, 2 declared"):
        frames.decode([sent[0], *[b"batch"] * count])
    with pytest.raises(AssertionError):
        frames.encode(Kind.REQUEST, 1, PRODUCE, [b"batch"] * count)


def test_a_response_declares_its_frames_per_partition() -> None:
    empty = replace(RESULT, has_batches=False)
    body = FetchResponse(1, 2, (RESULT, empty, RESULT))
    sent = frames.encode(Kind.RESPONSE, 1, body, [b"one", b"two"])
    assert frames.decode(sent).payload == (b"one", b"two")
    with pytest.raises(MalformedMessage, match="1 payload frames, 2 declared"):
        frames.decode(sent[:2])


def test_a_message_without_payload_has_one_frame() -> None:
    sent = frames.encode(Kind.REQUEST, 1, HEARTBEAT)
    with pytest.raises(MalformedMessage, match="1 payload frames, 0 declared"):
        frames.decode([*sent, b""])


def test_messages_that_travel_together_come_apart_again() -> None:
    sent = [
        frames.encode(Kind.REQUEST, 1, PRODUCE, [b"a", b"b"]),
        frames.encode(Kind.REQUEST, 2, HEARTBEAT),
        frames.encode(Kind.REQUEST, 3, PRODUCE, [b"c", b"d"]),
    ]
    together = [part for message in sent for part in message]
    assert frames.decode_bundle(together) == [frames.decode(message) for message in sent]
    with pytest.raises(MalformedMessage, match="5 payload frames, 2 declared"):
        frames.decode(together[:6])
    for cut in (0, 1, 2, 5, 6):
        with pytest.raises(MalformedMessage):
            frames.decode_bundle(together[:cut])
    with pytest.raises(UnsupportedVersion):
        frames.decode_bundle([*together, b""])


def test_a_bundle_has_what_fits_and_at_least_one_message() -> None:
    third = frames.BUNDLE_BYTES_MAX // 3
    whole = frames.BUNDLE_BYTES_MAX
    wanted = [[third, third, third], [third, whole - third], [whole + 1], [whole], [1, 1]]
    messages = [[b"x" * (size - 1), b"y"] for sizes in wanted for size in sizes]
    together = [
        [sum(map(len, message)) for message in bundle] for bundle in frames.bundles(messages)
    ]
    assert together == wanted
    assert list(frames.bundles([])) == []


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_told_apart(version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"protocol version {version:02x}"):
        frames.decode([bytes((version,)) + b"anything"])


GARBAGE: list[list[bytes]] = [
    [],
    [b""],
    [b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"],
    [b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL"],
    [b"\x01"],
    [b"\x01\xc0"],
    [b"\x01\x90"],
    [b"\x01" + b"\x91" * 3_000],
    [b"\x01" + b"\xdc\xff\xff" * 30_000],
    [header_of(0, 63, 1, [1, 2, 3, False]) + b"\x00"],
    [header_of(0, 63, 1)],
    [header_of(0, 63, 1, [1, 2, 3, False], 0)],
    [header_of(3, 63, 1, [1, 2, 3, False])],
    [header_of(False, 63, 1, [1, 2, 3, False])],
    [header_of(0.0, 63, 1, [1, 2, 3, False])],
    [header_of([], 63, 1, [1, 2, 3, False])],
    [header_of(0, 64, 1, [1, 2, 3, False])],
    [header_of(0, None, 1, [1, 2, 3, False])],
    [header_of(1, 52, 1, [])],  # Raft's messages have no response
    [header_of(0, 63, -1, [1, 2, 3, False])],
    [header_of(0, 63, 2**63, [1, 2, 3, False])],
    [header_of(0, 63, True, [1, 2, 3, False])],
    [header_of(0, 63, "1", [1, 2, 3, False])],
    [header_of(0, 63, 1, [1, 2, 3])],
    [header_of(0, 63, 1, {"a": 1})],
    [header_of(0, 63, 1, [1, 2, 3, 0])],
    [header_of(0, 63, 1, None)],
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda parts: b"|".join(parts)[:12].hex())
def test_garbage(garbage: Sequence[bytes]) -> None:
    with pytest.raises(MalformedMessage):
        frames.decode(garbage)


def test_the_path_of_a_wrong_field_is_told() -> None:
    with pytest.raises(MalformedMessage, match=r"^want_fence: int 0 is not bool$"):
        frames.decode([header_of(0, 63, 1, [1, 2, 3, 0, []])])


def test_caps_on_header_bytes_and_frames() -> None:
    large = RaftRequest("cluster", 1, 5, b"x" * 4_000_000)
    assert frames.decode(frames.encode(Kind.ONEWAY, 0, large)).body == large
    too_large = replace(large, body=b"x" * frames.HEADER_BYTES_MAX)
    with pytest.raises(MalformedMessage, match=r"header of 8388\d+ bytes"):
        frames.decode(frames.encode(Kind.ONEWAY, 0, too_large))
    sent = frames.encode(Kind.REQUEST, 1, HEARTBEAT)
    with pytest.raises(MalformedMessage, match="65538 frames"):
        frames.decode(sent + [b""] * frames.FRAMES_MAX)


def test_frames_in_the_wrong_order_or_split_are_refused() -> None:
    header, first, second = frames.encode(Kind.REQUEST, 1, PRODUCE, [b"a" * 100, b"b" * 100])
    for wrong in (
        [first, header, second],
        [second],
        [header[:10], header[10:], first, second],
        [bytes(header) + bytes(first), second],
        [header, header, first, second],
    ):
        with pytest.raises(MalformedMessage):
            frames.decode(wrong)


def test_every_cut_and_random_bytes_raise_nothing_else() -> None:
    header = bytes(frames.encode(Kind.REQUEST, 1, MetadataRequest(("topic",)))[0])
    for size in range(len(header)):
        with pytest.raises(MalformedMessage):
            frames.decode([header[:size]])
    draw = random.Random(5)
    for _ in range(5_000):
        damaged = bytearray(header)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            frames.decode([damaged])
        except MalformedMessage:
            continue
    for _ in range(2_000):
        with pytest.raises(MalformedMessage):
            frames.decode([b"\x01" + draw.randbytes(draw.randrange(60))])
