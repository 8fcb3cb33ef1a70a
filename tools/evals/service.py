"""The evaluation tools: read what any harness wrote, compare two of them, keep what jobs measured."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.common.clock import Clock
from mlintern.common.text import cut_middle
from mlintern.tools.cursors import make_cursor
from mlintern.tools.errors import BadInput, MlinternError, NotFound, ServiceError
from mlintern.tools.evals import eval_ledger
from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.comparison_results import Comparison
from mlintern.tools.evals.documents import Reading
from mlintern.tools.evals.hub_results import HubResults
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.evals.result_rows import EvalPage, EvalRow, Which
from mlintern.tools.evals.row_filter import matching
from mlintern.tools.evals.sample_pages import page_start, sample_page
from mlintern.tools.hub.errors import SERVICE
from mlintern.tools.hub.result_sources import OnHub, Source, here, locate
from mlintern.tools.ledger import Ledger
from mlintern.tools.sandbox import worker
from mlintern.tools.service_status import SourceReport, answered, failed, overall
from mlintern.tools.workspace import Workspace

DEFAULT_LIMIT = 40
MOST_ROWS = 500
LONGEST_SETTING = 500
"""Characters of a text of a protocol that are shown."""
MOST_SEEDS = 20
SHOWN = 50
"""Problems and task names shown on a page."""


@dataclass(frozen=True)
class _Opened:
    """What a source turned out to hold, or why the Hub gave nothing (``failure``)."""

    reading: Reading
    sources: list[SourceReport]
    failure: MlinternError | None = None
    revision: str | None = None
    partial: list[str] = field(default_factory=list)
    roots: dict[str, Path] = field(default_factory=dict)


class EvalService:
    """Reads, compares and keeps evaluation results. All methods are safe to call from several tasks at once.

    Args:
        hub: reads results of Hub repositories; without it only what lies on this machine is a source.
    """

    def __init__(self, *, workspace: Workspace, ledger: Ledger, clock: Clock, hub: HubResults | None = None) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.clock = clock
        self.hub = hub

    async def read_samples(
        self,
        source: str,
        *,
        which: Which,
        task: str | None = None,
        metric: str | None = None,
        against: str | None = None,
        limit: int = 10,
        cursor: str | None = None,
    ) -> EvalPage:
        """Single items of one task and metric of a source: what was asked and answered, and how it was judged.

        Args:
            which: wrong, flipped (scored otherwise in ``against``), cut (off at the length limit), random, all.
            task, metric: whose items; the first that kept its samples if None.
            against: a source as ``source`` is, for flipped.
            limit: items on a page, 1 to 500.

        Raises:
            NotFound: as `read`; and where no samples were kept.
            BadInput: as `read`; flipped without ``against``.
        """
        opened = await self._open(source, samples=True)
        if opened.failure is not None:
            return _unread(opened, cursor)
        other = await self._open(against, samples=True) if against is not None else None
        if other is not None and other.failure is not None:
            return _unread(other, cursor)
        if not 1 <= limit <= MOST_ROWS:
            raise BadInput(f"limit is {limit}.", next_step=f"Give a number from 1 to {MOST_ROWS}.")

        found = await worker.run(
            sample_page,
            rows=matching(opened.reading.rows, task=task, metric=metric),
            theirs=other.reading.rows if other is not None else None,
            roots={**opened.roots, **(other.roots if other else {})},
            request=repr([source, which, against]),
            which=which,
            limit=limit,
            cursor=cursor,
        )
        row = found.row
        return EvalPage(
            status=overall(opened.sources),
            sources=opened.sources,
            revision=opened.revision,
            partial=opened.partial,
            rows=[row],
            total=found.total,
            tasks=[row.task],
            notes=[f"Items of {row.label}; name another with task and metric."],
            protocols=_protocols([row]),
            samples=found.shown,
            next_cursor=found.next_cursor,
        )

    async def read(
        self, source: str, *, task: str | None = None, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> EvalPage:
        """Rows of a job, a result file, a folder of them, or a Hub repository (or a folder or file of it).

        A Hub that does not answer, or does not have it, is no error: ``status`` and ``sources`` of the page say so.

        Args:
            task: a task in any harness's spelling; ``*`` stands for anything (``mmlu_*``). All tasks if None.
            limit: rows on a page, 1 to 500.

        Raises:
            NotFound: no such job or path, no results in it, or no such task in it (near ones are named).
            BadInput: a broken file, an unusable limit or cursor.
        """
        if not 1 <= limit <= MOST_ROWS:
            raise BadInput(f"limit is {limit}.", next_step=f"Give a number from 1 to {MOST_ROWS}.")
        opened = await self._open(source)
        reading = opened.reading
        rows = matching(reading.rows, task=task)
        digest = hashlib.sha256(repr([source, task, [row.sha256 for row in rows]]).encode()).hexdigest()[:12]
        start = page_start(cursor, digest, total=len(rows)) if opened.failure is None else 0
        end = min(start + limit, len(rows))
        tasks = sorted({row.task for row in reading.rows})
        if opened.failure is not None:
            return _unread(opened, cursor)
        return EvalPage(
            status=overall(opened.sources),
            sources=opened.sources,
            revision=opened.revision,
            partial=opened.partial,
            rows=rows[start:end],
            total=len(rows),
            tasks=tasks[:SHOWN],
            problems=reading.problems[:SHOWN],
            notes=_notes(reading, tasks),
            protocols=_protocols(rows[start:end]),
            next_cursor=make_cursor([end], digest) if end < len(rows) else None,
        )

    async def compare(
        self,
        baseline: str | Sequence[str],
        candidate: str | Sequence[str],
        *,
        task: str | None = None,
        metric: str | None = None,
        tries: int = 1,
    ) -> Comparison:
        """Is the candidate better than the baseline? See `compare_rows` for method and verdicts.

        Args:
            baseline, candidate: sources as in `read`; several of a side are training seeds of one recipe.
            tries: candidates that were tried on these items, if more than the ledger knows of.
            task, metric: compare only these; all that both sides have if None.

        Raises:
            NotFound, BadInput: as `read`, for either side.
        """
        named = {"baseline": _sources(baseline, "baseline"), "candidate": _sources(candidate, "candidate")}
        sides = {
            _label(side, at, len(sources)): await self._open(source, samples=True)
            for side, sources in named.items()
            for at, source in enumerate(sources)
        }
        failures = {name: side.failure for name, side in sides.items() if side.failure is not None}
        if failures:
            found = Comparison(status="ok", sources=[], rows=[], summary=_not_compared(failures))
        else:
            read = [_one_side(side, name, task=task, metric=metric) for name, side in sides.items()]
            rows = read[: len(named["baseline"])], read[len(named["baseline"]) :]
            roots = {root: at for side in sides.values() for root, at in side.roots.items()}
            tried = await anyio.to_thread.run_sync(self._tried, [*chain(*rows[0])], [*chain(*rows[1])])
            found = await worker.run(_compare_files, rows[0], rows[1], roots=roots, tried=max(tried, tries))
        found.sources = [
            report.model_copy(update={"name": f"{name}: {report.name}"})
            for name, side in sides.items()
            for report in side.sources
        ]
        unread = [report for name in failures for report in sides[name].sources]
        found.status = overall(unread or found.sources)
        found.partial = [f"{name}: {said}" for name, side in sides.items() for said in side.partial]
        return found

    def _tried(self, baseline: list[EvalRow], candidate: list[EvalRow]) -> int:
        """How many candidates this baseline has been compared with, this one included."""
        if not baseline or not candidate:
            return 1
        now = self.clock.now()
        return eval_ledger.candidates_tried(self.ledger, baseline=baseline, candidate=candidate, now=now)

    async def collect(self, job_id: str) -> list[EvalRow]:
        """Read what the job has measured and keep it in the ledger; an empty list if it measured nothing.

        Raises:
            NotFound: the ledger has no such job.
        """
        return await anyio.to_thread.run_sync(self._collect, job_id)

    def _collect(self, job_id: str) -> list[EvalRow]:
        found = locate(job_id, workspace=self.workspace, ledger=self.ledger)
        if isinstance(found, OnHub) or found.job_id is None:
            raise NotFound(f"There is no job {job_id!r}.", next_step="list_jobs shows the jobs of this workspace.")
        rows = worker.call(_read_job, found).rows
        eval_ledger.store(self.ledger, job_id=job_id, rows=rows, now=self.clock.now())
        return rows

    async def _open(self, source: str, *, samples: bool = False) -> _Opened:
        found = await anyio.to_thread.run_sync(lambda: locate(source, workspace=self.workspace, ledger=self.ledger))
        if isinstance(found, OnHub) and self.hub is not None:
            return await _open_on_hub(self.hub, found.name, samples)
        reading = await anyio.to_thread.run_sync(self._kept, here(found), await worker.run(_read_found, here(found)))
        return _Opened(reading, [answered("local files", http_status=None)])

    def _kept(self, found: Source, reading: Reading) -> Reading:
        """``reading``, or what the ledger kept of a job whose files are gone."""
        if found.job_id is None or reading.rows or reading.problems:
            return reading
        kept = eval_ledger.of_jobs(self.ledger, [found.job_id])[found.job_id]
        if kept:
            return Reading(rows=kept)
        raise NotFound(
            f"The job {found.job_id} (state {found.state}) has no evaluation result.",
            next_step="Wait with poll_job until it has one, or read its log: a training script evaluates only if its "
            "recipe asks for it.",
        )


async def _open_on_hub(hub: HubResults, name: str, samples: bool) -> _Opened:
    try:
        found = await hub.read(name, samples=samples)
    except (ServiceError, NotFound) as error:
        return _Opened(Reading(), [failed(SERVICE, error)], failure=error)
    return _Opened(
        found.reading,
        found.sources,
        revision=found.revision,
        partial=found.partial,
        roots={found.root: found.folder},
    )


def _protocols(rows: Sequence[EvalRow]) -> dict[str, dict[str, Any]]:
    """By fingerprint, without what is not in use and with long texts cut."""
    return {
        row.fingerprint: {key: _brief(value) for key, value in row.protocol.items() if value not in (None, {}, [])}
        for row in rows
        if row.fingerprint is not None
    }


def _brief(value: Any) -> Any:
    return cut_middle(value, LONGEST_SETTING) if isinstance(value, str) else value


def _unread(opened: _Opened, cursor: str | None) -> EvalPage:
    """The page of a source that the Hub did not give. The cursor stays good for when it does."""
    return EvalPage(
        status=overall(opened.sources),
        sources=opened.sources,
        rows=[],
        total=0,
        tasks=[],
        next_cursor=cursor,
    )


def _not_compared(failures: dict[str, MlinternError]) -> str:
    return "Nothing was compared. " + " ".join(f"The {side}: {error}" for side, error in failures.items())


def without_candidates(rows: Sequence[EvalRow]) -> list[EvalRow]:
    """Of a job that measured several models, the rows of the first: the others are named by ``JOB/candidates/1``."""
    own = [row for row in rows if not re.search(r"/candidates/\d{1,3}/evaluation\.json$", row.source)]
    return own or list(rows)


def _one_side(side: _Opened, name: str, *, task: str | None, metric: str | None) -> list[EvalRow]:
    own = without_candidates(side.reading.rows)
    rows = matching(own, task=task, metric=metric, what=f"The {name}")
    if not rows and side.reading.problems:
        problem = side.reading.problems[0]
        raise BadInput(f"The {name}: {problem.source}: {problem.message}", next_step=problem.next_step)
    return rows


def _compare_files(
    baseline: list[list[EvalRow]], candidate: list[list[EvalRow]], *, roots: dict[str, Path], tried: int
) -> Comparison:
    """`compare_rows` with the samples behind the rows; runs in the worker."""
    samples = SampleFiles(roots)
    more = baseline[1:], candidate[1:]
    return compare_rows(baseline[0], candidate[0], samples=samples, items=samples.items, tried=tried, more=more)


def _sources(given: str | Sequence[str], side: str) -> list[str]:
    sources = [given] if isinstance(given, str) else list(given)
    if not 1 <= len(sources) <= MOST_SEEDS or len(set(sources)) < len(sources):
        raise BadInput(
            f"The {side} names {len(sources)} sources"
            + (", one of them twice." if len(set(sources)) < len(sources) else "."),
            next_step=f"Give one source, or up to {MOST_SEEDS} different ones that are seeds of one recipe.",
        )
    return sources


def _label(side: str, at: int, of: int) -> str:
    return side if of == 1 else f"{side} {at + 1}"


def _read_found(found: Source) -> Reading:
    """The results in a file, a folder or a job's output; runs in the worker."""
    return read_path(found.path) if found.job_id is None else _read_job(found)


def _read_job(found: Source) -> Reading:
    """Results in the job's output folder, else the evaluation rows that its script printed."""
    output, log = found.path / "output", found.path / "log.txt"
    for path in (output, log):
        if not path.exists():
            continue
        try:
            return read_path(path)
        except NotFound:
            continue
        except BadInput:
            if path == output:
                raise
    return Reading()


def _notes(reading: Reading, tasks: Sequence[str]) -> list[str]:
    notes: list[str] = []
    if len(tasks) > SHOWN:
        notes.append(f"{len(tasks) - SHOWN} more tasks are not named here; filter with task.")
    if len(reading.problems) > SHOWN:
        notes.append(f"{len(reading.problems) - SHOWN} more problems are not shown.")
    if any(row.stderr_derived for row in reading.rows):
        notes.append("stderr_derived: the harness gave no standard error; it is sqrt(p(1-p)/n).")
    if not all(row.scale_known for row in reading.rows):
        notes.append(
            "scale_known false: what a repository publishes is a bare number, a share (0-1) or a percentage (0-100); "
            "it stands as written. Do not set it against another without knowing which."
        )
    return notes
