"""A tiny model and its data, made once for all tests that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services import tiny_model
from tests.services.preloaded import TRAINING, Preloaded

MINUTES = 5
OFFLINE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Materials:
    """A saved untrained model of 16 dimensions, and files for every trainer."""

    model: Path
    sft: Path
    dpo: Path
    grpo: Path
    questions: Path


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("materials")
    return Materials(
        model=tiny_model.make_tiny_model(folder / "model"),
        sft=tiny_model.write_rows(folder / "sft.jsonl", tiny_model.sft_rows(64)),
        dpo=tiny_model.write_rows(folder / "dpo.jsonl", tiny_model.dpo_rows(32)),
        grpo=tiny_model.write_rows(folder / "grpo.jsonl", tiny_model.grpo_rows(32)),
        questions=tiny_model.write_rows(folder / "questions.jsonl", tiny_model.questions(200)),
    )


@dataclass(frozen=True)
class Run:
    """What a script left behind when it ended."""

    code: int
    log: str
    output: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == kind]

    @property
    def marked(self) -> list[dict[str, Any]]:
        """The rows as a reader of the log alone has them."""
        lines = self.log.splitlines()
        return [json.loads(line.removeprefix("@mlintern ")) for line in lines if line.startswith("@mlintern ")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What a job's process gets, without a network."""
    return {
        **os.environ,
        **OFFLINE,
        "MLINTERN_OUTPUT_DIR": str(tmp_path / "output"),
    }


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    with Preloaded(TRAINING, {**os.environ, **OFFLINE, "HF_HOME": str(tmp_path_factory.mktemp("hf"))}) as programs:
        yield programs


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str], preloaded: Preloaded) -> Callable[[Mapping[str, Any]], Run]:
    """Render a recipe and run its script to the end."""

    def run_recipe(recipe: Mapping[str, Any]) -> Run:
        script = rendered(recipe, tmp_path)
        done = preloaded.run(script, folder=tmp_path, environment=environment, seconds=60 * MINUTES)
        return Run(done.returncode, done.stdout, tmp_path / "output")

    return run_recipe


@pytest.fixture
def run_afresh(tmp_path: Path, environment: dict[str, str]) -> Callable[[Mapping[str, Any]], Run]:
    """The same in a new interpreter, which ``sys.executable`` names: as a person would by hand."""

    def run_recipe(recipe: Mapping[str, Any]) -> Run:
        done = subprocess.run(
            [sys.executable, str(rendered(recipe, tmp_path))],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60 * MINUTES,
            check=False,
        )
        return Run(done.returncode, done.stdout.decode(), tmp_path / "output")

    return run_recipe


def rendered(recipe: Mapping[str, Any], folder: Path) -> Path:
    script = folder / "script.py"
    script.write_text(render(parse_recipe(recipe)).text, encoding="utf-8")
    return script
