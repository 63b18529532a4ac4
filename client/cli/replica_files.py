"""Which directories hold which replicas: cluster, node, data and partition directories.

    <cluster>/nodes/<id>/data/logs/<topic>-<partition>.<topic id>/<base offset>.log

Any level of this may be named, and single segment files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    LEADER_EPOCH_NAME,
    RECOVERY_POINT_PATH,
    LogKey,
    decode_epochs,
    decode_offsets,
)
from broker.log.segment import LOG_SUFFIX
from client.cli.segment_reader import Damage, StoredBatch, walk_log


class NoLogs(Exception):
    """A path that holds no log; says what was looked for."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One partition's files in one place."""

    source: str
    """Where it was found, as named on the command line or below it."""
    topic: str
    """Empty for a single segment file, of which nothing but its batches is known."""
    partition: int
    topic_id: str
    segments: tuple[Path, ...]
    high_watermark: int | None = None
    """As last checkpointed."""
    recovery_point: int | None = None
    leader_epochs: tuple[tuple[int, int], ...] = field(default=())
    """(leader epoch, start offset)"""

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}" if self.topic else self.segments[0].name

    @property
    def settled_offset(self) -> int | None:
        """Below it nothing may be torn: recovery point or high watermark, whichever is higher."""
        known = [at for at in (self.high_watermark, self.recovery_point) if at is not None]
        return max(known, default=None)

    def batches(self) -> Iterator[StoredBatch | Damage]:
        return walk_log(self.segments)

    def is_torn_tail(self, damage: Damage) -> bool:
        """Whether a restart of the node would just cut this off: no data that counted is lost."""
        settled = self.settled_offset
        return damage.is_tail and settled is not None and damage.offset >= settled


def find_replicas(path: Path) -> list[Replica]:
    """All replicas at or below `path`, in the order of their directories.

    NoLogs if there are none; CorruptFile when a checkpoint file is damaged.
    """
    if path.is_file():
        if path.suffix != LOG_SUFFIX or not path.stem.isdecimal():
            raise NoLogs(f"{path} is no segment: those are named <base offset>{LOG_SUFFIX}")
        return [Replica(str(path), "", -1, "", (path,))]
    if not path.is_dir():
        raise NoLogs(f"{path} does not exist")
    found: list[Replica] = []
    for data_dir in _data_dirs(path):
        high_watermarks = _read_offsets(data_dir / HIGH_WATERMARK_PATH)
        recovery_points = _read_offsets(data_dir / RECOVERY_POINT_PATH)
        only = path if path.parent == data_dir / "logs" else None
        for directory in sorted((data_dir / "logs").iterdir()):
            if only is None or directory == only:
                found += _replica(directory, data_dir, high_watermarks, recovery_points)
    if not found:
        raise NoLogs(
            f"{path} holds no logs: name a cluster, node, data or partition directory, or a "
            "segment file"
        )
    return found


def _data_dirs(path: Path) -> list[Path]:
    """Data directories that `path` holds, is, or lies in."""
    if (path / "nodes").is_dir():
        return [
            data
            for node in sorted((path / "nodes").iterdir(), key=_by_number)
            if (data := node / "data") and (data / "logs").is_dir()
        ]
    for candidate in (path / "data", path, path.parent.parent):
        if (candidate / "logs").is_dir():
            return [candidate]
    return []


def _by_number(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdecimal() else 0, path.name)


def _replica(
    directory: Path,
    data_dir: Path,
    high_watermarks: dict[LogKey, int],
    recovery_points: dict[LogKey, int],
) -> Iterable[Replica]:
    name, dot, topic_id = directory.name.rpartition(".")
    topic, dash, partition = name.rpartition("-")
    segments = [file for file in sorted(directory.glob(f"*{LOG_SUFFIX}")) if file.stem.isdecimal()]
    if not (dot and dash and partition.isdecimal() and segments):
        return
    key = (topic_id, int(partition))
    yield Replica(
        source=str(data_dir),
        topic=topic,
        partition=int(partition),
        topic_id=topic_id,
        segments=tuple(segments),
        high_watermark=high_watermarks.get(key),
        recovery_point=recovery_points.get(key),
        leader_epochs=_read_epochs(directory / LEADER_EPOCH_NAME),
    )


def _read_offsets(path: Path) -> dict[LogKey, int]:
    """By topic id and partition; empty without the file. CorruptFile for a damaged one."""
    return decode_offsets(str(path), path.read_bytes()) if path.exists() else {}


def _read_epochs(path: Path) -> tuple[tuple[int, int], ...]:
    """(leader epoch, start offset), in order."""
    return decode_epochs(str(path), path.read_bytes()) if path.exists() else ()
