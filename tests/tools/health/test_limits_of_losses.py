"""Limits of the rules about losses, gradients and preference pairs, each from both sides."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tools.health.curves import metrics
from tests.tools.health.test_limits import named, two_levels

NAN = math.nan


def series(name: str, values: list[float], **others: float) -> list[dict[str, Any]]:
    return [metrics(step=at + 1, **{name: value}, **others) for at, value in enumerate(values)]


@pytest.mark.parametrize(
    ("start", "best", "end", "severity"),
    [
        (1.0, 0.5, 0.76, "warning"),
        (1.0, 0.5, 0.74, None),
        (1.0, 0.7, 1.19, "warning"),
        (1.0, 0.7, 1.21, "error"),
        (2.0, 0.5, 0.88, "warning"),  # a quarter of the gain of 1.5 is .375
        (2.0, 0.5, 0.87, None),
    ],
)
def test_how_much_of_its_gain_a_loss_may_lose(start: float, best: float, end: float, severity: str | None) -> None:
    values = [start] * 20 + [best] * 20 + [end] * 20
    assert named(series("loss", values), "divergence") == severity


@pytest.mark.parametrize(
    ("last", "found"), [([3.1] * 3, "error"), ([2.9] * 3, None), ([9.0, 9.0], None), ([9.0, 1.0, 9.0], None)]
)
def test_three_rows_above_three_times_the_start_have_exploded(last: list[float], found: str | None) -> None:
    assert named(series("loss", [1.0] * 12 + last), "divergence") == found


@pytest.mark.parametrize(("rows", "found"), [(5, "error"), (4, None)])
def test_five_rows_without_a_learning_rate_are_a_stall(rows: int, found: str | None) -> None:
    values = [2.0 - 0.1 * at for at in range(rows)]
    assert named(series("loss", values, learning_rate=0.0), "stalled") == found


@pytest.mark.parametrize(("zeros", "found"), [(5, "error"), (4, None)])
def test_five_gradients_of_zero_are_a_stall(zeros: int, found: str | None) -> None:
    logged = [
        metrics(step=at + 1, loss=2.0 - 0.05 * at, grad_norm=1.0 if at < 15 - zeros else 0.0) for at in range(15)
    ]
    assert named(logged, "stalled") == found


@pytest.mark.parametrize(("end", "found"), [(0.049, None), (0.051, "error")])
def test_gradients_of_zero_are_no_stall_where_the_data_are_known_by_heart(end: float, found: str | None) -> None:
    logged = [
        metrics(step=at + 1, loss=1.0 if at < 15 else end, grad_norm=1.0 if at < 25 else 0.0) for at in range(30)
    ]
    assert named(logged, "stalled") == found


@pytest.mark.parametrize(("moved", "found"), [(0.9e-4, "error"), (1.2e-4, None)])
def test_ten_rows_within_a_ten_thousandth_are_a_stall(moved: float, found: str | None) -> None:
    values = [2.0] * 10 + [2.0 + (2.0 * moved if at % 2 else 0.0) for at in range(10)]
    assert named(series("loss", values, grad_norm=1.0), "stalled") == found


@pytest.mark.parametrize(("rows", "found"), [(100, "warning"), (99, None)])
def test_a_flat_loss_is_called_so_after_a_hundred_rows(rows: int, found: str | None) -> None:
    values = [2.0 + 0.05 * math.sin(at) for at in range(rows)]
    assert named(series("loss", values, grad_norm=1.0), "stalled") == found


@pytest.mark.parametrize(
    ("spikes", "found"),
    [
        ([10.1] * 3, "warning"),
        ([9.9] * 3, None),
        ([10.1] * 2, None),
        ([101.0], "warning"),
        ([99.0], None),
    ],
)
def test_what_counts_as_gradient_spikes(spikes: list[float], found: str | None) -> None:
    values = [1.0] * 60
    for at, spike in enumerate(spikes):
        values[30 + 5 * at] = spike
    assert named(series("grad_norm", values, loss=1.0), "gradient_spikes") == found


@pytest.mark.parametrize(("size", "found"), [(1.01, "warning"), (0.99, None)])
def test_jumps_that_are_not_even_clipped_do_no_harm(size: float, found: str | None) -> None:
    values = [0.01] * 60
    values[30], values[35], values[40] = [size] * 3
    assert named(series("grad_norm", values, loss=1.0), "gradient_spikes") == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0] * 20 + [NAN], "error"),
        ([1.0] * 20 + [math.inf] * 3, "error"),
        ([1.0] * 20 + [math.inf] * 2, "warning"),
        ([1.0] * 20 + [NAN] * 5 + [1.0], "warning"),
    ],
)
def test_a_loss_is_lost_when_it_ends_in_nan_or_three_infinities(values: list[float], found: str) -> None:
    assert named(series("loss", values), "nan_or_inf") == found


def pairs(losses: list[float], right: list[float]) -> list[dict[str, Any]]:
    return [
        metrics(step=at + 1, loss=loss, rewards__accuracies=share, rewards__margins=0.1)
        for at, (loss, share) in enumerate(zip(losses, right, strict=True))
    ]


@pytest.mark.parametrize(("wild", "found"), [(2, "error"), (1, None)])
def test_a_tenth_of_the_pairs_beyond_four_times_guessing_are_too_large_steps(wild: int, found: str | None) -> None:
    later = [0.3 if at % 2 else 1.2 for at in range(20)]
    for at in range(wild):
        later[2 * at] = 2.8
    assert named(pairs([0.69] * 20 + later, [0.7] * 40), "divergence") == found


@pytest.mark.parametrize(("share", "found"), [(0.549, "warning"), (0.56, None), (0.451, "warning"), (0.44, None)])
def test_pairs_are_told_apart_by_more_than_five_points_or_not_at_all(share: float, found: str | None) -> None:
    losses = [0.69 + 0.01 * math.sin(at) for at in range(40)]
    assert named(pairs(losses, [share] * 40), "stalled") == found


@pytest.mark.parametrize(("rows", "found"), [(30, "warning"), (29, None)])
def test_thirty_rows_of_pairs_are_enough_to_judge(rows: int, found: str | None) -> None:
    losses = [0.69 + 0.01 * math.sin(at) for at in range(rows)]
    assert named(pairs(losses, [0.5] * rows), "stalled") == found


@pytest.mark.parametrize(
    ("end", "right", "found"),
    [
        (-121.0, 0.98, "warning"),
        (-119.0, 0.98, None),
        (-121.0, 0.97, None),
        (-151.0, 0.8, "warning"),
        (-149.0, 0.8, None),
    ],
)
def test_how_far_the_chosen_answers_may_fall(end: float, right: float, found: str | None) -> None:
    shared = {"loss": 0.5, "rewards__accuracies": right}
    logged = two_levels(
        {"logps__chosen": -100.0, "logps__rejected": -100.0, **shared},
        {"logps__chosen": end, "logps__rejected": end - 20, **shared},
    )
    assert named(logged, "overfitting") == found


@pytest.mark.parametrize(
    ("early", "late", "found"),
    [(2.0, 3.1, "error"), (2.0, 2.9, None), (2.0, 7.5, "error")],
    ids=["1.55", "1.45", "far"],
)
def test_a_loss_that_is_lost_within_the_first_rows_has_diverged(early: float, late: float, found: str | None) -> None:
    values = [early] * 6 + [late + 0.02 * (-1) ** at for at in range(60)]
    assert named(series("loss", values), "divergence") == found


@pytest.mark.parametrize(
    ("rows", "rate", "fall", "found"),
    [
        (100, 1e-7, 0.0, "warning"),
        (100, 1e-5, 0.0, None),  # quiet rows at an ordinary rate: it may be continued pretraining, which is slow
        (200, 1e-5, 0.0, "warning"),
        (200, 1e-5, 0.004, None),  # a fall of .4 % is what it would bring
    ],
)
def test_a_quiet_loss_at_an_ordinary_rate_is_given_time(
    rows: int, rate: float, fall: float, found: str | None
) -> None:
    values = [2.0 * (1 - fall * at / rows) + 0.04 * math.sin(at) for at in range(rows)]
    assert named(series("loss", values, grad_norm=1.0, learning_rate=rate), "stalled") == found


@pytest.mark.parametrize(("noise", "found"), [(0.15, "warning"), (0.9, None)])
def test_a_loss_so_noisy_that_a_fall_by_a_tenth_would_not_show_is_not_called_flat(
    noise: float, found: str | None
) -> None:
    values = [2.0 + noise * (-1) ** (at // 2) for at in range(120)]
    assert named(series("loss", values, grad_norm=1.0), "stalled") == found


@pytest.mark.parametrize(("wide", "found"), [(1.0, "warning"), (3.0, None)])
def test_jumps_of_gradients_that_scatter_widely_are_ordinary(wide: float, found: str | None) -> None:
    norms = [2.0 * wide ** ((at * 7 % 11 - 5) / 5) for at in range(60)]
    for at in (30, 40, 50):
        norms[at] = 30.0
    assert named(series("grad_norm", norms, loss=1.0), "gradient_spikes") == found


@pytest.mark.parametrize(("end", "found"), [(-0.79, None), (-0.81, "warning")])
def test_mean_log_probabilities_a_token_have_to_fall_by_half_a_nat(end: float, found: str | None) -> None:
    chosen = [-0.3] * 20 + [end] * 20
    rejected = [-0.4] * 20 + [end - 0.2] * 20
    logged = [
        metrics(
            step=at + 1, loss=0.6, rewards__accuracies=0.7, logps__chosen=chosen[at], logps__rejected=rejected[at]
        )
        for at in range(40)
    ]
    assert named(logged, "overfitting") == found


@pytest.mark.parametrize(("kl", "found"), [(24.0, None), (26.0, "warning")])
def test_the_divergence_that_kto_logs_is_summed_over_the_answer(kl: float, found: str | None) -> None:
    logged = two_levels({"kl": 0.1, "rewards__margins": 1.0}, {"kl": kl, "rewards__margins": 1.0})
    assert named(logged, "kl_blowup") == found
