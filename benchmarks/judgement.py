"""How often the rules of `diagnose_run` are wrong, measured on simulated runs with known truth.

    python -m benchmarks.judgement [--quick]

Bounds:

* stationary rewards, 1 x 8 to 64 x 16 answers a row, shares of right answers from .02 to .98, 150 rows, looked at
  after every fifth row: reward_collapse in at most 1 % of the runs of each cell;
* slow erosion (.7 to .45 over 200 rows of 1 x 8 answers and more): reward_collapse in at least 90 %;
* healthy runs of each kind: any error or warning in at most 1 %;
* the cost of a diagnosis after 100,000 rows: at most 3 times that after 1,000.

`--quick` takes a tenth of the runs and checks the same bounds loosely (3 % in place of 1 %).
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from mlintern.tools.health.diagnose import Diagnoser, diagnose_run
from mlintern.tools.health.rules.reward_collapse import reward_collapse
from mlintern.tools.health.series import CurveBuilder

RUNS = 300
ROWS = 150
CELLS = ((1, 8), (4, 8), (16, 8), (64, 16))
SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)
MOST_FALSE, LEAST_FOUND, MOST_SLOWER = 0.01, 0.90, 3.0


def answers(source: random.Random, share: float, *, prompts: int, group: int) -> float:
    """Mean reward of a batch of right and wrong answers to prompts of one difficulty."""
    trials = prompts * group
    spread = math.sqrt(trials * share * (1 - share))
    if spread > 4:
        return min(trials, max(0, round(source.gauss(trials * share, spread)))) / trials
    return sum(source.random() < share for _ in range(trials)) / trials


def row(step: int, **values: float) -> dict[str, Any]:
    return {"kind": "metrics", "step": step, "values": {name.replace("__", "/"): v for name, v in values.items()}}


def collapses(values: Iterator[float], *, every: int = 5) -> bool:
    """Whether the rule fires at any look at the growing run."""
    curves = CurveBuilder()
    for step, value in enumerate(values, start=1):
        curves.add(row(step, reward=value))
        if step % every == 0 and any(True for _ in reward_collapse(curves.run())):
            return True
    return False


def stationary(runs: int) -> Iterator[tuple[str, float]]:
    for prompts, group in CELLS:
        for share in SHARES:
            source = random.Random(f"{prompts} {group} {share}")
            fired = sum(
                collapses(answers(source, share, prompts=prompts, group=group) for _ in range(ROWS))
                for _ in range(runs)
            )
            yield f"stationary {prompts:2d} x {group:2d}, share {share:.2f}", fired / runs


def erosion(runs: int) -> Iterator[tuple[str, float]]:
    for prompts, group, rows in ((1, 8, 200), (2, 8, 200), (4, 8, 200), (16, 8, 100), (64, 16, 100)):
        source = random.Random(f"erosion {prompts} {group}")
        found = sum(
            collapses(
                (answers(source, 0.7 - 0.25 * at / rows, prompts=prompts, group=group) for at in range(rows)),
                every=10,
            )
            for _ in range(runs)
        )
        yield f"erosion .7 to .45, {rows} rows of {prompts} x {group}", found / runs


Make = Callable[[random.Random, float], dict[str, float]]


def _sft(source: random.Random, t: float) -> dict[str, float]:
    loss = 1.2 + 1.0 * math.exp(-4 * t)
    return {"loss": loss * (1 + 0.15 * source.gauss(0, 1)), "grad_norm": math.exp(0.5 * source.gauss(0, 1))}


def _pretraining(source: random.Random, t: float) -> dict[str, float]:
    return {"loss": 2.1 * (1 - 0.03 * t) * (1 + 0.02 * source.gauss(0, 1)), "grad_norm": 0.5}


def _grpo(source: random.Random, t: float) -> dict[str, float]:
    right, form = 0.2 + 0.3 * t, 0.5 + 0.4 * t
    correct, tags = (answers(source, share, prompts=8, group=8) for share in (right, form))
    return {
        "reward": correct + tags,
        "rewards__accuracy__mean": correct,
        "rewards__format__mean": tags,
        "reward_std": 0.3,
        "frac_reward_zero_std": 0.2,
        "kl": 0.3 * t * math.exp(0.3 * source.gauss(0, 1)),
        "entropy": 0.8 - 0.4 * t,
        "completions__mean_length": 200 * (1 + t) * math.exp(0.1 * source.gauss(0, 1)),
        "completions__clipped_ratio": 0.05,
        "grad_norm": 0.3 * math.exp(0.5 * source.gauss(0, 1)),
    }


def _dpo(source: random.Random, t: float) -> dict[str, float]:
    margin = 1.2 * t
    losses = [math.log1p(math.exp(-source.gauss(margin, 0.3 + t))) for _ in range(8)]
    return {
        "loss": sum(losses) / 8,
        "rewards__accuracies": sum(loss < math.log(2) for loss in losses) / 8,
        "rewards__margins": margin,
        "logps__chosen": -200 - 30 * t + 10 * source.gauss(0, 1),
        "logps__rejected": -220 - 60 * t + 10 * source.gauss(0, 1),
        "grad_norm": 5 * math.exp(0.5 * source.gauss(0, 1)),
    }


def _kto(source: random.Random, t: float) -> dict[str, float]:
    return {
        "loss": 0.5 - 0.12 * (1 - math.exp(-3 * t)) + 0.02 * source.gauss(0, 1),
        "kl": max(0.0, 12 * (1 - math.exp(-3 * t)) + 2 * source.gauss(0, 1)),
        "rewards__chosen": 0.8 * t,
        "rewards__rejected": -1.5 * t,
        "rewards__margins": 2.3 * t,
        "logps__chosen": -240 + 20 * source.gauss(0, 1),
        "logps__rejected": -260 - 30 * source.random(),
        "grad_norm": abs(2 + 0.6 * source.gauss(0, 1)),
    }


def _simpo(source: random.Random, t: float) -> dict[str, float]:
    """Log-probabilities are means over tokens, and those of both answers fall."""
    return {
        "loss": 1.65 - 0.35 * (1 - math.exp(-3 * t)) + 0.07 * source.gauss(0, 1),
        "rewards__accuracies": min(1.0, 0.6 + 0.2 * t + 0.06 * source.gauss(0, 1)),
        "rewards__margins": 0.3 + t,
        "logps__chosen": -0.28 - 0.15 * t + 0.01 * source.gauss(0, 1),
        "logps__rejected": -0.32 - 0.25 * t + 0.01 * source.gauss(0, 1),
        "grad_norm": abs(15 + 5 * source.gauss(0, 1)),
    }


def _classifier(source: random.Random, t: float) -> dict[str, float]:
    """Small batches: the loss is noisy, and in every twentieth row held-out loss and accuracy settle."""
    values = {
        "loss": max(0.01, (0.2 + 0.5 * math.exp(-4 * t)) * math.exp(0.45 * source.gauss(0, 1))),
        "grad_norm": math.exp(1 + source.gauss(0, 1)),
    }
    if round(199 * t) % 20 == 19:
        values["eval_loss"] = 0.35 + 0.3 * math.exp(-6 * t) + 0.008 * source.gauss(0, 1)
        values["eval_accuracy"] = 0.82 - 0.3 * math.exp(-6 * t) + 0.008 * source.gauss(0, 1)
    return values


def _curriculum(source: random.Random, t: float) -> dict[str, float]:
    """Harder data from the middle on: the loss steps up once and goes on falling."""
    loss = (1.4 if t < 0.5 else 1.75) - 0.3 * t
    return {"loss": loss * (1 + 0.05 * source.gauss(0, 1)), "grad_norm": 1.0, "learning_rate": 1e-5}


HEALTHY: dict[str, Make] = {
    "sft": _sft,
    "continued pretraining": _pretraining,
    "grpo": _grpo,
    "dpo": _dpo,
    "kto": _kto,
    "simpo": _simpo,
    "classifier": _classifier,
    "curriculum": _curriculum,
}


def healthy(runs: int) -> Iterator[tuple[str, float]]:
    for name, make in HEALTHY.items():
        source = random.Random(name)
        alarms = 0
        for _ in range(runs):
            diagnoser = Diagnoser()
            diagnoser.add(row(at, **make(source, at / 199)) for at in range(200))
            alarms += any(finding.severity != "note" for finding in diagnoser.diagnosis().findings)
        yield f"healthy {name}, 200 rows", alarms / runs


def cost(rows: int) -> float:
    """Seconds of one diagnosis after so many rows: the best of five."""
    source = random.Random(0)
    curves = CurveBuilder()
    for step in range(rows):
        curves.add(row(step, reward=0.5 + 0.1 * source.gauss(0, 1), loss=source.random(), kl=0.1, entropy=0.5))
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        diagnose_run(curves.run())
        best = min(best, time.perf_counter() - started)
    return best


def main() -> int:
    quick = "--quick" in sys.argv
    runs, most = (RUNS // 10, 3 * MOST_FALSE) if quick else (RUNS, MOST_FALSE)
    missed: list[str] = []
    for measure in (stationary, healthy):
        for name, rate in measure(runs):
            print(f"{name:45s} false alarms {rate:6.2%}", flush=True)
            missed += [name] if rate > max(most, 1.5 / runs) else []
    for name, rate in erosion(max(30, runs // 3)):
        print(f"{name:45s} found        {rate:6.2%}", flush=True)
        missed += [name] if rate < LEAST_FOUND else []
    short, long = cost(1_000), cost(100_000)
    print(f"a diagnosis after 1,000 rows {short * 1e3:.0f} ms, after 100,000 rows {long * 1e3:.0f} ms")
    missed += ["cost"] if long > MOST_SLOWER * short else []
    print(f"missed: {', '.join(missed)}" if missed else "all bounds are held")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
