"""Really runs a script on this machine's processor, for two steps, with a tiny random model and a few of its rows.

The run is looked after as a local job is, by a supervisor of its own that outlives the server, but in a folder,
queue and slot of its own: it is no job, costs nothing, and stands in nobody's way. It is found again by what it runs,
so that a call that ends before it does is simply made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.files import exclusive_lock, write_json_durably
from mlintern.common.redact import redact
from mlintern.tools.errors import MlinternError
from mlintern.tools.jobs.backend import BackendStatus, Submission
from mlintern.tools.jobs.backends.job_folder import JobFolder
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.jobs.backends.local.confinement import paths_in
from mlintern.tools.jobs.backends.local.interpreter import header_of
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.spec import JobHandle, JobSpec
from mlintern.tools.sandbox.isolation import FindMethod
from mlintern.tools.scripts import tiny_model, trial, trial_rewards
from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.dry_findings import Ended, findings
from mlintern.tools.scripts.dry_seen import read_seen
from mlintern.tools.scripts.dry_settings import (
    ROWS,
    SEAM,
    VARIABLE,
    Constants,
    dry_settings,
    has_seam,
    without_replaced,
)
from mlintern.tools.scripts.script_inputs import Materials, Rows, save_as_dataset, unavailable
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.store import Script
from mlintern.tools.scripts.trial_plan import can_be_tried, code_of, hub_data, plan_of
from mlintern.tools.workspace import Workspace

LIMIT_SECONDS = 180.0
MEMORY_GIB = 8.0
KEPT_SECONDS = 600.0
"""How long a result answers the same question again. After that the script is tried anew."""

LEFT_SECONDS = 24 * 3600.0
"""After this time a run that nobody asked for again is deleted."""

POLL_SECONDS = 0.2
FETCH_SECONDS = 30.0
ROWS_FETCHED = 4 * ROWS
CUT_SHORT = ("timed_out", "cancelled", "lost")


@dataclass(frozen=True)
class Trial:
    """How far a dry run is. ``checks`` is empty while it runs."""

    state: Literal["running", "over"]
    checks: tuple[Check, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class _Program:
    """What the supervisor starts: it makes the tiny model in the script's environment, then becomes the script."""

    text: str
    requirements: tuple[str, ...]
    python: str | None
    script_id: str
    sha256: str
    name: str = "dry run"
    recipe: dict[str, Any] | None = None


class DryRunner:
    """Tries scripts, one at a time in a workspace.

    Args:
        python: the interpreter that local jobs try before uv makes an environment.
        limit_seconds: a run that takes longer is ended, with everything that it started.
        memory_limit_gib: a run that takes more is ended.
        environ: the server's environment; of it the script sees what a local job sees, and no secret.
        isolation: as of local jobs; a try that needs nothing from the Hub reaches no network either.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        clock: Clock,
        materials: Materials,
        python: str | None = None,
        limit_seconds: float = LIMIT_SECONDS,
        memory_limit_gib: float = MEMORY_GIB,
        environ: Mapping[str, str] | None = None,
        isolation: FindMethod | None = None,
    ) -> None:
        self._clock = clock
        self._materials = materials
        self._limit_seconds = limit_seconds
        self._workspace = Workspace(workspace.folder("dry-runs"))
        self._backend = LocalBackend(
            workspace=self._workspace,
            clock=clock,
            python=python,
            memory_limit_gib=memory_limit_gib,
            grace_seconds=2.0,
            environ=os.environ if environ is None else environ,
            environments=workspace.folder("environments"),
            isolation=isolation,
            protected=workspace.root,
        )

    @property
    def limit_seconds(self) -> float:
        return self._limit_seconds

    async def run(self, script: Script, *, wait_seconds: float) -> Trial:
        """Start the dry run of ``script``, or find it again, and wait for its end up to ``wait_seconds``.

        Raises:
            MissingDependency: no interpreter can be had that has what the script needs.
            WorkspaceError: the disk is full.
        """
        constants = Constants.of(script.text)
        if constants is None or not can_be_tried(script.text):
            return Trial("over", (without_seam(),))
        deadline = self._clock.monotonic() + wait_seconds
        run_id = _identity(script, constants)
        folder = self._workspace.job(run_id)
        with named_disk_errors(self._workspace.root):
            done = await anyio.to_thread.run_sync(self._earlier, folder)
            if done is not None:
                return done
            if await self._backend.find(run_id) is None:
                with anyio.move_on_after(min(FETCH_SECONDS, wait_seconds)) as scope:
                    if (failed := await self._start(script, constants, run_id)) is not None:
                        return failed
                if scope.cancelled_caught:
                    return Trial("running", note="The tokenizer and the first rows are still being fetched.")
            return await self._follow(script, run_id, deadline)

    # Starting

    async def _start(self, script: Script, constants: Constants, run_id: str) -> Trial | None:
        """Have what it needs, then start it. The result if it cannot be had."""
        assert constants.model is not None
        try:
            model = await self._materials.whole_model_files(constants.model, constants.revision)
        except MlinternError as error:
            return Trial("over", (unavailable("tokenizer_unavailable", f"model {constants.model}", error=error),))
        remote: dict[str, Rows] = {}
        by_hand = not has_seam(script.text)
        sources, network = constants.data(), constants.uses_hub
        if by_hand:
            code = code_of(script.text)
            assert code is not None
            loaded, whole = hub_data(code)
            sources, network = {one.key: one.source for one in loaded}, not whole
        for name, source in sources.items():
            if is_local(source.name):
                continue
            try:
                remote[name] = await self._materials.first_rows(source, ROWS_FETCHED)
            except MlinternError as error:
                return Trial("over", (unavailable("data_unavailable", f"dataset {source.name}", error=error),))
        folder = self._workspace.job(run_id)
        with exclusive_lock(self._lock(run_id), blocking=False) as ours:
            if not ours:
                return None  # another call is just starting it
            await anyio.to_thread.run_sync(self._clear_away, folder)
            copies = {
                name: await anyio.to_thread.run_sync(save_as_dataset, rows, sources[name], folder / f"data-{number}")
                for number, (name, rows) in enumerate(remote.items())
            }
            path = folder / "tried.py"
            path.write_bytes(script.text.encode())
            watcher = folder / "watching"
            watcher.mkdir()
            for module in (trial, trial_rewards):
                file = Path(module.__file__ or "")
                (watcher / file.name).write_bytes(file.read_bytes())
            tiny = folder / "work" / "tiny-model"
            plan = plan_of(script.text, constants, tiny=tiny, copies=copies if by_hand else {})
            env = {trial.VARIABLE: json.dumps(plan, default=str)}
            if by_hand:
                env |= {"WANDB_MODE": "disabled", "MPLBACKEND": "agg"}
            else:
                env[VARIABLE] = json.dumps(dry_settings(constants, model=tiny, data=copies))
            if not network:
                env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
            await self._backend.submit(
                Submission(
                    job_id=run_id,
                    spec=JobSpec(
                        script_id=script.script_id,
                        script_sha256=script.sha256,
                        backend="local",
                        hardware="cpu",
                        timeout_seconds=self._limit_seconds,
                        args=(str(model), str(tiny), str(path), str(watcher / "trial.py")),
                        env=tuple(sorted(env.items())),
                    ),
                    script=_program(script),
                    folder=folder,
                    reads=(path, watcher, *copies.values()),
                    names=(str(model), *(source.name for source in sources.values()), *paths_in(script.text)),
                    network=network,
                )
            )
        return None

    def _clear_away(self, folder: Path) -> None:
        """Make an empty ``folder``, and forget the results that no call would be given any more."""
        jobs, now = folder.parent, self._clock.now()
        for old in jobs.iterdir() if jobs.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # another server was faster
                left = not JobFolder(old).supervised() and now - old.stat().st_mtime > LEFT_SECONDS
                if left or _age(old, now) > KEPT_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    # Following

    async def _follow(self, script: Script, run_id: str, deadline: float) -> Trial:
        handle = JobHandle("local", run_id)
        while True:
            status = BackendStatus("queued", detail="another call is starting it")
            if await self._backend.find(run_id) is not None:
                status = await self._backend.status(handle)
            if status.restartable:
                status = BackendStatus("lost", error="Its supervisor vanished before it ran.")
            if status.state not in ("queued", "running"):
                return await anyio.to_thread.run_sync(self._conclude, script, run_id, status)
            if self._clock.monotonic() >= deadline:
                how = f"for {status.run_seconds:.0f} s" if status.run_seconds else f"({status.detail or 'starting'})"
                return Trial("running", note=f"It has been {status.state} {how}.")
            await anyio.sleep(POLL_SECONDS)  # not a polite wait, so it is not scaled

    def _conclude(self, script: Script, run_id: str, status: BackendStatus) -> Trial:
        """What the ended run shows, put on record; what it wrote is deleted. Of several callers one does so."""
        folder = self._workspace.job(run_id)
        with exclusive_lock(self._lock(run_id)):
            return _recorded(folder) or self._record(script, folder, status)

    def _record(self, script: Script, folder: Path, status: BackendStatus) -> Trial:
        resources = status.resources or {}
        ended = Ended(
            state=status.state,
            error=status.error or "",
            log=redact(_tail(folder / "log.txt")),
            script=script,
            path=folder / "tried.py",
            has_model=any((folder / "work" / "tiny-model").glob("*.safetensors")),
            seen=read_seen(folder / "work" / "trial.jsonl"),
            output=folder / "output",
            seconds=resources.get("wall_seconds"),
            peak_bytes=resources.get("peak_rss_bytes"),
            limit_seconds=self._limit_seconds,
        )
        trial = Trial("over", tuple(findings(ended)))
        record = {"checks": [check.model_dump() for check in trial.checks], "at": self._clock.now()}
        if status.state in CUT_SHORT:
            record["at"] = 0.0  # it says little about the script: the next call tries again
        write_json_durably(folder / "result.json", record)
        for part in folder.iterdir():
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
        return trial

    def _earlier(self, folder: Path) -> Trial | None:
        """The result of the same run, if it is fresh; what is stale is removed."""
        age = _age(folder, self._clock.now())
        if 0 <= age <= KEPT_SECONDS:
            return _recorded(folder)
        if age > KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _lock(self, run_id: str) -> Path:
        return self._workspace.folder("locks") / run_id


def _recorded(folder: Path) -> Trial | None:
    try:
        found = json.loads((folder / "result.json").read_bytes())
    except FileNotFoundError:
        return None
    return Trial("over", tuple(Check.model_validate(check) for check in found["checks"]))


def without_seam() -> Check:
    """What to say of a script that cannot be tried."""
    return Check(
        rule="dry_run_seam",
        severity="error",
        message="It was not tried: no trainer of TRL or transformers is called with a model that its source names.",
        fix="Name the model as text where it is loaded or passed to the trainer. Or name what it trains as constants "
        f"at its top (MODEL, DATASET, LIMIT, HYPERPARAMETERS), and below them write:\n{SEAM}\nOr submit a short "
        "local job.",
    )


def _program(script: Script) -> _Program:
    source = Path(tiny_model.__file__).read_text(encoding="utf-8")
    header = header_of(script.text)
    return _Program(
        text=f"{header}\n{source}" if header else source,
        requirements=without_replaced(script.requirements),
        python=script.python,
        script_id=script.script_id,
        sha256=script.sha256,
    )


def _identity(script: Script, constants: Constants) -> str:
    """Names a run by the script and the local files that it reads, as they are now."""
    paths = [source.name for source in constants.data().values()] + [constants.model or ""]
    paths += paths_in(script.text) if not has_seam(script.text) else []
    stamps = [(path, list(_stamps(Path(path)))) for path in paths if is_local(path)]
    content = json.dumps([script.sha256, stamps])
    return f"dry-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        with contextlib.suppress(OSError):
            status = file.stat()
            yield file.name, status.st_size, status.st_mtime_ns


def _age(folder: Path, now: float) -> float:
    """Seconds since the result in ``folder`` was recorded; -1 if there is none."""
    try:
        return max(0.0, now - float(json.loads((folder / "result.json").read_bytes())["at"]))
    except (OSError, ValueError, KeyError):
        return -1.0


def _tail(path: Path, most: int = 200_000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
