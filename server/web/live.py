"""``mlintern-server open``: experiments, runs, jobs and questions on one page that keeps itself up to date.

The page is parts of HTML made here, everything of others escaped. Server-sent events bring the parts that changed;
the page's own small script puts them in place and runs nothing else. `door` says who gets in; questions are decided
as on the approval page.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from mlintern.common.commands import shown_command
from mlintern.common.durations import format_duration
from mlintern.common.text import cut_line, cut_middle, format_usd, printable
from mlintern.server.web.door import HEADERS
from mlintern.server.web.page import ApprovalPage
from mlintern.tools.errors import MlinternError

if TYPE_CHECKING:
    from mlintern.server.services import Lab
    from mlintern.tools.evals.result_rows import Sample, Which
    from mlintern.tools.health.findings import Finding
    from mlintern.tools.jobs.job_results import JobRow, JobStatus
    from mlintern.tools.runs.run_results import RunRow

EVERY_SECONDS = 2.0
MOST_JOBS = 30
MOST_RUNS = 60
MOST_SAMPLES = 8
SAMPLE_CHARS = 600
LOG_LINES = 40
PAGE_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self';"
    " img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


class LivePage(ApprovalPage):
    """The page of one workspace at one port."""

    def __init__(self, lab: Lab, *, port: int, every_seconds: float = EVERY_SECONDS) -> None:
        self._lab = lab
        self._every_seconds = every_seconds
        self._read_samples: dict[str, tuple[tuple[str, int], str]] = {}
        super().__init__(lab.approvals, port=port, workspace=str(lab.workspace.root), script_text=lab.script_text)

    def routes(self) -> list[Route]:
        return [
            *super().routes(),
            Route("/live.js", self._script, methods=["GET"]),
            Route("/events", self._events, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        return await self._page()

    async def _page(self, *, said: str = "", status: int = 200) -> Response:
        from mlintern.tools.runs.svg import STYLE

        template = Template((resources.files(__package__) / "live.html").read_text(encoding="utf-8"))
        text = template.substitute(
            {"questions": "", "jobs": "", "experiments": "", **await self.parts()},
            charts=STYLE,
            workspace=escape(self._workspace),
            said=f"<p role=status><strong>{escape(said)}</strong></p>" if said else "",
        )
        return HTMLResponse(text, status_code=status, headers=PAGE_HEADERS)

    async def _script(self, request: Request) -> Response:
        if refusal := self.refuse(request):
            return refusal
        text = (resources.files(__package__) / "live.js").read_text(encoding="utf-8")
        return Response(text, media_type="text/javascript", headers=PAGE_HEADERS)

    async def _events(self, request: Request) -> Response:
        if refusal := self.refuse(request):
            return refusal
        chosen = request.query_params.get("job", "")
        return StreamingResponse(self._changes(chosen), media_type="text/event-stream", headers=PAGE_HEADERS)

    async def _changes(self, chosen: str) -> AsyncIterator[str]:
        """The parts that are new since the last look, for as long as somebody looks."""
        shown: dict[str, str] = {}
        while True:
            self.requests += 1  # an open page is looked at
            parts = await self.parts(chosen)
            new = {name: html for name, html in parts.items() if shown.get(name) != html}
            shown = parts
            yield f"data: {json.dumps(new)}\n\n" if new else ": nothing new\n\n"
            await anyio.sleep(self._every_seconds)

    async def parts(self, chosen: str = "") -> dict[str, str]:
        """The page's parts as HTML; ``chosen`` is the job that is shown in full."""
        try:
            page = await self._lab.jobs.list(limit=MOST_JOBS)
            runs = (await self._lab.runs.list(limit=MOST_RUNS)).runs
            questions = await anyio.to_thread.run_sync(self._questions)
            return {
                "questions": "\n".join(questions) or "<p>Nothing waits for you.</p>",
                "jobs": _jobs(page.items, chosen) + (f"<p class=note>{_text(page.note)}</p>" if page.note else ""),
                "experiments": _experiments(runs),
                "job": await self._job(chosen) if chosen else "<p>Choose a job above.</p>",
            }
        except MlinternError as error:
            return {"job": f"<p class=note>{_text(str(error))}</p>"}

    async def _job(self, job_id: str) -> str:
        from mlintern.tools.runs.pictures import run_charts

        status = await self._lab.jobs.poll(job_id)
        found = await self._lab.runs.curves(job_id)
        charts = run_charts(found[0], label=status.run_name or job_id, findings=found[1].findings) if found else ""
        log = await self._lab.jobs.read_logs(job_id, tail=LOG_LINES)
        findings = found[1].findings if found else status.findings
        return "\n".join(
            [
                _facts(status),
                *map(_finding, findings),
                charts or "<p>It has logged no curve.</p>",
                f"<h3>Log</h3><pre tabindex=0 role=region aria-label=Log>{_text(log.text)}</pre>",
                f"<p>{_text(log.note)}</p>" if log.note else "",
                await self._samples(status),
            ]
        )

    async def _samples(self, status: JobStatus) -> str:
        """A few answers of a job that measured something; read again when it measured more."""
        now = (status.state, len(status.evaluations))
        before, shown = self._read_samples.get(status.job_id, (("", 0), ""))
        if now != before and (status.evaluations or status.state == "succeeded"):
            shown = await self._new_samples(status)
            self._read_samples[status.job_id] = (now, shown)
        return shown

    async def _new_samples(self, status: JobStatus) -> str:
        """What the baseline answered otherwise; without one, what was judged wrong."""
        job, baseline = status.job_id, None
        try:
            if status.experiment and (pair := await self._lab.runs.best_and_baseline(status.experiment)):
                baseline = pair[1] if pair[1] != job else None
            which: Which = "flipped" if baseline else "wrong"
            page = await self._lab.evals.read_samples(job, which=which, against=baseline, limit=MOST_SAMPLES)
        except MlinternError:  # its samples were not kept
            return ""
        title = "Answered otherwise than by the baseline" if baseline else "Wrong answers"
        return f"<h3>{title}</h3>{''.join(map(_sample, page.samples))}" if page.samples else ""


def _finding(each: Finding) -> str:
    return f"<p class=note><b>{each.kind}</b> {_text(each.evidence)} {_text(each.advice)}</p>"


def _sample(row: Sample) -> str:
    parts = {
        "asked": row.question or row.prompt,
        "right answer": row.target,
        "baseline said": row.other_answer,
        "it said": row.answer,
    }
    lines = "".join(
        f"<p><b>{name}</b> {_text(cut_middle(value, SAMPLE_CHARS))}</p>" for name, value in parts.items() if value
    )
    return f"<details><summary>{_text(row.id)}</summary>{lines}</details>"


def _jobs(items: Sequence[JobRow], chosen: str) -> str:
    if not items:
        return "<p>There are no jobs.</p>"
    rows = []
    for item in items:
        current = ' aria-current="true"' if item.job_id == chosen else ""
        what, name = item.error or item.detail, item.run_name or item.job_id
        if item.progress:
            total = f" of {item.progress.total}" if item.progress.total else ""
            what = f"step {item.progress.step}{total}"
        cells = [
            f'<button type="button" data-job="{escape(item.job_id)}"{current}>{_text(name)}</button>',
            f'<span class="state {item.state}">{item.state}</span>',
            _text(f"{item.backend} {item.hardware}"),
            _text(cut_line(what or "", 90)),
            format_usd(item.usd_so_far),
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return _table("Jobs", ("job", "state", "where", "what", "cost"), rows)


def _experiments(runs: Sequence[RunRow]) -> str:
    from mlintern.tools.evals.names import is_proportion
    from mlintern.tools.runs.figures import Bar
    from mlintern.tools.runs.svg import bars_svg

    parts = []
    for name in dict.fromkeys(run.experiment for run in runs):
        mine = [run for run in runs if run.experiment == name]
        parts.append(f"<h3>{_text(name or 'without an experiment')}</h3>")
        scored = [(run, run.best) for run in mine if run.best is not None]
        for task, metric in dict.fromkeys((best.task, best.metric) for _, best in scored):
            alike = [(run, best) for run, best in scored if (best.task, best.metric) == (task, metric)]
            alike.sort(key=lambda pair: -pair[1].value)
            bars = [Bar(run.run_id, best.value, best.stderr, run.verdict == "baseline") for run, best in alike]
            parts.append(bars_svg(f"{metric} on {task}, with 95 % intervals", bars, percent=is_proportion(metric)))
        rows = [
            f"<tr><td>{_text(run.run_id)}</td><td>{_text(run.recipe)}</td>"
            f"<td>{_text(run.verdict.replace('_', ' '))}</td><td>{format_usd(run.usd)}</td></tr>"
            for run in mine
        ]
        parts.append(_table(f"Runs of {name}", ("run", "recipe", "verdict", "cost"), rows))
    return "\n".join(parts) or "<p>Nothing has been tried yet.</p>"


def _facts(status: JobStatus) -> str:
    facts = {
        "job": status.job_id,
        "state": f"{status.state} for {format_duration(status.seconds_in_state, rounded=True)}",
        "where": f"{status.backend} {status.hardware}",
        "why": status.error or status.detail,
        "cost": format_usd(status.usd_so_far),
    }
    if status.state in ("queued", "running"):
        facts["stop it"] = shown_command("mlintern-server", "cancel", status.job_id)
    lines = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items() if value)
    bar = ""
    if status.progress and status.progress.total:
        value, total = status.progress.step, status.progress.total
        bar = f'<progress max="{total}" value="{value}" aria-label="step {value} of {total}"></progress>'
    return f"<dl>{lines}</dl>{bar}"


def _table(name: str, head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(rows)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex=0 role="region" aria-label="{escape(name)}">{table}</div>'


def _text(text: str) -> str:
    return escape(printable(text, keep="\n\t"))
