"""Error codes as one table, per attempt: may it be retried, must metadata be refreshed first.

A code says nothing about whether an append happened: that is the `appended` bit of an answer.
Numbers are Kafka's where Kafka has the error.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class ErrorCode(IntEnum):
    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    MESSAGE_TOO_LARGE = 10
    INVALID_TOPIC_EXCEPTION = 17
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    INVALID_REQUIRED_ACKS = 21
    INVALID_TIMESTAMP = 32
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_REPLICA_ASSIGNMENT = 39
    INVALID_CONFIG = 40
    NOT_CONTROLLER = 41
    INVALID_REQUEST = 42
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    STORAGE_ERROR = 56
    UNKNOWN_PRODUCER_ID = 59
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    STALE_BROKER_EPOCH = 77
    OFFSET_NOT_AVAILABLE = 78
    INVALID_UPDATE_VERSION = 95
    UNKNOWN_TOPIC_ID = 100
    DUPLICATE_BROKER_REGISTRATION = 101
    BROKER_ID_NOT_REGISTERED = 102
    INCONSISTENT_CLUSTER_ID = 104
    INELIGIBLE_REPLICA = 107
    BUSY = 200
    """Ours: a bound in bytes or connections is reached; nothing was done."""


class ErrorRow(NamedTuple):
    retriable: bool
    refresh_metadata: bool
    meaning: str


ERRORS: dict[ErrorCode, ErrorRow] = {
    ErrorCode.UNKNOWN_SERVER_ERROR: ErrorRow(
        False, False, "the broker failed in an unforeseen way"
    ),
    ErrorCode.NONE: ErrorRow(False, False, "success"),
    ErrorCode.OFFSET_OUT_OF_RANGE: ErrorRow(
        False, False, "the offset is below the log start or beyond the log end"
    ),
    ErrorCode.CORRUPT_MESSAGE: ErrorRow(
        True, False, "the batch failed its CRC or its layout is wrong"
    ),
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorRow(
        True, True, "this broker knows no such topic or partition"
    ),
    ErrorCode.LEADER_NOT_AVAILABLE: ErrorRow(True, True, "the partition has no leader now"),
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorRow(
        True, True, "the broker does not lead this partition"
    ),
    ErrorCode.REQUEST_TIMED_OUT: ErrorRow(
        True, False, "the deadline passed before the answer was known"
    ),
    ErrorCode.MESSAGE_TOO_LARGE: ErrorRow(
        False, False, "the batch is larger than message_max_bytes"
    ),
    ErrorCode.INVALID_TOPIC_EXCEPTION: ErrorRow(
        False, False, "topic names are 1 to 200 of a-z A-Z 0-9 . _ -"
    ),
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorRow(
        True, True, "the in-sync replicas are fewer than min.insync.replicas; nothing was appended"
    ),
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorRow(
        True, True, "appended, then the in-sync replicas fell below min.insync.replicas"
    ),
    ErrorCode.INVALID_REQUIRED_ACKS: ErrorRow(False, False, "acks must be 0, 1 or all"),
    ErrorCode.INVALID_TIMESTAMP: ErrorRow(False, False, "a record's timestamp is out of range"),
    ErrorCode.UNSUPPORTED_VERSION: ErrorRow(
        False, False, "the peer speaks another protocol version"
    ),
    ErrorCode.TOPIC_ALREADY_EXISTS: ErrorRow(False, False, "a topic of that name exists"),
    ErrorCode.INVALID_PARTITIONS: ErrorRow(False, False, "the partition count is out of range"),
    ErrorCode.INVALID_REPLICATION_FACTOR: ErrorRow(
        False, False, "the replication factor is below 1 or above the number of live brokers"
    ),
    ErrorCode.INVALID_REPLICA_ASSIGNMENT: ErrorRow(
        False, False, "the replica assignment names unknown or repeated brokers"
    ),
    ErrorCode.INVALID_CONFIG: ErrorRow(False, False, "a topic setting is unknown or out of range"),
    ErrorCode.NOT_CONTROLLER: ErrorRow(True, True, "this node is not the active controller"),
    ErrorCode.INVALID_REQUEST: ErrorRow(False, False, "the request contradicts itself"),
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER: ErrorRow(
        False, False, "the batch does not follow the producer's last one"
    ),
    ErrorCode.INVALID_PRODUCER_EPOCH: ErrorRow(
        False, False, "a newer epoch of this producer exists"
    ),
    ErrorCode.STORAGE_ERROR: ErrorRow(True, True, "the disk failed"),
    ErrorCode.UNKNOWN_PRODUCER_ID: ErrorRow(
        False, False, "the partition knows nothing of this producer and the sequence is not 0"
    ),
    ErrorCode.FENCED_LEADER_EPOCH: ErrorRow(True, True, "the sender's leader epoch is too old"),
    ErrorCode.UNKNOWN_LEADER_EPOCH: ErrorRow(
        True, True, "the sender's leader epoch is newer than the broker's"
    ),
    ErrorCode.STALE_BROKER_EPOCH: ErrorRow(
        False, False, "a newer incarnation of the broker exists"
    ),
    ErrorCode.OFFSET_NOT_AVAILABLE: ErrorRow(
        True, True, "a fresh leader has not yet committed up to its epoch's start"
    ),
    ErrorCode.INVALID_UPDATE_VERSION: ErrorRow(False, False, "the partition epoch has moved on"),
    ErrorCode.UNKNOWN_TOPIC_ID: ErrorRow(
        True, True, "no topic has this id (deleted or not yet known)"
    ),
    ErrorCode.DUPLICATE_BROKER_REGISTRATION: ErrorRow(
        True, False, "a broker of this id with another disk holds a live session"
    ),
    ErrorCode.BROKER_ID_NOT_REGISTERED: ErrorRow(False, False, "the broker has not registered"),
    ErrorCode.INCONSISTENT_CLUSTER_ID: ErrorRow(
        False, False, "the node belongs to another cluster"
    ),
    ErrorCode.INELIGIBLE_REPLICA: ErrorRow(
        False, False, "a proposed ISR member is fenced, unknown or of another incarnation"
    ),
    ErrorCode.BUSY: ErrorRow(True, False, "the broker is at one of its limits; nothing was done"),
}


class ApiError(Exception):
    """An answer with an error code, raised at the edges (clients, command line).

    `detail` says what was asked for and, where it helps, what to do.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code.name}: {detail or ERRORS[code].meaning}")
        self.code = code
        self.detail = detail

    @property
    def retriable(self) -> bool:
        return ERRORS[self.code].retriable
