"""Jobs, scripts and runs as resources, for hosts that attach them to a conversation or watch them change."""

from __future__ import annotations

import anyio.to_thread
from mcp.server import MCPServer

from mlintern.server.lab import Lab

RUNS_SHOWN = 50


def register_resources(server: MCPServer[Lab], lab: Lab) -> None:
    @server.resource(
        "mlintern://jobs/{job_id}",
        name="job",
        title="Job",
        description="State, progress, metrics and findings of one job, as poll_job reports them.",
        mime_type="application/json",
    )
    async def job(job_id: str) -> str:
        return (await lab.lookout.poll(job_id)).model_dump_json()

    @server.resource(
        "mlintern://scripts/{script_id}",
        name="script",
        title="Script",
        description="The exact text of one script, as a job runs it.",
        mime_type="text/x-python",
    )
    async def script(script_id: str) -> str:
        return (await anyio.to_thread.run_sync(lab.scripts.get, script_id)).text

    @server.resource(
        "mlintern://runs",
        name="runs",
        title="Runs",
        description=f"The latest {RUNS_SHOWN} runs of all experiments, with their scores and what they cost.",
        mime_type="application/json",
    )
    async def runs() -> str:
        return (await lab.runs.list(limit=RUNS_SHOWN)).model_dump_json()
