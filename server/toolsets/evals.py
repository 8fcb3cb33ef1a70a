"""Read results, tell improvement from noise, and see early that a run is failing."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import Context, Resolve
from pydantic import Field

from mlintern.server import reading
from mlintern.server.asking import Consent
from mlintern.server.reading import consent_to_comparing, consent_to_evaluation, consent_to_source
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.tools.evals.comparison_results import Comparison
from mlintern.tools.evals.result_rows import EvalPage, Which
from mlintern.tools.health.findings import Diagnosis
from mlintern.tools.scripts.chat_results import ChatResult

Side = "job_id, file, folder or Hub repository"


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Read evaluation", read_only=True, open_world=True)
    async def read_eval(
        source: Annotated[str, Field(description=Side)],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_evaluation)],
        task: Annotated[str | None, Field(description="* is anything")] = None,
        limit: Annotated[int | None, Field(ge=1, le=500)] = None,
        cursor: Annotated[str | None, Field(description="next_cursor")] = None,
        samples: Annotated[Which | None, Field(description="Items")] = None,
        metric: Annotated[str, Field(description="Only this")] = "",
        against: Annotated[str, Field(description="The other, for flipped")] = "",
    ) -> EvalPage:
        """Read evaluation results of any harness as rows: task, metric, value, stderr, n.

        Also what Hub models publish. Score near 0: samples=wrong. Run one: render_script.
        """
        await reading.settle([source, against], consent, ctx=ctx, lab=lab, tool="read_eval")
        if samples is not None:
            return await lab.evals.read_samples(
                source,
                which=samples,
                task=task,
                metric=metric or None,
                against=against or None,
                limit=limit or 10,
                cursor=cursor,
            )
        return await lab.evals.read(source, task=task, limit=limit or 40, cursor=cursor)

    @registry.tool(title="Compare evaluations", read_only=True, open_world=True)
    async def compare_evals(
        baseline: Annotated[
            str | list[str],
            Field(description="As in read_eval, or run name; a list: seeds"),
        ],
        candidate: Annotated[str | list[str], Field(description="The same")],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_comparing)],
        task: Annotated[str | None, Field(description="Only this")] = None,
        metric: Annotated[str | None, Field(description="Only this")] = None,
        tries: Annotated[int, Field(ge=1, description="Candidates in all")] = 1,
    ) -> Comparison:
        """Test whether a candidate is better than a baseline, with an interval.

        Paired by item, corrected for tries: improved, regressed, no_evidence or not_comparable; why.
        """
        await reading.settle(
            [*reading.listed(baseline), *reading.listed(candidate)], consent, ctx=ctx, lab=lab, tool="compare_evals"
        )
        return await lab.evals.compare(baseline, candidate, task=task, metric=metric, tries=tries)

    @registry.tool(title="Chat", read_only=True, open_world=False)
    async def chat(
        job_id: Annotated[str, Field(description="A training")],
        prompts: Annotated[list[str], Field(max_length=8, description="At most 8")],
    ) -> ChatResult:
        """Ask a trained model here, beside the one before training.

        Greedy, 200 tokens. running: call again. An impression, no measurement.
        """
        return await lab.chat.before_and_after(job_id, prompts)

    @registry.tool(title="Diagnose run", read_only=True, open_world=False)
    async def diagnose_run(
        source: Annotated[str, Field(description="job_id, or path of a log")],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_source)],
    ) -> Diagnosis:
        """Judge the health of a training run from its metrics.

        Names divergence, reward collapse, KL blow-up and others: step, evidence, what to change.
        """
        from mlintern.tools.health.diagnose import diagnose_source

        await reading.settle([source], consent, ctx=ctx, lab=lab, tool="diagnose_run")
        return await diagnose_source(source, workspace=lab.workspace, ledger=lab.ledger)
