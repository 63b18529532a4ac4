"""Settings of one node: one frozen dataclass, read from TOML, checked as a whole.

Names are Kafka's with `_` for `.` where Kafka has the setting. `load` and `validate` report every
mistake at once.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from broker.wire.errors import ApiError, ErrorCode

FLUSH_MODES = ("ack", "async", "always")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class VoterAddress:
    """A member of the metadata quorum: it counts only with the disk it was named with."""

    node_id: int
    disk_id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    node_id: int
    cluster_id: str
    data_dir: str
    roles: tuple[str, ...] = ("controller", "broker")
    host: str = "127.0.0.1"
    broker_port: int = 0
    """Where clients and followers connect; needed with the role broker."""
    controller_port: int = 0
    """Where voters and brokers connect; needed with the role controller."""
    voters: tuple[VoterAddress, ...] = ()
    connect: tuple[tuple[str, str], ...] = ()
    """Overrides of peer addresses: ("broker:2", "host:port"). Lets each ordered pair of nodes be
    routed through a proxy of its own."""

    controller_quorum_heartbeat_ms: int = 100
    controller_quorum_election_timeout_ms: int = 500
    """Minimum; the maximum is twice that."""
    controller_quorum_check_ms: int = 1_500
    broker_heartbeat_interval_ms: int = 200
    broker_session_timeout_ms: int = 1_500
    controller_request_timeout_ms: int = 1_000
    controlled_shutdown_timeout_ms: int = 1_000
    """How long a node that stops waits to be fenced; then it stops without."""
    replica_lag_time_max_ms: int = 3_000
    replica_fetch_wait_max_ms: int = 250
    replica_fetch_timeout_ms: int = 1_500
    """A fetch unanswered for so long closes and replaces its connection."""
    replica_fetch_backoff_ms: int = 100
    replica_fetch_session_partitions: int = 200
    """From so many on a link on, a round lists only what has changed."""
    replica_fetch_max_bytes: int = 1_048_576
    replica_fetch_response_max_bytes: int = 10_485_760
    message_max_bytes: int = 1_048_588
    log_segment_bytes: int = 134_217_728
    log_index_interval_bytes: int = 4_096
    replica_high_watermark_checkpoint_interval_ms: int = 5_000
    producer_id_expiration_ms: int = 86_400_000
    """A producer that wrote nothing to a partition for so long is forgotten there."""
    producer_id_expiration_check_interval_ms: int = 600_000
    metadata_log_max_bytes_between_snapshots: int = 4_194_304
    """Then the metadata log begins anew, with a snapshot in place of its entries."""
    log_retention_check_interval_ms: int = 30_000
    """How often leaders look for what is too old or too much."""
    log_scrub_interval_ms: int = 3_600_000
    """After how long all that is cold is read again and compared with its checksums."""
    log_scrub_bytes_per_second: int = 8_388_608
    """How fast at most."""
    connections_max: int = 2_000
    response_bytes_max: int = 67_108_864
    disk_stall_ms_max: int = 20_000
    pause_ms: int = 200
    """Two turns of the loop further apart than this count as a pause of the process."""
    allow_remote: bool = False
    facts: str = "off"
    """off, acks (only Acked and role changes) or all: what goes to facts.jsonl."""
    log_level: str = "info"

    @property
    def is_broker(self) -> bool:
        return "broker" in self.roles

    @property
    def is_controller(self) -> bool:
        return "controller" in self.roles


KAFKA_TIMING: dict[str, int] = {
    "controller_quorum_heartbeat_ms": 300,
    "controller_quorum_election_timeout_ms": 1_000,
    "controller_quorum_check_ms": 3_000,
    "broker_heartbeat_interval_ms": 2_000,
    "broker_session_timeout_ms": 9_000,
    "controller_request_timeout_ms": 2_000,
    "replica_lag_time_max_ms": 30_000,
    "replica_fetch_wait_max_ms": 500,
    "replica_fetch_timeout_ms": 30_000,
    "replica_fetch_backoff_ms": 1_000,
}
"""Kafka's own timeouts, for `--timing kafka`; the defaults suit one machine."""


class ConfigError(Exception):
    """Every mistake found, one line each."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))
        self.mistakes = mistakes


def validate(config: NodeConfig) -> list[str]:
    """All mistakes in words that say what to do; empty when the settings are good."""
    wrong: list[str] = []
    if not 1 <= config.node_id <= 1_000_000:
        wrong.append(f"node_id is {config.node_id}: take 1 to 1000000")
    if not config.cluster_id:
        wrong.append("cluster_id is empty")
    if not config.roles or not set(config.roles) <= {"broker", "controller"}:
        wrong.append(f"roles are {list(config.roles)}: take broker, controller or both")
    if config.host not in LOOPBACK_HOSTS and not config.allow_remote:
        wrong.append(
            f"host {config.host} is not loopback: there is no authentication yet; "
            "start with --allow-remote if the network is trusted"
        )
    for role, port in (("broker", config.broker_port), ("controller", config.controller_port)):
        if role in config.roles and not 1 <= port <= 65_535:
            wrong.append(f"{role}_port is {port}: take 1 to 65535")
    if not config.voters:
        wrong.append("voters is empty: name at least one controller")
    voter_ids = [voter.node_id for voter in config.voters]
    if len(set(voter_ids)) != len(voter_ids):
        wrong.append(f"voters name a node twice: {voter_ids}")
    if config.is_controller and config.node_id not in voter_ids:
        wrong.append(f"node {config.node_id} has the role controller but is not among the voters")
    if config.facts not in ("off", "acks", "all"):
        wrong.append(f"facts is {config.facts}: take off, acks or all")
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name.endswith(("_ms", "_bytes", "_max")) and value <= 0:
            wrong.append(f"{item.name} is {value}: take a positive number")
    if config.broker_heartbeat_interval_ms * 2 > config.broker_session_timeout_ms:
        wrong.append("broker_session_timeout_ms must be at least twice the heartbeat interval")
    if config.controller_quorum_heartbeat_ms * 3 > config.controller_quorum_election_timeout_ms:
        wrong.append("controller_quorum_election_timeout_ms must be at least 3 heartbeats")
    return wrong


def _voters(raw: object, wrong: list[str]) -> tuple[VoterAddress, ...]:
    voters = []
    for entry in raw if isinstance(raw, list) else []:
        try:
            voters.append(
                VoterAddress(
                    int(entry["node_id"]),
                    str(entry["disk_id"]),
                    str(entry["host"]),
                    int(entry["port"]),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            wrong.append(f"voters: {entry!r} lacks or has a wrong {error}")
    return tuple(voters)


def from_mapping(raw: dict[str, Any], source: str) -> NodeConfig:
    """Settings from parsed TOML. Unknown keys, wrong types and bad values are all reported."""
    wrong: list[str] = []
    known = {item.name: item for item in fields(NodeConfig)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            wrong.append(f"unknown setting {name}")
        elif name == "voters":
            values[name] = _voters(value, wrong)
        elif name == "roles":
            values[name] = tuple(str(role) for role in value)
        elif name == "connect":
            values[name] = tuple(sorted((str(k), str(v)) for k, v in dict(value).items()))
        else:
            expected = {"int": int, "str": str, "bool": bool}[str(known[name].type)]
            if type(value) is not expected:
                wrong.append(f"{name} is {value!r}: expected {expected.__name__}")
            values[name] = value
    wrong += [
        f"{name} is missing" for name in ("node_id", "cluster_id", "data_dir") if name not in raw
    ]
    if wrong:
        raise ConfigError(source, wrong)
    config = NodeConfig(**values)
    wrong = validate(config)
    if wrong:
        raise ConfigError(source, wrong)
    return config


def load(path: Path) -> NodeConfig:
    """Read a node's TOML file; ConfigError names every mistake in it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
    return from_mapping(raw, str(path))


# --- topics ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Settings of one topic. `flush` is fixed at creation, the others may change."""

    min_insync_replicas: int = 1
    flush: str = "ack"
    """ack: bytes count once they are synced, one sync for all that was appended since the last;
    async: Kafka's way, they count when written; always: Kafka's flush.messages=1, which as far as
    anybody can see is ack: nothing counts before a sync that covers it."""
    segment_bytes: int = 134_217_728
    message_max_bytes: int = 1_048_588
    retention_ms: int = 604_800_000
    """A file whose newest record is older goes; -1: never."""
    retention_bytes: int = -1
    """Of a partition: the oldest file goes while the others have so much; -1: never."""
    segment_ms: int = 604_800_000
    """A file takes no more records when its first one is so old."""
    message_timestamp_type: str = "CreateTime"
    """CreateTime: a record's time is the producer's; LogAppendTime: its leader's."""
    unclean_leader_election_enable: str = "false"
    """true: when no member of ISR or ELR is left, any live replica may lead. Whatever is committed
    and not in its log is lost, also for those who hold it."""


def may_lose_committed(config: TopicConfig) -> bool:
    """Whether the topic's own settings allow that committed records go."""
    return config.flush == "async" or config.unclean_leader_election_enable == "true"


def topic_settings(config: TopicConfig) -> tuple[tuple[str, str], ...]:
    """All settings as (name, text), by name."""
    return tuple(sorted((item.name, str(getattr(config, item.name))) for item in fields(config)))


NUMBERS_FROM = {
    "min_insync_replicas": 1,
    "segment_bytes": 1_024,
    "message_max_bytes": 128,
    "retention_ms": -1,
    "retention_bytes": -1,
    "segment_ms": 1,
}
"""Settings that are numbers, and their least."""
CHOICES = {
    "flush": FLUSH_MODES,
    "message_timestamp_type": ("CreateTime", "LogAppendTime"),
    "unclean_leader_election_enable": ("true", "false"),
}


def topic_config(defaults: TopicConfig, settings: tuple[tuple[str, str], ...]) -> TopicConfig:
    """`defaults` with `settings` put in; ApiError INVALID_CONFIG names what is wrong."""
    config = defaults
    for name, text in settings:
        if name in CHOICES:
            if text not in CHOICES[name]:
                first, last = ", ".join(CHOICES[name][:-1]), CHOICES[name][-1]
                detail = f"{name}={text}: take {first} or {last}"
                raise ApiError(ErrorCode.INVALID_CONFIG, detail)
            config = replace(config, **{name: text})  # type: ignore[arg-type]
        elif name in NUMBERS_FROM:
            low = NUMBERS_FROM[name]
            high = 2**63 if low < 0 or name.endswith("_ms") else 2**31
            if not text.removeprefix("-").isdigit() or not low <= int(text) < high:
                raise ApiError(
                    ErrorCode.INVALID_CONFIG, f"{name}={text}: take a number from {low} on"
                )
            config = replace(config, **{name: int(text)})  # type: ignore[arg-type]
        else:
            raise ApiError(ErrorCode.INVALID_CONFIG, f"unknown topic setting {name}")
    return config
