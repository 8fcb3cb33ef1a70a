"""The decisions of the rehearsal as a campaign: a fixed plan that reads results, in the place of the model.

What it decides is what the system prompt asks of a model with a clock: look at the data, open an experiment, try
recipes against honest baselines, confirm the choice on items that it was not made by, report with a certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from mlintern.orchestrator.rehearsal.plan import (
    EXPERIMENT,
    HYPERPARAMETERS,
    MEASURED,
    TARGET,
    Inputs,
    Stopped,
    look,
    ok,
    until_stopped,
)
from mlintern.orchestrator.rehearsal.script import Call, Outcome, Plan, Say

MAX_POLLS = 60
POLL_SECONDS = 20

RECIPE: dict[str, Any] = {
    "trainer": "sft",
    "max_steps": 250,
    "limit": 16_000,
    "hyperparameters": HYPERPARAMETERS,
    "dtype": "float32",
    "use_cpu": True,
    "save_steps": 0,
}

CHANGES: tuple[dict[str, Any], ...] = (
    {"base": "sft", "change": {"max_steps": 500}, "seeds": [0, 1]},
    {"base": "sft", "change": {"hyperparameters.learning_rate": 1.5e-4}},
    {"base": "sft", "change": {"limit": 400}},
)
"""The second to the fourth trial; each starts from the base model. A claim about a recipe needs two seeds."""

LONGER: dict[str, Any] = {"base": "sft", "change": {"max_steps": 1000}, "seeds": [0, 1]}
"""What is tried in addition if no trial reaches the target on the items that are chosen by."""


def campaign(inputs: Inputs, *, on_stop: Callable[[str], None]) -> Plan:
    """Open, try, choose, confirm, report; see the module. ``on_stop`` hears why the plan could not go on."""
    yield from until_stopped(_campaign(inputs), on_stop=on_stop)


def _campaign(inputs: Inputs) -> Plan:
    kind = yield from look(inputs)
    (opened,) = yield Say(
        f"The data fits ({kind}). I open the experiment: protocol, items, limits are fixed from here on.",
        [Call("open_experiment", _experiment(inputs))],
    )
    detectable = str(ok(opened)["detectable"]).partition(";")[0]

    first = {"name": "sft", "recipe": {**RECIPE, "dataset": str(inputs.train)}}
    status = yield from _trials([first, *CHANGES], why=f"{detectable}. Four trials in one batch, baselines first.")
    if _best(status)["score"] < TARGET:
        status = yield from _trials([LONGER], why=f"{_standing(status)} The target is missed: one more, longer.")

    (answer,) = yield Say(
        f"{_standing(status)} I confirm {status['best']!r} on the other half of the items.",
        [Call("confirm", {"experiment": EXPERIMENT})],
    )
    _agreed(ok(answer), "the confirmation")
    status = yield from _until_idle()
    confirmed = status["confirmations"][-1]
    if confirmed.get("candidate") is None:
        raise Stopped(f"nothing was confirmed: {confirmed['verdict']}. {confirmed.get('reason', '')}")

    runs, report = yield Say(
        f"{_confirmed(confirmed)} I write the report with its certificate.",
        [Call("list_runs", {"experiment": EXPERIMENT}), Call("write_report", {"experiment": EXPERIMENT})],
    )
    ok(runs)
    ok(report)
    reached = confirmed["verdict"] == "improved" and confirmed["candidate"] >= TARGET
    yield Say(f"{_confirmed(confirmed)} The target of {TARGET:.0%} is {'reached' if reached else 'missed'}.")


def _experiment(inputs: Inputs) -> dict[str, Any]:
    return {
        "name": EXPERIMENT,
        "model": str(inputs.base),
        "evaluation": {"dataset": str(inputs.held_out), **MEASURED},
        "limits": {"hours": 1, "usd": 0, "parallel": 2},
        "goal": "Name the option with the largest number.",
        "target": TARGET,
    }


def _trials(trials: list[dict[str, Any]], *, why: str) -> Generator[Say, list[Outcome], dict[str, Any]]:
    """Queue trials (which asks for approval) and follow them to their end; the experiment's last status."""
    asked = {"experiment": EXPERIMENT, "trials": trials, "timeout": "20m", "measure_timeout": "10m"}
    (answer,) = yield Say(why, [Call("run_trials", asked)])
    _agreed(ok(answer), "the batch")
    status = yield from _until_idle()
    if status.get("best") is None:
        ended = "; ".join(f"{row['trial']}: {row['state']}, {row['reason']}" for row in status["leaderboard"])
        raise Stopped(f"no trial was measured. {ended}")
    return status


def _until_idle() -> Generator[Say, list[Outcome], dict[str, Any]]:
    news = ""
    for _ in range(MAX_POLLS):
        (polled,) = yield Say(
            news, [Call("poll_experiment", {"experiment": EXPERIMENT, "wait_seconds": POLL_SECONDS})]
        )
        status = ok(polled)
        if status["state"] != "running":
            return status
        news = _progress(status)
    raise Stopped(f"the experiment did not come to rest within {MAX_POLLS} polls")


def _agreed(answer: dict[str, Any], what: str) -> None:
    if answer["status"] not in ("started", "already_started"):
        raise Stopped(f"{what} was not approved: {answer['status']}. {answer.get('note', '')}")


def _progress(status: dict[str, Any]) -> str:
    running = ", ".join(f"{job['trial']} ({job['stage']})" for job in status.get("running", ()))
    measured = [row for row in status["leaderboard"] if row.get("score") is not None]
    scores = ", ".join(f"{row['trial']} {row['score']:.1%}" for row in measured)
    said = [f"Running: {running}." if running else "", f"Measured: {scores}." if scores else ""]
    return " ".join(part for part in said if part)


def _standing(status: dict[str, Any]) -> str:
    best = _best(status)
    interval = ""
    if best.get("ci_low") is not None:
        interval = f", {best['delta']:+.1%} over the better baseline (95 % CI {_interval(best)})"
    optimism = status.get("optimism")
    flattered = f" The best of these flatters itself by about {optimism:.1%}." if optimism else ""
    return f"{best['trial']!r} scores {best['score']:.1%} on the items to choose by{interval}.{flattered}"


def _best(status: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in status["leaderboard"] if row["trial"] == status["best"])


def _confirmed(one: dict[str, Any]) -> str:
    return (
        f"Confirmed on items that nobody chose by: {one['trial']!r} scores {one['candidate']:.1%}, the baseline "
        f"{one['baseline']:.1%}: {one['verdict']} by {one['delta']:+.1%} (95 % CI {_interval(one)})."
    )


def _interval(row: dict[str, Any]) -> str:
    return f"{row['ci_low']:+.1%} to {row['ci_high']:+.1%}"
