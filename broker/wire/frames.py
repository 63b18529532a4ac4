"""The envelope of a message: ZeroMQ multipart `[header] [payload frame ...]`.

The header is one byte of protocol version and the msgpack array (kind, api, correlation id, body).
The body says how many payload frames follow (`payload_frames` of its class, else none); they hold
batches and are passed through as they are, in both directions.

Small messages to one peer travel together: a multipart may hold several, one behind the other. What
costs is waking the other side, not the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from broker.wire.batch_header import Buffer
from broker.wire.bounded_msgpack import MalformedMessage, pack, unpack
from broker.wire.codec import Coder
from broker.wire.messages import REQUESTS, RESPONSES, Api

PROTOCOL_VERSION = 1
HEADER_BYTES_MAX = 8 * 1024 * 1024
FRAMES_MAX = 65_537
BUNDLE_BYTES_MAX = 131_072
"""More than this in one multipart would make the first message wait for the last."""

_VERSION = bytes((PROTOCOL_VERSION,))
_ENVELOPE_FIELDS = 4
CORRELATION_ID_MAX = (1 << 63) - 1


class Kind(IntEnum):
    REQUEST = 0
    RESPONSE = 1
    ONEWAY = 2
    """A request that gets no response."""


class UnsupportedVersion(MalformedMessage):
    """The peer speaks another version of the protocol; nothing behind the first byte was read."""


class Message(NamedTuple):
    kind: Kind
    api: Api
    correlation_id: int
    """Chosen by the sender of a request; its response carries the same."""
    body: Any
    """An instance of REQUESTS[api], or of RESPONSES[api] if `kind` is RESPONSE."""
    payload: tuple[Buffer, ...]


def encode(
    kind: Kind, correlation_id: int, body: object, payload: Sequence[Buffer] = ()
) -> list[Buffer]:
    """The frames of a message; `payload` has the frames that `body` declares, in its order.

    Raises KeyError for a body that is no message of this kind.
    """
    api, coder = _WRITERS[kind, type(body)]
    assert len(payload) == _payload_frames(body), "payload frames differ from what the body says"
    header = _VERSION + pack((kind, api, correlation_id, coder.to_fields(body)))
    return [header, *payload]


def bundles(messages: Iterable[Sequence[Buffer]]) -> Iterator[list[Sequence[Buffer]]]:
    """Consecutive messages, as from `encode`, that go into one multipart: as many as stay within
    BUNDLE_BYTES_MAX together, at least one."""
    bundle: list[Sequence[Buffer]] = []
    room_bytes = BUNDLE_BYTES_MAX
    for message in messages:
        size_bytes = sum(map(len, message))
        if bundle and size_bytes > room_bytes:
            yield bundle
            bundle, room_bytes = [], BUNDLE_BYTES_MAX
        bundle.append(message)
        room_bytes -= size_bytes
    if bundle:
        yield bundle


def decode(frames: Sequence[Buffer]) -> Message:
    """The one message in `frames`, as received; MalformedMessage if it is none or more."""
    message, end = _decode_at(frames, 0)
    if end < len(frames):
        raise MalformedMessage(f"{len(frames) - 1} payload frames, {end - 1} declared")
    return message


def decode_bundle(frames: Sequence[Buffer]) -> list[Message]:
    """All messages in `frames`, at least one; MalformedMessage if anything in it is none."""
    messages: list[Message] = []
    end = 0
    while end < len(frames) or not messages:
        message, end = _decode_at(frames, end)
        messages.append(message)
    return messages


def _decode_at(frames: Sequence[Buffer], start: int) -> tuple[Message, int]:
    """The message whose header is at `start`, and where the next one begins."""
    if not 1 <= len(frames) <= FRAMES_MAX:
        raise MalformedMessage(f"{len(frames)} frames")
    header = frames[start]
    if len(header) > HEADER_BYTES_MAX:
        raise MalformedMessage(f"header of {len(header)} bytes")
    if not header or header[0] != PROTOCOL_VERSION:
        raise UnsupportedVersion(f"protocol version {bytes(header[:1]).hex()}")
    fields = unpack(header[1:])
    if type(fields) is not tuple or len(fields) != _ENVELOPE_FIELDS:
        raise MalformedMessage(f"envelope is not an array of {_ENVELOPE_FIELDS}")
    kind, api, correlation_id, body_fields = fields
    if type(kind) is not int or type(api) is not int or (kind, api) not in _READERS:
        raise MalformedMessage(f"no message of kind {kind!r:.40} and api {api!r:.40}")
    if type(correlation_id) is not int or not 0 <= correlation_id <= CORRELATION_ID_MAX:
        raise MalformedMessage(f"correlation id {correlation_id!r:.40}")
    kind, api, coder = _READERS[kind, api]
    body = coder.from_fields(body_fields)
    end = start + 1 + _payload_frames(body)
    if end > len(frames):
        raise MalformedMessage(
            f"{len(frames) - start - 1} payload frames, {end - start - 1} declared"
        )
    return Message(kind, api, correlation_id, body, tuple(frames[start + 1 : end])), end


def _payload_frames(body: object) -> int:
    count: int = getattr(body, "payload_frames", 0)
    return count


def _coders() -> Iterator[tuple[Kind, Api, Coder[Any]]]:
    for api, request_type in REQUESTS.items():
        coder: Coder[Any] = Coder(request_type)
        yield Kind.REQUEST, api, coder
        yield Kind.ONEWAY, api, coder
    for api, response_type in RESPONSES.items():
        response_coder: Coder[Any] = Coder(response_type)
        yield Kind.RESPONSE, api, response_coder


_READERS = {(int(kind), int(api)): (kind, api, coder) for kind, api, coder in _coders()}
_WRITERS = {(kind, coder.message_type): (api, coder) for kind, api, coder in _READERS.values()}
