"""Experiments that run themselves: a goal, a clock and a purse, a queue of trials, items kept apart to confirm."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context, Resolve
from mcp.types import CallToolResult
from pydantic import Field

from mlintern.common.consent import Action
from mlintern.common.durations import format_duration
from mlintern.server.apps.approval_card import CARD_META
from mlintern.server.asking import Asked, Consent
from mlintern.server.reading import consent_to_opening, named_in, settle
from mlintern.server.registry import Registry
from mlintern.server.services import Lab
from mlintern.server.strict_server import answer
from mlintern.tools.campaigns.batch import Batch
from mlintern.tools.campaigns.campaign_results import ExperimentStatus, OpenedExperiment, TrialsResult
from mlintern.tools.campaigns.requests import Limits, SearchRequest, TrialRequest, parse

Name = Annotated[str, Field(description="Its name")]
Trials = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=64,
        description="Each {name, recipe} or {base: trial, change: {field.path: value}}; seeds;"
        " data: generate recipe. {name, seeds} adds",
    ),
]
Rungs = Annotated[list[float] | None, Field(max_length=6, description="Rising shares of the budget, the last 1")]
Search = Annotated[
    dict[str, Any] | None,
    Field(description="{kind: grid|optuna|tree, base: trial, space: {field: values}, trials: n}"),
]
Backend = Annotated[str, Field(description="Default: local")]
Hardware = Annotated[str | None, Field(description="Of list_hardware")]
TrainTimeout = Annotated[str, Field(description="Of a training job")]
MeasureTimeout = Annotated[str, Field(description="Of an evaluation job")]
EndFailing = Annotated[bool, Field(description="End runs found failing")]


async def plan_trials(
    experiment: str,
    trials: list[dict[str, Any]],
    rungs: list[float] | None,
    search: dict[str, Any] | None,
    backend: str,
    hardware: str | None,
    timeout: str,
    measure_timeout: str,
    end_failing: bool,
    ctx: Context[Lab],
) -> Batch:
    """What the arguments describe; what a person is asked about and what is then started."""
    return await ctx.request_context.lifespan_context.campaigns.plan_batch(
        experiment,
        [parse(TrialRequest, trial, what=f"trials[{index}]") for index, trial in enumerate(trials)],
        rungs=tuple(rungs or (1.0,)),
        search=None if search is None else parse(SearchRequest, search, what="search"),
        backend=backend,
        hardware=hardware,
        timeout=timeout,
        measure_timeout=measure_timeout,
        end_failing=end_failing,
    )


async def consent_to_trials(plan: Annotated[Batch, Resolve(plan_trials)], ctx: Context[Lab]) -> Asked:
    return await ctx.request_context.lifespan_context.gate.ask(starting(plan), ctx)


async def consent_to_confirm(experiment: str, ctx: Context[Lab]) -> Asked:
    lab = ctx.request_context.lifespan_context
    return await lab.gate.ask(await confirming(experiment, lab), ctx)


def starting(batch: Batch) -> Action:
    """Starting a batch, described for the person who decides."""
    timeouts = batch.body["timeouts"]
    details = [
        ("Jobs", f"at most {batch.jobs}, training up to {timeouts[0]} and measuring up to {timeouts[1]} each"),
        ("Trials", ", ".join(trial.name for trial in batch.trials)),
        ("More seeds", "; ".join(f"{one.trial.name}: {', '.join(map(str, one.seeds))}" for one in batch.more)),
        ("Search", _search(batch.body["search"])),
        ("Rungs", ", ".join(f"{rung:.0%}" for rung in batch.body["rungs"])),
        ("Ends failing runs", "yes" if batch.body["end_failing"] else ""),
    ]
    return Action(
        kind="run_trials",
        what="Run trials of",
        name=batch.experiment,
        where=batch.backend,
        hardware=batch.hardware,
        usd_worst=batch.usd_worst,
        seconds=batch.seconds_worst,
        digest=batch.digest,
        always_ask=tuple(f"its jobs ask a served model, each {said}" for said in batch.served),
        details=tuple((label, value) for label, value in details if value),
    )


async def confirming(experiment: str, lab: Lab) -> Action:
    """Opening the confirm half, described for the person who decides."""
    trial, digest, usd, seconds = await lab.campaigns.plan_confirmation(experiment)
    return Action(
        kind="confirm",
        what="Open the confirm half of",
        name=experiment,
        where=trial.place["backend"],
        hardware=trial.place.get("hardware", ""),
        usd_worst=usd,
        seconds=seconds,
        digest=digest,
        details=(("Trial", trial.name), ("Counts", "every opening makes the next one prove less")),
    )


def register(registry: Registry, lab: Lab) -> None:
    @registry.tool(title="Open experiment", read_only=False, open_world=True)
    async def open_experiment(
        name: Name,
        model: Annotated[str, Field(description="Hub id or folder")],
        evaluation: Annotated[dict[str, Any], Field(description="Recipe without model")],
        limits: Annotated[dict[str, Any], Field(description="{hours: 10, usd: 20, parallel: 2}")],
        ctx: Context[Lab],
        consent: Annotated[Consent, Resolve(consent_to_opening)],
        goal: Annotated[str, Field(max_length=2000, description="In words")] = "",
        target: Annotated[float | None, Field(description="Score to reach: 0.85")] = None,
        metric: Annotated[str | None, Field(description="Default: accuracy or exact_match")] = None,
        revision: Annotated[str | None, Field(description="Of a Hub model")] = None,
        decide_rows: Annotated[int | None, Field(ge=1, description="Items to choose by")] = None,
        confirm_rows: Annotated[int | None, Field(ge=1, description="Kept for the end")] = None,
    ) -> OpenedExperiment:
        """Begin an experiment: fix goal, protocol, limits and items, and start its clock. Starts no job.

        Splits the items into a half to decide by and a half that only confirm opens; says what difference they can
        show.
        """
        await settle([model, *named_in(evaluation)], consent, ctx=ctx, lab=lab, tool="open_experiment")
        return await lab.campaigns.open(
            name,
            model=model,
            evaluation=evaluation,
            limits=parse(Limits, limits, what="limits"),
            goal=goal,
            target=target,
            metric=metric,
            revision=revision,
            decide_rows=decide_rows,
            confirm_rows=confirm_rows,
        )

    @registry.tool(title="Run trials", read_only=False, open_world=True, destructive=True, meta=CARD_META)
    async def run_trials(
        experiment: Name,
        trials: Trials,
        ctx: Context[Lab],
        plan: Annotated[Batch, Resolve(plan_trials)],
        consent: Annotated[Consent, Resolve(consent_to_trials)],
        rungs: Rungs = None,
        search: Search = None,
        backend: Backend = "local",
        hardware: Hardware = None,
        timeout: TrainTimeout = "1h",
        measure_timeout: MeasureTimeout = "30m",
        end_failing: EndFailing = False,
    ) -> Annotated[CallToolResult, TrialsResult]:
        """Queue trials that then run by themselves, through crashes and restarts. Asks once for the whole batch.

        Also measures the base model. Clear losers end at a rung; what does not fit the time is refused.
        """
        action = starting(plan)
        settled = await lab.gate.settle(action, consent, ctx, tool="run_trials")
        if settled.refusal is not None:
            refused = TrialsResult(experiment=experiment, usd_worst=plan.usd_worst, **settled.refusal)
            return answer(refused, meta=settled.card)
        new = await lab.campaigns.start(plan)
        return answer(
            TrialsResult(
                status="started" if new else "already_started",
                experiment=experiment,
                digest=action.consent_digest,
                trials=[trial.name for trial in [*plan.trials, *(one.trial for one in plan.more)]],
                usd_worst=plan.usd_worst,
                note=settled.with_note(
                    f"poll_experiment follows them; they go on whether or not anybody looks. {plan.note}".rstrip()
                ),
                remaining=await lab.campaigns.remaining(experiment),
            )
        )

    @registry.tool(title="Poll experiment", read_only=True, open_world=False)
    async def poll_experiment(
        experiment: Name,
        wait_seconds: Annotated[float, Field(ge=0, le=45, description="At most, for a change")] = 0,
    ) -> ExperimentStatus:
        """Show an experiment: leaderboard with intervals, what runs, what was ended and why, what is open.

        Also the best model, time and money left. Verdicts are about recipes: they need two seeds.
        """
        return await lab.campaigns.poll(experiment, wait_seconds=wait_seconds)

    @registry.tool(title="Cancel trial", read_only=False, open_world=False)
    async def cancel_trial(
        experiment: Name, trial: Annotated[str, Field(description="Its name")]
    ) -> ExperimentStatus:
        """End one trial early. Its running job is stopped; what it has measured is kept.

        Clear losers end by themselves at a rung.
        """
        await lab.campaigns.cancel_trial(experiment, trial)
        return await lab.campaigns.poll(experiment)

    @registry.tool(title="Confirm", read_only=False, open_world=True, destructive=True, meta=CARD_META)
    async def confirm(
        experiment: Name, ctx: Context[Lab], consent: Annotated[Consent, Resolve(consent_to_confirm)]
    ) -> Annotated[CallToolResult, TrialsResult]:
        """Measure the best trial and the baseline on the items that nobody has seen yet.

        Once, when the choice is made: openings are counted. Its result, in poll_experiment, is the number to report.
        """
        trial, _, usd, seconds = await lab.campaigns.plan_confirmation(experiment)
        action = await confirming(experiment, lab)
        settled = await lab.gate.settle(action, consent, ctx, tool="confirm")
        if settled.refusal is not None:
            refused = TrialsResult(experiment=experiment, usd_worst=usd, **settled.refusal)
            return answer(refused, meta=settled.card)
        opening = await lab.campaigns.open_confirm_half(experiment, trial)
        said = f"Opening {opening}: {trial.name!r} and the baseline are measured, within {format_duration(seconds)}."
        return answer(
            TrialsResult(
                status="started",
                experiment=experiment,
                digest=action.consent_digest,
                trials=[trial.name],
                usd_worst=usd,
                note=settled.with_note(said),
                remaining=await lab.campaigns.remaining(experiment),
            )
        )


def _search(search: dict[str, Any] | None) -> str:
    if search is None:
        return ""
    fields = ", ".join(search["space"])
    return f"{search['kind']}, at most {search['trials']} trials from {search['base']!r} over {fields}"
