"""``mlintern-server doctor``: what is usable here, and what is missing with the command that gets it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal, Protocol, runtime_checkable

import anyio
import anyio.to_thread

from mlintern.server.services import Lab
from mlintern.tools.approvals import Approvals
from mlintern.tools.errors import BadInput, MlinternError
from mlintern.tools.jobs.backend import Backend

TRAINING_PACKAGES = ("torch", "trl", "transformers", "datasets", "accelerate", "peft")
KEYS = {
    "HF_TOKEN": "Hugging Face: private and gated repositories, publishing, HF Jobs",
    "S2_API_KEY": "Semantic Scholar: more requests an hour",
    "OPENALEX_API_KEY": "OpenAlex: more requests a day",
    "GITHUB_TOKEN": "GitHub: code search",
}
CONFIGURE = {
    "slurm": "Write a table [slurm] into config.toml of the workspace (docs/compute.md).",
    "ray": "Set MLINTERN_RAY_URL, or write a table [ray] into config.toml of the workspace (docs/compute.md).",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. ``blocks`` says that without it nothing works at all."""

    status: Literal["ok", "missing", "note"]
    subject: str
    message: str
    next_step: str = ""
    blocks: bool = False

    def __str__(self) -> str:
        text = f"{self.status:<8}{self.subject}: {self.message}"
        return f"{text}\n        {self.next_step}" if self.next_step else text


async def examine(lab: Lab) -> list[Finding]:
    """Look at the workspace, this Python, what local training needs, every backend, and the keys."""
    findings = [_python(), _workspace(lab)]
    if findings[-1].blocks:
        return findings
    findings += await anyio.to_thread.run_sync(lambda: [*_training(lab), _isolation()])
    findings += await _backends(lab)
    findings += [_key(name, use) for name, use in KEYS.items()]
    return findings


def _python() -> Finding:
    version = metadata.version("mlintern")
    return Finding("ok", "mlintern", f"{version} on Python {platform.python_version()} ({sys.executable})")


def _workspace(lab: Lab) -> Finding:
    try:
        ledger = lab.ledger
        with ledger.read() as connection:
            jobs = connection.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
    except MlinternError as error:
        return Finding("missing", "workspace", error.message, error.next_step, blocks=True)
    # Not lab.approvals: they need config.toml, whose mistakes are told below.
    waiting = len(Approvals(ledger=ledger, clock=lab.clock, allowances=lab.settings.allowances).list(state="pending"))
    asks = f", {waiting} question{'s' if waiting != 1 else ''} waiting for you" if waiting else ""
    return Finding("ok", "workspace", f"{lab.workspace.root} ({jobs} jobs{asks})")


def _training(lab: Lab) -> Iterator[Finding]:
    """Local jobs run with an interpreter that has the training packages, or in an environment that uv makes."""
    from mlintern.tools.jobs.backends.local.interpreter import installed_in

    interpreter = lab.settings.python or sys.executable
    with contextlib.suppress(BadInput):  # a mistake in config.toml is told with the backends
        interpreter = lab.settings.python or lab.config.local.python or sys.executable
    try:
        found = installed_in(interpreter).distributions
    except MlinternError as error:
        yield Finding("missing", "interpreter", error.message, error.next_step)
        return
    absent = [name for name in TRAINING_PACKAGES if name not in found]
    if not absent:
        versions = ", ".join(f"{name} {found[name][0]}" for name in TRAINING_PACKAGES)
        yield Finding("ok", "local training", f"{interpreter} has {versions}")
    else:
        yield Finding(
            "note",
            "local training",
            f"{interpreter} lacks {', '.join(absent)}, so uv builds an environment when a script first needs one.",
            "To have them at once: pip install 'mlintern[train]'",
        )


def _isolation() -> Finding:
    """What keeps local jobs from the ledger, keys and other programs."""
    from mlintern.tools.sandbox.isolation import HOW_TO_GET_IT, best_method

    method = best_method()
    if method is None:
        return Finding("missing", "isolation", "nothing here can isolate local jobs, so none starts", HOW_TO_GET_IT)
    if method == "landlock":
        stronger = "bubblewrap (apt install bubblewrap) also hides other processes and cuts off all of the network."
        return Finding("note", "isolation", "local jobs are isolated by Landlock", stronger)
    return Finding("ok", "isolation", f"local jobs are isolated by {method}")


@runtime_checkable
class Examined(Protocol):
    """A backend elsewhere, which can tell more about itself than its hardware."""

    async def examine(self) -> str: ...


async def _backends(lab: Lab) -> list[Finding]:
    try:
        backends = lab.backends
    except MlinternError as error:
        return [Finding("missing", "config.toml", error.message, error.next_step, blocks=True)]
    found: dict[str, Finding] = {}

    async def look(name: str, backend: Backend) -> None:
        found[name] = await _backend(name, backend)

    async with anyio.create_task_group() as group:  # each may take until its time-out
        for name, backend in backends.items():
            group.start_soon(look, name, backend)
    absent = [
        Finding("note", f"backend {name}", "not configured", how)
        for name, how in CONFIGURE.items()
        if name not in backends
    ]
    return [*(found[name] for name in backends), *absent]


async def _backend(name: str, backend: Backend) -> Finding:
    """Whether ``backend`` can be used now, and otherwise what is missing."""
    try:
        about = [await backend.examine()] if isinstance(backend, Examined) else []
        hardware = await backend.hardware()
    except MlinternError as error:
        return Finding("missing", f"backend {name}", error.message, error.next_step)
    offers = ", ".join(f"{item.name} ({item.slots} at once)" if item.slots else item.name for item in hardware)
    return Finding("ok", f"backend {name}", "; ".join([*about, f"offers {offers or 'nothing'}"]))


def _key(name: str, use: str) -> Finding:
    if os.environ.get(name):
        return Finding("ok", name, f"set ({use})")
    return Finding("note", name, f"not set ({use})")
