"""Rules for reinforcement learning on a reward (GRPO, RLOO, PPO and their like).

Never looked at: the loss. With one update a batch the loss of GRPO is 0 by construction, whatever is learned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from statistics import fmean, median, pstdev

from mlintern.tools.health.findings import Finding
from mlintern.tools.health.rules.training import ENOUGH
from mlintern.tools.health.series import Run, Series, gain, head, noise_of_means, smoothed, tail, window

MANNER = re.compile(r"format|tag|xml|length|style|soft|strict|repetition|language|penalty|compil|parse|syntax", re.I)
"""Names of rewards for how an answer looks, not for whether it is right."""
SAME = 1e-6


def reward_collapse(run: Run) -> Iterable[Finding]:
    """The reward has fallen far from its peak, by more than noise, and has not come back."""
    reward = run["reward"]
    if len(reward) < ENOUGH:
        return
    points = smoothed(reward)
    step, peak = max(points, key=lambda point: point[1])
    start, end = points[0][1], points[-1][1]
    drop = peak - end
    deep = drop > 0.5 * (peak - start) if peak - start > 3 * noise_of_means(reward) else drop > 0.3 * abs(peak)
    if not deep or drop <= 3 * noise_of_means(reward) or drop <= SAME:
        return
    yield Finding(
        kind="reward_collapse",
        severity="error",
        step=int(step),
        evidence=f"reward peaked at {peak:.4g} around step {step:.0f} and is {end:.4g} now (it began at {start:.4g})",
        advice=f"Stop and go back to a checkpoint near step {step:.0f}; lower the learning rate, set beta above 0, "
        "lower epsilon_high.",
    )


def no_reward_signal(run: Run) -> Iterable[Finding]:
    """All answers to a prompt get the same reward, so that there is nothing to prefer: no gradient."""
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
        return
    best = max(mean for _, mean in smoothed(reward))
    solved = best > 0 and best - tail(reward) <= max(0.05 * best, 3 * noise_of_means(reward))
    yield Finding(
        kind="no_reward_signal",
        severity="error" if not solved and len(reward) >= ENOUGH else "warning",
        step=int(reward.steps[-window(reward)]),
        evidence=f"{evidence}, at a reward of {tail(reward):.4g}",
        advice="The prompts may be solved, or every answer earns the same part: use harder prompts, or stop here."
        if solved
        else "Use easier prompts, reward partial success, sample more (num_generations, temperature), start from an "
        "SFT checkpoint; print some completions and what the reward function says of them.",
    )


def kl_blowup(run: Run) -> Iterable[Finding]:
    """The policy has left its reference for good. From 0, any ratio is large, so the size counts as well."""
    kl = run["kl"]
    if len(kl) < ENOUGH or not run.has_reward:
        return
    width = window(kl)
    usual, now = median(kl.values[:-width]), tail(kl)
    if now <= 0.5 or now <= 10 * abs(usual):
        return
    collapsed = any(True for _ in reward_collapse(run))
    yield Finding(
        kind="kl_blowup",
        severity="error" if now > 10 or collapsed else "warning",
        step=int(next(s for s, v in zip(kl.steps, kl.values, strict=True) if v > max(0.5, 10 * abs(usual)))),
        evidence=f"kl is {now:.3g}, and was {usual:.3g} before (medians)",
        advice="Lower the learning rate or raise beta; look whether the reward still means what it should.",
    )


def entropy_collapse(run: Run) -> Iterable[Finding]:
    """The policy explores no more, or has dissolved into noise."""
    entropy = run["entropy"]
    if len(entropy) < ENOUGH or not run.has_reward:
        return
    first, now = head(entropy), tail(entropy)
    if first > 0.05 and now < 0.2 * first:
        yield Finding(
            kind="entropy_collapse",
            severity="warning",
            step=int(next(s for s, v in zip(entropy.steps, entropy.values, strict=True) if v < 0.2 * first)),
            evidence=f"entropy fell from {first:.3g} to {now:.3g}",
            advice="Raise epsilon_high or temperature, set entropy_coef, or lower the learning rate; further steps "
            "will change little.",
        )
    elif now > 3 * first and now > first + 1:
        yield Finding(
            kind="divergence",
            severity="error",
            step=int(next(s for s, v in zip(entropy.steps, entropy.values, strict=True) if v > 3 * first)),
            evidence=f"entropy rose from {first:.3g} to {now:.3g}: the answers turn into noise",
            advice="Stop; go back to an earlier checkpoint and lower the learning rate.",
        )


def length_explosion(run: Run) -> Iterable[Finding]:
    """Answers grow and grow without being worth more. Growth that pays is how reasoning is learned."""
    length, reward = run["length"], run["reward"]
    if len(length) < ENOUGH:
        return
    first, now = head(length), tail(length)
    pays = len(reward) >= ENOUGH and gain(reward) > 3 * noise_of_means(reward) and gain(reward) > 0
    if now <= 2.5 * first or gain(length) <= 3 * noise_of_means(length) or pays:
        return
    yield Finding(
        kind="length_explosion",
        severity="warning",
        step=int(next(s for s, v in zip(length.steps, length.values, strict=True) if v > 2.5 * first)),
        evidence=f"mean length went from {first:.0f} to {now:.0f} tokens, and reward by {gain(reward):+.3g}"
        if len(reward)
        else f"mean length went from {first:.0f} to {now:.0f} tokens",
        advice='Penalise length, or use a loss_type without length bias ("dapo", "dr_grpo"); check that the '
        "end token is learned.",
    )


def truncation(run: Run) -> Iterable[Finding]:
    """Most answers are cut off at the limit, so that their reward judges the cut."""
    clipped = run["clipped"]
    if len(clipped) < 3 or tail(clipped) <= 0.5:
        return
    yield Finding(
        kind="truncation",
        severity="error" if tail(clipped) > 0.9 and len(clipped) >= ENOUGH else "warning",
        step=int(clipped.steps[-window(clipped)]),
        evidence=f"completions/clipped_ratio is {tail(clipped):.2f}",
        advice="Raise max_completion_length, set mask_truncated_completions=True, or start from a model that ends "
        "its answers.",
    )


def reward_hacking(run: Run) -> Iterable[Finding]:
    """The reward rises, but not for what it was meant for.

    Two signs: one reward function makes all the gain while another, which is not about the manner of the answer,
    stays near where it was; or what is measured on held-out data falls while the reward rises.
    """
    reward = run["reward"]
    if len(reward) < ENOUGH or gain(reward) <= max(3 * noise_of_means(reward), SAME):
        return
    yield from _one_sided(run, reward)
    for name in ("eval_reward", "eval_accuracy", "eval_exact_match"):
        held_out = run[name]
        if len(held_out) >= 3:
            fell = max(held_out.values) - held_out.values[-1]
            if held_out.values[-1] < held_out.values[0] and fell > 2 * pstdev(held_out.values[: len(held_out) - 1]):
                yield Finding(
                    kind="reward_hacking",
                    severity="error",
                    step=int(held_out.steps[held_out.values.index(max(held_out.values))]),
                    evidence=f"reward rose by {gain(reward):.3g} while {name} fell from {held_out.values[0]:.3g} to "
                    f"{held_out.values[-1]:.3g}",
                    advice="Read completions with a high reward; mend the reward function before training on.",
                )
                return


def policy_mismatch(run: Run) -> Iterable[Finding]:
    """What samples and what learns disagree, or most tokens are clipped."""
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
                advice="Lower the learning rate and num_iterations; use the same dtype in vLLM and trainer, and "
                "vllm_importance_sampling_correction.",
            )


def _one_sided(run: Run, reward: Series) -> Iterable[Finding]:
    gains = {name: gain(series) for name, series in run.components().items() if len(series) >= ENOUGH}
    if len(gains) < 2 or len(reward) < 2 * ENOUGH:
        return
    winner = max(gains, key=lambda name: gains[name])
    won = gains[winner]
    if won < 0.5 * gain(reward) or won <= 3 * noise_of_means(run.components()[winner]):
        return
    for name, change in gains.items():
        series = run.components()[name]
        idle = change < 0.05 * won and fmean(series.values[-window(series) :]) < 0.9 * max(reward.values[-1], SAME)
        if not idle or (MANNER.search(name) and not MANNER.search(winner)):
            continue
        yield Finding(
            kind="reward_hacking",
            severity="error" if tail(series) < 0.1 * tail(run.components()[winner]) else "warning",
            step=int(
                next(s for s, v in smoothed(run.components()[winner]) if v > head(run.components()[winner]) + won / 2)
            ),
            evidence=f"{winner} rose by {won:.3g} (to {tail(run.components()[winner]):.3g}) while {name} changed by "
            f"{change:+.3g} (to {tail(series):.3g})",
            advice=f"Read completions that {winner} rewards and {name} does not. If {name} is the goal, give it more "
            f"weight, let {winner} count only where {name} does, or make {winner} harder to satisfy.",
        )
        return
