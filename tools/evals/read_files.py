"""From a file or a folder to rows: which harness wrote it, and what it says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.documents import Reader, Reading, ResultFile, open_result
from mlintern.tools.evals.readers import (
    code_harnesses,
    hub,
    inspect,
    leaderboards,
    lighteval,
    lm_eval,
    own,
    trainer,
)
from mlintern.tools.evals.result_rows import EvalProblem, EvalRow, Sample
from mlintern.tools.evals.yaml_files import YAML

READERS: tuple[Reader, ...] = (own, hub, lighteval, lm_eval, inspect, code_harnesses, leaderboards, trainer)
"""In the order in which they are asked; the first that matches reads."""

RESULT_NAME = re.compile(r"^(?:evaluation|results?|eval_results|all_results|trainer_state)(?:_.*)?\.json$|\.eval$")
"""Files that claim to be results: if they cannot be read, that is said; other JSON files are passed by."""

MARKERS = (
    *(b'"mlintern_evaluation"', b'"results"', b'"log_history"', b'"eval_', b'"eval"'),
    *(b'"n_samples"', b'"all"', b"win_rate,", b"dataset,version,metric,mode"),
)
CARD_NAME = "README.md"
CARD_MARKER = b"model-index"
SNIFFED = 4 * 2**20
"""Bytes looked at for a marker in files of a folder, so that a tokenizer or an index is not parsed."""
MOST_FILES = 5_000
PASSED_BY = frozenset({"node_modules", "__pycache__", "wandb", "site-packages"})


def read_path(path: Path) -> Reading:
    """All rows of a result file, or of a folder that holds any.

    Raises:
        NotFound: nothing is there, or the file or folder holds no results.
        BadInput: the file is no result of a known harness, or is broken; says which key.
    """
    if path.is_dir():
        return _read_folder(path)
    file = open_result(path)
    reader = _require_reader(file)
    reading = reader.read(file)
    if not reading.rows and not reading.problems:
        raise NotFound(
            f"{path} is a file of {reader.SUITE}, but there are no scores in it.",
            next_step="Was anything evaluated? A Trainer does only with eval_strategy; other harnesses write scores "
            "at their end.",
        )
    return reading


class SampleFiles:
    """Gives the score of each item behind a row; opens and hashes each result file once."""

    def __init__(self, roots: Mapping[str, Path] | None = None) -> None:
        """``roots``: where the files lie whose source is not their path, by the beginning of the source."""
        self._roots = roots or {}
        self._opened: dict[str, ResultFile] = {}

    def __call__(self, row: EvalRow) -> dict[str, float] | None:
        """Scores by a stable id of the item; None where the harness kept none, or its files are gone.

        Raises:
            BadInput: the samples are there but broken, or the result file changed since the row was read.
        """
        file = self._open(row)
        return _require_reader(file).samples(file, row) if file is not None else None

    def items(self, row: EvalRow) -> list[Sample] | None:
        """What was asked and answered behind the row, under the same ids; None and errors as for the scores."""
        file = self._open(row)
        return _require_reader(file).items(file, row) if file is not None else None

    def whole(self, row: EvalRow, sample: Sample) -> Sample:
        """``sample`` of ``row`` with what its harness keeps apart, such as the answer in a member of an archive."""
        file = self._open(row)
        return inspect.with_answer(file, sample) if file is not None and row.suite == inspect.SUITE else sample

    def _open(self, row: EvalRow) -> ResultFile | None:
        path = self._path(row.source)
        if not path.is_file():
            return None
        file = self._opened.get(row.source) or open_result(path)
        self._opened[row.source] = file
        if file.sha256 != row.sha256:
            raise BadInput(
                f"{path} has changed since {row.label} was read.", next_step="Read it again, then compare again."
            )
        return file

    def _path(self, source: str) -> Path:
        for root, folder in self._roots.items():
            if source.startswith(f"{root}/"):
                return folder / source.removeprefix(f"{root}/")
        return Path(source)


def read_files(paths: Iterable[Path]) -> Reading:
    """The rows of those of ``paths`` that hold results; one that claims to and cannot be read is a problem."""
    rows: list[EvalRow] = []
    problems: list[EvalProblem] = []
    for path in paths:
        if path.name == CARD_NAME and not _has_marker(path):
            continue
        try:
            file = open_result(path)
            reader = _reader_of(file)
            if reader is None:
                continue
            reading = reader.read(file)
        except (BadInput, NotFound) as error:  # NotFound: a link into a cache that was emptied
            if RESULT_NAME.search(path.name) or _publishes(path):
                problems.append(EvalProblem(source=str(path), message=error.message, next_step=error.next_step))
            continue
        rows.extend(reading.rows)
        problems.extend(reading.problems)
    return Reading(rows=rows, problems=problems)


def _read_folder(folder: Path) -> Reading:
    reading = read_files(_candidates(folder))
    if not reading.rows and not reading.problems:
        raise NotFound(
            f"The folder {folder} holds no evaluation results.",
            next_step="Point at the output of an mlintern evaluation, of lm-eval, lighteval, Inspect or a Trainer.",
        )
    return reading


def _reader_of(file: ResultFile) -> Reader | None:
    return next((reader for reader in READERS if reader.matches(file)), None)


def _require_reader(file: ResultFile) -> Reader:
    reader = _reader_of(file)
    if reader is None:
        raise BadInput(
            f"{file.path} is not a result file of a known harness.",
            next_step="Known are evaluation.json (mlintern), results_*.json (lm-eval, lighteval), .eval and .json "
            "logs (Inspect), leaderboard.csv (AlpacaEval), summary_*.csv (OpenCompass), "
            "*_eval_results.json (EvalPlus), trainer_state.json and eval_results.json (transformers), "
            ".eval_results/*.yaml and the "
            "model-index of a README.md (Hub).",
        )
    return reader


def _candidates(folder: Path) -> list[Path]:
    """Files of the folder that may hold results, oldest names first, without those that repeat another."""
    found = list(_walk(folder))
    chosen = _published(folder)
    names = set(found)
    states = latest_states(found)
    for path in found:
        beside = path.with_name
        if path.name == "all_results.json" and beside("eval_results.json") in names:
            continue
        if path.name == "trainer_state.json" and path not in states:
            continue
        if path.name == "metrics.jsonl":
            if beside("evaluation.json") in names:
                continue
        elif path.suffix in (".json", ".csv") and not _has_marker(path):
            continue
        chosen.append(path)
    return chosen


def _published(folder: Path) -> list[Path]:
    """What the repository of a model publishes: `.eval_results/*.yaml`, and the model-index of its card."""
    results = folder if folder.name == hub.FOLDER else folder / hub.FOLDER
    found = sorted(path for path in results.glob("*") if path.suffix in YAML) if results.is_dir() else []
    card = folder / CARD_NAME
    return [*found, card] if card.is_file() else found


def _publishes(path: Path) -> bool:
    return path.parent.name == hub.FOLDER or path.name == CARD_NAME


def _walk(folder: Path) -> Iterator[Path]:
    seen = 0
    pending = [folder]
    while pending:
        here = pending.pop(0)
        try:
            inside = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise BadInput(
                    f"{folder} cannot be read: {error.strerror}.", next_step="Check its permissions."
                ) from error
            continue  # the results of someone else, or a folder that has just gone
        for entry in inside:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if not path.name.startswith(".") and path.name not in PASSED_BY:
                    pending.append(path)
            elif not (entry.is_symlink() or entry.is_file(follow_symlinks=False)):
                continue  # a pipe or a device: reading it might never end
            elif path.suffix in (".json", ".eval", ".csv") or path.name == "metrics.jsonl":
                seen += 1
                if seen > MOST_FILES:
                    raise BadInput(
                        f"{folder} holds more than {MOST_FILES} JSON files.",
                        next_step="Point at the folder of one evaluation.",
                    )
                yield path


def latest_states(found: Iterable[Path]) -> set[Path]:
    """Every checkpoint repeats the history so far: of one run, the latest state is enough."""
    latest: dict[Path, tuple[float, Path]] = {}
    for path in found:
        if path.name != "trainer_state.json":
            continue
        checkpoint = re.fullmatch(r"checkpoint-(\d+)", path.parent.name)
        run, step = (path.parent.parent, float(checkpoint[1])) if checkpoint else (path.parent, float("inf"))
        latest[run] = max(latest.get(run, (-1.0, path)), (step, path))
    return {path for _, path in latest.values()}


def _has_marker(path: Path) -> bool:
    """Whether the file may hold results. One that cannot be opened may, if it is named so: reading says why."""
    try:
        with path.open("rb") as file:
            head = file.read(SNIFFED)
    except OSError:
        return RESULT_NAME.search(path.name) is not None
    return any(marker in head for marker in ((CARD_MARKER,) if path.name == CARD_NAME else MARKERS))
