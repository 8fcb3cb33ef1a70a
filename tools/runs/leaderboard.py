"""Where the runs of an experiment stand: what they scored, against which baseline, and which is best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.compare import compare_each
from mlintern.tools.evals.comparison_results import ComparedRow
from mlintern.tools.evals.result_rows import EvalRow
from mlintern.tools.evals.row_filter import matching
from mlintern.tools.jobs.job_rows import JobRecord

Key = tuple[str, str, str, str | None, int | None, str | None]
"""What must agree for two scores to stand in one chart: suite, task, metric, filter, few-shot count, version."""

PREFERRED = ("accuracy", "acc_norm", "acc", "exact_match", "extractive_match")
"""Metrics to judge by, the best first, where a task has several."""


@dataclass(frozen=True)
class Trial:
    """A run and everything that was measured of the model that it made (or of the model that it only measured)."""

    run: JobRecord
    rows: tuple[EvalRow, ...]
    score: EvalRow | None = None
    against_baseline: ComparedRow | None = None
    is_baseline: bool = False
    measured_by: str | None = None
    """Job that measured ``score``, if it was another one."""
    evaluates: str | None = None
    """Run whose model this job measured; its results stand with that run."""

    @property
    def verdict(self) -> str:
        """baseline, improved, regressed, no_evidence, not_comparable, not_evaluated, or the job's state.

        Of a job that only measured the model of another run: ``evaluates`` and that run.
        """
        if self.is_baseline:
            return "baseline"
        if self.evaluates is not None and self.score is None:
            return f"evaluates {self.evaluates}"
        if self.against_baseline is not None:
            return self.against_baseline.verdict
        return "not_evaluated" if self.run.state == "succeeded" or self.score is not None else self.run.state


@dataclass(frozen=True)
class Leaderboard:
    """All trials of an experiment, in the order in which they were made."""

    trials: tuple[Trial, ...] = ()
    key: Key | None = None
    baseline: Trial | None = None
    best: Trial | None = None

    @property
    def candidates(self) -> list[Trial]:
        """Runs whose own score was compared with the baseline."""
        return [trial for trial in self.trials if trial.against_baseline is not None]


def build_leaderboard(
    records: Sequence[JobRecord],
    evaluations: Sequence[tuple[str, EvalRow]],
    *,
    jobs_folder: Path,
    baseline: str | None = None,
    task: str | None = None,
    metric: str | None = None,
) -> Leaderboard:
    """Put runs and measurements together.

    A model in the folder of a job belongs to that job, no matter which job measured it. Runs are judged by one key:
    the task and metric asked for, else the one that most runs have. The baseline is the run asked for, else the first
    that measured a model which no run made.

    Raises:
        NotFound: no run is called ``baseline``, or nothing measured the ``task`` or ``metric``.
        BadInput: several measured runs are called ``baseline``.
    """
    names = {record.job_id: record.run_id for record in records}
    known = names.keys()
    owner = {row.model: _maker(row.model, jobs_folder, known) for _, row in evaluations}
    rows_of: dict[str, list[EvalRow]] = {job_id: [] for job_id in known}
    measurer: dict[tuple[str, int], str] = {}
    others: dict[str, str] = {}
    for job_id, row in evaluations:
        made_by = owner[row.model] or job_id
        if made_by in rows_of:
            rows_of[made_by].append(row)
            measurer[made_by, id(row)] = job_id
        if made_by != job_id:
            others[job_id] = made_by
    chosen = _key_of([row for rows in rows_of.values() for row in rows], rows_of, task=task, metric=metric)
    scores = {job_id: _latest(rows, chosen) for job_id, rows in rows_of.items()}
    first = _baseline(records, scores, others, owner, baseline)
    compared = _against(first, scores)
    trials = tuple(
        Trial(
            run=record,
            rows=tuple(rows_of[record.job_id]),
            score=(score := scores[record.job_id]),
            against_baseline=compared.get(record.job_id),
            is_baseline=record.job_id == first,
            measured_by=_other(measurer.get((record.job_id, id(score))) if score else None, record.job_id),
            evaluates=names.get(others.get(record.job_id, "")),
        )
        for record in records
    )
    return Leaderboard(
        trials=trials,
        key=chosen,
        baseline=next((trial for trial in trials if trial.is_baseline), None),
        best=_best(trials),
    )


def key(row: EvalRow) -> Key:
    return row.suite, row.task_raw, row.metric, row.filter, row.fewshot, row.version


def worth(score: EvalRow) -> float:
    """A number that is larger for a better score."""
    return score.value if score.higher_is_better is not False else -score.value


def _maker(model: str | None, jobs_folder: Path, known: Collection[str]) -> str | None:
    """The job in whose folder the model lies."""
    if model is None or not model.startswith(f"{jobs_folder}/"):
        return None
    job_id = model.removeprefix(f"{jobs_folder}/").partition("/")[0]
    return job_id if job_id in known else None


def _key_of(
    rows: Sequence[EvalRow], rows_of: Mapping[str, Sequence[EvalRow]], *, task: str | None, metric: str | None
) -> Key | None:
    chosen = matching([row for row in rows if row.suite != "trainer"], task=task, metric=metric)
    if not chosen:
        if (task or metric) is not None and not rows:
            raise NotFound("Nothing has been measured yet.", next_step="Evaluate the base model first.")
        return None
    wanted = {key(row) for row in chosen}
    spread = Counter(k for own in rows_of.values() for k in {key(row) for row in own} & wanted)
    order = [key(row) for row in chosen]

    def rank(candidate: Key) -> tuple[int, int, int]:
        preference = PREFERRED.index(candidate[2]) if candidate[2] in PREFERRED else len(PREFERRED)
        return -spread[candidate], preference, order.index(candidate)

    return min(wanted, key=rank)


def _latest(rows: Sequence[EvalRow], chosen: Key | None) -> EvalRow | None:
    """The run's score: of the final model rather than of a checkpoint, of the latest measurement if repeated."""
    fitting = [row for row in rows if key(row) == chosen]
    final = [row for row in fitting if "/checkpoint-" not in (row.model or "")] or fitting
    return max(final, key=lambda row: row.date or "", default=None)


def _baseline(
    records: Sequence[JobRecord],
    scores: Mapping[str, EvalRow | None],
    others: Mapping[str, str],
    owner: Mapping[str | None, str | None],
    asked: str | None,
) -> str | None:
    if asked is not None:
        named = [record.job_id for record in records if asked in (record.job_id, record.spec.run_name)]
        if not named:
            raise NotFound(
                f"No run of this experiment is called {asked!r}.", next_step="list_runs shows run_id and job_id."
            )
        measured = [job_id for job_id in named if scores[job_id] is not None] or named
        if len(measured) > 1 and asked not in measured:
            raise BadInput(
                f"{len(measured)} runs are called {asked!r}: {', '.join(measured[:6])}.",
                next_step="Give the job_id of the one that you mean.",
            )
        return asked if asked in measured else measured[0]
    for record in records:
        score = scores[record.job_id]
        only_measured = record.trainer in (None, "evaluation") and record.job_id not in others
        if score is not None and only_measured and owner.get(score.model) is None:
            return record.job_id
    return None


def _against(first: str | None, scores: Mapping[str, EvalRow | None]) -> dict[str, ComparedRow]:
    reference = scores.get(first) if first is not None else None
    if reference is None:
        return {}
    candidates = {job_id: row for job_id, row in scores.items() if row is not None and job_id != first}
    compared = compare_each(reference, list(candidates.values()))
    return dict(zip(candidates, compared, strict=True))


def _best(trials: Sequence[Trial]) -> Trial | None:
    """The best score; one on other items than the baseline's counts only if there is no other."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None and not trial.is_baseline]

    def rank(pair: tuple[EvalRow, Trial]) -> tuple[bool, float]:
        compared = pair[1].against_baseline
        return compared is None or compared.delta is not None, worth(pair[0])

    return max(scored, key=rank)[1] if scored else None


def _other(measurer: str | None, job_id: str) -> str | None:
    return measurer if measurer != job_id else None
