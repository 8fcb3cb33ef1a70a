"""Commands as they work here: what is printed for a person can be copied into any shell of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

MODULES = {"mlintern-server": "mlintern.server", "mlintern-orchestrate": "mlintern.orchestrator"}
_UV_CACHE_FOLDERS = frozenset({"archive-v0", "environments-v2", "builds-v0"})


def shown_command(program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """``program arguments`` so that it starts this very installation, quoted for a shell."""
    return shlex.join([*starting(program, environ=os.environ if environ is None else environ), *arguments])


def starting(program: str, *, environ: Mapping[str, str], python: Path | None = None) -> list[str]:
    """The words that start ``program`` of this installation from a shell that knows nothing of this process.

    The name alone where the search path finds this installation by it; through ``uvx`` or ``uv run`` where uv made
    the environment, since that lies in a cache that uv may empty or in a project that it keeps up to date; else the
    absolute path; the interpreter with the module where no program was installed.

    Args:
        python: the interpreter of this installation; this process's own if None.
    """
    interpreter = Path(sys.executable if python is None else python)
    script = interpreter.parent / program
    prefix = interpreter.parent.parent
    if _UV_CACHE_FOLDERS & set(prefix.resolve().parts):
        return ["uvx", "--from", _source(), program]
    by_uv = "UV_RUN_RECURSION_DEPTH" in environ  # uv puts its environment on the path of what it runs, and only there
    if by_uv and (prefix.parent / "pyproject.toml").is_file():
        return ["uv", "run", "--project", str(prefix.parent), program]
    found = shutil.which(program, path=environ.get("PATH", ""))
    if not by_uv and found and script.exists() and Path(found).resolve() == script.resolve():
        return [program]
    return [str(script)] if script.exists() else [str(interpreter), "-m", MODULES[program]]


def _source() -> str:
    """What ``uvx --from`` takes to find this package again: the folder or file it came from, else its name."""
    import json
    from importlib import metadata
    from urllib.parse import unquote, urlparse

    try:
        url = json.loads(metadata.distribution("mlintern").read_text("direct_url.json") or "{}").get("url", "")
    except (metadata.PackageNotFoundError, ValueError):
        url = ""
    return unquote(urlparse(url).path) if url.startswith("file:") else url or "mlintern"
