from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput
from mlintern.tools.evals.compare import Samples, compare_rows
from mlintern.tools.evals.comparison_results import ComparedRow, Verdict
from mlintern.tools.evals.result_rows import EvalRow
from tests.tools.evals.results import row

SWAPPED: dict[Verdict, Verdict] = {
    "improved": "regressed",
    "regressed": "improved",
    "no_evidence": "no_evidence",
    "not_comparable": "not_comparable",
}


def without_samples(_: EvalRow) -> dict[str, float] | None:
    return None


def from_sides(**sides: Sequence[float]) -> Samples:
    """Samples by the model that a row belongs to."""

    def samples(row: EvalRow) -> dict[str, float] | None:
        scores = sides.get(row.model or "")
        return None if scores is None else {f"item-{i}": score for i, score in enumerate(scores)}

    return samples


def scored(model: str, scores: Sequence[float], **changes: Any) -> EvalRow:
    return row(model=model, value=sum(scores) / len(scores), n=len(scores), **changes)


def compare_one(a: EvalRow, b: EvalRow, samples: Samples = without_samples) -> ComparedRow:
    [result] = compare_rows([a], [b], samples=samples).rows
    return result


def test_a_large_gain_on_the_same_items_is_an_improvement() -> None:
    before, after = [0.0] * 900 + [1.0] * 100, [1.0] * 880 + [0.0] * 120
    result = compare_one(scored("a", before), scored("b", after), from_sides(a=before, b=after))
    assert result.verdict == "improved"
    assert result.delta == pytest.approx(0.78)
    assert result.ci_low is not None and result.ci_low > 0.7
    assert result.p_value is not None and result.p_value < 1e-100
    assert result.method.startswith("paired, exact McNemar test (880 items gained, 100 lost)")


def test_a_difference_within_noise_is_no_evidence() -> None:
    source = random.Random(0)
    before, after = ([float(source.random() < 0.5) for _ in range(200)] for _ in range(2))
    result = compare_one(scored("a", before), scored("b", after), from_sides(a=before, b=after))
    assert result.verdict == "no_evidence"
    assert result.p_value is not None and result.p_value > 0.05


def test_pairing_finds_what_two_separate_standard_errors_miss() -> None:
    before = [1.0] * 500 + [0.0] * 500
    after = [1.0] * 530 + [0.0] * 470
    a, b = scored("a", before, stderr=0.0158), scored("b", after, stderr=0.0158)
    assert compare_one(a, b).verdict == "no_evidence"
    assert compare_one(a, b, from_sides(a=before, b=after)).verdict == "improved"


def test_scores_that_are_not_right_or_wrong_are_compared_by_their_mean() -> None:
    source = random.Random(0)
    before = [source.random() for _ in range(200)]
    after = [score + 0.1 + 0.05 * source.gauss(0, 1) for score in before]
    result = compare_one(scored("a", before), scored("b", after), from_sides(a=before, b=after))
    assert result.verdict == "improved"
    assert result.method.startswith("paired t-test")


def test_without_samples_the_standard_errors_decide() -> None:
    result = compare_one(row(value=0.10, stderr=0.01), row(value=0.32, stderr=0.02))
    assert result.verdict == "improved"
    assert result.method.startswith("unpaired z-test")
    assert result.p_value == pytest.approx(7.6e-23, rel=0.1)
    assert result.reason.endswith("It is not paired. Neither side kept scores of single items.")


def test_why_a_side_has_no_samples_is_said_where_it_is_known() -> None:
    scores = [1.0] * 50 + [0.0] * 50
    a, b = scored("a", scores), scored("b", scores, samples_missing="the log was cut")
    result = compare_one(a, b, from_sides(a=scores))
    why = "Only the baseline kept scores of single items (candidate: the log was cut)."
    assert result.method.startswith("unpaired") and result.notes == [why]
    assert result.reason.endswith(f"It is not paired. {why}")


def test_the_claim_of_32_against_26_percent_on_gpqa_is_a_close_call() -> None:
    """n = 448 items: 32.0 % after training against 25.96 % of the few-shot base, z = 2.0."""
    result = compare_one(row(value=0.2596, stderr=0.0207, n=448), row(value=0.32, stderr=0.022, n=448))
    assert result.verdict == "improved"
    assert result.p_value == pytest.approx(0.0455, abs=0.002)


def test_where_less_is_better_a_fall_is_an_improvement() -> None:
    before, after = row(metric="ppl", value=28.0, stderr=1.0), row(metric="ppl", value=20.0, stderr=1.0)
    assert compare_one(before, after).verdict == "regressed"
    lower = {"higher_is_better": False}
    assert compare_one(before.model_copy(update=lower), after.model_copy(update=lower)).verdict == "improved"


def test_a_metric_of_unknown_direction_gets_no_praise() -> None:
    unknown = {"higher_is_better": None, "metric": "mean"}
    result = compare_one(row(value=0.1, stderr=0.01, **unknown), row(value=0.9, stderr=0.01, **unknown))
    assert result.verdict == "not_comparable"
    assert "unknown" in result.reason
    assert result.delta == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "2"}, "different task version (1, 2)"),
        ({"fewshot": 0}, "different number of few-shot examples (5, 0)"),
        ({"n": 50}, "different number of items (100, 50)"),
        ({"items": "other"}, "different items"),
        ({"filter": "flexible-extract"}, "different filter (strict-match, flexible-extract)"),
        ({"suite": "inspect"}, "different harness (mlintern, inspect)"),
        ({"task_raw": "maxnum_cot"}, "different task (maxnum, maxnum_cot)"),
    ],
)
def test_results_that_measure_different_things_are_not_compared(change: dict[str, Any], reason: str) -> None:
    stated = {"version": "1", "fewshot": 5, "items": "these", "filter": "strict-match"}
    result = compare_one(row(**stated), row(value=0.9, **(stated | change)))
    assert result.verdict == "not_comparable"
    assert reason in result.reason
    assert (result.delta, result.p_value) == (None, None)


def test_samples_of_other_items_are_not_compared() -> None:
    def samples(row: EvalRow) -> dict[str, float]:
        names = "abcd" if row.model == "a" else "cdef"
        return {name: 0.5 for name in names}

    result = compare_one(row(model="a", n=4), row(model="b", n=4), samples)
    assert result.verdict == "not_comparable"
    assert "2 only in the baseline, 2 only in the candidate, 2 in both" in result.reason


def test_samples_that_do_not_average_to_the_reported_value_are_not_trusted() -> None:
    result = compare_one(row(model="a"), row(model="b", value=0.9), from_sides(a=[0.0] * 100, b=[1.0] * 100))
    assert result.method.startswith("unpaired")
    assert any("not the reported value" in note for note in result.notes)


def test_values_without_any_error_are_not_judged() -> None:
    bare = {"stderr": None, "n": None}
    result = compare_one(row(value=0.1, **bare), row(value=0.9, **bare))
    assert result.verdict == "not_comparable"
    assert "no usable standard error" in result.reason


def test_a_score_of_zero_is_not_known_without_error() -> None:
    result = compare_one(row(value=0.0, stderr=0.0), row(value=0.02, stderr=0.014))
    assert result.verdict == "no_evidence"
    assert any("Agresti-Coull" in note for note in result.notes)


def test_looking_at_many_tasks_raises_the_bar_for_each() -> None:
    names = [f"task-{i}" for i in range(20)]
    before = [row(task=name, task_raw=name) for name in names]
    after = [row(task=name, task_raw=name) for name in names]
    after[0] = after[0].model_copy(update={"value": 0.66})  # z = 2.26, p = 0.024 by itself
    result = compare_rows(before, after, samples=without_samples).rows[0]
    assert result.p_value is not None and result.p_value < 0.05
    assert result.p_adjusted is not None and result.p_adjusted > 0.05
    assert result.verdict == "no_evidence"
    assert "Holm over 20" in result.method


def test_what_only_one_side_has_is_named() -> None:
    comparison = compare_rows([row(), row(metric="f1")], [row(), row(metric="em")], samples=without_samples)
    assert comparison.unmatched == ["baseline only: maxnum / f1", "candidate only: maxnum / em"]
    assert len(comparison.rows) == 1


def test_two_sources_with_nothing_in_common_say_so() -> None:
    comparison = compare_rows([row()], [row(task="gsm8k", task_raw="gsm8k")], samples=without_samples)
    assert comparison.rows == []
    assert "Nothing to compare" in comparison.summary


def test_a_side_with_two_models_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        compare_rows([row(model="x"), row(model="y")], [row()], samples=without_samples)
    assert "x, y" in caught.value.message


def test_of_a_repeated_evaluation_the_latest_counts_and_that_is_said() -> None:
    older, newer = row(value=0.2, date="2026-11-01"), row(value=0.9, date="2026-11-02")
    comparison = compare_rows([newer, older], [row()], samples=without_samples)
    assert comparison.rows[0].baseline == 0.9
    assert "the latest is used" in comparison.notes[0]


def test_settings_that_differ_are_told() -> None:
    result = compare_one(row(notes=("limit=100",)), row(notes=()))
    assert result.notes == ["Settings differ (baseline: limit=100)."]


@given(
    pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=120),
    higher=st.booleans() | st.none(),
)
def test_swapping_baseline_and_candidate_swaps_the_verdict(
    pairs: list[tuple[bool, bool]], higher: bool | None
) -> None:
    before, after = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    a, b = scored("a", before, higher_is_better=higher), scored("b", after, higher_is_better=higher)
    samples = from_sides(a=before, b=after)
    there, back = compare_one(a, b, samples), compare_one(b, a, samples)
    assert back.verdict == SWAPPED[there.verdict]
    assert there.delta is not None and back.delta is not None
    assert there.delta == pytest.approx(-back.delta)
