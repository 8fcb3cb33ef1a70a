"""What was tried and what came of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.server.apps import client_supports_apps
from mcp.server.mcpserver import Context, Image
from mcp.types import CallToolResult
from pydantic import Field

from mlintern.server.apps.pages import PLOT_META
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.strict_server import answer
from mlintern.tools.runs.run_results import PlotResult, ReportResult, RunPage


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="List runs", read_only=True, open_world=False)
    async def list_runs(
        experiment: Annotated[str | None, Field(description="Only its runs")] = None,
        sort: Annotated[
            Literal["started", "best", "usd"],
            Field(description="best needs an experiment"),
        ] = "started",
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Field(description="next_cursor")] = None,
    ) -> RunPage:
        """List the runs of an experiment with recipe, state, best score, cost and verdict.

        Where the work stands; what to try next. Progress: poll_job.
        """
        await lab.jobs.bring_up_to_date(experiment=experiment)
        return await lab.runs.list(experiment=experiment, sort=sort, limit=limit, cursor=cursor)

    @registry.tool(title="Plot run", read_only=True, open_world=False, meta=PLOT_META)
    async def plot_run(
        ctx: Context[Lab],
        job_id: Annotated[str | None, Field(description="Its curves")] = None,
        experiment: Annotated[str | None, Field(description="Its scores")] = None,
    ) -> Annotated[CallToolResult, PlotResult]:
        """Draw a run's curves with its findings, or an experiment's scores with intervals, for the user.

        Give one of the two. Numbers: poll_job, list_runs.
        """
        plot, result = await lab.runs.plot(job_id=job_id, experiment=experiment)
        if client_supports_apps(ctx):
            return answer(result, meta={"mlintern/plot": plot.svg})
        shown = answer(result)
        if plot.png is not None:
            shown.content.append(Image(data=plot.png, format="png").to_image_content())
        return shown

    @registry.tool(title="Write report", read_only=False, open_world=False)
    async def write_report(
        experiment: Annotated[str, Field(description="Its name")],
        goal: Annotated[str | None, Field(description="In words")] = None,
        target: Annotated[float | None, Field(description="Score to reach: 0.85")] = None,
        baseline: Annotated[str | None, Field(description="Run name or job_id")] = None,
        task: Annotated[str | None, Field(description="Judge by it")] = None,
        metric: Annotated[str | None, Field(description="Judge by it")] = None,
    ) -> ReportResult:
        """Write an experiment's report as Markdown and HTML with charts; returns the paths.

        Runs with recipe and cost, scores with intervals. Replaces the earlier report; publishes nothing.
        """
        return await write_report_of(
            lab, experiment, goal=goal, target=target, baseline=baseline, task=task, metric=metric
        )


async def write_report_of(lab: Lab, experiment: str, **choices: Any) -> ReportResult:
    """Write the report, with the certificate of an experiment that was opened; ``choices`` as `RunService.report`."""
    headline, section, certificate = "", "", None
    if await lab.experiment_of({"experiment": experiment}) is not None:
        from mlintern.tools.campaigns import report_part

        certificate = lab.runs.folder(experiment) / "certificate.json"
        written = await lab.certifier.write(experiment, certificate)
        status = await lab.campaigns.poll(experiment)
        headline, section = report_part.headline(status, written), report_part.section(status, written)
    result = await lab.runs.report(experiment, headline=headline, section=section, **choices)
    return result.model_copy(update={"certificate": str(certificate) if certificate else None})
