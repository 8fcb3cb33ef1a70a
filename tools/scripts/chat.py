"""A few prompts to models of this machine, side by side: before and after a training.

Each question runs `chat_program` as a local job runs, in a folder and queue of its own: isolated, without network
and secrets, with limits of memory and time. It is no job of the ledger. The same question finds its answers again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.files import open_regular
from mlintern.common.redact import redact
from mlintern.common.text import cut_middle
from mlintern.tools.errors import BackendError, BadInput
from mlintern.tools.jobs import logs
from mlintern.tools.jobs.backend import Submission
from mlintern.tools.jobs.backends.local.backend import LocalBackend
from mlintern.tools.jobs.spec import FINAL, JobHandle, JobSpec
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts import chat_program
from mlintern.tools.scripts.chat_results import ChatResult, Exchange, Reply
from mlintern.tools.scripts.header import TESTED
from mlintern.tools.scripts.job_sources import JOB, model_of
from mlintern.tools.workspace import Workspace

MOST_PROMPTS, MOST_CHARACTERS, MOST_TOKENS = 8, 8_000, 1024
LIMIT_SECONDS, MEMORY_GIB, POLL_SECONDS, CALL_SECONDS = 600.0, 24.0, 0.2, 40.0
PACKAGES = ("accelerate", "peft", "torch", "transformers")
KEPT = 20
"""Questions whose answers are kept."""
LONGEST_SHOWN = 3_000
MOST_BYTES = 8 << 20


class Chat:
    """Asks models. ``backend`` is where `chat_program` runs: a local one of its own folder (see `Lab.chat`)."""

    def __init__(self, *, workspace: Workspace, ledger: Ledger, clock: Clock, backend: LocalBackend) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._backend = backend
        self._folder = Workspace(workspace.folder("chats"))

    async def before_and_after(
        self,
        job_id: str,
        prompts: Sequence[str],
        *,
        max_tokens: int = 200,
        wait_seconds: float = CALL_SECONDS,
    ) -> ChatResult:
        """What the model that a job made says to each prompt (greedy), beside the one that it began with.

        ``running`` after ``wait_seconds``: ask the same again.

        Raises:
            BadInput: too many or too long prompts, or no job.
            NotFound: there is no such job, or it made no model.
            BackendError: it ended without answers; its log says why.
        """
        _check(prompts, max_tokens)
        named = await anyio.to_thread.run_sync(self._models_of, job_id.strip())
        asked = {"models": named, "prompts": list(prompts), "max_new_tokens": max_tokens}
        stamps = [[name, *_stamps(Path(name))] for name in named]
        run_id = f"chat-{hashlib.sha256(json.dumps([asked, stamps]).encode()).hexdigest()[:16]}"
        deadline = self._clock.monotonic() + wait_seconds
        if await self._backend.find(run_id) is None:
            await self._start(run_id, asked)
        while True:
            status = await self._backend.status(JobHandle("local", run_id))
            if status.state in FINAL or status.restartable:
                told = await anyio.to_thread.run_sync(_answers, self._folder.job(run_id))
                if status.state == "succeeded" and told is not None:
                    return _result(named, prompts, told)
                raise await anyio.to_thread.run_sync(self._failure, run_id, status.error or status.state)
            if self._clock.monotonic() >= deadline:
                return ChatResult(status="running", models=named, note="Make the same call again for the answers.")
            await anyio.sleep(POLL_SECONDS)  # not a polite wait, so it is not scaled

    def _models_of(self, job_id: str) -> list[str]:
        if not JOB.fullmatch(job_id):
            raise BadInput(f"{job_id!r:.80} is no job.", next_step="Give a job_id; list_jobs names them.")
        with self._ledger.read() as connection:
            row = connection.execute(
                "SELECT json_extract(scripts.recipe, '$.model') AS base"
                " FROM jobs JOIN scripts USING (script_id) WHERE job_id = ?",
                (job_id,),
            ).fetchone()
        made = str(model_of(job_id, self._workspace))
        return [str(row["base"]), made] if row is not None and row["base"] else [made]

    async def _start(self, run_id: str, asked: dict[str, Any]) -> None:
        await anyio.to_thread.run_sync(self._forget_old)
        folder = self._folder.job(run_id)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        text = Path(chat_program.__file__).read_text(encoding="utf-8")
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        spec = JobSpec(
            script_id=sha256[:12],
            script_sha256=sha256,
            backend="local",
            hardware="cpu",
            timeout_seconds=LIMIT_SECONDS,
            args=(json.dumps(asked),),
            env=(("HF_DATASETS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "1")),
        )
        await self._backend.submit(
            Submission(
                job_id=run_id,
                spec=spec,
                script=_Program(text, sha256),
                folder=folder,
                names=tuple(asked["models"]),
                network=False,
            )
        )

    def _forget_old(self) -> None:
        jobs = self._folder.root / "jobs"
        old = sorted(jobs.iterdir(), key=lambda path: path.stat().st_mtime) if jobs.is_dir() else []
        for folder in old[: -KEPT or None]:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)

    def _failure(self, run_id: str, said: str) -> BackendError:
        folder = self._folder.job(run_id)
        tail = logs.read_tail(folder / "log.txt", lines=6, max_chars=1200, known=()).text.strip()
        shutil.rmtree(folder, ignore_errors=True)  # asked again, it is tried again
        return BackendError(
            f"The models gave no answers: {said}. {redact(tail)}".strip(),
            next_step="A model must be in safetensors and fit into memory; one of the Hub must be in the cache.",
        )


class _Program:
    """The program as a script that a job runs."""

    name, recipe, python = "chat", None, None

    def __init__(self, text: str, sha256: str) -> None:
        self.text, self.sha256, self.script_id = text, sha256, sha256[:12]
        self.requirements = tuple(f"{name}=={TESTED[name]}" for name in PACKAGES)


def _check(prompts: Sequence[str], max_tokens: int) -> None:
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise BadInput(f"{len(prompts)} prompts are given.", next_step=f"Give 1 to {MOST_PROMPTS}.")
    if any(not prompt.strip() or len(prompt) > MOST_CHARACTERS for prompt in prompts):
        raise BadInput("A prompt is empty or too long.", next_step=f"Give at most {MOST_CHARACTERS:,} characters.")
    if not 1 <= max_tokens <= MOST_TOKENS:
        raise BadInput(f"max_tokens is {max_tokens}.", next_step=f"Give 1 to {MOST_TOKENS}.")


def _stamps(path: Path) -> list[list[Any]]:
    if not path.is_absolute() or not path.is_dir():
        return []
    return [[file.name, file.stat().st_mtime_ns] for file in sorted(path.iterdir())]


def _answers(folder: Path) -> dict[str, Any] | None:
    """What the program of the run in ``folder`` wrote, as far as it can be taken for that."""
    descriptor = open_regular(folder / "output" / "answers.json", within=folder)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    try:
        told = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _result(models: list[str], prompts: Sequence[str], told: dict[str, Any]) -> ChatResult:
    def reply(model: str, at: int) -> Reply:
        said = Reply.model_validate({"model": model, **told[model][at]})
        return said.model_copy(update={"answer": cut_middle(said.answer, LONGEST_SHOWN)})

    exchanges = [
        Exchange(prompt=cut_middle(prompt, 500), replies=[reply(model, at) for model in models])
        for at, prompt in enumerate(prompts)
    ]
    return ChatResult(status="ok", models=models, exchanges=exchanges)
