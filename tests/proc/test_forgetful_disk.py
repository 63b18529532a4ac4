"""What a process has not synced dies with it; until then it sees all that it wrote."""

from __future__ import annotations

from pathlib import Path

from broker.events import Store, Sync, SyncToken
from chaos.proc.forgetful_disk import ForgetfulDisk


def sync(disk: ForgetfulDisk, *files: str) -> None:
    disk.prepare(Sync(SyncToken(("t", 0), 1, 1), files)).run()


def test_what_was_synced_stays_and_the_rest_is_gone(tmp_path: Path) -> None:
    disk = ForgetfulDisk(tmp_path)
    file = disk.open("a.log", create=True)
    file.append((b"synced ",))
    sync(disk, "a.log")
    file.append((b"not ", b"synced"))
    assert file.read(0, 100) == b"synced not synced"
    assert file.read(9, 3) == b"t s"
    assert disk.read_whole("a.log") == b"synced not synced"
    assert file.size_bytes == 17
    assert ForgetfulDisk(tmp_path).open("a.log").read(0, 100) == b"synced "


def test_a_cut_that_was_not_synced_is_undone(tmp_path: Path) -> None:
    disk = ForgetfulDisk(tmp_path)
    file = disk.open("a.log", create=True)
    file.append((b"old tail",))
    sync(disk, "a.log")
    file.truncate(3)
    file.append((b"new",))
    file.truncate(5)
    assert file.read(0, 100) == b"oldne"
    assert ForgetfulDisk(tmp_path).open("a.log").read(0, 100) == b"old tail"
    sync(disk, "a.log")
    assert (tmp_path / "a.log").read_bytes() == b"oldne"


def test_a_file_that_is_closed_keeps_what_it_owes(tmp_path: Path) -> None:
    disk = ForgetfulDisk(tmp_path)
    file = disk.open("start", create=True)
    file.append((b"5\n",))
    file.close()
    assert disk.open("start").read(0, 10) == b"5\n"
    sync(disk, "start")
    assert (tmp_path / "start").read_bytes() == b"5\n"


def test_a_file_that_is_replaced_is_as_it_was_stored(tmp_path: Path) -> None:
    disk = ForgetfulDisk(tmp_path)
    disk.open("a", create=True).append((b"never",))
    disk.prepare(Store("a", 1, b"whole")).run()
    assert disk.open("a").read(0, 10) == b"whole"
    assert disk.read_whole("a") == b"whole"


def test_a_rename_takes_along_what_was_written(tmp_path: Path) -> None:
    disk = ForgetfulDisk(tmp_path)
    disk.make_dir("d")
    disk.open("d/a", create=True).append((b"x",))
    disk.rename("d", "e")
    assert disk.open("e/a").read(0, 10) == b"x"
