"""The cluster that all rows of the bad-input table share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.proc.cluster import Plan
from tests.process.bad_input import Witness, prozess
from tests.process.stories import Story, running

KEPT = b"".join(b"line %d\n" % number for number in range(1_000))


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Four nodes, of which three vote. Topics: kept (1,000 lines, on three nodes), small
    (message_max_bytes=1000), full (led by node 4, which is no voter)."""
    plan = Plan(name="besieged", node_count=4, controller_count=3)
    with running(tmp_path_factory.mktemp("besieged"), plan) as story:
        story.create_topic("kept", assignments=[(1, 2, 3)])
        story.create_topic("small", assignments=[(1, 2, 3)], message_max_bytes="1000")
        story.create_topic("full", assignments=[(4, 2, 3)])
        for topic in ("kept", "full"):
            assert prozess(story, "produce", topic, stdin=KEPT).code == 0
            story.wait_equal(topic)
        yield story


@pytest.fixture(scope="module")
def unharmed(besieged: Story) -> Witness:
    """Call it: nothing has changed since the cluster was set up."""
    return Witness(besieged, "kept", KEPT)
