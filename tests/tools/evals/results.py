"""Result files in the shapes that the harnesses write, small enough to read in a test."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import Ledger


def row(**changes: Any) -> EvalRow:
    """A row with an accuracy of 0.5 on 100 items."""
    fields: dict[str, Any] = {
        "suite": "mlintern",
        "task": "maxnum",
        "task_raw": "maxnum",
        "metric": "accuracy",
        "value": 0.5,
        "stderr": 0.05,
        "n": 100,
        "higher_is_better": True,
        "source": "/nowhere/evaluation.json",
        "sha256": "0" * 64,
    }
    return EvalRow.model_validate(fields | changes)


def write_own(
    folder: Path, scores: Sequence[float], *, model: str = "base", task: str = "maxnum", **changes: Any
) -> Path:
    """``evaluation.json`` and ``samples.jsonl`` of mlintern's own evaluation script; item i scored ``scores[i]``."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(scores)
    value = sum(scores) / n
    document = {
        "mlintern_evaluation": 1,
        "suite": "mlintern",
        "task": task,
        "model": model,
        "dataset": "data/heldout.jsonl",
        "split": "train",
        "fewshot": 0,
        "seed": 0,
        "date": "2026-11-23T05:00:00Z",
        "rows": [
            {
                "metric": "accuracy",
                "filter": "likelihood",
                "value": value,
                "stderr": (value * (1 - value) / n) ** 0.5,
                "n": n,
                "higher_is_better": True,
            }
        ],
        "samples": "samples.jsonl",
    } | changes
    (folder / "samples.jsonl").write_text(
        "".join(json.dumps({"id": f"item-{i}", "accuracy": score}) + "\n" for i, score in enumerate(scores))
    )
    path = folder / "evaluation.json"
    path.write_text(json.dumps(document))
    return path


def write_lm_eval(folder: Path, scores: Sequence[float], *, model: str = "org/base", fewshot: int = 5) -> Path:
    """What lm-eval 0.4.13 writes for a task with two filters and a group without a score, with ``--log_samples``."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(scores)
    value = sum(scores) / n
    document = {
        "results": {
            "gsm8k": {
                "name": "gsm8k",
                "alias": "gsm8k",
                "sample_len": n,
                "exact_match,strict-match": value,
                "exact_match_stderr,strict-match": 0.011,
                "exact_match,flexible-extract": 0.5,
                "exact_match_stderr,flexible-extract": "N/A",
            },
            "math": {"alias": "math", "name": "math"},
        },
        "group_subtasks": {"math": ["gsm8k"], "gsm8k": []},
        "configs": {"gsm8k": {"task": "gsm8k"}},
        "versions": {"gsm8k": 3.0},
        "n-shot": {"gsm8k": fewshot},
        "higher_is_better": {"gsm8k": {"exact_match": True}},
        "n-samples": {"gsm8k": {"original": 1319, "effective": n}},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "limit": n},
        "model_name": model,
        "date": 1763875200.0,
    }
    with (folder / "samples_gsm8k_2026-11-23T05-00-00.jsonl").open("w") as file:
        for index, score in enumerate(scores):
            for kind, given in (("strict-match", score), ("flexible-extract", 0.5)):
                file.write(
                    json.dumps({"doc_id": index, "doc_hash": f"h{index}", "filter": kind, "exact_match": given})
                    + "\n"
                )
    path = folder / "results_2026-11-23T05-00-00.json"
    path.write_text(json.dumps(document))
    return path


def inspect_header(**changes: Any) -> dict[str, Any]:
    """``header.json`` of Inspect 0.3.285: two scorers, a headline, two epochs over three items."""
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-11-23T05:00:00+00:00",
            "task": "inspect_evals/ifeval",
            "task_version": "2-A",
            "task_args": {"fewshot": 4},
            "model": "hf/org/base",
            "dataset": {"name": "ifeval", "samples": 541, "sample_ids": ["a", "b", "c"]},
            "config": {"limit": 3, "epochs": 2},
        },
        "results": {
            "total_samples": 6,
            "completed_samples": 6,
            "scores": [
                {
                    "name": "match",
                    "scorer": "match",
                    "scored_samples": 3,
                    "unscored_samples": 1,
                    "metrics": {
                        "accuracy": {"name": "accuracy", "value": 0.5, "params": {}},
                        "stderr": {"name": "stderr", "value": 0.2, "params": {}},
                    },
                },
                {
                    "name": "instruction_following",
                    "scorer": "instruction_following",
                    "metrics": {
                        "prompt_strict_acc": {"name": "prompt_strict_acc", "value": 0.4, "params": {}},
                        "prompt_strict_stderr": {"name": "prompt_strict_stderr", "value": 0.1, "params": {}},
                    },
                },
            ],
            "headline": {"scorer": "instruction_following", "score": None, "metric": "prompt_strict_acc"},
        },
    } | changes


INSPECT_SUMMARIES = [
    {"id": "a", "epoch": 1, "scores": {"match": {"value": "C"}}},
    {"id": "a", "epoch": 2, "scores": {"match": {"value": "I"}}},
    {"id": "b", "epoch": 1, "scores": {"match": {"value": "C"}}},
    {"id": "b", "epoch": 2, "scores": {"match": {"value": "P"}}},
    {"id": "c", "epoch": 1, "scores": {"match": {"value": "N"}}},
    {"id": "c", "epoch": 2, "scores": {"match": {"value": 0.5}}},
]


def write_inspect(path: Path, header: dict[str, Any]) -> Path:
    """An ``.eval`` archive with deflated members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("summaries.json", json.dumps(INSPECT_SUMMARIES))
    return path


def write_zstandard_zip(path: Path, members: dict[str, bytes]) -> Path:
    """An archive whose members are zstandard frames (method 93), as Inspect writes since 0.3.200."""
    import struct
    import zlib

    import zstandard

    directory, body = b"", b""
    for name, data in members.items():
        packed = zstandard.ZstdCompressor().compress(data)
        sizes = struct.pack("<3L", zlib.crc32(data), len(packed), len(data))
        fixed = struct.pack("<5H", 63, 0, 93, 0, 0x5A21)
        encoded = name.encode()
        directory += b"PK\x01\x02" + struct.pack("<H", 63) + fixed + sizes
        directory += struct.pack("<5H2L", len(encoded), 0, 0, 0, 0, 0, len(body)) + encoded
        body += b"PK\x03\x04" + fixed + sizes + struct.pack("<2H", len(encoded), 0) + encoded + packed
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def add_job(
    ledger: Ledger,
    job_id: str,
    *,
    state: str = "succeeded",
    experiment: str | None = None,
    recipe: dict[str, Any] | None = None,
    created: float = 1_800_000_000.0,
    seconds: float = 60.0,
    usd: float = 0.0,
    run_name: str | None = None,
    error: str | None = None,
) -> str:
    """A job in the ledger as the jobs service leaves it; returns its script id."""
    script_id = f"s{job_id}"[:12].ljust(12, "0")
    spec = JobSpec(
        script_id=script_id,
        script_sha256=script_id * 5,
        backend="local",
        hardware="cpu",
        timeout_seconds=1800.0,
        experiment=experiment,
        run_name=run_name,
    )
    with ledger.transaction() as connection:
        if experiment is not None:
            connection.execute(
                "INSERT OR IGNORE INTO experiments (name, created_at) VALUES (?, ?)", (experiment, 0.0)
            )
        connection.execute(
            "INSERT OR IGNORE INTO scripts (script_id, sha256, name, recipe, created_at) VALUES (?, ?, ?, ?, ?)",
            (script_id, script_id * 5, f"{job_id}-script", json.dumps(recipe) if recipe else None, created),
        )
        connection.execute(
            "INSERT INTO jobs (job_id, digest, script_id, backend, hardware, timeout_seconds, spec, experiment, "
            "run_name, state, state_since, created_at, started_at, finished_at, error) "
            "VALUES (?, ?, ?, 'local', 'cpu', 1800, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                f"digest-{job_id}",
                script_id,
                json.dumps(spec.to_json()),
                experiment,
                run_name,
                state,
                created + seconds,
                created,
                created,
                created + seconds,
                error,
            ),
        )
        connection.execute(
            "INSERT INTO money (job_id, usd_per_hour, usd_reserved, usd_charged, settled) VALUES (?, 1, ?, ?, 1)",
            (job_id, usd, usd),
        )
    return script_id
