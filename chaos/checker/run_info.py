"""What a run says about itself: run.json and faults.jsonl, read tolerantly, as typed rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

RUN_VERSION = 1


class RunError(Exception):
    """A run directory that cannot be judged at all; one line that says why."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic under test: nobody but the run's clients writes to it."""

    partitions: int
    replication_factor: int
    min_isr: int
    flush: str = "ack"
    unclean: bool = False
    """Whether whoever is alive may lead: then a loss was accepted beforehand."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a run must have been through to count as evidence; a failed gate means unknown."""

    acked_seconds_percent_min: int = 60
    leader_epoch_changes_min: int = 3
    faults_confirmed: bool = True
    converged: bool = True
    all_acked_compared: bool = True
    facts_present: bool = True


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One thing done to the cluster. `confirmed`: a probe saw it."""

    time_ns: int
    kind: str
    action: str
    target: str
    confirmed: bool
    detail: str = ""

    @property
    def is_injected(self) -> bool:
        """Whether this is the beginning of a fault, not its end."""
        return self.action == "inject"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """run.json; None where a phase was never reached."""

    seed: int = 0
    boot_id: str = ""
    host: str = ""
    nodes: tuple[int, ...] = ()
    topics: dict[str, TopicInfo] = field(default_factory=dict)
    load_start_ns: int | None = None
    load_end_ns: int | None = None
    heal_ns: int | None = None
    converged_ns: int | None = None
    heal_limit_ms: int = 0
    nemesis: tuple[str, ...] = ()
    mutants: tuple[str, ...] = ()
    interrupted: bool = False
    not_started: tuple[int, ...] = ()
    power_loss: bool = False
    gates: Gates = Gates()
    command: str = ""


def run_info(raw: dict[str, Any]) -> RunInfo:
    """From the object in run.json; RunError names what is missing or wrong."""
    try:
        if raw["version"] != RUN_VERSION:
            raise RunError(f"run.json has version {raw['version']}, this build reads {RUN_VERSION}")
        topics = {
            name: TopicInfo(
                int(topic["partitions"]),
                int(topic["replication_factor"]),
                int(topic["min_isr"]),
                str(topic.get("flush", "ack")),
                bool(topic.get("unclean", False)),
            )
            for name, topic in raw["topics"].items()
        }
        return RunInfo(
            seed=int(raw["seed"]),
            boot_id=str(raw["boot_id"]),
            host=str(raw["host"]),
            nodes=tuple(int(node) for node in raw["nodes"]),
            topics=topics,
            load_start_ns=raw["load_start_ns"],
            load_end_ns=raw["load_end_ns"],
            heal_ns=raw["heal_ns"],
            converged_ns=raw["converged_ns"],
            heal_limit_ms=int(raw["heal_limit_ms"]),
            nemesis=tuple(raw["nemesis"]),
            mutants=tuple(raw["mutants"]),
            interrupted=bool(raw["interrupted"]),
            not_started=tuple(int(node) for node in raw.get("not_started", ())),
            power_loss=bool(raw.get("power_loss", False)),
            gates=replace(Gates(), **raw.get("gates", {})),
            command=str(raw.get("command", "")),
        )
    except KeyError as error:
        raise RunError(f"run.json lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise RunError(f"run.json is malformed: {error}") from error


def read_run_info(run_dir: Path) -> RunInfo:
    """run.json of a run directory."""
    path = run_dir / "run.json"
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is not JSON: {error}") from error
    return run_info(raw)


def read_faults(run_dir: Path) -> list[FaultRow]:
    """faults.jsonl; a line that a crash cut is left out."""
    path = run_dir / "faults.jsonl"
    faults = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        faults.append(
            FaultRow(
                int(raw["time_ns"]),
                str(raw["kind"]),
                str(raw["action"]),
                str(raw["target"]),
                bool(raw["confirmed"]),
                str(raw.get("detail", "")),
            )
        )
    return faults
