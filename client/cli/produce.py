"""`prozess produce`: standard input to a topic, a record a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import click

from client.cli.common import EXIT_BAD, EXIT_GOOD, EXIT_UNKNOWN, Failure, print_json
from client.cli.connect import (
    bootstrap,
    brokers_option,
    client_config,
    client_errors,
    settings_option,
)
from client.cli.escapes import unescape
from client.cli.line_reader import LineTooLong, read_lines, split_key

if TYPE_CHECKING:
    from client.cli.delivery_report import DeliveryReport
    from client.delivery import RangeHandle, RecordHandle

SLICE_LINES = 4_096
"""Lines handed over between two looks at what became of earlier ones."""
RUNS_MAX = 100_000
"""Ranges of lines under way at most. Their bytes are bounded by buffer_memory."""
BATCH_OVERHEAD_BYTES = 128
"""More than a batch of one record without key or headers adds to the value."""
GRACE_S = 1.0

Headers = tuple[tuple[str, bytes], ...]


class Sender(Protocol):
    """What the pump needs of a Producer."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> RecordHandle: ...

    def send_many(
        self, topic: str, values: Sequence[bytes], partition: int | None = None
    ) -> RangeHandle: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What a line becomes."""

    topic: str
    partition: int | None = None
    delimiter: bytes | None = None
    headers: Headers = ()

    @property
    def is_plain(self) -> bool:
        """Neither key nor headers: the line is the value."""
        return self.delimiter is None and not self.headers


class Pump:
    """Moves lines into a producer and watches what becomes of them."""

    def __init__(
        self,
        sender: Sender,
        shape: Shape,
        report: DeliveryReport,
        *,
        value_bytes_max: int,
        keep_going: bool,
        wait_s: float,
    ) -> None:
        self._sender = sender
        self._shape = shape
        self._report = report
        self._value_bytes_max = value_bytes_max - BATCH_OVERHEAD_BYTES
        self._keep_going = keep_going
        self._wait_s = wait_s

    def send(self, lines: Sequence[bytes]) -> bool:
        """Hand lines over, waiting while too much is under way. False: stop reading."""
        for start in range(0, len(lines), SLICE_LINES):
            self._send_slice(lines[start : start + SLICE_LINES])
            self._report.settle()
            while self._report.pending_runs > RUNS_MAX:
                self._report.wait_for_oldest(self._wait_s)
                self._report.settle()
            if self._report.has_losses and not self._keep_going:
                return False
        return True

    def _send_slice(self, lines: Sequence[bytes]) -> None:
        shape = self._shape
        # A value that may be refused goes alone, so that it is known which one was.
        if shape.is_plain and max(map(len, lines)) <= self._value_bytes_max:
            self._report.add_range(self._sender.send_many(shape.topic, lines, shape.partition))
            return
        for line in lines:
            self._send_one(line)
            if self._report.has_losses and not self._keep_going:
                return

    def _send_one(self, line: bytes) -> None:
        from client.errors import RecordTooLarge

        shape = self._shape
        key, value = (
            split_key(line, shape.delimiter) if shape.delimiter is not None else (None, line)
        )
        try:
            handle = self._sender.send(shape.topic, value, key, shape.headers, shape.partition)
        except RecordTooLarge as error:
            self._report.add_refused(str(error))
        else:
            self._report.add(handle)


def exit_code(report: DeliveryReport) -> int:
    """2 if the fate of any record is unknown, else 1 if any failed, else 0."""
    if report.unknown.count:
        return EXIT_UNKNOWN
    return EXIT_BAD if report.failed.count else EXIT_GOOD


def _delimiter(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> bytes | None:
    if text is None:
        return None
    try:
        delimiter = unescape(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if not delimiter:
        raise click.BadParameter("the delimiter is empty", context, parameter)
    return delimiter


def _headers(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> Headers:
    pairs = [text.partition("=") for text in given]
    for text, (name, equals, _) in zip(given, pairs, strict=True):
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not name=value", context, parameter)
    return tuple((name, value.encode("utf-8", "surrogateescape")) for name, _, value in pairs)


@click.command(
    epilog="Example: seq 100000 | prozess produce numbers --create    "
    "printf 'k1:v1\\nk2:v2\\n' | prozess produce t -k :"
)
@click.argument("topic")
@click.option(
    "-k",
    "delimiter",
    metavar="DELIM",
    callback=_delimiter,
    help="A line is key DELIM value; one without DELIM has no key. \\t and \\xHH are understood.",
)
@click.option("-p", "--partition", type=click.IntRange(0), help="Send to this partition.")
@click.option(
    "-H",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_headers,
    help="A header for every record. Repeatable.",
)
@click.option(
    "-z",
    "codec",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    help="Compress batches.  [default: none]",
)
@click.option("--create", is_flag=True, help="Create the topic if there is none.")
@click.option("--partitions", type=click.IntRange(1), help="With --create: how many.  [default: 1]")
@click.option("--keep-going", is_flag=True, help="Read on after a record failed.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the summary: a line on stderr, or JSON on stdout.",
)
@click.option("-q", "--quiet", is_flag=True, help="No summary when all went well.")
@brokers_option
@settings_option("A producer setting, as in -X linger_ms=50 -X acks=1. Repeatable.")
def produce(
    topic: str,
    delimiter: bytes | None,
    partition: int | None,
    headers: Headers,
    codec: str | None,
    create: bool,
    partitions: int | None,
    keep_going: bool,
    output: str,
    quiet: bool,
    brokers: str | None,
    settings: tuple[tuple[str, str], ...],
) -> int:
    """Send standard input to TOPIC, one record a line, and wait until every record is delivered.

    Bytes are sent as they are; the line feed is not part of a record. Reading stops at the first
    record that failed, unless --keep-going is given.

    Exit code 0: all delivered. 1: some failed and are not in the log. 2: some may or may not be in
    the log, or nothing could be sent.
    """
    if partitions is not None and not create:
        raise click.UsageError("--partitions goes with --create; -p chooses a partition")
    if sys.stdin is None:
        raise Failure("standard input is closed: pipe the records in, or redirect a file")
    if sys.stdout is None:
        if output == "json":
            raise Failure("standard output is closed: there is nowhere to print the summary to")
        # A closed descriptor would be taken by the next file or socket that is opened.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    from client.cli.delivery_report import DeliveryReport
    from client.cli.topic import ensure_topic

    config = _config(bootstrap(brokers), codec, settings)
    with client_errors():
        message_max_bytes = ensure_topic(
            config.bootstrap_servers, topic, partitions if create else None, create=create
        )
    report = DeliveryReport()
    shape = Shape(topic, partition, delimiter, headers)
    with client_errors():
        signalled = _run(config, shape, report, message_max_bytes, keep_going)
    code = exit_code(report)
    if output == "json":
        print_json(report.to_json(topic))
    elif code or not quiet:
        for line in report.lines(topic):
            print(f"prozess: {line}", file=sys.stderr)
    return code or signalled


def _config(servers: str, codec: str | None, settings: tuple[tuple[str, str], ...]) -> Any:
    from client.config import ProducerConfig

    if codec is not None:
        settings = (*settings, ("compression_type", codec))
    config = client_config(ProducerConfig, servers, settings, {})
    # Memory is freed by delivery or by its time-out: who waits that long does not wait in vain,
    # and no line is left without a fate.
    waiting_ms = config.delivery_timeout_ms + 2 * config.request_timeout_ms
    return replace(config, max_block_ms=max(config.max_block_ms, waiting_ms))


def _run(
    config: Any, shape: Shape, report: DeliveryReport, message_max_bytes: int, keep_going: bool
) -> int:
    """Everything from the first line to the last outcome; the exit code of a signal, or 0."""
    from client.cli.interrupts import Asked, FinishRequest
    from client.errors import ClientTimeout
    from client.producer import Producer

    wait_s = (config.delivery_timeout_ms + config.request_timeout_ms) / 1000 + GRACE_S
    value_bytes_max = min(config.max_request_size, message_max_bytes)
    with FinishRequest() as finish:
        producer = Producer(config)
        pump = Pump(
            producer,
            shape,
            report,
            value_bytes_max=value_bytes_max,
            keep_going=keep_going,
            wait_s=wait_s,
        )
        try:
            with suppress(Asked):
                _feed(pump, lambda size: finish.read(0, size), report, value_bytes_max)
            producer.flush(wait_s)
        except (KeyboardInterrupt, ClientTimeout):
            if not report.sent_count:
                raise
        finally:
            # What has not left by now is given up, and then certainly not in the log.
            producer.close(0)
        report.settle()
        report.give_up("no outcome was seen")
        return finish.exit_code if finish.asked else 0


def _feed(
    pump: Pump, read: Callable[[int], bytes], report: DeliveryReport, value_bytes_max: int
) -> None:
    try:
        for lines in read_lines(read, value_bytes_max):
            if not pump.send(lines):
                return
    except LineTooLong as error:
        report.add_refused(str(error))
