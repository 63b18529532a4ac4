"""A worker process: several independent clients, and the history of what they saw.

    python -m chaos.proc.worker PLAN.json

Reads commands from standard input, a line each: `stop` ends the producers (their open sends run to
their outcomes), `end` or the end of input ends everything. Writes a line of counts to standard
output twice a second, and `stopped` when the producers are done.

Every send is written to the history, and handed to the operating system, before its bytes leave.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from broker.wire.errors import ApiError
from chaos.faults import seeded_draw
from chaos.history import Header, HistoryWriter, encode_value, payload_crc
from chaos.recording import polled_partitions, write_end, write_position
from chaos.workload import ClientPlan, WorkerPlan, load_plan
from client.consumer import Consumer
from client.delivery import RecordHandle
from client.errors import ClientError
from client.fetcher import PositionChanged
from client.producer import Producer

DELIVERY_TIMEOUT_MS = 15_000
POLL_MS = 200
EXIT_BROKEN = 70


def boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else platform.node()


class Counts:
    """What the worker's clients have seen so far; each field has one writer thread a client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"ok": 0, "fail": 0, "info": 0, "read": 0}

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    def line(self) -> str:
        with self._lock:
            return json.dumps(self._counts)


class ProducingClient:
    """Sends bursts and settles them. After an unknown outcome its session ends and a new one
    begins: what a retired session left behind may still turn up."""

    def __init__(
        self, plan: WorkerPlan, client: ClientPlan, history: HistoryWriter, counts: Counts
    ) -> None:
        self.plan = plan
        self.client = client
        self.history = history
        self.counts = counts
        self.draw = seeded_draw(plan.seed * 1_000 + client.process)
        self.session = -1
        self.counter = 0
        self.open: list[tuple[int, RecordHandle]] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._run_session(stop)

    def _run_session(self, stop: threading.Event) -> None:
        self.session += 1
        self.counter = 0
        settings = {"acks": self.plan.acks, "idempotence": self.plan.idempotence}
        uid = self.client.producer_uid(self.session)
        self.history.producer(time.monotonic_ns(), self.client.process, uid, settings)
        with Producer(
            bootstrap_servers=self.plan.bootstrap,
            address_overrides=self.plan.addresses,
            client_id=f"{self.plan.name}-{self.client.process}",
            acks=self.plan.acks,
            enable_idempotence=self.plan.idempotence,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            linger_ms=2,
            seed=self.plan.seed * 1_000 + self.client.process,
        ) as producer:
            is_good = True
            while is_good and not stop.is_set():
                self._burst(producer, uid)
                is_good = self._settle()
                stop.wait(self.draw("gap", 1, self.plan.gap_ms_max) / 1_000)
        while self.open:
            self._settle()

    def _burst(self, producer: Producer, uid: int) -> None:
        count = self.draw("burst", 1, self.plan.burst_max)
        partition = self.draw("partition", 0, self.plan.partitions - 1)
        sends = []
        for _ in range(count):
            value = encode_value(uid, self.counter, self.plan.value_bytes)
            op = self.history.send(
                time.monotonic_ns(),
                self.client.process,
                self.plan.topic,
                partition,
                uid,
                self.counter,
                payload_crc(value),
            )
            sends.append((op, value))
            self.counter += 1
        self.history.flush()
        for op, value in sends:
            try:
                handle = producer.send(self.plan.topic, value, partition=partition)
            except (ClientError, ApiError) as error:
                # Nothing was queued, so nothing can ever have been written.
                self.history.fail(op, time.monotonic_ns(), type(error).__name__, ())
                self.counts.add("fail")
            else:
                self.open.append((op, handle))

    def _settle(self) -> bool:
        """Write the ends of sends that are done. False once an outcome is unknown."""
        is_good = True
        still_open = []
        for op, handle in self.open:
            if not handle.done():
                still_open.append((op, handle))
                continue
            outcome = write_end(self.history, op, time.monotonic_ns(), handle)
            self.counts.add(outcome)
            is_good = is_good and outcome != "info"
        self.open = still_open
        return is_good


class ConsumingClient:
    """Reads everything from the beginning, again and again polling at the end."""

    def __init__(
        self, plan: WorkerPlan, client: ClientPlan, history: HistoryWriter, counts: Counts
    ) -> None:
        self.plan = plan
        self.client = client
        self.history = history
        self.counts = counts

    def _on_event(self, event: PositionChanged) -> None:
        write_position(self.history, time.monotonic_ns(), self.client.process, event)

    def run(self, end: threading.Event) -> None:
        with Consumer(
            bootstrap_servers=self.plan.bootstrap,
            address_overrides=self.plan.addresses,
            client_id=f"{self.plan.name}-{self.client.process}",
            auto_offset_reset="earliest",
            on_event=self._on_event,
        ) as consumer:
            consumer.assign([(self.plan.topic, n) for n in range(self.plan.partitions)])
            while not end.is_set():
                op = self.history.poll(time.monotonic_ns(), self.client.process)
                self.history.flush()
                try:
                    records = consumer.poll(POLL_MS)
                except (ClientError, ApiError) as error:
                    name = type(error).__name__
                    self.history.info(op, time.monotonic_ns(), name, ())
                    end.wait(POLL_MS / 1_000)
                    continue
                self.history.records(op, time.monotonic_ns(), polled_partitions(records))
                self.counts.add("read", len(records))


def _report(counts: Counts, end: threading.Event) -> None:
    while not end.wait(0.5):
        print(counts.line(), flush=True)


def _die(arguments: threading.ExceptHookArgs) -> None:
    """A client that fails by our own fault must not leave a run that looks good."""
    sys.__excepthook__(
        arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback
    )
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)


def run(plan: WorkerPlan) -> None:
    """Run all clients until told to end."""
    threading.excepthook = _die
    header = Header(boot_id(), platform.node(), plan.seed, asdict(plan))
    history = HistoryWriter.open(Path(plan.history_path), header, lock=threading.Lock())
    counts = Counts()
    stop, end = threading.Event(), threading.Event()
    producers = [
        threading.Thread(target=ProducingClient(plan, client, history, counts).run, args=(stop,))
        for client in plan.clients
        if client.role == "producer"
    ]
    others = [
        threading.Thread(target=ConsumingClient(plan, client, history, counts).run, args=(end,))
        for client in plan.clients
        if client.role == "consumer"
    ]
    others.append(threading.Thread(target=_report, args=(counts, end)))
    for thread in [*producers, *others]:
        thread.start()
    for line in sys.stdin:
        if line.strip() == "stop":
            stop.set()
            for thread in producers:
                thread.join()
            history.flush()
            print("stopped", flush=True)
        elif line.strip() == "end":
            break
    stop.set()
    end.set()
    for thread in [*producers, *others]:
        thread.join()
    history.close()


if __name__ == "__main__":
    run(load_plan(Path(sys.argv[1])))
