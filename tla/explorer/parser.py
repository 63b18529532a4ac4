"""TLA+ tokens to trees: recursive descent, and precedence climbing for the infix operators.

A list of `/\\` or `\\/` ends where a token stands at or left of its bullets; `_limits` holds the
columns of the lists that are open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tla.errors import TlaError
from tla.explorer.lexer import Token, tokens_of
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
    Instance,
    Junction,
    Let,
    Literal,
    Module,
    Name,
    Node,
    Prime,
    Quantified,
    RecordOf,
    RecordSet,
    SetFilter,
    SetMap,
    SetOf,
    Temporal,
    TupleOf,
    Unchanged,
)

# How tightly an infix operator binds; those of one level associate to the left.
INFIX = {
    "~>": 1, "=>": 1, "<=>": 2, "/\\": 3, "\\/": 3,
    "=": 5, "#": 5, "/=": 5, "<": 5, ">": 5, "<=": 5, ">=": 5, "=<": 5,
    "\\in": 5, "\\notin": 5, "\\subseteq": 5,
    "\\cup": 8, "\\cap": 8, "\\": 8, "..": 9, "+": 10, "%": 10, "-": 11, "*": 13, "\\o": 13,
}  # fmt: skip
PREFIX = {"~": 4, "[]": 4, "<>": 4, "SUBSET": 8, "UNION": 8, "DOMAIN": 9, "UNCHANGED": 4, "-": 12}
SAME = {"/=": "#", "=<": "<="}
T = TypeVar("T")
CLOSERS = (")", "]", "}", ">>", ",", "THEN", "ELSE", "IN")
"""What ends a list although it stands to the right of its bullets."""
UNIT_STARTS = ("CONSTANT", "CONSTANTS", "VARIABLE", "VARIABLES", "ASSUME")


def parse_module(text: str, source: str) -> Module:
    """The module in `text`; `source` names it in errors. TlaError where it is not our subset."""
    return _Parser(tokens_of(text, source), source).module()


class _Parser:
    def __init__(self, tokens: list[Token], source: str) -> None:
        self._tokens = tokens
        self._source = source
        self._at = 0
        self._limits: list[int] = []

    # -- tokens ----------------------------------------------------------------------------------

    def _peek(self, ahead: int = 0) -> Token:
        """The next token; an `eof` where the innermost open list ends."""
        token = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        if self._limits and token.column <= self._limits[-1]:
            return Token("eof", "", token.line, token.column)
        return token

    def _next(self) -> Token:
        token = self._peek()
        if token.kind == "eof":
            raise self._error(token, "the expression ends too early")
        self._at += 1
        return token

    def _is(self, text: str, ahead: int = 0) -> bool:
        token = self._peek(ahead)
        return token.text == text and token.kind in ("symbol", "name")

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            found = self._peek()
            raise self._error(found, f"{text!r} expected, found {found.text or 'the end'!r}")

    def _name(self) -> str:
        token = self._next()
        if token.kind != "name":
            raise self._error(token, f"a name expected, found {token.text!r}")
        return token.text

    def _error(self, token: Token, reason: str) -> TlaError:
        return TlaError(f"{self._source}:{token.line}:{token.column}: {reason}")

    def _list(self, item: Callable[[], T], separator: str = ",") -> tuple[T, ...]:
        items = [item()]
        while self._accept(separator):
            items.append(item())
        return tuple(items)

    # -- units -----------------------------------------------------------------------------------

    def module(self) -> Module:
        if self._next().kind != "rule":
            raise self._error(self._tokens[0], "a module begins with ---- MODULE")
        self._expect("MODULE")
        module = Module(self._name())
        self._next()
        if self._accept("EXTENDS"):
            module.extends = self._list(self._name)
        while (token := self._peek()).kind not in ("end", "eof"):
            if token.kind == "rule":
                self._at += 1
            elif token.text in UNIT_STARTS:
                self._declaration(module)
            else:
                self._definition_or_instance(module)
        if self._peek().kind != "end":
            raise self._error(self._peek(), "a module ends with ====")
        return module

    def _declaration(self, module: Module) -> None:
        word = self._next().text
        if word == "ASSUME":
            module.assumptions.append(self.expression())
        elif word.startswith("CONSTANT"):
            module.constants += self._list(self._name)
        else:
            module.variables += self._list(self._name)

    def _definition_or_instance(self, module: Module) -> None:
        if self._is("INSTANCE", 2):
            instance = self._instance()
            module.instances[instance.name] = instance
        else:
            token = self._peek()
            definition = self._definition()
            if definition.name in module.definitions:
                raise self._error(token, f"{definition.name} is defined twice")
            module.definitions[definition.name] = definition

    def _instance(self) -> Instance:
        name = self._name()
        self._expect("==")
        self._expect("INSTANCE")
        module = self._name()
        substitutions = {}
        if self._accept("WITH"):
            for key, node in self._list(self._substitution):
                substitutions[key] = node
        return Instance(name, module, substitutions)

    def _substitution(self) -> tuple[str, Node]:
        name = self._name()
        self._expect("<-")
        return name, self.expression()

    def _definition(self) -> Definition:
        name = self._name()
        parameters: tuple[str, ...] = ()
        if self._accept("("):
            parameters = self._list(self._name)
            self._expect(")")
        self._expect("==")
        return Definition(name, parameters, self.expression())

    # -- expressions -----------------------------------------------------------------------------

    def expression(self, level: int = 0) -> Node:
        left = self._prefixed()
        while True:
            symbol = self._peek().text
            binding = INFIX.get(symbol, -1) if self._peek().kind == "symbol" else -1
            # What follows may be the next definition: `name ==` and `name(` are no operators.
            if binding < level or binding < 0:
                return left
            self._at += 1
            right = self.expression(binding + (symbol not in ("=>",)))
            left = self._infix(SAME.get(symbol, symbol), left, right)

    def _infix(self, symbol: str, left: Node, right: Node) -> Node:
        if symbol in ("/\\", "\\/"):
            items = left.items if isinstance(left, Junction) and left.symbol == symbol else (left,)
            return Junction(symbol, (*items, right))
        if symbol == "~>":
            return Temporal(symbol, (left, right))
        return Apply(symbol, (left, right))

    def _prefixed(self) -> Node:
        token = self._peek()
        if token.text in ("/\\", "\\/") and token.kind == "symbol":
            return self._bullets(token.text, token.column)
        if token.text in PREFIX and token.kind in ("symbol", "name"):
            self._at += 1
            if token.text == "[]" and self._is("["):
                return Temporal("[]", (self._prefixed(),))
            body = self.expression(PREFIX[token.text])
            if token.text in ("[]", "<>"):
                return Temporal(token.text, (body,))
            return Unchanged(body) if token.text == "UNCHANGED" else Apply(token.text, (body,))
        return self._postfixed(self._primary())

    def _bullets(self, symbol: str, column: int) -> Node:
        items = []
        while (token := self._peek()).text == symbol and token.column == column:
            self._at += 1
            self._limits.append(column)
            items.append(self.expression())
            after = self._peek()
            self._limits.pop()
            if after.kind != "eof" and after.text not in CLOSERS:
                raise self._error(after, f"{after.text!r} does not belong here")
        return items[0] if len(items) == 1 else Junction(symbol, tuple(items))

    def _postfixed(self, node: Node) -> Node:
        while True:
            if self._is("["):
                self._at += 1
                arguments = self._list(self.expression)
                self._expect("]")
                node = Call(node, arguments[0] if len(arguments) == 1 else TupleOf(arguments))
            elif self._is("."):
                self._at += 1
                node = Call(node, Literal(self._name()))
            elif self._is("'"):
                self._at += 1
                node = Prime(node)
            else:
                return node

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return Literal(int(token.text))
        if token.kind == "string":
            return Literal(token.text[1:-1])
        if token.kind == "name":
            return self._named(token)
        forms: dict[str, Callable[[], Node]] = {
            "(": self._parenthesized,
            "<<": self._tuple,
            "{": self._set,
            "[": self._bracketed,
            "\\A": lambda: self._quantified("\\A"),
            "\\E": lambda: self._quantified("\\E"),
            "@": lambda: Name("@"),
        }
        if token.text not in forms:
            raise self._error(token, f"no expression begins with {token.text!r}")
        return forms[token.text]()

    def _named(self, token: Token) -> Node:
        match token.text:
            case "TRUE" | "FALSE":
                return Literal(token.text == "TRUE")
            case "IF":
                condition = self.expression()
                self._expect("THEN")
                then = self.expression()
                self._expect("ELSE")
                return If(condition, then, self.expression())
            case "LET":
                definitions = []
                while not self._is("IN"):
                    definitions.append(self._definition())
                self._expect("IN")
                return Let(tuple(definitions), self.expression())
            case "CHOOSE":
                name = self._name()
                self._expect("\\in")
                domain = self.expression(6)
                self._expect(":")
                return Choose(name, domain, self.expression())
        if token.text.startswith(("WF_", "SF_")):
            self._expect("(")
            action = self.expression()
            self._expect(")")
            return Temporal(token.text[:2], (Name(token.text[3:]), action))
        name = token.text
        if self._accept("!"):
            name += "!" + self._name()
        if self._accept("("):
            arguments = self._list(self.expression)
            self._expect(")")
            return Apply(name, arguments)
        return Name(name)

    def _parenthesized(self) -> Node:
        node = self.expression()
        self._expect(")")
        return node

    def _tuple(self) -> Node:
        if self._accept(">>"):
            return TupleOf(())
        items = self._list(self.expression)
        self._expect(">>")
        return TupleOf(items)

    def _binding(self) -> Binding:
        names = self._list(self._name)
        self._expect("\\in")
        return Binding(names, self.expression(6))

    def _quantified(self, symbol: str) -> Node:
        bindings = self._list(self._binding)
        self._expect(":")
        return Quantified(symbol, bindings, self.expression())

    def _set(self) -> Node:
        if self._accept("}"):
            return SetOf(())
        if self._peek().kind == "name" and self._is("\\in", 1):
            binding = self._binding()
            if self._accept(":"):
                condition = self.expression()
                self._expect("}")
                return SetFilter(binding.names[0], binding.domain, condition)
            self._expect(":")
        body = self.expression()
        if self._accept(":"):
            bindings = self._list(self._binding)
            self._expect("}")
            return SetMap(body, bindings)
        items = [body]
        while self._accept(","):
            items.append(self.expression())
        self._expect("}")
        return SetOf(tuple(items))

    def _bracketed(self) -> Node:
        """A function, a record, a set of either, an EXCEPT, or [A]_v."""
        if self._peek().kind == "name" and (self._is("|->", 1) or self._is(":", 1)):
            symbol = self._peek(1).text
            fields = self._list(lambda: self._field(symbol))
            self._expect("]")
            return RecordOf(fields) if symbol == "|->" else RecordSet(fields)
        if self._peek().kind == "name" and (self._is("\\in", 1) or self._is(",", 1)):
            bindings = self._list(self._binding)
            self._expect("|->")
            body = self.expression()
            self._expect("]")
            return FunctionOf(bindings, body)
        node = self.expression()
        if self._accept("->"):
            codomain = self.expression()
            self._expect("]")
            return FunctionSet(node, codomain)
        if self._accept("EXCEPT"):
            updates = self._list(self._update)
            self._expect("]")
            return Except(node, updates)
        self._expect("]")
        subscript = self._name()
        if not subscript.startswith("_"):
            raise self._error(self._peek(), "[A] is followed by its subscript")
        return Temporal("[A]_v", (node, Name(subscript[1:])))

    def _field(self, symbol: str) -> tuple[str, Node]:
        name = self._name()
        self._expect(symbol)
        return name, self.expression()

    def _update(self) -> tuple[tuple[Node, ...], Node]:
        self._expect("!")
        path: list[Node] = []
        while not self._is("="):
            if self._accept("."):
                path.append(Literal(self._name()))
            else:
                self._expect("[")
                path.append(self.expression())
                self._expect("]")
        self._expect("=")
        return tuple(path), self.expression()
