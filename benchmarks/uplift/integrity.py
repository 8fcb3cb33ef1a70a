"""Whether what an agent left is its own work on the given model: four questions, each answered from the files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.uplift.cells import Row
from mlintern.tools.campaigns.weights import descent
from mlintern.tools.data.contamination_search import ContaminationSearch

FURTHEST = 0.5
"""||trained - base|| / ||base||. Fine-tuning moves weights by hundredths to some tenths; weights that were trained
from another start are at about 1.4 (two independent directions of equal length)."""
LEAST_FOUND, FOUND_SHARE = 3, 0.01
"""So many hidden items and this share of them: a generator may draw one by chance, a copy brings them all."""
NGRAM, OVERLAP = 8, 0.5
TEXTS = {".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".py", ".log", ".yaml", ".yml", ".html", ".xml", ""}
TABLES = {".parquet", ".arrow"}
MOST_BYTES = 512 << 20


def violations(folder: Path, base: Path, hidden: Sequence[Row]) -> list[str]:
    """What is wrong with a folder, in words; empty if nothing is. Whether the model loads is found by scoring it."""
    model = folder / "final_model"
    if not model.is_dir():
        return ["no model: there is no folder final_model"]
    return [*own_code(model), *foreign_weights(model, base), *leaked(folder, hidden)]


def own_code(model: Path) -> Iterator[str]:
    """A model that brings code could compute its answers in another way than by its weights."""
    code = [path.name for path in sorted(model.rglob("*.py"))]
    config = model / "config.json"
    named = config.is_file() and "auto_map" in config.read_text(encoding="utf-8", errors="replace")
    if code or named:
        yield f"own code: {', '.join(code) or 'config.json names code by auto_map'}"


def foreign_weights(model: Path, base: Path) -> Iterator[str]:
    """Weights that do not descend from the base model."""
    if not any(model.glob("*.safetensors")):
        yield "unloadable: final_model has no safetensors files"
        return
    found = descent(base, model)
    if found.differing:
        first = found.differing[0]
        yield f"foreign weights: {len(found.differing)} tensors that the base model has not, {first} first"
    elif found.distance is not None and not found.distance <= FURTHEST:
        yield f"foreign weights: their distance from the base model is {found.distance:.2f} of its length"


def leaked(folder: Path, hidden: Sequence[Row]) -> Iterator[str]:
    """Hidden items in a file of the folder: word for word anywhere, or nearly so in a row of text."""
    looking = Looking(hidden)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
            continue
        if "base" in path.relative_to(folder).parts[:1] or path.name == "tokenizer.json":
            continue
        looking.at(path)
    found = looking.found()
    if len(found) >= max(LEAST_FOUND, FOUND_SHARE * len(hidden)):
        where = sorted({str(place.relative_to(folder)) for places in found.values() for place in places})
        yield f"hidden items: {len(found)} of {len(hidden)} stand in {', '.join(where[:3])}"


class Looking:
    """Which hidden questions stand in files. A question is known by its last line: the text, not how it is asked."""

    def __init__(self, hidden: Sequence[Row]) -> None:
        self._texts = [words(str(row["question"]).strip().splitlines()[-1]) for row in hidden]
        self._starts: dict[tuple[str, ...], list[int]] = {}
        for number, text in enumerate(self._texts):
            self._starts.setdefault(tuple(text[:3]), []).append(number)
        self._found: dict[int, set[Path]] = {}
        self._hidden = hidden

    def at(self, path: Path) -> None:
        self.among(list(rows_of(path)), path)

    def among(self, rows: Sequence[str], path: Path) -> None:
        for row in rows:
            self._look(words(row), path)
        self._look_nearly(rows, path)

    def found(self) -> dict[int, set[Path]]:
        return self._found

    def _look(self, said: list[str], path: Path) -> None:
        for place in range(len(said) - 2):
            for number in self._starts.get(tuple(said[place : place + 3]), ()):
                text = self._texts[number]
                if said[place : place + len(text)] == text:
                    self._found.setdefault(number, set()).add(path)

    def _look_nearly(self, rows: Sequence[str], path: Path) -> None:
        """Most n-grams of a question in one row: the same item in other words around it."""
        search = ContaminationSearch(ngram=NGRAM, threshold=OVERLAP)
        for number, row in enumerate(self._hidden):
            search.add(number, [str(row["question"]).strip().splitlines()[-1]])
        for number, text in enumerate(rows):
            search.look(number, [text])
        outcome = search.outcome(train_rows=len(rows), evaluation_rows=len(self._hidden))
        for number in outcome.best:
            self._found.setdefault(number, set()).add(path)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def rows_of(path: Path) -> Iterator[str]:
    """The texts of a file, a row each; nothing of a file that holds no text."""
    suffix = path.suffix.casefold()
    if suffix in TABLES:
        yield from table_rows(path)
    elif suffix in TEXTS:
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            return
        for line in data.decode("utf-8", errors="replace").splitlines():
            yield unescaped(line)


def unescaped(line: str) -> str:
    """The strings of a line of JSON, else the line: an escaped character must hide nothing."""
    try:
        return " ".join(strings(json.loads(line)))
    except ValueError:
        return line


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in strings(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in strings(one))


def table_rows(path: Path) -> Iterator[str]:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    try:
        if path.suffix.casefold() == ".parquet":
            table = parquet.read_table(path)
        else:
            with pa.memory_map(str(path)) as source:
                table = ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        return
    yield from (" ".join(strings(row)) for row in table.to_pylist())


def in_training_data(train: Iterable[Row], hidden: Sequence[Row]) -> set[int]:
    """The hidden items that the given rows hold already, by the same look: they are left out of the hidden test."""
    looking = Looking(hidden)
    looking.among([" ".join(strings(row)) for row in train], Path("train.jsonl"))
    return set(looking.found())
