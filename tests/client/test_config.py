"""Settings: every mistake at once, and what idempotence needs."""

from __future__ import annotations

from typing import Any

import pytest

from client.config import (
    AdminConfig,
    ClientConfig,
    ConsumerConfig,
    ProducerConfig,
    build_config,
)
from client.errors import ConfigError

SERVERS = {"bootstrap_servers": "one:9092, two:9093"}


def mistakes(kind: type[ClientConfig], **given: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build_config(kind, None, {**SERVERS, **given})
    return caught.value.mistakes


def test_defaults_are_good() -> None:
    for kind in (ProducerConfig, ConsumerConfig, AdminConfig):
        assert build_config(kind, None, dict(SERVERS)).addresses == ("one:9092", "two:9093")
    assert ProducerConfig(bootstrap_servers="one:1").required_acks == -1


def test_all_mistakes_are_told_at_once() -> None:
    wrong = mistakes(
        ProducerConfig,
        bootstrap_servers="nowhere",
        acks="most",
        compression_type="rar",
        linger_ms=-1,
        batch_size=0,
        partitioner="dice",
        colour="red",
    )
    for name in (
        "bootstrap_servers",
        "acks",
        "compression_type",
        "linger_ms",
        "batch_size",
        "partitioner",
        "unknown setting colour",
    ):
        assert any(name in mistake for mistake in wrong), name
    assert len(wrong) == 7


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"acks": 1}, "needs acks=all"),
        ({"acks": "0"}, "needs acks=all"),
        ({"max_in_flight_requests_per_connection": 6}, "at most 5"),
        ({"retries": 0}, "needs retries above 0"),
        ({"delivery_timeout_ms": 3_004}, "delivery_timeout_ms"),
        ({"batch_size": 2_000_000}, "max_request_size"),
        ({"buffer_memory": 1_000_000}, "buffer_memory"),
        ({"retry_backoff_ms": 501}, "retry_backoff_ms is above"),
        ({"reconnect_backoff_ms": 501}, "reconnect_backoff_ms is above"),
        ({"bootstrap_servers": ""}, "is empty"),
        ({"bootstrap_servers": "host:0"}, "host:port"),
        ({"bootstrap_servers": "host:65536"}, "host:port"),
        ({"bootstrap_servers": ":80"}, "host:port"),
        ({"address_overrides": {2: "x"}}, "address_overrides[2]"),
        ({"linger_ms": True}, "linger_ms is True"),
        ({"batch_size": "16k"}, "batch_size is '16k'"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_mistake(given: dict[str, Any], fragment: str) -> None:
    wrong = mistakes(ProducerConfig, **given)
    assert len(wrong) == 1
    assert fragment in wrong[0]


def test_without_idempotence_these_are_allowed() -> None:
    config = ProducerConfig(
        bootstrap_servers="one:1",
        enable_idempotence=False,
        acks=0,
        retries=0,
        max_in_flight_requests_per_connection=100,
    )
    assert config.required_acks == 0


def test_consumer_mistakes() -> None:
    assert "auto_offset_reset" in mistakes(ConsumerConfig, auto_offset_reset="middle")[0]


def test_a_missing_address_is_named() -> None:
    with pytest.raises(ConfigError, match="bootstrap_servers is missing"):
        build_config(AdminConfig, None, {})


def test_a_config_and_keywords_do_not_mix() -> None:
    config = AdminConfig(bootstrap_servers="one:1")
    assert build_config(AdminConfig, config, {}) is config
    with pytest.raises(ConfigError, match="not both"):
        build_config(AdminConfig, config, {"client_id": "x"})
