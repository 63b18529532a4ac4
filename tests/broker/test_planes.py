"""What only voters may say is heard on the voters' listener only."""

from __future__ import annotations

import pytest

from broker.events import Connection, Plane, Received
from broker.quorum.raft_codec import encode_message
from chaos.sim.choices import Choices, from_seed
from chaos.sim.cluster import CLUSTER_ID, SimCluster
from raft.messages import AppendEntries


@pytest.mark.parametrize(("plane", "term"), [(Plane.BROKER, 0), (Plane.CONTROLLER, 99)])
def test_clients_cannot_speak_raft(plane: Plane, term: int) -> None:
    """The broker listener is where clients connect: a term told there moves nobody."""
    cluster = SimCluster(3, Choices(from_seed(1)))
    node = cluster.nodes[1]
    node.start()
    cluster.clock.run_until(cluster.clock.now_ms + 100)
    heartbeat = AppendEntries(
        term=99,
        from_id=2,
        from_disk_id="disk2",
        to_id=1,
        to_disk_id="disk1",
        prev_index=0,
        prev_term=0,
        entries=(),
        commit_index=0,
    )
    message = encode_message(CLUSTER_ID, heartbeat)
    node.receive(Received(Connection(plane, b"x"), 0, message))
    cluster.clock.run_until(cluster.clock.now_ms + 50)
    assert node.core is not None
    assert node.core.driver is not None
    assert node.core.driver.node is not None
    assert node.core.driver.node.term == term
