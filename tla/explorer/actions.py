"""Actions of a module as Python generators of next states.

An action is read from left to right, as TLC does: the first `x' = e` gives x its new value, every
other conjunct is a condition. Disjunctions and \\E are the places where a step has several ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tla.errors import TlaError
from tla.explorer.expressions import Env, Expressions
from tla.explorer.names import name_of
from tla.explorer.syntax import (
    Apply,
    If,
    Junction,
    Let,
    Name,
    Node,
    Prime,
    Quantified,
    Temporal,
    TupleOf,
    Unchanged,
)

State = tuple[Any, ...]
INDENT = "    "


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the code the next conjunct goes, and what is settled there."""

    depth: int
    env: Env = field(default_factory=Env)
    """The bound names in sight."""
    assigned: frozenset[str] = frozenset()
    """Variables that have their new value."""
    label: str = ""
    """The action's name, once it is known."""

    def deeper(self) -> _Place:
        return replace(self, depth=self.depth + 1)


Continue = Callable[[_Place], None]
"""Emits what comes after."""


@dataclass(slots=True)
class Actions:
    """Compiles predicates that assign: the initial one, and steps."""

    expressions: Expressions
    labels: list[str] = field(default_factory=list)
    """The actions of all generators that were made."""
    _lines: list[str] = field(default_factory=list)
    _mark: str = "p"

    def initial(self, name: str) -> Callable[[], Iterator[tuple[str, State]]]:
        """A generator of the states that predicate `name` allows."""
        return self._generator(name, "v", ())

    def steps(self, name: str) -> Callable[[State], Iterator[tuple[str, State]]]:
        """A generator of (action, state) for what action `name` may do in a state."""
        return self._generator(name, "p", ("state",))

    def is_step(self, name: str) -> Callable[[State, State], bool]:
        """Whether going from one state to another is a step of action `name`."""
        variables = self._variables
        self._start(("state", "after"), "p")
        self._line(1, f"{_targets('p', variables)} = after")
        body = self.expressions.names.definitions[name].body
        self._emit(body, _Place(1, assigned=frozenset(variables), label=name), self._found)
        self._line(1, "return False")
        return self._finish(name)

    # -- frame -------------------------------------------------------------------------------------

    @property
    def _variables(self) -> list[str]:
        return self.expressions.names.variables

    def _start(self, arguments: tuple[str, ...], mark: str) -> None:
        self._mark = mark
        self._lines = [f"def f({', '.join(arguments)}):"]
        if arguments:
            self._line(1, f"{_targets('v', self._variables)} = state")

    def _finish(self, name: str) -> Callable[..., Any]:
        return self.expressions.compiled("\n".join(self._lines) + "\n", name)

    def _generator(
        self, name: str, mark: str, arguments: tuple[str, ...]
    ) -> Callable[..., Iterator[tuple[str, State]]]:
        if name not in self.expressions.names.definitions:
            raise TlaError(f"{name} is not defined")
        self._start(arguments, mark)
        self._emit(Name(name), _Place(1), self._yield)
        self._line(1, "return")
        self._line(1, "yield")
        return self._finish(name)

    def _line(self, depth: int, text: str) -> None:
        self._lines.append(INDENT * depth + text)

    def _yield(self, at: _Place) -> None:
        missing = [name for name in self._variables if name not in at.assigned]
        if missing:
            raise TlaError(f"{at.label} does not say what becomes of {', '.join(missing)}")
        self.labels.append(at.label)
        self._line(at.depth, f"yield {at.label!r}, {_targets(self._mark, self._variables)}")

    def _found(self, at: _Place) -> None:
        self._line(at.depth, "return True")

    # -- actions -----------------------------------------------------------------------------------

    def _emit(self, node: Node, at: _Place, then: Continue) -> None:
        """Code for `node` at a place; `then` emits, at each way out of it, what follows."""
        match node:
            case Junction(symbol="/\\"):
                self._conjuncts(node.items, at, then)
            case Junction(symbol="\\/") if self._acts(node):
                for item in node.items:
                    self._emit(item, at, then)
            case Quantified(symbol="\\E") if self._acts(node):
                loops, inner = self.expressions.bound(node.bindings, at.env)
                for local, domain in loops:
                    self._line(at.depth, f"for {local} in {domain}:")
                    at = at.deeper()
                self._emit(node.body, replace(at, env=inner), then)
            case If() if self._acts(node):
                self._line(at.depth, f"if {self.expressions.source(node.condition, at.env)}:")
                self._emit(node.then, at.deeper(), then)
                self._line(at.depth, "else:")
                self._emit(node.otherwise, at.deeper(), then)
            case Let() if self._acts(node):
                self._let(node, at, then)
            case Unchanged():
                self._unchanged(node.body, at, then)
            case Name() | Apply() if self._called(node) is not None:
                self._inline(node, at, then)
            case Temporal(symbol="[A]_v"):
                self._emit(node.parts[0], at, then)
            case _:
                self._assign_or_test(node, at, then)

    def _acts(self, node: Node) -> bool:
        return self._mark == "v" or self.expressions.is_action(node)

    def _conjuncts(self, items: tuple[Node, ...], at: _Place, then: Continue) -> None:
        if not items:
            then(at)
            return
        # What a conjunct binds is its own: the next one sees the names that this one saw.
        self._emit(
            items[0],
            at,
            lambda after: self._conjuncts(items[1:], replace(after, env=at.env), then),
        )

    def _let(self, node: Let, at: _Place, then: Continue) -> None:
        inner = Env(at.env)
        for definition in node.definitions:
            if definition.parameters:
                self.expressions.define_macro(definition, inner)
                continue
            local = self.expressions.fresh(definition.name)
            value = self.expressions.source(definition.body, inner)
            self._line(at.depth, f"{local} = {value}")
            inner[definition.name] = local
        self._emit(node.body, replace(at, env=inner), then)

    def _called(self, node: Name | Apply) -> str | None:
        """The definition that is an action and is used here, if any."""
        name = name_of(node)
        if name in self.expressions.names.definitions and self._acts(node):
            return name
        return None

    def _inline(self, node: Name | Apply, at: _Place, then: Continue) -> None:
        name = self._called(node)
        assert name is not None
        definition = self.expressions.names.definitions[name]
        inner = Env()
        arguments = node.arguments if isinstance(node, Apply) else ()
        for parameter, argument in zip(definition.parameters, arguments, strict=True):
            inner[parameter] = self.expressions.fresh(parameter)
            self._line(
                at.depth, f"{inner[parameter]} = {self.expressions.source(argument, at.env)}"
            )
        label = at.label or ("" if self._only_chooses(definition.body) else name)
        self._emit(definition.body, replace(at, env=inner, label=label), then)

    def _only_chooses(self, node: Node) -> bool:
        """A disjunction of named actions has no name of its own."""
        if isinstance(node, Quantified):
            return self._only_chooses(node.body)
        if isinstance(node, Junction) and node.symbol == "\\/":
            return all(self._only_chooses(item) for item in node.items)
        return isinstance(node, Name | Apply) and self._called(node) is not None

    def _unchanged(self, node: Node, at: _Place, then: Continue) -> None:
        if isinstance(node, TupleOf):
            self._conjuncts(tuple(Unchanged(item) for item in node.items), at, then)
        elif isinstance(node, Name) and node.text in self.expressions.names.definitions:
            self._unchanged(self.expressions.names.definitions[node.text].body, at, then)
        else:
            self._assign_or_test(Apply("=", (Prime(node), node)), at, then)

    def _assign_or_test(self, node: Node, at: _Place, then: Continue) -> None:
        if isinstance(node, Apply) and node.operator in ("=", "\\in"):
            target = self._target(node.arguments[0], at.env)
            if target is not None and target not in at.assigned:
                settled = replace(at, assigned=at.assigned | {target})
                if node.operator == "=":
                    value = self.expressions.source(node.arguments[1], at.env)
                    self._line(at.depth, f"{self._mark}_{target} = {value}")
                    then(settled)
                else:
                    domain = self.expressions.domain(node.arguments[1], at.env)
                    self._line(at.depth, f"for {self._mark}_{target} in {domain}:")
                    then(settled.deeper())
                return
        self._line(at.depth, f"if {self.expressions.source(node, at.env)}:")
        then(at.deeper())

    def _target(self, node: Node, env: Env) -> str | None:
        """The variable that `node` names after the step (or at the start), if it is one."""
        inner = node.body if isinstance(node, Prime) else node if self._mark == "v" else None
        if isinstance(inner, Name) and inner.text in self._variables and inner.text not in env:
            return inner.text
        return None


def _targets(mark: str, variables: list[str]) -> str:
    return f"({''.join(f'{mark}_{name}, ' for name in variables)})"
