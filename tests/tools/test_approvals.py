from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.common.consent import ALLOWABLE_KINDS, Action, Rule, meaning
from mlintern.tools.allowances import Allowances
from mlintern.tools.approvals import LIFETIME_SECONDS, Approvals
from mlintern.tools.errors import BadInput, Conflict, NotFound, OutOfBudget
from mlintern.tools.ledger import Ledger
from tests.clock import FakeClock

PAID = Action(
    kind="submit_job",
    what="Start script",
    name="train.py",
    where="hf_jobs",
    hardware="a100-large",
    usd_worst=4.0,
    seconds=3600,
    digest="aaaaaaaaaaaa",
    details=(("Script", "train.py, sha256 12ab"),),
)
FREE = replace(PAID, where="local", hardware="cpu", usd_worst=0.0, seconds=1800, digest="bbbbbbbbbbbb")


def approvals(ledger: Ledger, clock: FakeClock, *allow: str, budget: float | None = None) -> Approvals:
    return Approvals(ledger=ledger, clock=clock, allowances=Allowances.parse(allow=allow, budget_usd=budget))


def start_job(ledger: Ledger, action: Action, *, charged: float = 0.0, settled: bool = False) -> None:
    """What a job service writes when it starts ``action``."""
    with ledger.transaction() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO scripts (script_id, sha256, name, created_at) VALUES ('s', 's', 'train', 0)"
        )
        connection.execute(
            "INSERT INTO jobs (job_id, digest, script_id, backend, hardware, timeout_seconds, spec, state,"
            " state_since, created_at) VALUES (?, ?, 's', ?, ?, 3600, '{}', 'running', 0, 0)",
            (f"job-{action.digest}", action.digest, action.where, action.hardware),
        )
        connection.execute(
            "INSERT INTO money (job_id, usd_per_hour, usd_reserved, usd_charged, settled) VALUES (?, 1, ?, ?, ?)",
            (f"job-{action.digest}", action.usd_worst, charged, int(settled)),
        )


def test_nothing_is_allowed_in_advance_by_default(ledger: Ledger, clock: FakeClock) -> None:
    assert not approvals(ledger, clock).standing(FREE)
    assert not approvals(ledger, clock).standing(PAID)


def test_a_time_limit_lets_each_free_job_up_to_it_start(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "local<=30m")
    assert service.standing(FREE)
    assert service.standing(replace(FREE, digest="cccccccccccc"))
    assert not service.standing(replace(FREE, digest="dddddddddddd", seconds=1836))


def test_a_time_limit_says_nothing_about_what_costs_money(ledger: Ledger, clock: FakeClock) -> None:
    assert not approvals(ledger, clock, "hf<=8h").standing(PAID)


def test_a_money_limit_holds_for_all_jobs_of_the_backend_together(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "hf<=5usd")
    assert service.standing(PAID)
    assert not service.standing(replace(PAID, digest="cccccccccccc"))
    assert service.standing(replace(PAID, digest="dddddddddddd", usd_worst=1.0))


def test_a_limit_for_one_backend_says_nothing_about_another(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "hf<=50usd", "local<=1h")
    assert not service.standing(replace(PAID, where="slurm"))


def test_every_rule_for_a_backend_must_hold(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "hf<=50usd", "hf<=30m")
    assert not service.standing(PAID)
    assert service.standing(replace(PAID, digest="cccccccccccc", seconds=1800))


def test_what_a_person_approved_in_the_dialog_does_not_use_up_an_allowance(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "hf<=5usd")
    expensive = replace(PAID, usd_worst=40.0)
    assert not service.standing(expensive)
    service.pending(expensive)
    service.approve(expensive.consent_digest, via="dialog")
    assert service.standing(replace(PAID, digest="cccccccccccc"))


def test_an_unknown_price_is_never_allowed_in_advance(ledger: Ledger, clock: FakeClock) -> None:
    assert not approvals(ledger, clock, "hf<=50usd").standing(replace(PAID, usd_worst=None))


def test_only_jobs_are_allowed_in_advance(ledger: Ledger, clock: FakeClock) -> None:
    assert not approvals(ledger, clock, "local<=8h", budget=100).standing(replace(FREE, kind="cancel_job"))


def test_a_budget_lets_paid_jobs_start_until_it_is_reserved(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, budget=10)
    assert service.standing(PAID)
    assert service.standing(replace(PAID, digest="cccccccccccc"))
    with pytest.raises(OutOfBudget, match=r"8\.00 of the workspace's budget of 10 USD"):
        service.standing(replace(PAID, digest="dddddddddddd"))


def test_a_budget_says_nothing_about_free_jobs(ledger: Ledger, clock: FakeClock) -> None:
    assert not approvals(ledger, clock, budget=10).standing(FREE)


def test_an_unknown_price_passes_any_budget(ledger: Ledger, clock: FakeClock) -> None:
    with pytest.raises(OutOfBudget, match="price unknown"):
        approvals(ledger, clock, budget=1000).standing(replace(PAID, usd_worst=None))


def test_nobody_can_approve_past_the_budget(ledger: Ledger, clock: FakeClock) -> None:
    approvals(ledger, clock).pending(PAID)
    with pytest.raises(OutOfBudget):
        approvals(ledger, clock, budget=3).approve(PAID.consent_digest, via="dialog")
    assert approvals(ledger, clock).list(state="pending")


def test_an_approval_given_where_the_budget_is_not_known_is_held_against_it_when_used(
    ledger: Ledger, clock: FakeClock
) -> None:
    approvals(ledger, clock).pending(PAID)
    approvals(ledger, clock).approve(PAID.consent_digest, via="command line")
    with pytest.raises(OutOfBudget):
        approvals(ledger, clock, budget=3).use(PAID)
    assert approvals(ledger, clock, budget=4).use(PAID).state == "used"


def test_an_approval_at_a_new_price_takes_the_place_of_the_old_one(ledger: Ledger, clock: FakeClock) -> None:
    desk = approvals(ledger, clock)
    for usd in (3.0, 5.0):
        action = replace(PAID, usd_worst=usd)
        desk.pending(action)
        desk.approve(action.consent_digest, via="command line")
    assert desk.spent_usd() == 5.0


def test_a_running_job_holds_its_worst_case_and_a_settled_one_what_it_cost(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, budget=5)
    assert service.standing(PAID)
    service.use(PAID)
    start_job(ledger, PAID, charged=1.0)
    assert service.spent_usd() == 4.0
    with ledger.transaction() as connection:
        connection.execute("UPDATE money SET settled = 1")
    assert service.spent_usd() == 1.0
    assert service.standing(replace(PAID, digest="cccccccccccc"))


def test_an_approval_that_nobody_used_releases_its_reservation_after_a_day(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, budget=5)
    assert service.standing(PAID)
    clock.advance(LIFETIME_SECONDS + 1)
    assert service.spent_usd() == 0.0


@pytest.mark.parametrize("allow, budget", [(("hf<=5usd",), None), ((), 5.0)])
def test_calls_at_once_cannot_jointly_pass_a_limit(
    tmp_path: Path, clock: FakeClock, allow: tuple[str, ...], budget: float | None
) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path)
    start = threading.Barrier(8)
    allowed: list[str] = []

    def call(digest: str) -> None:
        service = approvals(Ledger(path), clock, *allow, budget=budget)  # as another server process would
        start.wait()
        try:
            if service.standing(replace(PAID, digest=digest, usd_worst=1.5)):
                allowed.append(digest)
        except OutOfBudget:
            pass

    threads = [threading.Thread(target=call, args=(f"{n:012x}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == 3


def test_asking_twice_leaves_one_question(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    service.pending(PAID)
    assert [decision.digest for decision in service.list(state="pending")] == [PAID.consent_digest]


def test_an_approval_of_one_digest_is_none_of_another(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    other = replace(PAID, seconds=172800, digest="aaaaaaaaaaab")
    service.pending(PAID)
    service.pending(other)
    service.approve(PAID.consent_digest, note="go", via="command line")
    assert service.use(PAID).note == "go"
    with pytest.raises(Conflict):
        service.use(other)


def test_using_an_approval_again_is_the_same_use(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    service.approve(PAID.consent_digest, via="dialog")
    assert service.use(PAID) == service.use(PAID)


def test_a_yes_can_be_taken_back_until_it_is_used(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    service.approve(PAID.consent_digest, via="command line")
    service.deny(PAID.consent_digest, note="too dear", via="command line")
    with pytest.raises(Conflict):
        service.use(PAID)
    service.approve(PAID.consent_digest, via="command line")
    service.use(PAID)
    with pytest.raises(Conflict, match="has been started"):
        service.deny(PAID.consent_digest, via="command line")


def test_a_decision_expires_after_a_day_unless_it_was_acted_on(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    started = replace(PAID, digest="cccccccccccc")
    for action in (PAID, started):
        service.pending(action)
        service.approve(action.consent_digest, via="dialog")
    service.use(started)
    start_job(ledger, started)
    clock.advance(LIFETIME_SECONDS + 1)
    assert service.decision(PAID) is None
    used = service.decision(started)
    assert used is not None and used.state == "used"
    with pytest.raises(NotFound):
        service.approve(PAID.consent_digest, via="command line")


def test_a_no_from_a_person_outweighs_what_was_allowed_in_advance(ledger: Ledger, clock: FakeClock) -> None:
    approvals(ledger, clock).pending(FREE)
    approvals(ledger, clock).deny(FREE.consent_digest, via="command line")
    assert not approvals(ledger, clock, "local<=8h").standing(FREE)


def test_nothing_can_be_approved_that_was_not_asked(ledger: Ledger, clock: FakeClock) -> None:
    with pytest.raises(NotFound, match="mlintern-server approvals"):
        approvals(ledger, clock).approve("cccccccccccc", via="command line")


def test_a_digest_may_be_shortened_while_it_is_unique(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    service.pending(FREE)
    assert service.approve("bbbbbb", via="command line").action == FREE
    service.pending(replace(FREE, digest="bbbbbbbbbbba"))
    with pytest.raises(BadInput, match="Several"):
        service.approve("bbbbbb", via="command line")


@pytest.mark.parametrize("digest", ["", "aaa", "*", "aaaaa?", "aaaaaa' OR 1=1"])
def test_what_is_no_digest_is_refused(ledger: Ledger, clock: FakeClock, digest: str) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    with pytest.raises(BadInput):
        service.approve(digest, via="command line")


def test_the_question_comes_back_from_the_ledger_as_it_was_put(ledger: Ledger, clock: FakeClock) -> None:
    approvals(ledger, clock).pending(PAID)
    decision = approvals(ledger, clock).decision(PAID)
    assert decision is not None
    assert decision.action == PAID


def test_the_first_line_carries_cost_hardware_hours_and_digest() -> None:
    place = f"on hf_jobs a100-large, up to 1 h (digest {PAID.short_digest})"
    assert PAID.headline == f'at most 4.00 USD {place}: Start script "train.py"'
    assert FREE.headline == 'free of charge on local cpu, up to 30 min (digest bbbbbbbbbbbb): Start script "train.py"'


@pytest.mark.parametrize(
    "text", ["", "foo", "local<30m", "local<=", "local<=30", "local<=-1h", "local<=5eur", "<=5usd"]
)
def test_an_allowance_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--allow"):
        Allowances.parse(allow=(text,))


@pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_an_amount_of_money(budget: float) -> None:
    with pytest.raises(BadInput, match="--budget"):
        Allowances.parse(budget_usd=budget)


@given(limit=st.floats(0, 1000), first=st.floats(0.01, 1000), second=st.floats(0.01, 1000), seconds=st.floats(1, 1e6))
def test_what_is_covered_never_sums_past_the_limit(limit: float, first: float, second: float, seconds: float) -> None:
    allowances = Allowances(rules=(Rule(backend="hf_jobs", kind="usd", limit=limit, text=f"hf<={limit}usd"),))
    spent = 0.0
    for price in (first, second, first):
        action = replace(PAID, seconds=seconds, usd_worst=price)
        if allowances.covers(action, usd_spent=spent, usd_spent_under=lambda _, spent=spent: spent):
            spent += price
    assert spent <= limit + 1e-6


@pytest.mark.parametrize(("hours", "holds"), [(23.99, True), (24.01, False)])
def test_a_yes_holds_for_24_hours_from_when_it_was_given(
    ledger: Ledger, clock: FakeClock, hours: float, holds: bool
) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    clock.advance(20 * 3600)
    service.approve(PAID.consent_digest, via="command line")
    clock.advance(hours * 3600)
    assert (service.decision(PAID) is not None) is holds


def test_an_approval_that_was_used_and_is_no_job_yet_counts_as_spent(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock)
    service.pending(PAID)
    service.approve(PAID.consent_digest, via="dialog")
    service.use(PAID)
    assert service.spent_usd() == 4.0
    start_job(ledger, PAID)
    assert service.spent_usd() == 4.0, "once, not twice"


def test_a_job_that_cost_more_than_was_reserved_counts_what_it_cost(ledger: Ledger, clock: FakeClock) -> None:
    start_job(ledger, PAID, charged=7.0)
    assert approvals(ledger, clock).spent_usd() == 7.0
    start_job(ledger, replace(PAID, digest="cccccccccccc"), charged=1.0)
    assert approvals(ledger, clock).spent_usd() == 11.0, "a running one holds what it reserved"


def test_a_budget_of_nothing_lets_nothing_priced_start(ledger: Ledger, clock: FakeClock) -> None:
    service = approvals(ledger, clock, "hf<=5usd", "local<=30m", budget=0)
    with pytest.raises(OutOfBudget):
        service.standing(PAID)
    assert service.standing(FREE)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("local<=90s", "time", 90.0),
        ("local<=30m", "time", 1800.0),
        ("local<=30 min", "time", 1800.0),
        ("slurm<=2h", "time", 7200.0),
        ("slurm<=1d12h", "time", 129_600.0),
        ("hf<=5usd", "usd", 5.0),
        ("hf<=$2.50", "usd", 2.5),
        ("local", "free", 0.0),
    ],
)
def test_the_units_of_an_allowance(text: str, kind: str, limit: float) -> None:
    rule = Rule.parse(text)
    assert (rule.kind, rule.limit) == (kind, limit)


def test_an_action_of_an_earlier_version_of_the_ledger_is_still_read() -> None:
    old = (
        '{"kind": "submit_job", "what": "Run x", "where": "local", "digest": "dddddddddddd", "hours": 0.5, "gone": 1}'
    )
    assert Action.from_json(old).seconds == 1800.0


@pytest.mark.parametrize(
    ("spent", "worst", "within"),
    [(0.0, 2.0, True), (1.0, 1.0, True), (1.0, 1.01, False), (2.0, 0.0, True), (5.0, 0.0, True), (2.0, 0.5, False)],
)
def test_a_budget_is_kept_to_the_cent_and_what_is_free_never_passes_it(
    spent: float, worst: float, within: bool
) -> None:
    assert Allowances.parse(budget_usd=2.0).within_budget(usd_spent=spent, usd_worst=worst) is within


def test_without_a_budget_everything_is_within_and_with_one_nothing_of_unknown_price() -> None:
    assert Allowances.parse().within_budget(usd_spent=900.0, usd_worst=None)
    assert not Allowances.parse(budget_usd=2.0).within_budget(usd_spent=0.0, usd_worst=None)
    assert not Allowances.parse(budget_usd=0.0).within_budget(usd_spent=0.0, usd_worst=1.0)


@pytest.mark.parametrize("kind", sorted(ALLOWABLE_KINDS))
def test_whatever_may_be_allowed_says_in_words_what_it_grants(kind: str) -> None:
    [sentence] = meaning([Rule.parse(f"{kind}:local<=30m")])
    assert "on local start without asking you" in sentence and "30 min" in sentence
