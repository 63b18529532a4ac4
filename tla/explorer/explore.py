"""Breadth-first search of all states of a model: the Python twin of TLC's.

The first state that breaks an invariant is found on a shortest path, so its story is as short as
can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tla.errors import TlaError
from tla.explorer import names as scope
from tla.explorer.actions import Actions, State
from tla.explorer.expressions import Env, Expressions
from tla.explorer.syntax import Junction, Name, Node, Temporal
from tla.explorer.values import EvaluationError, show
from tla.model import Config, Step


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


Predicate = Callable[[State], bool]
Relation = Callable[[State, State], bool]


@dataclass(frozen=True, slots=True)
class _Model:
    """A module and its configuration, compiled."""

    variables: tuple[str, ...]
    initial: Callable[[], Iterator[tuple[str, State]]]
    steps: Callable[[State], Iterator[tuple[str, State]]]
    starts: tuple[tuple[str, Predicate], ...]
    """What properties say of initial states."""
    invariants: tuple[tuple[str, Predicate], ...]
    relations: tuple[tuple[str, Relation], ...]
    """What properties say of steps: [][A]_v."""
    unjudged: tuple[str, ...]


def explore(folder: Path, config: Config) -> Found:
    """Look at all states of `config.module` in `folder`. TlaError if it cannot be done."""
    try:
        model = _compiled(folder, config)
        return _search(model)
    except (EvaluationError, KeyError, NameError, TypeError) as error:
        raise TlaError(f"{config.source}: {config.module} cannot be evaluated: {error}") from error


def _compiled(folder: Path, config: Config) -> _Model:
    names = scope.load(folder, config.module)
    expressions = Expressions(names, config.constants)
    actions = Actions(expressions)
    for assumption in names.assumptions:
        code = f"def f():\n    return {expressions.source(assumption, Env())}\n"
        if not expressions.compiled(code, "ASSUME")():
            raise TlaError(f"{config.source}: an ASSUME of {config.module} is false")
    for name in config.invariants:
        if name not in names.definitions:
            raise TlaError(f"{config.source}: {config.module} has no {name}")
    initial, step = _specification(names, config.specification)
    starts: list[tuple[str, Predicate]] = []
    relations: list[tuple[str, Relation]] = []
    unjudged: dict[str, None] = {}
    for name in config.properties:
        for part in _conjuncts(names, name):
            of_steps = _step_of(part)
            if of_steps is not None:
                relations.append((name, actions.is_step(of_steps)))
            elif isinstance(part, Temporal):
                unjudged[name] = None
            else:
                starts.append((name, _predicate(expressions, name, part)))
    return _Model(
        variables=tuple(names.variables),
        initial=actions.initial(initial),
        steps=actions.steps(step),
        starts=tuple(starts),
        invariants=tuple((n, _predicate(expressions, n, Name(n))) for n in config.invariants),
        relations=tuple(relations),
        unjudged=tuple(unjudged),
    )


def _predicate(expressions: Expressions, name: str, node: Node) -> Predicate:
    variables = "".join(f"v_{variable}, " for variable in expressions.names.variables)
    source = expressions.source(node, Env())
    code = f"def f(state):\n    ({variables}) = state\n    return {source}\n"
    return expressions.compiled(code, name)


def _search(model: _Model) -> Found:
    found = Found(0, 0, 0, {}, unjudged=model.unjudged)
    # How each state was first reached: from where, and by which action.
    parents: dict[State, tuple[State | None, str]] = {}
    frontier: list[State] = []
    for label, state in model.initial():
        found.generated += 1
        if state not in parents:
            parents[state] = (None, label)
            frontier.append(state)
            found.broken = _first_broken((*model.invariants, *model.starts), state)
            if found.broken:
                return _ended(found, model, parents, (None, label, state))
    while frontier:
        found.depth += 1
        reached: list[State] = []
        for state in frontier:
            for label, after in model.steps(state):
                found.generated += 1
                found.taken[label] = found.taken.get(label, 0) + 1
                for name, is_step in model.relations:
                    if after != state and not is_step(state, after):
                        found.broken = name
                if after not in parents:
                    parents[after] = (state, label)
                    reached.append(after)
                    found.broken = found.broken or _first_broken(model.invariants, after)
                if found.broken:
                    return _ended(found, model, parents, (state, label, after))
        frontier = reached
    return _ended(found, model, parents, None)


def _ended(
    found: Found,
    model: _Model,
    parents: dict[State, tuple[State | None, str]],
    last: tuple[State | None, str, State] | None,
) -> Found:
    """`found` with its counts and, if something broke, the way to it: `last` is its last step."""
    found.distinct = len(parents)
    steps = []
    while last is not None:
        before, label, state = last
        shown = map(show, state)
        steps.append(Step(label, dict(zip(model.variables, shown, strict=True))))
        last = None if before is None else (*parents[before], before)
    found.steps = tuple(reversed(steps))
    return found


def actions_of(folder: Path, config: Config) -> tuple[str, ...]:
    """The names of all actions that a specification's next-state relation is made of."""
    names = scope.load(folder, config.module)
    _, step = _specification(names, config.specification)
    actions = Actions(Expressions(names, config.constants))
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
        if isinstance(item, Name) and item.text in names.definitions:
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
