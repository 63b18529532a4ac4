"""Messages to bytes and back: the schema is the annotations, and nothing else is understood."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.codec import Coder, MalformedMessage
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    REQUESTS,
    RESPONSES,
    Appended,
    CreateTopicRequest,
    FetchPart,
    FetchRequest,
    Isolation,
    MetadataRequest,
    ProducePart,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
    Setting,
)

TOPIC_ID = "0123456789abcdef0123456789abcdef"


class Colour(IntEnum):
    RED = 1
    BLUE = 5


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Tree:
    number: int
    flag: bool
    colour: Colour
    leaf: Leaf
    leaves: tuple[Leaf, ...]
    maybe: int | None
    maybe_leaf: Leaf | None
    maybe_names: tuple[str, ...] | None
    grid: tuple[tuple[int, ...], ...]


TREE = Tree(7, True, Colour.BLUE, Leaf("a", b"b"), (Leaf("c", b""),), None, None, None, ((1,), ()))
TREE_FIELDS: list[Any] = [
    7,
    True,
    5,
    ["a", b"b"],
    [["c", b""]],
    None,
    None,
    None,
    [[1], []],
]
CODER = Coder(Tree)


def with_field(place: int, value: Any) -> bytes:
    items = list(TREE_FIELDS)
    items[place] = value
    return bytes(msgpack.packb(items))


def test_a_message_is_the_array_of_its_fields_in_order() -> None:
    assert CODER.encode(TREE) == msgpack.packb(TREE_FIELDS)
    decoded = CODER.decode(msgpack.packb(TREE_FIELDS))
    assert decoded == TREE
    assert type(decoded.colour) is Colour
    assert hash(decoded) == hash(TREE)  # tuples all the way down


def test_golden_bytes_of_a_produce_request() -> None:
    request = ProduceRequest(-1, 30_000, (ProducePart("t" * 32, 2, 9),))
    encoded = Coder(ProduceRequest).encode(request)
    assert encoded.hex() == "93ffcd75309193d920" + "74" * 32 + "0209"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, True, "number: bool True is not int"),
        (0, 1.0, "number: float 1.0 is not int"),
        (0, None, "number: NoneType None is not int"),
        (0, 2**63, "number: int 9223372036854775808 is not int"),
        (0, "7", "number: str '7' is not int"),
        (1, 1, "flag: int 1 is not bool"),
        (2, 2, "colour: int 2 is not Colour"),
        (2, True, "colour: bool True is not Colour"),
        (2, 1.0, "colour: float 1.0 is not Colour"),
        (2, [5], "colour: tuple (5,) is not Colour"),
        (3, ["a"], "leaf: 1 fields instead of 2"),
        (3, ["a", b"", 1], "leaf: 3 fields instead of 2"),
        (3, [b"a", b""], "leaf.name: bytes b'a' is not str"),
        (3, ["a", "b"], "leaf.data: str 'b' is not bytes"),
        (3, "ab", "leaf: str 'ab' is not an array"),
        (3, None, "leaf: NoneType None is not an array"),
        (4, [["c", b""], ["d", 1]], "leaves[1].data: int 1 is not bytes"),
        (4, [["c", b""], 3], "leaves[1]: int 3 is not an array"),
        (4, None, "leaves: NoneType None is not an array"),
        (5, "x", "maybe: str 'x' is not int"),
        (5, 2**64 - 1, "maybe: int 18446744073709551615 is not int"),
        (6, [1, b""], "maybe_leaf.name: int 1 is not str"),
        (7, ["a", None], "maybe_names[1]: NoneType None is not str"),
        (8, [[1], [2, "3"]], "grid[1][1]: str '3' is not int"),
        (8, [1], "grid[0]: int 1 is not an array"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(place: int, value: Any, said: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        CODER.decode(with_field(place, value))
    assert str(error.value) == said
    assert error.value.path == said.split(":")[0]


def test_extremes_of_64_bits_are_in_range() -> None:
    for number in (-(2**63), 2**63 - 1):
        assert CODER.decode(with_field(0, number)).number == number


def test_long_values_are_cut_in_what_is_said() -> None:
    with pytest.raises(MalformedMessage) as error:
        CODER.decode(with_field(0, "x" * 100_000))
    assert len(str(error.value)) < 100


@pytest.mark.parametrize("value", [None, 3, "abc", b"", [], TREE_FIELDS[:-1], [*TREE_FIELDS, 1]])
def test_wrong_arity_or_no_array(value: Any) -> None:
    with pytest.raises(MalformedMessage):
        CODER.decode(msgpack.packb(value))


def test_a_field_with_a_default_is_still_demanded() -> None:
    part = ProducePartResult(TOPIC_ID, 0, ErrorCode.NONE, Appended.YES, 5, 1, 2, 0)
    coder = Coder(ProduceResponse)
    assert coder.decode(coder.encode(ProduceResponse((part,)))).parts[0].detail == ""
    rows = msgpack.unpackb(coder.encode(ProduceResponse((part,))))
    del rows[0][0][-1]
    with pytest.raises(MalformedMessage, match=r"parts\[0\]: 8 fields instead of 9"):
        coder.decode(msgpack.packb(rows))


def test_lists_are_not_taken_for_tuples_of_another_schema() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd:
        pair: tuple[int, int]

    @dataclass(frozen=True, slots=True)
    class Mapping:
        names: dict[str, int]

    for message_type in (Odd, Mapping):
        # Annotations of local classes are evaluated here, where the names are known.
        with pytest.raises(TypeError, match="has no place in a message"):
            Coder(message_type)


def test_messages_with_one_field_and_with_none() -> None:
    coder = Coder(MetadataRequest)
    for topics in (None, (), ("a", "b")):
        assert coder.decode(coder.encode(MetadataRequest(topics))).topics == topics

    @dataclass(frozen=True, slots=True)
    class Nothing:
        pass

    @dataclass(frozen=True, slots=True)
    class One:
        number: int

    assert Coder(Nothing).encode(Nothing()) == b"\x90"
    assert Coder(Nothing).decode(b"\x90") == Nothing()
    assert Coder(One).decode(Coder(One).encode(One(3))) == One(3)


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field, by the schema itself."""
    if annotation is int:
        return st.integers(-(2**63), 2**63 - 1)
    if annotation is str:
        return st.text(max_size=12)
    if annotation is bytes:
        return st.binary(max_size=12)
    if annotation is bool:
        return st.booleans()
    if is_dataclass(annotation):
        hints = get_type_hints(annotation)
        return st.builds(annotation, **{name: of_type(hint) for name, hint in hints.items()})  # type: ignore[arg-type]
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple:
        return st.lists(of_type(arguments[0]), max_size=3).map(tuple)
    if arguments:
        return st.one_of(*map(of_type, arguments))
    return st.none() if annotation is NoneType else st.sampled_from(annotation)


MESSAGE_TYPES = sorted({*REQUESTS.values(), *RESPONSES.values()}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("message_type", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_message_comes_back(message_type: type[Any], data: st.DataObject) -> None:
    message = data.draw(of_type(message_type))
    coder = Coder(message_type)
    encoded = coder.encode(message)
    decoded = coder.decode(encoded)
    assert decoded == message
    assert type(decoded) is message_type
    assert coder.decode(memoryview(bytearray(encoded))) == message


FETCH = FetchRequest(
    2,
    77,
    1_234,
    55,
    250,
    1,
    1 << 20,
    Isolation.READ_UNCOMMITTED,
    tuple(FetchPart(TOPIC_ID, place, 5, 5, 123_456, 123_456, 0, 1 << 20) for place in range(1)),
)


def test_every_cut_and_every_changed_byte_is_refused_or_another_message() -> None:
    coder = Coder(FetchRequest)
    encoded = coder.encode(FETCH)
    for size in range(len(encoded)):
        with pytest.raises(MalformedMessage):
            coder.decode(encoded[:size])
    with pytest.raises(MalformedMessage):
        coder.decode(encoded + b"\xc0")
    for position in range(len(encoded)):
        for byte in range(256):
            damaged = bytearray(encoded)
            damaged[position] = byte
            try:
                message = coder.decode(damaged)
            except MalformedMessage:
                continue
            assert coder.decode(coder.encode(message)) == message


CODERS = [Coder[Any](kind) for kind in (FetchRequest, CreateTopicRequest, Setting, Tree)]


@settings(max_examples=100, deadline=None)
@given(
    value=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=3)),
        lambda inner: st.lists(inner, max_size=10),
        max_leaves=20,
    )
)
def test_other_values_are_malformed_and_nothing_else(value: object) -> None:
    for coder in CODERS:
        try:
            message = coder.decode(msgpack.packb(value))
        except MalformedMessage:
            continue
        assert len(fields(message)) == len(value)  # type: ignore[arg-type]
