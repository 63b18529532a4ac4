"""Clients of a Prozess cluster: `Producer`, `Consumer` and `Admin`.

Everything a program needs is exported here; the modules behind are explained in README.md. Names
are imported when they are first used: a command that needs no sockets does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.wire.errors import ApiError, ErrorCode
    from client.admin import Admin
    from client.config import AdminConfig, ConsumerConfig, ProducerConfig
    from client.consumer import Consumer, OffsetAndTimestamp
    from client.delivery import ProducerBatch, RangeHandle, RecordHandle
    from client.errors import (
        BufferFull,
        ClientError,
        ClientTimeout,
        ClosedError,
        ConfigError,
        CorruptRecords,
        NoOffset,
        NotAssigned,
        OutcomeUnknown,
        RecordTooLarge,
    )
    from client.fetched import ConsumerRecord, FetchedBatch
    from client.fetcher import PositionChanged
    from client.producer import Producer
    from client.retry import Attempt, Delivered, SendFailed

__all__ = [
    "Admin",
    "AdminConfig",
    "ApiError",
    "Attempt",
    "BufferFull",
    "ClientError",
    "ClientTimeout",
    "ClosedError",
    "ConfigError",
    "Consumer",
    "ConsumerConfig",
    "ConsumerRecord",
    "CorruptRecords",
    "Delivered",
    "ErrorCode",
    "FetchedBatch",
    "NoOffset",
    "NotAssigned",
    "OffsetAndTimestamp",
    "OutcomeUnknown",
    "PositionChanged",
    "Producer",
    "ProducerBatch",
    "ProducerConfig",
    "RangeHandle",
    "RecordHandle",
    "RecordTooLarge",
    "SendFailed",
]

_MODULES = (
    "broker.wire.errors",
    "client.errors",
    "client.retry",
    "client.config",
    "client.delivery",
    "client.fetched",
    "client.fetcher",
    "client.admin",
    "client.consumer",
    "client.producer",
)
"""Where the names are, the cheap ones first."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module_name in _MODULES:
            module = import_module(module_name)
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'client' has no attribute {name!r}")
