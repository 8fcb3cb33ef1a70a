"""Functions that a caller writes for a script: one that maps a dataset row, one that scores completions."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass

from mlintern.tools import python_source
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.script_ast import UNPARSED, why_unparsed


@dataclass(frozen=True)
class Snippet:
    """A checked piece of source.

    Attributes:
        function: the name that the script calls.
        imports: the import statements at its top level, one each, in their canonical form.
        body: the source without those imports, as it was written.
    """

    function: str
    imports: tuple[str, ...]
    body: str


def read_snippet(source: str, *, what: str, parameters: int, prefer: str = "") -> Snippet:
    """Check ``source``: it parses, runs nothing but definitions, and defines the function that the script calls.

    Args:
        source: Python source with one function, or several of which the last, or the one named ``prefer``, counts.
        what: how messages call it, such as ``prepare``.
        parameters: how many positional arguments the script will pass.
        prefer: the name that wins when there are several functions.

    Raises:
        BadInput: it does not parse, has statements that act when the script starts, or the signature is wrong.
    """
    text = textwrap.dedent(source).strip("\n")
    try:
        tree = python_source.parse(text)
    except UNPARSED as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise BadInput(
            f"{what} is not Python: {why_unparsed(error)}{where}.", next_step="Give the source of one function."
        ) from None
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not functions:
        raise BadInput(
            f"{what} defines no function.",
            next_step="Write `def name(...): ...`; a lambda or an expression will not do.",
        )
    for node in tree.body:
        if not _only_defines(node):
            raise BadInput(
                f"Line {node.lineno} of {what} would run when the script starts: {ast.unparse(node):.80}",
                next_step="Keep imports, constants, functions and classes at the top level; the rest goes inside.",
            )
    chosen = next((node for node in functions if node.name == prefer), functions[-1])
    _check_signature(chosen, what=what, parameters=parameters)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return Snippet(chosen.name, tuple(ast.unparse(node) for node in imports), _without(text, imports))


def _only_defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    return isinstance(node, definitions | ast.Assign | ast.AnnAssign)


def _check_signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, what: str, parameters: int) -> None:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    needed = positional - len(arguments.defaults)
    if parameters:
        if needed > parameters or (positional < parameters and arguments.vararg is None):
            raise BadInput(
                f"{what}: {node.name} takes {needed} arguments, it will be called with {parameters}.",
                next_step=f"Write def {node.name}(row): ... that returns the new row as a dictionary.",
            )
    elif arguments.kwarg is None:
        raise BadInput(
            f"{what}: {node.name} has no **kwargs; TRL passes prompts, every column of the dataset and more by name.",
            next_step=f"Write def {node.name}(completions, **kwargs): ... that returns one number a completion.",
        )
    if parameters and isinstance(node, ast.AsyncFunctionDef):
        raise BadInput(f"{what}: {node.name} is async.", next_step="Write a plain def.")


def _without(text: str, imports: list[ast.Import | ast.ImportFrom]) -> str:
    gone = {line for node in imports for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    kept = [line for number, line in enumerate(text.splitlines(), start=1) if number not in gone]
    return "\n".join(kept).strip("\n")
