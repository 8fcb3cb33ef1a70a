"""What an evaluation script prints of its samples, by a function of a rendered script itself."""

from __future__ import annotations

import ast
import base64
import contextlib
import functools
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.telemetry_marks import MARK

RECIPE = {"trainer": "evaluation", "model": "m/m", "dataset": "d/d", "kind": "exact_match"}
FUNCTIONS = ("as_lines", "print_samples", "print_pieces")

CONSTANTS = ("METRICS",)


def source() -> str:
    """The functions that print samples, cut out of a rendered script: the rest of it would import torch."""
    tree = ast.parse(render(parse_recipe(RECIPE)).text)
    tree.body = [node for node in tree.body if _named(node) in (*FUNCTIONS, *CONSTANTS)]
    return ast.unparse(tree)


def _named(node: ast.stmt) -> str | None:
    """The function or constant that a statement of the script makes."""
    if isinstance(node, ast.FunctionDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else None


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """Those functions, in a process that was told by its backend that only the log is kept."""
    os = SimpleNamespace(environ={"MLINTERN_SAMPLES": "log"})
    names = {"Any": Any, "base64": base64, "gzip": gzip, "hashlib": hashlib, "json": json, "os": os}
    exec(compile(source(), "script.py", "exec"), names)
    return {name: names[name] for name in FUNCTIONS}


def printed(samples: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Lines that the script prints, with their ends, and what its evaluation row says of them."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        said = functions()["print_samples"](list(samples))
    return out.getvalue().splitlines(keepends=True), said["samples"]


def file_of(samples: Sequence[dict[str, Any]]) -> bytes:
    """``samples.jsonl`` as the script writes it."""
    content: bytes = functions()["as_lines"](list(samples))
    return content


def evaluation_line(samples: Sequence[dict[str, Any]], said: object, *, model: str = "m", task: str = "t") -> str:
    """The evaluation row that follows the pieces; items scored by ``exact_match``."""
    n = len(samples)
    value = sum(sample["exact_match"] for sample in samples) / n if n else 0.0
    evaluation = {
        "mlintern_evaluation": 1,
        "suite": "mlintern",
        "task": task,
        "model": model,
        "dataset": "d/d",
        "split": "test",
        "rows": [
            {"metric": "exact_match", "filter": "greedy", "value": value, "n": n, "higher_is_better": True}
            | {"stderr": (value * (1 - value) / n) ** 0.5 if n else 0.0}
        ],
        "samples": "samples.jsonl",
    }
    row = {"v": 1, "kind": "evaluation", "time": 1.0, "path": "evaluation.json", "evaluation": evaluation}
    return f"{MARK}{json.dumps({**row, 'samples': said})}\n"


def log_of(samples: Sequence[dict[str, Any]], **details: str) -> str:
    """The log of an evaluation from its first piece to its evaluation row."""
    lines, said = printed(samples)
    return "".join(lines) + evaluation_line(samples, said, **details)


def answers(right: Sequence[bool], *, words: str = "") -> list[dict[str, Any]]:
    """Samples of items ``item-0`` on, each right or wrong."""
    return [
        {"id": f"item-{n}", "exact_match": float(good), "prediction": "A", "greedy": words, "target": "A"}
        for n, good in enumerate(right)
    ]


def kept(folder: Path) -> bytes | None:
    """The samples in a job's folder."""
    path = folder / "output" / "samples.jsonl"
    return path.read_bytes() if path.exists() else None
