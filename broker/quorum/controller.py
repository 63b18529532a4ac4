"""The active controller's decisions: requests of brokers and admins into metadata records.

Pure: each operation looks at the pending image and returns a Decision; nothing is sent or written
here. The pending image is the committed one plus the entries that this controller appended in its
term: two requests in a row are judged as if the first were already committed. It is dropped when
leadership is lost.

The caller (one thread) must: activate only when the first entry of the own term is applied; propose
the records of a Commit at once, as the entry `next_index`; deactivate if that fails and on losing
leadership.
"""

from __future__ import annotations

from broker.config import NodeConfig
from broker.quorum.alter_partition import alter_partitions
from broker.quorum.answers import (
    Answer,
    Commit,
    ControllerRequest,
    ControllerResponse,
    Decision,
    refuse,
)
from broker.quorum.elections import with_broker, without_broker, without_damaged
from broker.quorum.image import BrokerImage, MetadataImage, TopicImage
from broker.quorum.records import (
    BrokerFenced,
    ProducerIdsAllocated,
    Record,
    RegisterBroker,
    TopicDeleted,
)
from broker.quorum.sessions import Sessions
from broker.quorum.topics import Draw, alter_topic, create_partitions, create_topic
from broker.wire.errors import ApiError, ErrorCode
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

PRODUCER_IDS_PER_BLOCK = 1_000


class Controller:
    """State of the active controller; inactive (every answer NOT_CONTROLLER) until `activate`.

    `draw(label, low, high)` is its only chance: topic ids and the start of a placement.
    """

    def __init__(self, config: NodeConfig, draw: Draw) -> None:
        self._config = config
        self._draw = draw
        self._sessions = Sessions(config.broker_session_timeout_ms)
        self._pending: MetadataImage | None = None

    # -- leadership ----------------------------------------------------------------------------

    def activate(self, image: MetadataImage, now_ms: int) -> None:
        """Lead from the committed `image`, whose last entry is of the own term.

        Every registered broker gets a fresh session: they reported to somebody else so far.
        """
        self._pending = image
        self._sessions.clear()
        for node_id in sorted(image.brokers):
            self._sessions.touch(node_id, now_ms)

    def deactivate(self) -> None:
        self._pending = None
        self._sessions.clear()

    @property
    def pending_image(self) -> MetadataImage | None:
        """None while not the active controller."""
        return self._pending

    def shift_sessions(self, gap_ms: int) -> None:
        """The process was paused for `gap_ms`: silence in that time was ours."""
        self._sessions.shift(gap_ms)

    def next_deadline_ms(self) -> int | None:
        """When `tick` has something to do; None while there is no session."""
        return self._sessions.next_deadline_ms()

    # -- brokers -------------------------------------------------------------------------------

    def register(
        self, request: BrokerRegistrationRequest, next_index: int, now_ms: int
    ) -> Decision:
        """Take in a new incarnation: one entry fences the old one and says the new broker epoch.

        The same incarnation again keeps its epoch. One that was replaced is refused for ever: a
        late message of a dead process must not fence the living one. The same disk is accepted at
        once, since the lock on the directory proves that the old process is gone; another disk
        waits until the old session has expired.
        """
        image = self._pending
        if image is None:
            return _not_controller(request)
        if request.cluster_id != self._config.cluster_id:
            detail = f"this is cluster {self._config.cluster_id}, not {request.cluster_id}"
            return self._refuse(request, ErrorCode.INCONSISTENT_CLUSTER_ID, detail)
        old = image.brokers.get(request.node_id)
        if old is not None and old.incarnation == request.incarnation:
            self._sessions.touch(request.node_id, now_ms)
            return self._answer(BrokerRegistrationResponse(ErrorCode.NONE, "", old.broker_epoch))
        if old is not None and request.incarnation in old.former_incarnations:
            detail = f"broker {request.node_id} has registered anew since: a late message"
            return self._refuse(request, ErrorCode.STALE_BROKER_EPOCH, detail)
        if (
            old is not None
            and old.disk_id != request.disk_id
            and self._sessions.is_live(request.node_id, now_ms)
        ):
            detail = f"broker {request.node_id} with another disk was heard of lately"
            return self._refuse(request, ErrorCode.DUPLICATE_BROKER_REGISTRATION, detail)
        self._sessions.touch(request.node_id, now_ms)
        records: list[Record] = [
            RegisterBroker(
                request.node_id,
                next_index,
                request.incarnation,
                request.disk_id,
                request.host,
                request.port,
            )
        ]
        if old is not None:
            records += self._old_incarnation_out(image, old, request)
        answer = BrokerRegistrationResponse(ErrorCode.NONE, "", next_index)
        return self._commit(image, records, next_index, answer)

    def _old_incarnation_out(
        self, image: MetadataImage, old: BrokerImage, request: BrokerRegistrationRequest
    ) -> list[Record]:
        damaged = {(replica.topic_id, replica.partition) for replica in request.damaged}

        def has_lost(topic: TopicImage, partition: int) -> bool:
            return (
                old.disk_id != request.disk_id
                or (topic.config.flush == "async" and not request.clean_shutdown)
                or (topic.topic_id, partition) in damaged
            )

        return list(without_broker(image, request.node_id, has_lost))

    def heartbeat(self, request: BrokerHeartbeatRequest, next_index: int, now_ms: int) -> Decision:
        """Keep the session alive; unfence a broker that has caught up, fence one that asks for it.

        A broker has caught up when its image has reached its own registration. Replicas that it
        calls damaged leave ISR and ELR, so that they may begin anew.
        """
        image = self._pending
        if image is None:
            return _not_controller(request)
        error = _broker_error(image, request.node_id, request.broker_epoch)
        if error is not ErrorCode.NONE:
            return self._refuse(request, error)
        self._sessions.touch(request.node_id, now_ms)
        caught_up = request.metadata_index >= request.broker_epoch
        fenced = image.brokers[request.node_id].fenced
        if request.want_fence and not fenced:
            answer = BrokerHeartbeatResponse(ErrorCode.NONE, True, caught_up)
            return self._commit(image, _fence(image, request.node_id), next_index, answer)
        if fenced and caught_up and not request.want_fence:
            records: list[Record] = [BrokerFenced(request.node_id, request.broker_epoch, False)]
            records += with_broker(image, request.node_id)
            answer = BrokerHeartbeatResponse(ErrorCode.NONE, False, caught_up)
            return self._commit(image, records, next_index, answer)
        found = [(one.topic_id, one.partition, one.leader_epoch) for one in request.damaged]
        changes: list[Record] = list(without_damaged(image, request.node_id, found))
        if changes:
            answer = BrokerHeartbeatResponse(ErrorCode.NONE, fenced, caught_up)
            return self._commit(image, changes, next_index, answer)
        return self._answer(BrokerHeartbeatResponse(ErrorCode.NONE, fenced, caught_up))

    def tick(self, now_ms: int, next_index: int) -> Commit | None:
        """Fence *one* broker whose session is over; call again until None.

        One at a time, each on the image that the last one left: judged together on one image, two
        brokers that share partitions would each be elected as the other's successor.
        """
        image = self._pending
        if image is None:
            return None
        while (node_id := self._sessions.pop_expired(now_ms)) is not None:
            if image.is_active(node_id):
                return self._commit(image, _fence(image, node_id), next_index, None)
        return None

    # -- partitions, topics, producer ids --------------------------------------------------------

    def alter_partition(
        self, request: AlterPartitionRequest, next_index: int, now_ms: int
    ) -> Decision:
        """Judge each part on its own; what is accepted becomes one entry."""
        image = self._pending
        if image is None:
            return _not_controller(request)
        error = _broker_error(image, request.node_id, request.broker_epoch)
        if error is not ErrorCode.NONE:
            return self._refuse(request, error)
        records, results = alter_partitions(image, request)
        answer = AlterPartitionResponse(ErrorCode.NONE, results)
        return self._commit(image, records, next_index, answer) if records else self._answer(answer)

    def create_topic(self, request: CreateTopicRequest, next_index: int, now_ms: int) -> Decision:
        image = self._pending
        if image is None:
            return _not_controller(request)
        try:
            topic_id, records = create_topic(image, request, self._config, self._draw, next_index)
        except ApiError as error:
            if error.code is ErrorCode.TOPIC_ALREADY_EXISTS:
                return self._confirm(image, request, error.code, error.detail, next_index)
            return self._refuse(request, error.code, error.detail)
        answer = CreateTopicResponse(ErrorCode.NONE, "", topic_id, maybe_done=False)
        return self._commit(image, records, next_index, answer)

    def delete_topic(self, request: DeleteTopicRequest, next_index: int, now_ms: int) -> Decision:
        image = self._pending
        if image is None:
            return _not_controller(request)
        topic = image.topic_named(request.name)
        if topic is None:
            detail = f"there is no topic {request.name[:200]}"
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return self._confirm(image, request, error, detail, next_index)
        answer = DeleteTopicResponse(ErrorCode.NONE, "", maybe_done=False)
        return self._commit(image, [TopicDeleted(topic.topic_id)], next_index, answer)

    def alter_topic(self, request: AlterTopicRequest, next_index: int, now_ms: int) -> Decision:
        image = self._pending
        if image is None:
            return _not_controller(request)
        try:
            records = alter_topic(image, request)
        except ApiError as error:
            return self._confirm(image, request, error.code, error.detail, next_index)
        answer = AlterTopicResponse(ErrorCode.NONE, "", maybe_done=False)
        return self._commit(image, records, next_index, answer)

    def create_partitions(
        self, request: CreatePartitionsRequest, next_index: int, now_ms: int
    ) -> Decision:
        image = self._pending
        if image is None:
            return _not_controller(request)
        try:
            records = create_partitions(image, request, self._draw)
        except ApiError as error:
            return self._confirm(image, request, error.code, error.detail, next_index)
        answer = CreatePartitionsResponse(ErrorCode.NONE, "", maybe_done=False)
        return self._commit(image, records, next_index, answer)

    def allocate_producer_ids(
        self, request: AllocateProducerIdsRequest, next_index: int, now_ms: int
    ) -> Decision:
        """A block of ids that no broker was given before or will be given again."""
        image = self._pending
        if image is None:
            return _not_controller(request)
        error = _broker_error(image, request.node_id, request.broker_epoch)
        if error is not ErrorCode.NONE:
            return self._refuse(request, error)
        first = image.next_producer_id
        record = ProducerIdsAllocated(
            request.node_id, request.broker_epoch, first + PRODUCER_IDS_PER_BLOCK
        )
        answer = AllocateProducerIdsResponse(ErrorCode.NONE, first, PRODUCER_IDS_PER_BLOCK)
        return self._commit(image, [record], next_index, answer)

    # -- how decisions are made -------------------------------------------------------------------

    def _commit(
        self,
        image: MetadataImage,
        records: list[Record] | tuple[Record, ...],
        next_index: int,
        answer: ControllerResponse | None,
    ) -> Commit:
        self._pending, _ = image.apply_entry(next_index, image.term, records)
        return Commit(tuple(records), answer)

    def _answer(self, body: ControllerResponse) -> Answer:
        assert self._pending is not None
        return Answer(body, self._pending.index)

    def _refuse(self, request: ControllerRequest, error: ErrorCode, detail: str = "") -> Answer:
        return self._answer(refuse(request, error, detail))

    def _confirm(
        self,
        image: MetadataImage,
        request: ControllerRequest,
        error: ErrorCode,
        detail: str,
        next_index: int,
    ) -> Commit:
        """Refuse because of what exists. That is a read: an entry of no records, once committed,
        proves that no successor had changed it, as a deposed controller could not know."""
        return self._commit(image, (), next_index, refuse(request, error, detail))


def _not_controller(request: ControllerRequest) -> Answer:
    return Answer(refuse(request, ErrorCode.NOT_CONTROLLER), after_index=0)


def _broker_error(image: MetadataImage, node_id: int, broker_epoch: int) -> ErrorCode:
    """Whether this is the present incarnation of a registered broker.

    An epoch beyond our log was given by a successor of ours: then we must not tell a healthy
    broker that it is stale.
    """
    if broker_epoch > image.index:
        return ErrorCode.NOT_CONTROLLER
    broker = image.brokers.get(node_id)
    if broker is None:
        return ErrorCode.BROKER_ID_NOT_REGISTERED
    if broker.broker_epoch != broker_epoch:
        return ErrorCode.STALE_BROKER_EPOCH
    return ErrorCode.NONE


def _fence(image: MetadataImage, node_id: int) -> list[Record]:
    return [
        *without_broker(image, node_id),
        BrokerFenced(node_id, image.brokers[node_id].broker_epoch, True),
    ]
