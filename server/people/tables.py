"""Jobs and runs as tables for a terminal. What jobs wrote is shown without its control characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mlintern.common.durations import format_duration
from mlintern.common.text import cut_line, format_usd, printable
from mlintern.tools.jobs.job_results import JobRow, JobStatus, Progress
from mlintern.tools.jobs.job_views import measured
from mlintern.tools.runs.run_results import RunRow

STATE_STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "cancelled": "dim",
}
METRICS_SHOWN = ("loss", "eval_loss", "reward", "kl", "accuracy", "learning_rate")
"""Metrics in the order in which people look at them; a few others follow."""
MOST_METRICS = 5
LOG_LINES = 12


def jobs(items: Sequence[JobRow]) -> Table:
    table = _table("job", "state", "for", "where", "run", "what", right=("cost",))
    for item in items:
        what = progress_text(item.progress) or item.error or item.detail
        table.add_row(
            item.job_id,
            state(item.state),
            format_duration(item.seconds_in_state, rounded=True),
            f"{item.backend} {item.hardware}",
            _words("/".join(part for part in (item.experiment, item.run_name) if part), 40),
            _words(what or "", 60),
            format_usd(item.usd_so_far),
        )
    return table


def runs(items: Sequence[RunRow]) -> Table:
    table = _table("run", "state", "recipe", "score", "verdict", "started", right=("cost",))
    for item in items:
        table.add_row(
            _words(item.run_id, 32),
            state(item.state),
            _words(item.recipe, 60),
            measured([item.best.model_dump()]) if item.best else "",
            _words(item.verdict.replace("_", " "), 32),
            item.started.replace("T", " ")[:16],
            format_usd(item.usd),
        )
    return table


def job(status: JobStatus) -> RenderableType:
    """Everything about one job that a person wants on one screen."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for name, value in _facts(status).items():
        facts.add_row(name, value)
    parts: list[RenderableType] = [facts]
    if status.progress and status.progress.total:
        parts.append(ProgressBar(total=status.progress.total, completed=status.progress.step, width=60))
    for finding in status.findings:
        style = "red" if finding.severity == "error" else "yellow"
        parts.append(Text(printable(f"{finding.kind}: {finding.evidence} {finding.advice}"), style=style))
    if status.log_tail:
        lines = printable(status.log_tail, keep="\n\t").split("\n")[-LOG_LINES:]
        parts.append(Text("\n".join(lines), style="dim"))
    return Group(*parts)


def _facts(status: JobStatus) -> dict[str, RenderableType]:
    head = state(status.state)
    head.append(f" for {format_duration(status.seconds_in_state, rounded=True)}", style="default")
    facts: dict[str, RenderableType] = {"job": Text(status.job_id, style="bold"), "state": head}
    texts = {
        "why": status.error or status.detail,
        "where": f"{status.backend} {status.hardware}",
        "experiment": status.experiment or "",
        "run": status.run_name or "",
        "progress": progress_text(status.progress),
        "metrics": metrics_text(status.metrics),
        "measured": measured(status.evaluations),
        "cost": format_usd(status.usd_so_far),
        "page": status.url or "",
        **{f"its {name}": _paths(value) for name, value in status.artifacts.items()},
    }
    return facts | {name: Text(printable(text, keep="\n")) for name, text in texts.items() if text}


def _paths(value: Any) -> str:
    return "\n".join(str(each) for each in value) if isinstance(value, list) else str(value)


def metrics_line(status: JobStatus) -> str:
    """``running · step 40 of 100, 3 min left · loss 1.23``: empty while nothing is known but the state."""
    parts = [progress_text(status.progress), metrics_text(status.metrics)]
    parts += [finding.kind for finding in status.findings]
    return printable(" · ".join(part for part in parts if part))


def progress_text(progress: Progress | None) -> str:
    if progress is None:
        return ""
    of = f" of {progress.total}" if progress.total else ""
    left = f", {format_duration(progress.eta_seconds, rounded=True)} left" if progress.eta_seconds else ""
    return f"step {progress.step}{of}{left}"


def metrics_text(metrics: Mapping[str, float | str]) -> str:
    first = [name for name in METRICS_SHOWN if name in metrics]
    others = [name for name in sorted(metrics) if name not in first]
    shown = [*first, *others][:MOST_METRICS]
    return "  ".join(f"{name} {_value(metrics[name])}" for name in shown)


def _value(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else cut_line(value, 30)


def state(name: str) -> Text:
    return Text(name, style=STATE_STYLES.get(name, "default"))


def _words(text: str, width: int) -> Text:
    return Text(cut_line(printable(text), width))


def _table(*left: str, right: Sequence[str]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table
