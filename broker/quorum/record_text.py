"""Metadata records as JSON text, for evidence: each record's kind and its fields by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from broker.quorum.records import Record


def describe_records(records: Sequence[Record]) -> str:
    """`[{"kind": "PartitionChanged", "topic_id": …, …}, …]`, compact."""
    rows = [{"kind": type(record).__name__, **asdict(record)} for record in records]
    return json.dumps(rows, separators=(",", ":"))
