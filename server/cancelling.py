"""Stop a job. A job of this workspace is stopped at once; about anybody else's a person is asked."""

from __future__ import annotations

import hashlib
from typing import Annotated

from mcp.server.mcpserver import Context, Elicit, Resolve
from mcp.types import CallToolResult
from pydantic import Field

from mlintern.server.approvals import Approval, Consent, Verdict
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.strict_server import as_result
from mlintern.tools.approvals import Action
from mlintern.tools.jobs.backend import ForeignJob
from mlintern.tools.jobs.job_results import CancelResult

BY_COMMAND = (
    "This host cannot ask the user. Show them the command in how_to_approve and which job it ends; after they ran it,"
    " call cancel_job again with the same arguments."
)


async def find_foreign(job_id: str, ctx: Context[Lab]) -> ForeignJob | None:
    """The job that ``job_id`` names, if it is not one of this workspace."""
    return await ctx.request_context.lifespan_context.foreign_jobs.find(job_id)


async def consent_to_end(
    foreign: Annotated[ForeignJob | None, Resolve(find_foreign)], ctx: Context[Lab]
) -> Verdict | Elicit[Approval]:
    if foreign is None:
        return Verdict(status="approved", via="own job")
    return await ctx.request_context.lifespan_context.gate.ask(ending(foreign), ctx)


def ending(job: ForeignJob) -> Action:
    """Ending somebody's ``job``, described for the person who decides."""
    return Action(
        kind="cancel_job",
        what=f"Cancel job {job.reference} of somebody else",
        where=job.backend,
        digest=hashlib.sha256(f"cancel_job {job.job_id} {job.identity}".encode()).hexdigest()[:32],
        details=(("Name", job.name), *job.details),
    )


def register_cancel(registry: Registry, lab: Lab) -> None:
    """The tool ``cancel_job`` of the toolset jobs."""

    @registry.tool(title="Cancel job", read_only=False, open_world=True, destructive=True)
    async def cancel_job(
        job_id: Annotated[
            str,
            Field(
                description="job_id from submit_job or list_jobs; or another's job: slurm:NUMBER,"
                " ray:SUBMISSION_ID, hf_jobs:NAMESPACE/ID or its page's address"
            ),
        ],
        foreign: Annotated[ForeignJob | None, Resolve(find_foreign)],
        consent: Annotated[Consent, Resolve(consent_to_end)],
        reason: Annotated[str, Field(description="Why; kept with the job")] = "",
    ) -> Annotated[CallToolResult, CancelResult]:
        """Stop a job and everything it started; what it has written so far stays. Ends a schedule with its runs.

        Checkpoints, metrics, logs and the cost up to now are kept. A job that is over cannot be cancelled. About a
        job that was not submitted from this workspace the user is asked first, with the statuses of submit_job.
        """
        if foreign is None:
            own = await lab.foreign_jobs.own(job_id)
            status = await lab.jobs.cancel(own, reason=reason)
            return _answer(CancelResult(status="asked_to_end", **status.model_dump()))
        action = ending(foreign)
        verdict = await lab.gate.settle(action, consent)
        if verdict.status != "approved":
            return _answer(_untouched(foreign, verdict, digest=action.digest))
        status = await lab.foreign_jobs.cancel(foreign)
        note = f"The user approved and wrote: {verdict.note}" if verdict.note else ""
        return _answer(CancelResult(status="asked_to_end", digest=action.digest, note=note, **status.model_dump()))


def _untouched(job: ForeignJob, verdict: Verdict, *, digest: str) -> CancelResult:
    denied = verdict.status == "denied"
    return CancelResult(
        status="denied" if denied else "approval_required",
        digest=digest,
        how_to_approve=verdict.how_to_approve or None,
        note=(verdict.note or "The user declined.") if denied else BY_COMMAND,
        job_id=job.job_id,
        state=job.state,
        seconds_in_state=0.0,
        backend=job.backend,
        hardware="",
    )


def _answer(result: CancelResult) -> CallToolResult:
    return as_result(result.model_dump(mode="json"))
