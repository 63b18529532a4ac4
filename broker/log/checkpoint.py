"""The small text files: offsets per partition, and the leader epochs of one log.

    1                                   version
    2                                   number of lines that follow
    0f…9a 0 1000                        topic id, partition, offset

They are replaced as a whole, so one that does not parse was damaged or is not ours: `CorruptFile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broker.log.errors import CorruptFile
from broker.ports import Disk

RECOVERY_POINT_PATH = "recovery-point-checkpoint"
HIGH_WATERMARK_PATH = "high-watermark-checkpoint"
LEADER_EPOCH_NAME = "leader-epoch-checkpoint"
OFFSETS_VERSION = 1
EPOCHS_VERSION = 0
TOPIC_ID_DIGITS = 32

LogKey = tuple[str, int]
"""Topic id and partition."""


def is_topic_id(text: str) -> bool:
    return len(text) == TOPIC_ID_DIGITS and all(digit in "0123456789abcdef" for digit in text)


def encode_offsets(offsets: Mapping[LogKey, int]) -> bytes:
    lines = [
        f"{topic_id} {partition} {offset}"
        for (topic_id, partition), offset in sorted(offsets.items())
    ]
    return _encode(OFFSETS_VERSION, lines)


def decode_offsets(path: str, data: bytes) -> dict[LogKey, int]:
    offsets: dict[LogKey, int] = {}
    for number, words in _decode(path, data, OFFSETS_VERSION, word_count=3):
        if not is_topic_id(words[0]):
            raise CorruptFile(path, number, f"{words[0]!r} is no topic id")
        offsets[words[0], _number(path, number, words[1])] = _number(path, number, words[2])
    return offsets


def load_offsets(disk: Disk, path: str) -> dict[LogKey, int]:
    """What the file says; nothing if there is none."""
    return decode_offsets(path, disk.read_whole(path)) if disk.exists(path) else {}


def encode_epochs(entries: Iterable[tuple[int, int]]) -> bytes:
    return _encode(EPOCHS_VERSION, [f"{epoch} {start_offset}" for epoch, start_offset in entries])


def decode_epochs(path: str, data: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(
        (_number(path, number, words[0]), _number(path, number, words[1]))
        for number, words in _decode(path, data, EPOCHS_VERSION, word_count=2)
    )


def _encode(version: int, lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in (str(version), str(len(lines)), *lines)).encode()


def _decode(
    path: str, data: bytes, version: int, *, word_count: int
) -> Iterable[tuple[int, list[str]]]:
    """(line number, words) of each line after the first two."""
    lines = data.decode("ascii", "replace").split("\n")
    if lines[0] != str(version):
        raise CorruptFile(path, 1, f"version {lines[0][:20]!r} instead of {version}")
    if len(lines) < 3 or lines[-1] != "" or lines[1] != str(len(lines) - 3):
        raise CorruptFile(path, 2, "the number of lines is not the one it says")
    for number, line in enumerate(lines[2:-1], start=3):
        words = line.split(" ")
        if len(words) != word_count:
            raise CorruptFile(path, number, f"{line[:80]!r} is not understood")
        yield number, words


def _number(path: str, line_number: int, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise CorruptFile(path, line_number, f"{text[:20]!r} is no number")
    return int(text)
