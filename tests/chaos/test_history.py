"""The history format: what is written is what is read, and what a crash may leave is understood."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.checker.model import FAIL, NEVER, OK, UNKNOWN, ConsumerEvent, Poll, build_history
from chaos.history import (
    NO_VALUE,
    Attempt,
    Header,
    HistoryError,
    HistoryFile,
    HistoryWriter,
    PolledPartition,
    encode_value,
    parse_value,
    payload_crc,
    value_id,
    value_name,
)

HEADER = Header("boot-1", "host-1", 7, {"acks": "all"})


def written(*steps: object) -> bytes:
    """Bytes of a small history with one operation of every kind."""
    chunks: list[bytes] = []
    writer = HistoryWriter(chunks.append, HEADER)
    writer.producer(0, 3, 12, {"acks": -1, "idempotence": True})
    first = writer.send(10, 3, "t", 0, 12, 0, 111)
    second = writer.send(11, 3, "t", -1, 12, 1, 222)
    third = writer.send(12, 3, "t", 1, 12, 2, 333)
    writer.send(13, 3, "t", 1, 12, 3, 444)
    writer.ok(first, 20, 0, 5, 2, [Attempt(1, 2, 6, "no"), Attempt(2, 2, 0, "yes")])
    writer.ok(second, 21, 1, 9, 2, [Attempt(2, 2, 0, "yes")])
    writer.fail(third, 22, 'refused "so"', [Attempt(1, 2, 19, "no")])
    poll = writer.poll(30, 4)
    writer.records(poll, 31, [PolledPartition("t", 0, 6, [5], [12], [0], [111])])
    writer.records(writer.poll(32, 4), 33, [])
    writer.consumer(34, 4, "out_of_range", "t", 0, 6, "code 1")
    call = writer.call(40, 5, "list_offsets", {"topic": "t"})
    writer.answer(call, 41, {"offset": 6})
    writer.call(42, 5, "describe", None)
    writer.flush()
    return b"".join(chunks)


def test_what_was_written_is_read_back() -> None:
    history = build_history([HistoryFile.from_bytes("h", written())])
    assert history.headers == [("h", HEADER)]
    sends = [history.send(number) for number in range(4)]
    assert [send.outcome for send in sends] == [OK, OK, FAIL, UNKNOWN]
    assert [send.offset for send in sends] == [5, 9, -1, -1]
    assert [history.place_name(send.place) for send in sends] == ["t-0", "t-1", "t-1", "t-1"]
    assert sends[0].attempts == (Attempt(1, 2, 6, "no"), Attempt(2, 2, 0, "yes"))
    assert sends[1].attempts == (Attempt(2, 2, 0, "yes"),)
    assert (sends[2].error, sends[2].attempts) == ('refused "so"', (Attempt(1, 2, 19, "no"),))
    assert (sends[3].end_ns, sends[3].attempts) == (NEVER, ())
    place = history.places.index(("t", 0))
    [poll] = history.polls[place]
    assert (poll.invoke_ns, poll.end_ns, poll.high_watermark) == (30, 31, 6)
    assert list(history.reads[place].offset) == [5]
    assert list(history.reads[place].value) == [value_id(12, 0)]
    assert [type(step) for step in history.sessions[4]] == [Poll, ConsumerEvent]
    assert history.empty_polls == 1
    assert [(call.function, call.outcome, call.value) for call in history.calls] == [
        ("list_offsets", OK, {"offset": 6}),
        ("describe", UNKNOWN, None),
    ]


def test_every_prefix_of_a_file_is_a_history() -> None:
    """A killed writer leaves a prefix: complete lines count, the torn one does not."""
    data = written()
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    for cut in range(len(data) + 1):
        history = build_history([HistoryFile.from_bytes("h", data[:cut])])
        assert history.torn_files == ([] if cut in ends else ["h"])
        whole = max((end for end in ends if end <= cut), default=0)
        events = data[:whole].count(b'["send"')
        assert len(history.sends) == events


def test_a_send_without_end_is_unknown_and_never_ends() -> None:
    data = written()
    cut = data.index(b'["ok"')
    history = build_history([HistoryFile.from_bytes("h", data[:cut])])
    assert {history.send(number).outcome for number in range(4)} == {UNKNOWN}
    assert history.place_name(history.send(1).place) == "?"
    assert list(history.sent_to[-1]) == [1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'["poll",4', b'["poll,4', r"h:10: not JSON"),
        (b'["fail",2,', b'["fail",2,{},', r"h: bad event \['fail', 2, \{\}"),
        (b'["poll",4,30,4]', b'{"poll":4}', r"h:10: not an event"),
        (b'["ok",0,20,0', b'["ok",0,20,7', r"h: bad event .*another partition"),
        (b'["ok",1,', b'["ok",0,', r"h: bad event"),
        (b'"t",1,12,3,444', b'"t",1,12,2,444', r"p12#2 is sent twice"),
        (b'["answer"', b'["dance"', r"h: bad event .*dance"),
        (b'{"history":1,', b'{"history":2,', r"h:1: history version 2, this build reads 1"),
        (b'{"history":1,', b'{"story":1,', r"h:1: not a history header"),
        (b"[5],[12]", b"[5,6],[12]", r"columns of different length"),
        (b'["producer",0,3', b'["producer"', r"h: bad event \['producer'"),
        (b'["producer"', b'\n["producer"', r"h:2: not JSON"),
    ],
)
def test_damage_is_named(old: bytes, new: bytes, message: str) -> None:
    data = written()
    assert data.count(old) == 1
    with pytest.raises(HistoryError, match=message):
        build_history([HistoryFile.from_bytes("h", data.replace(old, new))])


def test_nothing_reaches_the_file_before_flush_and_everything_after(tmp_path: Path) -> None:
    path = tmp_path / "history-1.jsonl"
    writer = HistoryWriter.open(path, HEADER)
    header_bytes = path.stat().st_size
    assert header_bytes > 0
    writer.send(1, 1, "t", 0, 1, 0, 0)
    assert path.stat().st_size == header_bytes
    writer.flush()
    assert path.read_bytes().endswith(b'["send",0,1,1,"t",0,1,0,0]\n')
    writer.close()
    with pytest.raises(FileExistsError):
        HistoryWriter.open(path, HEADER)


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "history-1.jsonl"
    writer = HistoryWriter.open(path, HEADER, lock=threading.Lock())

    def client(process: int) -> None:
        for counter in range(300):
            op = writer.send(counter, process, "t", 0, process, counter, 0)
            writer.flush()
            writer.ok(op, counter, 0, counter, 0, [])

    threads = [threading.Thread(target=client, args=(process,)) for process in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    history = build_history([HistoryFile.open(path)])
    assert len(history.sends) == 1_200
    assert set(history.sends.outcome) == {OK}


def test_files_of_one_boot_share_a_clock() -> None:
    def one(boot_id: str, uid: int) -> HistoryFile:
        chunks: list[bytes] = []
        writer = HistoryWriter(chunks.append, Header(boot_id, "h", 1))
        writer.send(1, uid, "t", 0, uid, 0, 0)
        writer.flush()
        return HistoryFile.from_bytes(f"h{uid}", b"".join(chunks))

    history = build_history([one("a", 1), one("b", 2), one("a", 3)])
    assert list(history.sends.clock) == [0, 1, 0]


@given(st.integers(0, 2**22 - 1), st.integers(0, 2**40 - 1), st.integers(0, 9_000))
def test_a_payload_names_its_record(uid: int, counter: int, size_bytes: int) -> None:
    payload = encode_value(uid, counter, size_bytes)
    assert parse_value(payload) == (uid, counter)
    assert len(payload) >= size_bytes
    assert len(payload) == size_bytes or size_bytes < 40


def test_any_changed_byte_of_a_payload_is_noticed() -> None:
    payload = encode_value(12, 4711, 100)
    for at in range(len(payload)):
        for flip in (1, 128):
            changed = bytearray(payload)
            changed[at] ^= flip
            assert parse_value(bytes(changed)) != (12, 4711)
            assert payload_crc(bytes(changed)) != payload_crc(payload)
    assert parse_value(payload[:-1]) == (12, 4711), "the crc, not the identity, shows a cut"
    assert payload_crc(payload[:-1]) != payload_crc(payload)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        b"",
        b"prozess",
        b"prozess:1:",
        b"prozess:x:1:",
        b"prozess:1:2:?",
        b"prozess:9999999:1:",
    ],
)
def test_foreign_bytes_have_no_identity(payload: bytes | None) -> None:
    assert parse_value(payload) == (-1, -1)


def test_the_crc_covers_the_key() -> None:
    assert payload_crc(b"ab") == payload_crc(b"a", b"b")
    assert payload_crc(b"a", b"") == payload_crc(b"a", None) == payload_crc(b"a")
    assert payload_crc(b"a", b"b") != payload_crc(b"a", b"c")
    assert payload_crc(None) == 0


def test_names_of_values() -> None:
    assert value_name(value_id(12, 4711)) == "p12#4711"
    assert value_name(NO_VALUE) == "?"
