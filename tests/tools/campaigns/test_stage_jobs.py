"""The jobs of stages as they are planned on this machine's own services."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlintern.common.clock import SystemClock
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.requests import is_probed
from mlintern.tools.campaigns.state import StageKey, StageKind, Trial
from mlintern.tools.campaigns.work import JobWork, pace_of
from mlintern.tools.jobs.spec import JobSpec
from mlintern.tools.ledger import MIGRATIONS, Ledger

NAME = "sizes"
PLACE = {"backend": "local", "hardware": "cpu", "train": "3h", "measure": "10m"}


def opened(ledger: Ledger) -> None:
    plan = store.Plan(
        model="org/base",
        revision=None,
        evaluation={"dataset": "items.jsonl"},
        metric="accuracy",
        decide_rows=50,
        confirm_rows=50,
        hashes={},
        fingerprint="f",
        usd=None,
        parallel=1,
        opened_at=0.0,
        ends_at=3600.0,
    )
    with ledger.transaction() as connection:
        store.open_experiment(connection, NAME, plan, goal="", target=None)


@pytest.mark.anyio
async def test_a_probe_runs_the_very_script_of_the_training_that_it_is_for_and_stops_after_some_steps(
    tmp_path: Path,
) -> None:
    lab = Lab(Settings(workspace=tmp_path))
    opened(lab.ledger)
    assert lab.jobs is not None
    work = JobWork(
        workspace=lab.workspace, ledger=lab.ledger, clock=SystemClock(), scripts=lab.scripts, jobs=lab.jobs
    )
    recipe = {"trainer": "sft", "model": "org/base", "dataset": "org/data", "epochs": 3, "use_cpu": True}
    trial = Trial(number=3, name="sft", state="waiting", recipe=recipe, rungs=(0.25, 1.0), place=PLACE)

    async def planned(kind: StageKind) -> JobSpec:
        return await work.plan(NAME, trial, StageKey(3, 0, 0, kind), attempt=1, inputs={})

    probe, train = await planned("probe"), await planned("train")
    assert probe.probes and not train.probes
    code = [
        lab.scripts.get(spec.script_id).text.partition("NAME = ")[2].partition("\n")[2] for spec in (probe, train)
    ]
    assert code[0] == code[1]
    assert (probe.timeout_seconds, train.timeout_seconds) == (600, 3 * 3600)


def test_a_pace_is_what_the_job_measured_and_none_where_it_did_not() -> None:
    said = {"steps": 20.0, "total_steps": 400.0, "seconds_per_step": 2.0, "wall_seconds": 100.0}
    assert pace_of(said) == {"startup": 60.0, "per_step": 2.0, "total_steps": 400.0}
    assert pace_of({name: value for name, value in said.items() if name != "wall_seconds"}) is None
    assert pace_of({"wall_seconds": 3.0}) is None


@pytest.mark.parametrize(
    "length, probed",
    [
        ({"epochs": 1}, True),
        ({}, True),
        ({"max_steps": 400}, False),
        ({"max_steps": 401}, True),
        ({"max_minutes": 600}, False),
    ],
)
def test_what_is_long_or_of_unknown_length_is_probed(length: dict[str, float], probed: bool) -> None:
    assert is_probed({"trainer": "sft", **length}) is probed


def test_a_ledger_of_an_earlier_version_keeps_its_stages_and_takes_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = next(n for n, entry in enumerate(MIGRATIONS) if "stages_of_any_kind" in entry)
    spec = JobSpec(script_id="0" * 12, script_sha256="0" * 64, backend="local", hardware="cpu", timeout_seconds=60)
    kinds: tuple[StageKind, ...] = ("train", "measure", "probe")

    def record(ledger: Ledger, kind: StageKind) -> None:
        with ledger.transaction() as connection:
            store.record_stage(connection, NAME, key=StageKey(1, 0, 0, kind), attempt=1, spec=spec, now=1.0)

    with monkeypatch.context() as patch:
        patch.setattr("mlintern.tools.ledger.MIGRATIONS", MIGRATIONS[:earlier])
        old = Lab(Settings(workspace=tmp_path)).ledger
        opened(old)
        with old.transaction() as connection:
            store.add_batch(connection, NAME, digest="b", body={}, usd=0.0, now=0.0)
            store.add_trials(
                connection, NAME, trials=[Trial(number=1, name="t", state="waiting", recipe={})], batch="b", now=0.0
            )
        for kind in kinds[:2]:
            record(old, kind)
        old.close()
    now = Lab(Settings(workspace=tmp_path)).ledger
    record(now, "probe")
    assert [row.key.kind for row in store.stages(now, NAME)] == list(kinds)
