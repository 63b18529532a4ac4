"""The parts of a TLA+ module that the explorer knows, as plain trees.

Names follow "Specifying Systems" (Lamport, 2002), part IV. A subset: no recursion, no LAMBDA, no
labels, no nested modules; temporal formulas are kept as `Temporal` and left to TLC.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Name:
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a string, TRUE or FALSE."""

    value: int | str | bool


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator applied to arguments; built-in ones go by their symbol, as `\\cup`."""

    operator: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class TupleOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class SetOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """`names \\in domain`."""

    names: tuple[str, ...]
    domain: Node


@dataclass(frozen=True, slots=True)
class SetMap:
    """{body : x \\in S}"""

    body: Node
    bindings: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class SetFilter:
    """{x \\in S : condition}"""

    name: str
    domain: Node
    condition: Node


@dataclass(frozen=True, slots=True)
class FunctionOf:
    """[x \\in S |-> body]"""

    bindings: tuple[Binding, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class FunctionSet:
    """[S -> T]"""

    domain: Node
    codomain: Node


@dataclass(frozen=True, slots=True)
class RecordOf:
    """[a |-> x, b |-> y]"""

    fields: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """[a : S, b : T]"""

    fields: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """f[x]"""

    function: Node
    argument: Node


@dataclass(frozen=True, slots=True)
class Except:
    """[base EXCEPT ![k] = value, ...]; a path has one key per level. `@` is Name("@")."""

    base: Node
    updates: tuple[tuple[tuple[Node, ...], Node], ...]


@dataclass(frozen=True, slots=True)
class Quantified:
    """\\A or \\E over finite domains."""

    symbol: str
    bindings: tuple[Binding, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Choose:
    name: str
    domain: Node
    condition: Node


@dataclass(frozen=True, slots=True)
class If:
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Let:
    definitions: tuple[Definition, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """A conjunction (`/\\`) or disjunction (`\\/`), as a list."""

    symbol: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Prime:
    body: Node


@dataclass(frozen=True, slots=True)
class Unchanged:
    body: Node


@dataclass(frozen=True, slots=True)
class Temporal:
    """A formula about behaviours: `symbol` is [], <>, ~>, WF, SF or [A]_v."""

    symbol: str
    parts: tuple[Node, ...]


Node = (
    Name
    | Literal
    | Apply
    | TupleOf
    | SetOf
    | SetMap
    | SetFilter
    | FunctionOf
    | FunctionSet
    | RecordOf
    | RecordSet
    | Call
    | Except
    | Quantified
    | Choose
    | If
    | Let
    | Junction
    | Prime
    | Unchanged
    | Temporal
)


@dataclass(frozen=True, slots=True)
class Definition:
    """`name(parameters) == body`"""

    name: str
    parameters: tuple[str, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Instance:
    """`name == INSTANCE module WITH a <- x`"""

    name: str
    module: str
    substitutions: dict[str, Node]


@dataclass(slots=True)
class Module:
    """One file. `definitions` keep their order; those of extended modules are not among them."""

    name: str
    extends: tuple[str, ...] = ()
    constants: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    assumptions: list[Node] = field(default_factory=list)
    definitions: dict[str, Definition] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
