"""`prozess perf produce|consume|latency`: measure a cluster through the public client."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import click

from client.cli.common import output_option, print_json
from client.cli.connect import client_config, client_errors, settings_option

if TYPE_CHECKING:
    from client.cli.perf_cluster import PerfTopic, Target
    from client.cli.perf_load import Load
    from client.cli.perf_machine import SyncTimes
    from client.cli.perf_matrix import Cell, Measured
    from client.producer import Producer

Verb = TypeVar("Verb", bound=Callable[..., Any])
Settings = tuple[tuple[str, str], ...]

TOPIC = f"perf-{os.getpid()}"
"""Not in the way of others on a cluster that is not ours."""
KIB = 1_024


@click.group(epilog="Example: prozess perf produce --matrix    prozess perf latency -o json")
def perf() -> None:
    """Measure throughput and latency, on a cluster of its own or the one named by -b.

    Records go through the public send(), with idempotence and acks=all, and every result is
    checked; afterwards the log must have grown by exactly what was acknowledged. A cluster of its
    own has its data under .prozess, so that the disk is the one it would have.
    """


def _common(verb: Verb) -> Verb:
    """Options of all three."""
    for option in (
        output_option,
        settings_option("A client setting, as in -X linger_ms=0. Repeatable."),
        click.option(
            "--replication-factor", "-r", type=click.IntRange(1), default=3, show_default=True
        ),
        click.option(
            "-n",
            "--nodes",
            type=click.IntRange(1, 50),
            default=3,
            show_default=True,
            help="Size of the cluster, if it is our own.",
        ),
        click.option(
            "-b",
            "--brokers",
            envvar="PROZESS_BROKERS",
            metavar="HOST:PORT,…",
            help="Measure this cluster.  [default: $PROZESS_BROKERS, else one of our own]",
        ),
        click.option(
            "--flush",
            type=click.Choice(["ack", "async", "always"]),
            default="ack",
            show_default=True,
            help="The topic's flush mode.",
        ),
        click.option("-p", "--partitions", type=click.IntRange(1), default=1, show_default=True),
        click.option(
            "--value-bytes",
            type=click.IntRange(1, 1_000_000),
            default=100,
            show_default=True,
            help="Size of a record's value.",
        ),
    ):
        verb = option(verb)
    return verb


# --- produce --------------------------------------------------------------------------------------


@perf.command(
    epilog="Example: prozess perf produce --batch-kib 64 --seconds 10    "
    "prozess perf produce --matrix -o json"
)
@click.option(
    "--batch-kib",
    type=click.IntRange(1, 1_024),
    default=64,
    show_default=True,
    help="The producer's batch_size.",
)
@click.option(
    "--matrix",
    is_flag=True,
    help="1, 3, 12 partitions x 16, 64, 256 KiB x ack, async; interleaved, medians of the rounds.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Of the matrix."
)
@click.option(
    "--warmup",
    "warmup_s",
    type=click.FloatRange(0, 600),
    default=1.0,
    show_default=True,
    help="Seconds of the same load before each measurement.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3_600),
    default=5.0,
    show_default=True,
    help="How long each measurement sends.",
)
@_common
def produce(batch_kib: int, matrix: bool, rounds: int, warmup_s: float, **common: Any) -> None:
    """Send as fast as it goes.

    Times from send() to ack include the wait in buffer_memory, which is full most of the time.
    """
    if matrix:
        _run(common, lambda run: _matrix(run, rounds, warmup_s))
    else:
        _run(common, lambda run: _produce(run, batch_kib, warmup_s))


def _produce(run: Run, batch_kib: int, warmup_s: float) -> None:
    with (
        run.topic(run.partitions, run.flush) as topic,
        run.producer(batch_kib, run.partitions) as producer,
    ):
        load, processes = run.produce(producer, topic, warmup_s)
        changes = topic.changes()
        run.settings |= {"batch_kib": batch_kib, "buffer_memory": producer.config.buffer_memory}
    run.show(load, processes, {"leader_or_isr_changes": changes})


def _matrix(run: Run, rounds: int, warmup_s: float) -> None:
    from client.cli import perf_matrix
    from client.cli.perf_matrix import Measured

    configurations = perf_matrix.cells()
    runs: dict[Cell, list[Measured]] = {cell: [] for cell in configurations}
    changes = 0
    with ExitStack() as stack:
        topics: dict[str, PerfTopic] = {}
        for cell in configurations:
            if cell.topic not in topics:
                topic = run.topic(cell.partitions, cell.flush, f"{TOPIC}-{cell.topic}")
                topics[cell.topic] = stack.enter_context(topic)
        for number, cell in perf_matrix.schedule(configurations, rounds):
            with run.producer(cell.batch_kib, cell.partitions) as producer:
                load, _ = run.produce(producer, topics[cell.topic], warmup_s)
            shown = load.to_json()
            measured = Measured(load.records_per_s, shown["ack_p50_ms"], shown["ack_p99_ms"])
            runs[cell].append(measured)
            run.note(
                f"round {number + 1}: {cell.partitions} partitions, {cell.batch_kib} KiB, "
                f"{cell.flush}: {load.records_per_s:,} records/s"
            )
        changes = sum(topic.changes() for topic in topics.values())
        processes = run.meter.read()
    rows = perf_matrix.summarise(runs)
    del run.settings["partitions"], run.settings["flush"]
    run.settings["rounds"] = rounds
    run.show_rows(rows, perf_matrix.matrix_table(rows), processes, changes)


# --- consume --------------------------------------------------------------------------------------


@perf.command(epilog="Example: prozess perf consume --batch-kib 256")
@click.option(
    "--batch-kib",
    type=click.IntRange(1, 1_024),
    default=64,
    show_default=True,
    help="Of the batches that are read.",
)
@click.option(
    "--batches",
    is_flag=True,
    help="Read with poll_batches() instead of poll(): records as columns.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="How often to read."
)
@click.option(
    "--records",
    "record_count",
    type=click.IntRange(1),
    default=2_000_000,
    show_default=True,
    help="How many to write first, to be read.",
)
@_common
def consume(batch_kib: int, batches: bool, rounds: int, record_count: int, **common: Any) -> None:
    """Read and decode everything that a topic holds, several times."""
    _run(common, lambda run: _consume(run, batch_kib, record_count, rounds, batches=batches))


def _consume(run: Run, batch_kib: int, record_count: int, rounds: int, *, batches: bool) -> None:
    from statistics import median

    from client.cli.perf_load import consume_load, end_offsets, fill
    from client.config import ConsumerConfig
    from client.consumer import Consumer

    config = client_config(ConsumerConfig, run.target.servers, run.consumer_settings, {})
    with run.topic(run.partitions, run.flush) as topic:
        with run.producer(batch_kib, run.partitions) as producer:
            fill(producer, topic.name, run.value, record_count)
        loads: list[Load] = []
        meter = run.target.meter()
        for number in range(rounds):
            with Consumer(config) as consumer:
                ends = end_offsets(consumer, topic.name, topic.partitions)
                load = consume_load(consumer, ends, len(run.value), batches=batches)
            run.note(f"round {number + 1}: {load.records_per_s:,} records/s")
            loads.append(load)
        processes = meter.read()
        changes = topic.changes()
    middle = median(load.records_per_s for load in loads)
    best = min(loads, key=lambda load: abs(load.records_per_s - middle))
    run.settings |= {"batch_kib": batch_kib, "through": "poll_batches" if batches else "poll"}
    run.show(best, processes, {"leader_or_isr_changes": changes, "rounds": rounds})


# --- latency --------------------------------------------------------------------------------------


@perf.command(epilog="Example: prozess perf latency --rate 500 --seconds 10")
@click.option(
    "--rate",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Records a second.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3_600),
    default=10.0,
    show_default=True,
    help="How long to send.",
)
@_common
def latency(rate: int, **common: Any) -> None:
    """Send single records at a steady rate and time each acknowledgement."""
    _run(common, lambda run: _latency(run, rate))


def _latency(run: Run, rate: int) -> None:
    from client.cli.perf_load import latency_load

    with (
        run.topic(run.partitions, run.flush) as topic,
        run.producer(64, run.partitions, linger_ms=0) as producer,
    ):
        latency_load(producer, topic.name, run.value, records_per_s=rate, seconds=1.0)
        meter = run.target.meter()
        load = latency_load(
            producer, topic.name, run.value, records_per_s=rate, seconds=run.seconds
        )
        processes = meter.read()
        changes = topic.changes()
    run.settings["rate"] = rate
    run.show(load, processes, {"leader_or_isr_changes": changes})


# --- what the three share -------------------------------------------------------------------------


def _run(common: dict[str, Any], measure: Callable[[Run], None]) -> None:
    from client.cli.perf_cluster import target

    with client_errors(), target(common["brokers"], common["nodes"]) as where:
        measure(Run(where, common))


class Run:
    """One call of `prozess perf`: its settings, its cluster, and how it tells the result."""

    def __init__(self, where: Target, common: dict[str, Any]) -> None:
        from client.cli.perf_machine import measure_sync, tune_interpreter

        self.target = where
        self.partitions: int = common["partitions"]
        self.flush: str = common["flush"]
        self.seconds: float = common.get("seconds", 0.0)
        self.value = b"v" * common["value_bytes"]
        self._replication_factor: int = common["replication_factor"]
        self._given: Settings = common["settings"]
        self._as_json = common["output"] == "json"
        self._sync: SyncTimes | None = measure_sync(where.disk) if where.disk else None
        self.meter = where.meter()
        self.settings: dict[str, Any] = {
            "partitions": self.partitions,
            "flush": self.flush,
            "replication_factor": self._replication_factor,
            "value_bytes": len(self.value),
            **tune_interpreter(),
            **dict(self._given),
        }

    @property
    def consumer_settings(self) -> Settings:
        return self._given

    def topic(self, partitions: int, flush: str, name: str = TOPIC) -> PerfTopic:
        from client.cli.perf_cluster import PerfTopic

        return PerfTopic(
            self.target.servers,
            name,
            partitions=partitions,
            flush=flush,
            replication_factor=self._replication_factor,
        )

    def producer(self, batch_kib: int, partitions: int, **settings: Any) -> Producer:
        from client.cli.perf_load import buffer_memory
        from client.config import ProducerConfig
        from client.producer import Producer

        defaults = {
            "batch_size": batch_kib * KIB,
            "buffer_memory": buffer_memory(batch_kib * KIB, partitions),
            **settings,
        }
        return Producer(client_config(ProducerConfig, self.target.servers, self._given, defaults))

    def produce(
        self, producer: Producer, topic: PerfTopic, warmup_s: float
    ) -> tuple[Load, dict[str, dict[str, float]]]:
        """One measured load on a topic, its growth checked; and what the processes took."""
        from client.cli.perf_load import end_offsets, produce_load, require_growth
        from client.config import ConsumerConfig
        from client.consumer import Consumer

        with Consumer(client_config(ConsumerConfig, self.target.servers, (), {})) as consumer:
            produce_load(producer, topic.name, self.value, seconds=warmup_s)
            before = end_offsets(consumer, topic.name, topic.partitions)
            meter = self.target.meter()
            load = produce_load(producer, topic.name, self.value, seconds=self.seconds)
            processes = meter.read()
            after = end_offsets(consumer, topic.name, topic.partitions)
        require_growth(before, after, load.records)
        return load, processes

    # --- telling ----------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        print(f"prozess: {text}", file=sys.stderr)

    def _frame(self) -> dict[str, Any]:
        from client.cli.perf_machine import machine

        return {
            "settings": self.settings,
            "machine": machine(),
            "fdatasync": self._sync.to_json() if self._sync else None,
        }

    def show(
        self, load: Load, processes: dict[str, dict[str, float]], more: dict[str, Any]
    ) -> None:
        shown = load.to_json()
        if self._as_json:
            print_json({**self._frame(), **shown, "processes": processes, **more})
            return
        self._show_frame()
        click.echo(
            f"{shown['records_per_s']:,} records/s  {shown['mb_per_s']} MB/s  "
            f"({shown['records']:,} records in {shown['seconds']} s)"
        )
        if "ack_p50_ms" in shown:
            click.echo(
                f"send() to ack: p50 {shown['ack_p50_ms']:.2f} ms  p99 "
                f"{shown['ack_p99_ms']:.2f} ms  max {shown['ack_max_ms']:.2f} ms"
            )
        self._show_end(processes, more)

    def show_rows(
        self,
        rows: list[dict[str, Any]],
        table: str,
        processes: dict[str, dict[str, float]],
        changes: int,
    ) -> None:
        more = {"leader_or_isr_changes": changes}
        if self._as_json:
            print_json({**self._frame(), "rows": rows, "processes": processes, **more})
            return
        self._show_frame()
        click.echo(table)
        self._show_end(processes, more)

    def _show_frame(self) -> None:
        frame = self._frame()
        for part in (frame["settings"], frame["machine"]):
            click.echo("  ".join(f"{name}={value}" for name, value in part.items()))
        click.echo(str(self._sync) if self._sync else "fdatasync: the disks are elsewhere")

    def _show_end(self, processes: dict[str, dict[str, float]], more: dict[str, Any]) -> None:
        for name, used in processes.items():
            click.echo(
                f"{name}: {used['cores']:.2f} cores, {used['resident_mb']:.0f} MB resident "
                f"(peak {used['resident_peak_mb']:.0f})"
            )
        click.echo("  ".join(f"{name}={value}" for name, value in more.items()))
