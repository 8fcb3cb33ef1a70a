"""What to do next in an experiment: which jobs to start, which trials to end and why. A pure function of its state.

Trials are halved without a barrier: as soon as a slot is free, the first of these that exists is started:

1. the next stage of a chain that is under way (a trained model is measured before another is trained), or 20 steps of
   a trial that is long and of which nothing tells how long, so that it begins only if it fits;
2. the first rung of a trial that has not begun, in the order in which trials were given; the base model is measured
   zero-shot before the first of them and with worked examples after it, so that no clock is spent on baselines alone;
3. the next rung, or another seed of the last rung, of the trial with the best score so far.

A trial goes up as long as it is not a clear loser (`verdicts.clear_losers`) among all that were measured at its rung.
So a slot is idle only while nothing can be started, and a trial is never ended by a rank alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from mlintern.tools.campaigns.sizing import (
    largest_that_fits,
    needs_probe,
    probe_under_way,
    rest_of,
    seconds_for,
    timeout_of,
    trains_alike,
)
from mlintern.tools.campaigns.state import MOST_ATTEMPTS, Situation, Stage, StageKey, Trial, TrialState
from mlintern.tools.campaigns.verdicts import clear_losers


@dataclass(frozen=True)
class Start:
    """Submit the job of a stage."""

    key: StageKey
    attempt: int


@dataclass(frozen=True)
class End:
    """A trial is over."""

    trial: int
    state: TrialState
    reason: str


@dataclass(frozen=True)
class Stop:
    """End a job that runs."""

    job_id: str
    reason: str


Step = Start | End | Stop


def next_steps(situation: Situation) -> list[Step]:
    """Everything that is to be done now; an empty list while only waiting helps."""
    ended, steps = _endings(situation)
    steps += _stops(situation, ended)
    if situation.stopped or situation.now >= situation.ends_at:
        return steps
    # On record but not submitted: the process that recorded it was killed in between. It holds its slot already.
    steps += [Start(stage.key, stage.attempt) for stage in situation.active if stage.state == "intended"]
    free = situation.parallel - len(situation.active)
    started: set[StageKey] = set()
    probed: list[Trial] = []
    for _, start, trial in sorted(_wanted(situation, ended), key=lambda wanted: wanted[0]):
        if free <= 0:
            break
        if start.key in started or trial.number in {step.trial for step in steps if isinstance(step, End)}:
            continue
        if refused := _does_not_fit(situation, trial, start.key):
            steps.append(refused)
            continue
        if start.key.kind == "probe":
            if any(trains_alike(trial, other) for other in probed):
                continue
            probed.append(trial)
        steps.append(start)
        started.add(start.key)
        free -= 1
    return steps


def ladder(situation: Situation) -> dict[int, dict[int, str]]:
    """For each rung the clear losers among the trials measured there, with the evidence."""
    rungs = {rung for trial in situation.trials if not trial.baseline for rung in range(len(trial.rungs))}
    found = {}
    for rung in sorted(rungs):
        shares: dict[float, dict[int, dict[str, float]]] = {}
        for trial in situation.trials:
            scores = trial.scores(rung) if rung < len(trial.rungs) and not trial.baseline else {}
            if scores and trial.seeds[0] in scores:
                # Only runs with the same share of their budget are set against each other.
                shares.setdefault(trial.rungs[rung], {})[trial.number] = dict(scores[trial.seeds[0]])
        found[rung] = {number: why for group in shares.values() for number, why in clear_losers(group).items()}
    return found


def _endings(situation: Situation) -> tuple[set[int], list[Step]]:
    """Trials that are over, by what their stages did and by the clock."""
    losers = ladder(situation)
    over = situation.now >= situation.ends_at or situation.stopped
    steps: list[Step] = []
    for trial in situation.trials:
        if trial.over:
            continue
        end = _failed(trial) or _completed(trial) or _lost_at_rung(trial, losers)
        if end is None and over and not any(stage.active for stage in trial.stages.values()):
            why = "The experiment's time is over." if not situation.stopped else "The experiment was stopped."
            end = End(trial.number, "ended" if trial.best_rung is not None else "refused", why)
        if end is not None:
            steps.append(end)
    return {step.trial for step in steps if isinstance(step, End)}, steps


def _failed(trial: Trial) -> End | None:
    for key, stage in sorted(trial.stages.items()):
        if stage.active or stage.succeeded or _again(stage):
            continue
        what = f"{key.kind} of rung {key.rung}, seed {key.seed}"
        return End(trial.number, "failed", f"{what} {stage.state}: {stage.error or 'no reason was given'}")
    for key, stage in sorted(trial.stages.items()):
        if key.kind == "measure" and stage.succeeded and not stage.scores:
            return End(trial.number, "failed", f"{stage.job_id} ended without the score of any item")
    return None


def _completed(trial: Trial) -> End | None:
    keys = [key for chain in trial.chains(trial.last_rung) for key in chain]
    done = all((stage := trial.stages.get(key)) is not None and stage.succeeded for key in keys)
    return End(trial.number, "done", "") if done else None


def _lost_at_rung(trial: Trial, losers: dict[int, dict[int, str]]) -> End | None:
    """The end of a trial that is a clear loser at a rung, even if it went up before the leader was known."""
    if trial.baseline or trial.added or any(stage.active for stage in trial.stages.values()):
        return None  # what is paid for is let finish, and what was asked for of a trial that was done is run
    for rung in range(len(trial.rungs)):
        if trial.number in losers.get(rung, {}):
            return End(trial.number, "ended", f"A clear loser at rung {rung}: {losers[rung][trial.number]}.")
    return None


def _stops(situation: Situation, ended: set[int]) -> list[Step]:
    late = situation.now >= situation.ends_at
    steps: list[Step] = []
    for trial in situation.trials:
        for stage in trial.stages.values():
            if not stage.active or stage.key.kind == "confirm":  # a confirmation is finished, even after the end
                continue
            if late:
                steps.append(Stop(stage.job_id, "The experiment's time is over."))
            elif trial.over or trial.number in ended:
                steps.append(Stop(stage.job_id, f"Trial {trial.name!r} is over."))
            elif situation.end_failing and stage.failing:
                steps.append(Stop(stage.job_id, f"Training is failing: {stage.failing}"))
    return steps


def _wanted(situation: Situation, ended: set[int]) -> Iterator[tuple[tuple[float, ...], Start, Trial]]:
    """Every stage that could be started now, with its place in the order."""
    losers = ladder(situation)
    baselines = [trial.number for trial in situation.trials if trial.baseline]
    first_trained = min((trial.number for trial in situation.trials if not trial.baseline), default=0)
    for trial in situation.trials:
        if trial.over or trial.number in ended:
            continue
        rung = _rung_to_work_on(trial, losers)
        if rung is None:
            continue
        for place, chain in enumerate(trial.chains(rung)):
            start = _next_in(trial, chain)
            if start is None:
                continue
            if start.key.kind == "train" and needs_probe(situation, trial):
                start = _probe(situation, trial)
                if start is None:
                    continue
            under_way = any(key in trial.stages for key in chain) or start.attempt > 1
            if trial.baseline and trial.number != baselines[0] and start.attempt == 1:
                order = (1.0, first_trained + 0.5, float(trial.number))
            elif under_way or trial.baseline:
                order = (0.0, float(trial.number), float(place))
            elif rung == 0 and place == 0:
                order = (1.0, float(trial.number), 0.0)
            else:
                order = (2.0, -_score(trial), float(place))
            yield order, start, trial


def _probe(situation: Situation, trial: Trial) -> Start | None:
    """The probe of a trial of which nothing is known; None while one that tells as much runs."""
    if probe_under_way(situation, trial):
        return None
    key = StageKey(trial.number, 0, trial.seeds[0], "probe")
    stage = trial.stages.get(key)
    if stage is None:
        return Start(key, 1)
    return Start(key, stage.attempt + 1) if _again(stage) else None


def _rung_to_work_on(trial: Trial, losers: dict[int, dict[int, str]]) -> int | None:
    for rung in range(len(trial.rungs)):
        keys = [key for chain in trial.chains(rung) for key in chain]
        if not all((stage := trial.stages.get(key)) is not None and stage.succeeded for key in keys):
            return rung
        if trial.number in losers.get(rung, {}) and not trial.added:
            return None
    return None


def _next_in(trial: Trial, chain: Sequence[StageKey]) -> Start | None:
    for key in chain:
        stage = trial.stages.get(key)
        if stage is None:
            return Start(key, 1)
        if stage.active:
            return None
        if not stage.succeeded:
            return Start(key, stage.attempt + 1) if _again(stage) else None
    return None


def _again(stage: Stage) -> bool:
    return stage.state == "lost" and stage.attempt < MOST_ATTEMPTS


def _score(trial: Trial) -> float:
    rung = trial.best_rung
    return fmean(fmean(scores.values()) for scores in trial.scores(rung).values()) if rung is not None else -1.0


def _does_not_fit(situation: Situation, trial: Trial, key: StageKey) -> End | None:
    """A training stage that would not be measured in time is refused with the largest that would."""
    if key.kind not in ("train", "generate") or trial.baseline:
        return None
    needed, limit = rest_of(situation, trial, rung=key.rung), timeout_of(trial)
    if needed is None:
        return None
    train = seconds_for(situation, trial, key=StageKey(trial.number, key.rung, key.seed, "train"))
    state: TrialState = "ended" if trial.best_rung is not None else "refused"
    if limit is not None and train is not None and train > limit:
        why = (
            f"Training rung {key.rung} needs about {train / 60:.1f} min and would be cut off after"
            f" {limit / 60:.1f} min, its time-out. {largest_that_fits(situation, trial, rung=key.rung)}"
        )
        return End(trial.number, state, f"{why} Or give a longer `timeout`.")
    if needed <= situation.seconds_left:
        return None
    why = (
        f"Rung {key.rung} needs about {needed / 60:.1f} min with its measurement, and "
        f"{situation.seconds_left / 60:.1f} min are left. {largest_that_fits(situation, trial, rung=key.rung)}"
    ).rstrip()
    return End(trial.number, state, why)
