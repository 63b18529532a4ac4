"""What the clients saw: the history format shared by simulator and real runs.

A history file is JSON lines: a header object, then one array per event, in the order in which the
events happened in that process. The columns are in chaos/checker/README.md and in the methods of
`HistoryWriter`, which is the only writer. Rules that make a history worth judging:

* an invocation is stamped and handed to the operating system before its bytes may leave, so a
  crash can lose the knowledge of an outcome but never the knowledge of an attempt;
* an operation without an end is unknown for ever, and `fail` means "definitely never happened";
* times are CLOCK_MONOTONIC nanoseconds and mean something only between files of one boot id.

In memory a history is columns, not objects: a million operations must be judged in seconds.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crc32c import crc32c

HISTORY_VERSION = 1

COUNTER_BITS = 40
NO_VALUE = -1
"""Value id of bytes that no producer of this format could have made."""

# --- the payload carries its own identity ---------------------------------------------------------

_PREFIX = b"prozess"
_ALPHABET = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY"
_FILLER = _ALPHABET * 70


def value_id(producer_uid: int, counter: int) -> int:
    """One integer for (producer session, counter); counter < 2**40, uid < 2**22."""
    return producer_uid << COUNTER_BITS | counter


def value_name(value: int) -> str:
    """The way reports write a value: `p12#4711`, or `?` for bytes that nobody sent."""
    if value < 0:
        return "?"
    return f"p{value >> COUNTER_BITS}#{value & ((1 << COUNTER_BITS) - 1)}"


def encode_value(producer_uid: int, counter: int, size_bytes: int) -> bytes:
    """The payload of one record: a pure function of its identity and size, so that every byte of a
    record found anywhere can be compared with what was sent. Never shorter than its identity."""
    head = b"%b:%d:%d:" % (_PREFIX, producer_uid, counter)
    need = size_bytes - len(head)
    if need <= 0:
        return head
    start = (producer_uid * 31 + counter) % len(_ALPHABET)
    filler = _FILLER
    if start + need > len(filler):
        filler = _ALPHABET * ((start + need) // len(_ALPHABET) + 1)
    return head + filler[start : start + need]


def parse_value(payload: bytes | None) -> tuple[int, int]:
    """(producer uid, counter) of a payload, or (-1, -1) if any byte differs from what
    `encode_value` makes."""
    if payload is None or not payload.startswith(_PREFIX):
        return -1, -1
    parts = payload.split(b":", 3)
    if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()):
        return -1, -1
    producer_uid, counter = int(parts[1]), int(parts[2])
    if producer_uid >> 22 or counter >> COUNTER_BITS:
        return -1, -1
    if payload != encode_value(producer_uid, counter, len(payload)):
        return -1, -1
    return producer_uid, counter


def payload_crc(value: bytes | None, key: bytes | None = None) -> int:
    """CRC-32C of the value, continued over the key if there is one."""
    crc = crc32c(value or b"")
    return crc32c(key, crc) if key else crc


# --- writing --------------------------------------------------------------------------------------


class Attempt(NamedTuple):
    """One request that carried the record. `appended` is "no", "maybe" or "yes": that, not the
    code, makes an attempt definite."""

    node: int
    leader_epoch: int
    error: int
    appended: str


class PolledPartition(NamedTuple):
    """What one poll got from one partition: four columns of equal length."""

    topic: str
    partition: int
    high_watermark: int
    offsets: Sequence[int]
    producer_uids: Sequence[int]
    counters: Sequence[int]
    crcs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a history file. `settings` is free text for the reader of a report."""

    boot_id: str
    host: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)


class HistoryError(Exception):
    """A history that cannot be read; names file and line."""


class HistoryWriter:
    """Appends events to a sink; nothing reaches it before `flush` (or 64 KiB of lines).

    Pass `lock=threading.Lock()` when several threads write; the default is no lock. Operation ids
    are given out by the writer and are unique in its file.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        header: Header,
        *,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._sink = sink
        self._lock = lock if lock is not None else nullcontext()
        self._lines: list[str] = []
        self._quoted: dict[str, str] = {}
        self._buffered_bytes = 0
        self._next_op = 0
        self._close: Callable[[], None] | None = None
        self._put(_dump({"history": HISTORY_VERSION, **asdict(header)}))
        self.flush()

    @classmethod
    def open(
        cls, path: Path, header: Header, *, lock: AbstractContextManager[Any] | None = None
    ) -> HistoryWriter:
        """Create `path` (it must not exist) and write to it with write(2), never buffered twice."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

        def sink(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        writer = cls(sink, header, lock=lock)
        writer._close = lambda: os.close(descriptor)
        return writer

    def producer(
        self, time_ns: int, process: int, producer_uid: int, settings: dict[str, Any]
    ) -> None:
        """A producer session begins. Needed in `settings`: acks (-1, 0, 1), idempotence (bool)."""
        with self._lock:
            self._put(f'["producer",{time_ns},{process},{producer_uid},{_dump(settings)}]')

    def send(
        self,
        time_ns: int,
        process: int,
        topic: str,
        partition: int,
        producer_uid: int,
        counter: int,
        crc: int,
    ) -> int:
        """A record is about to be sent (partition -1: not chosen yet). Returns the operation id."""
        with self._lock:
            op = self._next_op
            self._next_op = op + 1
            name = self._quoted.get(topic) or self._quoted.setdefault(topic, _dump(topic))
            self._put(
                f'["send",{op},{time_ns},{process},{name},{partition},'
                f"{producer_uid},{counter},{crc}]"
            )
            return op

    def ok(
        self,
        op: int,
        time_ns: int,
        partition: int,
        offset: int,
        leader_epoch: int,
        attempts: Iterable[Attempt],
    ) -> None:
        """The record was acked."""
        tail = _attempts(attempts)
        with self._lock:
            self._put(f'["ok",{op},{time_ns},{partition},{offset},{leader_epoch},{tail}]')

    def fail(self, op: int, time_ns: int, error: str, attempts: Iterable[Attempt]) -> None:
        """The record definitely was not and never will be appended: every attempt says "no"."""
        tail = _attempts(attempts)
        with self._lock:
            self._put(f'["fail",{op},{time_ns},{_dump(error)},{tail}]')

    def info(self, op: int, time_ns: int, error: str, attempts: Iterable[Attempt]) -> None:
        """The outcome is unknown and will stay so."""
        tail = _attempts(attempts)
        with self._lock:
            self._put(f'["info",{op},{time_ns},{_dump(error)},{tail}]')

    def poll(self, time_ns: int, process: int) -> int:
        """A poll begins. Returns the operation id."""
        return self._invoke("poll", time_ns, process, "")

    def records(self, op: int, time_ns: int, partitions: Iterable[PolledPartition]) -> None:
        """A poll returned records; an empty one proves nothing but may be written."""
        rows = [
            f"[{_dump(part.topic)},{part.partition},{part.high_watermark},{list(part.offsets)},"
            f"{list(part.producer_uids)},{list(part.counters)},{list(part.crcs)}]"
            for part in partitions
        ]
        with self._lock:
            self._put(f'["records",{op},{time_ns},[{",".join(rows)}]]')

    def consumer(
        self,
        time_ns: int,
        process: int,
        kind: str,
        topic: str,
        partition: int,
        offset: int,
        detail: str = "",
    ) -> None:
        """The position of a consumer changed by other means than a poll: assign, seek, reset,
        out_of_range, close. `offset` is the new position, -1 if not known."""
        place = f"{_dump(topic)},{partition},{offset},{_dump(detail)}"
        with self._lock:
            self._put(f'["consumer",{time_ns},{process},{_dump(kind)},{place}]')

    def call(self, time_ns: int, process: int, function: str, argument: Any) -> int:
        """Another operation begins (list_offsets, admin). Returns the operation id."""
        return self._invoke("call", time_ns, process, f",{_dump(function)},{_dump(argument)}")

    def answer(self, op: int, time_ns: int, value: Any) -> None:
        """A call ended well. Errors end as `fail` or `info`."""
        with self._lock:
            self._put(f'["answer",{op},{time_ns},{_dump(value)}]')

    def flush(self) -> None:
        """Hand all events to the operating system; must return before invoked bytes may leave."""
        with self._lock:
            self._drain()

    def close(self) -> None:
        self.flush()
        if self._close is not None:
            self._close()
            self._close = None

    def _invoke(self, event: str, time_ns: int, process: int, tail: str) -> int:
        with self._lock:
            op = self._next_op
            self._next_op = op + 1
            self._put(f'["{event}",{op},{time_ns},{process}{tail}]')
            return op

    def _put(self, line: str) -> None:
        self._lines.append(line)
        self._buffered_bytes += len(line)
        if self._buffered_bytes > 65_536:
            self._drain()

    def _drain(self) -> None:
        if self._lines:
            data = ("\n".join(self._lines) + "\n").encode()
            self._lines.clear()
            self._buffered_bytes = 0
            self._sink(data)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _attempts(attempts: Iterable[Attempt]) -> str:
    rows = [f'[{a.node},{a.leader_epoch},{a.error},"{a.appended}"]' for a in attempts]
    return f"[{','.join(rows)}]"


# --- reading --------------------------------------------------------------------------------------

_CHUNK_BYTES = 1 << 20


class HistoryFile:
    """One history file: its header, then its events in chunks, in file order.

    A last line without its end (the writer was killed) is dropped and `torn` set; any other line
    that does not parse is damage: HistoryError names it.
    """

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self.torn = False
        self._stream = stream
        self._line_number = 1
        self.header = self._read_header(stream.readline())

    @classmethod
    def open(cls, path: Path) -> HistoryFile:
        return cls(path.name, path.open("rb"))

    @classmethod
    def from_bytes(cls, name: str, data: bytes) -> HistoryFile:
        return cls(name, io.BytesIO(data))

    def chunks(self) -> Iterator[list[list[Any]]]:
        """Lists of events; each event is its array. Closes the file at the end."""
        with self._stream:
            rest = b""
            while data := self._stream.read(_CHUNK_BYTES):
                head, newline, tail = data.rpartition(b"\n")
                if newline:
                    yield self._parse(rest + head)
                    rest = tail
                else:
                    rest += data
            self.torn = self.torn or bool(rest)

    def _read_header(self, line: bytes) -> Header:
        if not line.endswith(b"\n"):
            self.torn = True
            return Header(boot_id="", host="", seed=0)
        try:
            raw = json.loads(line)
            version = raw["history"]
            header = Header(
                str(raw["boot_id"]), str(raw["host"]), int(raw["seed"]), raw.get("settings", {})
            )
        except (ValueError, TypeError, KeyError) as error:
            raise HistoryError(f"{self.name}:1: not a history header ({error})") from error
        if version != HISTORY_VERSION:
            raise HistoryError(
                f"{self.name}:1: history version {version}, this build reads {HISTORY_VERSION}"
            )
        return header

    def _parse(self, lines: bytes) -> list[list[Any]]:
        first_line = self._line_number + 1
        self._line_number += lines.count(b"\n") + 1
        try:
            # One call for many lines is twice as fast as one call per line.
            events = json.loads(b"[" + lines.replace(b"\n", b",") + b"]")
        except ValueError:
            events = None
        if events is None or not all(type(event) is list and event for event in events):
            for number, line in enumerate(lines.split(b"\n"), first_line):
                self._check_line(number, line)
            raise HistoryError(f"{self.name}: lines {first_line} and after are not events")
        return events  # type: ignore[no-any-return]

    def _check_line(self, number: int, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError as error:
            raise HistoryError(f"{self.name}:{number}: not JSON ({error})") from error
        if type(event) is not list or not event:
            raise HistoryError(f"{self.name}:{number}: not an event: {line[:80]!r}")
