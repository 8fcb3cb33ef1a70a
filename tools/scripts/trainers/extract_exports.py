"""Read what can be imported from the training libraries, and what its calls take, out of their source.

    python -m mlintern.tools.scripts.trainers.extract_exports SITE_PACKAGES > tools/scripts/trainers/exports.json

Nothing is imported: the syntax tree of every file gives the names that its module binds.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("trl", "transformers", "peft", "datasets", "accelerate")
UNREAD = (
    *("transformers/models/", "transformers/testing_utils/", "/tests/", "/test_utils/", "peft/tuners/", "trl/cli/"),
    *("accelerate/commands/", "/dummy_", "transformers/kernels/", "transformers/cli/"),
)
"""Folders and files that are not listed; an import from them is not judged."""

CLOSURE_OF = (
    *("trl", "transformers", "peft", "datasets", "accelerate", "torch", "huggingface_hub", "tokenizers"),
    *("pandas", "scikit-learn", "scipy", "matplotlib", "gguf", "trackio"),
)
"""Distributions of which it is recorded what they bring along."""


class _Library:
    """The modules of one package: dotted name -> syntax tree."""

    def __init__(self, root: Path, package: str) -> None:
        self.package = package
        self.trees: dict[str, ast.Module] = {}
        self.packages: set[str] = set()
        for file in sorted((root / package).rglob("*.py")):
            relative = file.relative_to(root).as_posix()
            name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            if file.name == "__init__.py":
                self.packages.add(name)
            self.trees[name] = ast.parse(file.read_text(encoding="utf-8"))

    def read(self, name: str) -> bool:
        path = f"{name.replace('.', '/')}/"
        return not any(part in path for part in UNREAD)

    def names(self, module: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """What ``module`` binds at its top level, lazily or not, star imports included, and its submodules."""
        if module not in self.trees or module in seen:
            return set()
        found = {
            other.removeprefix(f"{module}.").split(".")[0] for other in self.trees if other.startswith(f"{module}.")
        }
        for node in _top_level(self.trees[module].body):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Import(names=aliases):
                    found |= {(alias.asname or alias.name).split(".")[0] for alias in aliases}
                case ast.ImportFrom(names=aliases):
                    origin = self.absolute(module, node)
                    for alias in aliases:
                        if alias.name == "*":
                            found |= {n for n in self.names(origin, seen | {module}) if not n.startswith("_")}
                        else:
                            found.add(alias.asname or alias.name)
                case ast.Assign(targets=targets):
                    for target in targets:
                        found |= {leaf.id for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(name)
            found |= set(_lazy_names(node))
        return found

    def absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".") if module in self.packages else module.split(".")[:-1]
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *((node.module or "").split(".") if node.module else [])])


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _top_level(getattr(node, part, []))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _top_level(handler.body)


def _lazy_names(node: ast.stmt) -> Iterator[str]:
    """Names that an ``_import_structure`` or ``__all__`` lists."""
    if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or node.value is None:
        return
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if not re.search(r"\b(_import_structure|__all__)\b", " ".join(map(ast.unparse, targets))):
        return
    keys = {id(key) for part in ast.walk(node.value) if isinstance(part, ast.Dict) for key in part.keys}
    for leaf in ast.walk(node.value):
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and id(leaf) not in keys:
            yield leaf.value
        elif isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
            yield leaf.value.split(".")[0]


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> list[str]:
    """Parameter names; ``*`` and ``**`` stand for further ones; positional-only ones are left out."""
    arguments = node.args
    names = [item.arg for item in arguments.args][1 if method else 0 :]
    names += ["*"] if arguments.vararg else []
    names += [item.arg for item in arguments.kwonlyargs]
    return names + (["**"] if arguments.kwarg else [])


def _signatures(library: _Library) -> dict[str, list[str]]:
    """What the public functions and trainer classes of a package take, unless two of one name differ."""
    found: dict[str, list[str] | None] = {}
    for module, tree in sorted(library.trees.items(), key=lambda item: ".experimental." in item[0]):
        for node in tree.body if library.read(module) else ():
            if isinstance(node, _Defined) and not node.name.startswith("_") and (taken := _signature(node)):
                name = node.name
                differs = name in found and found[name] != taken and ".experimental." not in module
                found[name] = None if differs else found.get(name, taken)
    public = library.names(library.package) | {
        name for module in library.packages if ".experimental." in module for name in library.names(module)
    }
    return {name: taken for name, taken in sorted(found.items()) if taken is not None and name in public}


_Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _signature(node: ast.stmt) -> list[str] | None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _parameters(node, method=False) if not node.decorator_list else None
    if isinstance(node, ast.ClassDef) and node.name.endswith("Trainer"):
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return _parameters(item, method=True)
    return None


def _transformers_classes(library: _Library) -> set[str]:
    """The names that the modules of the models export; the package offers all of them at its top."""
    return {
        name
        for module, tree in library.trees.items()
        if module.startswith("transformers.models.")
        for node in tree.body
        for name in _lazy_names(node)
    }


def _brings(root: Path) -> dict[str, list[str]]:
    """Distribution -> everything that is installed along with it, without extras; ``name[extra]`` with one."""
    import importlib.metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted: dict[str, list[Requirement]] = {}
    extras: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions(path=[str(root)]):
        name = canonicalize_name(distribution.metadata["Name"])
        wanted[name] = [Requirement(text) for text in distribution.requires or []]
        extras[name] = distribution.metadata.get_all("Provides-Extra") or []

    def closure(name: str, extra: str, seen: set[str]) -> set[str]:
        for requirement in wanted.get(name, []):
            other = canonicalize_name(requirement.name)
            holds = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if holds and other not in seen:
                seen.add(other)
                closure(other, "", seen)
        return seen

    found: dict[str, list[str]] = {}
    for given in map(canonicalize_name, CLOSURE_OF):
        if given not in wanted:
            continue
        plain = closure(given, "", set())
        found[given] = sorted(plain)
        for extra in extras[given] if given in PACKAGES else []:
            if re.search("dev|test|docs|quality|all", extra):
                continue
            if more := closure(given, extra, {given}) - plain - {given}:
                found[f"{given}[{canonicalize_name(extra)}]"] = sorted(more)
    return found


def exports_of(root: Path, package: str) -> tuple[dict[str, str], dict[str, str]]:
    """Module -> its names, and function or trainer -> its parameters, each joined by spaces."""
    library = _Library(root, package)
    modules = {}
    for name in filter(library.read, sorted(library.trees)):
        names = library.names(name) | (_transformers_classes(library) if name == "transformers" else set())
        modules[name] = " ".join(sorted(names))
    return modules, {name: " ".join(taken) for name, taken in _signatures(library).items()}


def extract(root: Path) -> dict[str, Any]:
    """``modules`` (dotted name -> names), ``signatures`` (package -> name -> parameters), ``brings``."""
    modules: dict[str, str] = {}
    signatures: dict[str, dict[str, str]] = {}
    for package in PACKAGES:
        names, signatures[package] = exports_of(root, package)
        modules |= names
    return {"modules": modules, "signatures": signatures, "brings": _brings(root)}


def main(arguments: list[str]) -> int:
    """Write the exports of the packages in ``arguments[0]`` to standard output."""
    if len(arguments) != 1:
        print("usage: python -m mlintern.tools.scripts.trainers.extract_exports SITE_PACKAGES", file=sys.stderr)
        return 2
    json.dump(extract(Path(arguments[0])), sys.stdout, indent=0, ensure_ascii=False, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
