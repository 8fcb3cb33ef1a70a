"""Each kind of failure beside the healthy course that looks like it."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.health.diagnose import diagnose
from mlintern.tools.health.findings import Finding, Kind
from tests.tools.health.curves import Trend, decay, line, metrics, rows, turn


def kinds(logged: list[dict[str, Any]]) -> set[Kind]:
    return {finding.kind for finding in diagnose(logged).findings}


def the(kind: Kind, logged: list[dict[str, Any]]) -> Finding:
    [finding] = [finding for finding in diagnose(logged).findings if finding.kind == kind]
    return finding


def grpo(count: int = 40, **trends: Trend) -> list[dict[str, Any]]:
    healthy: dict[str, Trend] = {
        "loss": lambda t: 0.0,
        "reward": line(0.2, 0.6),
        "reward_std": line(0.3, 0.25),
        "frac_reward_zero_std": line(0.2, 0.3),
        "kl": line(0.0005, 0.08),
        "entropy": line(0.8, 0.5),
        "completions__mean_length": line(200, 320),
        "completions__clipped_ratio": line(0.2, 0.05),
        "grad_norm": line(0.4, 0.3),
    }
    return rows(count, **(healthy | trends))


# --- what is healthy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_sft_run_is_healthy(seed: int) -> None:
    logged = rows(
        60,
        seed=seed,
        noise=0.15,
        loss=decay(2.4, 0.3),
        grad_norm=decay(20, 3),
        entropy=decay(3.0, 0.1),
        learning_rate=line(1e-3, 1e-6),
        mean_token_accuracy=line(0.3, 0.95),
    )
    assert diagnose(logged).verdict == "healthy"


def test_an_ordinary_grpo_run_is_healthy_although_its_loss_is_zero() -> None:
    assert diagnose(grpo()).verdict == "healthy"


def test_every_beginning_of_a_healthy_run_is_healthy() -> None:
    logged = grpo()
    verdicts = [diagnose(logged[:count]).verdict for count in range(len(logged) + 1)]
    assert verdicts == ["too_little_to_judge"] * 10 + ["healthy"] * 31


def test_little_data_is_said_to_be_little() -> None:
    diagnosis = diagnose(rows(3, loss=line(2, 1)))
    assert (diagnosis.verdict, diagnosis.steps_read, diagnosis.last_step) == ("too_little_to_judge", 3, 30)
    assert "Only 3 rows" in diagnosis.notes[0]


def test_no_rows_are_no_verdict_but_a_note() -> None:
    diagnosis = diagnose([])
    assert (diagnosis.steps_read, diagnosis.last_step) == (0, None)
    assert diagnosis.notes


# --- not a number ---------------------------------------------------------------------------------------------------


def test_a_nan_that_the_trainer_logs_as_zero_is_seen_by_its_gradient() -> None:
    logged = [metrics(step=i, loss=1.0, grad_norm=0.5) for i in range(1, 9)]
    logged += [metrics(step=i, loss=0.0, grad_norm="NaN") for i in range(9, 12)]
    finding = the("nan_or_inf", logged)
    assert (finding.severity, finding.step) == ("error", 9)
    assert "loss is logged as 0 in 3 of these rows, which hides it" in finding.evidence
    assert diagnose(logged).verdict == "failing"


@pytest.mark.parametrize("name", ["loss", "grad_norm", "eval_loss", "entropy", "logps__chosen", "reward"])
@pytest.mark.parametrize("value", [math.nan, "NaN", "nan"])
def test_a_run_that_ends_in_nan_fails(name: str, value: Any) -> None:
    logged = [*rows(6, loss=line(2, 1)), metrics(step=100, **{name: value})]
    assert the("nan_or_inf", logged).severity == "error"


def test_one_infinite_gradient_of_float16_is_no_failure() -> None:
    logged = [metrics(step=i, loss=1 / i, grad_norm=math.inf if i == 4 else 0.5) for i in range(1, 10)]
    assert the("nan_or_inf", logged).severity == "note"
    assert the("nan_or_inf", logged[:4]).severity == "warning"


def test_a_reward_function_that_does_not_judge_every_sample_may_be_nan() -> None:
    logged = [metrics(step=i, reward=0.1 * i, rewards__math__mean="NaN") for i in range(1, 8)]
    assert "nan_or_inf" not in kinds(logged)


def test_a_metric_that_was_not_available_is_no_nan() -> None:
    assert kinds([metrics(step=i, loss=1 / i, kl=None) for i in range(1, 12)]) == set()


# --- loss -----------------------------------------------------------------------------------------------------------


def test_a_loss_that_rises_above_its_start_diverges() -> None:
    finding = the("divergence", rows(60, loss=turn(2.0, 1.0, 4.0)))
    assert finding.severity == "error"
    assert finding.step is not None and 200 <= finding.step <= 400


def test_a_loss_that_explodes_is_seen_within_three_rows() -> None:
    logged = rows(12, loss=line(2.0, 1.8)) + [metrics(step=1000 + i, loss=50.0) for i in range(3)]
    assert the("divergence", logged).severity == "error"


def test_a_loss_that_loses_part_of_its_gain_is_watched() -> None:
    assert the("divergence", rows(60, loss=turn(2.0, 0.4, 1.2))).severity == "warning"


def test_a_spike_that_recovers_is_no_divergence() -> None:
    logged = rows(60, loss=decay(2.0, 0.5))
    logged[30]["values"]["loss"] = logged[31]["values"]["loss"] = 9.0
    assert "divergence" not in kinds(logged)


def test_a_step_that_was_logged_again_after_a_resume_counts_once() -> None:
    crashed = [metrics(step=i, loss=100.0) for i in range(31, 41)]
    again = [metrics(step=i, loss=1.0 - i / 100) for i in range(31, 61)]
    logged = [metrics(step=i, loss=2.0 - i / 50) for i in range(1, 31)] + crashed + again
    assert "divergence" not in kinds(logged)


def test_held_out_loss_that_turns_while_training_loss_falls_is_overfitting() -> None:
    logged = rows(60, loss=line(2.0, 0.1))
    logged += [
        metrics(step=100 * i, eval_loss=loss) for i, loss in enumerate([1.8, 1.2, 1.1, 1.25, 1.5, 1.7], start=1)
    ]
    finding = the("overfitting", logged)
    assert (finding.severity, finding.step) == ("warning", 300)
    assert "step 300" in finding.advice


def test_held_out_loss_that_still_falls_is_no_overfitting() -> None:
    logged = rows(60, loss=line(2.0, 0.1))
    logged += [metrics(step=100 * i, eval_loss=loss) for i, loss in enumerate([1.8, 1.2, 1.21, 1.1, 1.11], start=1)]
    assert "overfitting" not in kinds(logged)


def test_preferences_learned_by_heart_are_overfitting() -> None:
    logged = rows(
        40,
        noise=0.01,
        loss=decay(0.69, 0.01),
        rewards__accuracies=lambda t: min(1.0, 0.5 + t * 2),
        logps__chosen=line(-100, -300),
        rewards__margins=line(0, 20),
    )
    for row in logged:
        row["values"]["rewards/accuracies"] = min(1.0, row["values"]["rewards/accuracies"])
    assert "overfitting" in kinds(logged)


# --- progress and gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "logged",
    [
        rows(12, noise=0.0, loss=line(0.0, 0.0)),
        rows(12, loss=line(2.0, 2.0), grad_norm=line(0.0, 0.0)),
        rows(12, loss=line(2.0, 1.9), learning_rate=line(0.0, 0.0)),
    ],
    ids=["loss is 0", "gradient is 0", "learning rate is 0"],
)
def test_a_run_that_cannot_learn_is_stalled(logged: list[dict[str, Any]]) -> None:
    assert the("stalled", logged).severity == "error"


def test_a_loss_that_does_not_fall_in_a_hundred_rows_is_watched() -> None:
    assert the("stalled", rows(120, loss=line(2.0, 2.0))).severity == "warning"


def test_preferences_at_the_level_of_guessing_are_watched() -> None:
    logged = rows(60, noise=0.1, loss=line(0.69, 0.69), rewards__accuracies=line(0.5, 0.5))
    assert the("stalled", logged).severity == "warning"


def test_gradients_that_spike_again_and_again_are_reported_and_one_spike_is_not() -> None:
    logged = rows(60, loss=decay(2, 1), grad_norm=line(1.0, 1.0))
    logged[30]["values"]["grad_norm"] = 30.0
    assert kinds(logged) == set()
    logged[35]["values"]["grad_norm"] = logged[45]["values"]["grad_norm"] = 25.0
    assert the("gradient_spikes", logged).step == 310


# --- reward ---------------------------------------------------------------------------------------------------------


def test_a_reward_that_peaks_and_falls_has_collapsed() -> None:
    finding = the("reward_collapse", grpo(reward=turn(0.35, 0.56, 0.3)))
    assert finding.severity == "error"
    assert finding.step is not None and 150 <= finding.step <= 260


def test_a_noisy_reward_without_a_trend_has_not_collapsed() -> None:
    for seed in range(10):
        assert "reward_collapse" not in kinds(rows(40, seed=seed, noise=0.3, reward=line(0.2, 0.2)))


@pytest.mark.parametrize(("level", "severity"), [(0.0, "error"), (1.0, "warning")])
def test_prompts_that_are_all_failed_or_all_solved_give_no_signal(level: float, severity: str) -> None:
    trend = line(level, level)
    logged = grpo(reward=trend, frac_reward_zero_std=line(1.0, 1.0), reward_std=line(0, 0))
    assert the("no_reward_signal", logged).severity == severity


def test_a_policy_that_leaves_its_reference_is_reported() -> None:
    assert the("kl_blowup", grpo(kl=lambda t: 0.01 if t < 0.7 else 40.0)).severity == "error"


def test_a_kl_spike_that_recovers_and_a_kl_that_grows_from_nothing_are_not() -> None:
    spiked = grpo()
    spiked[20]["values"]["kl"] = 50.0
    assert "kl_blowup" not in kinds(spiked)
    assert "kl_blowup" not in kinds(grpo(kl=lambda t: 0.0001 + 0.3 * t**4))


def test_a_policy_that_stops_exploring_is_reported() -> None:
    assert "entropy_collapse" in kinds(grpo(entropy=decay(1.0, 0.02)))


def test_entropy_that_falls_in_sft_is_learning() -> None:
    assert "entropy_collapse" not in kinds(rows(40, loss=decay(2, 0.2), entropy=decay(2.0, 0.02)))


def test_a_policy_that_dissolves_into_noise_diverges() -> None:
    assert "divergence" in kinds(grpo(entropy=turn(0.5, 0.6, 6.0), reward=turn(0.3, 0.5, 0.05)))


def test_answers_that_grow_without_reward_are_reported_and_growth_that_pays_is_not() -> None:
    longer = line(200, 1500)
    assert "length_explosion" in kinds(grpo(completions__mean_length=longer, reward=line(0.4, 0.4)))
    assert "length_explosion" not in kinds(grpo(completions__mean_length=longer, reward=line(0.2, 0.7)))


def test_answers_that_are_mostly_cut_off_are_reported() -> None:
    finding = the("truncation", grpo(completions__clipped_ratio=line(0.3, 0.8)))
    assert (finding.severity, "max_completion_length" in finding.advice) == ("warning", True)


def test_a_model_that_learns_to_end_its_answers_is_not_truncated() -> None:
    assert "truncation" not in kinds(grpo(completions__clipped_ratio=line(1.0, 0.1)))


def test_a_reward_that_is_earned_by_form_alone_is_hacked() -> None:
    logged = grpo(rewards__format__mean=line(0.1, 0.9), rewards__correct__mean=line(0.1, 0.1), reward=line(0.2, 1.0))
    finding = the("reward_hacking", logged)
    assert "format rose" in finding.evidence and "correct changed" in finding.evidence


def test_a_model_that_gets_right_without_the_form_is_not_hacking() -> None:
    logged = grpo(rewards__format__mean=line(0.0, 0.0), rewards__correct__mean=line(0.1, 0.8), reward=line(0.1, 0.8))
    assert "reward_hacking" not in kinds(logged)


def test_rewards_that_rise_together_are_not_hacking() -> None:
    logged = grpo(rewards__format__mean=line(0.2, 0.9), rewards__correct__mean=line(0.1, 0.5), reward=line(0.3, 1.4))
    assert "reward_hacking" not in kinds(logged)


def test_a_held_out_score_that_falls_while_the_reward_rises_is_hacking() -> None:
    logged = grpo()
    logged += [metrics(step=100 * i, eval_accuracy=v) for i, v in enumerate([0.50, 0.52, 0.51, 0.30], start=1)]
    assert the("reward_hacking", logged).severity == "error"


def test_a_sampler_that_disagrees_with_the_trainer_is_reported() -> None:
    logged = grpo(sampling__importance_sampling_ratio__mean=line(1.0, 0.4))
    assert "sampler and trainer disagree" in the("divergence", logged).evidence


# --- laws -----------------------------------------------------------------------------------------------------------

names = st.sampled_from(
    [
        *("loss", "grad_norm", "entropy", "eval_loss", "learning_rate", "x"),
        *("reward", "reward_std", "kl", "rewards/a/mean", "rewards/b", "completions/clipped_ratio"),
        *("completions/mean_length", "rewards/accuracies", "logps/chosen"),
    ]
)
anything = st.floats() | st.sampled_from(["NaN", "Infinity", "-Infinity", "text", None, True, [], 10**400])
logs = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["metrics", "begin"]), "values": st.dictionaries(names, anything, max_size=6)},
        optional={"step": st.integers(0, 200) | st.none() | st.text(max_size=2)},
    ),
    max_size=60,
)


@given(logged=logs)
def test_whatever_was_logged_there_is_a_diagnosis_that_agrees_with_its_findings(logged: list[dict[str, Any]]) -> None:
    diagnosis = diagnose(logged)
    worst = {finding.severity for finding in diagnosis.findings}
    expected = (
        {"failing"} if "error" in worst else {"watch"} if "warning" in worst else {"healthy", "too_little_to_judge"}
    )
    assert diagnosis.verdict in expected
    assert all(finding.evidence and finding.advice for finding in diagnosis.findings)
    diagnosis.model_dump_json()


# --- where the lines are drawn --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rise", "alarm"), [(1.02, False), (1.05, True)], ids=["two percent is noise", "five percent that stay are not"]
)
def test_how_far_held_out_loss_may_rise(rise: float, alarm: bool) -> None:
    losses = [1.8, 1.2, 1.0, 1.0 * rise, 1.0 * rise, 1.0 * rise]
    logged = rows(60, loss=line(2.0, 0.1)) + [
        metrics(step=100 * i, eval_loss=loss) for i, loss in enumerate(losses, 1)
    ]
    assert ("overfitting" in kinds(logged)) is alarm


@pytest.mark.parametrize(("end", "alarm"), [(1.3, False), (1.8, True)])
def test_how_far_a_loss_may_come_back_from_its_best(end: float, alarm: bool) -> None:
    """Curricula and new epochs raise a loss for good without harm; half of it again is another thing."""
    assert ("divergence" in kinds(rows(60, noise=0.01, loss=turn(1.6, 1.0, end)))) is alarm


@pytest.mark.parametrize("seed", range(6))
def test_a_loss_that_is_mostly_noise_does_not_diverge(seed: int) -> None:
    """Batches of two or three samples: single values differ by a factor of ten."""
    source = random.Random(seed)
    logged = [metrics(step=i, loss=abs(source.gauss(0.2, 0.4))) for i in range(40)]
    assert "divergence" not in kinds(logged)


@pytest.mark.parametrize(("end", "alarm"), [(0.62, False), (0.35, True)])
def test_how_much_of_its_gain_a_reward_may_lose(end: float, alarm: bool) -> None:
    assert ("reward_collapse" in kinds(grpo(reward=turn(0.2, 0.7, end), kl=line(0.0, 0.05)))) is alarm
