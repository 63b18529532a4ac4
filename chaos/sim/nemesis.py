"""Does what a plan's faults say, and takes it back when their time is over.

A fault that would give up a guarantee by itself (the loss of the last good disk) or that finds
nothing to break (a node that is down already) is left out; `injected` holds what was done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from broker.log.checkpoint import RECOVERY_POINT_PATH, load_offsets
from broker.log.log_manager import parse_directory
from chaos.checker.run_info import FaultRow
from chaos.sim.batches import base_offset_of, last_batch_position
from chaos.sim.client import NS_PER_MS
from chaos.sim.cluster import DISK_STALL_MS, Rot, SimCluster
from chaos.sim.network import Rule
from chaos.sim.node import SimNode
from chaos.sim.plan import TOPIC, Fault, Plan

GRACE_MS = 500
ROT_BYTES = 16
"""So many bytes tell a place that rots from the same place written anew."""
LEAVE_MS = 1_000
"""Before it gives up a node tries for so long to let others lead."""


class Nemesis:
    def __init__(self, cluster: SimCluster, plan: Plan) -> None:
        self.cluster = cluster
        self.plan = plan
        self.injected: list[FaultRow] = []
        self._is_over = False
        self._clients = [
            f"c{number}" for number in range(plan.setup.producers + plan.setup.consumers)
        ]

    def schedule(self) -> None:
        """Let the plan's faults come, counted from now."""
        for fault in self.plan.faults:
            self.cluster.clock.after(fault.at_ms, partial(self.inject, fault))

    def heal(self) -> None:
        """No fault comes any more, everything that is broken works again, everybody is up. A sync
        that hangs may yet end a process: then it is started once more."""
        self._is_over = True
        self.cluster.network.heal()
        for node in self.cluster.nodes.values():
            node.repair()
            node.resume()
            self.cluster.start(node)
            until_ms = node.disk_fails_until_ms - self.cluster.clock.now_ms
            if until_ms > 0:
                self.cluster.clock.after(until_ms, partial(self.cluster.start, node))

    def inject(self, fault: Fault) -> None:
        """Do it now, unless it would break a promise by itself or nothing is there to break."""
        if self._is_over:
            return
        node = self.cluster.nodes[fault.node]
        inject: Callable[[Fault, SimNode], str] = getattr(self, "_" + fault.kind.replace("-", "_"))
        what = inject(fault, node)
        if what:
            self.cluster.tell("-", "fault", f"{fault.kind}: {what}")
            now_ns = self.cluster.clock.now_ms * NS_PER_MS
            self.injected.append(FaultRow(now_ns, fault.kind, "inject", node.name, True, what))

    def _after(self, fault: Fault, undo: Callable[[], None]) -> None:
        """When the fault's time is over, unless all was healed before."""
        self.cluster.clock.after(fault.lasting_ms, lambda: None if self._is_over else undo())

    def _start_after(self, fault: Fault, node: SimNode) -> None:
        self._after(fault, partial(self.cluster.start, node))

    # -- processes -------------------------------------------------------------------------------

    def _down(self, fault: Fault, node: SimNode, *, power_loss: bool) -> str:
        if not node.is_up:
            return ""
        self._start_after(fault, node)
        self.cluster.crash(node, power_loss=power_loss)
        what = "loses power" if power_loss else "is killed"
        return f"{node.name} {what}, down {_for(fault)}"

    def _kill(self, fault: Fault, node: SimNode) -> str:
        return self._down(fault, node, power_loss=False)

    def _power_loss(self, fault: Fault, node: SimNode) -> str:
        return self._down(fault, node, power_loss=True)

    def _power_loss_all(self, fault: Fault, node: SimNode) -> str:
        for each in self.cluster.nodes.values():
            if each.is_up:
                self.cluster.crash(each, power_loss=True)
            self._start_after(fault, each)
        return f"all nodes lose power, down {_for(fault)}"

    def _stop(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up or node.paused:
            return ""
        node.stop()
        self._start_after(fault, node)
        return f"{node.name} is asked to stop, started again {_for(fault)} later"

    def _pause(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up or node.paused:
            return ""
        node.pause()
        self._after(fault, node.resume)
        return f"{node.name} stands still {_for(fault)}"

    def _leader(self, fault: Fault) -> SimNode | None:
        image = self.cluster.newest_image()
        topic = image.topic_named(TOPIC) if image is not None else None
        if topic is None:
            return None
        leader = topic.partitions[fault.amount % len(topic.partitions)].leader
        return self.cluster.nodes.get(leader)

    def _kill_leader(self, fault: Fault, node: SimNode) -> str:
        leader = self._leader(fault)
        return self._down(fault, leader, power_loss=False) if leader is not None else ""

    def _pause_leader(self, fault: Fault, node: SimNode) -> str:
        leader = self._leader(fault)
        return self._pause(fault, leader) if leader is not None else ""

    def _kill_controller(self, fault: Fault, node: SimNode) -> str:
        for each in self.cluster.nodes.values():
            driver = each.core.driver if each.core is not None else None
            if driver is not None and driver.node is not None and driver.node.is_leader:
                return self._down(fault, each, power_loss=False)
        return ""

    def _pause_in_turn(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up or node.paused:
            return ""

        def pause() -> None:
            node.pause()
            self._after(fault, node.resume)

        node.after_effects(fault.amount, pause)
        return f"{node.name} stands still in the middle of a turn, {fault.amount} effects from now"

    def _crash_in_turn(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""

        def crash() -> None:
            self.cluster.crash_as_drawn(node)
            self._start_after(fault, node)

        node.after_effects(fault.amount, crash)
        return f"{node.name} ends in the middle of a turn, {fault.amount} effects from now"

    def _crash_in_disk_call(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""
        node.disk.crash_at(fault.amount, fault.message)
        self._start_after(fault, node)
        return f"{node.name} ends {fault.message} its disk call number {fault.amount} from now"

    # -- links -----------------------------------------------------------------------------------

    def _cut(self, fault: Fault, links: list[tuple[str, str]]) -> None:
        for link in links:
            self.cluster.network.set_cut(*link, True)

        def undo() -> None:
            for link in links:
                self.cluster.network.set_cut(*link, False)

        self._after(fault, undo)

    def _isolate(self, fault: Fault, node: SimNode) -> str:
        others = [name for name in self._names() if name != node.name]
        if fault.amount:
            others += self._clients
        self._cut(fault, _both_ways([(node.name, other) for other in others]))
        whom = "nodes and clients" if fault.amount else "the other nodes"
        return f"{node.name} is cut off from {whom} {_for(fault)}"

    def _halves(self, fault: Fault, node: SimNode) -> str:
        names = self._names()
        start = fault.node - 1
        turned = names[start:] + names[:start]
        first, second = turned[: len(names) // 2], turned[len(names) // 2 :]
        self._cut(fault, _both_ways([(a, b) for a in first for b in second]))
        return f"{', '.join(first)} are cut off from {', '.join(second)} {_for(fault)}"

    def _cut_pair(self, fault: Fault, node: SimNode) -> str:
        other = self.cluster.nodes[fault.other]
        if other is node:
            return ""
        self._cut(fault, _both_ways([(node.name, other.name)]))
        return f"no link between {node.name} and {other.name} {_for(fault)}"

    def _cut_one_way(self, fault: Fault, node: SimNode) -> str:
        other = self.cluster.nodes[fault.other]
        if other is node:
            return ""
        self._cut(fault, [(node.name, other.name)])
        return f"nothing gets from {node.name} to {other.name} {_for(fault)}"

    def _rule(self, fault: Fault, *rules: Rule) -> None:
        network = self.cluster.network
        numbers = [network.add_rule(rule) for rule in rules]

        def undo() -> None:
            for number in numbers:
                network.lift_rule(number)

        self._after(fault, undo)

    def _slow_link(self, fault: Fault, node: SimNode) -> str:
        self._rule(fault, Rule(source=node.name, delay_ms_max=fault.amount))
        return f"what {node.name} sends takes up to {fault.amount} ms {_for(fault)}"

    def _loss(self, fault: Fault, node: SimNode) -> str:
        self._rule(fault, Rule(drop_percent=fault.amount))
        return f"{fault.amount} % of all messages are lost {_for(fault)}"

    def _drop_messages(self, fault: Fault, node: SimNode) -> str:
        rule = Rule(source=node.name, message=fault.message, drop_percent=fault.amount)
        self._rule(fault, rule, *self._towards(fault, node, drop_percent=fault.amount))
        return f"{fault.amount} % of {fault.message} of {node.name} are lost {_for(fault)}"

    def _delay_messages(self, fault: Fault, node: SimNode) -> str:
        rule = Rule(source=node.name, message=fault.message, delay_ms_max=fault.amount)
        self._rule(fault, rule)
        return f"{fault.message} of {node.name} take up to {fault.amount} ms {_for(fault)}"

    def _hold_messages(self, fault: Fault, node: SimNode) -> str:
        self._rule(fault, Rule(source=node.name, message=fault.message, hold=True))
        return f"{fault.message} of {node.name} are held back {_for(fault)}"

    def _towards(self, fault: Fault, node: SimNode, drop_percent: int) -> list[Rule]:
        """Clients' requests have no node for a source: they are met on their way in."""
        if fault.message not in ("ProduceRequest", "MetadataRequest", "InitProducerIdRequest"):
            return []
        return [Rule(target=node.name, message=fault.message, drop_percent=drop_percent)]

    def _late_duplicates(self, fault: Fault, node: SimNode) -> str:
        self.cluster.late_registrations_may_come = True
        rules = [
            Rule(source=name, message=fault.message, duplicate_percent=fault.amount)
            for name in self._names()
        ]
        self._rule(fault, *rules)
        return f"{fault.amount} % of {fault.message} arrive once more, late, {_for(fault)}"

    def _reorder(self, fault: Fault, node: SimNode) -> str:
        rules = [
            Rule(source=node.name, target=name, delay_ms_max=fault.amount, reorder=True)
            for name in self._names()
        ]
        self._rule(fault, *rules)
        return f"messages of {node.name} to nodes overtake one another {_for(fault)}"

    def _names(self) -> list[str]:
        return [node.name for node in self.cluster.nodes.values()]

    # -- disks -----------------------------------------------------------------------------------

    def _slow_disk(self, fault: Fault, node: SimNode) -> str:
        node.sync_ms_max = fault.amount
        self._after(fault, lambda: setattr(node, "sync_ms_max", -1))
        return f"syncs of {node.name} take up to {fault.amount} ms {_for(fault)}"

    def _hang_disk(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""
        node.hangs_until_ms = self.cluster.clock.now_ms + fault.lasting_ms
        self._disk_may_fail(fault, node)
        return f"the disk of {node.name} hangs {_for(fault)}"

    def _disk_may_fail(self, fault: Fault, node: SimNode) -> None:
        """Then the process may end: it is started again when the fault's time is over, and when
        nothing that was asked of the disk before that can fail any more."""
        latest_ms = fault.lasting_ms + DISK_STALL_MS + LEAVE_MS + GRACE_MS
        until_ms = self.cluster.clock.now_ms + latest_ms
        node.disk_fails_until_ms = max(node.disk_fails_until_ms, until_ms)

        def undo() -> None:
            node.disk.fail_no_more()
            self.cluster.start(node)

        self._after(fault, undo)
        self.cluster.clock.after(
            latest_ms, lambda: None if self._is_over else self.cluster.start(node)
        )

    def _fail_sync(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""
        node.disk.fail_next("sync", error=errno.EIO)
        self._disk_may_fail(fault, node)
        return f"the next sync of {node.name} fails"

    def _fail_write(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""
        cut_back = fault.amount == 0
        node.disk.fail_next("append", error=errno.EIO, path_part="logs/", cut_back=cut_back)
        self._disk_may_fail(fault, node)
        left = "nothing" if cut_back else "half of it"
        return f"the next write to a log of {node.name} fails and leaves {left}"

    def _full_disk(self, fault: Fault, node: SimNode) -> str:
        if not node.is_up:
            return ""
        node.disk.capacity_bytes = node.disk.used_bytes + fault.amount

        def undo() -> None:
            node.disk.capacity_bytes = 2**62
            self.cluster.start(node)

        self._after(fault, undo)
        return f"the disk of {node.name} has {fault.amount} bytes left {_for(fault)}"

    def _wipe(self, fault: Fault, node: SimNode) -> str:
        if node.config.is_controller or not self._can_spare(node):
            return ""
        self.cluster.wipe(node)
        self._start_after(fault, node)
        return f"{node.name} loses its disk, down {_for(fault)}"

    def _bit_flip(self, fault: Fault, node: SimNode) -> str:
        """In a segment that is full and synced, while the process is down: read when it starts."""
        if not self._can_spare(node):
            return ""
        cold = self._cold_segments(node)
        if not cold:
            return ""
        path, size_bytes = cold[fault.amount % len(cold)]
        if node.is_up:
            self.cluster.crash(node, power_loss=False)
        self.cluster.lose(node)
        position = fault.amount % size_bytes
        node.disk.corrupt(path, position, 1 << fault.other % 8)
        self._start_after(fault, node)
        return f"byte {position} of {path} on {node.name} rots, down {_for(fault)}"

    def _bit_rot(self, fault: Fault, node: SimNode) -> str:
        """In a segment that is full and synced, while the process runs: found when it is read."""
        if (
            node.paused
            or not self._can_spare(node)
            or any(rot.is_there for rot in self.cluster.rot)
        ):
            return ""
        cold = self._cold_segments(node, with_known=True)
        if not cold:
            return ""
        path, size_bytes = cold[fault.amount % len(cold)]
        position = fault.amount % size_bytes
        node.disk.corrupt(path, position, 1 << fault.other % 8)
        around = bytes(node.disk.content_of(path)[position : position + ROT_BYTES])
        parsed = parse_directory(path.split("/")[1])
        assert parsed is not None
        _, partition, topic_id = parsed
        self.cluster.rot.append(Rot(node, (topic_id, partition), path, position, around))
        return f"byte {position} of {path} on {node.name} rots"

    def _cold_segments(self, node: SimNode, *, with_known: bool = False) -> list[tuple[str, int]]:
        """(path, size that may rot) of segments that are full and synced, but not below the
        recovery point (`with_known`: these too), where a start reads headers only. The last batch
        of a file is left alone: if it is bad, a crash may have torn it."""
        recovery_points = load_offsets(node.disk, RECOVERY_POINT_PATH)
        found = []
        for entry in node.disk.list_dir("logs"):
            parsed = parse_directory(entry)
            if parsed is None:
                continue
            _, partition, topic_id = parsed
            view = node.disk.look(f"logs/{entry}", ".log", durable=True)
            for file in view.files()[:-1] if view is not None else ():
                path = f"logs/{entry}/{file.name}"
                is_known = base_offset_of(file) < recovery_points.get((topic_id, partition), 0)
                size_bytes = last_batch_position(file.data)
                if (with_known or not is_known) and size_bytes and node.disk.is_durable_whole(path):
                    found.append((path, size_bytes))
        return found

    def _can_spare(self, node: SimNode) -> bool:
        """All agree on the metadata, in which every partition has another member in ISR or ELR,
        and no other loss is still unknown to the controller. (With two unknown losses it could
        fence the last who holds the records, and keep the two.)"""
        cores = [other.core for other in self.cluster.nodes.values() if other.core is not None]
        if len(cores) < len(self.cluster.nodes):
            return False
        image = cores[0].image
        return (
            len({core.image.index for core in cores}) == 1
            and all(core.broker is not None and core.broker.replicas.is_active for core in cores)
            and all(
                node_id in image.brokers
                and image.brokers[node_id].disk_id == other.identity.disk_id
                for node_id, other in self.cluster.nodes.items()
            )
            and all(
                {*partition.isr, *partition.elr} - {node.config.node_id}
                for _, _, partition in image.all_partitions()
            )
        )

    # -- clocks ----------------------------------------------------------------------------------

    def _clock_rate(self, fault: Fault, node: SimNode) -> str:
        node.clock.set_rate(fault.amount)
        self._after(fault, lambda: node.clock.set_rate(1_000))
        return f"the clock of {node.name} runs at {fault.amount} permille {_for(fault)}"

    def _clock_jump(self, fault: Fault, node: SimNode) -> str:
        node.clock.jump(fault.amount)
        return f"the clock of {node.name} jumps ahead by {fault.amount} ms"


def _for(fault: Fault) -> str:
    return f"for {fault.lasting_ms} ms"


def _both_ways(links: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [link for a, b in links for link in ((a, b), (b, a))]
