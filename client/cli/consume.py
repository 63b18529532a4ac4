"""`prozess consume`: records of a topic to standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import click

from client.cli.common import EXIT_UNKNOWN, Failure
from client.cli.connect import (
    bootstrap,
    brokers_option,
    client_config,
    client_errors,
    settings_option,
)
from client.cli.offset_spec import From, OffsetSpec, parse_offset
from client.cli.record_format import Row, compile_format, json_line

if TYPE_CHECKING:
    from broker.wire.record_decoder import Records
    from client.consumer import Consumer

POLL_MS = 200
STALL_S = 30
"""With an end in sight, so long without a record means that the rest is out of reach."""

Partition = tuple[str, int]


class Batch(Protocol):
    """What the printer needs of a fetched batch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def start_offset(self) -> int: ...
    def records(self, *, check_crc: bool = True) -> Records: ...


class Printer:
    """Batches to bytes: `value LF`, or what `one` makes of a record. Counts and stops in time."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        one: Callable[[Row], bytes] | None = None,
        *,
        count_max: int | None = None,
        ends: dict[Partition, int] | None = None,
    ) -> None:
        """`ends`: where each partition ends (exclusive); without it there is no end."""
        self._write = write
        self._one = one
        self._left = count_max
        self._ends = ends
        self.printed_count = 0

    @property
    def is_full(self) -> bool:
        """As many records as were asked for are out."""
        return self._left is not None and self._left <= 0

    def print(self, batch: Batch) -> None:
        records = batch.records()
        first, last = self._wanted(batch, records.offsets)
        if first >= last:
            return
        if self._one is None:
            self._write(b"\n".join([value or b"" for value in records.values[first:last]]) + b"\n")
        else:
            one, topic, partition = self._one, batch.topic, batch.partition
            rows = zip(
                records.offsets[first:last],
                records.timestamps_ms[first:last],
                records.keys[first:last],
                records.values[first:last],
                records.headers[first:last],
                strict=True,
            )
            self._write(b"".join([one(Row(topic, partition, *row)) for row in rows]))
        self.printed_count += last - first
        if self._left is not None:
            self._left -= last - first

    def _wanted(self, batch: Batch, offsets: Sequence[int]) -> tuple[int, int]:
        """The records [first, last) of the batch that are to be printed."""
        first, last = 0, len(offsets)
        while first < last and offsets[first] < batch.start_offset:
            first += 1
        if self._ends is not None:
            end_offset = self._ends[(batch.topic, batch.partition)]
            while last > first and offsets[last - 1] >= end_offset:
                last -= 1
        if self._left is not None:
            last = min(last, first + self._left)
        return first, last


def _offset(context: click.Context, parameter: click.Parameter, text: str) -> OffsetSpec:
    try:
        return parse_offset(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _format(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> Callable[[Row], bytes] | None:
    if text is None:
        return None
    try:
        return compile_format(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(
    epilog="Example: prozess consume t -e > copy    "
    "prozess consume t -o -5 -f '%p@%o %k=%s\\n'    prozess consume t -J | head"
)
@click.argument("topic")
@click.option(
    "-p",
    "--partition",
    "partitions",
    type=click.IntRange(0),
    multiple=True,
    help="Read this partition only. Repeatable.  [default: all]",
)
@click.option(
    "-o",
    "--offset",
    "start",
    metavar="WHERE",
    default="beginning",
    show_default=True,
    callback=_offset,
    help="Where to begin: beginning, end, N, -N (the last N of each partition), @MS (a time in "
    "milliseconds since 1970).",
)
@click.option("-c", "--count", type=click.IntRange(1), help="End after so many records.")
@click.option(
    "-e",
    "--exit-at-end",
    is_flag=True,
    help="End at what was the high watermark of each partition when reading began.",
)
@click.option(
    "-f",
    "--format",
    "formatter",
    metavar="FORMAT",
    callback=_format,
    help="How to print a record: %t topic, %p partition, %o offset, %T timestamp in ms, %k key, "
    "%s value, %K and %S their sizes, %h headers, %% percent; \\n, \\t, \\xHH.  "
    "[default: the value and a line feed]",
)
@click.option(
    "-J", "--json", "as_json", is_flag=True, help="Print one JSON object a line; as --output json."
)
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="As everywhere, but with no short form: -o is the offset here, as in kcat.",
)
@brokers_option
@settings_option("A consumer setting, as in -X fetch_max_wait_ms=50. Repeatable.")
def consume(
    topic: str,
    partitions: tuple[int, ...],
    start: OffsetSpec,
    count: int | None,
    exit_at_end: bool,
    formatter: Callable[[Row], bytes] | None,
    as_json: bool,
    output: str,
    brokers: str | None,
    settings: tuple[tuple[str, str], ...],
) -> int:
    """Print the records of TOPIC: bytes as they were sent, each followed by a line feed.

    Goes on for ever unless -c or -e is given; Ctrl-C ends it.
    """
    as_json = as_json or output == "json"
    if as_json and formatter is not None:
        raise click.UsageError("-f and JSON exclude each other")
    if sys.stdout is None:
        raise Failure("standard output is closed: there is nowhere to print to")
    from client.cli.main import EXIT_PIPE
    from client.config import ConsumerConfig
    from client.consumer import Consumer

    # Never silently skip what is gone: an offset out of range is an error here.
    config = client_config(
        ConsumerConfig, bootstrap(brokers), settings, {"auto_offset_reset": "none"}
    )
    with client_errors(), Consumer(config) as consumer:
        wanted = _partitions(consumer, topic, partitions)
        ends = begin(consumer, wanted, start, exit_at_end=exit_at_end)
        # sys.stdout.buffer is a raw file under PYTHONUNBUFFERED, and its writes may be short.
        out = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115
        printer = Printer(
            out.write,
            json_line if as_json else formatter,
            count_max=count,
            ends=ends,
        )
        try:
            read(consumer, printer, ends, out.flush)
        except BrokenPipeError:
            # Nobody reads on (as in `| head`). What is still buffered has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_PIPE
    return 0


def _partitions(consumer: Consumer, topic: str, given: Sequence[int]) -> list[Partition]:
    """Those given, else all. ApiError when the topic has them not."""
    from broker.wire.errors import ApiError, ErrorCode
    from client.cli.topic import POLL_S, SPREAD_MS

    deadline_ns = time.monotonic_ns() + SPREAD_MS * 1_000_000
    while True:
        try:
            known = consumer.partitions_for(topic)
            break
        except ApiError as error:
            if error.code is not ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            if time.monotonic_ns() >= deadline_ns:
                detail = f"there is no topic {topic}: `prozess topic list` shows what there is"
                raise ApiError(error.code, detail) from error
        time.sleep(POLL_S)
    for partition in given:
        if partition not in known:
            raise ApiError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {topic} has partitions 0 to {len(known) - 1}, not {partition}",
            )
    return [(topic, partition) for partition in given or known]


def begin(
    consumer: Consumer, wanted: Sequence[Partition], start: OffsetSpec, *, exit_at_end: bool
) -> dict[Partition, int] | None:
    """Assign and seek; where each partition ends if there is an end."""
    consumer.assign(wanted)
    ends: dict[Partition, int] | None = None
    if exit_at_end or start.kind in (From.END, From.LAST):
        ends = consumer.end_offsets(wanted)
    if start.kind is From.TIME:
        for topic, partition in wanted:
            consumer.seek_to_time(topic, partition, start.number)
    else:
        starts = (
            consumer.beginning_offsets(wanted)
            if start.kind in (From.BEGINNING, From.LAST)
            else dict.fromkeys(wanted, 0)
        )
        for topic, partition in wanted:
            high_watermark = ends[(topic, partition)] if ends else 0
            consumer.seek(topic, partition, start.start(starts[(topic, partition)], high_watermark))
    return ends if exit_at_end else None


def read(
    consumer: Consumer,
    printer: Printer,
    ends: dict[Partition, int] | None,
    flush: Callable[[], object],
) -> None:
    """Print until the end, if there is one. Failure when it is out of reach."""
    progress_ns = time.monotonic_ns()
    while not printer.is_full:
        if ends is not None:
            behind = _leave_finished(consumer, ends)
            if not behind:
                break
            if time.monotonic_ns() - progress_ns > STALL_S * 1_000_000_000:
                topic, partition = behind[0]
                raise Failure(
                    f"nothing arrived for {STALL_S} s; {topic}-{partition} stands at offset "
                    f"{consumer.position(topic, partition)} of {ends[behind[0]]}",
                    EXIT_UNKNOWN,
                )
        batches = consumer.poll_batches(POLL_MS)
        if not batches:
            continue
        progress_ns = time.monotonic_ns()
        _print_all(printer, batches)
        flush()


def _print_all(printer: Printer, batches: Iterable[Batch]) -> None:
    for batch in batches:
        if printer.is_full:
            return
        printer.print(batch)


def _leave_finished(consumer: Consumer, ends: dict[Partition, int]) -> list[Partition]:
    """Stop reading partitions that are at their end; the others."""
    assigned = consumer.assignment()
    behind = [entry for entry in assigned if consumer.position(*entry) < ends[entry]]
    if len(behind) < len(assigned):
        consumer.assign(behind)
    return behind
