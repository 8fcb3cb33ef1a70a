"""Read the configuration classes of TRL, transformers and peft out of their source, without importing them.

    python -m mlintern.tools.scripts.trainers.extract SITE_PACKAGES > tools/scripts/trainers/schemas.json

Importing TRL costs seconds and needs torch; the syntax tree of the same files gives every field's name, type,
default, help and choices in well under a second. `SITE_PACKAGES` is any folder that holds the unpacked packages.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput

SOURCES: Mapping[str, tuple[str, str]] = {
    "TrainingArguments": ("transformers", "transformers/training_args.py"),
    "SFTConfig": ("trl", "trl/trainer/sft_config.py"),
    "DPOConfig": ("trl", "trl/trainer/dpo_config.py"),
    "GRPOConfig": ("trl", "trl/trainer/grpo_config.py"),
    "RLOOConfig": ("trl", "trl/trainer/rloo_config.py"),
    "KTOConfig": ("trl", "trl/trainer/kto_config.py"),
    "RewardConfig": ("trl", "trl/trainer/reward_config.py"),
    "DistillationConfig": ("trl", "trl/trainer/distillation_config.py"),
    "LoraConfig": ("peft", "peft/tuners/lora/config.py"),
    "ORPOConfig": ("trl", "trl/experimental/orpo/orpo_config.py"),
    "CPOConfig": ("trl", "trl/experimental/cpo/cpo_config.py"),
    "OnlineDPOConfig": ("trl", "trl/experimental/online_dpo/online_dpo_config.py"),
    "GKDConfig": ("trl", "trl/experimental/gkd/gkd_config.py"),
    "GOLDConfig": ("trl", "trl/experimental/gold/gold_config.py"),
    "GMPOConfig": ("trl", "trl/experimental/gmpo/gmpo_config.py"),
    "TPOConfig": ("trl", "trl/experimental/tpo/tpo_config.py"),
    "SDFTConfig": ("trl", "trl/experimental/sdft/sdft_config.py"),
    "SDPOConfig": ("trl", "trl/experimental/sdpo/sdpo_config.py"),
    "A2POConfig": ("trl", "trl/experimental/a2po/a2po_config.py"),
}
"""Class -> (distribution, file) of what is extracted."""

BASES: Mapping[str, str] = {
    "_BaseConfig": "trl/trainer/base_config.py",
    "SFTConfig": "trl/trainer/sft_config.py",
    "GRPOConfig": "trl/trainer/grpo_config.py",
    "PeftConfig": "peft/config.py",
    "PeftConfigMixin": "peft/config.py",
}
"""Where a base class lives when it is not in the file of its subclass."""

ENUMS = ("transformers/trainer_utils.py", "transformers/training_args.py", "transformers/debug_utils.py")
SHARED = "TrainingArguments"
"""Fields of this class are stored once; the other classes name it as their base and hold what they add or change."""


@dataclass
class _Package:
    """The parsed files of one site-packages folder, and the string enumerations that defaults refer to."""

    root: Path
    trees: dict[str, ast.Module] = field(default_factory=dict)
    classes: dict[str, dict[str, ast.ClassDef]] = field(default_factory=dict)

    def tree(self, path: str) -> ast.Module:
        if path not in self.trees:
            file = self.root / path
            if not file.is_file():
                raise BadInput(
                    f"{file} does not exist.", next_step="Give the site-packages folder with trl, transformers, peft."
                )
            self.trees[path] = ast.parse(file.read_text(encoding="utf-8"))
        return self.trees[path]

    def class_named(self, name: str, path: str) -> ast.ClassDef | None:
        if path not in self.classes:
            body = self.tree(path).body
            self.classes[path] = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
        return self.classes[path].get(name)

    def enumeration(self, name: str) -> dict[str, str]:
        """Members of the string enumeration ``name`` (member name -> value); empty if there is none."""
        for path in ENUMS:
            node = self.class_named(name, path)
            if node is not None:
                return dict(_string_assignments(node))
        return {}

    def version(self, distribution: str) -> str:
        for folder in self.root.glob(f"{distribution}-*.dist-info"):
            return folder.name.removeprefix(f"{distribution}-").removesuffix(".dist-info")
        raise BadInput(f"{self.root} holds no {distribution}.", next_step=f"pip install {distribution} there.")


def _string_assignments(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                yield name, value


def extract(site_packages: Path) -> dict[str, Any]:
    """All of `SOURCES` as one JSON object: ``versions`` and ``classes`` (distribution, base, fields by name).

    Raises:
        BadInput: a package is missing from the folder, or no longer has the expected classes.
    """
    package = _Package(site_packages)
    classes: dict[str, Any] = {}
    for name, (distribution, path) in SOURCES.items():
        inherits = name != SHARED and distribution == "trl"
        classes[name] = {
            "distribution": distribution,
            "base": SHARED if inherits else None,
            "fields": _fields(package, name, path),
        }
    distributions = sorted({distribution for distribution, _ in SOURCES.values()})
    return {"versions": {name: package.version(name) for name in distributions}, "classes": classes}


def _fields(package: _Package, name: str, path: str) -> dict[str, Any]:
    """Fields of a class and of its bases up to `SHARED`, which has its own entry; a subclass wins."""
    node = package.class_named(name, path)
    if node is None:
        raise BadInput(f"{package.root / path} has no class {name}.", next_step="Update SOURCES for this version.")
    fields: dict[str, Any] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id != SHARED and base.id in BASES:
            fields |= _fields(package, base.id, BASES[base.id])
    documented = _documented(ast.get_docstring(node) or "")
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            entry = _field(package, statement, node)
            if entry is not None:
                text, deprecated = documented.get(statement.target.id, ("", False))
                entry["help"] = entry["help"] or text
                if deprecated:
                    entry["deprecated"] = True
                fields[statement.target.id] = entry
    return fields


def _field(package: _Package, statement: ast.AnnAssign, owner: ast.ClassDef) -> dict[str, Any] | None:
    annotation = ast.unparse(statement.annotation)
    entry: dict[str, Any] = {"type": annotation, "help": ""}
    value = statement.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        if isinstance(init := keywords.get("init"), ast.Constant) and init.value is False:
            return None  # computed by the class, not set by a caller
        if "default_factory" in keywords:
            entry["default"] = _factory(keywords["default_factory"])
        else:
            value = keywords.get("default")
        for key, item in _metadata(keywords.get("metadata")):
            entry[key] = item
    if "default" not in entry and value is not None:
        known, default = _evaluate(package, value, owner)
        entry["default" if known else "default_expression"] = default
    if "choices" not in entry and (choices := _choices(package, statement.annotation)):
        entry["choices"] = choices
    return entry


def _metadata(node: ast.expr | None) -> Iterator[tuple[str, Any]]:
    """``help`` and ``choices`` of a field's metadata dictionary, as far as they are literals."""
    if not isinstance(node, ast.Dict):
        return
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant) and key.value in ("help", "choices"):
            try:
                literal = ast.literal_eval(value)
            except ValueError:
                literal = None
            if isinstance(literal, str):
                yield str(key.value), " ".join(literal.replace("%%", "%").split())
            elif literal is not None:
                yield str(key.value), list(literal)


def _factory(node: ast.expr) -> Any:
    match node:
        case ast.Name(id="list"):
            return []
        case ast.Name(id="dict"):
            return {}
        case ast.Lambda(body=body):
            try:
                return ast.literal_eval(body)
            except ValueError:
                return None
    return None


def _evaluate(package: _Package, node: ast.expr, owner: ast.ClassDef) -> tuple[bool, Any]:
    """(True, value) of a default that is a literal, an enumeration's member or a name bound to one."""
    try:
        return True, ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        members = package.enumeration(node.value.id)
        if node.attr in members:
            return True, members[node.attr]
    if isinstance(node, ast.Name):
        assigned = [
            statement.value.value
            for statement in ast.walk(owner)
            if isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Constant)
            and [ast.unparse(target) for target in statement.targets] == [node.id]
        ]
        if assigned:
            return True, assigned[-1]  # a later one replaces an earlier one on today's torch
    return False, ast.unparse(node)


def _choices(package: _Package, annotation: ast.expr) -> list[Any]:
    """Values that a Literal or a string enumeration in the annotation allows."""
    found: list[Any] = []
    for node in ast.walk(annotation):
        match node:
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=False)):
                continue  # "a name, or False": any name goes
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=items)):
                found += [item.value for item in items if isinstance(item, ast.Constant)]
            case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Constant(value=value)):
                found.append(value)
            case ast.Name(id=name):
                found += package.enumeration(name).values()
    return list(dict.fromkeys(found))


def _documented(docstring: str) -> dict[str, tuple[str, bool]]:
    """Field -> (text, whether it stands under a "Deprecated" heading) of a class docstring in Google style."""
    entries: dict[str, tuple[str, bool]] = {}
    deprecated = False
    name = ""
    for line in docstring.splitlines():
        if line.strip().startswith("> "):
            deprecated = "deprecated" in line.lower()
            name = ""
        elif match := re.match(r"^(?:    )(\w+)(?: \(.*\))?:\s*$", line):
            name = match[1]
            entries[name] = ("", deprecated)
        elif name and line.startswith("     "):
            entries[name] = (f"{entries[name][0]} {line.strip()}".strip(), deprecated)
        elif line.strip():
            name = ""
    return entries


def main(arguments: list[str]) -> int:
    """Write the schemas of the packages in ``arguments[0]`` to standard output."""
    if len(arguments) != 1:
        print("usage: python -m mlintern.tools.scripts.trainers.extract SITE_PACKAGES", file=sys.stderr)
        return 2
    json.dump(extract(Path(arguments[0])), sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
