"""A compute backend that trains nothing: each trial has a known learning curve; jobs take time, crash or get lost.

Time is a number that moves only when the campaign waits, so that a thousand campaigns run in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlintern.tools.campaigns.runner import Look
from mlintern.tools.campaigns.state import StageKey, Trial
from mlintern.tools.errors import NotFound, Offline
from mlintern.tools.jobs.spec import JobSpec


class Killed(BaseException):
    """The runner's process was killed at this point."""


class VirtualClock:
    """Sleeps until something happens: the end of a job, if that is later than what was asked for."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.ends: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.ends = [end for end in self.ends if end > self.time]
        self.time = max(self.time + seconds, min(self.ends, default=0.0))


@dataclass
class Job:
    spec: JobSpec
    kind: str
    began: float
    seconds: float
    fate: str
    scores: dict[str, float] | None
    model: str | None
    pace: dict[str, float] | None = None
    ended: float | None = None
    state: str = "running"


@dataclass
class Cluster:
    """Where simulated jobs run; it outlives the runners that are killed."""

    clock: VirtualClock
    truth: Mapping[str, float]
    items: int
    draw: random.Random
    seconds_per_step: float = 0.5
    startup_seconds: float = 0.0
    measures_pace: bool = True
    measure_seconds: float = 20.0
    crash: float = 0.0
    lose: float = 0.0
    answers_lost: float = 0.0
    jobs: dict[str, Job] = field(default_factory=dict)
    submissions: list[str] = field(default_factory=list)
    kills: int = 0
    kill_chance: float = 0.0
    kept: list[str] = field(default_factory=list)
    usage: list[tuple[float, int]] = field(default_factory=list)

    def maybe_kill(self) -> None:
        if self.kill_chance and self.draw.random() < self.kill_chance:
            self.kills += 1
            raise Killed

    def settle(self) -> None:
        for job in self.jobs.values():
            if job.state == "running" and self.clock.time >= job.began + job.seconds:
                job.ended = job.began + job.seconds
                job.state = job.fate

    @property
    def running(self) -> int:
        self.settle()
        return sum(job.state == "running" for job in self.jobs.values())


class SimulatedWork:
    """`runner.Work` on a `Cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def plan(
        self, experiment: str, trial: Trial, key: StageKey, *, attempt: int, inputs: Mapping[str, str]
    ) -> JobSpec:
        self.cluster.maybe_kill()
        name = f"{trial.number}/{key.kind}/{key.rung}/{key.seed}/{attempt}"
        budget = 0.0
        if trial.recipe is not None and key.kind in ("train", "probe"):
            budget = float(trial.recipe["max_steps"]) * trial.rungs[key.rung]
        return JobSpec(
            script_id="0" * 12,
            script_sha256="0" * 64,
            backend="simulated",
            hardware="cpu",
            timeout_seconds=3600.0,
            experiment=experiment,
            run_name=name,
            args=(trial.name, str(budget), inputs.get("model", "base"), inputs.get("dataset", "")),
            usd_per_hour=1.0,
            usd_worst=1.0,
        )

    async def submit(self, spec: JobSpec) -> None:
        cluster = self.cluster
        cluster.maybe_kill()
        cluster.submissions.append(spec.job_id)
        if spec.job_id not in cluster.jobs:
            cluster.jobs[spec.job_id] = self._job(spec)
        cluster.usage.append((cluster.clock.time, cluster.running))
        cluster.maybe_kill()
        if cluster.draw.random() < cluster.answers_lost:
            raise Offline("no answer", service="simulated")

    async def look(self, spec: JobSpec, kind: str) -> Look:
        self.cluster.maybe_kill()
        self.cluster.settle()
        job = self.cluster.jobs.get(spec.job_id)
        if job is None:
            raise NotFound("no such job")
        if job.state == "running":
            return Look(state="running")
        assert job.ended is not None
        value = sum(job.scores.values()) / len(job.scores) if job.scores else None
        good = job.state == "succeeded"
        return Look(
            state=job.state,
            seconds=job.ended - job.began,
            error="" if good else "simulated",
            model=job.model if good else None,
            scores=job.scores if good else None,
            value=value if good else None,
            pace=job.pace if good else None,
        )

    async def stop(self, job_id: str, *, reason: str) -> None:
        job = self.cluster.jobs.get(job_id)
        if job is None:
            raise NotFound("no such job")
        if job.state == "running":
            job.state, job.ended = "cancelled", self.cluster.clock.time

    async def keep_best(self, experiment: str, trial: Trial, model: str) -> None:
        self.cluster.kept.append(trial.name)

    def _job(self, spec: JobSpec) -> Job:
        cluster = self.cluster
        name, budget, model, _ = spec.args
        number, kind, _rung, seed, _attempt = str(spec.run_name).split("/")
        fates = ["failed"] * (cluster.draw.random() < cluster.crash) + ["lost"] * (
            cluster.draw.random() < cluster.lose
        )
        fate = (fates or ["succeeded"])[0]
        steps = {"train": float(budget), "probe": 20.0}.get(kind)
        working = cluster.measure_seconds if steps is None else steps * cluster.seconds_per_step
        seconds = (working + cluster.startup_seconds) * cluster.draw.uniform(0.9, 1.1)
        scores, made, pace = None, None, None
        if steps is not None and cluster.measures_pace:
            per_step = (seconds - cluster.startup_seconds) / steps
            pace = {"startup": cluster.startup_seconds, "per_step": per_step, "total_steps": float(budget)}
        if kind == "train":
            # A learning curve: the share of the whole gain that a budget brings, and a little luck of the seed.
            made = f"{number}|{budget}|{seed}"
        elif kind == "generate":
            made = f"data of {number}"
        elif kind in ("measure", "confirm"):
            scores = self._scores(name, model, kind)
        cluster.clock.ends.append(cluster.clock.time + seconds)
        return Job(spec, kind, cluster.clock.time, seconds, fate, scores, made, pace)

    def _scores(self, name: str, model: str, kind: str) -> dict[str, float]:
        cluster = self.cluster
        p = cluster.truth["baseline"]
        if model != "base":
            _, budget, seed = model.split("|")
            steps = float(budget)
            gain = cluster.truth[name] - cluster.truth["baseline"]
            luck = random.Random(f"{name}{seed}").gauss(0, 0.01)
            p = min(0.98, max(0.02, cluster.truth["baseline"] + gain * steps / (steps + 50) + luck))
        # The items are the same for every model: each has a difficulty, so that measurements are paired.
        offset = 0 if kind == "measure" else cluster.items
        item, noise = random.Random(kind), random.Random(f"{name}{model}{kind}")
        return {
            f"i{index}": float(0.8 * item.random() + 0.2 * noise.random() < p)
            for index in range(offset, offset + cluster.items)
        }


def recipe(steps: int = 200) -> dict[str, Any]:
    return {"trainer": "sft", "model": "m", "dataset": "d", "max_steps": steps}
