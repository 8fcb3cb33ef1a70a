"""Jobs that this workspace did not submit: named as their backend or a browser does, ended if a person agrees.

``slurm:1234``, ``ray:raysubmit_x``, ``hf_jobs:NAMESPACE/ID``, or the address of a job's page at Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import anyio.to_thread

from mlintern.common.redact import redact
from mlintern.common.text import did_you_mean
from mlintern.tools.errors import BadInput, Conflict
from mlintern.tools.jobs import job_rows
from mlintern.tools.jobs.backend import Backend, ForeignJob, SharedBackend
from mlintern.tools.jobs.job_results import JobStatus
from mlintern.tools.jobs.spec import FINAL
from mlintern.tools.ledger import Ledger

_PAGE = re.compile(r"https?://[^/\s]+/jobs/(?P<reference>[^/\s?#]+/[^/\s?#]+)/?(?:[?#].*)?")
_NAMED = re.compile(r"(?P<backend>[a-z][a-z0-9_]*):(?P<reference>\S+)")


class ForeignJobs:
    """The jobs of others on the backends of one workspace."""

    def __init__(self, *, ledger: Ledger, backends: Mapping[str, Backend]) -> None:
        self._ledger = ledger
        self._backends = backends

    async def own(self, job_id: str) -> str:
        """The job_id of what may be named as its backend does, if it is a job of this workspace; else as given."""
        named = _parse(job_id)
        if named is None:
            return job_id

        def look() -> str | None:
            with self._ledger.read() as connection:
                return job_rows.by_reference(connection, backend=named[0], reference=named[1].rpartition("/")[2])

        return await anyio.to_thread.run_sync(look) or job_id

    async def find(self, job_id: str) -> ForeignJob | None:
        """The job of somebody else that ``job_id`` names; None if it is one of this workspace, or may be one.

        Raises:
            BadInput: the backend is not set up here, or has no jobs of others.
            NotFound: the backend knows no such job.
            Conflict: it is over.
        """
        named = _parse(await self.own(job_id))
        if named is None:
            return None
        name, reference = named
        if name not in self._backends:
            raise BadInput(
                f"There is no backend {name!r} in this server.",
                next_step=did_you_mean(name, self._backends),
            )
        backend = self._backends[name]
        if not isinstance(backend, SharedBackend):
            raise BadInput(f"{name} runs no jobs but those of this workspace.", next_step="list_jobs names them.")
        job = await backend.foreign(reference)
        if job.state in FINAL:
            raise Conflict(f"The job {job.job_id} is over: {job.state}.", next_step="Nothing is left to cancel.")
        # Somebody's command line may hold a token, and what a person is asked is kept in the ledger.
        return replace(job, details=tuple((label, redact(value)) for label, value in job.details))

    async def cancel(self, job: ForeignJob) -> JobStatus:
        """Ask for the end of ``job``; the caller has seen to consent. Returns what the backend says next."""
        backend = self._backends[job.backend]
        assert isinstance(backend, SharedBackend), "it was found there"
        await backend.cancel_foreign(job)
        after = await backend.foreign(job.reference)
        return JobStatus(
            job_id=job.job_id,
            state=after.state,
            seconds_in_state=0.0,
            backend=job.backend,
            hardware="",
            detail="" if after.state in FINAL else "Its end was asked for.",
            next_step="It is not a job of this workspace, so poll_job does not follow it.",
        )


def _parse(job_id: str) -> tuple[str, str] | None:
    if page := _PAGE.fullmatch(job_id.strip()):
        return "hf_jobs", page["reference"]
    if named := _NAMED.fullmatch(job_id.strip()):
        return named["backend"], named["reference"]
    return None
