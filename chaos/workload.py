"""What the clients of a trial do: a plan in plain values, the same for simulated and real ones."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SESSIONS_PER_PROCESS = 1_000
"""Producer sessions that one client may open in a run: uids never collide."""


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """One independent client: one logical thread, a producer or a consumer."""

    process: int
    """Unique in the run; the process of its history events."""
    role: str
    """producer or consumer."""

    def producer_uid(self, session: int) -> int:
        assert 0 <= session < SESSIONS_PER_PROCESS, "too many producer sessions"
        return self.process * SESSIONS_PER_PROCESS + session


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker process: its clients, how it reaches the cluster, what it writes where."""

    name: str
    seed: int
    history_path: str
    bootstrap: str
    addresses: dict[int, str]
    """Node id -> "host:port": each broker through this worker's own proxy."""
    topic: str
    partitions: int
    clients: tuple[ClientPlan, ...]
    burst_max: int = 8
    """Records that a producer sends at once, 1 to this."""
    gap_ms_max: int = 20
    """Pause between two bursts, 1 to this."""
    value_bytes: int = 120
    acks: int = -1
    idempotence: bool = True

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_plan(path: Path) -> WorkerPlan:
    """The plan that `save` wrote."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    raw["addresses"] = {int(node_id): address for node_id, address in raw["addresses"].items()}
    raw["clients"] = tuple(ClientPlan(**client) for client in raw["clients"])
    return WorkerPlan(**raw)


def spread_clients(client_count: int, worker_count: int) -> tuple[tuple[ClientPlan, ...], ...]:
    """Clients dealt to workers; every fourth client is a consumer, the first ones produce."""
    clients = [
        ClientPlan(process, "consumer" if process % 4 == 3 else "producer")
        for process in range(client_count)
    ]
    return tuple(tuple(clients[start::worker_count]) for start in range(worker_count))
