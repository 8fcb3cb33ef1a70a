"""What a job on this machine may see: its own folders, its interpreter, the caches, and the data that it names."""

from __future__ import annotations

import ast
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.common.files import open_regular
from mlintern.tools import python_source
from mlintern.tools.jobs.backend import ScriptFile, Submission
from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local.interpreter import Interpreter
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.sandbox.policy import SYSTEM, Method, Policy

CACHES = ("hub", "datasets", "xet", "assets", "modules", "evaluate", "metrics")
"""Folders of the Hugging Face home that jobs share. The token lies beside them and is not among them."""

_PATH_VARIABLES = (
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX", "VIRTUAL_ENV",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "UV_CONFIG_FILE", "PIP_CONFIG_FILE",
)  # fmt: skip
_OF_THE_KERNEL = ("proc", "sys", "dev", "run", "boot")
_MOST_LITERALS = 20_000
_MOST_LINKS = 1_000
_OF_WORKSPACE = ("data", "reports", "experiments")
"""Folders of the workspace that hold data for jobs, beside the outputs of jobs."""


@dataclass(frozen=True)
class Isolation:
    """How jobs are kept apart from everything else, and from what.

    Attributes:
        workspace: whose ledger, approvals and other jobs stay hidden.
        environments: the folder in which uv makes environments for jobs.
    """

    method: Method
    workspace: Path
    environments: Path


def policy_of(
    submission: Submission,
    *,
    isolation: Isolation,
    interpreter: Interpreter,
    environment: dict[str, str],
    server: Mapping[str, str],
) -> Policy:
    """What a job may see and change; puts into ``environment`` where its caches are.

    Args:
        environment: of the script, without secrets.
        server: the server's own, which says where the caches of this user lie.
    """
    folder = JobFolder(submission.folder)
    home = Path(os.path.realpath(server.get("HOME") or Path.home()))
    uses_uv = interpreter.uses_uv
    network = submission.network or uses_uv
    guard = Guard(workspace=isolation.workspace, home=home)
    readable = [*interpreter.paths, str(folder.script), *map(str, submission.reads)]
    readable += [path for name in _PATH_VARIABLES for path in server.get(name, "").split(os.pathsep)]
    writable = [folder.work, folder.output]
    caches = list(_caches(environment, server=server, home=home))
    if uses_uv:
        made = isolation.environments / "uv"
        writable.append(made)
        environment |= {"UV_CACHE_DIR": str(made / "cache"), "UV_PYTHON_INSTALL_DIR": str(made / "python")}
    if network:  # what it downloads is kept for the next job
        writable += caches
    else:
        readable += map(str, caches)
    for path in writable:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    named = guard.admitted(named_paths(submission.spec, submission.script, also=submission.names))
    changed = _outermost(_real(writable))
    return Policy(
        method=isolation.method,
        readable=tuple(path for path in _outermost([*changed, *_real([*readable, *named])]) if path not in changed),
        writable=tuple(changed),
        work=os.path.realpath(folder.work),
        scratch=os.path.realpath(folder.scratch),
        home=str(home),
        network=network,
    )


def readable_data(spec: JobSpec, script: ScriptFile, *, workspace: Path, home: Path) -> list[str]:
    """The files and folders of this machine that an isolated job of ``script`` could read because it names them."""
    named = Guard(workspace=workspace, home=Path(os.path.realpath(home))).admitted(named_paths(spec, script))
    return _outermost(os.path.realpath(path) for path in named)


def named_paths(spec: JobSpec, script: ScriptFile, *, also: Iterable[str] = ()) -> list[str]:
    """Absolute paths that the recipe, the arguments, the environment or the text of the script names."""
    found = [*_texts(script.recipe or {}), *also, *spec.args, *(text for _, text in spec.env)]
    expanded = (text if not text.startswith("~/") else str(Path(text).expanduser()) for text in found)
    paths = [text for text in expanded if text.startswith("/") and "\0" not in text]
    paths += paths_in(script.text)
    return list(dict.fromkeys([*paths, *filter(None, map(_base_of, paths))]))


def _base_of(path: str) -> str | None:
    """The model on this machine to which the adapter in the folder ``path`` belongs: it cannot be loaded without."""
    try:
        descriptor = open_regular(Path(path) / "adapter_config.json")
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            base = json.loads(file.read(1 << 20)).get("base_model_name_or_path")
        is_model = isinstance(base, str) and base.startswith("/") and "\0" not in base
        return base if is_model and Path(base, "config.json").is_file() else None
    except (OSError, ValueError, AttributeError, RecursionError):  # it is no adapter then
        return None


class Guard:
    """Decides which of the paths that a job names it may read.

    Never the file system or home folder as a whole, hidden folders of the home folder (keys, tokens, configuration of
    other programs), or the workspace other than outputs of jobs and prepared data.
    """

    def __init__(self, *, workspace: Path, home: Path) -> None:
        self._workspace = Path(os.path.realpath(workspace))
        self._home = home

    def admitted(self, paths: Iterable[str]) -> list[str]:
        """Those of ``paths`` that exist and may be read, symbolic links resolved, with what their links lead to."""
        kept: dict[str, None] = {}
        for path in filter(os.path.exists, paths):
            for real in _with_links(path):
                if self.admits(real):
                    kept[str(real)] = None
                    kept.setdefault(path)  # under the name that the script uses
        return [path for path in kept if self.admits(Path(os.path.realpath(path)))]

    def admits(self, path: Path) -> bool:
        if path == Path("/") or path in self._workspace.parents or path in (self._home, *self._home.parents):
            return False
        if path.parts[1:2] in (("proc",), ("sys",), ("dev",), ("run",), ("boot",)) or path.parts[1:3] == (
            "var",
            "run",
        ):
            return False
        if path.is_relative_to(self._workspace):
            inside = path.relative_to(self._workspace).parts
            return bool(inside) and (inside[0] in _OF_WORKSPACE or inside[::2][:2] == ("jobs", "output"))
        if path.is_relative_to(self._home):
            inside = path.relative_to(self._home).parts
            return not inside[0].startswith(".") or (inside[:1] == (".cache",) and path.name != "token")
        return True


def _with_links(path: str) -> Iterator[Path]:
    """The real place of ``path``, and of the links directly in it."""
    real = Path(os.path.realpath(path))
    try:
        yield real
        if real.is_dir():
            with os.scandir(real) as entries:
                for entry in itertools.islice(entries, _MOST_LINKS):
                    if entry.is_symlink():
                        yield Path(os.path.realpath(entry.path))
    except OSError:  # too long for a name, or not to be read
        return


def _caches(environment: dict[str, str], *, server: Mapping[str, str], home: Path) -> Iterator[Path]:
    cache = Path(server.get("XDG_CACHE_HOME") or home / ".cache")
    hf_home = Path(server.get("HF_HOME") or cache / "huggingface").expanduser()
    environment.setdefault("HF_HOME", str(hf_home))
    yield from (hf_home / name for name in CACHES)
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
        if server.get(name):
            yield Path(server[name]).expanduser()
    yield Path(server.get("TORCH_HOME") or cache / "torch").expanduser()


def _real(paths: Iterable[str | Path]) -> Iterator[str]:
    """Each path without symbolic links, and as it is written: programs use the latter."""
    for path in paths:
        if str(path).startswith("/"):
            yield os.path.realpath(path)
            yield os.path.normpath(path)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that do not lie in another of them, nor in what every program may read."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda each: each.count("/")):
        if not any(path == other or path.startswith(f"{other}/") for other in (*kept, *SYSTEM)):
            kept.append(path)
    return kept


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def paths_in(text: str) -> list[str]:
    """The absolute paths that a script holds as constants."""
    try:
        tree = python_source.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    found = (value for value in constants if isinstance(value, str) and value.startswith(("/", "~/")))
    some = (value for value in itertools.islice(found, _MOST_LITERALS) if len(value) < 4096 and "\0" not in value)
    return [str(Path(value).expanduser()) for value in some]
