"""The parsers of the commands for people. What they do is imported when it is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable

AddParser = Callable[..., argparse.ArgumentParser]


def add_commands(add: AddParser, *, workspace: argparse.ArgumentParser) -> None:
    """Add ``jobs``, ``show``, ``logs``, ``watch``, ``cancel``, ``runs``, ``report`` and ``open``."""
    json_lines = argparse.ArgumentParser(add_help=False)
    json_lines.add_argument("--json", action="store_true", help="JSON for programs instead of a table")
    common = [workspace, json_lines]

    jobs = add("jobs", parents=common, help="the jobs, newest first, with their true states")
    jobs.add_argument("--status", metavar="STATE", help="only jobs in this state; active: queued or running")
    jobs.add_argument("--experiment", metavar="NAME", help="only jobs of this experiment")
    jobs.add_argument("--backend", metavar="NAME", help="only jobs on this backend")
    jobs.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)")
    jobs.set_defaults(run=_later("jobs"))

    show = add("show", parents=common, help="one job: state, progress, metrics, findings, results, what it left")
    _name_job(show)
    show.set_defaults(run=_later("show"))

    logs = add("logs", parents=common, help="what a job printed")
    _name_job(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job is over")
    logs.add_argument("-n", "--lines", type=int, default=40, metavar="N", help="the last so many lines first")
    logs.add_argument("--grep", metavar="PATTERN", help="only lines that match this regular expression")
    logs.set_defaults(run=_later("logs"))

    chat = add("chat", parents=common, help="ask a job's model a few prompts, beside the model it began with")
    _name_job(chat)
    chat.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to ask; at most 8")
    chat.add_argument("--max-tokens", type=int, default=200, metavar="N", help="per answer (default: %(default)s)")
    chat.set_defaults(run=_later("chat"))

    watch = add("watch", parents=common, help="follow a job: progress, metrics and findings as they come")
    _name_job(watch)
    watch.set_defaults(run=_later("watch"))

    cancel = add("cancel", parents=common, help="stop a job and all its processes")
    _name_job(cancel)
    cancel.add_argument("--reason", default="", metavar="TEXT", help="kept with the job")
    cancel.add_argument("--save", action="store_true", help="training: end after this step and save the model")
    cancel.set_defaults(run=_later("cancel"))

    runs = add("runs", parents=common, help="what was tried, with scores and verdicts")
    runs.add_argument("experiment", nargs="?", metavar="EXPERIMENT", help="only runs of this experiment")
    runs.add_argument("--sort", choices=("started", "best", "usd"), default="started", help="default: %(default)s")
    runs.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)")
    runs.set_defaults(run=_later("runs"))

    report = add("report", parents=common, help="write the report of an experiment and say where it is")
    report.add_argument("experiment", metavar="EXPERIMENT")
    report.set_defaults(run=_later("report"))

    page = add("open", parents=[workspace], help="a live page of experiments, jobs and questions in your browser")
    page.set_defaults(run=_later("open"))


def _name_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="its id, the beginning of its id, or the name of its run")


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        import anyio

        from mlintern.server.people import looking
        from mlintern.server.services import Lab
        from mlintern.server.settings import Settings

        async def with_lab() -> int:
            lab = Lab(Settings(workspace=options.workspace))
            try:
                return await looking.COMMANDS[name](lab, options)
            finally:
                await lab.close()

        return anyio.run(with_lab)

    return run
