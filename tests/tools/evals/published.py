"""Repositories on the Hub that hold results, in the ways in which people leave them there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.services.hub import Repo
from tests.tools.evals.results import inspect_header, write_inspect, write_lm_eval, write_own

EVAL_RESULTS = b"""\
- dataset:
    id: Idavidrein/gpqa
    task_id: gpqa_diamond
    revision: 633f5ee
  value: 41.2
  verifyToken: eyJhbGciOi
  date: 2026-10-02
  source:
    url: https://huggingface.co/spaces/org/logs
    name: Eval Logs
    org: org
  notes: no-tools
- dataset: {id: openai/gsm8k, task_id: default}
  value: 0.755
"""
CARD = b"""\
---
license: apache-2.0
model-index:
- name: tiny-sft
  results:
  - task: {type: text-generation, name: Text Generation}
    dataset: {name: AI2 Reasoning Challenge, type: ai2_arc, config: ARC-Challenge, split: test,
              args: {num_few_shot: 25}}
    metrics:
    - {type: acc_norm, value: 64.59, name: normalized accuracy}
    - {type: accuracy, value: 0.61}
    source: {name: Leaderboard, url: "https://huggingface.co/spaces/leaderboard"}
---
# Tiny
"""
STATE = {"log_history": [{"eval_loss": 1.5, "eval_runtime": 1.0, "epoch": 1.0, "step": 10}]}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lighteval() -> bytes:
    general = {"model_name": "org/tiny", "max_samples": None}
    results = {"gsm8k:5": {"extractive_match": 0.5, "extractive_match_stderr": 0.02}}
    return json.dumps({"config_general": general, "results": results}).encode()


def model_with_everything(scratch: Path) -> Repo:
    """A model in whose repository every kind of result lies."""
    write_lm_eval(scratch / "lm", [1.0, 0.0], model="org/tiny")
    write_own(scratch / "own", [1.0, 0.0, 1.0, 1.0], model="org/tiny")
    (scratch / "logs").mkdir()
    write_inspect(scratch / "logs" / "2026-11-23T05-00-00_ifeval.eval", inspect_header())
    files = files_of(scratch) | {
        ".eval_results/scores.yaml": EVAL_RESULTS,
        "README.md": CARD,
        "results_2026-11-23T05-00-00.5.json": lighteval(),
        "all_results.json": json.dumps({"eval_loss": 1.25, "eval_runtime": 2.0}).encode(),
        "checkpoint-5/trainer_state.json": json.dumps(STATE).encode(),
        "checkpoint-10/trainer_state.json": json.dumps(STATE).encode(),
        "config.json": b'{"results": "no"}',
        "model.safetensors": b"\x00" * 64,
    }
    return Repo("org/tiny", "model", files)


def model_with_samples(identifier: str, scores: Sequence[float], scratch: Path) -> Repo:
    """A model that kept ``evaluation.json`` with the score of every item."""
    folder = scratch / identifier
    write_own(folder, scores, model=identifier)
    return Repo(identifier, "model", {f"evals/{name}": data for name, data in files_of(folder).items()})
