"""The rehearsal's decisions: a fixed plan that reads results and branches on them, in the place of the model.

What it decides is what the system prompt asks of a model: look at the data, measure an honest baseline, run one job,
measure the result on held-out items, compare with statistics, try the next recipe only if the target is missed,
report. Nothing it says about a number is known beforehand; every one is read from a tool's result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.orchestrator.errors import OrchestratorError
from mlintern.orchestrator.rehearsal.script import Call, Outcome, Plan, Say

EXPERIMENT = "rehearsal"
TARGET = 0.85
FINAL_STATES = {"succeeded", "failed", "cancelled", "timed_out", "lost"}
MAX_POLLS = 60
POLL_SECONDS = 20

RECIPES: tuple[dict[str, Any], ...] = (
    {"name": "sft-short", "max_steps": 300},
    {"name": "sft-long", "max_steps": 600},
    {"name": "sft-longer", "max_steps": 1000, "seed": 1},
)
"""Tried in this order until the target is reached; each starts from the base model."""

HYPERPARAMETERS = {
    "learning_rate": 1.5e-3,
    "lr_scheduler_type": "cosine",
    "per_device_train_batch_size": 64,
    "max_length": 64,
    "gradient_checkpointing": False,
    "logging_steps": 20,
}

MEASURED = {
    "task": "largest-of-ten",
    "kind": "multiple_choice",
    "prompt": "{question}",
    "max_new_tokens": 2,
    "batch_size": 100,
    "use_cpu": True,
}
"""How the held-out items are asked and scored."""


@dataclass(frozen=True)
class Inputs:
    """What `inputs` made: the untrained model, the training file and the held-out items."""

    base: Path
    train: Path
    held_out: Path


class Stopped(OrchestratorError):
    """The plan cannot go on; the text says why. The run then ends, and fails."""


def first_light(inputs: Inputs, *, on_stop: Callable[[str], None]) -> Plan:
    """Measure, train, measure, decide, report; see the module. ``on_stop`` hears why the plan could not go on."""
    yield from until_stopped(_first_light(inputs), on_stop=on_stop)


def until_stopped(plan: Plan, *, on_stop: Callable[[str], None]) -> Plan:
    """``plan``, which says so and ends where it cannot go on; ``on_stop`` hears why."""
    try:
        yield from plan
    except Stopped as stopped:
        on_stop(str(stopped))
        yield Say(f"The rehearsal stops here: {stopped}")


def look(inputs: Inputs) -> Generator[Say, list[Outcome], str]:
    """Look at the data, the trainer and the machine. Returns what kind of rows the data has.

    Raises:
        Stopped: the trainer does not take the data.
    """
    data, trainer, hardware = yield Say(
        "First I look at the training data, at what the trainer takes, and at this machine.",
        [
            Call("inspect_dataset", {"dataset": str(inputs.train), "trainer": "sft"}),
            Call("describe_trainer", {"trainer": "sft"}),
            Call("list_hardware", {"backend": "local"}),
        ],
    )
    verdict = ok(data)["formats"]["sft"]
    ok(trainer)
    ok(hardware)
    if not verdict["ok"]:
        raise Stopped(f"the trainer does not take the data: {verdict['reason']}")
    return str(verdict["kind"])


def _first_light(inputs: Inputs) -> Plan:
    kind = yield from look(inputs)
    baseline = yield from _evaluate(
        inputs, model=inputs.base, name="baseline", why=f"The data fits ({kind}). Now the baseline."
    )
    scored = f"The base model scores {baseline.accuracy:.1%} (chance is 10 %). "
    best: _Measured | None = None
    for recipe in RECIPES:
        trained = yield from _train(inputs, recipe, why=f"{scored}Next recipe: {recipe['max_steps']} steps of SFT.")
        measured = yield from _evaluate(
            inputs, model=trained, name=f"{recipe['name']}-eval", why="Trained. Now the same held-out items."
        )
        verdict = yield from _compare(baseline, measured)
        scored = f"{recipe['name']} scores {measured.accuracy:.1%}, {verdict} against the baseline. "
        if best is None or measured.accuracy > best.accuracy:
            best = measured
        if measured.accuracy >= TARGET:
            break
        scored += f"The target is {TARGET:.0%}, so I change one thing. "

    runs, report = yield Say(
        f"{scored}I write the report.",
        [Call("list_runs", {"experiment": EXPERIMENT}), Call("write_report", {"experiment": EXPERIMENT})],
    )
    ok(runs)
    ok(report)
    assert best is not None
    reached = "reached" if best.accuracy >= TARGET else "missed"
    yield Say(
        f"Baseline {baseline.accuracy:.1%}, best {best.accuracy:.1%} on the same held-out items: "
        f"the target of {TARGET:.0%} is {reached}."
    )


@dataclass(frozen=True)
class _Measured:
    job_id: str
    accuracy: float


def _evaluate(inputs: Inputs, *, model: Path | str, name: str, why: str) -> Generator[Say, list[Outcome], _Measured]:
    recipe = {
        "trainer": "evaluation",
        "name": name,
        "model": str(model),
        "dataset": str(inputs.held_out),
        **MEASURED,
    }
    job_id, _ = yield from _run(recipe, why=why, timeout="10m")
    (rows,) = yield Say("", [Call("read_eval", {"source": job_id})])
    accuracy = next((row["value"] for row in ok(rows)["rows"] if row["metric"] == "accuracy"), None)
    if accuracy is None:
        raise Stopped(f"{job_id} left no accuracy")
    return _Measured(job_id, accuracy)


def _train(inputs: Inputs, recipe: dict[str, Any], *, why: str) -> Generator[Say, list[Outcome], str]:
    whole = {
        "trainer": "sft",
        "model": str(inputs.base),
        "dataset": str(inputs.train),
        "hyperparameters": HYPERPARAMETERS,
        "dtype": "float32",
        "use_cpu": True,
        "save_steps": 0.5,
        **recipe,
    }
    job_id, status = yield from _run(whole, why=why, timeout="20m")
    model = status["artifacts"].get("model")
    if not model:
        raise Stopped(f"{job_id} left no model")
    return str(model)


def _run(
    recipe: dict[str, Any], *, why: str, timeout: str
) -> Generator[Say, list[Outcome], tuple[str, dict[str, Any]]]:
    """Render, check, estimate, submit (which asks for approval) and wait. Returns the job's id and last status."""
    (rendered,) = yield Say(why, [Call("render_script", {"recipe": recipe})])
    script = ok(rendered)
    if not script["ok"]:
        raise Stopped(f"the script has errors: {json.dumps(script['checks'])}")
    where = {"script_id": script["script_id"], "backend": "local", "timeout": timeout}
    checked, estimate = yield Say(
        "", [Call("check_script", {"script_id": script["script_id"]}), Call("estimate_job", where)]
    )
    if not ok(checked)["ok"] or ok(estimate)["fits"] is False:
        raise Stopped("the script does not pass its checks, or does not fit this machine")
    (answer,) = yield Say("", [Call("submit_job", {**where, "experiment": EXPERIMENT, "run_name": recipe["name"]})])
    submitted = ok(answer)
    if submitted["status"] not in ("submitted", "already_submitted"):
        raise Stopped(f"{recipe['name']} was not approved: {submitted['status']}. {submitted['note']}")
    job_id = submitted["job_id"]
    news = ""
    for _ in range(MAX_POLLS):
        (polled,) = yield Say(news, [Call("poll_job", {"job_id": job_id, "wait_seconds": POLL_SECONDS})])
        status = ok(polled)
        news = _progress(status)
        if status["state"] in FINAL_STATES:
            if status["state"] != "succeeded":
                raise Stopped(f"{job_id} {status['state']}: {status.get('error') or status.get('log_tail', '')}")
            return job_id, status
    raise Stopped(f"{job_id} did not end within {MAX_POLLS} polls")


def _progress(status: dict[str, Any]) -> str:
    progress, loss = status.get("progress"), status["metrics"].get("loss")
    if not progress or loss is None:
        return ""
    eta = progress.get("eta_seconds")
    return f"Step {progress['step']} of {progress['total']}, loss {loss:.3f}" + (
        f", {eta:.0f} s to go." if eta else "."
    )


def _compare(baseline: _Measured, candidate: _Measured) -> Generator[Say, list[Outcome], str]:
    (compared,) = yield Say(
        "",
        [
            Call(
                "compare_evals",
                {"baseline": baseline.job_id, "candidate": candidate.job_id, "metric": "accuracy"},
            )
        ],
    )
    row = next(row for row in ok(compared)["rows"] if row["metric"] == "accuracy")
    return f"{row['verdict']} by {row['delta']:+.1%} (95 % CI {row['ci_low']:+.1%} to {row['ci_high']:+.1%})"


def ok(outcome: Outcome) -> dict[str, Any]:
    """What a tool answered.

    Raises:
        Stopped: it failed; with its words.
    """
    if outcome.is_error:
        raise Stopped(outcome.text)
    return outcome.data
