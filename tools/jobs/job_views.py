"""What the ledger and the watcher know about a job, put into the results that callers see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlintern.common.clock import iso
from mlintern.tools.jobs import money
from mlintern.tools.jobs.job_results import JobRow, JobStatus, ScheduledRun
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.jobs.seen import Seen
from mlintern.tools.jobs.watch import Live

RUNS_SHOWN = 5
MEASURES_SHOWN = 8
_SUMMARY_FIELDS = ("progress", "metrics", "findings", "log_tail", "evaluations", "resources", "artifacts", "url")


def row(record: JobRecord, live: Live | None, *, usd: float, now: float) -> JobRow:
    """A job in a list; ``live`` is what is known of one that is not over."""
    common = _common(record, now=now)
    common["usd_so_far"] = usd
    if live is not None:
        common["usd_so_far"] = max(usd, money.price(record.spec.usd_per_hour, live.paid_seconds or 0.0))
        common |= {"detail": live.detail, "progress": live.telemetry.progress}
    return JobRow(script_id=record.spec.script_id, created=iso(record.created_at), **common)


def finished(record: JobRecord, *, now: float) -> JobStatus:
    """A job that is over, from what was collected at its end; its folder may be gone."""
    summary: Mapping[str, Any] = record.summary or {}
    collected = {name: summary[name] for name in _SUMMARY_FIELDS if summary.get(name) is not None}
    well = record.state == "succeeded"
    return JobStatus.model_validate(
        {
            **_common(record, now=now),
            **collected,
            "log_tail": "" if well else summary.get("log_tail", ""),
            "detail": " ".join(summary.get("problems", ())),
            "next_step": _after_success(record.job_id, collected)
            if well
            else "read_job_logs shows what happened; after a change, submit again with another run_name.",
        }
    )


def unfinished(record: JobRecord, live: Live, *, now: float, log_tail: str) -> JobStatus:
    """A job that is queued or runs, with what its telemetry says now."""
    spent = max(record.usd, money.price(record.spec.usd_per_hour, live.paid_seconds or 0.0))
    return JobStatus.model_validate(
        {
            **_common(record, now=now),
            "usd_so_far": spent,
            "detail": live.detail,
            "url": live.url,
            "progress": live.telemetry.progress,
            "metrics": live.telemetry.metrics,
            "findings": live.findings,
            "log_tail": log_tail,
            "next_step": "Call poll_job with wait_seconds=45 to wait for something new.",
        }
    )


def schedule(record: JobRecord, runs: Sequence[JobRecord], *, detail: str, usd: float, now: float) -> JobStatus:
    """A schedule with its latest ``runs``; ``usd`` is what all of them have cost."""
    shown = [
        ScheduledRun(job_id=run.job_id, state=run.state, started=iso(run.created_at)) for run in runs[:RUNS_SHOWN]
    ]
    step = "poll_job follows each run; list_jobs lists them all."
    if not record.over:
        step += " cancel_job ends the schedule and what it has started."
    return JobStatus.model_validate(
        {
            **_common(record, now=now),
            "usd_so_far": usd,
            "detail": detail or " ".join((record.summary or {}).get("problems", ())),
            "scheduled_runs": shown,
            "next_step": step,
        }
    )


def only_new(status: JobStatus, before: Seen) -> JobStatus:
    """``status`` without the findings, runs and log lines that were told ``before``."""
    told = Seen.parse(status.next_since).log_bytes
    return status.model_copy(
        update={
            "findings": [each for each in status.findings if not before.has(each.news)],
            "scheduled_runs": [each for each in status.scheduled_runs if not before.has(each.job_id)],
            "log_tail": _after(status.log_tail, new_bytes=told - before.log_bytes),
        }
    )


def _after(log_tail: str, *, new_bytes: int) -> str:
    """The lines of ``log_tail`` that can hold anything of the last ``new_bytes`` of the log."""
    if new_bytes <= 0:
        return ""
    kept = log_tail.encode()[-new_bytes:].decode(errors="ignore")
    return log_tail if len(kept) == len(log_tail) else kept.partition("\n")[2] or kept


def measured(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of an evaluation in words: ``gsm8k accuracy 0.61 ± 0.03 (200 items)``; several tasks one after another."""
    phrases = []
    for row in rows[:MEASURES_SHOWN]:
        if not isinstance(value := row.get("value"), int | float):
            continue
        error, count = row.get("stderr"), row.get("n")
        words = [str(row[name]) for name in ("task", "metric") if row.get(name)]
        words.append(f"{value:.4g}" + (f" ± {error:.2g}" if isinstance(error, int | float) else ""))
        words += [f"({count:,} items)"] if isinstance(count, int) else []
        phrases.append(" ".join(words))
    more = len(rows) - MEASURES_SHOWN
    return "; ".join(phrases) + (f"; and {more} more" if more > 0 else "")


def note_after_submit(record: JobRecord, *, created: bool) -> str:
    if record.spec.schedule is not None and not record.over:
        there = "" if created else "This exact schedule was made before; nothing new was. "
        return f"{there}poll_job shows its runs as they start; cancel_job ends it."
    if record.over:
        return f"This exact job has run: {record.state}. Change run_name (or anything else) to run it again."
    if created:
        return "Call poll_job with wait_seconds=45 to follow it."
    return "This exact job was submitted before; nothing new was started. poll_job follows it."


def _after_success(job_id: str, collected: Mapping[str, Any]) -> str:
    steps = ["read_eval reads its evaluation"] if collected.get("evaluations") else []
    if not steps and (model := (collected.get("artifacts") or {}).get("model")):
        recipe = f'{{"trainer": "evaluation", "model": "{model if "://" in model else job_id}", "dataset": ...}}'
        steps = [f"Its model is not measured: render_script(recipe={recipe}) with the baseline's held-out items"]
    steps += ["diagnose_run judges its training curve"] if collected.get("metrics") else []
    return f"{'; '.join(steps) or 'read_job_logs shows what it printed'}."


def _common(record: JobRecord, *, now: float) -> dict[str, Any]:
    planned = record.spec.schedule
    return {
        "job_id": record.job_id,
        "state": record.state,
        "seconds_in_state": round(max(0.0, now - record.state_since), 1),
        "backend": record.spec.backend,
        "hardware": record.spec.hardware,
        "experiment": record.spec.experiment,
        "run_name": record.spec.run_name,
        "exit_code": record.exit_code,
        "error": record.error,
        "usd_so_far": record.usd,
        "schedule": f"{planned.cron}, at most {planned.runs} runs" if planned else None,
        "run_of": record.spec.run_of.schedule if record.spec.run_of else None,
    }
