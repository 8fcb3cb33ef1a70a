"""Limits of the rules about held-out data and data known by heart, each from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mlintern.tools.health.diagnose import diagnose
from mlintern.tools.health.findings import Finding
from tests.tools.health.curves import metrics
from tests.tools.health.test_limits import named


def training(rows: int = 40, *, start: float = 2.0, end: float = 0.5, epochs: float | None = None) -> list[Any]:
    """A training loss that falls in a straight line; with ``epochs``, the epoch beside it."""
    logged = [metrics(step=at + 1, loss=start + (end - start) * at / (rows - 1)) for at in range(rows)]
    for at, row in enumerate(logged):
        row |= {} if epochs is None else {"epoch": epochs * (at + 1) / rows}
    return logged


def evaluated(logged: list[Any], **curves: Sequence[float]) -> list[Any]:
    """Evaluations spread evenly over the steps of ``logged``, each after its step."""
    count = max(map(len, curves.values()))
    return logged + [
        metrics(step=len(logged) * (at + 1) // count, **{f"eval_{name}": curve[at] for name, curve in curves.items()})
        for at in range(count)
    ]


def found_in(logged: list[Any]) -> Finding | None:
    return next((one for one in diagnose(logged).findings if one.kind == "overfitting"), None)


@pytest.mark.parametrize(
    ("losses", "severity"),
    [
        ([1.8, 1.0, 1.09], None),  # at once: 10 %
        ([1.8, 1.0, 1.11], "warning"),
        ([1.8, 1.0, 1.029, 1.029], None),  # in two evaluations: 3 %
        ([1.8, 1.0, 1.031, 1.031], "warning"),
        ([1.8, 1.0, 1.014, 1.04], None),  # both have to be worse by half of that
        ([1.8, 1.0, 1.016, 1.04], "warning"),
        ([1.8, 1.0, 1.05, 1.0], None),  # it came back
        ([1.0, 1.3], None),  # two evaluations are too few
        ([1.3, 1.0, 1.1, 1.21], "warning"),  # an error only above its start too
        ([1.2, 1.0, 1.1, 1.19], "warning"),  # and by a fifth
        ([1.2, 1.0, 1.1, 1.21], "error"),
    ],
)
def test_how_far_held_out_loss_may_rise(losses: list[float], severity: str | None) -> None:
    assert named(evaluated(training(), loss=losses), "overfitting") == severity


def test_of_noisy_evaluations_the_rise_has_to_stand_out() -> None:
    for scatter, severity in ((0.003, "warning"), (0.03, None)):
        losses = [1.5, 1.2, 1.0, *(1.04 + scatter * (-1) ** at for at in range(8))]
        assert named(evaluated(training(), loss=losses), "overfitting") == severity


@pytest.mark.parametrize(("end", "severity"), [(0.5, "warning"), (2.5, None)], ids=["training falls", "it rises too"])
def test_held_out_loss_that_rises_with_training_loss_is_no_overfitting(end: float, severity: str | None) -> None:
    assert named(evaluated(training(end=end), loss=[1.8, 1.0, 1.2, 1.2]), "overfitting") == severity


@pytest.mark.parametrize(
    ("name", "values", "severity"),
    [
        ("accuracy", [0.6, 0.8, 0.69], None),  # at once: 15 %
        ("accuracy", [0.6, 0.8, 0.67], "warning"),
        ("accuracy", [0.6, 0.8, 0.765, 0.765], None),  # in two evaluations: 5 %
        ("accuracy", [0.6, 0.8, 0.755, 0.755], "warning"),
        ("accuracy", [0.6, 0.8, 0.7, 0.645], "warning"),
        ("accuracy", [0.6, 0.8, 0.7, 0.635], "error"),  # a fifth
        ("f1", [0.05, 0.06, 0.051, 0.051], None),  # less than a point is an item or two
        ("f1", [0.05, 0.06, 0.049, 0.049], "warning"),
        ("wer", [0.5, 0.3, 0.32, 0.32], "warning"),
        ("wer", [0.3, 0.5, 0.3, 0.3], None),
        ("token_acc", [0.6, 0.8, 0.75, 0.75], "warning"),
        ("custom_number", [0.6, 0.8, 0.1, 0.1], None),
    ],
)
def test_how_far_a_metric_may_fall(name: str, values: list[float], severity: str | None) -> None:
    assert named(evaluated(training(), **{name: values}), "overfitting") == severity


def test_a_loss_that_rises_while_the_metric_of_the_set_improves_is_only_noted() -> None:
    losses = [1.8, 1.0, 1.2, 1.3]
    found = found_in(evaluated(training(), loss=losses, accuracy=[0.5, 0.7, 0.72, 0.74]))
    assert found is not None
    assert (found.severity, found.advice) == (
        "note",
        "The answers get better and the probabilities worse: choose the checkpoint by eval_accuracy.",
    )
    level = found_in(evaluated(training(), loss=losses, accuracy=[0.5, 0.7, 0.7, 0.701]))
    assert level is not None and level.severity == "warning"
    better = found_in(evaluated(training(), loss=losses, accuracy=[0.5, 0.7, 0.7, 0.702]))
    assert better is not None and better.severity == "note"


def test_the_worst_set_is_reported_with_its_best_step() -> None:
    found = found_in(evaluated(training(), german_loss=[1.0, 0.9, 0.95, 0.96], code_loss=[1.2, 1.0, 1.2, 1.5]))
    assert found is not None
    assert (found.severity, found.step) == ("error", 20)
    assert found.evidence == "eval_code_loss was best (1) at step 20 and is 1.5 now"
    assert "checkpoint at step 20" in found.advice


# --- without held-out data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "epochs", "severity"),
    [
        (0.6, 0.0101, None, None),
        (0.6, 0.0099, None, "warning"),
        (0.6, 0.0051, None, "warning"),
        (0.6, 0.0049, None, "error"),
        (0.49, 0.004, None, None),  # it began low
        (0.51, 0.004, None, "error"),
        (2.0, 0.029, 10, "warning"),
        (2.0, 0.031, 10, None),
        (2.0, 0.029, 9.9, None),
    ],
)
def test_a_loss_of_almost_nothing_is_data_known_by_heart(
    start: float, end: float, epochs: float | None, severity: str | None
) -> None:
    logged = [metrics(step=at + 1, loss=start if at < 4 else end * (1 + 1e-3 * (at % 2))) for at in range(30)]
    for at, row in enumerate(logged):
        row |= {} if epochs is None else {"epoch": epochs * (at + 1) / 30}
    assert named(logged, "overfitting") == severity
    with_held_out = evaluated(logged, loss=[1.0, 0.9, 0.8])
    assert named(with_held_out, "overfitting") is None


@pytest.mark.parametrize(("rows", "severity"), [(20, "error"), (19, None)])
def test_twenty_rows_are_needed_to_say_that_data_are_known(rows: int, severity: str | None) -> None:
    logged = [metrics(step=at + 1, loss=2.0 if at < 3 else 0.001 * (1 + 0.01 * (at % 2))) for at in range(rows)]
    assert named(logged, "overfitting") == severity


def stairs(*levels: float, slope: float = 0.0, rows: int = 10) -> list[Any]:
    """One level an epoch; within each it falls by ``slope``."""
    logged = []
    for epoch, level in enumerate(levels):
        for at in range(rows):
            row = metrics(step=len(logged) + 1, loss=level - slope * at / rows)
            logged.append(row | {"epoch": epoch + (at + 1) / rows})
    return logged


@pytest.mark.parametrize(
    ("logged", "severity"),
    [
        (stairs(1.6, 1.0, 0.6), "warning"),
        (stairs(1.6, 0.6), None),  # two epochs
        (stairs(1.6, 1.0, 0.81), None),  # more than half of the first
        (stairs(1.6, 1.0, 0.79), "warning"),
        (stairs(1.6, 0.7, 0.645), None),  # the last step is less than 10 %
        (stairs(1.6, 0.7, 0.62), "warning"),
        (stairs(1.6, 1.0, 0.5, slope=0.12), "warning"),
        (stairs(1.6, 1.0, 0.5, slope=0.25), None),  # much of the fall is within the epochs
        (stairs(1.6, 1.0, 0.6, rows=7), "warning"),
        (stairs(1.6, 1.0, 0.6, rows=6), None),  # fewer than 20 rows in all
        (stairs(1.6, 1.2, 0.9, 0.7, 0.5, rows=4), "warning"),
        (stairs(1.6, 1.3, 1.1, 0.9, 0.8, 0.7, 0.6, rows=3), None),  # too few rows an epoch
    ],
)
def test_what_counts_as_stairs(logged: list[Any], severity: str | None) -> None:
    assert named(logged, "overfitting") == severity


def test_the_step_of_stairs_is_the_first_of_the_second_epoch() -> None:
    found = found_in(stairs(1.6, 1.0, 0.6))
    assert found is not None and found.step == 11 and found.evidence.endswith("1.6, 1, 0.6")
