"""TLA+ values in Python, and the operators on them.

Numbers, strings and booleans are themselves, a set is a frozenset, a sequence, like every function
with domain 1..n, is a tuple, any other function, so also a record, is a `Function`. All can be
hashed. Model values are strings with a mark that no string of a module has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, combinations, product
from typing import Any, NoReturn

Value = Any
MODEL_VALUE_MARK = "\N{ZERO WIDTH NON-JOINER}"


class EvaluationError(Exception):
    """An expression has no value: a function outside of its domain, a CHOOSE of nothing."""


class Function(dict[Value, Value]):
    """A function whose domain is not 1..n. Never changed once it is made."""

    __slots__ = ("_hash",)

    def __hash__(self) -> int:  # type: ignore[override]
        try:
            return self._hash
        except AttributeError:
            self._hash: int = hash(frozenset(self.items()))
            return self._hash

    def __setitem__(self, key: Value, value: Value) -> NoReturn:
        raise TypeError("a value is never changed")


def model_value(name: str) -> str:
    return MODEL_VALUE_MARK + name


def function_of(items: Iterable[tuple[Value, Value]]) -> Value:
    """The function with these (argument, value) pairs: a tuple if its domain is 1..n."""
    made = dict(items)
    if not made:
        return ()
    if 1 in made:
        size = len(made)
        if all(place in made for place in range(2, size + 1)):
            return tuple([made[place] for place in range(1, size + 1)])
    return Function(made)


def apply(function: Value, argument: Value) -> Value:
    if type(function) is tuple:
        if type(argument) is int and 0 < argument <= len(function):
            return function[argument - 1]
    elif argument in function:
        return function[argument]
    raise EvaluationError(f"{show(function)} has no value at {show(argument)}")


def updated(function: Value, path: tuple[Value, ...], change: Callable[[Value], Value]) -> Value:
    """[function EXCEPT ![path] = change(@)]"""
    key = path[0]
    old = apply(function, key)
    new = updated(old, path[1:], change) if len(path) > 1 else change(old)
    if type(function) is tuple:
        return (*function[: key - 1], new, *function[key:])
    return Function({**function, key: new})


def domain(function: Value) -> frozenset[Value]:
    if type(function) is tuple:
        return frozenset(range(1, len(function) + 1))
    return frozenset(function)


def subsets(of: frozenset[Value]) -> frozenset[Value]:
    sizes = range(len(of) + 1)
    return frozenset(map(frozenset, chain.from_iterable(combinations(of, n) for n in sizes)))


def function_set(domain_: Iterable[Value], codomain: Iterable[Value]) -> frozenset[Value]:
    keys, values = list(domain_), list(codomain)
    combined: Iterator[tuple[Value, ...]] = product(values, repeat=len(keys))
    return frozenset(function_of(zip(keys, chosen, strict=True)) for chosen in combined)


def record_set(fields: dict[str, Iterable[Value]]) -> frozenset[Value]:
    combined = product(*fields.values())
    return frozenset(Function(zip(fields, chosen, strict=True)) for chosen in combined)


def choose(domain_: Iterable[Value], condition: Callable[[Value], bool]) -> Value:
    """The first in a fixed order. Modules choose only where one value fits: any order will do."""
    for value in sorted(domain_, key=show):
        if condition(value):
            return value
    raise EvaluationError("CHOOSE finds nothing")


def is_function(
    value: Value, domain_: frozenset[Value], is_in_codomain: Callable[[Value], bool]
) -> bool:
    if type(value) is tuple:
        return domain(value) == domain_ and all(map(is_in_codomain, value))
    return (
        isinstance(value, Function)
        and frozenset(value) == domain_
        and all(map(is_in_codomain, value.values()))
    )


def show(value: Value) -> str:
    """As TLC prints it, sets and functions in order."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        if value.startswith(MODEL_VALUE_MARK):
            return value.removeprefix(MODEL_VALUE_MARK)
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"<<{', '.join(map(show, value))}>>"
    if isinstance(value, frozenset):
        return f"{{{', '.join(sorted(map(show, value)))}}}"
    if isinstance(value, Function):
        if all(isinstance(key, str) and not key.startswith(MODEL_VALUE_MARK) for key in value):
            return f"[{', '.join(f'{key} |-> {show(value[key])}' for key in sorted(value))}]"
        pairs = sorted((show(key), show(result)) for key, result in value.items())
        return f"({' @@ '.join(f'{key} :> {result}' for key, result in pairs)})"
    return str(value)
