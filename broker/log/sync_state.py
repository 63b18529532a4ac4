"""How far a log is on disk, and what a sync must cover to get further.

Rules (the README of this folder gives the reasons):
- `synced_end` moves by a completed sync of the present generation, and by nothing else but a cut.
- The generation grows with every cut, so a sync asked for before it proves nothing after it.
- At most one sync is in flight; what is written meanwhile waits for the next one.
- Files are synced in the order in which they were touched, then the directories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SyncRequest(NamedTuple):
    """Make `files` durable in this order, then `directories`; paths as given to the disk."""

    generation: int
    end_offset: int
    files: tuple[str, ...]
    directories: tuple[str, ...]


class SyncState:
    """`synced_end`: first offset not known to be on disk. `failed`: a sync failed; that is final,
    since what the device still holds after a failed sync is unknown."""

    __slots__ = (
        "_cut_count",
        "_cut_count_in_flight",
        "_cut_count_on_disk",
        "_directories",
        "_files",
        "failed",
        "generation",
        "in_flight",
        "synced_end",
    )

    def __init__(self, synced_end: int) -> None:
        self.generation = 0
        self.synced_end = synced_end
        self.failed = False
        self.in_flight: SyncRequest | None = None
        self._cut_count = self._cut_count_in_flight = self._cut_count_on_disk = 0
        # Dicts used as ordered sets.
        self._files: dict[str, None] = {}
        self._directories: dict[str, None] = {}

    @property
    def is_clean(self) -> bool:
        """Nothing waits to be asked for."""
        return not self._files and not self._directories

    @property
    def has_unsynced_cut(self) -> bool:
        """After a power loss, bytes that are no longer in the files may be there again."""
        return self._cut_count != self._cut_count_on_disk

    def touch(self, path: str) -> None:
        """The file was written or cut."""
        if path not in self._files:
            self._files[path] = None

    def touch_directories(self, paths: Sequence[str]) -> None:
        """Names in these directories came, went or changed."""
        for path in paths:
            self._directories[path] = None

    def cut(self, end_offset: int) -> None:
        """The log was cut to `end_offset`: a sync in flight no longer proves how far it is on
        disk (though its files will be, as they were)."""
        self.generation += 1
        self.synced_end = min(self.synced_end, end_offset)
        self._cut_count += 1

    def note_cut(self) -> None:
        """Bytes that were never part of the log were cut off a file, or may have been."""
        self._cut_count += 1

    def request(self, end_offset: int) -> SyncRequest | None:
        """What to sync so that everything below `end_offset` is on disk; it is then in flight."""
        if self.failed or self.in_flight is not None or self.is_clean:
            return None
        self.in_flight = SyncRequest(
            self.generation, end_offset, tuple(self._files), tuple(self._directories)
        )
        self._files = {}
        self._directories = {}
        self._cut_count_in_flight = self._cut_count
        return self.in_flight

    def complete(self, generation: int, end_offset: int) -> bool:
        """A sync is done. False if it proves nothing: of an older generation, or never asked for.

        Moving `synced_end` is left to the log, which may have more to wait for.
        """
        if self.in_flight is None or self.in_flight[:2] != (generation, end_offset):
            return False
        self.in_flight = None
        self._cut_count_on_disk = self._cut_count_in_flight
        return generation == self.generation

    def fail(self) -> None:
        """A sync failed. Nothing is retried into success."""
        self.failed = True
        self.in_flight = None
