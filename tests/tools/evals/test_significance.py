"""The tests of significance against brute force, published values, simulation, and the laws they must obey."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.tools.evals.significance import (
    agresti_coull_stderr,
    holm,
    mcnemar,
    newcombe,
    paired,
    student_t_p,
    student_t_quantile,
    unpaired,
    wilson,
)

counts = st.integers(min_value=0, max_value=60)
binary_pairs = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=2, max_size=80)
scores = st.floats(min_value=-100, max_value=100, allow_nan=False).map(lambda value: round(value, 3))
real_pairs = st.lists(st.tuples(scores, scores), min_size=2, max_size=40)


def brute_force_mcnemar(only_baseline: int, only_candidate: int) -> float:
    """Share of all coin sequences that are at least as lopsided as the one seen."""
    flips = only_baseline + only_candidate
    seen = abs(only_baseline - only_candidate)
    extreme = sum(abs(flips - 2 * sum(sequence)) >= seen for sequence in itertools.product((0, 1), repeat=flips))
    return extreme / 2**flips


@pytest.mark.parametrize(("b", "c"), [(b, c) for b in range(7) for c in range(7)])
def test_mcnemar_agrees_with_counting_every_outcome(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(brute_force_mcnemar(b, c), abs=1e-12)


def test_mcnemar_holds_for_counts_whose_binomials_no_float_can_hold() -> None:
    assert mcnemar(50_000, 50_000) == pytest.approx(1.0)
    assert mcnemar(49_500, 50_500) == pytest.approx(math.erfc(1000 / math.sqrt(100_000) / math.sqrt(2)), rel=0.02)
    assert 0 <= mcnemar(0, 5_000) < 1e-300


def test_wilson_agrees_with_the_value_that_newcombe_published() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263 and 0 of 20, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_paired_interval_agrees_with_the_value_that_newcombe_published() -> None:
    """Newcombe 1998, Statistics in Medicine 17:2635: (36, 12, 2, 0), method 10, in both directions."""
    assert newcombe(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert newcombe(36, 12, 2, 0) == pytest.approx((-0.3404, -0.0569), abs=5e-5)


@pytest.mark.parametrize("cells", [(30, 5, 9, 16), (5, 20, 25, 3), (0, 7, 4, 0), (40, 0, 0, 10), (3, 1, 1, 2)])
def test_the_paired_interval_agrees_with_its_formula_worked_out_by_scipy(cells: tuple[int, int, int, int]) -> None:
    """Both signs of the correlation: only a positive one is corrected, by n / 2, and not below 0."""
    stats = pytest.importorskip("scipy.stats")
    both, lost, gained, neither = cells
    n = sum(cells)
    right_b, right_c = both + lost, both + gained
    low_b, high_b = stats.binomtest(right_b, n).proportion_ci(method="wilson")
    low_c, high_c = stats.binomtest(right_c, n).proportion_ci(method="wilson")
    product = both * neither - lost * gained
    corrected = max(product - n / 2, 0) if product > 0 else product
    margins = right_b * (n - right_b) * right_c * (n - right_c)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    p_b, p_c = right_b / n, right_c / n
    down = math.sqrt((p_c - low_c) ** 2 - 2 * phi * (p_c - low_c) * (high_b - p_b) + (high_b - p_b) ** 2)
    up = math.sqrt((high_c - p_c) ** 2 - 2 * phi * (high_c - p_c) * (p_b - low_b) + (p_b - low_b) ** 2)
    assert newcombe(*cells) == pytest.approx((p_c - p_b - down, p_c - p_b + up), abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 12, 200])
def test_the_paired_t_test_agrees_with_scipy(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    source = random.Random(n)
    before, after = ([source.gauss(0, 1) for _ in range(n)] for _ in range(2))
    expected = stats.ttest_rel(after, before)
    found, interval = paired(before, after), expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-11)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_mcnemar_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for lost, gained in ((3, 11), (40, 61), (0, 6), (500, 430)):
        assert mcnemar(lost, gained) == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, abs=1e-11)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [
        (12.706205, 1, 0.05),
        (2.570582, 5, 0.05),
        (2.042272, 30, 0.05),
        (3.169273, 10, 0.01),
        (1.960201, 10**4, 0.05),
        (1.959966, 10**6, 0.05),
    ],
)
def test_student_t_agrees_with_the_printed_tables(t: float, freedom: int, p: float) -> None:
    assert student_t_p(t, freedom) == pytest.approx(p, rel=1e-4)
    assert student_t_p(-t, freedom) == student_t_p(t, freedom)


@pytest.mark.parametrize("freedom", [1, 2, 7, 29, 999])
def test_the_t_quantile_leaves_five_percent_outside(freedom: int) -> None:
    assert student_t_p(student_t_quantile(freedom), freedom) == pytest.approx(0.05, abs=1e-9)


@given(pairs=binary_pairs | real_pairs)
def test_swapping_the_sides_negates_the_difference_and_nothing_else(pairs: list[tuple[float, float]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired(before, after), paired(after, before)
    assert there.delta == pytest.approx(-back.delta, abs=1e-9)
    assert there.ci_low == pytest.approx(-back.ci_high, abs=1e-6)
    assert there.p_value == pytest.approx(back.p_value, abs=1e-9)


@given(pairs=binary_pairs | real_pairs)
def test_p_is_a_probability_and_the_interval_holds_the_difference(pairs: list[tuple[float, float]]) -> None:
    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    assert 0 <= found.p_value <= 1
    assert found.ci_low - 1e-9 <= found.delta <= found.ci_high + 1e-9


@given(pairs=binary_pairs)
def test_the_interval_of_two_shares_stays_within_what_shares_can_differ(pairs: list[tuple[float, float]]) -> None:
    found = paired([a for a, _ in pairs], [b for _, b in pairs])
    assert -1 - 1e-9 <= found.ci_low < found.ci_high <= 1 + 1e-9


@given(pairs=real_pairs | binary_pairs, seed=st.integers())
def test_the_order_of_the_items_does_not_matter(pairs: list[tuple[float, float]], seed: int) -> None:
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    one, other = (paired([a for a, _ in p], [b for _, b in p]) for p in (pairs, shuffled))
    assert one.delta == pytest.approx(other.delta, abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-9)


def test_a_set_on_which_nothing_differs_still_leaves_room_for_doubt() -> None:
    found = paired([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert (found.delta, found.p_value) == (0.0, 1.0)
    assert found.ci_low < 0 < found.ci_high


def test_a_constant_gain_on_few_items_is_judged_by_its_signs() -> None:
    assert paired([0.1, 0.2, 0.3], [0.6, 0.7, 0.8]).p_value == pytest.approx(0.25)


@pytest.mark.parametrize(("one", "other"), [([1.0], [0.0]), ([], []), ([1.0, 0.0], [1.0])])
def test_too_few_or_unequal_items_cannot_be_paired(one: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError):
        paired(one, other)


@given(p_values=st.lists(st.floats(min_value=0, max_value=1), max_size=20))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in ranked] == sorted(q for _, q in ranked)


def test_holm_agrees_with_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(a=st.floats(0, 1), b=st.floats(0, 1), s=st.floats(0.001, 0.5), t=st.floats(0, 0.5))
def test_the_unpaired_test_agrees_with_its_interval(a: float, b: float, s: float, t: float) -> None:
    found = unpaired(a, s, b, t)
    excludes_zero = found.ci_low > 1e-12 or found.ci_high < -1e-12
    if abs(found.p_value - 0.05) > 1e-9:
        assert excludes_zero == (found.p_value < 0.05)


def test_without_any_standard_error_there_is_no_test() -> None:
    with pytest.raises(ValueError):
        unpaired(0.1, 0.0, 0.2, 0.0)


def test_no_success_among_many_is_not_certainty() -> None:
    assert agresti_coull_stderr(0.0, 100) == pytest.approx(0.0135, abs=1e-4)
    assert agresti_coull_stderr(0.0, 100) == pytest.approx(agresti_coull_stderr(1.0, 100))


@pytest.mark.parametrize(
    ("p_both", "p_lost", "p_gained", "n"), [(0.3, 0.1, 0.2, 100), (0.05, 0.0, 0.1, 40), (0.8, 0.05, 0.05, 60)]
)
def test_the_paired_interval_covers_the_true_difference_as_often_as_it_says(
    p_both: float, p_lost: float, p_gained: float, n: int
) -> None:
    """Nominal 95 %; over 2,000 draws the estimate of the coverage itself has a standard error of 0.5 points."""
    source = random.Random(20261123)
    cells = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    weights = [p_both, p_lost, p_gained, 1 - p_both - p_lost - p_gained]
    covered = 0
    for _ in range(2000):
        drawn = source.choices(cells, weights, k=n)
        low, high = newcombe(*(drawn.count(cell) for cell in cells))
        covered += low <= p_gained - p_lost <= high
    assert 0.93 <= covered / 2000 <= 0.995


def test_the_exact_test_raises_false_alarms_no_more_often_than_it_says() -> None:
    source = random.Random(1)
    alarms = 0
    for _ in range(1000):
        pairs = [(float(source.random() < 0.5), float(source.random() < 0.5)) for _ in range(80)]
        alarms += paired([a for a, _ in pairs], [b for _, b in pairs]).p_value < 0.05
    assert alarms / 1000 <= 0.065
