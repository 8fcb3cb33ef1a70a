"""Writes the script of a recipe: one file that says all it does, and needs only what its header names.

A recipe is read once, into a `Program` (one module for each kind of recipe, listed in `program_of`); its template is
filled once; then the constants and imports that the code uses are put at its top.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlintern.tools import python_source
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.evaluation_program import evaluation_program
from mlintern.tools.scripts.generate_program import generate_program
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.harness_program import harness_program
from mlintern.tools.scripts.header import TESTED, write_header
from mlintern.tools.scripts.imports import import_block, names_used
from mlintern.tools.scripts.literals import assignment
from mlintern.tools.scripts.program import Program
from mlintern.tools.scripts.recipe import AnyRecipe, EvaluationRecipe
from mlintern.tools.scripts.training_program import training_program

if TYPE_CHECKING:
    from jinja2 import Environment

PYTHON = ">=3.11"
PLACES = {name: f"\0{name}\0" for name in ("imports", "constants")}
"""What stands in the filled template where the imports and constants go: no source can hold a NUL character."""


@dataclass(frozen=True)
class Rendered:
    """A script's text and what its header requires."""

    text: str
    requirements: tuple[str, ...]


def program_of(recipe: AnyRecipe) -> Program:
    """The recipe, read."""
    if isinstance(recipe, EvaluationRecipe):
        return harness_program(recipe) if recipe.by_harness else evaluation_program(recipe)
    if isinstance(recipe, GenerateRecipe):
        return generate_program(recipe)
    return training_program(recipe)


def render(recipe: AnyRecipe) -> Rendered:
    """The script of ``recipe``. The same recipe always gives the same text.

    Raises:
        BadInput: a snippet defines a name that the script itself uses.
    """
    program = program_of(recipe)
    requirements = [f"{name}=={TESTED[name]}" for name in sorted(program.base | program.packages)]
    requirements = sorted([*_fitting(requirements, program.requirements), *program.requirements])
    context = {
        **program.switches,
        **PLACES,
        "header": write_header(python=PYTHON, requirements=requirements),
        "snippets": "\n\n\n".join(snippet.body for snippet in program.snippets),
        "rewards": program.rewards,
    }
    page = _environment().get_template(program.template).render(context)
    used = names_used(_filled(page, imports="", constants=""))
    constants = {name: value for name, value in program.constants.items() if name in used}
    block = _constant_block(constants)
    imports = [statement for snippet in program.snippets for statement in snippet.imports]
    text = _filled(page, imports=import_block(used | names_used(block), imports), constants=block)
    _refuse_collisions(text)
    return Rendered(text, tuple(requirements))


def _filled(page: str, *, imports: str, constants: str) -> str:
    return page.replace(PLACES["imports"], imports).replace(PLACES["constants"], constants)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("mlintern.tools.scripts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it writes Python; values come in as literals made by `literals`
    )


def _constant_block(constants: Mapping[str, Any]) -> str:
    blocks: list[str] = []
    for name, value in constants.items():
        large = isinstance(value, dict) and bool(value)
        text = assignment(name, value, open_up=large)
        blocks.append(f"\n{text}\n" if large and name == "HYPERPARAMETERS" else text)
    return "\n".join(blocks).strip("\n")


def _refuse_collisions(text: str) -> None:
    """Refuse a snippet that binds a name which the script binds too: the later one would win in silence."""
    bound: set[str] = set()
    for node in python_source.parse(text).body:
        for name in _bound(node):
            if name in bound:
                raise BadInput(
                    f"Two parts of the script are called {name}.",
                    next_step=f"Rename {name} in your snippet; the script or another snippet uses that name.",
                )
            bound.add(name)


def _bound(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.split(".")[0] for alias in aliases]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def recipe_json(recipe: AnyRecipe) -> str:
    """The recipe as canonical JSON, for the ledger; the seed always stands in it."""
    given = recipe.model_dump(mode="json", exclude_defaults=True)
    return json.dumps({**given, "seed": recipe.seed}, sort_keys=True)


VLLM_TRANSFORMERS = "transformers>=5.10.4,<5.18.0"
"""What vLLM 0.31.0 asks for (metadata of its wheel): newer versions cannot be installed beside it."""


def _fitting(pinned: list[str], further: Iterable[str]) -> list[str]:
    """The pinned versions, those of transformers as wide as vLLM needs them where it is required too."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if not any(canonicalize_name(Requirement(one).name) == "vllm" for one in further):
        return pinned
    return [VLLM_TRANSFORMERS if one.startswith("transformers==") else one for one in pinned]
