"""One contract, two disks: what `broker.ports` says holds for the real and the simulated one."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from broker.log.partition_log import PartitionLog
from broker.ports import Disk, DiskError, File
from broker.runtime.disk import RealDisk
from chaos.sim.disk import SimDisk
from tests.log.logs import append_many, create_log, read_all


def open_below(path: Path) -> int:
    """How many descriptors of this process lead to files below `path`."""
    numbers = os.listdir("/proc/self/fd")
    links = [f"/proc/self/fd/{number}" for number in numbers]
    return sum(os.readlink(link).startswith(str(path)) for link in links if os.path.islink(link))


@pytest.fixture(params=["real", "real, two descriptors", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    if request.param == "simulated":
        yield SimDisk()
        return
    count = 2 if "two" in request.param else 64
    real = RealDisk(tmp_path, descriptors_max=count)
    yield real
    real.close()


def test_append_and_read(disk: Disk) -> None:
    file = disk.open("f", create=True)
    assert (file.path, file.size_bytes) == ("f", 0)
    file.append((b"abc", bytearray(b"de"), memoryview(b"xfgx")[1:3]))
    assert file.size_bytes == 7
    assert file.read(0, 100) == b"abcdefg"
    assert file.read(2, 3) == b"cde"
    assert file.read(7, 3) == b""
    assert file.read(100, 3) == b""
    assert disk.read_whole("f") == b"abcdefg"


@pytest.mark.parametrize("size_bytes", [1, 16_383, 16_384, 300_000])
def test_small_and_large_pieces(disk: Disk, size_bytes: int) -> None:
    file = disk.open("f", create=True)
    body = random.Random(size_bytes).randbytes(size_bytes)
    for _ in range(3):
        file.append((b"prefix", memoryview(body)))
    assert file.read(0, 10**6) == (b"prefix" + body) * 3


def test_more_pieces_than_one_call_takes(disk: Disk) -> None:
    file = disk.open("f", create=True)
    pieces = [b"%06d" % at * 8 for at in range(2_000)]
    file.append(pieces)
    assert disk.read_whole("f") == b"".join(pieces)


def test_cut_never_grows(disk: Disk) -> None:
    file = disk.open("f", create=True)
    file.append((b"abcdef",))
    file.truncate(4)
    file.truncate(9)
    assert (file.size_bytes, file.read(0, 9)) == (4, b"abcd")
    file.append((b"X",))
    assert disk.read_whole("f") == b"abcdX"


def test_a_closed_file_opens_again_by_itself(disk: Disk) -> None:
    file = disk.open("f", create=True)
    file.append((b"ab",))
    file.close()
    file.append((b"c",))
    assert file.read(0, 9) == b"abc"
    again = disk.open("f")
    assert again.size_bytes == 3


def test_many_files_at_once(disk: Disk) -> None:
    files: list[File] = [disk.open(f"f{number}", create=True) for number in range(6)]
    for turn in range(3):
        for number, file in enumerate(files):
            file.append((b"%d%d" % (number, turn),))
    for number, file in enumerate(files):
        assert file.read(0, 99) == b"".join(b"%d%d" % (number, turn) for turn in range(3))


def test_directories(disk: Disk) -> None:
    assert disk.list_dir("a/b") == ()
    assert not disk.exists("a")
    disk.make_dir("a/b")
    disk.make_dir("a/b")
    for name in ("z", "y"):
        disk.open(f"a/b/{name}", create=True)
    assert disk.list_dir("a") == ("b",)
    assert disk.list_dir("a/b") == ("y", "z")
    assert disk.exists("a/b/z")
    assert disk.list_dir(".") == ("a",)


def test_rename(disk: Disk) -> None:
    disk.make_dir("a")
    file = disk.open("a/old", create=True)
    file.append((b"content",))
    file.close()
    disk.open("a/new", create=True).append((b"replaced",))
    disk.rename("a/old", "a/new")
    assert disk.list_dir("a") == ("new",)
    assert disk.read_whole("a/new") == b"content"
    disk.rename("a", "b")
    assert disk.read_whole("b/new") == b"content"
    assert disk.open("b/new").read(0, 99) == b"content"


def test_what_is_missing(disk: Disk) -> None:
    for attempt in (
        lambda: disk.open("no"),
        lambda: disk.open("no/file", create=True),
        lambda: disk.read_whole("no"),
        lambda: disk.rename("no", "other"),
    ):
        with pytest.raises(DiskError) as raised:
            attempt()
        assert raised.value.errno == errno.ENOENT
        assert raised.value.unchanged
        assert "no" in raised.value.path


def test_a_log_does_the_same_on_either(disk: Disk) -> None:
    def script(log: PartitionLog) -> tuple[object, ...]:
        append_many(log, 50, leader_epoch=1)
        log.truncate_to(log.segments[-1].base_offset + 1)
        append_many(log, 10, leader_epoch=2)
        request = log.sync_request()
        assert request is not None
        return read_all(log), log.epochs.entries(), request, disk.list_dir(log.directory)

    here = script(create_log(disk))
    other = SimDisk()
    assert here[:3] == script(create_log(other))[:3]
    assert here[3] == other.list_dir(create_log(other).directory)


# --- the real disk alone --------------------------------------------------------------------------


def test_a_failing_write_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes half and then no more."""
    disk = RealDisk(tmp_path)
    file = disk.open("f", create=True)
    file.append((b"before",))
    real_writev = os.writev
    calls = []

    def half_then_full(descriptor: int, buffers: list[bytes]) -> int:
        calls.append(len(buffers))
        if len(calls) == 1:
            return real_writev(descriptor, [bytes(buffers[0])[:5]])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", half_then_full)
    with pytest.raises(DiskError, match="No space left") as raised:
        file.append((b"x" * 20_000, b"y" * 20_000))
    assert len(calls) == 2
    assert raised.value.unchanged
    assert file.size_bytes == 6
    assert (tmp_path / "f").read_bytes() == b"before"

    calls.clear()
    monkeypatch.setattr(
        os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "EIO"))
    )
    with pytest.raises(DiskError) as raised:
        file.append((b"x" * 20_000,))
    assert not raised.value.unchanged
    disk.close()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_writev = os.writev

    def seven_bytes(descriptor: int, buffers: list[bytes]) -> int:
        return real_writev(descriptor, [b"".join(buffers)[:7_000]])

    monkeypatch.setattr(os, "writev", seven_bytes)
    disk = RealDisk(tmp_path)
    file = disk.open("f", create=True)
    body = random.Random(1).randbytes(50_000)
    file.append((body[:16], memoryview(body)[16:]))
    assert (tmp_path / "f").read_bytes() == body
    disk.close()


def test_descriptors_stay_few(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path, descriptors_max=3)
    files = [disk.open(f"f{number}", create=True) for number in range(20)]
    for file in files:
        file.append((b"x",))
    assert open_below(tmp_path) == 3
    disk.close()
    assert open_below(tmp_path) == 0
