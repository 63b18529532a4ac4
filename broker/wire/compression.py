"""The five codecs of RecordBatch v2, each as other Kafka clients write and read it.

gzip without a timestamp; snappy in the framing of the Java library (magic, then length-prefixed raw
blocks of 32 KiB; bare raw blocks are read too); lz4 and zstd in their standard frame formats, lz4
with independent blocks as Kafka requires. Decompression never yields more than the bound it is
given, whatever the input claims, so a small batch cannot exhaust memory.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import Any

import cramjam
import lz4.frame
import zstandard

from broker.wire.batch_header import Buffer

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024

GZIP_LEVEL = 6
ZSTD_LEVEL = 3
ZSTD_WINDOW_BYTES_MAX = 128 * 1024 * 1024
"""What zstd's own tools accept by default; a frame may ask for far more."""
ZSTD_INPUT_STEP_BYTES = 1024
"""A zstd block of 4 bytes can become 128 KiB: the input is fed in steps that keep the overshoot
beyond the bound below 32 MiB."""

XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER = XERIAL_MAGIC + struct.pack(">ii", 1, 1)
XERIAL_BLOCK_BYTES = 32 * 1024
_BLOCK_LENGTH = struct.Struct(">i")
_GZIP_WBITS = 31


class Codec(IntEnum):
    """The lowest three bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class DecompressionError(ValueError):
    """The bytes are not what the codec wrote, or they decompress to more than is allowed."""


def compress(codec: Codec, data: Buffer) -> bytes:
    """`data` in the format of `codec`; the same bytes for the same input and library versions."""
    match codec:
        case Codec.NONE:
            return bytes(data)
        case Codec.GZIP:
            return zlib.compress(data, GZIP_LEVEL, wbits=_GZIP_WBITS)
        case Codec.SNAPPY:
            return _compress_xerial(data)
        case Codec.LZ4:
            return bytes(lz4.frame.compress(data, block_linked=False))
        case Codec.ZSTD:
            return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)


def decompress(
    codec: Codec, data: Buffer, *, decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX
) -> bytes:
    """What `compress` was given. DecompressionError if malformed or larger than the bound."""
    match codec:
        case Codec.NONE:
            _require_bound(len(data), decompressed_bytes_max)
            return bytes(data)
        case Codec.GZIP:
            return _decompress_gzip(data, decompressed_bytes_max)
        case Codec.SNAPPY:
            return _decompress_snappy(data, decompressed_bytes_max)
        case Codec.LZ4:
            return _decompress_lz4(data, decompressed_bytes_max)
        case Codec.ZSTD:
            return _decompress_zstd(data, decompressed_bytes_max)


def _require_bound(size_bytes: int, decompressed_bytes_max: int) -> None:
    if size_bytes > decompressed_bytes_max:
        raise DecompressionError("decompresses to more bytes than allowed")


def _decompress_gzip(data: Buffer, decompressed_bytes_max: int) -> bytes:
    # A gzip file may be several members one after the other; Java's reader accepts that.
    output: list[bytes] = []
    budget = decompressed_bytes_max
    rest: Buffer = data
    try:
        while True:
            member = zlib.decompressobj(wbits=_GZIP_WBITS)
            chunk = member.decompress(rest, budget + 1)
            _require_bound(len(chunk), budget)
            budget -= len(chunk)
            output.append(chunk)
            if not member.eof:
                raise DecompressionError("gzip data is cut short")
            if not member.unused_data:
                return output[0] if len(output) == 1 else b"".join(output)
            rest = member.unused_data
    except zlib.error as error:
        raise DecompressionError(f"not gzip: {error}") from error


def _compress_xerial(data: Buffer) -> bytes:
    view = memoryview(data)
    parts = [XERIAL_HEADER]
    for start in range(0, len(view), XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + XERIAL_BLOCK_BYTES]))
        parts += (_BLOCK_LENGTH.pack(len(block)), block)
    return b"".join(parts)


def _decompress_snappy(data: Buffer, decompressed_bytes_max: int) -> bytes:
    view = memoryview(data)
    if view[: len(XERIAL_MAGIC)] != XERIAL_MAGIC:
        return _decompress_raw_snappy(view, decompressed_bytes_max)
    # The version and compatibility numbers are not looked at: some writers have them byte-swapped.
    if len(view) < len(XERIAL_HEADER):
        raise DecompressionError("snappy header is cut short")
    output: list[bytes] = []
    budget = decompressed_bytes_max
    position = len(XERIAL_HEADER)
    while position < len(view):
        if position + _BLOCK_LENGTH.size > len(view):
            raise DecompressionError("snappy block length is cut short")
        (block_bytes,) = _BLOCK_LENGTH.unpack_from(view, position)
        position += _BLOCK_LENGTH.size
        if not 0 < block_bytes <= len(view) - position:
            raise DecompressionError(f"snappy block of {block_bytes} bytes does not fit")
        block = _decompress_raw_snappy(view[position : position + block_bytes], budget)
        budget -= len(block)
        output.append(block)
        position += block_bytes
    return b"".join(output)


def _decompress_raw_snappy(block: memoryview, decompressed_bytes_max: int) -> bytes:
    try:
        # The decompressor allocates what the block claims, so the claim is judged first.
        _require_bound(cramjam.snappy.decompress_raw_len(block), decompressed_bytes_max)
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise DecompressionError(f"not snappy: {error}") from error


def _decompress_lz4(data: Buffer, decompressed_bytes_max: int) -> bytes:
    try:
        claimed_bytes: int = lz4.frame.get_frame_info(data)["content_size"]
        decompressor: Any = lz4.frame.LZ4FrameDecompressor()
        # A frame need not state its size; then the output grows step by step up to the bound.
        step = claimed_bytes or 4 * len(data)
        output: list[bytes] = []
        size_bytes = 0
        chunk = decompressor.decompress(data, max_length=min(step, decompressed_bytes_max) + 1)
        while True:
            size_bytes += len(chunk)
            _require_bound(size_bytes, decompressed_bytes_max)
            output.append(chunk)
            if decompressor.eof:
                break
            if decompressor.needs_input or not chunk:
                raise DecompressionError("lz4 frame is cut short")
            step *= 2
            budget = decompressed_bytes_max - size_bytes
            chunk = decompressor.decompress(b"", max_length=min(step, budget) + 1)
    except (RuntimeError, EOFError) as error:
        raise DecompressionError(f"not an lz4 frame: {error}") from error
    if decompressor.unused_data:
        raise DecompressionError("bytes follow the lz4 frame")
    return output[0] if len(output) == 1 else b"".join(output)


def _decompress_zstd(data: Buffer, decompressed_bytes_max: int) -> bytes:
    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.window_size > ZSTD_WINDOW_BYTES_MAX:
            raise DecompressionError(f"zstd window of {parameters.window_size} bytes")
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        claimed_bytes = zstandard.frame_content_size(data)
        if claimed_bytes >= 0:
            _require_bound(claimed_bytes, decompressed_bytes_max)
            return decompressor.decompress(data, allow_extra_data=False)
        stream = decompressor.decompressobj()
        output: list[bytes] = []
        size_bytes = 0
        view = memoryview(data)
        for start in range(0, len(view), ZSTD_INPUT_STEP_BYTES):
            if stream.eof:
                raise DecompressionError("bytes follow the zstd frame")
            chunk = stream.decompress(view[start : start + ZSTD_INPUT_STEP_BYTES])
            size_bytes += len(chunk)
            _require_bound(size_bytes, decompressed_bytes_max)
            output.append(chunk)
    except zstandard.ZstdError as error:
        raise DecompressionError(f"not zstd: {error}") from error
    if not stream.eof:
        raise DecompressionError("zstd frame is cut short")
    if stream.unused_data:
        raise DecompressionError("bytes follow the zstd frame")
    return b"".join(output)
