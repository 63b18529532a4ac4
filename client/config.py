"""Settings of producers, consumers and admins: frozen dataclasses with Kafka's names, `_` for `.`.

Constructing one checks it as a whole: `ConfigError` names every mistake at once. Times are in
milliseconds, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from client.errors import ConfigError
from client.partitioner import PARTITIONERS

COMPRESSION_TYPES = ("none", "gzip", "snappy", "lz4", "zstd")
ACKS = {"all": -1, "-1": -1, "0": 0, "1": 1}
RETRIES_MAX = 2**31 - 1
IN_FLIGHT_MAX_IDEMPOTENT = 5
"""A broker remembers the last five batches of a producer: more in flight could not be told from
duplicates."""

_ZERO_ALLOWED = frozenset({"linger_ms", "retries", "fetch_max_wait_ms", "max_block_ms"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What all clients share."""

    bootstrap_servers: str
    """"host:port,host:port": any of them tells the rest."""
    client_id: str = "prozess"
    request_timeout_ms: int = 3_000
    """An unanswered request closes its connection after so long."""
    default_api_timeout_ms: int = 15_000
    """Calls that take no time-out of their own."""
    retry_backoff_ms: int = 50
    retry_backoff_max_ms: int = 500
    reconnect_backoff_ms: int = 50
    reconnect_backoff_max_ms: int = 500
    socket_connection_setup_timeout_ms: int = 1_000
    metadata_max_age_ms: int = 60_000
    address_overrides: Mapping[int, str] = field(default_factory=dict)
    """Node id -> "host:port" to use instead of what the cluster says (a proxy, a tunnel)."""

    def __post_init__(self) -> None:
        wrong = type_mistakes(self)
        if not wrong:
            wrong = self.mistakes()
        if wrong:
            raise ConfigError(wrong)

    def mistakes(self) -> list[str]:
        """All mistakes in values, in words that say what to do. The types are right."""
        wrong = [
            f"{item.name} is {value}: take {'0 or more' if low == 0 else 'a positive number'}"
            for item in fields(self)
            if item.name != "acks"
            and type(value := getattr(self, item.name)) is int
            and value < (low := 0 if item.name in _ZERO_ALLOWED else 1)
        ]
        if not self.addresses:
            wrong.append('bootstrap_servers is empty: take "host:port,host:port"')
        named = [("bootstrap_servers", address) for address in self.addresses]
        named += [
            (f"address_overrides[{node_id}]", address)
            for node_id, address in sorted(self.address_overrides.items())
        ]
        wrong += [
            f"{name} has {address!r}: take host:port with a port from 1 to 65535"
            for name, address in named
            if not is_address(address)
        ]
        if self.retry_backoff_ms > self.retry_backoff_max_ms:
            wrong.append("retry_backoff_ms is above retry_backoff_max_ms")
        if self.reconnect_backoff_ms > self.reconnect_backoff_max_ms:
            wrong.append("reconnect_backoff_ms is above reconnect_backoff_max_ms")
        return wrong

    @property
    def addresses(self) -> tuple[str, ...]:
        """The bootstrap addresses, one "host:port" each."""
        parts = (part.strip() for part in self.bootstrap_servers.split(","))
        return tuple(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig(ClientConfig):
    """Nothing beyond what all clients have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig(ClientConfig):
    acks: str | int = "all"
    """all (-1), 1 (the leader's word) or 0 (nobody is asked)."""
    enable_idempotence: bool = True
    max_in_flight_requests_per_connection: int = 5
    retries: int = RETRIES_MAX
    batch_size: int = 262_144
    """Records of one partition are sent together, up to so many bytes before compression."""
    linger_ms: int = 5
    """How long an unfilled batch waits for company. Others are full before, or are flushed."""
    compression_type: str = "none"
    partitioner: str = "murmur3"
    delivery_timeout_ms: int = 30_000
    """From send() to the last attempt; its answer may take one request_timeout_ms more."""
    max_request_size: int = 1_048_576
    buffer_memory: int = 33_554_432
    max_block_ms: int = 10_000
    """How long send() waits for a full buffer, or for the metadata of an unknown topic."""

    def mistakes(self) -> list[str]:
        wrong = ClientConfig.mistakes(self)
        if str(self.acks) not in ACKS:
            wrong.append(f"acks is {self.acks!r}: take all, 1 or 0")
        wrong += _not_among("compression_type", self.compression_type, COMPRESSION_TYPES)
        wrong += _not_among("partitioner", self.partitioner, PARTITIONERS)
        if self.delivery_timeout_ms < self.linger_ms + self.request_timeout_ms:
            wrong.append("delivery_timeout_ms must be at least linger_ms + request_timeout_ms")
        if self.batch_size > self.max_request_size:
            wrong.append("batch_size must not exceed max_request_size")
        if self.max_request_size > self.buffer_memory:
            wrong.append("max_request_size must not exceed buffer_memory")
        if self.enable_idempotence:
            if str(self.acks) in ("0", "1"):
                wrong.append("enable_idempotence needs acks=all: set it, or switch idempotence off")
            if self.max_in_flight_requests_per_connection > IN_FLIGHT_MAX_IDEMPOTENT:
                wrong.append(
                    "enable_idempotence needs max_in_flight_requests_per_connection of at most "
                    f"{IN_FLIGHT_MAX_IDEMPOTENT}"
                )
            if self.retries == 0:
                wrong.append("enable_idempotence needs retries above 0")
        return wrong

    @property
    def required_acks(self) -> int:
        """0, 1 or -1 (all)."""
        return ACKS[str(self.acks)]


AUTO_OFFSET_RESETS = ("earliest", "latest", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(ClientConfig):
    fetch_min_bytes: int = 1
    """A fetch is answered once so much is there, or fetch_max_wait_ms passed."""
    fetch_max_wait_ms: int = 500
    fetch_max_bytes: int = 8_388_608
    max_partition_fetch_bytes: int = 1_048_576
    """A first batch is returned whole even if it is larger."""
    max_poll_records: int = 500
    auto_offset_reset: str = "latest"
    """Where to read without a position, or when it is out of range; none: raise."""
    check_crcs: bool = True

    def mistakes(self) -> list[str]:
        wrong = ClientConfig.mistakes(self)
        wrong += _not_among("auto_offset_reset", self.auto_offset_reset, AUTO_OFFSET_RESETS)
        return wrong


def _not_among(name: str, value: str, allowed: tuple[str, ...]) -> list[str]:
    if value in allowed:
        return []
    return [f"{name} is {value!r}: take {', '.join(allowed[:-1])} or {allowed[-1]}"]


def is_address(address: str) -> bool:
    """Whether this is host:port."""
    host, colon, port = address.rpartition(":")
    return bool(host and colon) and port.isdecimal() and 1 <= int(port) <= 65_535


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "str | int": (str, int),
    "Mapping[int, str]": (dict,),
}


def type_mistakes(config: ClientConfig) -> list[str]:
    """Settings of a wrong type; True is not a number here."""
    wrong = []
    for item in fields(config):
        value = getattr(config, item.name)
        allowed = _TYPES[str(item.type)]
        if type(value) not in allowed:
            names = " or ".join(kind.__name__ for kind in allowed)
            wrong.append(f"{item.name} is {value!r}: take {names}")
    return wrong


AnyConfig = TypeVar("AnyConfig", bound=ClientConfig)


def build_config(
    kind: type[AnyConfig], config: AnyConfig | None, given: dict[str, Any]
) -> AnyConfig:
    """A ready `config`, or one from keyword arguments; unknown names are mistakes like others."""
    if config is not None:
        if given:
            raise ConfigError([f"give a {kind.__name__} or keyword arguments, not both"])
        return config
    known = {item.name for item in fields(kind)}
    wrong = [f"unknown setting {name}" for name in given if name not in known]
    if "bootstrap_servers" not in given:
        wrong.append('bootstrap_servers is missing: take "host:port,host:port"')
        given = {**given, "bootstrap_servers": "missing:1"}
    try:
        built = kind(**{name: value for name, value in given.items() if name in known})
    except ConfigError as error:
        raise ConfigError([*wrong, *error.mistakes]) from None
    if wrong:
        raise ConfigError(wrong)
    return built
