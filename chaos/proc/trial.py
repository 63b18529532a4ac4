"""A trial: cluster, proxies, clients, faults, healing, evidence, verdict. `prozess chaos run`.

The order of the end matters (a verdict is only as good as its evidence): producers stop, the last
fault is lifted, the cluster must become whole twice a second apart, brokers stop, data directories
are copied, and only then somebody judges.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from broker.config import NodeConfig
from broker.wire.errors import ApiError
from chaos import bounds
from chaos.checker.judge import judge
from chaos.checker.verdict import Verdict
from chaos.faults import DEFAULT_KINDS, FaultKind, Timing, schedule, seeded_draw
from chaos.proc.ask import Asker, observe
from chaos.proc.cluster import BROKER_COMMAND, Plan, Programs
from chaos.proc.evidence_copy import copy_evidence
from chaos.proc.health import is_converged, problems
from chaos.proc.nemesis import FaultLog, Nemesis
from chaos.proc.scripts import SCRIPT_GATES, SCRIPT_KINDS, SCRIPTS, ScriptedNemesis
from chaos.proc.wiring import Wiring, wire
from chaos.proc.worker import boot_id
from chaos.proc.workers import WorkerProcess, wait_for_producers
from chaos.workload import WorkerPlan, spread_clients
from client.admin import Admin
from client.errors import ClientError

TOPIC = "trial"
START_LIMIT_S = 30.0
SETTLE_LIMIT_S = 30.0
TIMING = NodeConfig(node_id=1, cluster_id="trial", data_dir="trial")
"""The timeouts that the nodes of a trial have: the defaults."""
HEAL_LIMIT_MS = bounds.heal_ms(TIMING)
"""T_heal of L1."""
WORKER_COUNT = 2
CLIENT_COUNT = 8
ADMIN = "admin"


class TrialError(Exception):
    """The trial could not be held; says why. Nothing was judged."""


@dataclass(frozen=True, slots=True)
class TrialOptions:
    run_dir: Path
    seed: int
    time_s: int
    node_count: int = 3
    kinds: tuple[FaultKind, ...] = DEFAULT_KINDS
    mutants: tuple[str, ...] = ()
    partitions: int = 3
    replication_factor: int = 3
    min_isr: int = 2
    flush: str = "ack"
    script: str = ""
    """A name of chaos.proc.scripts, in place of the seeded schedule."""
    command: str = ""

    @property
    def loses_power(self) -> bool:
        """Whether kill -9 takes what was not synced, of one node as of all."""
        return FaultKind.POWER_LOSS in self.kinds

    @property
    def unclean(self) -> bool:
        """After a power loss of all under flush=async nobody may lead until the loss is accepted;
        a trial accepts it beforehand."""
        return self.loses_power and self.flush == "async"


@dataclass(slots=True)
class Progress:
    """What a live display shows."""

    phase: str = ""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    fault: str = ""


Show = Callable[[Progress], None]


def programs_for(options: TrialOptions) -> Programs:
    """Ordinary nodes, or nodes with planted bugs or with disks that forget."""
    words = [word for name in options.mutants for word in ("--mutant", name)]
    if options.loses_power:
        words.append("--forgetful-disk")
    if not words:
        return Programs()
    return Programs(node=(*BROKER_COMMAND[:2], "chaos.proc.node", *words, "--config"))


class Trial:
    """One run from an empty directory to its evidence. `run` may be interrupted by Ctrl-C: it then
    heals, keeps what there is, and says so in run.json."""

    def __init__(self, options: TrialOptions, show: Show) -> None:
        self.options = options
        self.show = show
        self.progress = Progress()
        self.workers: list[WorkerProcess] = []
        self.marks: dict[str, int | None] = {
            "load_start_ns": None,
            "load_end_ns": None,
            "heal_ns": None,
            "converged_ns": None,
        }
        self.interrupted = False
        self.not_started: tuple[int, ...] = ()
        self.found_dead: tuple[str, ...] = ()

    def run(self) -> None:
        """Hold the trial; leaves the run directory complete but for the verdict."""
        options = self.options
        options.run_dir.mkdir(parents=True)
        names = [f"w{number}" for number in range(WORKER_COUNT)]
        self._say("starting cluster and proxies")
        plan = Plan(
            name="trial",
            node_count=options.node_count,
            facts="acks",
            draw_id=_ids(options.seed),
        )
        wiring = wire(
            options.run_dir / "cluster",
            plan,
            [*names, ADMIN],
            programs=programs_for(options),
            say=self._say,
        )
        try:
            self._hold(wiring, names)
        finally:
            for worker in self.workers:
                worker.kill()
            wiring.close()
            copy_evidence(wiring.cluster, options.run_dir)
            self._write_run_json(wiring)

    # -- phases ------------------------------------------------------------------------------------

    def _hold(self, wiring: Wiring, names: list[str]) -> None:
        wiring.cluster.start()
        with Asker(wiring.cluster.spec) as asker:
            self._wait_whole(wiring, asker, START_LIMIT_S)
            self._create_topic(wiring)
            self._wait_whole(wiring, asker, START_LIMIT_S)
            self._start_workers(wiring, names)
            fault_log = FaultLog(self.options.run_dir / "faults.jsonl")
            nemesis = self._nemesis(wiring, fault_log)
            try:
                self._load(nemesis)
                self._settle(wiring, nemesis, asker)
            finally:
                fault_log.close()

    def _nemesis(self, wiring: Wiring, fault_log: FaultLog) -> Nemesis:
        options = self.options
        kind = ScriptedNemesis if options.script else Nemesis
        nemesis = kind(
            wiring,
            schedule(seeded_draw(options.seed), options.time_s * 1_000, options.kinds, Timing()),
            observe=lambda: observe(wiring.cluster.spec),
            record=fault_log,
            watched=[(TOPIC, number) for number in range(options.partitions)],
        )
        if isinstance(nemesis, ScriptedNemesis):
            nemesis.script = SCRIPTS[options.script]
        return nemesis

    def _wait_whole(self, wiring: Wiring, asker: Asker, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            missing = problems(asker.view(), wiring.cluster.spec)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise TrialError("the cluster did not become whole: " + "; ".join(missing))
            time.sleep(0.1)

    def _create_topic(self, wiring: Wiring) -> None:
        options = self.options
        settings = {"min_insync_replicas": str(options.min_isr), "flush": options.flush}
        if options.unclean:
            settings["unclean_leader_election_enable"] = "true"
        try:
            with Admin(
                bootstrap_servers=wiring.bootstrap(ADMIN),
                address_overrides=wiring.client_addresses(ADMIN),
            ) as admin:
                admin.create_topic(
                    TOPIC,
                    partitions=options.partitions,
                    replication_factor=options.replication_factor,
                    settings=settings,
                )
        except (ClientError, ApiError) as error:
            raise TrialError(f"topic {TOPIC} could not be created: {error}") from error

    def _start_workers(self, wiring: Wiring, names: list[str]) -> None:
        shares = spread_clients(CLIENT_COUNT, len(names))
        for name, clients in zip(names, shares, strict=True):
            plan = WorkerPlan(
                name=name,
                seed=self.options.seed,
                history_path=str(self.options.run_dir / f"history-{name}.jsonl"),
                bootstrap=wiring.bootstrap(name),
                addresses=wiring.client_addresses(name),
                topic=TOPIC,
                partitions=self.options.partitions,
                clients=clients,
            )
            self.workers.append(WorkerProcess(plan, self.options.run_dir / "cluster"))

    def _load(self, nemesis: Nemesis) -> None:
        start_ns = time.monotonic_ns()
        self.marks["load_start_ns"] = start_ns
        nemesis.start(start_ns)
        try:
            while (
                elapsed := (time.monotonic_ns() - start_ns) / 1e9
            ) < self.options.time_s or not self._script_is_done(nemesis):
                fault = nemesis.current
                self._tick("load", elapsed, fault.describe() if fault else "")
                time.sleep(0.25)
        except KeyboardInterrupt:
            self.interrupted = True
        nemesis.finish()

    def _script_is_done(self, nemesis: Nemesis) -> bool:
        return not isinstance(nemesis, ScriptedNemesis) or not nemesis.is_running

    def _settle(self, wiring: Wiring, nemesis: Nemesis, asker: Asker) -> None:
        """Stop producers, heal, wait until the cluster is whole, end the workers."""
        self.marks["load_end_ns"] = time.monotonic_ns()
        for worker in self.workers:
            worker.stop_producers()
        self._tick("healing", 0.0, "")
        self.not_started = nemesis.heal()
        self.found_dead = tuple(nemesis.found_dead)
        self.marks["heal_ns"] = time.monotonic_ns()
        if not wait_for_producers(self.workers, SETTLE_LIMIT_S):
            raise TrialError(f"a producer did not settle its sends in {SETTLE_LIMIT_S} s")
        limits = f"T_recover {bounds.recover_ms(TIMING):,} ms, T_heal {HEAL_LIMIT_MS:,} ms"
        self._tick(f"converging ({limits})", 0.0, "")
        self.marks["converged_ns"] = self._wait_converged(wiring, asker)
        time.sleep(1.0)  # the consumers read the tail
        for worker in self.workers:
            worker.end(SETTLE_LIMIT_S)

    def _wait_converged(self, wiring: Wiring, asker: Asker) -> int | None:
        """When all replicas were in sync with equal ends, seen twice a second apart; None if not
        within the limit."""
        deadline = time.monotonic() + HEAL_LIMIT_MS / 1_000
        seen_ns: int | None = None
        while time.monotonic() < deadline:
            if is_converged(asker.view(), wiring.cluster.spec):
                if seen_ns is not None:
                    return seen_ns
                seen_ns = time.monotonic_ns()
                time.sleep(1.0)
            else:
                seen_ns = None
                time.sleep(0.1)
        return None

    # -- writing and showing -----------------------------------------------------------------------

    def _write_run_json(self, wiring: Wiring) -> None:
        options = self.options
        row = {
            "version": 1,
            "seed": options.seed,
            "boot_id": boot_id(),
            "host": platform.node(),
            "nodes": list(wiring.cluster.node_ids),
            "topics": {
                TOPIC: {
                    "partitions": options.partitions,
                    "replication_factor": options.replication_factor,
                    "min_isr": options.min_isr,
                    "flush": options.flush,
                    "unclean": options.unclean,
                }
            },
            "power_loss": options.loses_power,
            **self.marks,
            "heal_limit_ms": HEAL_LIMIT_MS,
            "nemesis": [kind.value for kind in (SCRIPT_KINDS if options.script else options.kinds)],
            **({"gates": SCRIPT_GATES} if options.script else {}),
            "mutants": list(options.mutants),
            "interrupted": self.interrupted,
            "not_started": list(self.not_started),
            "found_dead": list(self.found_dead),
            "proxies": wiring.proxies.kind,
            "proxy_restarts": wiring.proxies.restarts,
            "python": sys.version.split()[0],
            "command": options.command,
        }
        path = options.run_dir / "run.json"
        path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")

    def _say(self, text: str) -> None:
        self.progress.phase = text
        self.show(self.progress)

    def _tick(self, phase: str, seconds: float, fault: str) -> None:
        counts: dict[str, int] = {}
        for worker in self.workers:
            worker.check()
            for name, count in worker.counts.items():
                counts[name] = counts.get(name, 0) + count
        self.progress.phase = phase
        self.progress.seconds = seconds
        self.progress.counts = counts
        self.progress.fault = fault
        self.show(self.progress)


def _ids(seed: int) -> Callable[[], str]:
    draw = seeded_draw(seed)
    return lambda: f"{draw('id', 0, 2**63 - 1):016x}{draw('id', 0, 2**63 - 1):016x}"


def judge_run(run_dir: Path) -> Verdict:
    """Judge a run directory; leaves verdict.json and report.txt in it."""
    verdict = judge(run_dir)
    (run_dir / "verdict.json").write_text(verdict.to_json() + "\n", encoding="utf-8")
    (run_dir / "report.txt").write_text(verdict.render() + "\n", encoding="utf-8")
    return verdict
