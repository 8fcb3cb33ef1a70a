"""Limits of the rules about completions and policy, each from both sides: just past it and just short of it."""

from __future__ import annotations

from typing import Any

import pytest

from mlintern.tools.health.diagnose import diagnose
from tests.tools.health.curves import metrics


def two_levels(before: dict[str, float], after: dict[str, float], *, rows: int = 40) -> list[dict[str, Any]]:
    """Half of the rows at one level, half at the other, with a ripple too small to matter."""
    found = []
    for at in range(rows):
        level = before if at < rows // 2 else after
        found.append(metrics(step=at + 1, **{name: value * (1 + 1e-5 * (at % 3)) for name, value in level.items()}))
    return found


def named(logged: list[dict[str, Any]], kind: str) -> str | None:
    """The severity with which ``kind`` was found."""
    return next((one.severity for one in diagnose(logged).findings if one.kind == kind), None)


LENGTH, CUT, KL, RATIO, CLIP = (
    "completions__mean_length",
    "completions__clipped_ratio",
    "kl",
    "sampling__importance_sampling_ratio__mean",
    "clip_ratio__region_mean",
)


@pytest.mark.parametrize(
    ("kind", "name", "before", "after", "severity"),
    [
        ("length_explosion", LENGTH, 100, 252, "warning"),
        ("length_explosion", LENGTH, 100, 248, None),
        ("length_collapse", LENGTH, 1000, 198, "warning"),
        ("length_collapse", LENGTH, 1000, 202, None),
        ("length_collapse", LENGTH, 1000, 51, "warning"),
        ("length_collapse", LENGTH, 1000, 49, "error"),
        ("length_collapse", LENGTH, 20.5, 1, "error"),
        ("length_collapse", LENGTH, 19.5, 1, None),
        ("truncation", CUT, 0.4, 0.51, "warning"),
        ("truncation", CUT, 0.4, 0.5 - 1e-4, None),
        ("truncation", CUT, 0.4, 0.89, "warning"),
        ("truncation", CUT, 0.4, 0.91, "error"),
        ("kl_blowup", KL, 0.01, 0.51, "warning"),
        ("kl_blowup", KL, 0.01, 0.49, None),
        ("kl_blowup", KL, 0.09, 0.85, None),
        ("kl_blowup", KL, 0.01, 9.9, "warning"),
        ("kl_blowup", KL, 0.01, 10.1, "error"),
        ("kl_blowup", KL, 0.01, -0.051, "warning"),
        ("kl_blowup", KL, 0.01, -0.049, None),
        ("kl_blowup", KL, 0.01, -0.99, "warning"),
        ("kl_blowup", KL, 0.01, -1.01, "error"),
        ("entropy_collapse", "entropy", 1.0, 0.198, "warning"),
        ("entropy_collapse", "entropy", 1.0, 0.202, None),
        ("entropy_collapse", "entropy", 1.0, 0.0099, "error"),
        ("entropy_collapse", "entropy", 1.0, 0.0101, "warning"),
        ("entropy_collapse", "entropy", 0.051, 0.001, "warning"),
        ("entropy_collapse", "entropy", 0.049, 0.001, None),
        ("divergence", "entropy", 0.6, 1.81, "error"),
        ("divergence", "entropy", 0.6, 1.79, None),
        ("divergence", "entropy", 0.4, 1.41, "error"),
        ("divergence", "entropy", 0.4, 1.39, None),
        ("divergence", RATIO, 1.0, 0.79, "warning"),
        ("divergence", RATIO, 1.0, 0.81, None),
        ("divergence", RATIO, 1.0, 1.24, None),
        ("divergence", RATIO, 1.0, 1.26, "warning"),
        ("divergence", CLIP, 0.1, 0.31, "warning"),
        ("divergence", CLIP, 0.1, 0.29, None),
    ],
)
def test_a_limit_holds_on_both_sides(kind: str, name: str, before: float, after: float, severity: str | None) -> None:
    logged = two_levels({name: before, "reward": 0.5}, {name: after, "reward": 0.5})
    assert named(logged, kind) == severity


@pytest.mark.parametrize(("after", "found"), [(99.0, "warning"), (101.0, None)])
def test_shorter_answers_that_pay_may_lose_nine_tenths(after: float, found: str | None) -> None:
    logged = two_levels({LENGTH: 1000, "reward": 0.3}, {LENGTH: after, "reward": 0.6})
    assert named(logged, "length_collapse") == found


@pytest.mark.parametrize(("rows", "found"), [(9, None), (10, "warning")])
def test_nine_rows_are_too_few_to_say_that_answers_grow(rows: int, found: str | None) -> None:
    logged = two_levels({LENGTH: 100, "reward": 0.5}, {LENGTH: 300, "reward": 0.5}, rows=rows)
    assert named(logged, "length_explosion") == found


@pytest.mark.parametrize(("last", "found"), [(2.02, "warning"), (1.98, None)])
def test_a_kl_that_climbs_without_a_jump_is_seen_above_two(last: float, found: str | None) -> None:
    logged = [metrics(step=at, kl=last * min(1.0, at / 80) ** 2, reward=0.5) for at in range(100)]
    assert named(logged, "kl_blowup") == found
