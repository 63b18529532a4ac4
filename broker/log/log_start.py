"""Where a log begins, if not at 0: told by a small file, not by the names of the segments.

After a power loss the first segments may be missing although later ones are there, since names
reach the disk in any order. Only this file makes a log begin above 0. Each change adds a line; the
last whole line counts.
"""

from __future__ import annotations

from broker.log.errors import CorruptFile
from broker.ports import Disk

LOG_START_NAME = "log-start-offset"


def load_log_start(disk: Disk, directory: str) -> int:
    """The offset at which the log in `directory` begins. CorruptFile for a line that is none."""
    path = f"{directory}/{LOG_START_NAME}"
    if not disk.exists(path):
        return 0
    lines = disk.read_whole(path).split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        if not line.isdigit():
            raise CorruptFile(path, number, f"{line[:20]!r} is no offset")
    return int(lines[-1]) if lines else 0


def write_log_start(disk: Disk, directory: str, offset: int) -> str:
    """Let the log begin at `offset`; the path to sync (and its directory). DiskError."""
    path = f"{directory}/{LOG_START_NAME}"
    file = disk.open(path, create=True)
    whole_lines = file.read(0, file.size_bytes).rfind(b"\n") + 1
    file.truncate(whole_lines)
    file.append((b"%d\n" % offset,))
    file.close()
    return path
