"""Jobs, scripts and runs as resources, for hosts that attach them to a conversation or watch them change."""

from __future__ import annotations

import anyio.to_thread
from mcp.server import MCPServer
from mcp.types import Completion, CompletionArgument, CompletionContext, PromptReference, ResourceTemplateReference

from mlintern.server.services import Lab
from mlintern.tools.ledger import Ledger

RUNS_SHOWN = 50
MOST_COMPLETIONS = 20
COMPLETED = {
    "job_id": "SELECT job_id FROM jobs WHERE substr(job_id, 1, ?) = ? ORDER BY created_at DESC LIMIT ?",
    "script_id": "SELECT script_id FROM scripts WHERE substr(script_id, 1, ?) = ? ORDER BY created_at DESC LIMIT ?",
    "experiment": "SELECT name FROM experiments WHERE substr(name, 1, ?) = ? ORDER BY created_at DESC LIMIT ?",
}


def register_resources(server: MCPServer[Lab], lab: Lab) -> None:
    @server.resource(
        "mlintern://jobs/{job_id}",
        name="job",
        title="Job",
        description="State, progress, metrics and findings of one job, as poll_job reports them.",
        mime_type="application/json",
    )
    async def job(job_id: str) -> str:
        return (await lab.jobs.poll(job_id)).model_dump_json()

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

    @server.resource(
        "mlintern://graphs/{walk_id}",
        name="citation_graph",
        title="Citation graph",
        description="All papers and citations of one walk_citations, as GraphML.",
        mime_type="application/graphml+xml",
    )
    async def graph(walk_id: str) -> str:
        return (await anyio.to_thread.run_sync(lab.papers.graph, walk_id)).graphml

    @server.resource(
        "mlintern://graphs/{walk_id}/picture",
        name="citation_picture",
        title="Citation picture",
        description="The best papers of one walk_citations by year and citations, as SVG.",
        mime_type="image/svg+xml",
    )
    async def picture(walk_id: str) -> str:
        return (await anyio.to_thread.run_sync(lab.papers.graph, walk_id)).svg

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, _: CompletionContext | None
    ) -> Completion | None:
        """Ids and names that begin as typed, newest first; for resources and for the arguments of prompts."""
        if argument.name not in COMPLETED:
            return None
        query = COMPLETED[argument.name]
        found = await anyio.to_thread.run_sync(_begin_with, lab.ledger, query, argument.value)
        return Completion(values=found[:MOST_COMPLETIONS], has_more=len(found) > MOST_COMPLETIONS)


def _begin_with(ledger: Ledger, query: str, start: str) -> list[str]:
    with ledger.read() as connection:
        rows = connection.execute(query, (len(start), start, MOST_COMPLETIONS + 1)).fetchall()
    return [row[0] for row in rows]
