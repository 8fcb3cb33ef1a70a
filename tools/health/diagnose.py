"""Is this training run well? Rules over what it logged, while it runs or after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio.to_thread

from mlintern.tools.health.advice import without_contradictions
from mlintern.tools.health.findings import Diagnosis, Finding
from mlintern.tools.health.loader import load_found
from mlintern.tools.health.rules import (
    completions,
    crashed,
    loss,
    numbers,
    overfitting,
    policy,
    preferences,
    reward_collapse,
    reward_hacking,
    reward_signal,
)
from mlintern.tools.health.series import CurveBuilder, Run, build
from mlintern.tools.health.statistics import ENOUGH
from mlintern.tools.hub.result_sources import Source, here, locate
from mlintern.tools.ledger import Ledger
from mlintern.tools.sandbox import worker
from mlintern.tools.workspace import Workspace

RULES: tuple[Callable[[Run], Iterable[Finding]], ...] = (
    crashed.crash,
    numbers.nan_or_inf,
    loss.divergence,
    preferences.preference_divergence,
    reward_collapse.reward_collapse,
    reward_signal.no_reward_signal,
    reward_signal.nothing_learned,
    reward_hacking.reward_hacking,
    policy.kl_blowup,
    policy.entropy_collapse,
    policy.policy_mismatch,
    completions.length_explosion,
    completions.length_collapse,
    completions.truncation,
    overfitting.overfitting,
    overfitting.memorised,
    preferences.chosen_falls,
    preferences.guessing,
    loss.stalled,
    numbers.gradient_spikes,
)
SEVERITIES = ("error", "warning", "note")
SHOWN = 40


class Diagnoser:
    """Judges a run as its rows come. Memory, and the cost of a diagnosis, do not grow with the rows that were read.

    The same rows give the same findings, whether they come one by one or all at once.
    """

    def __init__(self) -> None:
        self._curves = CurveBuilder()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the next telemetry rows, in the order in which they were logged; other kinds are passed by."""
        for row in rows:
            self._curves.add(row)

    def diagnosis(self) -> Diagnosis:
        """What is to be said of the rows so far; the worst findings come first."""
        return diagnose_run(self._curves.run())


def diagnose(rows: Iterable[Mapping[str, Any]]) -> Diagnosis:
    """Diagnose telemetry rows in the order in which they were logged; see `Diagnoser`."""
    diagnoser = Diagnoser()
    diagnoser.add(rows)
    return diagnoser.diagnosis()


def diagnose_run(run: Run) -> Diagnosis:
    """Diagnose the curves of a run. The worst findings come first; no two pieces of advice contradict each other."""
    findings = without_contradictions(
        sorted((finding for rule in RULES for finding in rule(run)), key=lambda one: SEVERITIES.index(one.severity))
    )
    worst = findings[0].severity if findings else "note"
    missing = list(_missing(run))
    quiet = "too_little_to_judge" if missing else "healthy"
    last = max((series.steps[-1] for series in run.curves.values() if series.steps), default=0)
    return Diagnosis.model_validate(
        {
            "verdict": "failing" if worst == "error" else "watch" if worst == "warning" else quiet,
            "findings": findings,
            "steps_read": run.rows,
            "last_step": int(last) or None,
            "metrics": sorted(run.curves)[:SHOWN],
            "notes": [*missing, *_not_judged(run)],
        }
    )


async def diagnose_source(source: str, *, workspace: Workspace, ledger: Ledger) -> Diagnosis:
    """Diagnose a job, a ``trainer_state.json``, a log, a ``metrics.jsonl``, or a folder that holds one.

    Raises:
        NotFound: no such source, or it logged nothing.
        BadInput: it is not a training log that can be read.
    """
    found = await anyio.to_thread.run_sync(lambda: here(locate(source, workspace=workspace, ledger=ledger)))
    return (await worker.run(curves_and_health, found))[1]


def curves_and_health(found: Source) -> tuple[Run, Diagnosis]:
    """What a training log shows, and what is to be said of it; for `worker`, as anybody may have written the log."""
    log = load_found(found)
    run = build(log.rows)
    diagnosis = diagnose_run(run)
    diagnosis.source = str(log.path)
    diagnosis.notes[:0] = log.notes
    return run, diagnosis


def _missing(run: Run) -> Iterable[str]:
    """Why the run cannot be called healthy, whatever was found."""
    rows = max(len(run["loss"]), len(run["reward"]))
    if not rows:
        yield "There is no loss and no reward among the metrics: whether the run learns cannot be judged."
    elif rows < ENOUGH:
        were = "row was" if run.rows == 1 else "rows were"
        yield f"Only {run.rows} {were} logged; trends are judged from {ENOUGH} on."


def _not_judged(run: Run) -> Iterable[str]:
    if run.rows < ENOUGH or not (len(run["loss"]) or run.has_reward):
        return
    if not any(name.startswith("eval_") for name in run.curves):
        yield "Nothing was measured on held-out data, so overfitting cannot be seen."
    if run.has_reward and len(run.components()) == 1:
        yield "There is one reward function, so reward hacking shows only on held-out data."
