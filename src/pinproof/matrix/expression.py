"""The one language of conditions: rules, selectors and policies are written in it.

It is Python's syntax and none of Python's reach: comparisons of axes and their facts with
strings and whole numbers, joined by ``and``, ``or`` and ``not``::

    vllm < "0.28" and torch != vllm.torch

It is three-valued, because much is not known of a nightly or a commit: a comparison with
something unknown is itself unknown, and a condition counts only where it is known to be true.
"""

from __future__ import annotations

import ast
import functools
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from packaging.version import Version

from pinproof.errors import ConfigurationError, did_you_mean
from pinproof.matrix import axis
from pinproof.matrix.axis import Kind, Value

#: What a name stands for: a value, a fact, or None where nothing is known.
Operand = Value | Version | str | int | tuple[str, ...] | None

#: Gives the operand for a name and an attribute of it ("" for the name itself).
Look = Callable[[str, str], Operand]

#: The names that an expression may use, each with its attributes: True for those that are lists.
Words = Mapping[str, Mapping[str, bool]]

LONGEST = 2000
DEEPEST = 40
SHOWN = 200

_Test = Callable[[Look], bool | None]
_Term = Callable[[Look], Operand]
_ORDER: dict[type[ast.cmpop], Callable[[Version, Version], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A parsed condition. ``names`` are the axes and other words that it reads."""

    text: str
    names: frozenset[str]
    evaluate: _Test = field(repr=False, compare=False)

    def holds(self, look: Look) -> bool:
        """Return True where the condition is known to be true."""
        return self.evaluate(look) is True


def parse(text: str, words: Words) -> Expression:
    """Parse a condition over `words`.

    Raises ConfigurationError for anything outside the language, an unknown name or attribute
    (with a suggestion), and a literal that its axis cannot have.
    """
    if len(text) > LONGEST:
        raise ConfigurationError(f"an expression of {len(text)} characters is too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on its syntax is not for our users
            tree = ast.parse(" ".join(text.splitlines()).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise ConfigurationError(
            f"{_shown(text)} is not an expression: {reason}",
            remedy="""write a condition such as: torch >= "2.11" and vllm != "none\"""",
        ) from None
    compiler = _Compiler(text=text, words=words)
    test = compiler.test(tree, 0)
    return Expression(text=text, names=frozenset(compiler.names), evaluate=test)


def _shown(text: str) -> str:
    """Quote an expression, the start of it where it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


class _Compiler:
    """Turns the tree into nested functions, so that evaluation does not walk it again."""

    def __init__(self, *, text: str, words: Words) -> None:
        self.text = text
        self.words = words
        self.names: set[str] = set()

    def error(self, what: str, *, remedy: str = "") -> ConfigurationError:
        return ConfigurationError(f"{_shown(self.text)}: {what}", remedy=remedy)

    def test(self, node: ast.expr, depth: int) -> _Test:
        if depth > DEEPEST:
            raise self.error("is nested too deeply")
        if isinstance(node, ast.BoolOp):
            tests = [self.test(value, depth + 1) for value in node.values]
            decisive = isinstance(node.op, ast.Or)
            return lambda look: _join((test(look) for test in tests), decisive)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.test(node.operand, depth + 1)
            return lambda look: None if (known := inner(look)) is None else not known
        if isinstance(node, ast.Compare):
            nodes = [node.left, *node.comparators]
            tests = [
                self.comparison(left, op, right)
                for left, op, right in zip(nodes, node.ops, nodes[1:], strict=False)
            ]
            return lambda look: _join((test(look) for test in tests), False)
        raise self.error(
            f"{ast.unparse(node)[:80]!r} is not a condition",
            remedy="compare something: ==, !=, <, <=, >, >=, in, not in",
        )

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Test:
        ordered = type(op) in _ORDER
        if isinstance(op, (ast.Is, ast.IsNot)):
            raise self.error("write == or != in place of 'is'")
        for one, other in ((left, right), (right, left)):
            self.check_literals(one, other, ordered)
        a, b = self.term(left), self.term(right)
        within = isinstance(op, (ast.In, ast.NotIn))
        if self.plural(left) or self.plural(right) is not within:
            raise self.error("a list goes to the right of 'in', and nowhere else")
        if within:
            wanted = isinstance(op, ast.In)
            return lambda look: _is(_contains(b(look), a(look)), wanted)
        if ordered:
            compare = _ORDER[type(op)]
            return lambda look: _ordered(a(look), b(look), compare)
        wanted = isinstance(op, ast.Eq)
        return lambda look: _is(_equal(a(look), b(look)), wanted)

    def plural(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self.words[_dashed(node.value.id)].get(node.attr, False)
        return isinstance(node, (ast.List, ast.Tuple))

    def check_literals(self, node: ast.expr, other: ast.expr, ordered: bool) -> None:
        """Find a misspelt version now: when it is evaluated it would only never match."""
        items = other.elts if isinstance(other, (ast.List, ast.Tuple)) else [other]
        for item in items:
            if not isinstance(item, ast.Constant) or not isinstance(item.value, str):
                continue
            if ordered and _version(item.value) is None:
                raise self.error(f"{item.value!r} is not a version, so it has no order")
            if isinstance(node, ast.Attribute) and node.attr == "kind":
                kinds = [kind.value for kind in Kind]
                if item.value not in kinds:
                    hint = did_you_mean(item.value, kinds)
                    raise self.error(f"there is no kind {item.value!r}.{hint}")
            elif isinstance(node, ast.Name) and _dashed(node.id) in axis.AXES:
                try:
                    axis.parse(_dashed(node.id), item.value)
                except ConfigurationError as error:
                    raise self.error(error.what, remedy=error.remedy) from None

    def term(self, node: ast.expr) -> _Term:
        if isinstance(node, ast.Constant):
            return self.literal(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            words = tuple(str(self.literal(item)(_nothing)) for item in node.elts)
            return lambda look: words
        path: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.BinOp) and (dashed := _dash(inner)) in self.words:
            raise self.error(f"{dashed} has a dash", remedy=f"write {dashed.replace('-', '_')}")
        if not isinstance(inner, ast.Name):
            raise self.error(f"{ast.unparse(node)[:80]!r} is not a name, a string or a number")
        return self.name(_dashed(inner.id), path)

    def literal(self, node: ast.expr) -> _Term:
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, float):
            raise self.error(f"put {value} between quotes: 3.10 is the number 3.1")
        if type(value) is int or isinstance(value, str):
            return lambda look: value
        raise self.error(f"{ast.unparse(node)[:80]!r} is not a string or a whole number")

    def name(self, name: str, path: list[str]) -> _Term:
        known = [word.replace("-", "_") for word in self.words]
        if name not in self.words:
            hint = did_you_mean(name.replace("-", "_"), known)
            raise self.error(f"unknown name {name!r}.{hint}", remedy=f"names: {', '.join(known)}")
        self.names.add(name)
        part = path.pop() if path and path[-1] in ("major", "minor") else ""
        attribute = path.pop(0) if path else ""
        allowed = self.words[name]
        if path or (attribute and attribute not in allowed):
            hint = did_you_mean(attribute, allowed)
            remedy = f"it has: {', '.join(sorted(allowed))}" if allowed else ""
            raise self.error(f"{name} has no attribute {attribute!r}.{hint}", remedy=remedy)
        if not part:
            return lambda look: look(name, attribute)
        if allowed.get(attribute):
            raise self.error(f"{name}.{attribute} is a list and has no {part}")
        return lambda look: _part(look(name, attribute), part)


def _nothing(name: str, attribute: str) -> Operand:
    return None


def _dash(node: ast.BinOp) -> str:
    """Return what Python reads as a difference, ``flash-attn``, as it was written."""
    return ast.unparse(node).replace(" ", "")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _join(tests: Iterable[bool | None], decisive: bool) -> bool | None:
    """Return `decisive` where one test gives it, None where one is unknown, else its opposite."""
    unknown = False
    for known in tests:
        if known is decisive:
            return decisive
        unknown = unknown or known is None
    return None if unknown else not decisive


def _is(known: bool | None, wanted: bool) -> bool | None:
    return None if known is None else known is wanted


@functools.lru_cache(maxsize=1024)
def _version(operand: Operand) -> Version | None:
    """Return the version that an operand stands for, without its local part."""
    if isinstance(operand, Value):
        return operand.version
    if isinstance(operand, (str, int)):
        try:
            return Version(Version(str(operand)).public)
        except ValueError:
            return None
    return None


def _equal(a: Operand, b: Operand) -> bool | None:
    if a is None or b is None:
        return None
    one, other = _version(a), _version(b)
    if one is not None and other is not None:
        return one == other
    if _text(a) == _text(b):
        return True
    # A range, or what happens to be installed or bundled, may turn out to be that version;
    # "none", a nightly and a commit never are.
    for value, version in ((a, other), (b, one)):
        if isinstance(value, Value) and version is not None:
            open_kinds = (Kind.SPECIFIER, Kind.INSTALLED, Kind.BUNDLED)
            return None if value.kind in open_kinds else False
    return False


def _text(operand: Operand) -> str:
    return operand.text if isinstance(operand, Value) else str(operand)


def _ordered(a: Operand, b: Operand, compare: Callable[[Version, Version], bool]) -> bool | None:
    one, other = _version(a), _version(b)
    return None if one is None or other is None else compare(one, other)


def _contains(items: Operand, item: Operand) -> bool | None:
    if not isinstance(items, tuple):
        return None
    return _join((_equal(item, each) for each in items), True)


def _part(operand: Operand, part: str) -> Operand:
    version = _version(operand)
    if version is None:
        return None
    return version.major if part == "major" else version.minor
