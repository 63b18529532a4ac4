"""DESCRIBE_NODE: what one node knows of itself, for `status` and for checks of convergence."""

from __future__ import annotations

from broker.config import NodeConfig
from broker.lifecycle import BrokerLifecycle
from broker.replica.replica_manager import ReplicaManager
from broker.wire.messages import (
    DescribeNodeRequest,
    DescribeNodeResponse,
    ReplicaState,
    Setting,
    VoterState,
)
from raft.node import RaftNode


def describe_node(
    request: DescribeNodeRequest,
    config: NodeConfig,
    applied_index: int,
    controller_id: int,
    lifecycle: BrokerLifecycle | None,
    replicas: ReplicaManager | None,
    node: RaftNode | None,
    counters: dict[str, int],
) -> DescribeNodeResponse:
    wanted = replicas if request.replicas else None
    return DescribeNodeResponse(
        node_id=config.node_id,
        pid=counters.get("pid", 0),
        roles=config.roles,
        broker_epoch=lifecycle.broker_epoch if lifecycle else -1,
        fenced=lifecycle.fenced if lifecycle else False,
        raft_role=node.role.name.lower() if node else "observer",
        raft_term=node.term if node else -1,
        raft_leader_id=controller_id,
        commit_index=node.commit_index if node else applied_index,
        applied_index=applied_index,
        voters=tuple(
            VoterState(node_id, index)
            for node_id, index in sorted(node.match_index_by_voter.items())
        )
        if node
        else (),
        replicas=_describe_replicas(wanted) if wanted else (),
        counters=tuple(Setting(name, str(value)) for name, value in sorted(counters.items())),
    )


def _describe_replicas(replicas: ReplicaManager) -> tuple[ReplicaState, ...]:
    return tuple(
        ReplicaState(
            topic_id=key[0],
            partition=key[1],
            role=partition.role.value,
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch,
            log_start_offset=partition.log.log_start_offset,
            log_end_offset=partition.log.log_end_offset,
            synced_end=partition.log.synced_end,
            high_watermark=partition.high_watermark,
            isr=partition.isr,
            damaged=key in replicas.logs.damaged or key in replicas.damages,
        )
        for key, partition in sorted(replicas.partitions.items())
    )
