"""Prices by day and prompt length, and a budget that is held before it is spent."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.orchestrator.budget import BudgetExhausted, ModelBudget, Reservation
from mlintern.orchestrator.model import CacheTtl, ModelRequest, Usage
from mlintern.orchestrator.prices import PRICES, UnknownPrice

DAY = dt.date(2026, 11, 23)
law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def request(
    *, model: str = "claude-sonnet-5-5", max_tokens: int = 1_000, cache_ttl: CacheTtl | None = "5m"
) -> ModelRequest:
    return ModelRequest(model=model, system=[], tools=[], messages=[], max_tokens=max_tokens, cache_ttl=cache_ttl)


def budget(limit: float | None) -> ModelBudget:
    return ModelBudget(limit, PRICES, day=lambda: DAY)


def test_each_class_of_tokens_has_its_own_rate() -> None:
    usage = Usage(
        input_tokens=10**6,
        cache_read_tokens=10**6,
        cache_write_5m_tokens=10**6,
        cache_write_1h_tokens=10**6,
        output_tokens=10**6,
    )
    assert PRICES.price("claude-sonnet-5-5", DAY).cost(usage) == pytest.approx(2 + 0.10 + 2.5 + 4 + 10)
    assert PRICES.price("claude-opus-5-5", DAY).cost(usage) == pytest.approx(4 + 0.20 + 5 + 8 + 20)


def test_a_price_holds_from_its_day_on() -> None:
    read = Usage(cache_read_tokens=10**6)
    assert PRICES.price("claude-sonnet-5-5", dt.date(2026, 10, 6)).cost(read) == pytest.approx(0.20)
    assert PRICES.price("claude-sonnet-5-5", dt.date(2026, 10, 7)).cost(read) == pytest.approx(0.10)


def test_a_long_prompt_makes_every_token_of_its_request_dearer() -> None:
    haiku = PRICES.price("claude-haiku-5-5", DAY)
    assert haiku.cost(Usage(input_tokens=100_000, output_tokens=1_000)) == pytest.approx(0.0105)
    assert haiku.cost(Usage(cache_read_tokens=100_000, input_tokens=1, output_tokens=1_000)) == pytest.approx(
        0.0075, rel=1e-3
    )


def test_a_dated_snapshot_costs_what_its_model_costs() -> None:
    assert PRICES.price("claude-haiku-4-5-20251001", DAY).rates.input == 1


def test_every_row_names_its_source_and_its_window() -> None:
    rows = list(PRICES)
    assert len(rows) > 10
    assert all(row.source and row.window and row.max_output for row in rows)


def test_an_unknown_price_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnknownPrice, match=r"--price-in.*"):
        budget(5).check("claude-fable-5-2")
    with pytest.raises(UnknownPrice, match="Did you mean 'claude-sonnet-5-5'"):
        budget(5).reserve(request(model="claude-sonet-5-5"), prompt_tokens=10)


def test_without_a_limit_an_unknown_price_is_no_obstacle() -> None:
    assert budget(None).check("my-model") is None
    assert budget(None).reserve(request(model="my-model"), prompt_tokens=10).settle(Usage(input_tokens=10)) == 0


def test_a_price_that_a_person_gives_counts_cached_tokens_in_full() -> None:
    table = PRICES.with_price("my-model", input=1.0, output=2.0)
    priced = ModelBudget(1.0, table, day=lambda: DAY)
    held = priced.reserve(request(model="my-model"), prompt_tokens=1_000)
    assert held.settle(Usage(cache_read_tokens=500_000, output_tokens=100_000)) == pytest.approx(0.7)


def test_the_worst_case_is_held_before_a_call_and_released_after_it() -> None:
    money = budget(1.0)
    held = money.reserve(request(max_tokens=10_000, cache_ttl="1h"), prompt_tokens=100_000)
    assert held.worst_usd == pytest.approx(110_000 * 4e-6 + 10_000 * 10e-6)  # all written to the dearest cache
    assert money.left_usd == pytest.approx(1.0 - held.worst_usd)
    assert held.settle(Usage(cache_read_tokens=100_000, output_tokens=500)) == pytest.approx(0.015)
    assert money.left_usd == pytest.approx(0.985)
    assert money.reserved_usd == 0


def test_a_call_that_could_pass_the_limit_is_not_made() -> None:
    money = budget(0.10)
    with pytest.raises(BudgetExhausted, match=r"could cost \$0\.2.*\$0\.10 is left"):
        money.reserve(request(max_tokens=20_000), prompt_tokens=1_000)
    assert money.reserved_usd == 0


def test_settling_twice_is_a_bug_and_shows_as_one() -> None:
    held = budget(1.0).reserve(request(), prompt_tokens=10)
    held.settle(Usage())
    with pytest.raises(RuntimeError, match="settled"):
        held.settle(Usage())


def test_the_model_is_told_once_when_four_fifths_are_spent() -> None:
    money = budget(1.0)
    money.reserve(request(), prompt_tokens=10).settle(Usage(output_tokens=79_000))
    assert money.warning() is None
    money.reserve(request(), prompt_tokens=10).settle(Usage(output_tokens=2_000))
    assert "$0.81 of $1.00" in str(money.warning())
    assert money.warning() is None


def test_a_resumed_run_goes_on_with_what_it_had_spent() -> None:
    money = ModelBudget(1.0, PRICES, spent_usd=0.95, day=lambda: DAY)
    with pytest.raises(BudgetExhausted):
        money.reserve(request(max_tokens=10_000), prompt_tokens=10)


def test_what_a_child_spends_is_spent_by_its_parent() -> None:
    parent = budget(1.0)
    child = parent.child(0.5)
    child.reserve(request(), prompt_tokens=10).settle(Usage(output_tokens=30_000))
    assert child.spent_usd == parent.spent_usd == pytest.approx(0.3)
    with pytest.raises(BudgetExhausted):
        child.reserve(request(max_tokens=30_000), prompt_tokens=10)
    parent.reserve(request(max_tokens=30_000), prompt_tokens=10)


def test_what_a_child_holds_is_held_by_its_parent() -> None:
    parent = budget(1.0)
    one, other = parent.child(0.7), parent.child(0.7)
    held = one.reserve(request(max_tokens=60_000), prompt_tokens=10)  # 0.60
    assert parent.reserved_usd == pytest.approx(held.worst_usd) and other.reserved_usd == 0
    with pytest.raises(BudgetExhausted, match=r"\$0.40 is left"):
        other.reserve(request(max_tokens=60_000), prompt_tokens=10)
    held.settle(Usage())
    assert parent.reserved_usd == one.reserved_usd == 0
    other.reserve(request(max_tokens=60_000), prompt_tokens=10)


def test_a_child_without_a_limit_of_its_own_has_its_parents() -> None:
    child = budget(0.01).child()
    with pytest.raises(BudgetExhausted, match="the run's budget"):
        child.reserve(request(max_tokens=30_000), prompt_tokens=10)
    with pytest.raises(UnknownPrice):
        child.check("my-model")


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        budget(0)


counts = st.integers(0, 400_000)
usages = st.builds(
    Usage,
    input_tokens=counts,
    cache_read_tokens=counts,
    cache_write_5m_tokens=counts,
    cache_write_1h_tokens=counts,
    output_tokens=counts,
)
models = st.sampled_from(sorted({row.model for row in PRICES}))


@law
@given(models, usages, usages)
def test_more_tokens_never_cost_less(model: str, usage: Usage, more: Usage) -> None:
    price = PRICES.price(model, DAY)
    assert 0 <= price.cost(usage) <= price.cost(usage + more) + 1e-12


@law
@given(models, st.integers(0, 300_000), st.integers(1, 60_000), st.sampled_from([None, "5m", "1h"]), st.data())
def test_no_outcome_of_a_call_costs_more_than_its_worst_case(
    model: str, prompt: int, max_tokens: int, ttl: CacheTtl | None, data: st.DataObject
) -> None:
    worst = PRICES.price(model, DAY).worst_cost(
        request(model=model, max_tokens=max_tokens, cache_ttl=ttl), prompt_tokens=prompt
    )
    read = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - read))
    usage = Usage(
        input_tokens=prompt - read - (written if ttl else 0),
        cache_read_tokens=read,
        cache_write_5m_tokens=written if ttl == "5m" else 0,
        cache_write_1h_tokens=written if ttl == "1h" else 0,
        output_tokens=data.draw(st.integers(0, max_tokens)),
    )
    assert PRICES.price(model, DAY).cost(usage) <= worst + 1e-9


steps = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 30_000), st.integers(1, 30_000), st.floats(0, 1)),
    max_size=60,
)


@law
@given(st.floats(0.05, 1.0), steps)
def test_a_parent_and_concurrent_children_can_never_jointly_pass_the_limit(
    limit: float, steps: list[tuple[int, bool, int, int, float]]
) -> None:
    parent = budget(limit)
    family = [parent, *(parent.child(share) for share in (None, limit, limit / 2))]
    under_way: list[tuple[Reservation, int, int]] = []
    before = 0.0
    for who, settles, prompt, max_tokens, used in steps:
        if settles and under_way:
            held, prompt_tokens, most = under_way.pop(who % len(under_way))
            held.settle(Usage(cache_write_5m_tokens=prompt_tokens, output_tokens=int(most * used)))
        else:
            try:
                held = family[who].reserve(request(max_tokens=max_tokens), prompt_tokens=prompt)
            except BudgetExhausted:
                continue
            under_way.append((held, prompt, max_tokens))
        assert before <= parent.spent_usd <= limit + 1e-6
        before = parent.spent_usd
        assert parent.reserved_usd == pytest.approx(sum(held.worst_usd for held, _, _ in under_way))
        assert parent.spent_usd + parent.reserved_usd <= limit + 1e-6
        assert all(each.reserved_usd >= 0 for each in family)
    assert family[3].spent_usd <= limit / 2 + 1e-6
