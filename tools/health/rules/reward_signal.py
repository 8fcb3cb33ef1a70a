"""Is there anything to learn from the reward, and is it being learned?

Never looked at: the loss. With one update a batch the loss of GRPO is 0 by construction, whatever is learned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlintern.tools.health.advice import faster
from mlintern.tools.health.change import noise_variance
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, gain, noise_of_means, rises, smoothed, tail, trend, window

SAME = 1e-6
ALWAYS_ROWS = 30
FLAT_ROWS = 50
MANNER = re.compile(
    r"format|tag|xml|length|style|soft|strict|repetition|language|penalty|compil|parse|syntax|cosine|concis", re.I
)
"""Names of rewards for how an answer looks, not for whether it is right."""
PENALTY = re.compile(r"penalty|violation|repetition|cost|error|overlong", re.I)


def no_reward_signal(run: Run) -> Iterable[Finding]:
    """All answers to a prompt get the same reward, so that there is nothing to prefer: no gradient.

    Thresholds: frac_reward_zero_std above .8; else reward_std of 0; else, where neither is logged, the very same
    reward in 4 rows or more. A warning where the reward is as high as it has been (the prompts may be solved), an
    error after 10 rows where it is not. Source: the advantage of GRPO is the reward minus the mean of its group (Shao
    et al. 2024, arXiv:2402.03300, 4.1). False alarms: none where groups differ, by construction.
    """
    reward, zero_std, spread = run["reward"], run["zero_std"], run["reward_std"]
    if not run.has_reward:
        return
    evidence = ""
    if len(zero_std) >= 3 and tail(zero_std) > 0.8:
        evidence = f"frac_reward_zero_std is {tail(zero_std):.2f}"
    elif len(spread) >= 3 and max(spread.values[-window(spread) :]) <= SAME:
        evidence = "reward_std is 0"
    elif not len(zero_std) and not len(spread) and len(reward) >= 4:
        recent = reward.values[-max(4, window(reward)) :]
        if max(recent) - min(recent) <= SAME:
            evidence = f"reward is exactly {recent[-1]:.4g} in the last {len(recent)} rows"
    if not evidence:
        yield from _parts_without_signal(run, reward)
        return
    best = max(mean for _, mean in smoothed(reward))
    solved = best > 0 and best - tail(reward) <= max(0.05 * best, 3 * noise_of_means(reward))
    yield Finding(
        kind="no_reward_signal",
        severity="error" if not solved and len(reward) >= ENOUGH else "warning",
        step=int(reward.steps[-window(reward)]),
        evidence=f"{evidence}, at a reward of {tail(reward):.4g}" + "".join(_cancelling(run, reward)),
        advice="The prompts may be solved, or every answer earns the same part: use harder prompts, or stop here."
        if solved
        else "Use easier prompts, reward partial success, sample more (num_generations, temperature), start from an "
        "SFT checkpoint; print some completions and what the reward function says of them.",
    )


def nothing_learned(run: Run) -> Iterable[Finding]:
    """Rewards differ, and yet the policy does not move; or it has used its whole budget and earns what it earned.

    Thresholds: a gradient of 0 in 5 rows in which rewards differ; or, once all steps that were planned are done (at
    least 50 rows), a trend of the reward below 2 standard errors and below 10 % of its level, in a reward that
    scatters like independent draws (a slow wave is movement) and is no more than .9 of its highest row. False alarms:
    none in 300 healthy GRPO runs (`benchmarks/judgement.py`); the second claims no failure.
    """
    reward, norms, spread = run["reward"], run["grad_norm"], run["reward_std"]
    if not run.has_reward:
        return
    differs = min(spread.values[-5:]) > SAME if len(spread) else noise_variance(reward.values) > 0
    if len(norms) >= 5 and not norms.bad and not any(norms.values[-5:]) and differs:
        kl = run["kl"]
        still = f", kl is {kl.values[-1]:.3g}" if len(kl) else ""
        yield Finding(
            kind="stalled",
            severity="error",
            step=int(norms.steps[-5]),
            evidence=f"grad_norm is 0 in the last 5 rows although rewards differ{still}",
            advice="Check which parameters require gradients (LoRA attached, nothing frozen by mistake), that "
            "completions are not all masked, and that the advantage is not scaled away.",
        )
    elif run.over and len(reward) >= FLAT_ROWS and _flat(reward):
        yield Finding(
            kind="stalled",
            severity="warning",
            step=int(reward.steps[-1]),
            evidence=f"reward was {reward.values[0]:.3g} in the first row and is {tail(reward):.3g} after all "
            f"{len(reward)} rows; its trend is {trend(reward)[0]:+.2g}, less than its noise",
            advice=f"{faster(run)}, use more or longer groups, or prompts that are solved sometimes (between 10 and "
            "90 %).",
        )


def _flat(reward: Series) -> bool:
    change, error = trend(reward)
    level = abs(sum(reward.values) / len(reward))
    mean = sum(reward.values) / len(reward)
    total = sum((value - mean) ** 2 for value in reward.values) / len(reward)
    independent = noise_variance(reward.values) > 0.6 * total  # 1 for independent draws, near 0 for a slow wave
    return abs(change) < 2 * error and change < 0.1 * level and independent and mean < 0.9 * max(reward.values)


def _parts_without_signal(run: Run, reward: Series) -> Iterable[Finding]:
    if cancelled := "".join(_cancelling(run, reward)):
        yield Finding(
            kind="no_reward_signal",
            severity="warning",
            step=int(reward.steps[-1]),
            evidence=f"reward changed by {gain(reward):+.3g}{cancelled}",
            advice="The rewards pull against each other: change their weights, or let one count only where the other "
            "is earned.",
        )
    for name, part in run.components().items():
        if (
            len(part) >= ALWAYS_ROWS
            and not any(part.values)
            and len(run.components()) > 1
            and not PENALTY.search(name)
        ):
            yield Finding(
                kind="no_reward_signal",
                severity="note" if MANNER.search(name) else "warning",
                step=int(part.steps[-1]),
                evidence=f"the reward {name} is 0 in all {len(part)} rows",
                advice=f"Call {name} on some completions by hand: it may expect another form of answer or a column "
                "that is missing. Remove it, or show the form in the prompt.",
            )


def _cancelling(run: Run, reward: Series) -> Iterable[str]:
    """Two rewards of which one gains what the other loses."""
    gains = {name: gain(part) for name, part in run.components().items() if len(part) >= ENOUGH}
    if len(gains) < 2:
        return
    up, down = max(gains, key=lambda name: gains[name]), min(gains, key=lambda name: gains[name])
    parts = run.components()
    falls = rises(Series(down, parts[down].steps, tuple(-value for value in parts[down].values)), by=4)
    if rises(parts[up], by=4) and falls and abs(gain(reward)) < 0.1 * gains[up] and -gains[down] > 0.7 * gains[up]:
        yield f": {up} gained {gains[up]:.3g} and {down} lost {-gains[down]:.3g}"
