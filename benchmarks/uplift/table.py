"""The results as a table: each arm over its seeds, and what the one brings over the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from mlintern.tools.campaigns.verdicts import Effect, recipe_effect
from mlintern.tools.evals.significance import student_t_quantile

HEAD = f"{'cell':10} {'arm':9} {'seeds':>5} {'score':>7} {'95 % interval':>16} {'base':>7} {'void':>4}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run.

    Attributes:
        scores: of each hidden item; those of the base model if something was wrong.
        base: scores of the base model.
        wrong: what integrity checks found.
    """

    cell: str
    arm: str
    seed: int
    scores: Mapping[str, float]
    base: Mapping[str, float]
    wrong: Sequence[str]
    clock: str = ""

    @property
    def score(self) -> float:
        return fmean(self.scores.values())


def interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of a mean over seeds; None for a single one."""
    if len(scores) < 2:
        return None
    half = student_t_quantile(len(scores) - 1) * stdev(scores) / math.sqrt(len(scores))
    return max(0.0, fmean(scores) - half), min(1.0, fmean(scores) + half)


def table(results: Sequence[Result]) -> str:
    """Rows of arms, then a row a cell of mlintern minus bare, over seeds and items."""
    lines = [HEAD]
    cells = list(dict.fromkeys(one.cell for one in results))
    for cell in cells:
        for arm in dict.fromkeys(one.arm for one in results):
            own = [one for one in results if (one.cell, one.arm) == (cell, arm)]
            if not own:
                continue
            scores = [one.score for one in own]
            found = interval(scores)
            shown = f"{found[0]:6.1%} to {found[1]:6.1%}" if found else "one seed"
            void = sum(bool(one.wrong) for one in own)
            base = fmean(own[0].base.values())
            lines.append(
                f"{cell:10} {arm:9} {len(own):5} {fmean(scores):7.1%} {shown:>16} {base:7.1%} {void or '-':>4}"
            )
        lines += uplift(cell, results)
    for one in results:
        lines += [f"void: {one.cell}, {one.arm}, seed {one.seed}: {reason}" for reason in one.wrong]
    return "\n".join(lines)


def uplift(cell: str, results: Sequence[Result]) -> list[str]:
    """What mlintern brings over the bare shell in a cell, if both were run."""
    bare, with_it = (
        [one.scores for one in results if (one.cell, one.arm) == (cell, arm)] for arm in ("bare", "mlintern")
    )
    if not bare or not with_it:
        return []
    effect = recipe_effect(bare, with_it)
    if not isinstance(effect, Effect):
        return [f"{cell:10} uplift    {effect}"]
    return [
        f"{cell:10} uplift    {effect.delta:+.1%} (95 % interval {effect.ci_low:+.1%} to {effect.ci_high:+.1%}, "
        f"p = {effect.p_value:.2g}): {effect.verdict}. {effect.reason}"
    ]
