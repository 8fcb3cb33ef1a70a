"""Is this training run well? Rules over what it logged, while it runs or after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio.to_thread

from mlintern.tools.health.findings import Diagnosis, Finding
from mlintern.tools.health.loader import load
from mlintern.tools.health.rules import reward, training
from mlintern.tools.health.series import Run, build
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace

RULES: tuple[Callable[[Run], Iterable[Finding]], ...] = (
    training.nan_or_inf,
    training.divergence,
    reward.reward_collapse,
    reward.no_reward_signal,
    reward.reward_hacking,
    reward.kl_blowup,
    reward.entropy_collapse,
    reward.length_explosion,
    reward.truncation,
    reward.policy_mismatch,
    training.overfitting,
    training.stalled,
    training.gradient_spikes,
)
SEVERITIES = ("error", "warning", "note")
SHOWN = 40


def diagnose(rows: Iterable[Mapping[str, Any]]) -> Diagnosis:
    """Diagnose telemetry rows (those of kind ``metrics``; others are passed by), in any order of steps.

    The worst findings come first. A run that has only just begun is healthy, with a note that says how little was
    seen.
    """
    run = build(rows)
    findings = sorted(
        (finding for rule in RULES for finding in rule(run)), key=lambda finding: SEVERITIES.index(finding.severity)
    )
    worst = findings[0].severity if findings else "note"
    return Diagnosis(
        verdict="failing" if worst == "error" else "watch" if worst == "warning" else "healthy",
        findings=findings,
        steps_read=run.rows,
        last_step=int(max((series.steps[-1] for series in run.curves.values()), default=0)) or None,
        metrics=sorted(run.curves)[:SHOWN],
        notes=list(_not_judged(run)),
    )


async def diagnose_source(source: str, *, workspace: Workspace, ledger: Ledger) -> Diagnosis:
    """Diagnose a job, a ``trainer_state.json``, a log, a ``metrics.jsonl``, or a folder that holds one.

    Raises:
        NotFound: no such source, or it logged nothing.
        BadInput: it is not a training log that can be read.
    """
    log = await anyio.to_thread.run_sync(lambda: load(source, workspace=workspace, ledger=ledger))
    diagnosis = diagnose(log.rows)
    diagnosis.source = str(log.path)
    diagnosis.notes[:0] = log.notes
    return diagnosis


def _not_judged(run: Run) -> Iterable[str]:
    if run.rows < training.ENOUGH:
        were = "row was" if run.rows == 1 else "rows were"
        yield f"Only {run.rows} {were} logged; trends are judged from {training.ENOUGH} on."
    trains = bool(len(run["loss"])) or run.has_reward
    if trains and not any(name.startswith("eval_") for name in run.curves) and run.rows >= training.ENOUGH:
        yield "Nothing was measured on held-out data, so overfitting cannot be seen."
    if run.has_reward and len(run.components()) == 1 and run.rows >= training.ENOUGH:
        yield "There is one reward function, so reward hacking shows only on held-out data."
