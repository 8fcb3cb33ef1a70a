"""Where the policy goes: away from its reference, out of ideas, or apart from what samples for it."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from mlintern.tools.health.advice import slower
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.rules.reward_collapse import reward_collapse
from mlintern.tools.health.series import Run, Series
from mlintern.tools.health.statistics import ENOUGH, first_step, head, rises, tail, window

TOKENS = 50.0
"""Tokens that a KL summed over a sequence is taken to have at least: its limits are so much higher."""


def kl_blowup(run: Run) -> Iterable[Finding]:
    """The policy leaves its reference for good, or the measure itself has gone wrong.

    Thresholds for the mean KL a token (50 times that where it is summed over the answer,
    as ``objective/kl`` and the ``kl`` of KTO are): the last fifth above .5 and
    10 times the median before (from 0 any ratio is large, so the size counts as well); above 2, risen over the second
    half and above 3 times the median of the first half, so that a steady climb is seen too; below -.05, which no KL
    can be: sampler and trainer disagree, or the sampling is cut (top_k, top_p). An error above 10, below -1, or when
    the reward has collapsed. Source: Stiennon et al. 2020 (arXiv:2009.01325), figure 5; Schulman 2020, "Approximating
    KL divergence", for estimators below 0. False alarms: none in 300 healthy runs of each kind
    (`benchmarks/judgement.py`).
    """
    for name, unit in (("kl", 1.0), ("kl_of_sequence", TOKENS)):
        kl = run[name]
        if len(kl) >= ENOUGH:
            yield from _kl(run, kl, TOKENS if run.has_preferences and not run.has_reward else unit)
            return


def _kl(run: Run, kl: Series, unit: float) -> Iterable[Finding]:
    width = window(kl)
    usual, now = median(kl.values[:-width]), tail(kl)
    early = median(kl.values[: len(kl) // 2])
    jumped = now > 0.5 * unit and now > 10 * abs(usual)
    climbs = now > 2 * unit and now > 3 * abs(early) and rises(kl.last(len(kl) // 2))
    negative = now < -0.05 * unit and sum(value < 0 for value in kl.values[-width:]) > 0.8 * width
    if negative:
        evidence, step = f"{kl.name} is {now:.3g}, below 0", first_step(kl, below=-0.05 * unit)
        advice = "Sample with top_k=0, top_p=1 and the temperature of the trainer, in one dtype; look whether the "
        advice += "reference is the model that the run began with."
    elif jumped or climbs:
        evidence = f"{kl.name} is {now:.3g}, and was {min(usual, early):.3g} before (medians)"
        step = first_step(kl, above=max(0.5 * unit, (10 if jumped else 3) * abs(usual if jumped else early)))
        advice = f"{slower(run)} or raise beta; look whether the reward still means what it should."
    else:
        return
    serious = now > 10 * unit or now < -unit or any(True for _ in reward_collapse(run))
    yield Finding(
        kind="kl_blowup", severity="error" if serious else "warning", step=step, evidence=evidence, advice=advice
    )


def entropy_collapse(run: Run) -> Iterable[Finding]:
    """The policy explores no more, or has dissolved into noise.

    Thresholds: entropy below a fifth of where it began (which was above .05), an error below a hundredth; or above 3
    times and 1 nat more than it began. Only with a reward: in supervised training a falling entropy is learning.
    Source: Cui et al. 2025, "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models"
    (arXiv:2505.22617). False alarms: none in 300 healthy runs of each kind (`benchmarks/judgement.py`).
    """
    entropy = run["entropy"]
    if len(entropy) < ENOUGH or not run.has_reward:
        return
    first, now = head(entropy), tail(entropy)
    start = max(first, entropy.values[0])
    if start > 0.05 and now < 0.2 * first:
        yield Finding(
            kind="entropy_collapse",
            severity="error" if now < 0.01 * start else "warning",
            step=first_step(entropy, below=0.2 * first),
            evidence=f"entropy fell from {start:.3g} to {now:.3g}",
            advice=f"Raise epsilon_high or temperature, set entropy_coef. {slower(run)}; further steps will change "
            "little.",
        )
    elif now > 3 * first and now > first + 1:
        yield Finding(
            kind="divergence",
            severity="error",
            step=first_step(entropy, above=3 * first),
            evidence=f"entropy rose from {first:.3g} to {now:.3g}: the answers turn into noise",
            advice=f"Stop and go back to an earlier checkpoint. {slower(run)}.",
        )


def policy_mismatch(run: Run) -> Iterable[Finding]:
    """What samples and what learns disagree, or most updates are clipped.

    Thresholds: a mean importance ratio outside .8 to 1.25, or more than 30 % of the tokens clipped, in the median of
    the last fifth. Source: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training".
    False alarms: none for ratios within 10 % of 1, by construction.
    """
    ratio, clip = run["sampling/importance_sampling_ratio/mean"], run["clip_ratio/region_mean"]
    for series, bad, meaning in (
        (ratio, len(ratio) >= ENOUGH and not 0.8 <= tail(ratio) <= 1.25, "sampler and trainer disagree"),
        (clip, len(clip) >= ENOUGH and tail(clip) > 0.3, "most updates are clipped away"),
    ):
        if bad:
            yield Finding(
                kind="divergence",
                severity="warning",
                step=int(series.steps[-window(series)]),
                evidence=f"{series.name} is {tail(series):.3g}: {meaning}",
                advice=f"{slower(run)} and num_iterations; use the same dtype in vLLM and trainer, and "
                "vllm_importance_sampling_correction.",
            )
