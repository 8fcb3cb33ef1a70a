"""Takes from a vLLM wheel the names of arguments and fields that rendered scripts use, by its syntax tree.

python -m tests.services.vllm_signatures vllm-X.Y.Z-....whl > tests/services/vllm_signatures.json
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path

CLASSES = {
    "SamplingParams": "vllm/sampling_params.py",
    "CompletionOutput": "vllm/outputs.py",
    "RequestOutput": "vllm/outputs.py",
    "LoRARequest": "vllm/lora/request.py",
    "Logprob": "vllm/logprobs.py",
    "engine": "vllm/engine/arg_utils.py",
}


def fields(source: str, name: str) -> dict[str, str]:
    """Annotated fields of a class, or the parameters of its constructor where it has none."""
    [node] = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == name]
    found = {
        one.target.id: ast.unparse(one.annotation)
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and not one.target.id.startswith("_")
    }
    return found or parameters(source, name, "__init__")


def parameters(source: str, owner: str, method: str) -> dict[str, str]:
    """Parameters of a method, those of all its overloads."""
    [node] = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == owner]
    found: dict[str, str] = {}
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == method:
            for argument in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs):
                found[argument.arg] = ast.unparse(argument.annotation) if argument.annotation else ""
    return {name: kind for name, kind in found.items() if name != "self"}


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {path: archive.read(path).decode() for path in {*CLASSES.values(), "vllm/entrypoints/llm.py"}}
    llm = texts["vllm/entrypoints/llm.py"]
    found: dict[str, object] = {"version": wheel.name.split("-")[1]}
    found["LLM"] = parameters(llm, "LLM", "__init__")
    found["generate"] = parameters(llm, "LLM", "generate")
    for name, path in CLASSES.items():
        found[name] = fields(texts[path], "EngineArgs" if name == "engine" else name)
    json.dump(found, sys.stdout, indent=1, sort_keys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
