"""Breadth-first search of all states of a model: the Python twin of TLC's.

The first state that breaks an invariant is found on a shortest path, so its story is as short as
can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tla.errors import TlaError
from tla.explorer import names as scope
from tla.explorer.actions import Actions, State
from tla.explorer.expressions import Env, Expressions
from tla.explorer.syntax import Junction, Name, Node, Temporal
from tla.explorer.values import EvaluationError, show
from tla.model import Config, Step

PROGRESS_STATES = 5_000


@dataclass(slots=True)
class Found:
    """What a search found. `broken` names the invariant or property; `steps` lead there."""

    generated: int
    distinct: int
    depth: int
    taken: dict[str, int]
    broken: str = ""
    steps: tuple[Step, ...] = ()
    unjudged: tuple[str, ...] = ()
    """Properties that only TLC can judge: they are about whole behaviours."""


@dataclass(slots=True)
class Explorer:
    """One module with one configuration. TlaError if either cannot be used."""

    folder: Path
    config: Config
    progress: Callable[[int, int], None] = lambda distinct, generated: None
    _parents: dict[State, tuple[State | None, str]] = field(default_factory=dict)

    def run(self) -> Found:
        names = scope.load(self.folder, self.config.module)
        expressions = Expressions(names, self.config.constants)
        actions = Actions(expressions)
        for assumption in names.assumptions:
            code = f"def f():\n    return {expressions.source(assumption, Env())}\n"
            if not expressions.compiled(code, "ASSUME")():
                raise TlaError(f"{self.config.source}: an ASSUME of {self.config.module} is false")
        invariants = [(name, self._invariant(expressions, name)) for name in self.config.invariants]
        relations, starts, unjudged = [], [], []
        for name in self.config.properties:
            parts = _conjuncts(names, name)
            for part in parts:
                step = _step_of(part)
                if step is not None:
                    relations.append((name, actions.is_step(step)))
                elif isinstance(part, Temporal):
                    unjudged.append(name)
                else:
                    starts.append((name, self._predicate(expressions, name, part)))
        initial, step = _specification(names, self.config.specification)
        found = self._search(
            actions.initial(initial), actions.steps(step), invariants, starts, relations
        )
        found.unjudged = tuple(dict.fromkeys(unjudged))
        return found

    def _invariant(self, expressions: Expressions, name: str) -> Callable[[State], bool]:
        if name not in expressions.names.definitions:
            raise TlaError(f"{self.config.source}: {self.config.module} has no {name}")
        return self._predicate(expressions, name, Name(name))

    def _predicate(
        self, expressions: Expressions, name: str, node: Node
    ) -> Callable[[State], bool]:
        variables = "".join(f"v_{variable}, " for variable in expressions.names.variables)
        source = expressions.source(node, Env())
        return expressions.compiled(
            f"def f(state):\n    ({variables}) = state\n    return {source}\n", name
        )

    def _search(  # type: ignore[no-untyped-def]
        self, initial, steps, invariants, starts, relations
    ) -> Found:
        parents = self._parents
        found = Found(0, 0, 0, {})
        frontier: list[State] = []
        for label, state in initial():
            found.generated += 1
            if state not in parents:
                parents[state] = (None, label)
                frontier.append(state)
                found.broken = _first_broken((*invariants, *starts), state)
                if found.broken:
                    return self._end(found, state)
        while frontier:
            found.depth += 1
            reached: list[State] = []
            for state in frontier:
                for label, after in steps(state):
                    found.generated += 1
                    found.taken[label] = found.taken.get(label, 0) + 1
                    if relations and after != state:
                        for name, is_step in relations:
                            if not is_step(state, after):
                                found.broken = name
                    is_new = after not in parents
                    if is_new:
                        parents[after] = (state, label)
                        reached.append(after)
                        if not found.broken:
                            found.broken = _first_broken(invariants, after)
                        if len(parents) % PROGRESS_STATES == 0:
                            self.progress(len(parents), found.generated)
                    if found.broken:
                        if not is_new:
                            parents[after] = (state, label)
                        return self._end(found, after)
            frontier = reached
        return self._end(found, None)

    def _end(self, found: Found, state: State | None) -> Found:
        found.distinct = len(self._parents)
        steps: list[Step] = []
        names = scope.load(self.folder, self.config.module).variables
        seen: set[State] = set()
        while state is not None and state not in seen:
            seen.add(state)
            parent, label = self._parents[state]
            shown = map(show, state)
            steps.append(Step(label, dict(zip(names, shown, strict=True))))
            state = parent
        found.steps = tuple(reversed(steps))
        return found


def actions_of(folder: Path, module: str) -> tuple[str, ...]:
    """The names of all actions that a module's next-state relation is made of."""
    names = scope.load(folder, module)
    specification = next(n for n in ("SpecValues", "Spec") if n in names.definitions)
    _, step = _specification(names, specification)
    actions = Actions(Expressions(names, dict.fromkeys(names.constants, 0)))
    actions.steps(step)
    return tuple(dict.fromkeys(actions.labels))


def _first_broken(predicates: tuple[tuple[str, Callable[[State], bool]], ...], state: State) -> str:
    for name, holds in predicates:
        try:
            if not holds(state):
                return name
        except EvaluationError as error:
            raise TlaError(f"{name} cannot be evaluated: {error}") from error
    return ""


def _conjuncts(names: scope.Names, name: str) -> tuple[Node, ...]:
    """A property as conjuncts, its own definitions opened."""
    if name not in names.definitions:
        raise TlaError(f"there is no property {name}")
    node = names.definitions[name].body
    items = node.items if isinstance(node, Junction) else (node,)
    opened: list[Node] = []
    for item in items:
        if isinstance(item, Name) and isinstance(names.definitions.get(item.text), object):
            inner = names.definitions[item.text].body
            if isinstance(inner, Temporal | Junction) and _is_temporal(inner):
                opened += _conjuncts(names, item.text)
                continue
        opened.append(item)
    return tuple(opened)


def _specification(names: scope.Names, name: str) -> tuple[str, str]:
    """The initial predicate and the next-state action of `Init /\\ [][Next]_v /\\ ...`."""
    parts = _conjuncts(names, name)
    steps = [step for step in map(_step_of, parts) if step is not None]
    if not steps or not isinstance(parts[0], Name):
        raise TlaError(f"{name} is not of the form Init /\\ [][Next]_vars")
    return parts[0].text, steps[0]


def _is_temporal(node: Node) -> bool:
    return isinstance(node, Temporal) or any(_is_temporal(c) for c in scope.children_of(node))


def _step_of(node: Node) -> str | None:
    """The name of A if the formula is [][A]_v."""
    match node:
        case Temporal(symbol="[]", parts=(Temporal(symbol="[A]_v", parts=(Name(text=name), _)),)):
            return name
    return None
