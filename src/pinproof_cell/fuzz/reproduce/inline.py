"""The source of a candidate's methods with all that they need of this package, to stand alone.

A reproduction script must call the kernel exactly as it was judged, and must not need Pinproof: so
the few functions that the call goes through are copied out of our modules, without annotations.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_OURS = "pinproof_cell"
#: Values that a line of Python can say.
_PLAIN = (str, int, float, bool, tuple, frozenset, type(None))
#: What a candidate refuses a call with; the call of a failure was taken.
_REFUSING = "pinproof_cell.candidates.refusal"


class Inliner:
    """Collects definitions in the order in which Python needs them."""

    def __init__(self) -> None:
        self.imports: dict[str, None] = {}
        self.definitions: dict[tuple[str, str], str] = {}

    def candidate(self, candidate: Any, methods: tuple[str, ...]) -> str:
        """Return a class ``Candidate`` with `methods` of `candidate`, and what they call."""
        defined = dict(_methods(type(candidate)))
        wanted, bodies, values = [m for m in methods if m in defined], [], {}
        for name in wanted:
            node = self._prepared(*defined[name])
            bodies.append(node)
            for attribute in _attributes_of_self(node):
                if attribute in defined and attribute not in wanted:
                    wanted.append(attribute)
                elif attribute not in defined and isinstance(getattr(candidate, attribute), _PLAIN):
                    values[attribute] = getattr(candidate, attribute)
        fields = [ast.parse(f"{name} = {value!r}").body[0] for name, value in values.items()]
        holder = ast.parse("class Candidate: pass").body[0]
        holder.body = [*fields, *bodies]  # type: ignore[attr-defined]
        return self.text(ast.unparse(ast.fix_missing_locations(holder)))

    def text(self, last: str) -> str:
        """Return all that was collected, and `last` behind it."""
        parts = ["\n".join(self.imports), *self.definitions.values(), last]
        return "\n\n\n".join(part for part in parts if part)

    def definition(self, module: str, name: str) -> str:
        """Return what `module` of ours defines as `name`, and what that needs."""
        self._collect(name, importlib.import_module(module))
        return self.text("")

    def _prepared(self, node: ast.stmt, module: ModuleType) -> ast.stmt:
        """Return a definition without annotations and imports of ours; collect what it names."""
        bare = _Bare(_refusing(module))
        node = bare.visit(node)
        local = {arg.arg for arg in ast.walk(node) if isinstance(arg, ast.arg)}
        for name in _names(node):
            if name in bare.ours:
                self._imported(name, *bare.ours[name])
            elif name not in local:
                self._collect(name, module)
        return node

    def _collect(self, name: str, module: ModuleType) -> None:
        """Collect what the global `name` of `module` stands for, unless it is Python's own."""
        if (module.__name__, name) in self.definitions:
            return
        node = _binding(module, name)
        if isinstance(node, ast.ImportFrom) and _is_ours(node):
            alias = next(one for one in node.names if name in (one.asname, one.name))
            self._imported(name, node, alias)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            alias = next(one for one in node.names if name in (one.asname, one.name.split(".")[0]))
            line = f"import {alias.name}" if isinstance(node, ast.Import) else ""
            line = line or f"from {node.module} import {alias.name}"  # type: ignore[union-attr]
            self.imports[line + (f" as {alias.asname}" if alias.asname else "")] = None
        elif node is not None:
            self.definitions[module.__name__, name] = ""
            text = ast.unparse(self._prepared(node, module))
            # Behind what it needs: its own place in the order is where it was finished.
            del self.definitions[module.__name__, name]
            self.definitions[module.__name__, name] = text

    def _imported(self, name: str, node: ast.ImportFrom, alias: ast.alias) -> None:
        source = importlib.import_module(str(node.module))
        if (alias.asname or alias.name) != alias.name or inspect.ismodule(
            getattr(source, alias.name, source)
        ):
            raise LookupError(f"{name} of {node.module} has another name, or is a module")
        self._collect(alias.name, source)


class _Bare(ast.NodeTransformer):
    """Takes annotations, docstrings and imports of ours away; `ours` are the latter by name.

    Calls of the functions `refusing` go too.
    """

    def __init__(self, refusing: frozenset[str] = frozenset()) -> None:
        self.refusing = refusing
        self.ours: dict[str, tuple[ast.ImportFrom, ast.alias]] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        if not _is_ours(node):
            return node
        self.ours |= {alias.asname or alias.name: (node, alias) for alias in node.names}
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        if ast.get_docstring(node) and len(node.body) > 1:
            node.body = node.body[1:]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        called = node.value.func if isinstance(node.value, ast.Call) else None
        refuses = isinstance(called, ast.Name) and called.id in self.refusing
        return None if refuses else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if ast.get_docstring(node) and len(node.body) > 1:
            node.body = node.body[1:]
        for line in node.body:
            # The fields of a dataclass are known by their annotations, whatever these say.
            if isinstance(line, ast.AnnAssign):
                line.annotation = ast.Name("object")
            else:
                self.visit(line)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)


def _refusing(module: ModuleType) -> frozenset[str]:
    """Return the names under which a module has functions that refuse calls."""
    return frozenset(
        alias.name
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ImportFrom) and node.module == _REFUSING
        for alias in node.names
    )


def _is_ours(node: ast.ImportFrom) -> bool:
    return (node.module or "").split(".")[0] == _OURS


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names that `node` reads, each once."""
    found = (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
    yield from dict.fromkeys(found)


def _attributes_of_self(node: ast.AST) -> list[str]:
    return [
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "self"
    ]


def _methods(kind: type) -> Iterator[tuple[str, tuple[ast.FunctionDef, ModuleType]]]:
    """Yield the methods of a class with the modules that define them, inherited ones first."""
    for owner in reversed(kind.__mro__[:-1]):
        module = sys.modules[owner.__module__]
        for node in getattr(_binding(module, owner.__name__), "body", ()):
            if isinstance(node, ast.FunctionDef):
                yield node.name, (node, module)


def _binding(module: ModuleType, name: str) -> ast.stmt | None:
    """Return the statement of `module` that binds `name`, or None where none does."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.Import | ast.ImportFrom):
            if name in {alias.asname or alias.name.split(".")[0] for alias in node.names}:
                return node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in {target.id for target in targets if isinstance(target, ast.Name)}:
                return node
    return None
