"""Whether what a script imports from the training libraries exists, and whether its names are defined."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mlintern.tools.scripts.script_ast import Code
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.trainers.exports import knows_module, library_of, names_in, why_missing


def missing_names(code: Code) -> Iterator[Check]:
    """Names that the libraries do not export, imported or written as ``library.name``."""
    for node in ast.walk(code.tree):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                for alias in aliases:
                    if alias.name != "*" and (why := why_missing(module, alias.name)):
                        yield _check(*why, line=node.lineno)
            case ast.Import(names=aliases):
                for alias in aliases:
                    if library_of(alias.name) and not knows_module(alias.name):
                        yield _check(f"There is no module {alias.name}.", "", line=node.lineno)
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if owner in code.imports:
                module = code.imports[owner]
                names = names_in(module)
                dunder = attr.startswith("_")
                if names is not None and not dunder and (why := why_missing(module, attr)):
                    yield _check(*why, line=node.lineno)


def _check(message: str, fix: str, *, line: int) -> Check:
    return Check(rule="missing_name", severity="error", message=message, fix=fix, line=line)


def undefined_names(code: Code) -> Iterator[Check]:
    """Names that are read and bound nowhere (pyflakes); imports that nothing uses are no fault."""
    from pyflakes import messages
    from pyflakes.checker import Checker

    for message in Checker(code.tree, filename="script.py").messages:
        if isinstance(message, messages.UndefinedName | messages.UndefinedLocal):
            name = message.message_args[0]
            yield Check(
                rule="undefined_name",
                severity="error",
                message=f"{name} is read here, but nothing in the script defines it.",
                fix="Define or import it before, or correct its spelling.",
                line=message.lineno,
            )
