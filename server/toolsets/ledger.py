"""What was tried and what came of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlintern.server.lab import Lab
from mlintern.server.registry import Registry
from mlintern.tools.runs.results import ReportResult, RunPage


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="List runs", read_only=True, open_world=False)
    async def list_runs(
        experiment: Annotated[str | None, Field(description="Only runs of this experiment")] = None,
        sort: Annotated[str, Field(description="best, newest, oldest or cost")] = "newest",
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Field(description="next_cursor of the page before")] = None,
    ) -> RunPage:
        """List the runs of an experiment with recipe, state, best score, cost and verdict.

        A run is a job seen as a trial: use this to decide what to try next, and after a break to find out where the
        work stands. Logs and live progress are poll_job's subject.
        """
        return await lab.runs.list(experiment=experiment, sort=sort, limit=limit, cursor=cursor)

    @registry.tool(title="Write report", read_only=False, open_world=False)
    async def write_report(
        experiment: Annotated[str, Field(description="The experiment to report on")],
    ) -> ReportResult:
        """Write the report of an experiment as Markdown with charts into the workspace, and return its path.

        Contains every run with recipe and cost, the scores with their intervals against the baseline, a learning
        curve and a bar chart. Written from the ledger alone; it may be called again at any time and replaces the
        earlier report. It publishes nothing.
        """
        return await lab.runs.report(experiment)
