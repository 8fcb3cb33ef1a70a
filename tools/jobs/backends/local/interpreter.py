"""Which Python runs a script: one that already has what the script needs, else an environment made by uv."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlintern.tools.errors import BadInput, MissingDependency

_PROBE_SECONDS = 60.0
_HEADER = re.compile(r"(?m)^# /// script\s*$\n(?:^#(?:| .*)$\n)+?^# ///\s*$")
"""The PEP 723 block of a script, its first and last line included."""

_PROBE = """
import importlib.metadata, json, os, platform, sys
found = {}
paths = [sys.prefix, sys.base_prefix, *sys.path]
for distribution in importlib.metadata.distributions():
    name = distribution.metadata["Name"]
    if name and name not in found:
        found[name] = [distribution.version, distribution.requires or []]
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            paths.append(origin["url"].removeprefix("file://"))
paths = [os.path.abspath(path) for path in dict.fromkeys(paths) if os.path.exists(path) and path]
print(json.dumps({"python": platform.python_version(), "found": found, "paths": paths}))
"""

_ENTRY = """
# Runs another script in the environment that the header above describes: uv keeps one environment for this file, so
# scripts with the same header share it.
import ctypes
import os
import sys

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: end when uv, our parent, is killed
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Interpreter:
    """``command`` comes before the path of the script. ``reason`` says why it was chosen.

    ``paths`` are the files and folders that it needs; ``uses_uv``: it makes an environment, for which it downloads.
    """

    command: tuple[str, ...]
    reason: str
    paths: tuple[str, ...] = ()
    uses_uv: bool = False


@dataclass(frozen=True)
class Installed:
    """What an interpreter has: its version, of each distribution the version and requirements, and where they lie."""

    python: str
    distributions: Mapping[str, tuple[str, tuple[str, ...]]]
    paths: tuple[str, ...] = ()


def choose(
    *, text: str, requirements: Sequence[str], python: str | None, configured: str | None, environments: Path
) -> Interpreter:
    """The interpreter for a script: ``configured``, or this one, if it satisfies the header; else ``uv run``.

    Args:
        text: the script, whose PEP 723 block is handed to uv word for word.
        requirements: the dependencies in its header. ``python``: its ``requires-python``.
        environments: folder for one small entry script per distinct header; uv keys its cache on its path.

    Raises:
        BadInput: a requirement in the header cannot be parsed.
        MissingDependency: neither interpreter will do and uv is not installed.
    """
    candidate = configured or sys.executable
    installed = installed_in(candidate)
    missing = unmet(requirements, python, installed=installed)
    if not missing:
        paths = (str(Path(candidate).absolute()), *installed.paths)
        return Interpreter((candidate,), f"{candidate} satisfies the script's header", paths)
    entry, uv = _entry_script(text, environments), _uv()
    return Interpreter(
        (uv, "run", "--no-project", "--quiet", "--script", str(entry)),
        f"uv environment {entry.parent.name}, because {candidate} lacks {', '.join(missing[:5])}",
        (uv, str(entry.parent), sys.base_prefix),
        uses_uv=True,
    )


def unmet(requirements: Sequence[str], python: str | None, *, installed: Installed) -> list[str]:
    """Those of ``requirements`` (and of ``python``) that ``installed`` does not satisfy, extras included."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    missing = []
    try:
        if python and not SpecifierSet(python).contains(installed.python, prereleases=True):
            missing.append(f"Python {python}")
        waiting = [Requirement(text) for text in requirements]
    except (InvalidRequirement, InvalidSpecifier) as error:
        raise BadInput(
            f"The script's header cannot be used: {error}.",
            next_step="Correct the dependencies in its PEP 723 header.",
        ) from error
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed.distributions.get(_normal(requirement.name))
        if found is None or not requirement.specifier.contains(found[0], prereleases=True) or requirement.url:
            missing.append(str(requirement))
            continue
        for extra in requirement.extras - seen:
            seen.add(extra)
            try:
                waiting += _of_extra(found[1], extra)
            except InvalidRequirement:  # old packages have metadata that nobody can read today
                missing.append(str(requirement))
    return missing


def installed_in(interpreter: str) -> Installed:
    """Ask ``interpreter`` what it has.

    Raises:
        MissingDependency: it is not a Python that answers.
    """
    environment = Path(interpreter).resolve().parent
    try:
        stamp = max(path.stat().st_mtime_ns for path in (environment, *_site_folders(interpreter)))
    except OSError:
        stamp = 0
    return _ask(interpreter, stamp)


def header_of(text: str) -> str | None:
    """The PEP 723 block of a script, or None."""
    match = _HEADER.search(text if text.endswith("\n") else text + "\n")
    return match.group(0) if match else None


@lru_cache(maxsize=16)
def _ask(interpreter: str, stamp: int) -> Installed:
    """``stamp`` changes when something is installed, which makes the remembered answer stale."""
    try:
        answer = subprocess.run(
            [interpreter, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=True,
        ).stdout
        value: dict[str, Any] = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise MissingDependency(
            f"The interpreter {interpreter} for local jobs does not work: {error}.",
            next_step="Name a working one with --python or MLINTERN_PYTHON.",
        ) from error
    distributions = {_normal(name): (version, tuple(needs)) for name, (version, needs) in value["found"].items()}
    return Installed(python=value["python"], distributions=distributions, paths=tuple(value["paths"]))


def _site_folders(interpreter: str) -> list[Path]:
    # The environment's own folder, not that of the Python its link leads to.
    return list((Path(interpreter).absolute().parent.parent / "lib").glob("python3*/site-packages"))


def _of_extra(requirements: Sequence[str], extra: str) -> list[Any]:
    from packaging.requirements import Requirement

    chosen = []
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            requirement.marker = None
            chosen.append(requirement)
    return chosen


def _entry_script(text: str, environments: Path) -> Path:
    from mlintern.common.files import write_durably

    header = header_of(text) or "# /// script\n# dependencies = []\n# ///"
    content = f"{header}\n{_ENTRY}"
    folder = environments / hashlib.sha256(content.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    entry = folder / "environment.py"
    if not entry.exists():
        write_durably(entry, content.encode())
    return entry


def _uv() -> str:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError) as error:
        raise MissingDependency(
            "The script needs packages that this Python lacks, and uv is not installed to make an environment.",
            next_step="Run: pip install uv. Or install the packages where --python points.",
        ) from error


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
