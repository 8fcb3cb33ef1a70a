"""What a person sees before a job starts: price and place, what needs their eye, what will run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlintern.common.consent import Action
from mlintern.common.text import cut_line, cut_list
from mlintern.server.services import Lab
from mlintern.server.settings import NOT_ISOLATED
from mlintern.tools.jobs.spec import PROBE_VARIABLE, JobSpec

if TYPE_CHECKING:
    from mlintern.tools.scripts.store import Script

MOST_SHOWN = 20
SHOWN_APART = frozenset(
    {"trainer", "model", "model_revision", "dataset", "datasets", "dataset_revision", "split", "hyperparameters"}
    | {"evaluation", "push_to_hub", "name"}
)
"""Fields of a recipe that have a line of their own."""


def starting(plan: JobSpec, lab: Lab) -> Action:
    """Starting ``plan``, described for the person who decides."""
    from mlintern.tools.jobs.risks import redirects_or_loads
    from mlintern.tools.jobs.served_models import paid_endpoints

    script = lab.scripts.get(plan.script_id)
    risky = [(name, value) for name, value in plan.env if redirects_or_loads(name, value)]
    reasons = [f"the script gets the secret {name}" for name in plan.secrets]
    reasons += [f"a variable that can redirect or load code: {name}={shlex.quote(value)}" for name, value in risky]
    reasons += [f"it asks a served model, {said}" for said in paid_endpoints(script.recipe or {})]
    if plan.priced_at:
        reasons.append(f"the price is that of {plan.priced_at}; today's could not be read")
    details = [
        ("Billed to", plan.billed_to or ""),
        *(("Warning", warning) for warning in lab.jobs.planner.warnings(script, plan.backend, secrets=plan.secrets)),
        ("Probe", "its training stops after a few steps; nothing is saved, measured or sent" if plan.probes else ""),
        *what_runs(script),
        *(local_isolation(plan, script, lab=lab) if plan.backend == "local" else ()),
        ("Arguments", shlex.join(plan.args)),
        *(
            ("Variable", f"{name}={shlex.quote(value)}")
            for name, value in plan.env
            if (name, value) not in risky and name != PROBE_VARIABLE
        ),
        ("Experiment", " / ".join(filter(None, (plan.experiment, plan.run_name)))),
        ("Schedule", f"{plan.schedule.cron} (UTC), {plan.schedule.runs} runs at most" if plan.schedule else ""),
    ]
    return Action(
        kind="schedule_job" if plan.schedule else "submit_job",
        what="Schedule script" if plan.schedule else "Run script",
        name=script.name,
        where=plan.backend,
        hardware=plan.hardware,
        usd_worst=plan.usd_worst,
        seconds=plan.timeout_seconds,
        runs=plan.schedule.runs if plan.schedule else 1,
        digest=plan.digest,
        priced_at=plan.priced_at or "",
        always_ask=tuple(reasons),
        script_id=plan.script_id,
        details=tuple((label, value) for label, value in details if value),
    )


def local_isolation(plan: JobSpec, script: Script, *, lab: Lab) -> Iterator[tuple[str, str]]:
    """What the job could reach on this machine."""
    if lab.settings.unsandboxed:
        yield "Not isolated", NOT_ISOLATED
        return
    from mlintern.tools.jobs.backends.local.confinement import readable_data

    data = readable_data(plan, script, workspace=lab.workspace.root, home=Path.home())
    yield "Reads here", cut_list(data, MOST_SHOWN) or "nothing of yours but the Hugging Face cache"
    yield "Network", "open"


def what_runs(script: Script) -> Iterator[tuple[str, str]]:
    """(label, value) lines about what ``script`` does, from its recipe where it has one."""
    if script.recipe is None:
        yield "What runs", "a script that was written or edited by hand; nothing but its text says what it does"
    else:
        yield from _recipe_lines(script.recipe)
    lines = len(script.text.splitlines())
    yield "Script", f"{lines} lines (script_id {script.script_id}): {script.path}"


def _recipe_lines(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Trainer", str(recipe.get("trainer", ""))
    yield "Model", _with_revision(recipe, "model", "model_revision")
    data = recipe.get("datasets") or [recipe]
    for each in data if isinstance(data, list) else [data]:
        split = f", split {each['split']}" if each.get("split") else ""
        yield "Data", _with_revision(each, "dataset", "dataset_revision") + split
    others = {name: value for name, value in recipe.items() if name not in SHOWN_APART}
    chosen = {**(recipe.get("hyperparameters") or {}), **others}
    yield "Hyperparameters", cut_list((f"{name} {_brief(value)}" for name, value in chosen.items()), MOST_SHOWN)
    if evaluation := recipe.get("evaluation"):
        yield "Evaluates on", str(evaluation.get("dataset") or evaluation.get("suite") or "")
    yield "Pushes to the Hub", str(recipe.get("push_to_hub") or "nothing")


def _with_revision(recipe: Mapping[str, Any], name: str, revision: str) -> str:
    at = f" at {recipe[revision]}" if recipe.get(revision) else ""
    return f"{recipe[name]}{at}" if recipe.get(name) else ""


def _brief(value: Any) -> str:
    return cut_line(value if isinstance(value, str) else json.dumps(value, default=str), 60)
