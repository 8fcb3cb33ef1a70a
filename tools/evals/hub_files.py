"""Which files of a repository on the Hub hold results, and which of them one call reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlintern.tools.evals.read_files import PASSED_BY, RESULT_NAME, latest_states
from mlintern.tools.evals.readers.hub import FOLDER
from mlintern.tools.evals.yaml_files import YAML

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?")
INSPECT_LOG = re.compile(r"^\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d.*\.json$")
"""Inspect's JSON logs have no word in their name that says results, but always the moment of their start in front."""
READABLE = (".json", ".jsonl", ".eval", ".md", ".txt", ".log", *YAML)
LONGEST_PART = 200
"""Bytes of a file's name that every file system takes."""


@dataclass(frozen=True)
class Bounds:
    """What one call may read of a repository, and what the cache may hold. Bytes, except where it says otherwise."""

    listed_files: int = 20_000
    result_files: int = 50
    sample_files: int = 100
    file: int = 64 * 2**20
    call: int = 256 * 2**20
    cache: int = 2 * 2**30
    seconds: float = 90.0


@dataclass(frozen=True)
class RemoteEntry:
    """A file of a repository. ``digest`` is the SHA-256 for large files (LFS), else git's hash of the content."""

    path: str
    size: int
    digest: str
    large: bool = False


@dataclass(frozen=True)
class Choice:
    """The files to fetch, in that order, which of them hold samples, and what was left out."""

    files: list[RemoteEntry] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    samples: frozenset[RemoteEntry] = frozenset()


def choose_results(entries: Sequence[RemoteEntry], *, folder: str, card: bool, bounds: Bounds) -> Choice:
    """Files below ``folder`` that hold results by their name: what the repository publishes first, then the newest.

    Of a folder that was named, every JSON file counts; of a whole repository those that harnesses name as results.

    Args:
        entries: all files below ``folder``.
        card: whether the model card may hold results.
    """
    paths = {entry.path for entry in entries}
    states = latest_states(Path(path) for path in paths)
    found = [
        entry
        for entry in entries
        if _may_hold_results(PurePosixPath(entry.path), folder, card) and not _repeats(entry.path, paths, states)
    ]
    found.sort(key=lambda entry: entry.path)
    found.sort(key=lambda entry: _date(entry.path), reverse=True)
    found.sort(key=lambda entry: not _is_published(PurePosixPath(entry.path), folder))
    return _within(found, bounds.result_files, "result", bounds)


def choose_samples(results: Iterable[RemoteEntry], entries: Sequence[RemoteEntry], *, bounds: Bounds) -> Choice:
    """The files beside ``results`` with scores of single items: ``samples_TASK_DATE.jsonl``, ``samples.jsonl``."""
    wanted: dict[str, list[Callable[[str], bool]]] = {}
    for result in results:
        path = PurePosixPath(result.path)
        wanted.setdefault(str(path.parent), []).append(_samples_of(path.name))
    found = [
        entry
        for entry in entries
        if (path := PurePosixPath(entry.path)).suffix == ".jsonl"
        and any(belongs(path.name) for belongs in wanted.get(str(path.parent), ()))
    ]
    return _within(sorted(found, key=lambda entry: entry.path), bounds.sample_files, "sample", bounds)


def too_large(entry: RemoteEntry, bounds: Bounds) -> str:
    return f"{entry.path} has {entry.size / 2**20:,.0f} MiB; files over {bounds.file // 2**20} MiB are not fetched."


def _may_hold_results(path: PurePosixPath, folder: str, card: bool) -> bool:
    if any(len(part.encode()) > LONGEST_PART for part in path.parts) or not path.is_relative_to(folder):
        return False
    inside = path.relative_to(folder) if folder else path
    if _is_published(path, folder):
        return path.suffix in YAML or card
    if any(part.startswith(".") or part in PASSED_BY for part in inside.parts[:-1]):
        return False  # as a local folder is read
    named = RESULT_NAME.search(path.name) or INSPECT_LOG.match(path.name)
    return bool(named) or bool(folder and path.suffix == ".json")


def _is_published(path: PurePosixPath, folder: str) -> bool:
    home = PurePosixPath(folder) if PurePosixPath(folder).name == FOLDER else PurePosixPath(folder, FOLDER)
    return (path.parent == home and path.suffix in YAML) or path == PurePosixPath("README.md")


def _repeats(path: str, paths: set[str], states: set[Path]) -> bool:
    """Whether another file says the same and more: as for a local folder."""
    name = PurePosixPath(path)
    if name.name == "trainer_state.json":
        return Path(path) not in states
    return name.name == "all_results.json" and str(name.with_name("eval_results.json")) in paths


def _date(path: str) -> str:
    """The moment in a file's name; names without one come after those with one."""
    found = DATE.search(PurePosixPath(path).name)
    return found[0].replace(":", "-") if found else ""


def _samples_of(result: str) -> Callable[[str], bool]:
    date = result.removeprefix("results_").removesuffix(".json")
    if result.startswith("results_"):
        return lambda name: name.startswith("samples_") and name.endswith(f"_{date}.jsonl")
    if result == "evaluation.json":
        return lambda name: name.startswith("samples")
    return lambda name: False


def _within(found: Sequence[RemoteEntry], most: int, what: str, bounds: Bounds) -> Choice:
    choice = Choice()
    size = 0
    left: list[str] = []
    for entry in found:
        if entry.size > bounds.file:
            choice.partial.append(too_large(entry, bounds) + " Fetch it with `hf download`, then give its path.")
        elif len(choice.files) >= most or size + entry.size > bounds.call:
            left.append(entry.path)
        else:
            choice.files.append(entry)
            size += entry.size
    if left:
        choice.partial.append(
            f"{len(left)} of {len(found)} {what} files were not read (at most {most} files or "
            f"{bounds.call // 2**20} MiB a call, the newest by the date in their names first), such as {left[0]}. "
            "Name a folder or a file of the repository to read others."
        )
    return choice
