"""The ledger tools: list the runs, write the report of an experiment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import anyio.to_thread

from mlintern.common.clock import Clock, iso
from mlintern.tools.cursors import make_cursor, read_cursor
from mlintern.tools.data.contamination_record import remembered
from mlintern.tools.errors import BadInput, MlinternError, NotFound, WorkspaceError
from mlintern.tools.evals.compare import flips_between
from mlintern.tools.evals.fields import finite
from mlintern.tools.evals.flips import Flips
from mlintern.tools.evals.names import is_proportion
from mlintern.tools.health.diagnose import curves_and_health
from mlintern.tools.health.findings import Diagnosis
from mlintern.tools.health.series import Run
from mlintern.tools.hub.result_sources import Source
from mlintern.tools.jobs import job_rows
from mlintern.tools.jobs.job_rows import JobRecord
from mlintern.tools.ledger import Ledger
from mlintern.tools.runs import experiment_rows, html_report, plots, recipes, report
from mlintern.tools.runs.caveats import limits
from mlintern.tools.runs.leaderboard import Leaderboard, Trial, build_leaderboard, worth
from mlintern.tools.runs.pictures import charts, draw, write_file
from mlintern.tools.runs.plots import Plot
from mlintern.tools.runs.run_results import BestScore, PlotResult, ReportResult, RunPage, RunRow
from mlintern.tools.sandbox import worker
from mlintern.tools.workspace import Workspace, folder_name

Sort = Literal["started", "best", "usd"]
MOST_RUNS = 200


class RunService:
    """Reads jobs, recipes, money and evaluations from the ledger; writes reports into the workspace."""

    def __init__(self, *, workspace: Workspace, ledger: Ledger, clock: Clock) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.clock = clock

    async def list(
        self, *, experiment: str | None = None, sort: Sort = "started", limit: int = 20, cursor: str | None = None
    ) -> RunPage:
        """Runs of an experiment, or all: the latest, the best or the most expensive first.

        Scores of different tasks are not put in one order: ``sort="best"`` needs an experiment.

        Raises:
            NotFound: there is no such experiment.
            BadInput: an unknown order, an unusable limit or cursor.
        """
        if sort not in get_args(Sort):
            raise BadInput(f"There is no order {sort!r}.", next_step=f"One of: {', '.join(get_args(Sort))}.")
        if not 1 <= limit <= MOST_RUNS:
            raise BadInput(f"limit is {limit}.", next_step=f"Give a number from 1 to {MOST_RUNS}.")
        if sort == "best" and experiment is None:
            raise BadInput("Scores of different experiments have no order.", next_step="Name an experiment.")
        return await anyio.to_thread.run_sync(lambda: self._list(experiment, sort, limit, cursor))

    async def report(
        self,
        experiment: str,
        *,
        goal: str | None = None,
        target: float | None = None,
        baseline: str | None = None,
        task: str | None = None,
        metric: str | None = None,
        headline: str = "",
        section: str = "",
    ) -> ReportResult:
        """Write ``reports/<experiment>/report.md`` with pictures, in place of an earlier one.

        Args:
            goal, target: remembered with the experiment. The target is on the metric's own scale, 0.85 for 85 %.
            baseline: run or job id to compare with; the first measured model that no run made, if None.
            task, metric: judge by these; by what most runs have been measured with, if None.
            headline, section: Markdown that goes before all other results (`report.Material`).

        Raises:
            NotFound: no such experiment, baseline, task or metric.
            BadInput: the target is not on the metric's scale, or several runs are called ``baseline``.
            WorkspaceError: the report cannot be written.
        """
        return await anyio.to_thread.run_sync(
            lambda: self._report(
                experiment,
                goal=goal,
                target=target,
                baseline=baseline,
                task=task,
                metric=metric,
                headline=headline,
                section=section,
            )
        )

    async def best_and_baseline(
        self, experiment: str, *, baseline: str | None = None, task: str | None = None, metric: str | None = None
    ) -> tuple[str, str] | None:
        """The jobs that measured the best run and its baseline, if both have been measured."""

        def look() -> tuple[str, str] | None:
            known = experiment_rows.experiment(self.ledger, experiment)
            found = experiment_rows.trials(self.ledger, experiment=experiment)
            board = self._leaderboard(found, baseline=baseline, task=task or known.benchmark or None, metric=metric)
            if board.best is None or board.baseline is None:
                return None
            best, base = board.best, board.baseline
            return best.measured_by or best.run.job_id, base.measured_by or base.run.job_id

        return await anyio.to_thread.run_sync(look)

    def _list(self, experiment: str | None, sort: Sort, limit: int, cursor: str | None) -> RunPage:
        if experiment is not None:
            experiment_rows.experiment(self.ledger, experiment)
        found = experiment_rows.trials(self.ledger, experiment=experiment)
        trials = self._trials(found) if sort == "best" else {}
        order = sorted(found, key=lambda record: _place(record, sort, trials.get(record.job_id)))
        after = _after(cursor, f"{experiment}/{sort}")
        rest = [r for r in order if after is None or _place(r, sort, trials.get(r.job_id)) > after]
        page = rest[:limit]
        trials = trials or self._trials_of(page)
        more = len(rest) > limit
        return RunPage(
            runs=[_row(trials[record.job_id]) for record in page],
            total=len(found),
            next_cursor=make_cursor(list(_place(page[-1], sort, trials[page[-1].job_id])), f"{experiment}/{sort}")
            if more
            else None,
        )

    def _trials_of(self, page: Sequence[JobRecord]) -> dict[str, Trial]:
        """The trials of these runs, each judged among all runs of its experiment."""
        trials = {record.job_id: Trial(record, ()) for record in page}
        for name in {record.spec.experiment for record in page if record.spec.experiment is not None}:
            trials |= self._trials(experiment_rows.trials(self.ledger, experiment=name))
        loose = [record for record in page if record.spec.experiment is None]
        return trials | self._trials(loose)

    def _trials(self, found: Sequence[JobRecord]) -> dict[str, Trial]:
        return {trial.run.job_id: trial for trial in self._leaderboard(found).trials}

    def _leaderboard(
        self,
        found: Sequence[JobRecord],
        *,
        baseline: str | None = None,
        task: str | None = None,
        metric: str | None = None,
    ) -> Leaderboard:
        return build_leaderboard(
            found,
            experiment_rows.evaluations(self.ledger, job_ids=[record.job_id for record in found]),
            jobs_folder=self.workspace.root / "jobs",
            baseline=baseline,
            task=task,
            metric=metric,
        )

    def _report(
        self,
        name: str,
        *,
        goal: str | None,
        target: float | None,
        baseline: str | None,
        task: str | None,
        metric: str | None,
        headline: str,
        section: str,
    ) -> ReportResult:
        known = experiment_rows.experiment(self.ledger, name)
        found = experiment_rows.trials(self.ledger, experiment=name)
        board = self._leaderboard(found, baseline=baseline, task=task or known.benchmark or None, metric=metric)
        _check_target(known.target if target is None else target, board)
        experiment_rows.describe(self.ledger, name, goal=goal, target=target)
        experiment = experiment_rows.experiment(self.ledger, name)
        curves, health = self._curves(found)
        folder = self.folder(name)
        pictures, notes = draw(folder, board=board, curves=curves, name=name, target=experiment.target)
        material = report.Material(
            experiment=experiment,
            board=board,
            health=health,
            scripts={record.spec.script_id: self.workspace.script(record.spec.script_id) for record in found},
            now=self.clock.now(),
            usd_scheduled=experiment_rows.reserved_by_schedules(self.ledger, experiment=name),
            pictures=pictures,
            notes=notes,
            headline=headline,
            section=section,
            flips=_flips_of_best(board),
        )
        path = folder / "report.md"
        text = report.markdown(material)
        write_file(path, text.encode())
        recipes_text = "\n".join(json.dumps(record.recipe, ensure_ascii=False) for record in found)
        page = html_report.page(
            report.markdown(replace(material, flips=None)),  # the page has more of them
            title=f"Report of {name}",
            charts=charts(board, curves, target=experiment.target),
            workspace=self.workspace.root,
            flips=material.flips,
            contamination=remembered(self.workspace, used=recipes_text),
        )
        write_file(folder / "report.html", page.encode())
        best = board.best
        return ReportResult(
            experiment=name,
            path=str(path),
            page=str(folder / "report.html"),
            summary=report.summary(material, path),
            pictures=[str(folder / picture) for picture in pictures],
            best=_best(best) if best else None,
            verdict=best.verdict if best else "not_evaluated",
            limits=list(limits(board, experiment)),
            notes=notes,
        )

    def folder(self, name: str) -> Path:
        """The folder of the experiment's report."""
        try:
            return self.workspace.report(folder_name(name))
        except OSError as error:
            raise WorkspaceError(
                f"The folder of the report cannot be made: {error.strerror}.",
                next_step="Check space and permissions of the workspace.",
            ) from error

    async def curves(self, job_id: str) -> tuple[Run, Diagnosis] | None:
        """What a job logged while it trained, and what is to be said of it; None where it logged nothing.

        Raises:
            NotFound: there is no such job.
        """

        def look() -> tuple[Run, Diagnosis] | None:
            with self.ledger.read() as connection:
                record = job_rows.get(connection, job_id)
            curves, health = self._curves([record])
            return (curves[job_id], health[job_id]) if job_id in curves else None

        return await anyio.to_thread.run_sync(look)

    async def plot(self, *, job_id: str | None = None, experiment: str | None = None) -> tuple[Plot, PlotResult]:
        """The curves of a job or the scores of an experiment, drawn; the PNG lies in the workspace.

        Raises:
            NotFound: there is no such job or experiment, or nothing to draw.
            BadInput: both are given, or none.
            WorkspaceError: the picture cannot be written.
        """
        if (job_id is None) == (experiment is None):
            raise BadInput("One thing is drawn at a time.", next_step="Give job_id or experiment.")
        plot = await self._plot_run(job_id) if job_id is not None else None
        if experiment is not None:
            plot = await anyio.to_thread.run_sync(self._plot_experiment, experiment)
        if plot is None or not plot.svg:
            raise NotFound(
                f"{job_id or experiment} has nothing to draw yet.",
                next_step="A training run logs curves as it goes; scores come from evaluation jobs. poll_job waits.",
            )
        path = None
        if plot.png is not None:
            path = self.workspace.folder("plots") / f"{folder_name(job_id or experiment or '')}.png"
            write_file(path, plot.png)
        return plot, PlotResult(
            title=plot.title, shown=plot.shown, path=str(path) if path else None, notes=plot.notes
        )

    async def _plot_run(self, job_id: str) -> Plot | None:
        found = await self.curves(job_id)
        return plots.of_run(*found, name=job_id) if found else None

    def _plot_experiment(self, name: str) -> Plot:
        known = experiment_rows.experiment(self.ledger, name)
        found = experiment_rows.trials(self.ledger, experiment=name)
        board = self._leaderboard(found, task=known.benchmark or None)
        return plots.of_experiment(board, self._curves(found)[0], name=name, target=known.target)

    def _curves(self, found: Sequence[JobRecord]) -> tuple[dict[str, Run], dict[str, Diagnosis]]:
        """The training curves of the runs that logged any, and what is to be said of them."""
        curves: dict[str, Run] = {}
        health: dict[str, Diagnosis] = {}
        for record in found:
            try:
                found_log = Source(self.workspace.job(record.job_id), record.job_id, record.state)
                curves[record.job_id], health[record.job_id] = worker.call(curves_and_health, found_log)
            except MlinternError:  # a job without metrics, or whose folder is gone: nothing to draw
                continue
        return curves, health


def _flips_of_best(board: Leaderboard) -> Flips | None:
    """What the best run gained and lost against the baseline, where both kept their answers."""
    before, after = board.baseline, board.best
    if before is None or after is None or before.score is None or after.score is None:
        return None
    try:
        return worker.call(flips_between, before.score, after.score)
    except MlinternError:  # their files are gone, or too much to read
        return None


def _check_target(target: float | None, board: Leaderboard) -> None:
    metric = board.key[2] if board.key is not None else ""
    if target is None or (finite(target) is not None and (not is_proportion(metric) or 0 <= target <= 1)):
        return
    on = f"{metric} lies between 0 and 1" if is_proportion(metric) else "that is no number to reach"
    raise BadInput(f"The target is {target:g}, but {on}.", next_step="Give target=0.85 for 85 %.")


def _row(trial: Trial) -> RunRow:
    run = trial.run
    return RunRow(
        run_id=run.run_id,
        job_id=run.job_id,
        experiment=run.spec.experiment,
        recipe=recipes.summary(run.recipe, run.script_name),
        state=run.state,
        best=_best(trial),
        usd=run.usd,
        started=iso(run.started_at or run.created_at),
        verdict=trial.verdict,
    )


def _best(trial: Trial) -> BestScore | None:
    score = trial.score
    if score is None:
        return None
    return BestScore(
        task=score.task_raw,
        metric=score.metric,
        value=score.value,
        stderr=score.stderr,
        n=score.n,
        measured_by=trial.measured_by,
    )


def _place(record: JobRecord, sort: Sort, trial: Trial | None) -> tuple[float, float, str]:
    """Where a run board in the order: smaller comes first; unique, so that pages neither repeat nor lose a run."""
    first = 0.0
    if sort == "usd":
        first = -record.usd
    elif sort == "best":
        score = trial.score if trial else None
        first = 1e308 if score is None else -worth(score)
    return first, -record.created_at, record.job_id


def _after(cursor: str | None, request: str) -> tuple[float, float, str] | None:
    if cursor is None:
        return None
    other = "The cursor belongs to another experiment or order."
    shape = (float, float, str)
    first, created, job_id = read_cursor(cursor, tool="list_runs", request=request, shape=shape, otherwise=other)
    return first, created, job_id
