"""Limits of the rules about rewards, each from both sides: just past it and just short of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from mlintern.tools.health.change import find_erosion, find_fall
from mlintern.tools.health.diagnose import diagnose
from mlintern.tools.health.findings import Finding
from mlintern.tools.health.series import Series
from tests.tools.health.curves import metrics
from tests.tools.health.test_limits import named, two_levels

Column = Sequence[float] | float


def run(count: int, *, total: int | None = None, **columns: Column) -> list[dict[str, Any]]:
    """Rows of columns, or of the same value in every row; ``total`` steps are planned."""
    logged = [
        metrics(step=at + 1, **{name: c if isinstance(c, int | float) else c[at] for name, c in columns.items()})
        for at in range(count)
    ]
    if total is not None:
        logged[-1]["total_steps"] = total
    return logged


def climb(start: float, end: float, count: int, *, ripple: float = 0.005) -> list[float]:
    """A straight line with a ripple, so that there is some noise to compare with."""
    return [start + (end - start) * at / (count - 1) + ripple * (-1) ** at for at in range(count)]


def finding(logged: list[dict[str, Any]], kind: str) -> Finding | None:
    return next((one for one in diagnose(logged).findings if one.kind == kind), None)


# --- reward_collapse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "high", "low", "severity"),
    [
        (0.5, 0.5, 0.38, None),  # a quarter of the level is .125
        (0.5, 0.5, 0.37, "error"),
        (0.1, 0.8, 0.46, None),  # half of the gain of .7 is .35
        (0.1, 0.8, 0.44, "error"),
        (-2.0, -2.0, -2.49, None),
        (-2.0, -2.0, -2.52, "error"),
    ],
)
def test_how_far_a_reward_may_fall(first: float, high: float, low: float, severity: str | None) -> None:
    ripple = [0.002 * (-1) ** at for at in range(90)]
    values = [level + ripple[at] for at, level in enumerate([first] * 30 + [high] * 30 + [low] * 30)]
    assert named(run(90, reward=values), "reward_collapse") == severity


@pytest.mark.parametrize(("earlier", "severity"), [(0.30, None), (0.45, "error")])
def test_a_fall_counts_only_beyond_what_the_run_recovered_from(earlier: float, severity: str | None) -> None:
    """From .7 to .35 for good, after a dip of the same length that came back."""
    levels = [0.7] * 25 + [earlier] * 25 + [0.7] * 25 + [0.35] * 25
    values = [level + 0.005 * (-1) ** at for at, level in enumerate(levels)]
    assert named(run(100, reward=values), "reward_collapse") == severity


@pytest.mark.parametrize(("rows", "found"), [(11, False), (12, True)])
def test_a_dozen_rows_are_needed_for_a_collapse(rows: int, found: bool) -> None:
    values = ([0.9, 0.88] * 3 + [0.0, 0.02] * 6)[:rows]
    series = Series("reward", tuple(range(rows)), tuple(values))
    assert (find_fall(series) is not None, find_erosion(series) is not None) == (found, found)


def test_the_step_of_a_collapse_is_the_last_at_its_height() -> None:
    found = finding(run(30, reward=[0.9, 0.92] * 6 + [0.1, 0.12] * 9), "reward_collapse")
    assert found is not None and found.step == 12
    assert found.evidence == "reward was 0.91 around step 12 and is 0.11 now (it began at 0.91)"


@pytest.mark.parametrize("prompts", [1, 2, 4])
def test_slow_erosion_is_found_in_small_batches_too(prompts: int) -> None:
    """From .7 to .45 over 200 rows: at least 18 of 20; `benchmarks/judgement.py` measures it over more seeds."""
    source = random.Random(f"erosion {prompts}")
    found = 0
    for _ in range(20):
        trials = prompts * 8
        values = [sum(source.random() < 0.7 - 0.25 * at / 200 for _ in range(trials)) / trials for at in range(200)]
        found += named(run(200, reward=values), "reward_collapse") == "error"
    assert found >= 18


# --- no_reward_signal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after", "severity"),
    [
        ("frac_reward_zero_std", 0.5, 0.81, "warning"),
        ("frac_reward_zero_std", 0.5, 0.79, None),
        ("reward_std", 0.3, 1e-7, "warning"),
        ("reward_std", 0.3, 1e-5, None),
    ],
)
def test_how_much_alike_groups_may_be(name: str, before: float, after: float, severity: str | None) -> None:
    assert (
        named(two_levels({name: before, "reward": 0.5}, {name: after, "reward": 0.5}), "no_reward_signal") == severity
    )


@pytest.mark.parametrize(("rows", "found"), [(3, None), (4, "warning")])
def test_four_rows_of_the_very_same_reward_give_no_signal(rows: int, found: str | None) -> None:
    assert named(run(rows, reward=0.25), "no_reward_signal") == found


@pytest.mark.parametrize(("name", "rows"), [("frac_reward_zero_std", 3), ("reward_std", 3)])
def test_three_rows_tell_that_groups_are_alike(name: str, rows: int) -> None:
    value = 1.0 if name.startswith("frac") else 0.0
    rewards = [0.1, 0.2, 0.3]
    assert named(run(rows, reward=rewards, **{name: value}), "no_reward_signal") == "warning"
    assert named(run(rows - 1, reward=rewards, **{name: value}), "no_reward_signal") is None


@pytest.mark.parametrize(
    ("best", "now", "rows", "severity"),
    [
        (1.0, 0.96, 20, "warning"),  # within 5 % of the best: solved
        (1.0, 0.94, 20, "error"),
        (0.0, 0.0, 10, "error"),
        (0.0, 0.0, 9, "warning"),
    ],
)
def test_no_signal_is_an_error_where_nothing_is_solved(best: float, now: float, rows: int, severity: str) -> None:
    values = [best] * (rows // 2) + [now] * (rows - rows // 2)
    logged = run(rows, reward=values, frac_reward_zero_std=1.0)
    found = finding(logged, "no_reward_signal")
    assert found is not None and found.severity == severity
    assert ("harder prompts" in found.advice) is (best > 0 and severity == "warning")


@pytest.mark.parametrize(
    ("name", "rows", "severity"),
    [
        ("tests_pass", 30, "warning"),
        ("tests_pass", 29, None),
        ("soft_format", 30, "note"),
        ("overlong_penalty", 60, None),
    ],
)
def test_a_reward_that_is_always_zero_is_named_from_thirty_rows_on(
    name: str, rows: int, severity: str | None
) -> None:
    rising = climb(0.2, 0.6, rows)
    columns: dict[str, Column] = {f"rewards__{name}__mean": 0.0, "rewards__style__mean": rising}
    assert named(run(rows, reward=rising, reward_std=0.3, **columns), "no_reward_signal") == severity


@pytest.mark.parametrize(
    ("down", "total", "severity"),
    [
        (0.29, 0.0, "warning"),
        (0.27, 0.0, None),  # it loses less than .7 of what the other gains
        (0.40, 0.036, "warning"),
        (0.40, 0.056, None),  # the sum gains more than a tenth
    ],
)
def test_rewards_cancel_where_one_loses_what_the_other_gains(down: float, total: float, severity: str | None) -> None:
    up, falling = climb(0.1, 0.5, 50), climb(0.9, 0.9 - down, 50)
    columns = {"rewards__a__mean": up, "rewards__b__mean": falling}
    assert (
        named(run(50, reward=climb(0.5, 0.5 + total, 50), reward_std=0.3, **columns), "no_reward_signal") == severity
    )


# --- nothing learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zeros", "spread", "severity"), [(5, 0.3, "error"), (4, 0.3, None), (5, 0.0, None)], ids=["5", "4", "alike"]
)
def test_gradients_of_zero_where_rewards_differ_are_a_stall(zeros: int, spread: float, severity: str | None) -> None:
    norms = [0.2] * (20 - zeros) + [0.0] * zeros
    assert named(run(20, reward=climb(0.2, 0.5, 20), reward_std=spread, grad_norm=norms), "stalled") == severity


def scattered(
    count: int, *, level: float = 0.5, gain: float = 0.0, noise: float = 0.08, seed: int = 4
) -> list[float]:
    source = random.Random(seed)
    return [level + gain * at / count + noise * source.uniform(-1, 1) for at in range(count)]


@pytest.mark.parametrize(
    ("rows", "total", "severity"),
    [(50, 50, "warning"), (49, 49, None), (60, 61, None), (60, None, None)],
    ids=["over", "too short", "not over", "no plan"],
)
def test_a_reward_is_flat_only_when_all_planned_steps_are_done(
    rows: int, total: int | None, severity: str | None
) -> None:
    assert named(run(rows, total=total, reward=scattered(rows), reward_std=0.3), "stalled") == severity


@pytest.mark.parametrize(
    ("values", "severity"),
    [
        (scattered(100), "warning"),
        (scattered(100, gain=0.1), None),  # above 2 standard errors
        (scattered(100, level=0.9, noise=0.04), None),  # little is left to gain
        ([0.5 + 0.1 * (1 if at // 10 % 2 else -1) for at in range(100)], None),  # a slow wave is movement
    ],
    ids=["flat", "gains", "solved", "wave"],
)
def test_what_counts_as_flat(values: list[float], severity: str | None) -> None:
    assert named(run(100, total=100, reward=values, reward_std=0.3), "stalled") == severity


# --- reward_hacking ------------------------------------------------------------------------------------------------


def two_rewards(
    count: int, proxy: list[float], goal: list[float], *, total: int | None = None, name: str = "len"
) -> Any:
    columns: dict[str, Column] = {f"rewards__{name}__mean": proxy, "rewards__accuracy__mean": goal}
    return run(
        count, total=total, reward=[a + b for a, b in zip(proxy, goal, strict=True)], reward_std=0.3, **columns
    )


@pytest.mark.parametrize(
    ("count", "to", "goal", "severity"),
    [
        (12, 0.9, (0.2, 0.2), "warning"),
        (11, 0.9, (0.2, 0.2), None),
        (40, 0.9, (0.2, 0.236), "warning"),
        (40, 0.9, (0.2, 0.248), None),  # 5 % of what the proxy gained is .04
        (40, 0.9, (0.47, 0.47), "warning"),
        (40, 0.9, (0.53, 0.53), None),  # above half of the best possible
        (40, 0.9, (0.08, 0.08), "error"),  # below a tenth of the proxy
        (40, 0.9, (0.10, 0.10), "warning"),
        (40, 0.9, (0.40, 0.31), "error"),  # it fell by a fifth
        (40, 0.9, (0.40, 0.34), "warning"),
        (40, 0.17, (0.2, 0.2), None),  # the proxy gained less than a tenth of what it can give
        (40, 0.23, (0.2, 0.2), "warning"),
    ],
)
def test_where_a_goal_counts_as_not_served(
    count: int, to: float, goal: tuple[float, float], severity: str | None
) -> None:
    logged = two_rewards(count, climb(0.1, to, count), climb(*goal, count, ripple=0.0005))
    assert named(logged, "reward_hacking") == severity


@pytest.mark.parametrize(
    ("count", "total", "name", "goal", "severity"),
    [
        (40, None, "format", 0.2, None),
        (100, None, "format", 0.2, "warning"),
        (99, None, "format", 0.2, None),
        (40, 81, "format", 0.2, None),
        (40, 80, "format", 0.2, "warning"),
        (40, None, "length", 0.11, "warning"),  # below .15 of the form
        (40, None, "brevity", 0.2, "warning"),
    ],
)
def test_the_form_of_an_answer_may_be_learned_first(
    count: int, total: int | None, name: str, goal: float, severity: str | None
) -> None:
    logged = two_rewards(
        count, climb(0.1, 0.9, count), climb(goal, goal, count, ripple=0.0005), total=total, name=name
    )
    assert named(logged, "reward_hacking") == severity


@pytest.mark.parametrize(
    ("scores", "severity"),
    [
        ([0.50, 0.52, 0.51, 0.30], "error"),
        ([0.50, 0.52], None),  # two evaluations are too few
        ([0.50, 0.60, 0.52], None),  # it ends above its start
        ([0.50, 0.58, 0.42, 0.49], None),  # within what it scatters
    ],
)
def test_held_out_scores_that_fall_while_the_reward_rises(scores: list[float], severity: str | None) -> None:
    logged = run(40, reward=climb(0.2, 0.8, 40), reward_std=0.3)
    logged += [metrics(step=10 * (at + 1), eval_accuracy=score) for at, score in enumerate(scores)]
    assert named(logged, "reward_hacking") == severity
