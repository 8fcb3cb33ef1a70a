"""Stop a job. A job of this workspace is stopped at once; about anybody else's a person is asked."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from mcp.server.mcpserver import Context, Resolve
from mcp.types import CallToolResult
from pydantic import Field

from mlintern.common.consent import Action
from mlintern.server.apps.approval_card import CARD_META
from mlintern.server.asking import Asked, Consent, Verdict
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.strict_server import answer
from mlintern.tools.errors import BadInput
from mlintern.tools.jobs.backend import ForeignJob
from mlintern.tools.jobs.job_results import CancelResult

SAVES = "It ends after its present step, saves and goes on to its evaluation: poll_job shows when it is over."


async def find_foreign(job_id: str, ctx: Context[Lab]) -> ForeignJob | None:
    """The job that ``job_id`` names, if it is not one of this workspace."""
    return await ctx.request_context.lifespan_context.foreign_jobs.find(job_id)


async def consent_to_end(foreign: Annotated[ForeignJob | None, Resolve(find_foreign)], ctx: Context[Lab]) -> Asked:
    if foreign is None:
        return Verdict(status="approved", via="own job")
    return await ctx.request_context.lifespan_context.gate.ask(ending(foreign), ctx)


def ending(job: ForeignJob) -> Action:
    """Ending somebody's ``job``, described for the person who decides."""
    return Action(
        kind="cancel_job",
        what="Cancel somebody else's job",
        name=job.reference,
        where=job.backend,
        digest=hashlib.sha256(f"cancel_job {job.job_id} {job.identity}".encode()).hexdigest()[:32],
        details=(("Job", job.reference), ("Name", job.name), *job.details),
    )


def register_cancel(registry: Registry, lab: Lab) -> None:
    """The tool ``cancel_job`` of the toolset jobs."""

    @registry.tool(title="Cancel job", read_only=False, open_world=True, destructive=True, meta=CARD_META)
    async def cancel_job(
        job_id: Annotated[
            str,
            Field(description="Ours; or slurm:NUMBER, ray:SUBMISSION_ID, hf_jobs:NAMESPACE/ID"),
        ],
        foreign: Annotated[ForeignJob | None, Resolve(find_foreign)],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_end)],
        reason: Annotated[str, Field(description="Kept with the job")] = "",
        save: Annotated[bool, Field(description="Training: save the model first")] = False,
    ) -> Annotated[CallToolResult, CancelResult]:
        """Stop a job with all it started, a schedule with its runs.

        What it wrote stays. About another's job the user is asked, as by submit_job.
        """
        if foreign is None:
            own = await lab.foreign_jobs.own(job_id)
            if save:
                status = await lab.jobs.finish(own)
                return answer(CancelResult(status="asked_to_save", note=SAVES, **status.model_dump()))
            status = await lab.jobs.cancel(own, reason=reason)
            return answer(CancelResult(status="asked_to_end", **status.model_dump()))
        if save:
            raise BadInput(f"{job_id} was not submitted here.", next_step="Cancel it without save.")
        action = ending(foreign)
        settled = await lab.gate.settle(action, consent, ctx, tool="cancel_job")
        if settled.refusal is not None:
            return answer(_untouched(foreign, settled.refusal), meta=settled.card)
        status = await lab.foreign_jobs.cancel(foreign)
        note = settled.with_note("")
        return answer(
            CancelResult(status="asked_to_end", digest=action.consent_digest, note=note, **status.model_dump())
        )


def _untouched(job: ForeignJob, refusal: dict[str, Any]) -> CancelResult:
    return CancelResult(
        **refusal,
        job_id=job.job_id,
        state=job.state,
        seconds_in_state=0.0,
        backend=job.backend,
        hardware="",
    )
