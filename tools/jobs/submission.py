"""From the intent to run a job to a backend that has it: once, whatever crashes and however many try.

The order is: the intent and its reservation in the ledger; a mark in the job folder that the backend is about to be
asked; the question to the backend; its answer in the ledger. A server that finds an intent without an answer looks at
the mark: without one nothing was asked and it asks; with one it looks the job up before anything else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.commands import shown_command
from mlintern.common.files import exclusive_lock, write_json_durably
from mlintern.tools.errors import BackendError, Conflict, MlinternError, Offline, WorkspaceError
from mlintern.tools.jobs import arguments, cron, job_rows, money
from mlintern.tools.jobs.backend import Backend, Billed, ScriptFile, Submission
from mlintern.tools.jobs.disk import named_disk_errors
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.spec import JobHandle, JobSpec, JobState
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

LOCK = "submission.lock"


class Scripts(Protocol):
    """Where scripts are kept (`mlintern.tools.scripts.store.ScriptStore`)."""

    def get(self, script_id: str, /) -> ScriptFile: ...


class Submitter:
    """Turns intents into submissions. All servers on a workspace may do so at once."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        ledger: Ledger,
        clock: Clock,
        scripts: Scripts,
        backends: Mapping[str, Backend],
        secret_value: Callable[[str], str | None],
        budget_usd: float | None,
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._clock = clock
        self._scripts = scripts
        self._backends = backends
        self._secret_value = secret_value
        self._budget_usd = budget_usd
        self._unfound: dict[str, float] = {}

    def record_intent(self, spec: JobSpec) -> bool:
        """Put the intent and the reservation of its worst cost on record, in one step. False if it was there.

        Raises:
            OutOfBudget: the reservation would pass a limit; nothing is recorded.
            WorkspaceError: there is no room for its folder; nothing is recorded.
        """
        _make_room(self._workspace.job(spec.job_id))
        now = self._clock.now()
        with self._ledger.transaction() as connection:
            if not job_rows.insert(connection, spec, now=now):
                return False
            money.reserve(connection, spec, budget_usd=self._budget_usd, now=now)
        return True

    async def act(self, job_id: str, *, answer_to_caller: bool, restart: bool = False) -> None:
        """Bring a recorded intent to its backend, unless it is there or another process is just doing it.

        Args:
            answer_to_caller: someone waits for the answer and will be told of a refusal; the intent is then taken
                back, so that it can be tried again. Otherwise a refusal is recorded as a failed job.
            restart: the backend knows the job but says that it has to be submitted again.

        Raises:
            Offline: no answer came; the job may exist and will be looked up.
            WorkspaceError: the disk is full; nothing was started.
            MlinternError: the backend refused, and nothing was started (only with ``answer_to_caller``).
        """
        folder = self._workspace.job(job_id)
        with _submitting(folder) as ours:
            if not ours:
                return
            record = await anyio.to_thread.run_sync(self._load, job_id)
            if record.over or (record.handle is not None and not restart):
                return
            try:
                await self._bring(record, folder)
            except Offline:
                raise
            except WorkspaceError:
                # A full disk says nothing about the job. Who waits is told; otherwise the intent waits for space.
                if answer_to_caller and record.handle is None:
                    await anyio.to_thread.run_sync(self._withdraw, record, folder)
                raise
            except MlinternError as error:
                if record.handle is not None or not answer_to_caller:
                    await anyio.to_thread.run_sync(self._fail, record, str(error))
                    return
                await anyio.to_thread.run_sync(self._withdraw, record, folder)
                raise

    async def forget_unsent(self, job_id: str, *, error: str) -> bool:
        """Cancel an intent that has surely not been sent yet. False if it may have been, or is just being sent."""
        folder = self._workspace.job(job_id)
        with _submitting(folder) as ours:
            if not ours or _was_attempted(folder):
                return False
            record = await anyio.to_thread.run_sync(self._load, job_id)
            return await anyio.to_thread.run_sync(self._end, record, "cancelled", error)

    async def find_unconfirmed(self, record: JobRecord) -> JobHandle | None:
        """The job at its backend, whose submission was attempted and is on record without a handle.

        Raises:
            Offline: the backend cannot be asked now.
        """
        if not _was_attempted(self._workspace.job(record.job_id)):
            return None
        return await self._looked_up(record, self._backends[record.spec.backend])

    async def _bring(self, record: JobRecord, folder: Path) -> None:
        backend = self._backends.get(record.spec.backend)
        if backend is None:
            raise Offline(  # another server may have it, or have asked it already
                f"The backend {record.spec.backend!r} is not set up in this server.",
                service=record.spec.backend,
                next_step=f"What it needs: {shown_command('mlintern-server', 'doctor')}",
            )
        if _was_attempted(folder) and record.handle is None:
            found = await self._looked_up(record, backend)
            if found is not None:
                self._unfound.pop(record.job_id, None)
                await self._confirm(record.job_id, found)
                return
            patience = backend.capabilities.lookup_seconds
            # Counted from the first look that found nothing, by a clock that nobody can set: a server whose wall
            # clock is hours ahead must not give up at once what is only not visible yet, and may be running.
            looked_since = self._unfound.setdefault(record.job_id, self._clock.monotonic())
            if patience > 0 and self._clock.monotonic() - looked_since < patience:
                return
            if patience > 0:
                del self._unfound[record.job_id]
                raise BackendError("The submission never reached the backend; nothing ran and nothing was spent.")
        self._unfound.pop(record.job_id, None)
        await _demand_payer(record.spec, backend)
        submission = await anyio.to_thread.run_sync(self._submission, record, folder)
        with named_disk_errors(folder):
            write_json_durably(
                folder / "spec.json",
                {"job_id": record.job_id, "digest": record.digest, "spec": record.spec.to_json()},
            )
            write_json_durably(folder / "submission.json", {"attempted_at": self._clock.now()})
        handle = await backend.submit(submission)
        await self._confirm(record.job_id, handle)

    async def _looked_up(self, record: JobRecord, backend: Backend) -> JobHandle | None:
        """What the backend says about a submission that may have reached it. Only an answer counts as one."""
        try:
            await _demand_payer(record.spec, backend)
            return await backend.find(record.job_id)
        except Offline:
            raise
        except MlinternError as error:  # asked to wait, or not let in: the job may be running all the same
            raise Offline(
                f"Whether the submission of {record.job_id} arrived cannot be found out now: {error.message}",
                service=backend.name,
                next_step=error.next_step or "It is looked for at each poll_job.",
            ) from error

    def _submission(self, record: JobRecord, folder: Path) -> Submission:
        spec = record.spec
        script = self._scripts.get(spec.script_id)
        if hashlib.sha256(script.text.encode()).hexdigest() != spec.script_sha256:
            raise Conflict(
                f"The script {spec.script_id} is not the one that was planned; its file was changed.",
                next_step="Render or edit it again, which gives it a new script_id, and submit that.",
            )
        secrets = {name: value for name in spec.secrets if (value := self._secret_value(name))}
        arguments.check_secrets(spec.secrets, available=secrets)
        until = cron.end(spec.schedule, since=record.created_at) if spec.schedule else None
        return Submission(record.job_id, spec, script, folder, secrets, until)

    def _load(self, job_id: str) -> JobRecord:
        with self._ledger.read() as connection:
            return job_rows.get(connection, job_id)

    async def _confirm(self, job_id: str, handle: JobHandle) -> None:
        """Record that the backend has the job. Where that fails the job is there all the same: it stays intended."""
        try:
            await anyio.to_thread.run_sync(self._keep, job_id, handle)
        except MlinternError as error:
            raise Offline(
                f"{handle.backend} has {job_id}, but that could not be written down: {error.message}",
                service=handle.backend,
                next_step="It is looked up at the next poll_job.",
            ) from error

    def _keep(self, job_id: str, handle: JobHandle) -> None:
        with self._ledger.transaction() as connection:
            job_rows.set_handle(connection, job_id, handle=handle)

    def _withdraw(self, record: JobRecord, folder: Path) -> None:
        (folder / "submission.json").unlink(missing_ok=True)
        with self._ledger.transaction() as connection:
            money.withdraw(connection, record.job_id, now=self._clock.now())
            job_rows.withdraw(connection, record.job_id)

    def _fail(self, record: JobRecord, error: str) -> None:
        self._end(record, "failed", error)

    def _end(self, record: JobRecord, state: JobState, error: str) -> bool:
        now = self._clock.now()
        with self._ledger.transaction() as connection:
            ended = job_rows.advance(
                connection,
                record.job_id,
                seen=record.state,
                state=state,
                now=now,
                finished_at=now,
                error=error,
                summary={},
            )
            if ended:
                money.settle(connection, record.job_id, seconds=0.0, now=now)
        return ended


def _make_room(folder: Path) -> None:
    """What `_submitting` needs of the disk, so that an intent is recorded only where it can be acted on."""
    with named_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / LOCK).touch()


@contextlib.contextmanager
def _submitting(folder: Path) -> Iterator[bool]:
    """The right to bring the job of ``folder`` to its backend; False while another process has it."""
    with contextlib.ExitStack() as held:
        _make_room(folder)
        with named_disk_errors(folder):
            ours = held.enter_context(exclusive_lock(folder / LOCK, blocking=False))
        yield ours


async def _demand_payer(spec: JobSpec, backend: Backend) -> None:
    """Nothing is sent, or looked for, in the name of another account than the one that was agreed to."""
    if (
        spec.billed_to is not None
        and isinstance(backend, Billed)
        and (payer := await backend.payer()) != spec.billed_to
    ):
        raise Conflict(
            f"The job was to be billed to {spec.billed_to!r}; jobs on {backend.name} are billed to {payer!r} now.",
            next_step="Set that account back, or submit again, which asks for the new one.",
        )


def _was_attempted(folder: Path) -> bool:
    return (folder / "submission.json").exists()
