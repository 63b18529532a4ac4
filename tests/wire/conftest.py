"""Makes the independent codec whole."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import cramjam
import pytest

import tests.wire.oracle  # noqa: F401 - imports kafka without its warnings


@pytest.fixture
def kafka_snappy(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python has the snappy framing, but takes raw blocks from a library not installed."""
    raw = SimpleNamespace(
        compress=lambda data: bytes(cramjam.snappy.compress_raw(data)),
        decompress=lambda data: bytes(cramjam.snappy.decompress_raw(data)),
    )
    monkeypatch.setattr(importlib.import_module("kafka.codec"), "snappy", raw)
