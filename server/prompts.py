"""The prompt that carries the method: how a careful person post-trains a model with these tools."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import Field

METHOD = """\
{goal}

{given}

Work like a careful researcher and use the mlintern tools:

1. Say what counts as success: the benchmark, its metric, the target, and the held-out data it is measured on. Never \
train on that data; check_contamination compares the two where they could overlap.
2. Read before building. Find the papers that report the best results on this benchmark or a close one, read their \
method and their hyperparameters, and walk their citations for what came after.
3. Look at the data. inspect_dataset on every candidate: columns, formats, issues, samples. Choose what fits the \
trainer; say why.
4. Measure the untrained model first, with the same evaluation recipe that will judge the result. Nothing can be \
called an improvement without this baseline.
5. Start small. Render the script, check it (level template, then dry_run), estimate it, and run a short job that \
proves the pipeline before a long one. One change at a time, each as a run of the same experiment.
6. Watch while it trains: poll_job, diagnose_run. Stop what is failing and say what the evidence was.
7. Decide on evidence: compare_evals against the baseline. An interval that includes zero is no improvement. If the \
target is missed, say what the next run changes and why, and stop when the budget is spent.
8. Finish with write_report: what was tried, what it cost, what was gained, with the intervals, and what did not work.

Ask before spending, keep the user's limits, and report failures as failures."""


def register_prompts(server: MCPServer[Any]) -> None:
    @server.prompt(
        name="post_train",
        title="Post-train a model",
        description="The method from goal to report: baseline first, small runs, decisions on evidence.",
    )
    def post_train(
        goal: Annotated[str, Field(description="What to achieve, in a sentence")],
        model: Annotated[str, Field(description="The base model: a Hub id or a local path")] = "",
        benchmark: Annotated[str, Field(description="What the result is measured on")] = "",
        dataset: Annotated[str, Field(description="Data to train on, if it is already chosen")] = "",
        target: Annotated[str, Field(description="The value to reach, such as 'accuracy 0.85'")] = "",
        budget: Annotated[str, Field(description="What may be spent: money, time, hardware")] = "",
    ) -> str:
        given = {
            "Base model": model,
            "Benchmark": benchmark,
            "Training data": dataset,
            "Target": target,
            "Budget": budget,
        }
        lines = [f"- {label}: {value}" for label, value in given.items() if value]
        return METHOD.format(goal=goal.strip(), given="\n".join(lines) or "Nothing else is fixed: ask what you need.")
