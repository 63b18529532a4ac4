"""The controller's decisions, and the refusals that every request of its plane has."""

from __future__ import annotations

from dataclasses import dataclass

from broker.quorum.records import Record
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    AllocateProducerIdsRequest,
    AllocateProducerIdsResponse,
    AlterPartitionRequest,
    AlterPartitionResponse,
    AlterTopicRequest,
    AlterTopicResponse,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
)

ControllerRequest = (
    BrokerRegistrationRequest
    | BrokerHeartbeatRequest
    | AlterPartitionRequest
    | CreateTopicRequest
    | DeleteTopicRequest
    | AlterTopicRequest
    | CreatePartitionsRequest
    | AllocateProducerIdsRequest
)
ControllerResponse = (
    BrokerRegistrationResponse
    | BrokerHeartbeatResponse
    | AlterPartitionResponse
    | CreateTopicResponse
    | DeleteTopicResponse
    | AlterTopicResponse
    | CreatePartitionsResponse
    | AllocateProducerIdsResponse
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Nothing changes. Send `body` once the entry `after_index` is applied (at once when it is).

    What was looked at may include entries that are not committed: an answer that leaves before
    them could tell of something that never happens.
    """

    body: ControllerResponse
    after_index: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Propose `records` as one entry now; send `answer` (None: nobody asked) once it is applied.

    If this node stops leading first, the outcome is unknown: refuse with NOT_CONTROLLER.
    """

    records: tuple[Record, ...]
    answer: ControllerResponse | None


Decision = Answer | Commit


def refuse(
    request: ControllerRequest, error: ErrorCode, detail: str = "", *, maybe_done: bool = False
) -> ControllerResponse:
    """The response to `request` that says `error` and nothing else."""
    match request:
        case BrokerRegistrationRequest():
            return BrokerRegistrationResponse(error, detail, broker_epoch=-1)
        case BrokerHeartbeatRequest():
            return BrokerHeartbeatResponse(error, fenced=True, caught_up=False)
        case AlterPartitionRequest():
            return AlterPartitionResponse(error, parts=())
        case CreateTopicRequest():
            return CreateTopicResponse(error, detail, topic_id="", maybe_done=maybe_done)
        case DeleteTopicRequest():
            return DeleteTopicResponse(error, detail, maybe_done=maybe_done)
        case AlterTopicRequest():
            return AlterTopicResponse(error, detail, maybe_done=maybe_done)
        case CreatePartitionsRequest():
            return CreatePartitionsResponse(error, detail, maybe_done=maybe_done)
        case AllocateProducerIdsRequest():
            return AllocateProducerIdsResponse(error, first_producer_id=-1, count=0)
