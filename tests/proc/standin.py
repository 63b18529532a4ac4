"""A node without a broker inside: listens, answers what it is, stops on SIGTERM.

For tests of the launcher, the links and the nemesis, which must not depend on a broker that works.
Every node claims that node 1 is the active controller and leads the one partition of topic `t`.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import zmq

from broker.config import NodeConfig, load
from broker.wire import frames
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    BrokerEndpoint,
    DescribeNodeRequest,
    DescribeNodeResponse,
    MetadataResponse,
    PartitionInfo,
    ReplicaState,
    TopicInfo,
)

TOPIC_ID = "0" * 31 + "1"
POLL_MS = 50


def describe(config: NodeConfig) -> DescribeNodeResponse:
    replica = ReplicaState(TOPIC_ID, 0, "leader", 4, 2, 0, 9, 9, 7, (1, 2), False)
    return DescribeNodeResponse(
        node_id=config.node_id,
        pid=1,
        roles=config.roles,
        broker_epoch=5,
        fenced=False,
        raft_role="leader" if config.node_id == 1 else "follower",
        raft_term=3,
        raft_leader_id=1,
        commit_index=10,
        applied_index=10,
        voters=(),
        replicas=(replica,) if config.node_id == 1 else (),
        counters=(),
    )


def metadata(config: NodeConfig) -> MetadataResponse:
    part = PartitionInfo(0, 1, 4, 2, (1, 2), (1, 2))
    return MetadataResponse(
        cluster_id=config.cluster_id,
        metadata_index=10,
        controller_id=1,
        brokers=(BrokerEndpoint(config.node_id, config.host, config.broker_port, 5, False),),
        topics=(TopicInfo(ErrorCode.NONE, "t", TOPIC_ID, 1, "ack", 1_000_000, (), (part,)),),
    )


def serve(config: NodeConfig) -> None:
    context = zmq.Context()
    routers = []
    for port in (config.broker_port, config.controller_port):
        if port:
            router = context.socket(zmq.ROUTER)
            router.linger = 0
            router.bind(f"tcp://{config.host}:{port}")
            routers.append(router)
    print(f"node {config.node_id} listens", flush=True)
    while True:
        if not routers[0].poll(POLL_MS):
            continue  # a signal that came just before the wait has its handler run after it
        sender, *parts = routers[0].recv_multipart()
        message = frames.decode(parts)
        body = describe if isinstance(message.body, DescribeNodeRequest) else metadata
        answer = frames.encode(frames.Kind.RESPONSE, message.correlation_id, body(config))
        routers[0].send_multipart([sender, *answer])


def main() -> None:
    config = load(Path(sys.argv[-1]))
    if "--format" in sys.argv:
        if "--fail" in sys.argv:
            sys.exit("the disk said no")
        data = Path(config.data_dir)
        data.mkdir(parents=True)
        (data / "meta.properties").write_text(f"node_id={config.node_id}\n", encoding="ascii")
        return

    def stop(number: int, frame: FrameType | None) -> None:
        print(f"node {config.node_id} stops", flush=True)
        os._exit(0)  # ZeroMQ's own end would wait for sockets that the interrupted loop holds

    signal.signal(signal.SIGTERM, stop)
    if "--crash" in sys.argv:
        sys.exit("node fell over")
    serve(config)


if __name__ == "__main__":
    main()
