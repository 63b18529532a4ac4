"""Whose data directory it is: every way in which it can be the wrong one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.runtime.identity import (
    BrokenMeta,
    DataDirLock,
    Identity,
    InUse,
    NotFormatted,
    NotWritable,
    WrongIdentity,
    format_data_dir,
    open_data_dir,
    read_identity,
)

OURS = Identity("cluster-a", 1, "disk-x")


@dataclass(frozen=True)
class Owner:
    data_dir: str
    cluster_id: str = "cluster-a"
    node_id: int = 1


def test_format_then_open(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "data"
    format_data_dir(root, OURS)
    assert read_identity(root) == OURS
    with open_data_dir(Owner(str(root))) as (identity, disk):
        assert identity == OURS
        assert disk.list_dir(".") == (".lock", "meta.properties")
        assert (root / ".lock").read_text() == f"{os.getpid()}\n"
    with open_data_dir(Owner(str(root))):
        pass


def test_formatting_again_is_fine_for_the_same_and_refused_for_another(tmp_path: Path) -> None:
    format_data_dir(tmp_path, OURS)
    format_data_dir(tmp_path, OURS)
    with pytest.raises(WrongIdentity, match="already formatted for node 1 of cluster cluster-a"):
        format_data_dir(tmp_path, OURS._replace(disk_id="other"))
    assert read_identity(tmp_path) == OURS


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ({"cluster_id": "b"}, "belongs to cluster cluster-a, not b: take another data_dir"),
        ({"node_id": 2}, "belongs to node 1, not 2: take another data_dir"),
    ],
)
def test_the_directory_of_somebody_else(
    tmp_path: Path, owner: dict[str, object], message: str
) -> None:
    format_data_dir(tmp_path, OURS)
    with (
        pytest.raises(WrongIdentity, match=message),
        open_data_dir(Owner(str(tmp_path), **owner)),  # type: ignore[arg-type]
    ):
        pass
    assert not (tmp_path / ".lock").exists()


def test_not_formatted(tmp_path: Path) -> None:
    with pytest.raises(NotFormatted, match="is not formatted"), open_data_dir(Owner(str(tmp_path))):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks version, cluster_id, node_id, disk_id"),
        ("version=1\ncluster_id=a\nnode_id=1\n", "lacks disk_id"),
        ("version=2\ncluster_id=a\nnode_id=1\ndisk_id=x\n", "has version 2, this is 1"),
        ("version=1\ncluster_id=a\nnode_id=one\ndisk_id=x\n", "node_id is 'one'"),
        ("version=1\nversion=1\n", "line 2 is not understood"),
        ("version=1\ncolour=red\n", "line 2 is not understood: 'colour=red'"),
        ("version=1\nnonsense\n", "line 2 is not understood"),
    ],
)
def test_broken_meta(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "meta.properties").write_text(text)
    with pytest.raises(BrokenMeta, match=message):
        read_identity(tmp_path)


def test_meta_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "meta.properties").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BrokenMeta, match="cannot be read"):
        read_identity(tmp_path)


def test_comments_and_blank_lines_are_fine(tmp_path: Path) -> None:
    format_data_dir(tmp_path, OURS)
    path = tmp_path / "meta.properties"
    path.write_text("# ours\n\n" + path.read_text())
    assert read_identity(tmp_path) == OURS


def test_in_use_by_another_process(tmp_path: Path) -> None:
    format_data_dir(tmp_path, OURS)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\n"
            "from broker.runtime.identity import DataDirLock\n"
            "lock = DataDirLock(pathlib.Path(sys.argv[1]))\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUse, match=f"in use by process {holder.pid}") as raised:
            DataDirLock(tmp_path)
        assert raised.value.pid == holder.pid
        # However it ends, the lock is free: that is what proves the old incarnation dead.
        holder.kill()
        holder.wait()
    DataDirLock(tmp_path).release()


def test_in_use_by_this_process(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    with pytest.raises(InUse):
        DataDirLock(tmp_path)
    lock.release()
    DataDirLock(tmp_path).release()


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format_data_dir(tmp_path, OURS)
    real_open = os.open

    def read_only(path: object, flags: int, *args: object, **kwargs: object) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system", str(path))
        return real_open(path, flags, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with (
        pytest.raises(NotWritable, match="cannot be written: Read-only file system"),
        open_data_dir(Owner(str(tmp_path))),
    ):
        pass


def test_formatting_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="Not a directory"):
        format_data_dir(tmp_path / "file" / "data", OURS)
