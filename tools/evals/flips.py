"""Items that one side got right and the other wrong: how many, and a few of them as they were asked and answered."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from mlintern.common.text import cut_middle
from mlintern.tools.evals.result_rows import Sample

SHOWN = 3
"""Flipped items that are shown each way in a table."""
MOST_KEPT = 12
"""Each way, for a page that has room."""
LONGEST = 300
"""Characters of each text."""
Answers = Mapping[str, Sample]


class FlippedItem(BaseModel):
    """An item that the two sides scored differently. Texts are cut in the middle."""

    id: str
    question: str | None = None
    target: str | None = Field(default=None, description="The right answer.")
    baseline: str | None = Field(default=None, description="What the baseline answered.")
    candidate: str | None = None
    baseline_score: float
    candidate_score: float


class Flips(BaseModel):
    """What stands behind a difference, where both sides kept their answers."""

    gained: int = Field(description="Items that the candidate scored higher.")
    lost: int = Field(description="Items that it scored lower.")
    some_gained: list[FlippedItem] = Field(
        default=[], description="Drawn at random; all: read_eval(samples=flipped)."
    )
    some_lost: list[FlippedItem] = []


def find_flips(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    *,
    better: bool | None,
    answers: tuple[Sequence[Sample], Sequence[Sample]],
    most: int = SHOWN,
) -> Flips | None:
    """The flips among the items that both sides answered; None where nothing was flipped or the answers are not kept.

    Args:
        better: whether more of the metric is better; without it the higher score counts as gained.
        answers: the samples of both sides.
        most: items that are told each way.
    """
    sign = -1.0 if better is False else 1.0
    gains = {item: sign * (candidate[item] - baseline[item]) for item in baseline.keys() & candidate.keys()}
    gained = sorted(item for item, gain in gains.items() if gain > 0)
    lost = sorted(item for item, gain in gains.items() if gain < 0)
    if not gained and not lost:
        return None
    before, after = ({one.id: one for one in side} for side in answers)

    def some(items: Sequence[str]) -> list[FlippedItem]:
        told = [item for item in items if item in before or item in after]
        drawn = random.Random(0).sample(told, min(most, len(told)))
        return [_flipped(item, baseline[item], candidate[item], before.get(item), after.get(item)) for item in drawn]

    return Flips(gained=len(gained), lost=len(lost), some_gained=some(gained), some_lost=some(lost))


def _flipped(item: str, one: float, other: float, before: Sample | None, after: Sample | None) -> FlippedItem:
    asked = before or after
    return FlippedItem(
        id=item,
        question=None if asked is None else _cut(asked.question or asked.prompt),
        target=None if asked is None else _cut(asked.target),
        baseline=_said(before),
        candidate=_said(after),
        baseline_score=one,
        candidate_score=other,
    )


def _said(sample: Sample | None) -> str | None:
    """The whole answer, since what was extracted shows no reason; with choices by likelihood, the option."""
    return None if sample is None else _cut(sample.answer or sample.extracted)


def _cut(text: str | None) -> str | None:
    return None if text is None else cut_middle(text, LONGEST)
