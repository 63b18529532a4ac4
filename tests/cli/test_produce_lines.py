"""Standard input to lines, lines to key and value."""

from __future__ import annotations

import io
import random

import pytest

from client.cli.escapes import unescape
from client.cli.line_reader import LineSplitter, LineTooLong, read_lines, split_key


def lines_of(data: bytes, read_bytes: int, line_bytes_max: int = 1_000) -> list[bytes]:
    stream = io.BytesIO(data)
    return [line for lines in read_lines(stream.read, line_bytes_max, read_bytes) for line in lines]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\n\nb\n", [b"a", b"", b"", b"b"]),
        (b"carriage\r\nreturn\r", [b"carriage\r", b"return\r"]),
        (b"\x00\xff\n\xfe", [b"\x00\xff", b"\xfe"]),
    ],
)
@pytest.mark.parametrize("read_bytes", [1, 2, 3, 1_000])
def test_lines_are_what_stands_between_line_feeds(
    data: bytes, lines: list[bytes], read_bytes: int
) -> None:
    assert lines_of(data, read_bytes) == lines


def test_the_pieces_in_which_input_arrives_make_no_difference() -> None:
    rng = random.Random(7)
    data = bytes(rng.choice(b"ab\n\x00") for _ in range(5_000))
    whole = lines_of(data, len(data), 5_000)
    assert b"\n".join(whole) == data.removesuffix(b"\n")
    for read_bytes in (1, 7, 64, 999):
        assert lines_of(data, read_bytes, 5_000) == whole


def test_an_endless_line_is_not_held_for_ever() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"before\n" + b"x" * 11) == [b"before"]
    with pytest.raises(LineTooLong, match="longer than 10 bytes"):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (b"k:v", b"k", b"v"),
        (b"k:v:w", b"k", b"v:w"),
        (b":v", b"", b"v"),
        (b"k:", b"k", b""),
        (b"no delimiter", None, b"no delimiter"),
        (b"", None, b""),
    ],
)
def test_a_line_is_cut_at_the_first_delimiter(line: bytes, key: bytes | None, value: bytes) -> None:
    assert split_key(line, b":") == (key, value)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"\t", b"\t"),
        (r"a\n\r\0b", b"a\n\r\0b"),
        (r"\\n", b"\\n"),
        (r"\x00\xfF", b"\x00\xff"),
        ("ä", b"\xc3\xa4"),
        ("\udcff", b"\xff"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescape(text) == data


@pytest.mark.parametrize("text", [r"\q", "\\", r"\x4", r"\xg0"])
def test_an_escape_that_means_nothing_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="unknown escape"):
        unescape(text)
