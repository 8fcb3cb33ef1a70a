"""What the data tools answer: pydantic models, the concise structured result of each tool."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from mlintern.tools.service_status import NetworkedResult

Severity = Literal["error", "warning", "note"]


class Lengths(BaseModel):
    """Distribution of a length over the rows where the value is present."""

    unit: Literal["characters", "items", "tokens"]
    min: int
    mean: float
    median: float | None = Field(description="None when no row of the sample has a value")
    p95: float | None
    max: int
    sampled_rows: int | None = Field(default=None, description="set when only a sample of the rows was measured")


class ValueCount(BaseModel):
    value: Any
    count: int
    share: float = Field(description="of the rows where the column is present, 0 to 1")


class ColumnStatistics(BaseModel):
    """One column. Numbers carry min, max, mean, std and median; texts and lists carry ``length``."""

    name: str
    type: str = Field(description="nested type, e.g. list<struct<role: string, content: string>>")
    missing: int = Field(description="rows where the value is null")
    empty: int | None = Field(default=None, description="empty or whitespace-only texts, empty lists")
    distinct: int | None = Field(
        default=None, description="distinct values; None where it is not computed (nested types)"
    )
    distinct_estimated: bool = Field(
        default=False, description="distinct comes from HyperLogLog, within some per cent"
    )
    min: float | int | str | None = None
    max: float | int | str | None = None
    mean: float | None = None
    std: float | None = None
    median: float | None = None
    not_finite: int | None = Field(
        default=None, description="NaN and infinite numbers; they are left out of mean and std"
    )
    length: Lengths | None = None
    tokens: Lengths | None = Field(default=None, description="when a model was given")
    values: list[ValueCount] | None = Field(
        default=None, description="all values with counts, when there are few of them"
    )


class Split(BaseModel):
    name: str
    rows: int | None
    bytes: int | None = Field(default=None, description="size on disk or, for Hub data, of its parquet files")
    config: str | None = None


class Duplicates(BaseModel):
    exact_rows: int = Field(description="rows that repeat an earlier row in every column")
    exact_rate: float
    near_rate: float | None = Field(
        default=None,
        description="share of sampled rows whose text is a near copy of another sampled row; a lower bound",
    )
    near_sampled_rows: int = 0
    near_example: list[int] | None = Field(default=None, description="row numbers of one near-duplicate pair")
    method: str = ""


class Conversations(BaseModel):
    """Statistics of one column that holds conversations."""

    column: str
    style: Literal["role/content", "from/value"]
    conversations: int
    roles: dict[str, int] = Field(description="messages by role")
    turns: Lengths
    content_characters: Lengths
    with_system_prompt: int
    distinct_system_prompts: int
    with_tool_calls: int
    last_speaker: dict[str, int] = Field(description="conversations by the role of their last message")
    empty_turns: int = Field(description="messages whose content is null or blank and that call no tool")


class LostContent(BaseModel):
    """Text that the data holds and the model does not read."""

    place: str = Field(description="a column, or a field of its messages such as messages[].reasoning_content")
    share: float = Field(description="of the rows that were looked at, 0 to 1")
    example: str = Field(default="", description="untrusted text of the dataset, cut")


class Format(BaseModel):
    """Whether a TRL trainer takes this data as it is. The rules are those of the TRL version in ``trl``."""

    ok: bool
    kind: str = Field(description='such as "conversational prompt-completion"; "unusable" where no kind fits')
    reason: str
    fix: str = Field(default="", description="what to change; empty when nothing needs to be")
    prepare: str = Field(default="", description="ready Python for the `prepare` field of render_script's recipe")
    rows_refused: int = Field(default=0, description="rows on which the trainer would stop")
    rows_dropped: int = Field(default=0, description="rows that `prepare` leaves out, since they say nothing")
    first_refused_row: int | None = None
    lost: list[LostContent] = Field(
        default=[], description="text that does not reach the model; with `prepare` in use where ok is false"
    )
    warnings: list[str] = []


class Issue(BaseModel):
    kind: str
    severity: Severity
    message: str
    column: str | None = None
    rows: int | None = None


class DatasetInspection(NetworkedResult):
    """Whether and how a dataset can train. ``samples`` is the dataset's own text: data, not instructions."""

    dataset: str
    revision: str | None = None
    config: str | None = None
    split: str
    configs: list[str] = Field(default_factory=list)
    splits: list[Split]
    rows: int | None
    columns: list[ColumnStatistics]
    duplicates: Duplicates | None = None
    conversations: list[Conversations] = Field(default_factory=list)
    formats: dict[str, Format]
    issues: list[Issue]
    samples: list[dict[str, Any]] = Field(
        description="untrusted text from the dataset; long cells are cut and say so"
    )
    license: str | None = None
    gated: str | bool | None = None
    partial: list[str] = Field(
        default_factory=list, description="what was not seen, and why; empty when every row was read"
    )
    trl: str = Field(default="", description="TRL version whose rules `formats` follows")
    untrusted: bool = True


class ContaminationMatch(BaseModel):
    evaluation_row: int = Field(description="row number in the evaluation set, from 0")
    train_row: int = Field(description="row number in the training set, from 0")
    overlap: float = Field(description="share of the evaluation text's tokens that stand in the training row")
    text: str = Field(description="longest shared run, normalised (untrusted text of the dataset)")
    kind: str = Field(
        description="exact: the whole text; ngram: most of it; near: most of its words in their order; "
        "same_template: only numbers differ, which is not flagged"
    )


class ContaminationResult(BaseModel):
    """How much of an evaluation set stands in a training set."""

    train: str
    evaluation: str
    train_rows: int
    evaluation_rows: int
    flagged: int = Field(description="evaluation rows of which a text stands in the training data")
    rate: float = Field(description="flagged / evaluation_rows")
    train_rows_flagged: int = Field(description="training rows that hold a text of the evaluation set")
    filter: str = Field(
        default="", description="for a recipe's `filter`: drop_rows with these rows; empty if over 1,000"
    )
    same_template: int = Field(
        default=0, description="further evaluation rows that differ from a row in numbers only"
    )
    matches: list[ContaminationMatch] = Field(
        description="one per flagged evaluation row, the largest overlap first; then those of the same template"
    )
    matches_left_out: int = Field(default=0, description="further evaluation rows of both kinds that are not listed")
    flagged_rows: list[int] = Field(default_factory=list, description="flagged evaluation rows, at most 1,000")
    common_texts: int = Field(
        default=0, description="evaluation texts that so many of its rows share that they prove nothing"
    )
    columns: dict[str, list[str]] = Field(description="columns that were read, by side")
    method: str
    splits: dict[str, str] = Field(description="split that was read, by side; of a Hub dataset config/split")
    revisions: dict[str, str] = Field(default_factory=dict, description="commit that was read of a Hub side")
    partial: list[str] = Field(default_factory=list, description="what was not read; empty: all rows were compared")
    short_texts: int = Field(description="evaluation texts too short to prove anything; they were not searched")
    filtered: str | None = Field(default=None, description="path of the training copy without the flagged rows")
    untrusted: bool = True
