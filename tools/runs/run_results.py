"""What the ledger tools answer with. Field names are part of the public surface."""

from __future__ import annotations

from pydantic import BaseModel, Field


class BestScore(BaseModel):
    """What a run is judged by."""

    task: str
    metric: str
    value: float
    stderr: float | None = None
    n: int | None = None
    measured_by: str | None = Field(default=None, description="Job that measured it, if another one than the run's.")


class RunRow(BaseModel):
    """A job seen as a trial of an experiment."""

    run_id: str = Field(description="Name given at submission, else the job id.")
    job_id: str
    experiment: str | None
    recipe: str = Field(description="The recipe in a line.")
    state: str
    best: BestScore | None
    usd: float
    started: str = Field(description="UTC, ISO 8601; when it was created, if it has not started.")
    verdict: str = Field(
        description="Against the experiment's baseline: improved, regressed, no_evidence, not_comparable; or "
        "baseline, not_evaluated, `evaluates RUN` for a job that measured another run's model, or the job's state."
    )


class RunPage(BaseModel):
    runs: list[RunRow]
    total: int
    next_cursor: str | None = Field(default=None, description="Pass it as cursor for the next runs; null at the end.")


class PlotResult(BaseModel):
    """What a picture shows, in words, and where it lies."""

    title: str
    shown: list[str] = Field(description="A line for each curve or score.")
    path: str | None = Field(default=None, description="PNG file; null without matplotlib.")
    notes: list[str] = Field(default_factory=list)


class ReportResult(BaseModel):
    """A report that was written."""

    experiment: str
    path: str = Field(description="Markdown file.")
    page: str | None = Field(default=None, description="The same as one HTML file that can be sent to somebody.")
    summary: str = Field(description="The outcome in Markdown that board alone.")
    pictures: list[str] = Field(description="PNG files beside it.")
    best: BestScore | None = None
    verdict: str = Field(description="Verdict on the best run against the baseline; not_evaluated if there is none.")
    limits: list[str] = Field(description="What the numbers do not show.")
    certificate: str | None = Field(default=None, description="certificate.json of an experiment that was opened.")
    notes: list[str] = Field(default_factory=list)
