"""Device threads: order per key, outcomes as events, descriptors of their own."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.events import (
    Remove,
    Store,
    Stored,
    StoreFailed,
    Sync,
    Synced,
    SyncFailed,
    SyncToken,
)
from broker.runtime.disk import Job, Outcome, RealDisk
from broker.runtime.workers import Workers
from tests.runtime.test_disk import open_below

WAIT_S = 60
TOKEN = SyncToken(("t", 0), 3, 17)


class Pool:
    """Workers whose notifications can be waited for."""

    def __init__(self, count: int) -> None:
        self.notified: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.workers = Workers(count, lambda: self.notified.put(None))

    def wait(self, count: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for _ in range(count):
            self.notified.get(timeout=WAIT_S)
        outcomes += self.workers.completed()
        return outcomes


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(3)
    yield pool
    pool.workers.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    disk = RealDisk(tmp_path)
    yield disk
    disk.close()


def job(key: str, run: Callable[[], object], name: str) -> Job:
    def act() -> Outcome:
        run()
        return Stored(name, 0)

    return Job(key, act, lambda reason, hangs: StoreFailed(name, 0, reason, hangs))


def test_jobs_of_a_key_run_in_order_and_one_at_a_time(pool: Pool) -> None:
    order: list[int] = []
    running = threading.Semaphore(1)

    def step(number: int) -> None:
        assert running.acquire(blocking=False), "two jobs of one key at once"
        order.append(number)
        running.release()

    for number in range(50):
        pool.workers.submit(job("log", lambda number=number: step(number), str(number)))
    outcomes = pool.wait(50)
    assert order == list(range(50))
    assert outcomes == [Stored(str(number), 0) for number in range(50)]


def test_jobs_of_other_keys_do_not_wait(pool: Pool) -> None:
    release = threading.Event()
    pool.workers.submit(job("slow", release.wait, "slow"))
    pool.workers.submit(job("slow", lambda: None, "behind"))
    pool.workers.submit(job("other", lambda: None, "other"))
    assert pool.wait(1) == [Stored("other", 0)]
    release.set()
    assert pool.wait(2) == [Stored("slow", 0), Stored("behind", 0)]


def test_a_failure_is_an_event_and_the_next_job_runs(pool: Pool) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    pool.workers.submit(job("k", fail, "first"))
    pool.workers.submit(job("k", lambda: None, "second"))
    first, second = pool.wait(2)
    assert first == StoreFailed("first", 0, "Input/output error (errno 5)")
    assert second == Stored("second", 0)


def test_a_stalled_job_counts_as_failed_and_its_end_is_ignored(pool: Pool) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(WAIT_S)

    pool.workers.submit(job("k", hang, "hangs"))
    assert begun.wait(WAIT_S)
    pool.workers.give_up_on_stalled(-1)
    pool.workers.give_up_on_stalled(-1)
    assert pool.wait(1) == [StoreFailed("hangs", 0, "no answer from the device for -1 ms", True)]
    release.set()
    pool.workers.submit(job("k", lambda: None, "next"))
    assert pool.wait(1) == [Stored("next", 0)]


def test_close_finishes_what_was_submitted() -> None:
    pool = Pool(1)
    done: list[int] = []
    for number in range(10):
        pool.workers.submit(job("k", lambda number=number: done.append(number), ""))
    pool.workers.close()
    assert done == list(range(10))


# --- effects as jobs ------------------------------------------------------------------------------


def test_sync(pool: Pool, disk: RealDisk, tmp_path: Path) -> None:
    disk.make_dir("logs/t")
    disk.open("logs/t/f", create=True).append((b"x",))
    pool.workers.submit(disk.prepare(Sync(TOKEN, ("logs/t/f",), ("logs/t", "logs", "."))))
    assert pool.wait(1) == [Synced(TOKEN)]


def test_a_sync_owns_its_descriptors(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Closing, removing and reusing the number meanwhile does not redirect the sync."""
    file = disk.open("f", create=True)
    file.append((b"x",))
    inode = os.stat(tmp_path / "f").st_ino
    number = disk.descriptor("f")
    job = disk.prepare(Sync(TOKEN, ("f",)))
    file.close()
    os.unlink(tmp_path / "f")
    other = disk.open("g", create=True)
    other.append((b"y",))
    assert disk.descriptor("g") == number, "the number is handed out again at once"
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    job.run()
    assert synced == [inode]


def test_sync_goes_through_files_then_directories_in_order(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk.make_dir("d")
    for name in ("d/b", "d/a"):
        disk.open(name, create=True)
    job = disk.prepare(Sync(TOKEN, ("d/b", "d/a"), ("d", ".")))
    before = open_below(tmp_path)
    synced: list[str] = []
    name_of = {os.stat(tmp_path / name).st_ino: name for name in ("d/b", "d/a", "d", ".")}
    for call in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, call, lambda fd: synced.append(name_of[os.fstat(fd).st_ino]))
    job.run()
    assert synced == ["d/b", "d/a", "d", "."]
    assert open_below(tmp_path) == before - 4


def test_a_failing_sync_says_so_and_leaks_nothing(
    pool: Pool, disk: RealDisk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk.open("f", create=True)
    before = open_below(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    pool.workers.submit(disk.prepare(Sync(TOKEN, ("f",))))
    pool.workers.submit(disk.prepare(Sync(TOKEN, ("f", "missing"))))
    assert pool.wait(2) == [
        SyncFailed(TOKEN, "Input/output error (errno 5)"),
        SyncFailed(TOKEN, "No such file or directory (errno 2)"),
    ]
    assert open_below(tmp_path) == before


def test_store_replaces_as_a_whole(pool: Pool, disk: RealDisk, tmp_path: Path) -> None:
    for number in range(3):
        pool.workers.submit(disk.prepare(Store("checkpoint", number, b"%d" % number * 1_000)))
    assert pool.wait(3) == [Stored("checkpoint", number) for number in range(3)]
    assert (tmp_path / "checkpoint").read_bytes() == b"2" * 1_000
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_store_where_there_is_no_directory_fails(pool: Pool, disk: RealDisk) -> None:
    pool.workers.submit(disk.prepare(Store("gone/checkpoint", 7, b"x")))
    assert pool.wait(1) == [
        StoreFailed("gone/checkpoint", 7, "No such file or directory (errno 2)")
    ]


def test_remove_makes_way_at_once(disk: RealDisk, tmp_path: Path) -> None:
    """The name is free when `prepare` returns; the bytes go later."""
    disk.make_dir("logs/t")
    disk.open("logs/t/f", create=True).append((b"old",))
    job = disk.prepare(Remove("logs/t"))
    assert not disk.exists("logs/t")
    disk.make_dir("logs/t")
    disk.open("logs/t/f", create=True).append((b"new",))
    assert len(disk.list_dir("logs")) == 2
    job.run()
    assert disk.list_dir("logs") == ("t",)
    assert disk.read_whole("logs/t/f") == b"new"
    disk.prepare(Remove("logs/t/f")).run()
    assert disk.list_dir("logs/t") == ()
    disk.prepare(Remove("logs/t/f")).run()
    assert disk.list_dir("logs/t") == ()
