"""The Raft log in memory, and how far each part of the world has come with it.

Owns the entries and five positions, always in this order:

    base_index <= delivered_index <= commit_index <= last_index
    base_index <= durable_index   <= handed_index <= last_index

(Only while a snapshot is being stored are the last two below base_index: it is not on disk.)

Invariant: what is committed is never changed. Truncation happens on a conflict only, which no
correct leader can cause below `commit_index`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raft.types import Entry


class RaftLog:
    """Entries from `base_index + 1` on. (`base_index`, `base_term`) is the position before the
    first entry: (0, 0) for a whole log, the end of a snapshot for a log whose beginning is gone.

    Raises ValueError when the entries have holes or falling terms: such a log is damaged.
    """

    __slots__ = (
        "_entries",
        "_truncate_from",
        "base_index",
        "base_term",
        "commit_index",
        "delivered_index",
        "durable_index",
        "handed_index",
    )

    def __init__(
        self, entries: Iterable[Entry] = (), base_index: int = 0, base_term: int = 0
    ) -> None:
        self._entries: list[Entry] = []
        self.base_index = base_index
        self.base_term = base_term
        for entry in entries:
            if entry.index != self.last_index + 1 or entry.term < self.last_term:
                raise ValueError(
                    f"Raft log is damaged: entry {entry.index} of term {entry.term} follows "
                    f"entry {self.last_index} of term {self.last_term}"
                )
            self._entries.append(entry)
        # Known to be committed; grows only. Written by commit_to.
        self.commit_index = base_index
        # Handed out for application; grows only. Written by take_committed.
        self.delivered_index = base_index
        # Given out to be written, perhaps not yet on disk. Written by take_unwritten, cut back by
        # a truncation.
        self.handed_index = self.last_index
        # Equal to what is on disk up to here. Written by mark_durable, cut back by a truncation.
        self.durable_index = self.last_index
        # The disk holds, or is about to hold, entries from here on that are no longer ours.
        self._truncate_from: int | None = None

    def compact_to(self, index: int) -> None:
        """Drop the entries up to `index`, for which a stored snapshot now stands."""
        assert self.base_index < index <= min(self.delivered_index, self.durable_index)
        term = self.term_at(index)
        assert term is not None
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def restore(self, index: int, term: int) -> None:
        """Begin anew behind a snapshot that this log does not hold. It counts as delivered; nothing
        of it is on disk before `mark_durable`."""
        assert index > self.commit_index, "a snapshot of what is committed here"
        on_disk_index = min(self.durable_index, self.commit_index)
        self._entries.clear()
        self.base_index, self.base_term = index, term
        self.commit_index = self.delivered_index = index
        self.handed_index = self.durable_index = on_disk_index
        self._truncate_from = None

    @property
    def first_index(self) -> int:
        return self.base_index + 1

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """The term at `index` (the position before the first entry included), else None."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.first_index].term
        return None

    def slice(self, start_index: int, end_index: int) -> tuple[Entry, ...]:
        """Entries [start_index, end_index), which must all be there."""
        assert self.first_index <= start_index <= end_index <= self.last_index + 1
        return tuple(self._entries[start_index - self.first_index : end_index - self.first_index])

    def slice_bytes(self, start_index: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `start_index` on with at most `bytes_max` of data, at least one."""
        size_bytes = 0
        end_index = start_index
        while end_index <= self.last_index:
            size_bytes += len(self._entries[end_index - self.first_index].data)
            if size_bytes > bytes_max and end_index > start_index:
                break
            end_index += 1
        return self.slice(start_index, end_index)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends there is at least as complete as this one (paper 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append_own(self, term: int, data: bytes) -> int:
        """A leader's append; returns the index. A leader never overwrites (paper 5.3)."""
        assert term >= self.last_term
        index = self.last_index + 1
        self._entries.append(Entry(index, term, data))
        return index

    def matches(self, prev_index: int, prev_term: int) -> bool:
        """The consistency check of AppendEntries (paper 5.3)."""
        return self.term_at(prev_index) == prev_term

    def store(self, prev_index: int, entries: Sequence[Entry]) -> None:
        """A follower's append after a successful `matches`.

        Entries that are there already are skipped: a late copy of an old message must not cut off
        what came after it. Only an entry of another term at the same index truncates.
        """
        for position, entry in enumerate(entries):
            assert entry.index == prev_index + 1 + position
            if self.term_at(entry.index) == entry.term:
                continue
            if entry.index <= self.last_index:
                self._truncate(entry.index)
            self._entries.extend(entries[position:])
            return

    def _truncate(self, from_index: int) -> None:
        assert from_index > self.commit_index, "truncation below the commit index"
        del self._entries[from_index - self.first_index :]
        if from_index <= self.handed_index:
            self._truncate_from = from_index
        # What was handed out beyond the cut will reach the disk, but it is not this log any more:
        # the end of that sync must not make the new entries at the same indexes count.
        self.handed_index = min(self.handed_index, from_index - 1)
        self.durable_index = min(self.durable_index, from_index - 1)

    def conflict_hint(self, prev_index: int) -> tuple[int | None, int]:
        """(conflict_term, conflict_index) for a refused `prev_index`; see AppendEntriesResponse."""
        conflict_term = self.term_at(prev_index)
        if conflict_term is None:
            return None, self.last_index + 1
        conflict_index = prev_index
        # Nothing committed can differ, so the hint never points below the commit index.
        while (
            conflict_index - 1 > self.commit_index
            and self.term_at(conflict_index - 1) == conflict_term
        ):
            conflict_index -= 1
        return conflict_term, conflict_index

    def next_after_conflict(
        self, prev_index: int, conflict_term: int | None, conflict_index: int
    ) -> int:
        """The leader's reading of a hint: the next index to try, below `prev_index + 1`.

        If this log has the conflicting term between `conflict_index` and `prev_index`, both logs
        agree at its last entry there; otherwise that whole term is passed over (paper 5.3, end).
        """
        if conflict_term is not None:
            index = min(prev_index - 1, self.last_index)
            while index >= conflict_index:
                term = self.term_at(index)
                if term == conflict_term:
                    return index + 1
                if term is None or term < conflict_term:
                    break
                index -= 1
        return min(conflict_index, prev_index)

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed; an older index changes nothing."""
        assert index <= self.last_index, "commit index beyond the end of the log"
        self.commit_index = max(self.commit_index, index)

    def take_unwritten(self) -> tuple[int | None, tuple[Entry, ...]]:
        """(truncate_from, entries) that the disk lacks, once."""
        assert self.handed_index == self.durable_index, "one write is outstanding"
        start_index = max(self.handed_index, self.base_index) + 1
        entries = self.slice(start_index, self.last_index + 1)
        truncate_from = self._truncate_from
        assert truncate_from is None or truncate_from == entries[0].index
        self.handed_index = self.last_index
        self._truncate_from = None
        return truncate_from, entries

    def mark_durable(self) -> None:
        """What `take_unwritten` gave out last is on disk.

        At most one such write is outstanding, and a truncation meanwhile has cut `handed_index`
        back without anything being handed out since, so the rest below it is on disk.
        """
        self.durable_index = self.handed_index

    def take_committed(self) -> tuple[Entry, ...]:
        """Committed entries not yet delivered, in order, once."""
        entries = self.slice(self.delivered_index + 1, self.commit_index + 1)
        self.delivered_index = self.commit_index
        return entries
