"""Laws that hold for every sequence of events: of states, and of money."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mlintern.tools.errors import Conflict, OutOfBudget
from mlintern.tools.jobs import job_rows, money
from mlintern.tools.jobs.spec import FINAL, STATES, JobSpec, JobState, RunOf, Schedule, may_follow
from mlintern.tools.ledger import Ledger

BUDGET = 10.0
states = st.sampled_from(STATES)


def specification(number: int, *, usd_per_hour: float, hours: float, experiment: str | None = None) -> JobSpec:
    return JobSpec(
        script_id="s",
        script_sha256="0" * 64,
        backend="distant",
        hardware="a10g",
        timeout_seconds=hours * 3600,
        run_name=str(number),
        experiment=experiment,
        usd_per_hour=usd_per_hour,
        usd_worst=money.price(usd_per_hour, hours * 3600),
    )


@given(before=states, after=states)
def test_a_final_state_is_followed_by_none_and_no_state_by_itself(before: JobState, after: JobState) -> None:
    if before in FINAL or before == after or after == "queued":
        assert not may_follow(before, after)
    else:
        assert may_follow(before, after)


def test_the_digest_names_every_part_of_the_specification_but_the_price() -> None:
    base = JobSpec("s", "0" * 64, "local", "cpu", 60.0, ("a",), (("A", "1"),), ("T",), "e", "r", 1.0, 2.0)
    changes: dict[str, object] = {
        "script_id": "t",
        "script_sha256": "1" * 64,
        "backend": "ray",
        "hardware": "gpu",
        "timeout_seconds": 61.0,
        "args": ("a", "b"),
        "env": (("A", "2"),),
        "secrets": (),
        "experiment": "f",
        "run_name": None,
        "schedule": Schedule("@daily", 3),
        "run_of": RunOf("job-1", "7"),
        "billed_to": "an-org",
    }
    changed = [replace(base, **{name: value}) for name, value in changes.items()]
    assert len({spec.digest for spec in [base, *changed]}) == len(changes) + 1
    assert JobSpec(**{**base.to_json(), "usd_per_hour": 9.0, "usd_worst": 9.0}).digest == base.digest
    for spec in [base, *changed]:
        assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_job_on_record_from_before_payers_were_known_keeps_its_id() -> None:
    base = JobSpec("s", "0" * 64, "hf_jobs", "cpu", 60.0)
    old = {name: value for name, value in base.to_json().items() if name != "billed_to"}
    assert JobSpec.from_json(old).digest == base.digest == "25f60476aa9d256bd9be93ebe9ff981f"


def test_an_unlawful_transition_is_refused(ledger: Ledger) -> None:
    spec = specification(1, usd_per_hour=0, hours=1)
    with ledger.transaction() as connection:
        connection.execute("INSERT INTO scripts (script_id, sha256, name, created_at) VALUES ('s', '0', 's', 0)")
        job_rows.insert(connection, spec, now=0)
        assert job_rows.advance(connection, spec.job_id, seen="queued", state="failed", now=1)
        with pytest.raises(Conflict):
            job_rows.advance(connection, spec.job_id, seen="failed", state="running", now=2)
        assert not job_rows.advance(connection, spec.job_id, seen="queued", state="running", now=2), "a stale view"
        assert job_rows.get(connection, spec.job_id).state == "failed"


@given(
    usd_per_hour=st.floats(min_value=0.01, max_value=50),
    seconds=st.integers(min_value=1, max_value=100_000),
    runs=st.integers(min_value=1, max_value=12),
    started=st.integers(min_value=0, max_value=15),
)
def test_runs_of_a_schedule_hold_together_what_was_reserved_for_it_however_many_start(
    usd_per_hour: float, seconds: int, runs: int, started: int
) -> None:
    spec = replace(
        specification(0, usd_per_hour=usd_per_hour, hours=seconds / 3600), schedule=Schedule("@daily", runs)
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        with ledger.transaction() as connection:
            connection.execute("INSERT INTO scripts (script_id, sha256, name, created_at) VALUES ('s', '0', 's', 0)")
            job_rows.insert(connection, spec, now=0)
            money.reserve(connection, spec, budget_usd=None, now=0)
            reserved = money.committed(connection)
            for number in range(started):
                run = replace(spec, schedule=None, run_of=RunOf(spec.job_id, str(number)))
                job_rows.insert(connection, run, now=0)
                money.hand_over(connection, run, schedule=spec.job_id, now=0)
                assert money.committed(connection) == pytest.approx(reserved, abs=1e-6)
            money.settle(connection, spec.job_id, seconds=0.0, now=1)
            held = min(started, runs) * money.price(usd_per_hour, seconds)
            assert money.committed(connection) == pytest.approx(held, abs=1e-5)
        ledger.close()


class Accounts(RuleBasedStateMachine):
    """Jobs that come, run and end in any order, under one budget, seen by two servers."""

    jobs = Bundle("jobs")

    @initialize()
    def open_ledger(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "ledger.db"
        self.servers = [Ledger(path), Ledger(path)]
        self.count = 0
        self.state: dict[str, str] = {}
        self.worst: dict[str, float] = {}
        self.charged: dict[str, float] = {}
        with self.servers[0].transaction() as connection:
            connection.execute("INSERT INTO scripts (script_id, sha256, name, created_at) VALUES ('s', '0', 's', 0)")

    @rule(target=jobs, usd=st.sampled_from([0.0, 0.4, 2.5, 40.0]), hours=st.floats(0.01, 5), server=st.integers(0, 1))
    def submit(self, usd: float, hours: float, server: int) -> str:
        self.count += 1
        spec = specification(self.count, usd_per_hour=usd, hours=hours)
        before = self._committed()
        try:
            with self.servers[server].transaction() as connection:
                job_rows.insert(connection, spec, now=0)
                money.reserve(connection, spec, budget_usd=BUDGET, now=0)
        except OutOfBudget:
            assert before + spec.usd_worst > BUDGET
            assert self._committed() == before, "a refused job leaves nothing behind"
            return ""
        assert before + spec.usd_worst <= BUDGET + 1e-5
        self.state[spec.job_id], self.worst[spec.job_id], self.charged[spec.job_id] = "queued", spec.usd_worst, 0.0
        return spec.job_id

    @rule(job=jobs, share=st.floats(-0.5, 1.0), server=st.integers(0, 1))
    def charge(self, job: str, share: float, server: int) -> None:
        if self.state.get(job) not in ("queued", "running"):
            return
        with self.servers[server].transaction() as connection:
            if self.state[job] == "queued":
                job_rows.advance(connection, job, seen="queued", state="running", now=1)
            seconds = job_rows.get(connection, job).spec.timeout_seconds * share
            charged = money.charge(connection, job, seconds=seconds, now=1)
        assert charged >= self.charged[job], "what was charged is never given back"
        self.state[job], self.charged[job] = "running", charged
        if self.worst[job] > 0 and charged < self.worst[job]:
            assert self._released(job) == 0, "nothing is released while it runs"

    @rule(job=jobs, state=st.sampled_from(sorted(FINAL)), share=st.none() | st.floats(0, 1), server=st.integers(0, 1))
    def end(self, job: str, state: JobState, share: float | None, server: int) -> None:
        if job not in self.state:
            return
        with self.servers[server].transaction() as connection:
            record = job_rows.get(connection, job)
            if record.over:
                before = money.charged(connection, job)
                assert money.settle(connection, job, seconds=1e9, now=3) == before, "a closed account stays closed"
                return
            job_rows.advance(connection, job, seen=record.state, state=state, now=2)
            seconds = None if share is None else record.spec.timeout_seconds * share
            charged = money.settle(connection, job, seconds=seconds, now=2)
        if share is None:
            assert charged == self.worst[job], "what nobody measured is not taken to be free"
        self.state[job], self.charged[job] = state, charged

    @invariant()
    def the_budget_holds_and_the_books_balance(self) -> None:
        if not hasattr(self, "servers"):
            return
        assert self._committed() <= BUDGET + 1e-5
        with self.servers[1].read() as connection:
            for job, state in self.state.items():
                row = connection.execute("SELECT * FROM money WHERE job_id = ?", (job,)).fetchone()
                assert row["usd_charged"] >= 0 and row["usd_reserved"] >= 0
                assert bool(row["settled"]) == (state in FINAL)
                sums = dict(
                    connection.execute(
                        "SELECT kind, SUM(usd) FROM money_entries WHERE job_id = ? GROUP BY kind", (job,)
                    ).fetchall()
                )
                assert sums.get("charge", 0) == pytest.approx(row["usd_charged"], abs=1e-4)
                if state in FINAL:
                    spent = sums.get("charge", 0) + sums.get("release", 0)
                    assert spent == pytest.approx(sums.get("reserve", 0), abs=1e-4)

    def _committed(self) -> float:
        with self.servers[0].read() as connection:
            return money.committed(connection)

    def _released(self, job: str) -> float:
        with self.servers[0].read() as connection:
            rows = connection.execute(
                "SELECT COALESCE(SUM(usd), 0) FROM money_entries WHERE job_id = ? AND kind = 'release'", (job,)
            )
            return float(rows.fetchone()[0])

    def teardown(self) -> None:
        if hasattr(self, "servers"):
            for server in self.servers:
                server.close()
            self.folder.cleanup()


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
