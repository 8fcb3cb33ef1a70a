"""How often the intervals of `compare_evals` hold the truth, and how often chance is called an improvement.

    python -m benchmarks.intervals [--quick] [part of a design's name]

Answers are drawn from a model of difficulty (each item, and each cluster of items, is harder for one model than for
the other by chance), so that the truth is known: 20 to 2,000 items, shares of right answers from .02 to .98, alike or
8 points apart; independent items, 4 attempts at each (scored one by one, or by their mean as avg@k is), clusters of 4
to 10 items, and 3 or 5 training seeds a side.

Bounds, each within three standard errors of the simulation:

* an interval holds the true difference in at least 94 % of the draws;
* in at most 96 %, where 20 or more items are expected to differ between models that are not alike. With fewer,
  counts are too coarse for any interval that never falls short; between models that are alike, the interval must not
  contradict the exact test, which errs on the safe side;
* "improved" between models that are alike: at most 2.5 %;
* of seeds, 92 to 98 % in place of 94 to 96 %: three or five say little of how much seeds vary.

`--quick` takes a fifth of the draws. Under 3 minutes in full on one core.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mlintern.tools.evals.clustered import over_seeds, paired_attempts, paired_in_clusters
from mlintern.tools.evals.significance import ALPHA, Difference, paired

DRAWS, DRAWS_OF_LARGE = 1500, 300
SHARES = (0.02, 0.1, 0.5, 0.9, 0.98)
APART = 0.08
ITEM, INTERACTION, CLUSTER, SEED = 0.5, 0.5, 0.7, 0.05
"""Variances on the probit scale: of an item's difficulty, of that for one model alone, of a cluster's, of a seed."""
LOWEST, HIGHEST, MOST_IMPROVED, ENOUGH = 0.94, 0.96, 0.025, 20.0
OF_SEEDS = (0.92, 0.98)


@dataclass(frozen=True)
class Design:
    name: str
    items: int
    cluster: int = 1
    attempts: int = 1
    seeds: int = 1


DESIGNS = (
    *(Design("independent", items) for items in (20, 50, 200, 2000)),
    *(Design("4 attempts", items, attempts=4) for items in (20, 200, 500)),
    *(Design("avg@4", items, attempts=4) for items in (20, 50, 200)),
    Design("avg@8", 50, attempts=8),
    *(Design("clustered", items, cluster=size) for items, size in ((50, 5), (200, 5), (2000, 10))),
    *(Design("3 seeds", items, seeds=3) for items in (50, 200, 1000)),
    Design("5 seeds", 200, seeds=5),
)

Answers = np.ndarray  # of one model a seed: seeds x items x attempts, True for a right answer


def draw(
    design: Design, mean: float, other: float, *, draws: int, source: np.random.Generator
) -> Iterator[tuple[Answers, Answers]]:
    """Answers of baseline and candidate whose expected shares of right answers are ``mean`` and ``other``."""
    groups, size = design.items // design.cluster, design.cluster
    of_cluster = CLUSTER if size > 1 else 0.0
    of_seed = SEED if design.seeds > 1 else 0.0
    total = math.sqrt(1 + ITEM + INTERACTION + of_cluster + of_seed)
    for _ in range(draws):
        shared = source.normal(size=(groups, 1)) * math.sqrt(of_cluster)
        shared = shared + source.normal(size=(groups, size)) * math.sqrt(ITEM)
        sides = []
        for share in (mean, other):
            alone = (groups, 1) if size > 1 else (groups, size)
            level = shared + source.normal(size=alone) * math.sqrt(INTERACTION)
            level = level.reshape(1, design.items, 1) + NormalDist().inv_cdf(share) * total
            level = level + source.normal(size=(design.seeds, 1, 1)) * math.sqrt(of_seed)
            sides.append(source.normal(size=(design.seeds, design.items, design.attempts)) < level)
        yield sides[0], sides[1]


def compare(design: Design, before: Answers, after: Answers) -> Difference:
    """As `compare_evals` does."""
    if design.seeds > 1:
        return over_seeds(before[:, :, 0].astype(float).tolist(), after[:, :, 0].astype(float).tolist())
    if design.name.startswith("avg@"):
        shares = before.mean(2)[0].tolist(), after.mean(2)[0].tolist()
        return paired_attempts(*shares, attempts=design.attempts)
    one, two = before.astype(float).ravel().tolist(), after.astype(float).ravel().tolist()
    size = design.cluster * design.attempts
    if size == 1:
        return paired(one, two)
    return paired_in_clusters(one, two, clusters=[str(at // size) for at in range(len(one))])


@dataclass(frozen=True)
class Measured:
    name: str
    draws: int
    covered: float
    improved: float
    differing: float
    alike: bool
    seeds: bool

    @property
    def missed(self) -> list[str]:
        """Which bounds it does not hold."""

        def slack(share: float) -> float:
            return 3 * math.sqrt(share * (1 - share) / self.draws)

        found = []
        lowest, highest = OF_SEEDS if self.seeds else (LOWEST, HIGHEST)
        if self.covered < lowest - slack(lowest):
            found.append("covers too little")
        if not self.alike and self.differing >= ENOUGH and self.covered > highest + slack(highest):
            found.append("covers too much")
        if self.alike and self.improved > MOST_IMPROVED + slack(MOST_IMPROVED):
            found.append("false improvements")
        return found


def measure(design: Design, mean: float, other: float, *, draws: int) -> Measured:
    source = np.random.default_rng([design.items, design.cluster, design.attempts, design.seeds, int(1000 * mean)])
    covered = improved = 0
    differing = 0.0
    for before, after in draw(design, mean, other, draws=draws, source=source):
        found = compare(design, before, after)
        covered += found.ci_low - 1e-12 <= other - mean <= found.ci_high + 1e-12
        improved += found.p_value < ALPHA and found.delta > 0
        differing += float((before != after).sum()) / (design.attempts * design.seeds)
    name = f"{design.name:12s} {design.items:5d} items, {mean:.2f} and {other:.2f}"
    return Measured(
        name, draws, covered / draws, improved / draws, differing / draws, mean == other, design.seeds > 1
    )


def main(tell: Callable[[str], None] = print) -> int:
    part = 5 if "--quick" in sys.argv else 1
    wanted = next((one for one in sys.argv[1:] if not one.startswith("-")), "")
    started, missed = time.perf_counter(), []
    for design in DESIGNS:
        if wanted and wanted not in design.name:
            continue
        for mean in SHARES:
            for other in (mean, mean + APART if mean < 0.5 else mean - APART):
                weight = design.items * design.attempts * design.seeds
                draws = DRAWS if weight <= 200 else DRAWS // 2 if weight <= 800 else DRAWS_OF_LARGE
                found = measure(design, mean, other, draws=draws // part)
                said = f"improved {found.improved:6.2%}" if found.alike else ""
                tell(f"{found.name}: interval holds {found.covered:6.2%} {said} {' '.join(found.missed)}")
                missed += [f"{found.name}: {why}" for why in found.missed]
    tell(f"{time.perf_counter() - started:.0f} s; " + (f"missed: {missed}" if missed else "all bounds are held"))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
