"""Ctrl-C and SIGTERM as a request to finish: nothing is torn apart in the middle of a call.

The first signal only sets `asked` and ends a wait for input; the second one raises as usual.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Any


class Asked(Exception):
    """A signal came: nothing more is to be read, and an unfinished line stays unsent."""


class FinishRequest:
    """Installed while it is entered; main thread only."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = 0
        """The number of the signal, 0 before."""
        self._wake_read, self._wake_write = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> FinishRequest:
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.asked = number
        os.write(self._wake_write, b"!")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def exit_code(self) -> int:
        """As the shell reports a program that a signal ended."""
        return 128 + self.asked

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        """As os.read; raises Asked once a signal came."""
        ready: list[int] = []
        while not self.asked and not ready:
            ready, _, _ = select.select([descriptor, self._wake_read], [], [])
        if self.asked:
            raise Asked
        return os.read(descriptor, size_bytes)
