"""Which leader epoch wrote which offsets: what followers compare to find where histories part.

A list of (leader_epoch, start_offset), strictly increasing in both (KIP-101, KIP-279). The file is
derived from the batches; it is durable for all that lies below the recovery point and believed
only there.
"""

from __future__ import annotations

from bisect import bisect_right

NO_EPOCH = -1


class LeaderEpochs:
    """Grows by `assign`, shrinks by `truncate_to`."""

    __slots__ = ("_epochs", "_start_offsets")

    def __init__(self, entries: tuple[tuple[int, int], ...] = ()) -> None:
        self._epochs: list[int] = []
        self._start_offsets: list[int] = []
        for leader_epoch, start_offset in entries:
            self.assign(leader_epoch, start_offset)

    def last_epoch(self) -> int:
        """The latest epoch assigned, with or without batches; -1 if there is none."""
        return self._epochs[-1] if self._epochs else NO_EPOCH

    def last_start_offset(self) -> int:
        """Where the latest epoch begins; -1 if there is none."""
        return self._start_offsets[-1] if self._epochs else -1

    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._epochs, self._start_offsets, strict=True))

    def assign(self, leader_epoch: int, start_offset: int) -> None:
        """From `start_offset` on batches are of `leader_epoch`.

        Nothing happens if that is known. Later entries that contradict it are dropped: they stem
        from an epoch without batches or from a tail that was truncated.
        """
        if leader_epoch == self.last_epoch() and self._start_offsets[-1] <= start_offset:
            return
        while self._epochs and (
            self._epochs[-1] >= leader_epoch or self._start_offsets[-1] >= start_offset
        ):
            self._epochs.pop()
            self._start_offsets.pop()
        self._epochs.append(leader_epoch)
        self._start_offsets.append(start_offset)

    def truncate_to(self, end_offset: int) -> None:
        """Drop the epochs that begin at or above `end_offset`, also those without batches.

        An epoch that begins at the log end would otherwise answer for batches that other epochs
        may still write there, and a follower would never agree with its leader (KAFKA-10706).
        """
        while self._start_offsets and self._start_offsets[-1] >= end_offset:
            self._epochs.pop()
            self._start_offsets.pop()

    def forget_below(self, start_offset: int) -> None:
        """Drop the epochs that end at or below `start_offset`, where the first file begins."""
        count = bisect_right(self._start_offsets, start_offset) - 1
        if count > 0:
            del self._epochs[:count], self._start_offsets[:count]

    def epoch_of(self, offset: int) -> int:
        """The epoch of the batch at `offset`; -1 below the first entry."""
        slot = bisect_right(self._start_offsets, offset) - 1
        return self._epochs[slot] if slot >= 0 else NO_EPOCH

    def end_offset_for(self, leader_epoch: int, log_end_offset: int) -> tuple[int, int] | None:
        """(epoch, end_offset) of the largest epoch not above `leader_epoch`; the log's end ends the
        latest.

        None if the epoch is newer than any here. Below the first epoch: (leader_epoch, start of
        the first), as nothing of it is left.
        """
        if not self._epochs or leader_epoch > self._epochs[-1]:
            return None
        if leader_epoch == self._epochs[-1]:
            return leader_epoch, log_end_offset
        slot = bisect_right(self._epochs, leader_epoch)
        if slot == 0:
            return leader_epoch, self._start_offsets[0]
        return self._epochs[slot - 1], self._start_offsets[slot]
