"""What the simulated disk forgets, and what it may not forget."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from broker.ports import DiskError
from chaos.sim.disk import Crash, SimDisk
from tests.log.logs import drawing, keep_everything, keep_nothing


def written(disk: SimDisk, path: str, *pieces: bytes) -> None:
    file = disk.open(path, create=True)
    for piece in pieces:
        file.append((piece,))


def test_a_process_crash_forgets_nothing_and_makes_nothing_durable() -> None:
    disk = SimDisk()
    written(disk, "f", b"abc")
    disk.process_crash()
    assert disk.files() == {"f": b"abc"}
    disk.power_loss(keep_nothing)
    assert disk.files() == {}


def test_content_and_name_are_synced_apart() -> None:
    disk = SimDisk()
    disk.make_dir("d")
    written(disk, "d/f", b"abc")
    disk.sync(["d/f"])
    disk.power_loss(keep_nothing)
    assert not disk.exists("d")
    disk = SimDisk()
    disk.make_dir("d")
    written(disk, "d/f", b"abc")
    disk.sync([], ["d", "."])
    disk.power_loss(keep_nothing)
    assert disk.files() == {"d/f": b""}
    disk = SimDisk()
    disk.make_dir("d")
    written(disk, "d/f", b"abc")
    disk.sync(["d/f"], ["d", "."])
    disk.power_loss(keep_nothing)
    assert disk.files() == {"d/f": b"abc"}


def test_of_each_file_a_prefix_of_what_happened_survives() -> None:
    seen = set()
    for seed in range(300):
        disk = SimDisk()
        written(disk, "f", b"abcd")
        disk.sync(["f"], ["."])
        file = disk.open("f")
        file.truncate(2)
        file.append((b"XY",))
        file.append((b"Z",))
        disk.power_loss(drawing(seed))
        seen.add(disk.files()["f"])
    assert seen == {b"abcd", b"ab", b"ab\0\0", b"abX", b"abX\0", b"abXY", b"abXY\0", b"abXYZ"}


def test_files_and_names_survive_independently() -> None:
    seen = set()
    for seed in range(300):
        disk = SimDisk()
        written(disk, "a", b"1")
        written(disk, "b", b"2")
        disk.power_loss(drawing(seed))
        seen.add(tuple(disk.files().items()))
    assert (("b", b"2"),) in seen
    assert (("a", b"1"),) in seen
    assert (("a", b""), ("b", b"2")) in seen
    assert () in seen


def test_a_rename_is_atomic() -> None:
    seen = set()
    for seed in range(400):
        disk = SimDisk()
        written(disk, "old", b"1")
        written(disk, "new", b"2")
        disk.sync(["old", "new"], ["."])
        disk.rename("old", "new")
        written(disk, "old", b"3")
        disk.power_loss(drawing(seed))
        seen.add(tuple(disk.files().items()))
    assert seen == {
        (("new", b"2"), ("old", b"1")),
        (("new", b"1"),),
        (("new", b"1"), ("old", b"")),
        (("new", b"1"), ("old", b"3")),
        (("new", b"1"), ("old", b"\0")),
    }


def test_a_store_is_durable_and_whole() -> None:
    disk = SimDisk()
    disk.store("f", b"one")
    disk.store("f", b"two")
    disk.power_loss(keep_nothing)
    assert disk.files() == {"f": b"two"}


def test_a_removal_may_come_undone() -> None:
    disk = SimDisk()
    disk.make_dir("d")
    disk.store("d/f", b"x")
    disk.sync([], ["."])
    disk.remove("d")
    disk.remove("d")
    assert disk.files() == {}
    disk.power_loss(keep_nothing)
    assert disk.files() == {"d/f": b"x"}


def test_a_pending_sync_covers_what_was_there_when_it_was_asked_for() -> None:
    disk = SimDisk()
    written(disk, "f", b"abc")
    pending = disk.prepare_sync(["f"], ["."])
    written(disk, "f", b"def")
    disk.rename("f", "g")
    pending.complete()
    disk.power_loss(keep_nothing)
    assert disk.files() == {"f": b"abc"}


@pytest.mark.parametrize(
    ("part", "content"), [("before", b"ab"), ("torn", b"abcd"), ("after", b"abcdef")]
)
def test_crash_in_a_call(part: str, content: bytes) -> None:
    disk = SimDisk()
    written(disk, "f", b"ab")
    disk.crash_at(1, part)
    with pytest.raises(Crash):
        written(disk, "f", b"cdef")
    disk.process_crash()
    assert disk.files() == {"f": content}
    written(disk, "f", b"!")


def test_told_failures() -> None:
    disk = SimDisk()
    written(disk, "f", b"ab")
    disk.fail_next("append", error=errno.ENOSPC, path_part="f")
    with pytest.raises(DiskError) as raised:
        written(disk, "f", b"cdef")
    assert (raised.value.errno, raised.value.unchanged) == (errno.ENOSPC, True)
    assert disk.files() == {"f": b"ab"}
    disk.fail_next("append", cut_back=False)
    with pytest.raises(DiskError) as raised:
        written(disk, "f", b"cdef")
    assert not raised.value.unchanged
    assert disk.files() == {"f": b"abcd"}


@pytest.mark.parametrize(
    ("kind", "attempt"),
    [
        ("read", lambda disk: disk.read_whole("f")),
        ("read", lambda disk: disk.open("f").read(0, 1)),
        ("open", lambda disk: disk.open("f")),
        ("create", lambda disk: disk.open("new", create=True)),
        ("truncate", lambda disk: disk.open("f").truncate(1)),
        ("sync", lambda disk: disk.sync(["f"])),
        ("store", lambda disk: disk.store("f", b"")),
        ("rename", lambda disk: disk.rename("f", "g")),
        ("make_dir", lambda disk: disk.make_dir("d")),
        ("remove", lambda disk: disk.remove("f")),
    ],
)
def test_every_kind_of_call_fails_once_when_told_to(
    kind: str, attempt: Callable[[SimDisk], object]
) -> None:
    disk = SimDisk()
    written(disk, "f", b"ab")
    disk.fail_next(kind)
    with pytest.raises(DiskError):
        attempt(disk)
    assert disk.files() == {"f": b"ab"}
    attempt(disk)


def test_a_full_disk_takes_no_more_until_something_goes() -> None:
    disk = SimDisk(capacity_bytes=10)
    written(disk, "f", b"12345678")
    with pytest.raises(DiskError) as raised:
        written(disk, "f", b"abc")
    assert raised.value.errno == errno.ENOSPC
    disk.open("f").truncate(5)
    written(disk, "f", b"abc")
    assert disk.files() == {"f": b"12345abc"}


def test_files_die_with_their_process() -> None:
    disk = SimDisk()
    file = disk.open("f", create=True)
    disk.process_crash()
    with pytest.raises(AssertionError, match="process that is dead"):
        file.append((b"x",))


def test_same_draws_same_disk() -> None:
    def once() -> dict[str, bytes]:
        disk = SimDisk()
        for number in range(20):
            written(disk, f"f{number}", b"%d" % number * 10, b"more")
        disk.power_loss(drawing(5))
        return disk.files()

    assert once() == once()
    disk = SimDisk()
    written(disk, "f", b"x")
    disk.power_loss(keep_everything)
    assert disk.files() == {"f": b"x"}
