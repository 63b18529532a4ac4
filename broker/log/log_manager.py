"""All logs of one data directory: found and recovered at the start, created, removed."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from typing import NamedTuple

from broker.log.checkpoint import (
    HIGH_WATERMARK_PATH,
    RECOVERY_POINT_PATH,
    LogKey,
    is_topic_id,
    load_offsets,
)
from broker.log.checkpointer import Checkpointer, StoreRequest
from broker.log.errors import CorruptFile, DamagedLog
from broker.log.partition_log import PartitionLog
from broker.log.recovery import LogFound, recover_log
from broker.log.segment import LOG_SUFFIX
from broker.log.sync_state import SyncRequest
from broker.ports import Disk

LOGS_DIRECTORY = "logs"
DAMAGED_SUFFIX = ".damaged"
REMOVED_SUFFIX = "-delete"
UNREPORTED_SUFFIX = ".damaged.unreported"
SET_ASIDE = re.compile(r"(?P<log>.*)\.damaged(?P<unreported>\.unreported)?(\.[0-9]+)?")


class Damage(NamedTuple):
    """A log that recovery could not trust. `kept_at` is where it put the files; "" if there were
    none. (Once it is reported they lose the `.unreported` of their name.)"""

    topic_id: str
    partition: int
    path: str
    position: int
    reason: str
    kept_at: str


def directory_of(name: str, topic_id: str, partition: int) -> str:
    return f"{LOGS_DIRECTORY}/{name}-{partition}.{topic_id}"


def parse_directory(entry: str) -> tuple[str, int, str] | None:
    """(topic name, partition, topic id) of a name in `logs/`; None if it is no log's."""
    stem, _, topic_id = entry.rpartition(".")
    name, _, partition = stem.rpartition("-")
    if not name or not is_topic_id(topic_id) or not (partition.isascii() and partition.isdigit()):
        return None
    return name, int(partition), topic_id


class LogManager:
    def __init__(self, disk: Disk, *, index_interval_bytes: int = 4_096) -> None:
        self._disk = disk
        self._index_interval_bytes = index_interval_bytes
        self._logs: dict[LogKey, PartitionLog] = {}
        self._recovery_points: dict[LogKey, int] = {}
        self._high_watermarks: dict[LogKey, int] = {}
        """As read at the start."""
        self._removals: list[str] = []
        self._checkpointer = Checkpointer()
        self.damages: tuple[Damage, ...] = ()
        self._unreported: list[str] = []
        """Logs set aside, by whichever process, that the controller may not know of."""

    # --- start ------------------------------------------------------------------------------------

    def recover(self) -> Generator[None, None, None]:
        """Find and recover every log, in slices of a few milliseconds.

        CorruptFile for a file or directory that is not ours or a broken checkpoint; DiskError.
        """
        self._recovery_points = load_offsets(self._disk, RECOVERY_POINT_PATH)
        self._high_watermarks = load_offsets(self._disk, HIGH_WATERMARK_PATH)
        for key, (path, name) in sorted(self._directories().items()):
            yield from self._recover_one(path, name, key)
            yield
        self._report_missing()
        self._report_again()

    def _directories(self) -> dict[LogKey, tuple[str, str]]:
        """(path, topic name) of every log. CorruptFile for a name that is not ours: it may be that
        of a log, which must not silently begin anew."""
        directories: dict[LogKey, tuple[str, str]] = {}
        for entry in self._disk.list_dir(LOGS_DIRECTORY):
            path = f"{LOGS_DIRECTORY}/{entry}"
            parsed = parse_directory(entry)
            if parsed is not None:
                name, partition, topic_id = parsed
                if (topic_id, partition) in directories:
                    other = directories[topic_id, partition][0]
                    raise CorruptFile(path, 0, f"the same log as {other}: move one elsewhere")
                directories[topic_id, partition] = (path, name)
            elif entry.endswith(REMOVED_SUFFIX):
                self._removals.append(path)
            else:
                aside = SET_ASIDE.fullmatch(entry)
                if aside is None:
                    raise CorruptFile(path, 0, "no log has such a name: move it elsewhere")
                if aside["unreported"]:
                    self._unreported.append(path)
        return directories

    def _recover_one(self, path: str, name: str, key: LogKey) -> Generator[None, None, None]:
        topic_id, partition = key
        found = LogFound(
            path,
            topic_id,
            name,
            partition,
            self._recovery_points.get(key, 0),
            self._high_watermarks.get(key, 0),
        )
        try:
            log = yield from recover_log(self._disk, found, self._index_interval_bytes)
            self._add(log)
        except DamagedLog as error:
            kept_at = self._set_aside(path)
            self._damaged(Damage(*key, error.path, error.position, error.reason, kept_at))
            self.create(name, topic_id, partition)

    def _set_aside(self, directory: str) -> str:
        """Move a damaged log out of the way, for whoever may want its records; where to.

        Its name says that the controller does not know yet: a process that ends before its
        registration is accepted leaves an empty log behind that looks as good as any.
        """
        if not any(name.endswith(LOG_SUFFIX) for name in self._disk.list_dir(directory)):
            return ""
        kept_at = self._move_aside(directory, directory + UNREPORTED_SUFFIX)
        self._unreported.append(kept_at)
        return kept_at

    def _move_aside(self, path: str, wanted: str) -> str:
        """Rename to the first free name; which."""
        new_path, number = wanted, 1
        while self._disk.exists(new_path):
            number += 1
            new_path = f"{wanted}.{number}"
        self._disk.rename(path, new_path)
        return new_path

    def _report_again(self) -> None:
        """What an earlier process set aside counts as damaged until the controller knows; what this
        one set aside does already."""
        for path in self._unreported:
            aside = SET_ASIDE.fullmatch(path.rpartition("/")[2])
            parsed = parse_directory(aside["log"]) if aside is not None else None
            if parsed is None:
                raise CorruptFile(path, 0, "no log has such a name: move it elsewhere")
            _, partition, topic_id = parsed
            if (topic_id, partition) not in self.damaged:
                reason = "set aside by an earlier process, not yet reported"
                self._damaged(Damage(topic_id, partition, path, 0, reason, path))

    def on_damage_reported(self) -> None:
        """The controller knows. The new names are on disk before anything in the logs that begin
        anew counts: else a power loss could bring back the report when the log is whole again.
        DiskError."""
        for path in sorted(self._unreported):
            directory, _, _ = path.partition(UNREPORTED_SUFFIX)
            self._move_aside(path, directory + DAMAGED_SUFFIX)
        self._unreported = []
        for key in self.damaged:
            if key in self._logs:
                self._logs[key].distrust([])

    def _damaged(self, damage: Damage) -> None:
        key = (damage.topic_id, damage.partition)
        self.damages = (*self.damages, damage)
        self._recovery_points.pop(key, None)
        self._high_watermarks.pop(key, None)

    def _report_missing(self) -> None:
        """A log of which something was on disk and whose directory is gone is damaged too."""
        known = self._recovery_points | self._high_watermarks
        for key in sorted(known):
            if key not in self._logs:
                if known[key] > 0:
                    path = f"{LOGS_DIRECTORY}/*-{key[1]}.{key[0]}"
                    self._damaged(Damage(*key, path, 0, "the directory is gone", ""))
                self._recovery_points.pop(key, None)
                self._high_watermarks.pop(key, None)

    @property
    def damaged(self) -> tuple[LogKey, ...]:
        """The logs that lost what they had vouched for and begin anew, empty."""
        return tuple(sorted((damage.topic_id, damage.partition) for damage in self.damages))

    def recovery_sync_requests(self) -> list[tuple[PartitionLog, SyncRequest]]:
        """What recovery kept is not durable: sync it before any of it counts."""
        requests = []
        for log in self.all():
            request = log.sync_request(force=True)
            if request is not None:
                requests.append((log, request))
        return requests

    def high_watermark_checkpoint(self, topic_id: str, partition: int) -> int:
        """The high watermark as last stored; 0 if unknown."""
        return self._high_watermarks.get((topic_id, partition), 0)

    # --- logs -------------------------------------------------------------------------------------

    def get(self, topic_id: str, partition: int) -> PartitionLog | None:
        return self._logs.get((topic_id, partition))

    def all(self) -> list[PartitionLog]:
        return [log for _, log in sorted(self._logs.items())]

    def create(
        self,
        name: str,
        topic_id: str,
        partition: int,
        flush: str = "ack",
        segment_bytes: int = 134_217_728,
    ) -> PartitionLog:
        """The log with these settings, made if there is none. DiskError."""
        log = self._logs.get((topic_id, partition))
        if log is not None:
            log.configure(flush, segment_bytes)
            return log
        log = PartitionLog.create(
            self._disk,
            directory_of(name, topic_id, partition),
            topic_id=topic_id,
            name=name,
            partition=partition,
            flush=flush,
            segment_bytes=segment_bytes,
            index_interval_bytes=self._index_interval_bytes,
        )
        self._add(log)
        return log

    def _add(self, log: PartitionLog) -> None:
        self._logs[log.topic_id, log.partition] = log
        # All logs share one list: to look for removals must not cost a look at every log.
        self._removals += log.removals
        log.removals = self._removals

    def remove(self, topic_id: str, partition: int) -> str:
        """Forget a log; the directory to remove."""
        log = self._logs.pop((topic_id, partition))
        log.close()
        self._high_watermarks.pop((topic_id, partition), None)
        self._checkpointer.forget(log.directory)
        return log.directory

    def take_removals(self) -> tuple[str, ...]:
        """Paths that only take room, to be removed now; each is given once."""
        removals = tuple(self._removals)
        self._removals.clear()
        return removals

    def age_producers(self, elapsed_ms: int, expiration_ms: int) -> None:
        """Time went by: forget producers that were silent for so long."""
        for log in self.all():
            log.producers.age(elapsed_ms, expiration_ms)

    # --- checkpoints ------------------------------------------------------------------------------

    def begin_checkpoint(self, high_watermarks: Mapping[LogKey, int]) -> list[StoreRequest]:
        """Begin a checkpoint; nothing if one is under way. `on_stored` leads on.

        A log that `high_watermarks` does not name keeps the mark it had.
        """
        return self._checkpointer.begin(self._logs, {**self._high_watermarks, **high_watermarks})

    def take_found(self) -> tuple[tuple[LogKey, CorruptFile], ...]:
        """Damage met while a checkpoint was begun; each is given once."""
        found, self._checkpointer.found = tuple(self._checkpointer.found), []
        return found

    @property
    def is_checkpointing(self) -> bool:
        """Files of a checkpoint are on their way to the disk."""
        return self._checkpointer.is_under_way

    def on_stored(self, path: str) -> list[StoreRequest]:
        """A file of the checkpoint under way is durable; what to store next. Other paths are none
        of ours."""
        return self._checkpointer.on_stored(self._logs, path)

    def on_store_failed(self, path: str) -> None:
        """A file could not be stored. The older checkpoint is as true: this one is given up."""
        self._checkpointer.on_store_failed(path)
