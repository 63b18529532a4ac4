"""Actions of a module as Python generators of next states.

An action is read from left to right, as TLC does: the first `x' = e` gives x its new value, every
other conjunct is a condition. Disjunctions and \\E are the places where a step has several ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tla.errors import TlaError
from tla.explorer.expressions import Env, Expressions
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
Continue = Callable[[frozenset[str], int, str], None]
"""Emits what comes after: given what is assigned, the depth of the code, and the action's name."""
INDENT = "    "


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
        self._emit(body, Env(), frozenset(variables), 1, name, self._found)
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
        self._emit(Name(name), Env(), frozenset(), 1, "", self._yield)
        self._line(1, "return")
        self._line(1, "yield")
        return self._finish(name)

    def _line(self, depth: int, text: str) -> None:
        self._lines.append(INDENT * depth + text)

    def _yield(self, assigned: frozenset[str], depth: int, label: str) -> None:
        missing = [name for name in self._variables if name not in assigned]
        if missing:
            raise TlaError(f"{label} does not say what becomes of {', '.join(missing)}")
        self.labels.append(label)
        self._line(depth, f"yield {label!r}, {_targets(self._mark, self._variables)}")

    def _found(self, assigned: frozenset[str], depth: int, label: str) -> None:
        self._line(depth, "return True")

    # -- actions -----------------------------------------------------------------------------------

    def _emit(
        self,
        node: Node,
        env: Env,
        assigned: frozenset[str],
        depth: int,
        label: str,
        then: Continue,
    ) -> None:
        match node:
            case Junction(symbol="/\\"):
                self._conjuncts(node.items, env, assigned, depth, label, then)
                return
            case Junction(symbol="\\/") if self._acts(node):
                for item in node.items:
                    self._emit(item, env, assigned, depth, label, then)
                return
            case Quantified(symbol="\\E") if self._acts(node):
                loops, inner = self.expressions.bound(node.bindings, env)
                for local, domain in loops:
                    self._line(depth, f"for {local} in {domain}:")
                    depth += 1
                self._emit(node.body, inner, assigned, depth, label, then)
                return
            case If() if self._acts(node):
                self._line(depth, f"if {self.expressions.source(node.condition, env)}:")
                self._emit(node.then, env, assigned, depth + 1, label, then)
                self._line(depth, "else:")
                self._emit(node.otherwise, env, assigned, depth + 1, label, then)
                return
            case Let() if self._acts(node):
                inner = Env(env)
                for definition in node.definitions:
                    if definition.parameters:
                        self.expressions.define_macro(definition, inner)
                        continue
                    local = self.expressions.fresh(definition.name)
                    value = self.expressions.source(definition.body, inner)
                    self._line(depth, f"{local} = {value}")
                    inner[definition.name] = local
                self._emit(node.body, inner, assigned, depth, label, then)
                return
            case Unchanged():
                self._unchanged(node.body, env, assigned, depth, label, then)
                return
            case Name() | Apply() if self._called(node) is not None:
                self._inline(node, env, assigned, depth, label, then)
                return
            case Temporal(symbol="[A]_v"):
                self._emit(node.parts[0], env, assigned, depth, label, then)
                return
        self._assign_or_test(node, env, assigned, depth, label, then)

    def _acts(self, node: Node) -> bool:
        return self._mark == "v" or self.expressions.is_action(node)

    def _conjuncts(
        self,
        items: tuple[Node, ...],
        env: Env,
        assigned: frozenset[str],
        depth: int,
        label: str,
        then: Continue,
    ) -> None:
        if not items:
            then(assigned, depth, label)
            return

        def rest(assigned: frozenset[str], depth: int, label: str) -> None:
            self._conjuncts(items[1:], env, assigned, depth, label, then)

        self._emit(items[0], env, assigned, depth, label, rest)

    def _called(self, node: Name | Apply) -> str | None:
        """The definition that is an action and is used here, if any."""
        name = node.text if isinstance(node, Name) else node.operator
        if name in self.expressions.names.definitions and self._acts(node):
            return name
        return None

    def _inline(
        self,
        node: Name | Apply,
        env: Env,
        assigned: frozenset[str],
        depth: int,
        label: str,
        then: Continue,
    ) -> None:
        name = self._called(node)
        assert name is not None
        definition = self.expressions.names.definitions[name]
        inner = Env()
        arguments = node.arguments if isinstance(node, Apply) else ()
        for parameter, argument in zip(definition.parameters, arguments, strict=True):
            inner[parameter] = self.expressions.fresh(parameter)
            self._line(depth, f"{inner[parameter]} = {self.expressions.source(argument, env)}")
        if not label and not self._only_chooses(definition.body):
            label = name
        self._emit(definition.body, inner, assigned, depth, label, then)

    def _only_chooses(self, node: Node) -> bool:
        """A disjunction of named actions has no name of its own."""
        if isinstance(node, Quantified):
            return self._only_chooses(node.body)
        if isinstance(node, Junction) and node.symbol == "\\/":
            return all(self._only_chooses(item) for item in node.items)
        return isinstance(node, Name | Apply) and self._called(node) is not None

    def _unchanged(
        self,
        node: Node,
        env: Env,
        assigned: frozenset[str],
        depth: int,
        label: str,
        then: Continue,
    ) -> None:
        if isinstance(node, TupleOf):
            equal = tuple(Unchanged(item) for item in node.items)
            self._conjuncts(equal, env, assigned, depth, label, then)
        elif isinstance(node, Name) and node.text in self.expressions.names.definitions:
            body = self.expressions.names.definitions[node.text].body
            self._unchanged(body, env, assigned, depth, label, then)
        else:
            same = Apply("=", (Prime(node), node))
            self._assign_or_test(same, env, assigned, depth, label, then)

    def _assign_or_test(
        self,
        node: Node,
        env: Env,
        assigned: frozenset[str],
        depth: int,
        label: str,
        then: Continue,
    ) -> None:
        if isinstance(node, Apply) and node.operator in ("=", "\\in"):
            target = self._target(node.arguments[0], env)
            if target is not None and target not in assigned:
                if node.operator == "=":
                    value = self.expressions.source(node.arguments[1], env)
                    self._line(depth, f"{self._mark}_{target} = {value}")
                else:
                    domain = self.expressions.domain(node.arguments[1], env)
                    self._line(depth, f"for {self._mark}_{target} in {domain}:")
                    depth += 1
                then(assigned | {target}, depth, label)
                return
        self._line(depth, f"if {self.expressions.source(node, env)}:")
        then(assigned, depth + 1, label)

    def _target(self, node: Node, env: Env) -> str | None:
        """The variable that `node` names after the step (or at the start), if it is one."""
        inner = node.body if isinstance(node, Prime) else node if self._mark == "v" else None
        if isinstance(inner, Name) and inner.text in self._variables and inner.text not in env:
            return inner.text
        return None


def _targets(mark: str, variables: list[str]) -> str:
    return f"({''.join(f'{mark}_{name}, ' for name in variables)})"
