"""What the product imports is declared in pyproject.toml, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "tools", "server", "orchestrator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

USED_WITHOUT_AN_IMPORT = {
    "pytz": "DuckDB asks for it where a column holds timestamps with a time zone",
}
CAUGHT_WHERE_ABSENT = {
    *("tokenizers", "torch", "transformers", "trl", "datasets", "peft", "accelerate", "trackio", "safetensors")
}
"""Imported inside functions that say what to install; they come with the extra `train`."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", each, maxsplit=1)[0].lower().replace("-", "_") for each in requirements}


def imported() -> dict[str, set[Path]]:
    """Top-level modules that the product's files import, anywhere in them, without the standard library."""
    found: dict[str, set[Path]] = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    modules = [each.name for each in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules = [node.module]
                else:
                    continue
                for module in modules:
                    found.setdefault(module.partition(".")[0], set()).add(path)
    return {
        name: paths
        for name, paths in found.items()
        if name not in sys.stdlib_module_names | {"mlintern", "compression"}
    }


def distributions() -> dict[str, set[str]]:
    by_module = metadata.packages_distributions()
    return {module: names(found) for module, found in by_module.items()}


EXTRAS = {
    name
    for extra, requirements in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for name in names(requirements)
}


def test_every_import_of_the_product_is_declared() -> None:
    declared = names(PROJECT["dependencies"]) | EXTRAS | CAUGHT_WHERE_ABSENT
    known = distributions()
    undeclared = {
        module: sorted(str(path.relative_to(ROOT)) for path in paths)
        for module, paths in imported().items()
        if not (known.get(module, {module}) & declared)
    }
    assert undeclared == {}


def test_every_declared_requirement_is_imported() -> None:
    known = distributions()
    used = {name for module in imported() for name in known.get(module, {module})}
    idle = names(PROJECT["dependencies"]) - used - set(USED_WITHOUT_AN_IMPORT)
    assert idle == set()


@pytest.mark.parametrize("extra", ["report", "pdf"])
def test_every_package_of_an_extra_is_imported(extra: str) -> None:
    known = distributions()
    used = {name for module in imported() for name in known.get(module, {module})}
    assert names(PROJECT["optional-dependencies"][extra]) <= used


def test_there_is_one_http_stack_of_our_own() -> None:
    assert not {"httpx", "httpcore", "requests", "aiohttp", "urllib3"} & set(imported())
