"""A voter's file begins anew with a snapshot: whole or not at all, with nothing written beside."""

from __future__ import annotations

import pytest

from broker.events import StoreFailed
from broker.quorum.raft_codec import encode_message
from broker.quorum.raft_driver import COMPACTION_RETRY_MS
from broker.quorum.raft_store import MAGIC, PATH, RaftStore, RaftStoreError
from chaos.sim.choices import Choices, from_seed
from chaos.sim.disk import SimDisk
from raft.messages import AppendEntries, InstallSnapshot
from raft.types import Entry, HardState, Snapshot
from tests.quorum.voters import Voter

SNAPSHOT = Snapshot(3, 1, b"what three entries made")


def lone(proposals: int = 4) -> Voter:
    """The only voter, leading, with a few entries committed and applied."""
    one = Voter(1, Choices(from_seed(7)), 1)
    one.become_leader()
    for number in range(proposals):
        one.driver.propose(b"%d" % number * 50)
        one.pump()
        one.finish_all_syncs()
    assert one.node.delivered_index == proposals + 1
    return one


def restarted(one: Voter) -> Voter:
    one.disk.power_loss(lambda label, low, high: low)
    one.start()
    one.finish_all_syncs()
    return one


# --- the driver -----------------------------------------------------------------------------------


def test_a_snapshot_takes_the_place_of_what_was_applied() -> None:
    one = lone()
    before = one.disk.files()[PATH]
    one.compact()
    one.finish_store()
    assert (one.node.base_index, one.node.entries()) == (5, ())
    assert len(one.disk.files()[PATH]) < len(before)
    one.driver.propose(b"behind it")
    one.pump()
    one.finish_all_syncs()
    assert restarted(one).committed[0] == Snapshot(5, 1, b"snapshot")
    assert [entry.data for entry in one.node.entries()] == [b"behind it"]
    assert one.node.hard_state == HardState(1, 1)


def test_what_is_proposed_meanwhile_is_written_afterwards() -> None:
    one = lone()
    one.compact()
    one.driver.propose(b"meanwhile")
    one.wait(10)
    assert one.syncs == [], "nothing is written into a file that is about to go"
    assert not one.driver.wants_snapshot
    one.finish_store()
    one.finish_all_syncs()
    assert [entry.data for entry in restarted(one).node.entries()] == [b"meanwhile"]


def test_a_power_loss_before_the_end_leaves_the_old_file() -> None:
    one = lone()
    one.compact()
    restarted(one)
    assert (one.node.base_index, one.node.last_index) == (0, 5)


def test_it_is_wanted_when_the_file_has_grown_enough() -> None:
    one = lone(1)
    limit = one.driver._config.metadata_log_max_bytes_between_snapshots
    assert not one.driver.wants_snapshot
    one.driver.propose(b"x" * limit)
    one.pump()
    assert not one.driver.wants_snapshot, "a sync is under way"
    one.finish_all_syncs()
    assert one.driver.wants_snapshot
    one.compact()
    assert not one.driver.wants_snapshot
    one.finish_store()
    assert not one.driver.wants_snapshot


def test_a_replacement_that_did_not_happen_is_tried_again_later() -> None:
    one = lone()
    one.compact()
    one.stores.clear()
    failed = StoreFailed(PATH, 1, "no space left on device")
    one.driver.on_store_failed(failed, one.now_ms)
    one.pump()
    assert one.halted == []
    assert one.node.base_index == 0
    one.driver.propose(b"life goes on")
    one.pump()
    one.finish_all_syncs()
    one.compact()
    assert one.stores == [], "not at once"
    one.now_ms += COMPACTION_RETRY_MS
    one.compact()
    one.finish_store()
    assert one.node.base_index == 6


@pytest.mark.parametrize("hangs", [False, True])
def test_one_that_may_have_happened_ends_the_voter(hangs: bool) -> None:
    one = lone()
    one.compact()
    (store,) = one.stores
    if not hangs:
        one.disk.store(PATH, store.data)
    one.driver.on_store_failed(StoreFailed(PATH, 1, "no answer", hangs), one.now_ms)
    one.pump()
    assert one.halted == ["the metadata log cannot be replaced: no answer"]


def test_one_that_hangs_ends_the_voter() -> None:
    one = lone()
    one.compact()
    one.wait(one.driver._config.disk_stall_ms_max)
    assert one.halted == ["sync of the metadata log hangs for 20000 ms"]


def installing() -> Voter:
    """Voter 2 of three is sent a whole snapshot by voter 1."""
    two = Voter(2, Choices(from_seed(7)), 3)
    two.finish_all_syncs()
    message = InstallSnapshot(
        from_id=1,
        from_disk_id="disk-1",
        to_id=2,
        to_disk_id="disk-2",
        term=4,
        snapshot_index=9,
        snapshot_term=3,
        size_bytes=4,
        position=0,
        data=b"nine",
    )
    assert two.step(encode_message("trial", message))
    return two


def test_a_leaders_snapshot_is_applied_at_once_and_confirmed_when_it_is_durable() -> None:
    two = installing()
    assert two.committed == [Snapshot(9, 3, b"nine")]
    assert two.network == []
    two.finish_store()
    assert len(two.network) == 1
    restarted(two)
    assert two.committed == [Snapshot(9, 3, b"nine")]
    assert (two.node.base_index, two.node.hard_state) == (9, HardState(4, None))


def test_a_leaders_snapshot_that_finds_no_room_is_stored_later() -> None:
    two = installing()
    (store,) = two.stores
    two.stores.clear()
    two.driver.on_store_failed(StoreFailed(PATH, 1, "no space left on device"), two.now_ms)
    two.pump()
    assert two.network == []
    two.wait(100)
    assert [again.data for again in two.stores] == [store.data]
    two.finish_store()
    assert len(two.network) == 1


def test_a_leaders_snapshot_that_comes_during_our_own_is_stored_after_it() -> None:
    two = Voter(2, Choices(from_seed(7)), 3)
    two.finish_all_syncs()
    entries = tuple(Entry(number, 3, b"e") for number in (1, 2))
    head = {"from_id": 1, "from_disk_id": "disk-1", "to_id": 2, "to_disk_id": "disk-2", "term": 4}
    append = AppendEntries(**head, prev_index=0, prev_term=0, entries=entries, commit_index=2)  # type: ignore[arg-type]
    two.step(encode_message("trial", append))
    two.finish_all_syncs()
    two.compact()
    install = InstallSnapshot(
        **head,  # type: ignore[arg-type]
        snapshot_index=9,
        snapshot_term=3,
        size_bytes=4,
        position=0,
        data=b"nine",
    )
    two.step(encode_message("trial", install))
    assert len(two.stores) == 1, "one after the other"
    two.finish_store()
    assert len(two.stores) == 1
    two.finish_store()
    assert two.node.base_index == 9
    assert restarted(two).committed == [Snapshot(9, 3, b"nine")]


# --- the file -------------------------------------------------------------------------------------


def replaced(*frames: tuple[HardState | None, tuple[Entry, ...]]) -> SimDisk:
    disk = SimDisk()
    store = RaftStore(disk)
    store.open()
    store.append(HardState(2, 1), [Entry(number, 1, b"e%d" % number) for number in range(1, 5)])
    disk.store(PATH, store.whole(SNAPSHOT, None, (Entry(4, 1, b"e4"),)))
    store.on_replaced()
    for frame in frames:
        store.append(*frame)
    return disk


def test_the_file_says_snapshot_hard_state_and_entries() -> None:
    recovered = RaftStore(replaced((None, (Entry(5, 2, b"five"),)))).open()
    assert recovered.snapshot == SNAPSHOT
    assert recovered.hard_state == HardState(2, 1)
    assert recovered.entries == (Entry(4, 1, b"e4"), Entry(5, 2, b"five"))


def test_entries_behind_it_may_be_replaced_and_those_before_it_may_not() -> None:
    disk = replaced((HardState(3, None), (Entry(4, 3, b"other"), Entry(5, 3, b"new"))))
    recovered = RaftStore(disk).open()
    assert recovered.entries == (Entry(4, 3, b"other"), Entry(5, 3, b"new"))
    with pytest.raises(RaftStoreError, match="entry 3 after entry 4"):
        RaftStore(replaced((None, (Entry(3, 2, b"no"),)))).open()


def test_how_much_was_written_behind_it_is_known_after_a_start() -> None:
    disk = replaced()
    store = RaftStore(disk)
    store.open()
    assert 0 < store.grown_bytes < 60
    store.append(None, (Entry(5, 2, b"x" * 1_000),))
    assert store.grown_bytes > 1_000


def test_no_byte_of_it_can_be_wrong_or_missing_unnoticed() -> None:
    """It was stored as a whole: nothing of it is a torn write."""
    whole = replaced().files()[PATH]
    for position in range(len(MAGIC), len(whole)):
        for broken in (
            whole[:position] + bytes((whole[position] ^ 1,)) + whole[position + 1 :],
            whole[:position],
        ):
            disk = SimDisk()
            disk.make_dir("raft")
            disk.store(PATH, broken)
            if len(broken) <= len(MAGIC) + 8:
                continue  # too short to tell what it was
            with pytest.raises(RaftStoreError):
                RaftStore(disk).open()
