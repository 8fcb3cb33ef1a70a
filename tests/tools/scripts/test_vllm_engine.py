"""The calls that a rendered script makes into vLLM, against the signatures of the release that it pins.

There is no GPU where tests run; the signatures were taken from the wheel by its syntax tree (`vllm_signatures.json`,
written by `python -m tests.services.vllm_signatures WHEEL`).
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.scripts.evaluation_program import VLLM
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render

SIGNATURES: dict[str, Any] = json.loads((Path(__file__).parents[2] / "services" / "vllm_signatures.json").read_text())
RECIPES: dict[str, dict[str, Any]] = {
    "multiple choice": {"trainer": "evaluation", "dataset": "a/b"},
    "written": {"trainer": "evaluation", "dataset": "a/b", "scorer": "numeric", "samples": 4, "temperature": 0.7},
    "generate": {"trainer": "generate", "prompts": "a/b", "verifier": "exact"},
}


def calls(text: str) -> list[tuple[str, list[str]]]:
    """Name and keyword arguments of every call of what vLLM has."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in ("LLM", "SamplingParams", "LoRARequest") or (name, owner) == ("generate", "llm"):
                found.append((name, [keyword.arg for keyword in node.keywords if keyword.arg]))
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_every_argument_that_is_given_to_vllm_exists(name: str) -> None:
    text = render(parse_recipe({"model": "org/model", "engine": "vllm", **RECIPES[name]})).text
    made = calls(text)
    assert {"LLM", "SamplingParams", "LoRARequest", "generate"} <= {call for call, _ in made}
    for call, given in made:
        known = SIGNATURES["engine"] | SIGNATURES[call] if call == "LLM" else SIGNATURES[call]
        assert set(given) <= known.keys(), call


def test_what_is_read_of_an_answer_exists() -> None:
    assert {"text", "token_ids", "finish_reason"} <= SIGNATURES["CompletionOutput"].keys()
    assert {"prompt_logprobs", "outputs"} <= SIGNATURES["RequestOutput"].keys()
    assert "logprob" in SIGNATURES["Logprob"]


def test_the_signatures_are_those_of_the_pinned_release() -> None:
    assert VLLM[0] == f"vllm=={SIGNATURES['version']}"
