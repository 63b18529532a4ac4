"""The mark of a clean stop: there after one, gone as soon as the next process runs."""

from __future__ import annotations

from broker.broker_part import CLEAN, RUNNING, SHUTDOWN_PATH, shutdown_was_clean
from chaos.sim.choices import Choices
from chaos.sim.client import SimAdmin, create_request
from chaos.sim.cluster import SimCluster
from chaos.sim.node import SimNode


def started() -> tuple[SimCluster, SimNode]:
    cluster = SimCluster(1, Choices(5))
    cluster.start_all()
    admin = SimAdmin(cluster, create_request("t", 1, 1, 1, "async"))
    assert cluster.wait(20_000, "the topic is created", lambda: admin.created)
    return cluster, cluster.nodes[1]


def test_a_running_process_has_no_mark() -> None:
    _, node = started()
    assert node.disk.read_whole(SHUTDOWN_PATH) == RUNNING
    assert not shutdown_was_clean(node.disk)


def test_a_stop_in_good_order_leaves_it_and_power_loss_does_not_take_it() -> None:
    cluster, node = started()
    node.stop()
    assert cluster.wait(5_000, "the node has stopped", lambda: not node.is_up)
    node.disk.power_loss(cluster.choices.draw)
    assert node.disk.read_whole(SHUTDOWN_PATH) == CLEAN
    node.start()
    assert cluster.wait(5_000, "it runs again", cluster.converged)
    assert not shutdown_was_clean(node.disk)


def test_a_crash_leaves_none() -> None:
    _, node = started()
    node.crash(power_loss=False)
    assert not shutdown_was_clean(node.disk)
