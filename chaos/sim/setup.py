"""What kind of cluster a seed is run on, and what may befall it: drawn anew for each seed (swarm
testing)."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.sim.choices import Choices

TOPIC = "t"
"""The judged topic."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What kind of cluster a seed is run on, and what beyond the usual faults befalls it."""

    nodes: int = 3
    voters: int = 3
    flush: str = "ack"
    min_isr: int = 2
    segment_bytes: int = 134_217_728
    duplicate_percent: int = 0
    """Requests between nodes that arrive once more, much later."""
    churns: bool = False
    """A topic beside the judged one is created and deleted all the time, and written to."""
    stops: bool = False
    """Some crashes are stops in good order instead."""
    wipes: bool = False
    """Brokers that are no voters may lose their disk, where another member of ISR or ELR stays."""


def draw_setup(choices: Choices) -> Setup:
    """Any setup in which no guarantee is given up. Under flush=async a crash may cost records, so
    there every crash is a stop in good order."""
    nodes = choices.pick("nodes", (3, 3, 5))
    voters = 3 if nodes == 3 else choices.pick("voters", (3, 5))
    flush = ("ack", "ack", "always", "async")[choices.draw("flush", 0, 3)]
    min_isr = choices.pick("min_isr", (1, 2, 2, 3))
    may_wipe = voters < nodes and flush != "async" and min_isr > 1
    return Setup(
        nodes=nodes,
        voters=voters,
        flush=flush,
        min_isr=min_isr,
        segment_bytes=choices.pick("segment_bytes", (1_024, 4_096, 134_217_728)),
        duplicate_percent=choices.pick("duplicate_percent", (0, 2, 20)),
        churns=choices.chance("churns", 50),
        stops=choices.chance("stops", 50),
        wipes=may_wipe and choices.chance("wipes", 70),
    )
