"""Whole campaigns on a simulated cluster: what is chosen, what is spent, what is lost, under crashes and kills."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from mlintern.tools.campaigns import store
from mlintern.tools.campaigns.ranking import best_trial
from mlintern.tools.campaigns.runner import LOOK_SECONDS, Runner
from mlintern.tools.campaigns.state import Situation, Trial
from mlintern.tools.ledger import Ledger
from tests.tools.campaigns.simulated import Cluster, Killed, SimulatedWork, VirtualClock, recipe

NAME = "sim"


def open_campaign(
    tmp_path: Path, clock: VirtualClock, trials: list[Trial], *, hours: float = 10.0, parallel: int = 2, **body: Any
) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.db")
    plan = store.Plan(
        model="m",
        revision=None,
        evaluation={"task": "t"},
        metric="accuracy",
        decide_rows=100,
        confirm_rows=100,
        hashes={},
        fingerprint="f",
        usd=None,
        parallel=parallel,
        opened_at=clock.now(),
        ends_at=clock.now() + hours * 3600,
    )
    with ledger.transaction() as connection:
        store.open_experiment(connection, NAME, plan, goal="", target=None)
        store.add_batch(connection, NAME, digest="b", body=body, usd=0.0, now=clock.now())
        store.add_trials(connection, NAME, trials=trials, batch="b", now=clock.now())
    return ledger


def trials_of(
    names: list[str], *, seeds: tuple[int, ...] = (0,), rungs: tuple[float, ...] = (0.25, 1.0)
) -> list[Trial]:
    found = [Trial(number=1, name="baseline", state="waiting", recipe=None)]
    for number, name in enumerate(names, 2):
        found.append(Trial(number=number, name=name, state="waiting", recipe=recipe(), seeds=seeds, rungs=rungs))
    return found


async def run(ledger: Ledger, cluster: Cluster) -> Situation:
    """Run to the end; a killed runner is followed by another, as a server that starts finds it."""
    for _ in range(100_000):
        runner = Runner(experiment=NAME, ledger=ledger, clock=cluster.clock, work=SimulatedWork(cluster))
        try:
            while await runner.step():
                await cluster.clock.sleep(LOOK_SECONDS)
            cluster.kill_chance = 0.0
            return await runner.look()
        except Killed:
            continue
    raise AssertionError("it never ended")


def cluster_of(seed: int, **fields: Any) -> tuple[Cluster, list[str]]:
    draw = random.Random(seed)
    names = [f"t{index}" for index in range(draw.randint(2, 6))]
    truth = {"baseline": draw.uniform(0.2, 0.5)}
    truth |= {name: truth["baseline"] + draw.uniform(-0.05, 0.35) for name in names}
    return Cluster(VirtualClock(), truth, items=60, draw=draw, **fields), names


def check_drawn_campaign(folder: Path, seed: int) -> int:
    """Run a drawn campaign with crashes, lost jobs, lost answers and kills, and check it; returns the kills."""
    cluster, names = cluster_of(seed, crash=0.05, lose=0.1, answers_lost=0.1, kill_chance=0.02)
    ledger = open_campaign(folder, cluster.clock, trials_of(names, seeds=(0, 1)))
    situation = anyio.run(run, ledger, cluster)
    assert {trial.state for trial in situation.trials} <= {"done", "ended", "failed"}
    ran = Counter((job.spec.run_name) for job in cluster.jobs.values())
    assert max(ran.values()) == 1, "no stage ran twice under one attempt"
    recorded = {row.job_id for row in store.stages(ledger, NAME)}
    assert set(cluster.jobs) <= recorded, "no job runs that is not on record"
    for trial in situation.trials:
        if trial.state == "failed":
            assert trial.reason
    ledger.close()
    return cluster.kills


@pytest.mark.parametrize("seed", range(40))
def test_a_campaign_ends_every_trial_once_whatever_crashes_and_whenever_it_is_killed(
    tmp_path: Path, seed: int
) -> None:
    check_drawn_campaign(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(40, 440, 50))
def test_so_do_four_hundred_others(tmp_path: Path, first: int) -> None:
    """A minute of processor time; benchmarks/simulated_campaigns.py draws a thousand."""
    kills = 0
    for seed in range(first, first + 50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kills += check_drawn_campaign(folder, seed)
    assert kills >= 50, "a runner was killed about once in each"


def test_no_more_jobs_run_than_were_allowed_and_no_slot_is_idle_while_a_trial_waits(tmp_path: Path) -> None:
    idle, total = 0.0, 0.0
    for seed in range(10):
        cluster, names = cluster_of(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        ledger = open_campaign(folder, cluster.clock, trials_of(names), parallel=3)

        async def watched(ledger: Ledger = ledger, cluster: Cluster = cluster) -> None:
            nonlocal idle, total
            runner = Runner(experiment=NAME, ledger=ledger, clock=cluster.clock, work=SimulatedWork(cluster))
            going = True
            while going:
                going = await runner.step()
                running, before = cluster.running, cluster.clock.time
                assert running <= 3
                waiting = sum(trial.state == "waiting" for trial, _ in store.trials(ledger, NAME))
                await cluster.clock.sleep(LOOK_SECONDS)
                passed = cluster.clock.time - before if waiting else 0.0
                total += 3 * passed
                idle += (3 - running) * passed

        anyio.run(watched)
    assert idle <= 0.05 * total


def test_a_trial_that_would_not_be_measured_in_time_is_refused_with_the_largest_that_fits(tmp_path: Path) -> None:
    cluster, _ = cluster_of(1)
    cluster.truth = {"baseline": 0.3, "short": 0.5, "long": 0.6}
    trials = [
        Trial(number=1, name="baseline", state="waiting", recipe=None),
        Trial(number=2, name="short", state="waiting", recipe=recipe(200), rungs=(1.0,)),
        Trial(number=3, name="long", state="waiting", recipe=recipe(5000), rungs=(1.0,)),
    ]
    ledger = open_campaign(tmp_path, cluster.clock, trials, hours=0.2, parallel=1)
    situation = anyio.run(run, ledger, cluster)
    long = situation.trials[2]
    assert long.state == "refused"
    assert "min are left" in long.reason and "largest that fits is about max_steps=" in long.reason
    steps = int(long.reason.rpartition("max_steps=")[2].rstrip("."))
    assert 0.5 * steps * 1.15 < 0.2 * 3600
    assert cluster.clock.time <= 1_000_000 + 0.2 * 3600 + LOOK_SECONDS


def test_the_clock_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    cluster, _ = cluster_of(2)
    cluster.truth = {"baseline": 0.3, "a": 0.5, "b": 0.5}
    ledger = open_campaign(tmp_path, cluster.clock, trials_of(["a", "b"], rungs=(1.0,)), hours=100 / 3600, parallel=1)
    situation = anyio.run(run, ledger, cluster)
    assert all(trial.over for trial in situation.trials)
    assert cluster.running == 0
    assert "time is over" in situation.trials[-1].reason


def test_halving_finds_the_best_at_least_as_often_as_one_full_run_each_of_as_many_as_the_same_spending_buys(
    tmp_path: Path,
) -> None:
    """Twenty drawn spaces of eight trials: rungs of 20 % and 100 % against full runs of the first so many."""
    by_halving = by_full_runs = 0
    for seed in range(20):
        draw = random.Random(seed)
        names = [f"t{index}" for index in range(8)]
        truth = {"baseline": 0.3} | {name: 0.3 + draw.uniform(0, 0.4) for name in names}
        cluster = Cluster(VirtualClock(), truth, items=150, draw=draw)
        folder = tmp_path / str(seed)
        folder.mkdir()
        ledger = open_campaign(folder, cluster.clock, trials_of(names, rungs=(0.2, 1.0)), parallel=2)
        situation = anyio.run(run, ledger, cluster)
        spent = sum(float(job.spec.args[1]) for job in cluster.jobs.values() if job.kind == "train")
        best = best_trial(situation.trials)
        assert best is not None
        top = max(names, key=lambda name: truth[name])
        by_halving += best.name == top
        by_full_runs += top in names[: int(spent // 200)]  # even with perfect measurement of those
    assert by_halving >= by_full_runs


def test_the_best_model_so_far_is_kept_before_the_campaign_ends(tmp_path: Path) -> None:
    cluster, _ = cluster_of(3)
    cluster.truth = {"baseline": 0.2, "weak": 0.3, "strong": 0.7}
    ledger = open_campaign(tmp_path, cluster.clock, trials_of(["weak", "strong"], rungs=(1.0,)), parallel=1)
    anyio.run(run, ledger, cluster)
    assert cluster.kept == ["weak", "strong"]


def test_a_confirmation_measures_baseline_and_every_seed_once_and_is_counted(tmp_path: Path) -> None:
    cluster, _ = cluster_of(4)
    cluster.truth = {"baseline": 0.3, "good": 0.7}
    ledger = open_campaign(tmp_path, cluster.clock, trials_of(["good"], seeds=(0, 1, 2), rungs=(1.0,)))
    anyio.run(run, ledger, cluster)
    for expected in (1, 2):
        with ledger.transaction() as connection:
            assert store.add_confirmation(connection, NAME, trial=2, now=cluster.clock.now()) == expected
        anyio.run(run, ledger, cluster)
    first, second = store.confirmations(ledger, NAME)
    assert first.verdict is not None and second.verdict is not None
    assert first.verdict["verdict"] == "improved" and first.verdict["seeds"] == 3
    assert second.verdict["p_adjusted"] == pytest.approx(min(1.0, 2 * second.verdict["p_value"]))
    assert sum(job.kind == "confirm" for job in cluster.jobs.values()) == 2 * 4


PLACE = {"backend": "simulated", "hardware": "cpu", "train": "12m", "measure": "10m"}


def long_trials(*lengths: int, place: dict[str, str] = PLACE) -> list[Trial]:
    found = [Trial(number=1, name="baseline", state="waiting", recipe=None, place=place)]
    for number, steps in enumerate(lengths, 2):
        own = recipe(steps) | {"model": f"m{number}"}  # nothing that another run took says how long it takes
        found.append(
            Trial(number=number, name=f"s{steps}", state="waiting", recipe=own, rungs=(1.0,), place=dict(place))
        )
    return found


def kinds_of(cluster: Cluster, trial: int) -> list[str]:
    ran = [str(job.spec.run_name).split("/") for job in cluster.jobs.values()]
    return [kind for number, kind, *_ in ran if int(number) == trial]


def test_a_long_trial_of_which_nothing_is_known_begins_after_a_probe_and_only_if_it_fits(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "s600": 0.5, "s50000": 0.6}, items=60, draw=random.Random(1))
    cluster.startup_seconds = 60.0
    place = PLACE | {"train": "20h"}
    ledger = open_campaign(tmp_path, cluster.clock, long_trials(600, 50_000, place=place), hours=1.0, parallel=1)
    situation = anyio.run(run, ledger, cluster)
    assert [trial.state for trial in situation.trials] == ["done", "done", "refused"]
    assert kinds_of(cluster, 2) == ["probe", "train", "measure"]
    assert kinds_of(cluster, 3) == ["probe"], "70 seconds were spent on it, not hours"
    reason = situation.trials[2].reason
    steps = int(reason.rpartition("max_steps=")[2].rstrip("."))
    left = cluster.clock.ends[-1] if cluster.clock.ends else cluster.clock.time
    assert 0 < 60 + 0.5 * steps <= 1_000_000 + 3600 - left + 200, reason


def test_a_trial_that_its_time_out_would_cut_off_is_refused_with_what_fits_into_it(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "s5000": 0.5}, items=60, draw=random.Random(1))
    ledger = open_campaign(tmp_path, cluster.clock, long_trials(5000), hours=10.0, parallel=1)
    situation = anyio.run(run, ledger, cluster)
    assert situation.trials[1].state == "refused"
    assert "cut off after 12.0 min" in situation.trials[1].reason and "`timeout`" in situation.trials[1].reason
    steps = int(situation.trials[1].reason.partition("max_steps=")[2].partition(".")[0])
    assert 0.8 * 12 * 60 < 0.5 * steps * 1.15 < 1.15 * 12 * 60


def test_one_probe_serves_all_trials_that_train_alike_and_a_short_one_needs_none(tmp_path: Path) -> None:
    cluster = Cluster(
        VirtualClock(), {"baseline": 0.3, "a": 0.4, "b": 0.5, "c": 0.5}, items=60, draw=random.Random(1)
    )
    trials = [Trial(number=1, name="baseline", state="waiting", recipe=None, place=PLACE)]
    for number, (name, steps) in enumerate([("a", 1000), ("b", 900), ("c", 1000)], 2):
        trials.append(
            Trial(number=number, name=name, state="waiting", recipe=recipe(steps), rungs=(1.0,), place=PLACE)
        )
    ledger = open_campaign(tmp_path, cluster.clock, trials, parallel=3)
    situation = anyio.run(run, ledger, cluster)
    assert {trial.state for trial in situation.trials} == {"done"}
    assert sum(kinds_of(cluster, number).count("probe") for number in (2, 3, 4)) == 1
    folder = tmp_path / "short"
    folder.mkdir()
    short = Cluster(VirtualClock(), {"baseline": 0.3, "s300": 0.5}, items=60, draw=random.Random(1))
    anyio.run(run, open_campaign(folder, short.clock, long_trials(300)), short)
    assert kinds_of(short, 2) == ["train", "measure"]


def test_a_probe_that_says_nothing_holds_no_trial_up(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "s1000": 0.5}, items=60, draw=random.Random(1))
    cluster.measures_pace = False
    situation = anyio.run(run, open_campaign(tmp_path, cluster.clock, long_trials(1000)), cluster)
    assert situation.trials[1].state == "done"
    assert kinds_of(cluster, 2) == ["probe", "train", "measure"]


def test_a_probe_that_fails_ends_its_trial_with_the_reason(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "s1000": 0.5}, items=60, draw=random.Random(1))
    cluster.crash = 1.0
    situation = anyio.run(run, open_campaign(tmp_path, cluster.clock, long_trials(1000)), cluster)
    assert situation.trials[1].state == "failed" and "probe of rung 0" in situation.trials[1].reason


def test_data_is_generated_once_before_a_trial_and_every_training_of_it_takes_that(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "made": 0.5}, items=60, draw=random.Random(1))
    made = Trial(
        number=2,
        name="made",
        state="waiting",
        recipe={name: value for name, value in recipe(1000).items() if name != "dataset"},
        data={"trainer": "generate", "model": "m", "prompts": "p"},
        seeds=(0, 1),
        rungs=(0.5, 1.0),
        place=PLACE,
    )
    trials = [Trial(number=1, name="baseline", state="waiting", recipe=None, place=PLACE), made]
    ledger = open_campaign(tmp_path, cluster.clock, trials, parallel=2)
    situation = anyio.run(run, ledger, cluster)
    assert situation.trials[1].state == "done"
    kinds = kinds_of(cluster, 2)
    assert kinds[:2] == ["generate", "probe"] and Counter(kinds) == Counter(generate=1, probe=1, train=3, measure=3)
    took = {job.spec.args[3] for job in cluster.jobs.values() if job.kind in ("train", "probe")}
    assert took == {"data of 2"}


def test_a_search_runs_its_trials_where_and_on_the_data_that_its_base_has(tmp_path: Path) -> None:
    names = {f"base: limit={limit}": 0.4 for limit in (10, 20, 30)}
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "base": 0.5, **names}, items=60, draw=random.Random(1))
    base = Trial(number=2, name="base", state="waiting", recipe=recipe(100), rungs=(1.0,), place=PLACE)
    trials = [Trial(number=1, name="baseline", state="waiting", recipe=None, place=PLACE), base]
    search = {"kind": "grid", "base": "base", "space": {"limit": [10, 20, 30]}, "trials": 3}
    ledger = open_campaign(tmp_path, cluster.clock, trials, search=search)
    situation = anyio.run(run, ledger, cluster)
    found = [trial for trial in situation.trials if trial.parent == 2]
    assert len(found) == 3 and all(trial.place == PLACE and trial.state == "done" for trial in found)


@pytest.mark.parametrize("parallel", [1, 2])
def test_no_clock_is_spent_on_baselines_alone(tmp_path: Path, parallel: int) -> None:
    """The second baseline, whose prompts are long, comes when a training has begun."""
    cluster = Cluster(VirtualClock(), {"baseline": 0.3, "shots": 0.3, "a": 0.5, "b": 0.5}, 60, random.Random(1))
    trials = [
        Trial(number=n, name=name, state="waiting", recipe=None) for n, name in enumerate(["baseline", "shots"], 1)
    ]
    trials += [
        Trial(number=n, name=name, state="waiting", recipe=recipe(100), rungs=(1.0,))
        for n, name in enumerate("ab", 3)
    ]
    ledger = open_campaign(tmp_path, cluster.clock, trials, parallel=parallel)
    situation = anyio.run(run, ledger, cluster)
    assert {trial.state for trial in situation.trials} == {"done"}
    began = [str(job.spec.run_name).split("/")[0] for job in cluster.jobs.values()]
    assert began.index("1") < began.index("3") < began.index("2") < began.index("4")


def test_seeds_that_are_added_to_trials_that_are_done_are_run_once_even_of_the_one_that_lost(tmp_path: Path) -> None:
    cluster = Cluster(VirtualClock(), {"baseline": 0.1, "good": 0.8, "weak": 0.3}, items=150, draw=random.Random(1))
    ledger = open_campaign(tmp_path, cluster.clock, trials_of(["weak", "good"], rungs=(1.0,)), parallel=1)
    situation = anyio.run(run, ledger, cluster)
    assert [trial.state for trial in situation.trials] == ["done"] * 3
    before = set(cluster.jobs)
    with ledger.transaction() as connection:
        for number in (2, 3):
            store.add_seeds(connection, NAME, trial=number, seeds=[4, 7])
    situation = anyio.run(run, ledger, cluster)
    assert [trial.state for trial in situation.trials] == ["done"] * 3
    assert [sorted(trial.scores(0)) for trial in situation.trials[1:]] == [[0, 4, 7]] * 2
    ran = [str(job.spec.run_name).rsplit("/", 1)[0] for name, job in cluster.jobs.items() if name not in before]
    assert sorted(ran) == sorted(
        f"{n}/{kind}/0/{seed}" for n in (2, 3) for kind in ("train", "measure") for seed in (4, 7)
    )
