"""The verbs of the text scenarios in `tests/testdata/raft`: one method `do_<verb>` each.

How a node is printed: `2 leader t3 vote=2 [1 1 | 3 ~ 3]` is node 2 leading term 3, having voted for
itself, with entries of terms 1, 1, 3, 3. `|` stands after the last committed entry, `~` after the
last one known to be on its disk (left out when all are).
"""

from __future__ import annotations

from typing import Any

from raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVoteRequest,
    PreVoteResponse,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from raft.types import Entry, HardState
from tests.datadriven import Command
from tests.raft.cluster import Cluster, default_draw
from tests.raft.messages import said

KINDS: dict[str, type[RaftMessage]] = {
    "prevote": PreVoteRequest,
    "prevote-answer": PreVoteResponse,
    "vote": VoteRequest,
    "vote-answer": VoteResponse,
    "append": AppendEntries,
    "append-answer": AppendEntriesResponse,
    "timeout-now": TimeoutNow,
}


class RaftScenario:
    """One scenario's cluster; `handle` runs one command."""

    def __init__(self) -> None:
        self.cluster = Cluster(())

    def handle(self, command: Command) -> str:
        method = getattr(self, "do_" + command.verb.replace("-", "_"), None)
        if method is None:
            raise command.error("no such verb")
        output = method(command)
        return output if isinstance(output, str) else ""

    # -- the stage ---------------------------------------------------------------------------

    def do_voters(self, command: Command) -> None:
        """voters 1,2,3 [setting=number]: disks d1, d2, d3, empty; nobody runs yet"""
        ids = [int(part) for part in command.word(0).split(",")]
        settings = {name: command.number(name) for name in command.options}
        self.cluster = Cluster(ids, default_draw, **settings)

    def do_disk(self, command: Command) -> None:
        """disk 1 term=3 [vote=2] [log=1,1,3]: what the disk of a stopped node holds; without log=
        the entries stay"""
        disk = self.cluster.hosts[command.word_number(0)].disk
        disk.hard_state = HardState(command.number("term"), command.number("vote", 0) or None)
        if command.has("log"):
            disk.entries = [
                Entry(place + 1, term, b"t%d" % term)
                for place, term in enumerate(command.numbers("log"))
            ]

    def do_start(self, command: Command) -> None:
        """start [1,2]"""
        self.cluster.start(*self._ids(command, 0))

    def do_crash(self, command: Command) -> None:
        """crash 1 [kept=n]: what is not synced is lost, but for the first n writes"""
        self.cluster.crash(command.word_number(0), command.number("kept", 0))

    def do_slow(self, command: Command) -> None:
        """slow 1: its syncs wait for `sync 1`"""
        self.cluster.hosts[command.word_number(0)].is_slow = True

    def do_fast(self, command: Command) -> None:
        """fast 1: its syncs return at once"""
        self.cluster.hosts[command.word_number(0)].is_slow = False

    def do_sync(self, command: Command) -> None:
        """sync 1: the sync that is running returns"""
        self.cluster.sync(command.word_number(0))

    # -- time --------------------------------------------------------------------------------

    def do_wait(self, command: Command) -> None:
        """wait 500: milliseconds pass, no timer fires"""
        self.cluster.wait(command.word_number(0))

    def do_run(self, command: Command) -> None:
        """run 500: milliseconds pass in which every timer fires and every message arrives"""
        self.cluster.run(command.word_number(0))

    def do_tick(self, command: Command) -> None:
        """tick [1,2]: what is due by now fires"""
        for node_id in self._ids(command, 0) or self.cluster.running:
            self.cluster.tick(node_id)

    def do_fire(self, command: Command) -> None:
        """fire 1: time passes until node 1's next deadline, and only it notices"""
        self.cluster.fire(command.word_number(0))

    def do_stop(self, command: Command) -> None:
        """stop 1,2: the processes are stopped, and do not know it"""
        for node_id in self._ids(command, 0):
            self.cluster.stop(node_id)

    def do_resume(self, command: Command) -> None:
        """resume 1,2 [unnoticed]: they go on, notice the gap, and drain their inboxes"""
        is_noticed = command.word(1, "noticed") == "noticed"
        for node_id in self._ids(command, 0):
            self.cluster.resume(node_id, is_noticed)

    def do_elect(self, command: Command) -> None:
        """elect 1: everybody forgets the old leader, node 1 times out, all is delivered"""
        self.cluster.elect(command.word_number(0))

    # -- clients -----------------------------------------------------------------------------

    def do_propose(self, command: Command) -> str:
        """propose 1 a b c"""
        node_id = command.word_number(0)
        indexes = [self.cluster.propose(node_id, data.encode()) for data in command.rest(1)]
        return " ".join("refused" if index is None else f"index={index}" for index in indexes)

    # -- network -----------------------------------------------------------------------------

    def do_settle(self, command: Command) -> None:
        """settle: deliver everything in order until it is quiet"""
        self.cluster.settle()

    def do_deliver(self, command: Command) -> str:
        """deliver [vote] [from=1,2] [to=3] [count=1]: what is on its way now, not the answers"""
        lines = []
        for message in self._select(command):
            self._take_out(message)
            lost = self.cluster.step(message)
            lines.append(show(message) + (f" ({lost})" if lost else ""))
        return "\n".join(lines) or "nothing"

    def do_copy(self, command: Command) -> str:
        """copy …: deliver, but leave the messages on their way for a second time"""
        lines = []
        for message in self._select(command):
            self.cluster.step(message)
            lines.append(show(message))
        return "\n".join(lines) or "nothing"

    def do_drop(self, command: Command) -> str:
        """drop …: messages are lost"""
        messages = self._select(command)
        for message in messages:
            self._take_out(message)
        return "\n".join(show(message) for message in messages) or "nothing"

    def do_network(self, command: Command) -> str:
        """network: what is on its way"""
        return "\n".join(show(message) for message in self.cluster.network) or "quiet"

    def do_cut(self, command: Command) -> None:
        """cut 1 2,3: nothing passes between 1 and the others"""
        for other_id in self._ids(command, 1):
            self.cluster.cut(command.word_number(0), other_id)

    def do_mute(self, command: Command) -> None:
        """mute 1 2,3: what 1 says does not reach the others, what they say reaches 1"""
        for other_id in self._ids(command, 1):
            self.cluster.cut_links.add((command.word_number(0), other_id))

    def do_heal(self, command: Command) -> None:
        self.cluster.cut_links.clear()

    def do_forge(self, command: Command) -> str:
        """forge append from=1 to=2 term=1 …: a message out of nowhere, delivered at once"""
        message = self._forged(command)
        lost = self.cluster.step(message)
        return show(message) + (f" ({lost})" if lost else "")

    # -- looking -----------------------------------------------------------------------------

    def do_status(self, command: Command) -> str:
        """status [1,2]"""
        ids = self._ids(command, 0) or tuple(self.cluster.hosts)
        return "\n".join(self._status(node_id) for node_id in ids)

    def do_applied(self, command: Command) -> str:
        """applied 1: the data handed to the state machine; a leader's empty entry is `-`"""
        applied = self.cluster.hosts[command.word_number(0)].applied
        return " ".join(entry.data.decode() or "-" for entry in applied) or "nothing"

    def do_match(self, command: Command) -> str:
        """match 1: what a leader knows of every disk"""
        matches = self.cluster.node(command.word_number(0)).match_index_by_voter
        return " ".join(f"{voter}:{index}" for voter, index in sorted(matches.items())) or "nothing"

    def do_deadline(self, command: Command) -> str:
        """deadline 1: when it fires next, from now"""
        node = self.cluster.node(command.word_number(0))
        return f"in {node.next_deadline_ms() - self.cluster.now_ms} ms"

    # -- helpers -----------------------------------------------------------------------------

    def _ids(self, command: Command, position: int) -> tuple[int, ...]:
        return tuple(int(part) for part in command.word(position, "").split(",") if part)

    def _select(self, command: Command) -> list[RaftMessage]:
        kind = command.word(0, "any")
        if kind != "any" and kind not in KINDS:
            raise command.error(f"no such message; there are {' '.join(KINDS)}")
        senders = command.numbers("from", tuple(self.cluster.hosts))
        targets = command.numbers("to", tuple(self.cluster.hosts))
        selected = [
            message
            for message in self.cluster.network
            if message.from_id in senders
            and message.to_id in targets
            and (kind == "any" or type(message) is KINDS[kind])
        ]
        return selected[: command.number("count", len(selected))]

    def _take_out(self, message: RaftMessage) -> None:
        position = next(p for p, m in enumerate(self.cluster.network) if m is message)
        del self.cluster.network[position]

    def _status(self, node_id: int) -> str:
        host = self.cluster.hosts[node_id]
        if host.node is None:
            hard_state = host.disk.hard_state
            terms = " ".join(str(entry.term) for entry in host.disk.entries)
            return f"{node_id} down t{hard_state.term} vote={hard_state.voted_for or '-'} [{terms}]"
        node = host.node
        parts = []
        for index in range(node.last_index + 1):
            if index > 0:
                parts.append(str(node.entries()[index - 1].term))
            if index == node.commit_index:
                parts.append("|")
            if index == node.durable_index < node.last_index:
                parts.append("~")
        return (
            f"{node_id} {node.role.value} t{node.term} vote={node.voted_for or '-'} "
            f"[{' '.join(parts)}]"
        )

    def _forged(self, command: Command) -> RaftMessage:
        kind = command.word(0)
        from_id, to_id, term = (command.number(name) for name in ("from", "to", "term"))
        fields: dict[str, Any] = {}
        for end in ("prev", "last"):
            if command.has(end):
                position = self._positions(command.text_of(end))[0]
                fields[f"{end}_index"], fields[f"{end}_term"] = position
        if command.has("entries"):
            positions = self._positions(command.text_of("entries"))
            fields["entries"] = tuple(Entry(at, of, b"t%d" % of) for at, of in positions)
        for option, name in (
            ("commit", "commit_index"),
            ("match", "match_index"),
            ("asked", "asked_term"),
        ):
            if command.has(option):
                fields[name] = command.number(option)
        for option in ("from_disk", "to_disk"):
            if command.has(option):
                fields[f"{option}_id"] = command.text_of(option)
        if kind not in KINDS:
            raise command.error(f"no such message; there are {' '.join(KINDS)}")
        return said(KINDS[kind], from_id, to_id, term, **fields)

    @staticmethod
    def _positions(text: str) -> list[tuple[int, int]]:
        """`3/1,4/2` is index 3 of term 1 and index 4 of term 2."""
        pairs = [part.split("/") for part in text.split(",") if part]
        return [(int(index), int(term)) for index, term in pairs]


def show(message: RaftMessage) -> str:
    """One line per message, the same words as in the verbs."""
    line = f"{message.from_id}->{message.to_id} t{message.term} "
    match message:
        case PreVoteRequest():
            return line + f"prevote last={message.last_index}/{message.last_term}"
        case PreVoteResponse():
            verdict = "granted" if message.granted else "refused"
            return line + f"prevote-answer asked=t{message.asked_term} {verdict}"
        case VoteRequest():
            transfer = " transfer" if message.leadership_transfer else ""
            return line + f"vote last={message.last_index}/{message.last_term}{transfer}"
        case VoteResponse():
            return line + f"vote-answer {'granted' if message.granted else 'refused'}"
        case AppendEntries():
            entries = " ".join(f"{entry.index}/{entry.term}" for entry in message.entries)
            prev = f"{message.prev_index}/{message.prev_term}"
            return line + f"append prev={prev} [{entries}] commit={message.commit_index}"
        case AppendEntriesResponse():
            if message.accepted:
                return line + f"append-answer match={message.match_index}"
            conflict = "-" if message.conflict_term is None else f"t{message.conflict_term}"
            hint = f"conflict={message.conflict_index}/{conflict}"
            return line + f"append-answer refused prev={message.prev_index} {hint}"
        case TimeoutNow():
            return line + "timeout-now"
