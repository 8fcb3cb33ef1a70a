"""What a static check needs to know of a script: its calls, the constants they name, and its imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

UNPARSED = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What `compile` and `ast.parse` raise; the last two for source that is nested without end."""


def why_unparsed(error: Exception) -> str:
    """What one of `UNPARSED` says about the source, in words."""
    if isinstance(error, MemoryError | RecursionError):
        return "it is nested too deeply"
    return error.msg if isinstance(error, SyntaxError) else str(error)


@dataclass(frozen=True)
class Call:
    """A call in a script.

    Attributes:
        name: dotted, with import aliases resolved to the names they were imported by.
        keywords: keyword -> value; those of a ``**NAME`` that is a literal dictionary are among them.
        opaque: whether a ``**`` could not be read, so that `keywords` may be incomplete.
    """

    name: str
    node: ast.Call
    keywords: Mapping[str, ast.expr]
    opaque: bool

    @property
    def line(self) -> int:
        return self.node.lineno


@dataclass(frozen=True)
class Code:
    """A parsed script. ``constants``: top-level name -> the expression it is bound to, if bound once."""

    text: str
    tree: ast.Module
    constants: Mapping[str, ast.expr] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str, tree: ast.Module) -> Code:
        bound: dict[str, list[ast.expr]] = {}
        aliases: dict[str, str] = {}
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(names=names) | ast.Import(names=names):
                    aliases |= {alias.asname: alias.name for alias in names if alias.asname}
        for statement in tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    bound.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    bound.setdefault(name, []).append(value)
        constants = {name: values[0] for name, values in bound.items() if len(values) == 1}
        return cls(text, tree, constants, aliases)

    def calls(self) -> Iterator[Call]:
        """Every call, in the order of the source."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            name = self._dotted(node.func)
            if name:
                keywords, opaque = self._keywords(node)
                yield Call(name, node, keywords, opaque)

    def literal(self, node: ast.expr) -> tuple[bool, Any]:
        """(True, value) of a literal or of a top-level constant that is one."""
        if isinstance(node, ast.Name):
            if node.id not in self.constants:
                return False, None
            node = self.constants[node.id]
        try:
            return True, ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            return False, None

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

    def third_party_imports(self) -> Iterator[tuple[str, int]]:
        """(top-level module, line) of each import of what is not in the standard library, once each."""
        seen: set[str] = set()
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif node.level == 0 and node.module:
                modules = [node.module]
            for module in modules:
                root = module.split(".")[0]
                if root not in seen and root not in sys.stdlib_module_names:
                    seen.add(root)
                    yield root, node.lineno

    def _keywords(self, node: ast.Call) -> tuple[dict[str, ast.expr], bool]:
        keywords: dict[str, ast.expr] = {}
        opaque = False
        for keyword in node.keywords:
            if keyword.arg is not None:
                keywords[keyword.arg] = keyword.value
                continue
            value: ast.expr | None = keyword.value
            if isinstance(value, ast.Name):
                value = self.constants.get(value.id)
            if not isinstance(value, ast.Dict):
                opaque = True
                continue
            for key, item in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    keywords[key.value] = item
                else:
                    opaque = True
        return keywords, opaque

    def _dotted(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self._dotted(node.value)
            return f"{owner}.{node.attr}" if owner else node.attr
        return ""
