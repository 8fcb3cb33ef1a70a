"""Each case of the corpus in TRL itself: two real steps, and the text of every row in the token ids that TRL made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.content import Account, add_row
from mlintern.tools.data.local_files import load_call
from mlintern.tools.data.prepare_code import Preparation
from tests.tools.data.test_corpus import CASES, ODD, SILENT, STOPS, TRAINS, judged

TAKEN = [case[:2] for case in (*TRAINS, *SILENT, *ODD)]
OTHER_TOKENS = {"pretok.jsonl"}
"""Token ids of another tokenizer."""


def arguments(path: Path, copies: Path) -> dict[str, Any]:
    """What loads ``path``; a saved dataset is copied first, since `datasets` writes its caches beside it."""
    call = load_call(path)
    if call.kind in ("saved", "saved_splits"):
        return {"saved": str(shutil.copytree(path, copies / path.name, dirs_exist_ok=True))}
    if call.kind == "folder":
        return {"path": str(path), "split": "train", **({"name": "en"} if path.name == "configs" else {})}
    return {"path": call.kind, "data_files": str(path), "split": "train", **call.options}


def run(jobs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    program = Path(__file__).with_name("trl_on_tiny_data.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, str(program), str(file)], capture_output=True, text=True, env=environment, timeout=540
    )
    found = [json.loads(line[9:]) for line in done.stdout.splitlines() if line.startswith("@verdict ")]
    assert len(found) == len(jobs), done.stderr[-2000:]
    return found


@pytest.mark.slow
def test_each_preparation_trains_and_trl_has_all_of_its_text(tmp_path: Path) -> None:
    """Data that is taken trains as it is; data at which TRL stops trains with the `prepare` that is offered."""
    pytest.importorskip("trl")
    jobs, rows_of = [], []
    for name, trainer in sorted({*TAKEN, *STOPS}):
        verdict, rows = judged(name, trainer, tmp_path)
        load = arguments(CASES / name, tmp_path / "copies")
        asked = [verdict.prepare] if verdict.prepare else []
        for prepare in ["", *asked]:
            jobs.append({"trainer": trainer, "kind": name, "load": load, "prepare": prepare})
            rows_of.append(rows)
    wrong = []
    for job, rows, found in zip(jobs, rows_of, run(jobs, tmp_path), strict=True):
        name, trainer = job["kind"], job["trainer"]
        label = f"{trainer} on {name}{', prepared' if job['prepare'] else ''}"
        takes = bool(job["prepare"]) or (name, trainer) in TAKEN
        if found["ok"] != takes:
            wrong.append(f"{label}: TRL {'trains' if found['ok'] else 'stops: ' + found['error']}")
        elif takes and trainer not in ("grpo", "rloo"):
            if found["steps"] != 2:
                wrong.append(f"{label}: {found['steps']} steps")
            if (job["prepare"] or name in {case[0] for case in TRAINS}) and name not in OTHER_TOKENS:
                wrong += [f"{label}: {place} is lost" for place in lost(rows, job["prepare"], found["texts"])]
    assert wrong == []


def lost(rows: list[dict[str, Any]], prepare: str, texts: list[str]) -> list[str]:
    """Places in ``rows`` whose text stands in no token that TRL made of the row."""
    function = Preparation("", prepare).function() if prepare else dict
    kept = [row for row in rows if function(dict(row)) is not None]
    if len(texts) == 2 * len(kept):  # KTO trains on the answers of a pair one after the other
        texts = ["\n".join(both) for both in zip(texts[: len(kept)], texts[len(kept) :], strict=True)]
    account = Account()
    for row, text in zip(kept, texts, strict=True):
        add_row(account, row, made=[text])
    return [line.place for line in account.lost()]
