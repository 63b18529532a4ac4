"""The codecs: formats of other clients, bounds that hold, damage that is named."""

from __future__ import annotations

import gzip
import random
import resource
import zlib

import cramjam
import lz4.frame
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.compression import (
    XERIAL_BLOCK_BYTES,
    Codec,
    DecompressionError,
    compress,
    decompress,
)

TEXT = b"Jemand musste Josef K. verleumdet haben. " * 3_000
REAL_CODECS = [codec for codec in Codec if codec is not Codec.NONE]

# "prozess prozess prozess", written by gzip(1) or by hand after the format's description.
SAID = b"prozess prozess prozess"
GOLDEN = {
    # With a name and a time in its header.
    Codec.GZIP: "1f8b080800e10b5e0003747269616c2e747874002b28caaf4a2d2e562840a501a2a4ff8017000000",
    # 23 bytes: a literal of 8, then 15 bytes copied from 8 back.
    Codec.SNAPPY: "82534e415050590000000001000000010000000d171c70726f7a657373203a0800",
    # Version 1, independent blocks of 64 KiB; one stored block; end mark.
    Codec.LZ4: "04224d1860408217000080" + SAID.hex() + "00000000",
    # Single segment of 23 bytes; one last, raw block.
    Codec.ZSTD: "28b52ffd2017b90000" + SAID.hex(),
}


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_golden_bytes_of_other_writers(codec: Codec) -> None:
    assert decompress(codec, bytes.fromhex(GOLDEN[codec])) == SAID


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=3_000), codec=st.sampled_from(Codec))
def test_any_bytes_come_back(data: bytes, codec: Codec) -> None:
    compressed = compress(codec, data)
    assert decompress(codec, compressed) == data
    assert decompress(codec, memoryview(bytearray(compressed))) == data
    assert compress(codec, memoryview(bytearray(data))) == compressed


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", [0, 1, XERIAL_BLOCK_BYTES, XERIAL_BLOCK_BYTES + 1, 100_000])
def test_sizes_around_the_blocks(codec: Codec, size: int) -> None:
    data = TEXT[:size]
    assert decompress(codec, compress(codec, data)) == data


def test_gzip_has_no_timestamp_and_is_read_by_others() -> None:
    compressed = compress(Codec.GZIP, TEXT)
    assert compressed[:4] == b"\x1f\x8b\x08\x00"
    assert compressed[4:8] == bytes(4)
    assert gzip.decompress(compressed) == TEXT


def test_gzip_of_several_members() -> None:
    assert decompress(Codec.GZIP, gzip.compress(b"one, ") + gzip.compress(b"two")) == b"one, two"


def test_snappy_is_framed_as_the_java_library_does() -> None:
    compressed = compress(Codec.SNAPPY, TEXT)
    assert compressed[:16].hex() == "82534e41505059000000000100000001"
    size = int.from_bytes(compressed[16:20], "big")
    first_block = bytes(cramjam.snappy.decompress_raw(compressed[20 : 20 + size]))
    assert first_block == TEXT[:XERIAL_BLOCK_BYTES]


def test_snappy_without_framing_and_with_swapped_version_numbers() -> None:
    assert decompress(Codec.SNAPPY, bytes(cramjam.snappy.compress_raw(TEXT))) == TEXT
    swapped = bytearray(compress(Codec.SNAPPY, TEXT))
    swapped[8:16] = b"\x01\x00\x00\x00" * 2
    assert decompress(Codec.SNAPPY, swapped) == TEXT


def test_lz4_blocks_are_independent_as_kafka_demands() -> None:
    info = lz4.frame.get_frame_info(compress(Codec.LZ4, TEXT))
    assert info["block_linked"] is False
    assert info["block_size_id"] == lz4.frame.BLOCKSIZE_MAX64KB


def test_frames_that_do_not_state_their_size() -> None:
    unsized = lz4.frame.compress(TEXT, store_size=False)
    assert decompress(Codec.LZ4, unsized) == TEXT
    stream = zstandard.ZstdCompressor().compressobj()
    unsized = stream.compress(TEXT) + stream.flush()
    assert zstandard.frame_content_size(unsized) == -1
    assert decompress(Codec.ZSTD, unsized) == TEXT


def unsized_bomb(codec: Codec, size: int) -> bytes:
    if codec is Codec.LZ4:
        return bytes(lz4.frame.compress(bytes(size), store_size=False))
    if codec is Codec.ZSTD:
        stream = zstandard.ZstdCompressor().compressobj()
        return stream.compress(bytes(size)) + stream.flush()
    return compress(codec, bytes(size))


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("make", [lambda codec, size: compress(codec, bytes(size)), unsized_bomb])
def test_the_bound_holds_to_the_byte(codec: Codec, make: object) -> None:
    assert callable(make)
    bomb = make(codec, 300_000)
    assert decompress(codec, bomb, decompressed_bytes_max=300_000) == bytes(300_000)
    for bound in (299_999, 1_000, 1, 0):
        with pytest.raises(DecompressionError, match="more bytes than allowed"):
            decompress(codec, bomb, decompressed_bytes_max=bound)


def giant_bomb(codec: Codec, mebibytes: int) -> bytes:
    """Made piece by piece, so that making it does not take the memory that is measured."""
    piece = bytes(1024 * 1024)
    if codec is Codec.SNAPPY:
        framed = compress(codec, piece)
        return framed[:16] + framed[16:] * mebibytes
    if codec is Codec.LZ4:
        context = lz4.frame.LZ4FrameCompressor()
        parts = [context.begin(), *(context.compress(piece) for _ in range(mebibytes))]
        return b"".join([*parts, context.flush()])
    stream = (
        zlib.compressobj(wbits=31)
        if codec is Codec.GZIP
        else zstandard.ZstdCompressor(level=1).compressobj()
    )
    return b"".join([*(stream.compress(piece) for _ in range(mebibytes)), stream.flush()])


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_a_bomb_costs_no_more_memory_than_the_bound(codec: Codec) -> None:
    bomb = giant_bomb(codec, 100)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DecompressionError, match="more bytes"):
        decompress(codec, bomb, decompressed_bytes_max=1024 * 1024)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 48 * 1024


def test_snappy_blocks_share_one_bound() -> None:
    block = bytes(cramjam.snappy.compress_raw(bytes(1_000)))
    framed = compress(Codec.SNAPPY, b"")[:16] + (len(block).to_bytes(4, "big") + block) * 3
    assert len(decompress(Codec.SNAPPY, framed, decompressed_bytes_max=3_000)) == 3_000
    with pytest.raises(DecompressionError, match="more bytes"):
        decompress(Codec.SNAPPY, framed, decompressed_bytes_max=2_999)


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_every_cut_is_refused(codec: Codec) -> None:
    compressed = compress(codec, TEXT)
    step = max(1, len(compressed) // 200)
    allowed = {16} if codec is Codec.SNAPPY else set()  # a frame of no blocks is a frame
    for size in {*range(0, len(compressed), step), *range(20)} - allowed:
        with pytest.raises(DecompressionError):
            decompress(codec, compressed[:size])


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.LZ4, Codec.ZSTD])
def test_bytes_after_the_end_are_refused(codec: Codec) -> None:
    for compressed in (compress(codec, TEXT), unsized_bomb(codec, 10_000)):
        for rest in (b"\x00", b"more", compressed[:5]):
            with pytest.raises(DecompressionError):
                decompress(codec, compressed + rest)


@pytest.mark.parametrize("codec", REAL_CODECS)
def test_damage_raises_nothing_else(codec: Codec) -> None:
    draw = random.Random(int(codec))
    for compressed in (compress(codec, TEXT[:500]), unsized_bomb(codec, 500)):
        for _ in range(1_500):
            damaged = bytearray(compressed)
            for _ in range(draw.randrange(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            try:
                decompress(codec, damaged, decompressed_bytes_max=100_000)
            except DecompressionError:
                continue
    for _ in range(500):
        noise = draw.randbytes(draw.randrange(60))
        try:
            decompress(codec, noise, decompressed_bytes_max=100_000)
        except DecompressionError:
            continue


@pytest.mark.parametrize("block_bytes", [-1, 0, 5, 2**31 - 1])
def test_hostile_snappy_block_lengths(block_bytes: int) -> None:
    head = compress(Codec.SNAPPY, b"")[:16]
    with pytest.raises(DecompressionError, match=f"block of {block_bytes} bytes"):
        decompress(Codec.SNAPPY, head + block_bytes.to_bytes(4, "big", signed=True) + b"abcd")


def test_a_raw_snappy_block_that_claims_gigabytes() -> None:
    with pytest.raises(DecompressionError, match="more bytes"):
        decompress(Codec.SNAPPY, b"\xff\xff\xff\xff\x0f")


def test_a_zstd_frame_with_a_giant_window() -> None:
    # Frame header without a size; window descriptor 0x98: 2**29 bytes.
    with pytest.raises(DecompressionError, match="window of 536870912 bytes"):
        decompress(Codec.ZSTD, bytes.fromhex("28b52ffd0098010000"))


def test_zlib_without_gzip_framing_is_refused() -> None:
    with pytest.raises(DecompressionError, match="not gzip"):
        decompress(Codec.GZIP, zlib.compress(TEXT))
