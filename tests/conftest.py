"""What holds for every test, however the run was started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and children inherit that for good:
    then no test of Ctrl-C could end. Ours is the ordinary handling."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
