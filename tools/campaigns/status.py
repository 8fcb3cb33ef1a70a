"""An experiment in the words of `poll_experiment`: the leaderboard with intervals, what runs, what is still open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.campaign_results import (
    ActiveJob,
    Confirmed,
    ExperimentStatus,
    LeaderboardRow,
    Remaining,
)
from mlintern.tools.campaigns.ranking import baseline_trial, best_trial, score_of
from mlintern.tools.campaigns.requests import change_name
from mlintern.tools.campaigns.sizing import seconds_for
from mlintern.tools.campaigns.state import Situation, Trial
from mlintern.tools.campaigns.verdicts import Effect, optimism, recipe_effect
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs import experiment_rows

ADD_SEEDS = "run_trials with {name, seeds} adds them"


def status_of(
    name: str,
    situation: Situation,
    *,
    ledger: Ledger,
    remaining: Remaining,
    folder: Path,
    going: bool,
) -> ExperimentStatus:
    """Everything that a decision about the next trial needs."""
    known = experiment_rows.experiment(ledger, name)
    best = best_trial(situation.trials)
    kept = folder / "best"
    finalists = [
        {item: fmean(scores[item] for scores in own.values()) for item in set.intersection(*map(set, own.values()))}
        for trial in situation.trials
        if not trial.baseline and trial.best_rung == trial.last_rung and (own := trial.scores(trial.last_rung))
    ]
    confirmations = [_confirmed(one, situation) for one in store.confirmations(ledger, name)]
    return ExperimentStatus(
        experiment=name,
        goal=known.goal,
        target=known.target,
        state="running" if going else "over" if remaining.hours <= 0 else "idle",
        leaderboard=leaderboard(situation),
        running=[
            ActiveJob(
                job_id=stage.job_id,
                trial=trial.name,
                stage=f"{stage.key.kind} seed {stage.key.seed}",
                state=stage.state,
                ends_in_minutes=None
                if (seconds := seconds_for(situation, trial, key=stage.key)) is None
                else round(seconds / 60, 1),
            )
            for trial in situation.trials
            for stage in trial.stages.values()
            if stage.active
        ],
        best=best.name if best else None,
        best_model=str(kept) if kept.is_dir() else None,
        optimism=round(optimism(finalists), 4) if len(finalists) > 1 else None,
        open_questions=open_questions(situation),
        confirmations=confirmations,
        remaining=remaining,
        next_step=_next_step(situation, remaining, confirmations, known.target),
    )


def leaderboard(situation: Situation) -> list[LeaderboardRow]:
    """All trials, the best measured first; those without a score in the order in which they were given."""
    base = baseline_trial(situation.trials)
    names = {trial.number: trial.name for trial in situation.trials}
    rows = [(trial, _row(trial, base, names)) for trial in situation.trials]
    rows.sort(key=lambda pair: (pair[1].score is None, -(_place(pair[0])), pair[0].number))
    return [row for _, row in rows]


def open_questions(situation: Situation) -> list[str]:
    """What the numbers so far leave open, and what would close it."""
    base, best = baseline_trial(situation.trials), best_trial(situation.trials)
    if base is None:
        return ["The base model has not been measured yet."]
    if best is None or best.best_rung is None:
        return []
    found: list[str] = []
    own = list(best.scores(best.best_rung).values())
    against = recipe_effect(list(base.scores(0).values()), own)
    if isinstance(against, Effect) and against.verdict == "no_evidence":
        seeds = against.seeds_needed
        if len(own) == 1:
            found.append(f"{best.name!r} against {base.name!r}: one seed says nothing about the recipe; {ADD_SEEDS}.")
        else:
            more = (
                f"about {max(1, seeds - len(own))} more seed(s); {ADD_SEEDS}"
                if seeds
                else "more items, or a larger effect"
            )
            found.append(f"{best.name!r} against {base.name!r}: not shown; it needs {more}.")
    for other in situation.trials:
        if (
            other.baseline
            or other.number == best.number
            or other.best_rung != other.last_rung
            or other.state == "ended"
        ):
            continue
        effect = recipe_effect(list(other.scores(other.last_rung).values()), own)
        if isinstance(effect, Effect) and effect.verdict == "no_evidence" and effect.delta > 0:
            seeds = effect.seeds_needed
            more = f"about {seeds} seeds each would show {effect.delta:.1%}" if seeds else "add seeds to both"
            found.append(f"{best.name!r} against {other.name!r}: {effect.delta:+.1%}, not shown; {more}.")
    return found[:5]


def _row(trial: Trial, base: Trial | None, names: Mapping[int, str]) -> LeaderboardRow:
    rung = trial.best_rung
    row = LeaderboardRow(
        trial=trial.name,
        state=trial.state,
        change=change_name(trial.change),
        parent=names.get(trial.parent) if trial.parent is not None else None,
        reason=trial.reason,
    )
    seconds = [stage.seconds for stage in trial.stages.values() if stage.seconds]
    row.hours = round(sum(seconds) / 3600, 3) if seconds else None
    if rung is None:
        return row
    scores = trial.scores(rung)
    row.seeds, row.score = len(scores), round(score_of(trial) or 0.0, 4)
    row.rung = "" if trial.baseline else f"{trial.rungs[rung]:.0%}"
    if base is None or base.number == trial.number:
        row.verdict = "baseline" if trial.baseline else ""
        return row
    effect = recipe_effect(list(base.scores(0).values()), list(scores.values()))
    if not isinstance(effect, Effect):
        row.verdict, row.reason = "not_comparable", row.reason or effect
        return row
    row.delta, row.ci_low, row.ci_high = (round(value, 4) for value in (effect.delta, effect.ci_low, effect.ci_high))
    row.verdict = "baseline" if trial.baseline else effect.verdict
    row.reason = row.reason or ("" if trial.baseline else effect.reason)
    return row


def _place(trial: Trial) -> float:
    rung = trial.best_rung
    return -1.0 if rung is None else trial.rungs[rung] * (2 if not trial.baseline else 1) + (score_of(trial) or 0.0)


def _confirmed(one: store.Confirmation, situation: Situation) -> Confirmed:
    name = next((trial.name for trial in situation.trials if trial.number == one.trial), str(one.trial))
    verdict = one.verdict or {"verdict": "measuring"}
    fields = {field: verdict[field] for field in Confirmed.model_fields if field in verdict}
    return Confirmed(opening=one.opening, trial=name, **fields)


def _next_step(
    situation: Situation, remaining: Remaining, confirmations: list[Confirmed], target: float | None
) -> str:
    if any(one.verdict == "measuring" for one in confirmations):
        return "The confirm half is being measured; poll_experiment again."
    if any(not trial.over for trial in situation.trials):
        return "Trials are running. Use the time: study what the best gets wrong, plan the next changes."
    reached = [
        one
        for one in confirmations
        if one.verdict == "improved" and (target is None or (one.candidate or 0) >= target)
    ]
    if reached:
        return "Confirmed. write_report writes the report with its certificate."
    if remaining.hours > 0 and not confirmations:
        left = f"{remaining.hours:.2g} h are left"
        return f"No trial runs and {left}: add trials with run_trials while there are ideas, then confirm."
    if remaining.hours > 0:
        return "The target is not confirmed: add trials with run_trials; every further opening is corrected for."
    return "The time is over. confirm opens the confirm half; write_report writes what was found."
