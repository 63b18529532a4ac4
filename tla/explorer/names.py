"""One flat name space from a module, what it extends, and what it instantiates.

`I == INSTANCE M WITH v <- e` becomes the definitions of M under the names `I!Op`, with `e` in the
place of `v`: this is how a refinement is checked, by evaluating M's actions on our states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path

from tla.errors import TlaError
from tla.explorer.parser import parse_module
from tla.explorer.syntax import (
    Apply,
    Binding,
    Definition,
    Instance,
    Let,
    Module,
    Name,
    Node,
    Prime,
    Unchanged,
)

STANDARD = frozenset({"Naturals", "Integers", "FiniteSets", "Sequences", "TLC"})


@dataclass(slots=True)
class Names:
    constants: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    assumptions: list[Node] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)


def load(folder: Path, module_name: str) -> Names:
    """All names that module `module_name` sees. TlaError for a file that is missing or wrong."""
    names = Names()
    _extend(folder, module_name, names, set())
    return names


def _read(folder: Path, module_name: str) -> Module:
    path = folder / f"{module_name}.tla"
    if not path.exists():
        raise TlaError(f"{path}: there is no such module")
    module = parse_module(path.read_text(encoding="utf-8"), path.name)
    if module.name != module_name:
        raise TlaError(f"{path}: the module inside is called {module.name}")
    return module


def _extend(folder: Path, module_name: str, names: Names, seen: set[str]) -> None:
    if module_name in STANDARD or module_name in seen:
        return
    seen.add(module_name)
    module = _read(folder, module_name)
    for extended in module.extends:
        _extend(folder, extended, names, seen)
    names.constants += module.constants
    names.variables += module.variables
    names.assumptions += module.assumptions
    for name in module.definitions:
        if name in names.definitions:
            raise TlaError(f"{module_name}.tla: {name} is already defined by a module it extends")
    names.definitions |= module.definitions
    for instance in module.instances.values():
        names.definitions |= _instantiate(folder, instance)


def _instantiate(folder: Path, instance: Instance) -> dict[str, Definition]:
    inner = load(folder, instance.module)
    # A name without a substitution means what it means outside.
    outer: dict[str, Node] = {name: Name(name) for name in (*inner.constants, *inner.variables)}
    outer |= instance.substitutions
    prefix = f"{instance.name}!"

    def rename(node: Node, bound: frozenset[str]) -> Node:
        if isinstance(node, Name) and node.text not in bound:
            if node.text in outer:
                return outer[node.text]
            if node.text in inner.definitions:
                return Name(prefix + node.text)
        if isinstance(node, Apply) and node.operator in inner.definitions:
            return Apply(prefix + node.operator, tuple(rename(a, bound) for a in node.arguments))
        return children_mapped(node, lambda child: rename(child, bound))

    return {
        prefix + definition.name: Definition(
            prefix + definition.name,
            definition.parameters,
            rename(definition.body, frozenset(definition.parameters) | bound_in(definition.body)),
        )
        for definition in inner.definitions.values()
    }


def children_mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    """`node` with `change` applied to the trees right below it."""

    def mapped(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(mapped(item) for item in value)
        if isinstance(value, Binding):
            return replace(value, domain=change(value.domain))
        if isinstance(value, Definition):
            return replace(value, body=change(value.body))
        if is_dataclass(value):
            return change(value)  # type: ignore[arg-type]
        return value

    changes = {slot.name: mapped(getattr(node, slot.name)) for slot in fields(node)}
    return replace(node, **changes)  # type: ignore[arg-type]


def children_of(node: Node) -> list[Node]:
    found: list[Node] = []

    def note(child: Node) -> Node:
        found.append(child)
        return child

    children_mapped(node, note)
    return found


def bound_in(node: Node) -> frozenset[str]:
    """Every name that some quantifier, CHOOSE or LET of the tree introduces."""
    names: set[str] = set()
    if hasattr(node, "bindings"):
        names.update(name for binding in node.bindings for name in binding.names)
    if hasattr(node, "name"):
        names.add(node.name)
    if isinstance(node, Let):
        names.update(definition.name for definition in node.definitions)
        names.update(p for definition in node.definitions for p in definition.parameters)
    return frozenset(names).union(*(bound_in(child) for child in children_of(node)))


def name_of(node: Node) -> str:
    """What a name or an application refers to; "" for anything else."""
    return node.text if isinstance(node, Name) else node.operator if isinstance(node, Apply) else ""


def is_action(node: Node, names: Names, known: dict[str, bool]) -> bool:
    """Whether it speaks of two states: something in it is primed or unchanged, through definitions
    too. `known` keeps the answers about these."""
    if isinstance(node, Prime | Unchanged):
        return True
    name = name_of(node)
    if name in names.definitions:
        if name not in known:
            known[name] = is_action(names.definitions[name].body, names, known)
        if known[name]:
            return True
    return any(is_action(child, names, known) for child in children_of(node))


def variables_of(node: Node, names: Names, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """The variables that the value depends on, through definitions too; `known` as above."""
    found: set[str] = set()
    name = name_of(node)
    if name in names.variables:
        found.add(name)
    elif name in names.definitions:
        if name not in known:
            definition = names.definitions[name]
            inside = variables_of(definition.body, names, known)
            # A module that is extended may call a parameter as we call a variable.
            known[name] = inside - frozenset(definition.parameters)
        found |= known[name]
    for child in children_of(node):
        found |= variables_of(child, names, known)
    return frozenset(found)
