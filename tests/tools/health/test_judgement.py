"""Each rule from both sides of its line: the curve that it names, and the healthy one beside it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mlintern.tools.health.change import find_fall
from mlintern.tools.health.diagnose import Diagnoser, diagnose
from mlintern.tools.health.series import MOST_POINTS, Series, build
from tests.tools.health.curves import decay, line, metrics, rows, turn
from tests.tools.health.test_rules import grpo, kinds, the


def logged(count: int = 40, **columns: Sequence[float] | float) -> list[dict[str, Any]]:
    """Rows without noise: a column of values, or the same value in every row."""
    return [
        metrics(step=at + 1, **{name: c if isinstance(c, int | float) else c[at] for name, c in columns.items()})
        for at in range(count)
    ]


def sampled(share: Callable[[float], float], *, prompts: int, answers: int, count: int, seed: int) -> list[float]:
    """Mean rewards of right and wrong answers."""
    source = random.Random(seed)
    total = prompts * answers
    return [sum(source.random() < share(at / count) for _ in range(total)) / total for at in range(count)]


def reward_rows(values: Sequence[float]) -> list[dict[str, Any]]:
    return [metrics(step=at + 1, reward=value, reward_std=0.3) for at, value in enumerate(values)]


# --- reward collapse ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize(("prompts", "answers"), [(1, 8), (8, 8)])
def test_stationary_rewards_have_not_collapsed_at_any_poll(share: float, prompts: int, answers: int) -> None:
    """A seeded slice of `benchmarks/judgement.py`, which holds the rate below 1 %."""
    for seed in range(3):
        values = sampled(lambda t: share, prompts=prompts, answers=answers, count=100, seed=seed)
        for count in range(10, 101, 10):
            assert "reward_collapse" not in kinds(reward_rows(values[:count]))


def test_a_solved_reward_of_few_answers_has_not_collapsed() -> None:
    values = [1, 1, 0.875, 1, 1, 1, 0.875, 0.875, 1, 1, 1, 0.75, 1, 1, 0.875, 1, 0.875, 0.875, 0.75, 0.875]
    for count in range(1, len(values) + 1):
        assert "reward_collapse" not in kinds(reward_rows(values[:count]))


def test_slow_erosion_is_found() -> None:
    """At least 9 of 10; the benchmark measures it over more seeds."""
    found = 0
    for seed in range(10):
        values = sampled(lambda t: 0.7 - 0.25 * t, prompts=8, answers=8, count=150, seed=seed)
        found += "reward_collapse" in kinds(reward_rows(values))
    assert found >= 9


def test_a_reward_that_falls_at_once_and_for_good_has_collapsed() -> None:
    finding = the("reward_collapse", reward_rows([0.9] * 12 + [0.0] * 18))
    assert (finding.severity, finding.step) == ("error", 12)


def test_a_reward_that_swings_has_not_collapsed_in_a_trough() -> None:
    values = [0.5 + 0.2 * (-1 if at % 40 < 20 else 1) * (1 - abs(at % 20 - 10) / 10) for at in range(200)]
    for count in (110, 130, 150, 190, 200):
        assert "reward_collapse" not in kinds(reward_rows(values[:count]))


@pytest.mark.parametrize(("end", "alarm"), [(0.56, False), (0.48, True)])
def test_a_fall_by_a_quarter_of_the_level_is_the_line(end: float, alarm: bool) -> None:
    values = [0.7 + 0.01 * (-1) ** at for at in range(30)] + [end + 0.01 * (-1) ** at for at in range(30)]
    assert ("reward_collapse" in kinds(reward_rows(values))) is alarm


def test_evidence_for_a_fall_does_not_depend_on_the_unit_of_the_reward() -> None:
    source = random.Random(3)
    values = [source.gauss(0, 1) - (at > 50) for at in range(100)]
    one, other = (
        find_fall(Series("r", tuple(range(100)), tuple(scale * value - 3 for value in values))) for scale in (1, 1e3)
    )
    assert one is not None and other is not None
    assert one.evidence == pytest.approx(other.evidence)
    assert one.depth * 1000 == pytest.approx(other.depth)


# --- nothing learned ------------------------------------------------------------------------------------------------


def test_no_gradient_although_rewards_differ_is_named() -> None:
    found = the("stalled", logged(20, loss=0.0, grad_norm=0.0, reward=0.34, reward_std=0.44, kl=0.0))
    assert found.severity == "error" and "although rewards differ, kl is 0" in found.evidence
    assert "stalled" not in kinds(logged(20, loss=0.0, grad_norm=0.01, reward=0.34, reward_std=0.44, kl=0.0))


@pytest.mark.parametrize(
    ("total", "end", "alarm"),
    [(100, 0.3, True), (200, 0.3, False), (100, 0.5, False)],
    ids=["over", "not yet", "gain"],
)
def test_a_reward_that_is_flat_over_the_whole_budget_is_watched(total: int, end: float, alarm: bool) -> None:
    source = random.Random(1)
    run = [metrics(step=at + 1, reward=0.3 + (end - 0.3) * at / 100 + 0.05 * source.gauss(0, 1)) for at in range(100)]
    run[-1]["total_steps"] = total
    assert ("stalled" in kinds(run)) is alarm


def test_rewards_that_cancel_each_other_are_named() -> None:
    up = [0.1 + at / 100 for at in range(40)]
    down = [0.9 - at / 100 for at in range(40)]
    found = the(
        "no_reward_signal", logged(40, reward=1.0, reward_std=0.2, rewards__a__mean=up, rewards__b__mean=down)
    )
    assert "a gained" in found.evidence and "b lost" in found.evidence


@pytest.mark.parametrize(
    ("name", "count", "alarm"), [("code", 30, True), ("code", 29, False), ("penalty", 40, False)]
)
def test_one_reward_that_is_always_zero_is_named(name: str, count: int, alarm: bool) -> None:
    parts = {f"rewards__{name}__mean": 0.0, "rewards__accuracy__mean": [0.2 + at / 100 for at in range(count)]}
    run = logged(count, reward=parts["rewards__accuracy__mean"], reward_std=0.3, **parts)
    assert ("no_reward_signal" in kinds(run)) is alarm


def test_preferences_whose_loss_is_zero_from_the_start_are_stalled() -> None:
    run = logged(6, loss=0.0, grad_norm=0.1, rewards__margins=0.0, rewards__accuracies=0.0)
    assert the("stalled", run).severity == "error"


# --- reward hacking -------------------------------------------------------------------------------------------------


def test_a_penalty_at_its_best_and_a_flat_second_reward_are_not_the_goal() -> None:
    rising = [0.1 + at / 60 for at in range(40)]
    for name, value in (("violations", 0.0), ("length", 0.3), ("brevity", 0.3)):
        run = logged(40, reward=[one + value for one in rising], reward_std=0.2, **{f"rewards__{name}__mean": value})
        for at, row in enumerate(run):
            row["values"]["rewards/accuracy/mean"] = rising[at]
        assert "reward_hacking" not in kinds(run), name


def test_a_short_run_with_a_strong_trend_in_a_noisy_total_is_hacked() -> None:
    source = random.Random(2)
    proxy = [0.1 + 0.8 * at / 17 + 0.1 * source.gauss(0, 1) for at in range(18)]
    run = logged(18, reward=proxy, reward_std=0.2, rewards__format__mean=proxy, rewards__correct__mean=0.05)
    assert the("reward_hacking", run).severity == "error"


def test_a_goal_that_is_reached_and_stays_is_not_hacked() -> None:
    proxy = [0.1 + at / 60 for at in range(40)]
    run = logged(40, reward=proxy, reward_std=0.2, rewards__format__mean=proxy, rewards__correct__mean=0.95)
    assert "reward_hacking" not in kinds(run)


# --- policy and completions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "severity"),
    [
        ("kl", lambda t: 0.01 + 6 * t, "warning"),
        ("kl", lambda t: 0.01 + 30 * t, "error"),
        ("kl", lambda t: -0.4, "warning"),
        ("kl", lambda t: 0.01 + 1.5 * t, None),
        ("kl", lambda t: -0.01, None),
        ("objective__kl", lambda t: 5 + 20 * t, None),
        ("objective__kl", lambda t: 5 + 900 * t, "error"),
    ],
)
def test_kl_that_climbs_without_bound_or_below_zero(name: str, values: Any, severity: str | None) -> None:
    run = grpo(**{name: values}) if name == "kl" else rows(40, reward=line(0.2, 0.6), objective__kl=values)
    found = [finding.severity for finding in diagnose(run).findings if finding.kind == "kl_blowup"]
    assert found == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("end", "reward", "severity"),
    [(2, 0.6, "error"), (15, 0.6, "warning"), (30, 0.2, "warning"), (30, 0.6, None), (100, 0.2, None)],
)
def test_completions_that_shrink_to_nothing(end: float, reward: float, severity: str | None) -> None:
    run = grpo(completions__mean_length=lambda t: 200 if t < 0.4 else end, reward=line(0.2, reward))
    found = [finding.severity for finding in diagnose(run).findings if finding.kind == "length_collapse"]
    assert found == ([severity] if severity else [])


# --- supervised training --------------------------------------------------------------------------------------------


def evaluated(**columns: Sequence[float]) -> list[dict[str, Any]]:
    run = rows(60, loss=line(2.0, 0.1))
    count = len(next(iter(columns.values())))
    return run + [metrics(step=100 * (at + 1), **{name: c[at] for name, c in columns.items()}) for at in range(count)]


LOSSES = [1.8, 1.2, 1.1, 1.3, 1.6, 1.9]


def test_overfitting_is_seen_on_any_evaluation_set() -> None:
    found = the("overfitting", evaluated(eval_german_loss=LOSSES, eval_english_loss=[1.8, 1.2, 1.1, 1.05, 1.0, 0.99]))
    assert "eval_german_loss was best (1.1) at step 300" in found.evidence


@pytest.mark.parametrize(
    ("values", "alarm"),
    [
        ([0.5, 0.8, 0.79, 0.78], False),
        ([0.5, 0.8, 0.76, 0.75], True),
        ([0.5, 0.8, 0.7], False),
        ([0.5, 0.8, 0.6], True),
    ],
)
def test_how_much_a_metric_may_lose(values: list[float], alarm: bool) -> None:
    assert ("overfitting" in kinds(evaluated(eval_accuracy=values))) is alarm


def test_a_loss_that_rises_while_the_task_gets_better_is_a_matter_of_calibration() -> None:
    run = evaluated(eval_loss=LOSSES, eval_accuracy=[0.6, 0.7, 0.74, 0.76, 0.77, 0.78])
    [finding] = [one for one in diagnose(run).findings if one.kind == "overfitting"]
    assert finding.severity == "note" and "eval_accuracy" in finding.advice
    assert diagnose(run).verdict == "healthy"


def test_the_checkpoint_is_chosen_by_the_task_and_not_by_the_loss() -> None:
    run = evaluated(eval_loss=[0.5, 0.4, 0.45, 0.5, 0.55, 0.6], eval_wer=[0.4, 0.35, 0.30, 0.25, 0.30, 0.33])
    assert the("overfitting", run).step == 400


@pytest.mark.parametrize(("end", "severity"), [(0.002, "error"), (0.008, "warning"), (0.02, None)])
def test_a_training_loss_of_nothing_without_held_out_data_is_learned_by_heart(
    end: float, severity: str | None
) -> None:
    run = rows(100, noise=0.01, loss=lambda t: end + 2 * (1 - t) ** 6 * (t < 0.7), grad_norm=lambda t: 1 - 0.999 * t)
    found = {finding.kind: finding.severity for finding in diagnose(run).findings}
    assert found == ({"overfitting": severity} if severity else {})


def test_a_loss_that_steps_down_at_each_epoch_is_memorising() -> None:
    run = logged(80, loss=[(1.3, 0.7, 0.26, 0.09)[at // 20] + 0.005 * (-1) ** at for at in range(80)])
    for at, row in enumerate(run):
        row["epoch"] = (at + 1) / 20
    assert "steps down at each new epoch" in the("overfitting", run).evidence
    for at, row in enumerate(run):
        row["values"]["loss"] = 1.3 - at / 70
    assert "overfitting" not in kinds(run)


def test_continued_pretraining_that_falls_by_one_percent_is_learning() -> None:
    assert "stalled" not in kinds(rows(300, noise=0.02, loss=line(2.10, 2.079)))
    assert "stalled" in kinds(rows(300, noise=0.02, loss=line(2.10, 2.10)))


def test_gradients_of_a_run_that_has_converged_do_not_spike() -> None:
    run = rows(200, loss=decay(2, 0.5), grad_norm=lambda t: 1.0 if t < 0.2 else 0.001)
    for at in (100, 120, 140, 160):
        run[at]["values"]["grad_norm"] = 0.5
    assert "gradient_spikes" not in kinds(run)


@pytest.mark.parametrize(
    ("size", "count", "alarm"), [(9.0, 5, False), (11.0, 2, False), (11.0, 3, True), (120, 1, True)]
)
def test_how_large_and_how_often_gradients_may_spike(size: float, count: int, alarm: bool) -> None:
    run = logged(60, loss=[2 - at / 60 for at in range(60)], grad_norm=1.0)
    for at in range(count):
        run[20 + 5 * at]["values"]["grad_norm"] = size
    assert ("gradient_spikes" in kinds(run)) is alarm


# --- preferences ----------------------------------------------------------------------------------------------------


def dpo(loss: Sequence[float], right: Sequence[float], **more: Sequence[float] | float) -> list[dict[str, Any]]:
    return logged(len(loss), loss=loss, rewards__accuracies=right, rewards__margins=0.1, **more)


def test_a_wild_preference_loss_says_lower_and_never_raise() -> None:
    wild = [0.0, 3.9, 6.2, 0.01, 1.2, 2.4] * 10
    findings = diagnose(dpo(wild, [1.0, 0.0, 0.5] * 20, learning_rate=1e-4)).findings
    assert findings[0].kind == "divergence" and "1e-04" in findings[0].advice.replace("0.0001", "1e-04")
    assert not any("raise the learning" in finding.advice.lower() for finding in findings)


NEAR_GUESSING = [0.69, 0.695] * 21


def test_a_preference_loss_with_another_zero_is_no_divergence() -> None:
    """ORPO adds the loss of the text itself: 3 at first, 2.9 at the end of a small model's run."""
    assert "divergence" not in kinds(dpo([3.0 - at / 400 for at in range(40)], [0.6] * 40))
    assert the("divergence", dpo([0.7] * 10 + [2.0] * 30, [0.6] * 40)).severity == "error"


def test_coarse_accuracies_are_averaged() -> None:
    """With two pairs a row the median jumps between 0, .5 and 1: here it is 1, and the mean .57."""
    right = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0] * 6
    run = dpo(NEAR_GUESSING, right, logps__chosen=[-100.0 - at for at in range(42)])
    assert "overfitting" not in kinds(run)
    found = the("stalled", dpo(NEAR_GUESSING, [0.5, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0] * 6))
    assert "rewards/accuracies is still 0.5" in found.evidence


def test_a_reward_model_that_guesses_is_watched() -> None:
    run = logged(42, loss=NEAR_GUESSING, accuracy=[0.45, 0.55] * 21, margin=0.01, min_reward=-1.0)
    assert "accuracy is still 0.50" in the("stalled", run).evidence
    assert "stalled" not in kinds(logged(40, loss=[0.7 - at / 100 for at in range(40)], accuracy=0.6, margin=0.1))


@pytest.mark.parametrize(("end", "alarm"), [(-140, False), (-160, True)])
def test_chosen_answers_that_grow_unlikely_with_the_rejected(end: float, alarm: bool) -> None:
    fall = [-100 + (end + 100) * min(1.0, at / 30) for at in range(40)]
    run = dpo([0.6] * 40, [0.8, 0.7] * 20, logps__chosen=fall, logps__rejected=[2 * value for value in fall])
    assert ("overfitting" in kinds(run)) is alarm


# --- the same from both ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [40, 2 * MOST_POINTS + 500])
def test_row_by_row_and_all_at_once_the_findings_are_the_same(count: int) -> None:
    run = grpo(count, reward=turn(0.3, 0.6, 0.1), kl=lambda t: 0.01 if t < 0.7 else 40.0)
    online = Diagnoser()
    for row in run:
        online.add([row])
    assert online.diagnosis() == diagnose(run)
    assert {"reward_collapse", "kl_blowup"} <= kinds(run)


def test_a_curve_keeps_a_bounded_number_of_points_and_its_mean() -> None:
    values = [random.Random(at).random() for at in range(10_000)]
    curve = build(metrics(step=at, loss=value) for at, value in enumerate(values))["loss"]
    assert MOST_POINTS / 2 <= len(curve) <= MOST_POINTS
    assert max(curve.highs) == max(values)
    assert sum(curve.values) / len(curve) == pytest.approx(sum(values) / len(values), rel=0.01)


def test_steps_that_come_late_take_their_place_and_steps_that_come_again_replace_the_rest() -> None:
    late = build([metrics(step=step, loss=float(step)) for step in (1, 3, 2, 4)])["loss"]
    assert late.values == (1.0, 2.0, 3.0, 4.0)
    again = build([metrics(step=step, loss=loss) for step, loss in ((1, 1.0), (2, 9.0), (3, 9.0), (2, 2.0))])["loss"]
    assert (again.steps, again.values) == ((1.0, 2.0), (1.0, 2.0))


# --- too little -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "missing"),
    [
        (logged(9, loss=1.0, grad_norm=0.5), "Only 9 rows were logged"),
        (logged(40, learning_rate=1e-5, grad_norm=0.5), "no loss and no reward"),
        ([], "no loss and no reward"),
    ],
)
def test_too_little_to_judge_is_never_healthy(run: list[dict[str, Any]], missing: str) -> None:
    diagnosis = diagnose(run)
    assert diagnosis.verdict == "too_little_to_judge"
    assert missing in diagnosis.notes[0]
    assert diagnose(logged(10, loss=[2 - at / 10 for at in range(10)])).verdict == "healthy"
