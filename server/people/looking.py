"""What the commands for people do. Tables go to stdout; with ``--json`` one object a line, as the tools answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from rich.console import Console

from mlintern.common.commands import shown_command
from mlintern.common.text import printable
from mlintern.server.inside_job import refuse_inside_job
from mlintern.server.people import tables

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mlintern.server.services import Lab
    from mlintern.tools.jobs.job_results import JobStatus

EXIT_FAILED = 1
FOLLOW_SECONDS = 1.0
PAGE_CHARS = 20_000


async def jobs(lab: Lab, options: argparse.Namespace) -> int:
    page = await lab.jobs.list(
        status=options.status, experiment=options.experiment, backend=options.backend, limit=options.limit
    )
    if options.json:
        return _as_json(page)
    console = Console(highlight=False)
    if not page.items:
        console.print("There are no jobs." if page.total == 0 else "No job fits.")
    else:
        console.print(tables.jobs(page.items))
    if page.total > len(page.items):
        console.print(f"{len(page.items)} of {page.total}; --limit shows more.", style="dim")
    if page.note:
        console.print(page.note, style="yellow", markup=False)
    return 0


async def show(lab: Lab, options: argparse.Namespace) -> int:
    status = await lab.jobs.poll(lab.jobs.named(options.job))
    if options.json:
        return _as_json(status)
    Console(highlight=False).print(tables.job(status))
    return 0


async def chat(lab: Lab, options: argparse.Namespace) -> int:
    job_id = lab.jobs.named(options.job)
    while True:
        found = await lab.chat.before_and_after(job_id, options.prompts, max_tokens=options.max_tokens)
        if found.status == "ok":
            break
    if options.json:
        return _as_json(found)
    for exchange in found.exchanges:
        print(f"> {printable(exchange.prompt)}")
        for reply in exchange.replies:
            cut = " (cut off)" if reply.cut else ""
            print(f"{printable(reply.model)}{cut}:\n{printable(reply.answer)}\n")
    return 0


async def logs(lab: Lab, options: argparse.Namespace) -> int:
    job_id = lab.jobs.named(options.job)
    first = await lab.jobs.read_logs(job_id, tail=options.lines, grep=options.grep, max_chars=PAGE_CHARS)
    if options.json:
        _as_json(first)
    else:
        _write(first.text)
        if first.note:
            print(f"({printable(first.note)})", file=sys.stderr)
    if not options.follow:
        return 0
    return await _follow(lab, job_id, offset=first.next_offset, options=options)


async def _follow(lab: Lab, job_id: str, *, offset: int, options: argparse.Namespace) -> int:
    """Print what comes, with a line of metrics whenever they change, until the job is over."""
    told = ""
    while True:
        status = await lab.jobs.poll(job_id)
        while True:
            page = await lab.jobs.read_logs(job_id, offset=offset, max_chars=PAGE_CHARS)
            offset = page.next_offset
            if page.text and options.json:
                _as_json(page)
            elif page.text:
                _write(page.text)
            if not page.truncated:
                break
        line = tables.metrics_line(status)
        if line and line != told and not options.json:
            print(f"· {line}", file=sys.stderr)
            told = line
        if status.state not in ("queued", "running"):
            return _end(status, options)
        await anyio.sleep(FOLLOW_SECONDS)


async def watch(lab: Lab, options: argparse.Namespace) -> int:
    """One picture of the job, redrawn at a terminal; elsewhere a line for each change."""
    from rich.live import Live

    job_id = lab.jobs.named(options.job)
    status = await lab.jobs.poll(job_id)
    console = Console(highlight=False)
    if options.json or not console.is_terminal:
        told = ""
        while True:
            line = tables.metrics_line(status)
            if line != told:
                _as_json(status) if options.json else print(f"{status.state}: {line}", flush=True)
                told = line
            if status.state not in ("queued", "running"):
                return _end(status, options)
            await anyio.sleep(FOLLOW_SECONDS)
            status = await lab.jobs.poll(job_id)
    with Live(tables.job(status), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while status.state in ("queued", "running"):
            await anyio.sleep(FOLLOW_SECONDS)
            status = await lab.jobs.poll(job_id)
            live.update(tables.job(status), refresh=True)
    return _end(status, options)


async def cancel(lab: Lab, options: argparse.Namespace) -> int:
    refuse_inside_job("cancel")
    job_id = lab.jobs.named(options.job)
    if options.save:
        status = await lab.jobs.finish(job_id)
    else:
        status = await lab.jobs.cancel(job_id, reason=options.reason or "Cancelled at the command line.")
    if options.json:
        return _as_json(status)
    if status.state in ("queued", "running"):
        print(f"{job_id} was asked to end and is still {status.state}: {shown_command('mlintern-server', 'jobs')}")
    else:
        print(f"{job_id}: {status.state}")
    return 0


async def runs(lab: Lab, options: argparse.Namespace) -> int:
    unasked = await lab.jobs.bring_up_to_date(experiment=options.experiment)
    page = await lab.runs.list(experiment=options.experiment, sort=options.sort, limit=options.limit)
    if options.json:
        return _as_json(page)
    console = Console(highlight=False)
    console.print(tables.runs(page.runs) if page.runs else "There are no runs.")
    if page.total > len(page.runs):
        console.print(f"{len(page.runs)} of {page.total}; --limit shows more.", style="dim")
    for job_id, problem in unasked.items():
        console.print(f"Not up to date: {job_id}: {problem}", style="yellow", markup=False)
    return 0


async def report(lab: Lab, options: argparse.Namespace) -> int:
    from mlintern.server.toolsets.ledger import write_report_of

    await lab.jobs.bring_up_to_date(experiment=options.experiment)
    result = await write_report_of(lab, options.experiment)
    if options.json:
        return _as_json(result)
    from rich.markdown import Markdown

    console = Console(highlight=False)
    console.print(Markdown(printable(result.summary, keep="\n")))
    console.print(f"\n{result.path}", markup=False, soft_wrap=True)
    return 0


async def open_page(lab: Lab, options: argparse.Namespace) -> int:
    from mlintern.server.web.serve import serve_live

    refuse_inside_job("open")
    await serve_live(lab)
    return 0


COMMANDS: dict[str, Callable[[Lab, argparse.Namespace], Awaitable[int]]] = {
    "jobs": jobs,
    "show": show,
    "logs": logs,
    "chat": chat,
    "watch": watch,
    "cancel": cancel,
    "runs": runs,
    "report": report,
    "open": open_page,
}


def _end(status: JobStatus, options: argparse.Namespace) -> int:
    if not options.json:
        error = f": {printable(status.error)}" if status.error else ""
        print(f"{status.job_id} {status.state}{error}", file=sys.stderr)
    return 0 if status.state == "succeeded" else EXIT_FAILED


def _as_json(result: BaseModel) -> int:
    print(result.model_dump_json(exclude_none=True), flush=True)
    return 0


def _write(text: str) -> None:
    shown = printable(text, keep="\n\t")
    sys.stdout.write(shown if shown.endswith("\n") or not shown else f"{shown}\n")
    sys.stdout.flush()
