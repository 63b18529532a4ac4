"""Expressions of a module as Python source.

Variables are locals `v_x` (before a step) and `p_x` (after it), constants and definitions globals
`c_x` and `d_x`. A definition becomes a function of its parameters and the variables it depends on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tla.errors import TlaError
from tla.explorer import names as scope
from tla.explorer import values
from tla.explorer.names import Names
from tla.explorer.syntax import (
    Apply,
    Binding,
    Call,
    Choose,
    Definition,
    Except,
    FunctionOf,
    FunctionSet,
    If,
    Junction,
    Let,
    Literal,
    Name,
    Node,
    Prime,
    Quantified,
    RecordOf,
    RecordSet,
    SetFilter,
    SetMap,
    SetOf,
    TupleOf,
)

INFIX = {
    "=": "{} == {}",
    "#": "{} != {}",
    "<": "{} < {}",
    ">": "{} > {}",
    "<=": "{} <= {}",
    ">=": "{} >= {}",
    "+": "{} + {}",
    "-": "{} - {}",
    "*": "{} * {}",
    "%": "{} % {}",
    "\\cup": "{} | {}",
    "\\cap": "{} & {}",
    "\\": "{} - {}",
    "\\subseteq": "{} <= {}",
    "\\o": "{} + {}",
    "..": "frozenset(range({}, {} + 1))",
    "=>": "not {} or {}",
    "<=>": "{} == {}",
}
PREFIX = {
    "~": "not {}",
    "-": "-{}",
    "SUBSET": "subsets({})",
    "UNION": "frozenset().union(*{})",
    "DOMAIN": "domain({})",
    "Cardinality": "len({})",
    "Len": "len({})",
    "Head": "apply({}, 1)",
    "Tail": "{}[1:]",
}
OPERATORS = {
    "Append": "({} + ({},))",
    "SubSeq": "{}[{} - 1:max({}, 0)]",
}


class Env(dict[str, str]):
    """What a bound name of the module is called in Python."""


@dataclass(frozen=True, slots=True)
class Macro:
    """A definition of a LET with parameters."""

    definition: Definition
    env: Env


@dataclass(slots=True)
class Expressions:
    """Compiles expressions; `namespace` are the globals of all code that is made."""

    names: Names
    constants: Mapping[str, Any]
    namespace: dict[str, Any] = field(default_factory=dict)
    macros: dict[str, Macro] = field(default_factory=dict)
    _fresh: count[int] = field(default_factory=count)
    _actions: dict[str, bool] = field(default_factory=dict)
    _variables: dict[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in self.names.constants if name not in self.constants]
        if missing:
            raise TlaError(f"the configuration gives no value to {', '.join(missing)}")
        for public in (
            values.apply, values.updated, values.domain, values.subsets, values.function_set,
            values.record_set, values.choose, values.is_function, values.function_of,
            values.Function,
        ):  # fmt: skip
            self.namespace[public.__name__] = public
        for name, value in self.constants.items():
            self.namespace[f"c_{name}"] = value

    # -- definitions -------------------------------------------------------------------------------

    def fresh(self, name: str) -> str:
        return f"l{next(self._fresh)}_{''.join(c for c in name if c.isalnum())}"

    def is_action(self, node: Node) -> bool:
        return scope.is_action(node, self.names, self._actions)

    def variables_of(self, definition: Definition) -> list[str]:
        found = scope.variables_of(Name(definition.name), self.names, self._variables)
        return [name for name in self.names.variables if name in found]

    def function_for(self, name: str) -> str:
        """The global that computes a definition; made on its first use."""
        symbol = "d_" + name.replace("!", "__")
        if symbol in self.namespace:
            return symbol
        definition = self.names.definitions[name]
        env = Env({p: f"a_{p}" for p in definition.parameters})
        variables = self.variables_of(definition)
        arguments = [*env.values(), *(f"v_{variable}" for variable in variables)]
        body = self.source(definition.body, env)
        made = self.compiled(f"def f({', '.join(arguments)}):\n    return {body}\n", name)
        # A function of arguments only is asked for the same again and again.
        self.namespace[symbol] = made if variables else functools.cache(made)
        return symbol

    def compiled(self, code: str, name: str) -> Callable[..., Any]:
        """The function `f` that `code` defines."""
        scope_: dict[str, Any] = {}
        exec(compile(code, f"<{name}>", "exec"), self.namespace, scope_)
        made: Callable[..., Any] = scope_["f"]
        return made

    # -- expressions -------------------------------------------------------------------------------

    def source(self, node: Node, env: Env, primed: bool = False) -> str:
        """Python source of the value, in parentheses where it needs them."""

        def sub(child: Node) -> str:
            return self.source(child, env, primed)

        match node:
            case Name():
                return self._name(node, env, primed)
            case Literal():
                return repr(node.value)
            case Prime():
                return self.source(node.body, env, True)
            case Apply():
                return self._apply(node, env, primed)
            case TupleOf():
                return f"({''.join(sub(item) + ', ' for item in node.items)})"
            case SetOf():
                return f"frozenset(({''.join(sub(item) + ', ' for item in node.items)}))"
            case RecordOf():
                pairs = ", ".join(f"{name!r}: {sub(value)}" for name, value in node.fields)
                return f"Function({{{pairs}}})"
            case Call(argument=Literal(value=str() as key)):
                return f"{sub(node.function)}[{key!r}]"
            case Call():
                return f"apply({sub(node.function)}, {sub(node.argument)})"
            case If():
                parts = (sub(node.then), sub(node.condition), sub(node.otherwise))
                return "({} if {} else {})".format(*parts)
            case Junction():
                word = " and " if node.symbol == "/\\" else " or "
                return f"({word.join(sub(item) for item in node.items)})"
            case Let():
                return self._let(node, env, primed)
            case Except():
                return self._except(node, env, primed)
            case _:
                return self._binder(node, env, primed)

    def _name(self, node: Name, env: Env, primed: bool) -> str:
        name = node.text
        if name in env:
            return env[name]
        if name in self.names.variables:
            return f"{'p' if primed else 'v'}_{name}"
        if name in self.constants:
            return f"c_{name}"
        if name in self.names.definitions:
            return self._call(name, (), env, primed)
        if name == "BOOLEAN":
            return "frozenset((False, True))"
        raise TlaError(f"{name} is not defined")

    def _call(self, name: str, arguments: tuple[Node, ...], env: Env, primed: bool) -> str:
        definition = self.names.definitions[name]
        if len(arguments) != len(definition.parameters):
            raise TlaError(f"{name} takes {len(definition.parameters)} arguments")
        if self.is_action(Name(name)):
            raise TlaError(f"{name} is an action, used where a value is expected")
        mark = "p" if primed else "v"
        given = [self.source(argument, env, primed) for argument in arguments]
        given += [f"{mark}_{variable}" for variable in self.variables_of(definition)]
        return f"{self.function_for(name)}({', '.join(given)})"

    def _apply(self, node: Apply, env: Env, primed: bool) -> str:
        operator, arguments = node.operator, node.arguments
        if operator in self.macros:
            macro = self.macros[operator]
            inner = Env(macro.env)
            for parameter, argument in zip(macro.definition.parameters, arguments, strict=True):
                inner[parameter] = self.source(argument, env, primed)
            return self.source(macro.definition.body, inner, primed)
        if operator in self.names.definitions:
            return self._call(operator, arguments, env, primed)
        if operator in ("\\in", "\\notin"):
            source = self.member(self.source(arguments[0], env, primed), arguments[1], env, primed)
            return source if operator == "\\in" else f"(not {source})"
        given = [self.source(argument, env, primed) for argument in arguments]
        forms = INFIX if len(given) == 2 else PREFIX
        if operator in forms:
            return f"({forms[operator].format(*given)})"
        if operator in OPERATORS:
            return OPERATORS[operator].format(*given)
        raise TlaError(f"{operator} is not defined")

    def _let(self, node: Let, env: Env, primed: bool) -> str:
        inner = Env(env)
        bound: list[tuple[str, str]] = []
        for definition in node.definitions:
            if definition.parameters:
                self.define_macro(definition, inner)
                continue
            local = self.fresh(definition.name)
            bound.append((local, self.source(definition.body, inner, primed)))
            inner[definition.name] = local
        source = self.source(node.body, inner, primed)
        for local, value in reversed(bound):
            source = f"(lambda {local}: {source})({value})"
        return f"({source})"

    def define_macro(self, definition: Definition, env: Env) -> None:
        """A definition of a LET with parameters: written out wherever it is used."""
        self.macros[definition.name] = Macro(definition, Env(env))

    def _except(self, node: Except, env: Env, primed: bool) -> str:
        source = self.source(node.base, env, primed)
        for path, value in node.updates:
            at = self.fresh("at")
            keys = "".join(self.source(key, env, primed) + ", " for key in path)
            change = self.source(value, Env({**env, "@": at}), primed)
            source = f"updated({source}, ({keys}), lambda {at}: {change})"
        return source

    def domain(self, node: Node, env: Env, primed: bool = False) -> str:
        """Source of something to loop over."""
        if isinstance(node, Apply) and node.operator == "..":
            low, high = (self.source(argument, env, primed) for argument in node.arguments)
            return f"range({low}, {high} + 1)"
        return self.source(node, env, primed)

    def bound(
        self, bindings: Iterable[Binding], env: Env, primed: bool = False
    ) -> tuple[list[tuple[str, str]], Env]:
        """(local, domain) pairs for the loops of bindings, and what is bound inside them."""
        loops, inner = [], Env(env)
        for binding in bindings:
            source = self.domain(binding.domain, env, primed)
            for name in binding.names:
                local = self.fresh(name)
                inner[name] = local
                loops.append((local, source))
        return loops, inner

    def _binder(self, node: Node, env: Env, primed: bool) -> str:
        match node:
            case Quantified():
                loops, inner = self.bound(node.bindings, env, primed)
                word = "all" if node.symbol == "\\A" else "any"
                return f"{word}({self.source(node.body, inner, primed)}{_for(loops)})"
            case SetMap():
                loops, inner = self.bound(node.bindings, env, primed)
                return f"frozenset([{self.source(node.body, inner, primed)}{_for(loops)}])"
            case SetFilter():
                loops, inner = self.bound((Binding((node.name,), node.domain),), env, primed)
                condition = self.source(node.condition, inner, primed)
                return f"frozenset([{loops[0][0]}{_for(loops)} if {condition}])"
            case FunctionOf():
                loops, inner = self.bound(node.bindings, env, primed)
                names = [local for local, _ in loops]
                key = names[0] if len(names) == 1 else f"({', '.join(names)})"
                body = self.source(node.body, inner, primed)
                return f"function_of([({key}, {body}){_for(loops)}])"
            case Choose():
                loops, inner = self.bound((Binding((node.name,), node.domain),), env, primed)
                condition = self.source(node.condition, inner, primed)
                return f"choose({loops[0][1]}, lambda {loops[0][0]}: {condition})"
            case FunctionSet():
                of, to = (self.source(n, env, primed) for n in (node.domain, node.codomain))
                return f"function_set({of}, {to})"
            case RecordSet():
                pairs = ", ".join(f"{k!r}: {self.source(v, env, primed)}" for k, v in node.fields)
                return f"record_set({{{pairs}}})"
        raise TlaError(f"{type(node).__name__} has no place in an expression")

    def member(self, value: str, of: Node, env: Env, primed: bool) -> str:
        """Source of `value \\in of`, without making sets that are large or have no end."""

        def test(codomain: Node) -> str:
            item = self.fresh("item")
            return f"lambda {item}: {self.member(item, codomain, env, primed)}"

        match of:
            case Name(text="Nat"):
                return f"(type({value}) is int and {value} >= 0)"
            case Apply(operator="..", arguments=(low, high)):
                ends = (self.source(low, env, primed), value, self.source(high, env, primed))
                return "({} <= {} <= {})".format(*ends)
            case Apply(operator="SUBSET", arguments=(base,)):
                return f"({value} <= {self.source(base, env, primed)})"
            case Apply(operator="Seq", arguments=(item,)):
                return f"all(map({test(item)}, {value}))"
            case Apply(operator="\\cup", arguments=parts):
                return f"({' or '.join(self.member(value, p, env, primed) for p in parts)})"
            case FunctionSet():
                domain = self.source(of.domain, env, primed)
                return f"is_function({value}, {domain}, {test(of.codomain)})"
            case RecordSet():
                fields = " and ".join(
                    self.member(f"{value}[{name!r}]", part, env, primed) for name, part in of.fields
                )
                names = ", ".join(repr(name) for name, _ in of.fields)
                return f"(set({value}) == {{{names}}} and {fields})"
        if isinstance(of, Name) and of.text in self.names.definitions and of.text not in env:
            definition = self.names.definitions[of.text]
            if not definition.parameters:
                return self.member(value, definition.body, env, primed)
        return f"({value} in {self.source(of, env, primed)})"


def _for(loops: list[tuple[str, str]]) -> str:
    return "".join(f" for {local} in {domain}" for local, domain in loops)
