"""Prompts that people choose in their host: post-train, review a run, plan an experiment, review the literature."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import Field

METHOD = """\
{goal}

{given}

Work like a careful researcher and use the mlintern tools:

1. Say what counts as success: the benchmark, its metric, the target, and the held-out data it is measured on. \
Never train on that data; check_contamination compares the two where they could overlap.
2. Read before building. Find the papers that report the best results on this benchmark or a close one, read \
their method and their hyperparameters, and walk their citations for what came after.
3. Look at the data. inspect_dataset on every candidate: columns, formats, issues, samples. Choose what fits the \
trainer; say why.
4. Measure the untrained model first, with the same evaluation recipe that will judge the result. Nothing can be \
called an improvement without this baseline.
5. Start small. Render the script, check it (level template, then dry_run), estimate it, and run a short job \
that proves the pipeline before a long one. One change at a time, each as a run of the same experiment.
6. Watch while it trains: poll_job, diagnose_run. Stop what is failing and say what the evidence was.
7. Decide on evidence: compare_evals against the baseline. An interval that includes zero is no improvement. If \
the target is missed, say what the next run changes and why, and stop when the budget is spent.
8. Finish with write_report: what was tried, what it cost, what was gained, with the intervals, and what did not \
work.

Ask before spending, keep the user's limits, and report failures as failures."""


REVIEW = """\
Review the run {job_id}.

1. poll_job and read_job_logs: how did it end, what did it cost, what did it print last?
2. diagnose_run: are the curves healthy? Quote the evidence of every finding.
3. list_runs for its experiment, and read_eval where it was measured; compare_evals against the baseline. Look \
at a few wrong answers with samples="wrong", and at what was cut.
4. Say in this order: what is certain, with numbers and intervals; what is likely, and why; what the numbers do \
not show; and the one change that the next run should make. Do not start it."""

PLAN = """\
Plan an experiment, and start nothing: {goal}

{given}

1. Fix the measurement: benchmark, metric, held-out items split in a half to decide by and one to confirm by, \
seeds, and how many items the target difference needs (standard error of a share p over n items: \
sqrt(p(1-p)/n)).
2. search_papers and read_paper with part="recipe" for what was tried on this benchmark; inspect_dataset and \
inspect_model on the candidates; check_contamination of each against the items.
3. Propose three to six trials, one change each, ordered by what they would teach per hour, with the result that \
would make you drop each.
4. list_hardware and estimate_job: hours and money of each trial and of all, at most.
5. Show the plan as a table with the arguments of open_experiment and run_trials, and ask the user before \
anything runs."""

LITERATURE = """\
Review the literature on: {topic}

{given}

1. search_papers with several wordings; say which sources answered and which did not.
2. walk_citations from the two or three central papers, both directions, with the topic as query.
3. read_paper on what matters (part="recipe" for settings and results), ask_papers for questions across them.
4. Write: what is established and by whom, with numbers as printed and their place; where papers disagree; the \
recipes in one table (model, data, method, settings, result); what nobody has tried. Every statement names its \
paper; what was read only as an abstract is marked so."""


def _given(**given: str) -> str:
    lines = [f"- {label.replace('_', ' ')}: {value.strip()}" for label, value in given.items() if value.strip()]
    return "\n".join(lines) or "Nothing else is fixed: ask what you need."


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
        given = _given(Base_model=model, Benchmark=benchmark, Training_data=dataset, Target=target, Budget=budget)
        return METHOD.format(goal=goal.strip(), given=given)

    @server.prompt(
        name="review_run",
        title="Review a run",
        description="What a run shows, what it does not, and the one change for the next.",
    )
    def review_run(job_id: Annotated[str, Field(description="The job, as in list_jobs")]) -> str:
        return REVIEW.format(job_id=job_id.strip())

    @server.prompt(
        name="plan_experiment",
        title="Plan an experiment",
        description="Measurement, trials, hours and cost, before anything runs.",
    )
    def plan_experiment(
        goal: Annotated[str, Field(description="What to achieve, in a sentence")],
        model: Annotated[str, Field(description="The base model: a Hub id or a local path")] = "",
        benchmark: Annotated[str, Field(description="What the result is measured on")] = "",
        budget: Annotated[str, Field(description="What may be spent: money, time, hardware")] = "",
        experiment: Annotated[str, Field(description="An experiment to go on from")] = "",
    ) -> str:
        given = _given(Base_model=model, Benchmark=benchmark, Budget=budget, Go_on_from=experiment)
        return PLAN.format(goal=goal.strip(), given=given)

    @server.prompt(
        name="literature_review",
        title="Review the literature",
        description="What is known on a topic, with its places, and the recipes in one table.",
    )
    def literature_review(
        topic: Annotated[str, Field(description="The question or topic")],
        since: Annotated[str, Field(description="Only papers from this year on")] = "",
        papers: Annotated[str, Field(description="Papers to begin with: arXiv ids, DOIs or URLs")] = "",
    ) -> str:
        return LITERATURE.format(topic=topic.strip(), given=_given(Since=since, Begin_with=papers))
