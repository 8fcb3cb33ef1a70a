"""Which names a script binds in which scope, what it imports and which functions it defines."""

from __future__ import annotations

import ast
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Binding:
    """One place that binds a name. ``value`` None: to something that is not read (a loop, a parameter, a with)."""

    line: int
    value: ast.expr | None
    certain: bool


class ScopeReader(ast.NodeVisitor):
    """Gathers scopes, bindings, imports and functions in one walk."""

    def __init__(self, tree: ast.Module) -> None:
        self.scopes: dict[ast.AST, Scope] = {}
        self.bindings: dict[Scope, dict[str, list[Binding]]] = {tree: {}}
        self.imports: dict[str, str] = {}
        self.functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self._scope: Scope = tree
        self._certain = True
        self.visit(tree)

    def visit(self, node: ast.AST) -> None:
        self.scopes[node] = self._scope
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.If() | ast.While() | ast.Try():
                self._branch(node)
            case _:
                self._assignment(node)

    def _assignment(self, node: ast.AST) -> None:
        match node:
            case ast.ClassDef(name=name, lineno=line):
                self._bind(name, line, None)
                self.generic_visit(node)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._target(target, value)
                self.generic_visit(node)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                self._target(target, value)
                self.generic_visit(node)
            case ast.AugAssign(target=target):
                self._target(target, None)
                self.generic_visit(node)
            case ast.For(target=target) | ast.AsyncFor(target=target) | ast.comprehension(target=target):
                self._target(target, None)
                self._maybe(node)
            case ast.withitem(optional_vars=ast.expr() as target):
                self._target(target, None)
                self.generic_visit(node)
            case _:
                self.generic_visit(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                module = f"{'.' * node.level}{node.module or ''}"
                self.imports[alias.asname or alias.name] = f"{module}.{alias.name}"
            else:
                root = alias.name.split(".")[0]
                self.imports[alias.asname or root] = alias.name if alias.asname else root

    def _branch(self, node: ast.If | ast.While | ast.Try) -> None:
        if isinstance(node, ast.If) and _is_main(node.test):
            self.generic_visit(node)
        else:
            self._maybe(node)

    def _function(self, node: Function) -> None:
        if not isinstance(node, ast.Lambda):
            self._bind(node.name, node.lineno, None)
            self.functions.setdefault(node.name, []).append(node)
            for decorator in node.decorator_list:
                self.visit(decorator)
        outside, certain = self._scope, self._certain
        self._scope, self._certain = node, True
        self.bindings[node] = {}
        arguments = node.args
        for item in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            self._bind(item.arg, node.lineno - 1, None)
        for extra in (arguments.vararg, arguments.kwarg):
            if extra is not None:
                self._bind(extra.arg, node.lineno - 1, None)
        for default in [*arguments.defaults, *(item for item in arguments.kw_defaults if item is not None)]:
            self.visit(default)
        for part in node.body if isinstance(node.body, list) else [node.body]:
            self.visit(part)
        self._scope, self._certain = outside, certain

    def _maybe(self, node: ast.AST) -> None:
        certain, self._certain = self._certain, False
        self.generic_visit(node)
        self._certain = certain

    def _target(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, target.lineno, value)
        elif isinstance(target, ast.Tuple | ast.List):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            same = len(values) == len(target.elts)
            for number, item in enumerate(target.elts):
                self._target(item, values[number] if same else None)
        elif isinstance(target, ast.Starred):
            self._target(target.value, None)

    def _bind(self, name: str, line: int, value: ast.expr | None) -> None:
        self.bindings[self._scope].setdefault(name, []).append(Binding(line, value, self._certain))


def _is_main(test: ast.expr) -> bool:
    return "__name__" in ast.unparse(test)
