"""What a static check needs to know of a script: its calls, what their arguments are bound to, and its imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlintern.tools.scripts.scopes import Binding, Function, Scope, ScopeReader

UNPARSED = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What `compile` and `ast.parse` raise; the last two for source that is nested without end."""

DEPTH = 12
"""How many names are followed from one to the next."""


def why_unparsed(error: Exception) -> str:
    """What one of `UNPARSED` says about the source, in words."""
    if isinstance(error, MemoryError | RecursionError):
        return "it is nested too deeply"
    return error.msg if isinstance(error, SyntaxError) else str(error)


@dataclass(frozen=True)
class Call:
    """A call in a script.

    Attributes:
        name: dotted; names that were imported stand under the module they come from (``trl.SFTConfig``).
        keywords: keyword -> value; those of a ``**`` dictionary that can be followed are among them.
        opaque: whether a ``*`` or ``**`` could not be read, so that arguments may be missing.
    """

    name: str
    node: ast.Call
    keywords: Mapping[str, ast.expr]
    opaque: bool

    @property
    def line(self) -> int:
        return self.node.lineno

    @property
    def last(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    def argument(self, name: str, position: int | None = None) -> ast.expr | None:
        """The argument ``name``, or the one at ``position`` if it is given without a name."""
        if name in self.keywords:
            return self.keywords[name]
        if position is not None and position < len(self.node.args):
            return self.node.args[position]
        return None


@dataclass(frozen=True)
class Code:
    """A parsed script.

    Attributes:
        constants: top-level name -> the expression it is bound to, if bound once.
        imports: name -> the dotted name that it was imported as.
        functions: name -> definition, of every function that no other one shares its name with.
        grown: names of lists and dictionaries that are changed after they were made.
    """

    text: str
    tree: ast.Module
    constants: Mapping[str, ast.expr] = field(default_factory=dict)
    imports: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    grown: frozenset[str] = frozenset()
    scopes: Mapping[ast.AST, Scope] = field(default_factory=dict, repr=False)
    bindings: Mapping[Scope, Mapping[str, list[Binding]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, text: str, tree: ast.Module) -> Code:
        reader = ScopeReader(tree)
        top = reader.bindings[tree]
        constants = {
            name: found[0].value for name, found in top.items() if len(found) == 1 and found[0].value is not None
        }
        twice = {name for name, nodes in reader.functions.items() if len(nodes) > 1}
        functions = {name: nodes[0] for name, nodes in reader.functions.items() if name not in twice}
        grown = frozenset(name for node in ast.walk(tree) if (name := _grows(node)))
        return cls(text, tree, constants, reader.imports, functions, grown, reader.scopes, reader.bindings)

    # Calls

    def calls(self) -> Iterator[Call]:
        """Every call, in the order of the source.

        A call that passes on ``**extra`` of the function around it is given once for each call of that function in
        the script, with what that one passes.
        """
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            if name := self.dotted(node.func):
                for keywords, opaque in self._keywords(node):
                    yield Call(name, node, keywords, opaque)

    def called(self, node: ast.expr | None) -> Call | None:
        """The call that ``node`` is, or that the name it is was bound to."""
        found = self.follow(node)
        if not isinstance(found, ast.Call) or not (name := self.dotted(found.func)):
            return None
        keywords, opaque = next(self._keywords(found))
        return Call(name, found, keywords, opaque)

    def _keywords(self, node: ast.Call) -> Iterator[tuple[dict[str, ast.expr], bool]]:
        keywords: dict[str, ast.expr] = {}
        opaque = any(isinstance(item, ast.Starred) for item in node.args)
        passed_on = ""
        for keyword in node.keywords:
            if keyword.arg is not None:
                keywords[keyword.arg] = keyword.value
                continue
            if isinstance(keyword.value, ast.Name) and self._is_extra(node, keyword.value.id):
                passed_on = keyword.value.id
                continue
            more, whole = self.dictionary(keyword.value)
            keywords |= more
            opaque = opaque or not whole
        if not passed_on:
            yield keywords, opaque
            return
        for extra, whole in self._extras(node):
            yield {**keywords, **extra}, opaque or not whole

    def _is_extra(self, node: ast.AST, name: str) -> bool:
        scope = self.scopes.get(node)
        return isinstance(scope, Function) and scope.args.kwarg is not None and scope.args.kwarg.arg == name

    def _extras(self, node: ast.Call) -> Iterator[tuple[dict[str, ast.expr], bool]]:
        """What calls of the function around ``node`` pass beyond its own parameters; unknown if nothing calls it."""
        scope = self.scopes.get(node)
        name = getattr(scope, "name", "")
        if not isinstance(scope, Function) or self.functions.get(name) is not scope:
            yield {}, False
            return
        own = {item.arg for item in [*scope.args.args, *scope.args.kwonlyargs, *scope.args.posonlyargs]}
        callers = [
            other
            for other in ast.walk(self.tree)
            if isinstance(other, ast.Call) and isinstance(other.func, ast.Name) and other.func.id == name
        ]
        if not callers or any(self.scopes.get(other) is scope for other in callers):
            yield {}, False
            return
        for other in callers:
            for keywords, opaque in self._keywords(other):
                yield {key: value for key, value in keywords.items() if key not in own}, not opaque

    # Values

    def follow(self, node: ast.expr | None, depth: int = DEPTH) -> ast.expr | None:
        """The expression that ``node`` stands for: a name is replaced by what it is certainly bound to there."""
        while isinstance(node, ast.Name) and depth:
            value = self._bound(node)
            if value is None:
                return node
            node, depth = value, depth - 1
        return node

    def _bound(self, name: ast.Name) -> ast.expr | None:
        scope: Scope | None = self.scopes.get(name)
        inner = True
        while scope is not None:
            found = self.bindings.get(scope, {}).get(name.id)
            if found:
                before = [item for item in found if item.line < name.lineno] if inner else found
                if not before or (not inner and len(before) > 1):
                    return None
                last = before[-1]
                if name.id in self.grown and isinstance(last.value, ast.List | ast.Dict | ast.Set):
                    return None
                return last.value if last.certain and all(item.line <= last.line for item in before) else None
            scope = self.scopes.get(scope) if not isinstance(scope, ast.Module) else None
            inner = False
        return None

    def literal(self, node: ast.expr) -> tuple[bool, Any]:
        """(True, value) of a literal or of a name that is bound to one."""
        found = self.follow(node)
        try:
            return True, ast.literal_eval(found) if found is not None else None
        except (ValueError, TypeError, MemoryError, RecursionError):
            return False, None

    def dictionary(self, node: ast.expr | None, depth: int = DEPTH) -> tuple[dict[str, ast.expr], bool]:
        """The items of a dictionary that is written out, merged or built step by step, and whether that is all."""
        if depth == 0 or node is None:
            return {}, False
        if isinstance(node, ast.Name) and (built := self._built(node)) is not None:
            return built
        node = self.follow(node)
        match node:
            case ast.Dict(keys=keys, values=values):
                items: dict[str, ast.expr] = {}
                whole = True
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        items[key.value] = value
                    elif key is None:
                        more, all_of_it = self.dictionary(value, depth - 1)
                        items, whole = {**items, **more}, whole and all_of_it
                    else:
                        whole = False
                return items, whole
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
                parts = [self.dictionary(item, depth - 1) for item in args]
                items = {key: value for part, _ in parts for key, value in part.items()}
                whole = all(done for _, done in parts)
                for keyword in keywords:
                    if keyword.arg is not None:
                        items[keyword.arg] = keyword.value
                    else:
                        more, done = self.dictionary(keyword.value, depth - 1)
                        items, whole = {**items, **more}, whole and done
                return items, whole
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                one, other = self.dictionary(left, depth - 1), self.dictionary(right, depth - 1)
                return {**one[0], **other[0]}, one[1] and other[1]
        return {}, False

    def _built(self, name: ast.Name) -> tuple[dict[str, ast.expr], bool] | None:
        """A dictionary that is filled by statements beside the one that made it; None if there are none."""
        scope = self.scopes.get(name)
        while scope is not None and name.id not in self.bindings.get(scope, {}):
            scope = self.scopes.get(scope) if not isinstance(scope, ast.Module) else None
        if scope is None:
            return None
        changes = [node for node in ast.walk(scope) if _changes(node, name.id)]
        if not changes or len(self.bindings[scope][name.id]) != 1:
            return None
        items, whole = self.dictionary(self.bindings[scope][name.id][0].value)
        for node in sorted(changes, key=lambda node: getattr(node, "lineno", 0)):
            match node:
                case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=str(key)))], value=value):
                    items[key] = value
                case ast.Call(args=args, keywords=keywords):
                    for keyword in keywords:
                        if keyword.arg is not None:
                            items[keyword.arg] = keyword.value
                    for item in [*args, *(keyword.value for keyword in keywords if keyword.arg is None)]:
                        more, done = self.dictionary(item)
                        items, whole = {**items, **more}, whole and done
                case _:
                    whole = False
        return items, whole

    def function(self, node: ast.expr | None) -> Function | None:
        """The function that ``node`` names or is."""
        found = self.follow(node)
        if isinstance(found, ast.Lambda):
            return found
        return self.functions.get(found.id) if isinstance(found, ast.Name) else None

    def resolved(self, node: ast.Call) -> str | None:
        """The call with its arguments replaced by their values; None unless all are known."""
        parts = [ast.unparse(node.func)]
        for name, argument in [("", item) for item in node.args] + [
            (item.arg or "**", item.value) for item in node.keywords
        ]:
            known, value = self.literal(argument)
            if not known:
                return None
            parts.append(f"{name}={value!r}")
        return "|".join([parts[0], *sorted(parts[1:])])

    # Names

    def dotted(self, node: ast.expr) -> str:
        """The full name of what ``node`` refers to; empty if it is not a name."""
        match node:
            case ast.Name(id=name):
                return self.imports.get(name, name)
            case ast.Attribute(value=value, attr=attr):
                owner = self.dotted(value)
                return f"{owner}.{attr}" if owner else attr
            case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(module))]):
                return module
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]):
                return module
        return ""

    def third_party_imports(self) -> Iterator[tuple[str, int]]:
        """(top-level module, line) of each import of what is not in the standard library, once each.

        Imports that the script can do without (below ``try`` with an ``ImportError``, or for type checkers) are
        left out.
        """
        seen: set[str] = set()
        spared = {id(leaf) for node in ast.walk(self.tree) if _guards(node) for leaf in ast.walk(node)}
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif node.level == 0 and node.module:
                modules = [node.module]
            for module in modules if id(node) not in spared else ():
                root = module.split(".")[0]
                if root not in seen and root not in sys.stdlib_module_names:
                    seen.add(root)
                    yield root, node.lineno


def _changes(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=found))]):
            return found == name
        case ast.Call(func=ast.Attribute(value=ast.Name(id=found), attr="update" | "pop" | "setdefault")):
            return found == name
    return False


def _grows(node: ast.AST) -> str:
    """The name of the list or dictionary that ``node`` changes."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if attr in GROWING:
            return name
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name))]) | ast.AugAssign(target=ast.Name(id=name)):
            return name
    return ""


GROWING = frozenset({"append", "extend", "insert", "update", "pop", "setdefault", "clear", "remove"})


def _guards(node: ast.AST) -> bool:
    match node:
        case ast.Try(handlers=handlers):
            caught = " ".join(ast.unparse(handler.type) if handler.type else "Exception" for handler in handlers)
            return any(word in caught for word in ("ImportError", "ModuleNotFoundError", "Exception"))
        case ast.If(test=test):
            return "TYPE_CHECKING" in ast.unparse(test) or "available" in ast.unparse(test)
    return False
