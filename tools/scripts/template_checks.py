"""Level `template`: the first rows as the model would read them, by its own tokenizer and chat template.

Nothing of the script is run and torch is not needed: templates are rendered in a sandbox. What the script is set to
is read from the constants at its top, so edited scripts are checked as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.errors import MlinternError
from mlintern.tools.hub.chat_template import (
    ChatTemplate,
    analyse_template,
    compile_template,
)
from mlintern.tools.sandbox import worker
from mlintern.tools.scripts.adapter_rules import adapter_findings
from mlintern.tools.scripts.content_rules import Remake, as_read, content_findings, texts_of
from mlintern.tools.scripts.dry_settings import Constants
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES
from mlintern.tools.scripts.model_inputs import (
    ModelFiles,
    TokenizerFiles,
    counter,
    read_tokenizer,
    row_settings,
    set_fields,
)
from mlintern.tools.scripts.prepared_rows import Prepared, prepared
from mlintern.tools.scripts.program import READ
from mlintern.tools.scripts.rendered_rows import KINDS, Format, read_rows
from mlintern.tools.scripts.row_rules import Settings, row_findings
from mlintern.tools.scripts.script_inputs import DataSource, Materials, unavailable
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.store import Script

ROWS = 200
TRAINERS = {config: trainer for trainer, config in CONFIG_CLASSES.items()}
WITH_REWARDS = ("grpo", "rloo", "online_dpo")


@dataclass(frozen=True)
class _Part:
    """One dataset that is trained on. ``recipe``: what its recipe says of it, None for an edited script."""

    name: str
    source: DataSource
    columns: Any
    kept: Any
    recipe: Mapping[str, Any] | None


def _parts(script: Script, constants: Constants) -> Iterator[_Part]:
    """The dataset of a script, or each of its mixture."""
    data, values = constants.data(), constants.values
    if "DATASET" in data:
        yield _Part("dataset", data["DATASET"], values.get("COLUMNS"), values.get("KEPT"), script.recipe)
    given = (script.recipe or {}).get("datasets") or []
    for number, recipe in enumerate(given or [None] * len(data)):
        source = data.get(f"PART_{number + 1}_DATASET")
        if source is not None:
            columns = values.get(f"PART_{number + 1}_COLUMNS")
            kept = values.get(f"PART_{number + 1}_KEPT")
            yield _Part(f"datasets[{number}]", source, columns, kept, recipe)


def _one_shape(trainer: str, shapes: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """Whether the parts of a mixture can be put together: the first row decides how all are read."""
    read = {name: sorted(set(shape) & set(READ) - {"tools"}) for name, shape in shapes.items()}
    if trainer not in WITH_REWARDS and len({tuple(columns) for columns in read.values()}) > 1:
        told = "; ".join(f"{name} has {', '.join(columns) or 'none of these'}" for name, columns in read.items())
        yield Check(
            rule="mixture_columns",
            severity="error",
            message=f"The datasets have different columns that {trainer} reads: {told}. It reads all as the first.",
            fix="Give the others a `prepare` that makes the same columns (inspect_dataset offers one).",
        )


class TemplateChecker:
    """Renders rows; what others wrote, the tokenizer, its template and the data, is read by the worker."""

    def __init__(self, *, materials: Materials) -> None:
        self._materials = materials

    async def check(self, script: Script) -> list[Check]:
        """Findings about the rows and the template of ``script``. What cannot be had is a finding, not a pass."""
        constants = await worker.run(Constants.of, script.text)
        if constants is None or constants.model is None or not constants.data():
            return [_unread()]
        try:
            model = await self._model(constants)
            tokenizer = await worker.run(read_tokenizer, constants, model)
        except MlinternError as error:
            return [unavailable("tokenizer_unavailable", f"tokenizer of {constants.model}", error=error)]
        checks: list[Check] = []
        if tokenizer.why:
            checks.append(_uncounted(tokenizer.why))
        template = await worker.run(analyse_template, tokenizer.template, tokenizer.eos)
        if template.error:
            return [*checks, _broken(template.error)]
        checks += await worker.run(adapter_findings, constants, model.whole)
        checks += await self._training(script, constants, model, tokenizer, template)
        plan = constants.data().get("EVALUATION_DATASET")
        if plan is not None:
            checks += await self._evaluation(constants, plan, template)
        return checks

    async def _training(
        self,
        script: Script,
        constants: Constants,
        model: ModelFiles,
        tokenizer: TokenizerFiles,
        template: ChatTemplate,
    ) -> list[Check]:
        """Findings about the dataset that is trained on, or about each of a mixture."""
        parts = list(_parts(script, constants))
        if not parts:
            return []
        trainer = TRAINERS.get(constants.config_class or "", "")
        if trainer not in KINDS:
            return [_unread()]
        checks: list[Check] = []
        shapes: dict[str, list[str]] = {}
        for part in parts:
            found, columns = await self._part(part, script, constants, model, tokenizer, template)
            if len(parts) > 1:
                for check in found:
                    check.message = f"{part.name} ({part.source.name}): {check.message}"
            checks += found
            if columns:
                shapes[part.name] = columns
        return [*checks, *_one_shape(trainer, shapes)]

    async def _part(
        self,
        part: _Part,
        script: Script,
        constants: Constants,
        model: ModelFiles,
        tokenizer: TokenizerFiles,
        template: ChatTemplate,
    ) -> tuple[list[Check], list[str]]:
        """Findings about one dataset, and the columns that its first row has where it is trained on."""
        source = part.source
        try:
            found = await self._materials.first_rows(source, ROWS)
        except MlinternError as error:
            return [unavailable("data_unavailable", f"dataset {source.name}", error=error)], []
        if not found.rows:
            return [_no_rows(source)], []
        folder = None if tokenizer.why else model.tokenizer
        return await worker.run_on_data(_look, script, constants, part, found.rows, tokenizer, template, folder)

    async def _evaluation(self, constants: Constants, source: DataSource, template: ChatTemplate) -> list[Check]:
        try:
            found = await self._materials.first_rows(source, 5)
        except MlinternError as error:
            return [unavailable("data_unavailable", f"dataset {source.name}", error=error)]
        return list(_evaluation_findings(constants, source, found.rows, template))

    async def _model(self, constants: Constants) -> ModelFiles:
        assert constants.model is not None
        other: Path | None = None
        if isinstance(path := set_fields(constants).get("chat_template_path"), str):
            file = Path(path)
            folder = str(file.absolute()) if file.is_dir() else path
            other = file if file.is_file() else await self._materials.model_files(folder, None)
        return ModelFiles(
            whole=await self._materials.whole_model_files(constants.model, constants.revision),
            own=await self._materials.model_files(constants.model, constants.revision),
            other_template=other,
        )


def _look(
    script: Script,
    constants: Constants,
    part: _Part,
    rows: list[dict[str, Any]],
    tokenizer: TokenizerFiles,
    template: ChatTemplate,
    counting: Path | None,
) -> tuple[list[Check], list[str]]:
    """Findings about ``rows`` as the script trains on them, and their columns then.

    ``counting``: where the tokenizer lies, if it counts.
    """
    trainer = TRAINERS[constants.config_class or ""]
    kind, rewarded = KINDS[trainer], trainer in WITH_REWARDS
    made = prepared(script, rows, columns=part.columns, kept=None if rewarded else part.kept, recipe=part.recipe)
    count = None if counting is None else counter(counting)[0]
    settings = row_settings(constants, trainer, tokenizer=tokenizer, count=count)
    if made is None:
        return [_unprepared(), *row_findings(kind, None, template=template, settings=settings)], []
    columns = list(made.rows[0]) if made.rows else []
    if "input_ids" in columns:
        return list(_token_rows(made.rows, settings)), columns
    compiled = compile_template(tokenizer.template) if tokenizer.template else None
    more = set_fields(constants).get("chat_template_kwargs") or {}
    form = Format(compiled, tokenizer.eos, {"bos_token": tokenizer.bos, **more})
    reading = read_rows(kind, made.rows, form=form)
    checks = [
        *_left_out(made, len(rows)),
        *row_findings(kind, reading, template=template, settings=settings),
    ]
    given = [made.given[row.number] for row in reading.rendered]
    read = "prompts" if kind == "grpo" and not rewarded else kind
    remake = None if made.rows is not made.given else _remaker(read, made.rows[0], form)
    checks += content_findings(read, reading.rendered, given=given, remake=remake)
    shown = as_read(reading.rendered, count=count)
    for check in checks:
        if check.rule == "template":
            check.message += shown
    return checks, columns


def _remaker(trainer: str, first: dict[str, Any], form: Format) -> Remake:
    def remake(row: dict[str, Any]) -> list[str]:
        reading = read_rows("grpo" if trainer == "prompts" else trainer, [first, row], form=form)
        made = [one for one in reading.rendered if one.number == 1]
        if not made:
            raise ValueError("the row cannot be rendered")
        return texts_of(trainer, made[0], row=row)

    return remake


def _left_out(made: Prepared, total: int) -> Iterator[Check]:
    if made.errors:
        number, why = next(iter(made.errors.items()))
        others = f" (and {len(made.errors) - 1} more)" if len(made.errors) > 1 else ""
        yield Check(
            rule="prepare_fails",
            severity="error",
            message=f"Row {number}{others}: {why}. The script would stop there.",
            fix="Let the function return None for rows that it cannot use; that leaves them out.",
        )
    if made.dropped:
        yield Check(
            rule="rows_left_out",
            severity="note" if made.rows else "error",
            message=f"{made.dropped} of the first {total} rows are left out by `filter` or `prepare`.",
            fix="" if made.rows else "Nothing would be left to train on: change them.",
        )


def _token_rows(rows: Sequence[Mapping[str, Any]], settings: Settings) -> Iterator[Check]:
    """Rows that are token ids already: no template is used, only their lengths count."""
    lengths = [len(row.get("input_ids") or ()) for row in rows]
    most = settings.max_length
    yield Check(
        rule="template",
        severity="note",
        message=f"The rows are token ids (`input_ids`): TRL takes them as they are. Longest of {len(rows)}: "
        f"{max(lengths)} tokens.",
    )
    if most is not None and (cut := sum(length > most for length in lengths)):
        yield Check(
            rule="truncation",
            severity="warning",
            message=f"{cut} of {len(rows)} rows are longer than max_length {most} and are cut.",
            fix="Set max_length in hyperparameters.",
        )


def _evaluation_findings(
    constants: Constants, source: DataSource, rows: Sequence[Mapping[str, Any]], template: ChatTemplate
) -> Iterator[Check]:
    values = constants.values
    if not rows:
        yield _no_rows(source)
        return
    named = [values[name] for name in ("QUESTION_COLUMN", "CHOICES_COLUMN", "ANSWER_COLUMN") if name in values]
    absent = [str(name) for name in named if name not in rows[0]]
    if absent:
        yield Check(
            rule="evaluation_columns",
            severity="warning",
            message=f"{source.name} has no column {', '.join(absent)}; it has {', '.join(list(rows[0])[:20])}. "
            "Unless `prepare` of the evaluation makes it, the evaluation fails.",
            fix="Name the columns in the evaluation (question_column, choices_column, answer_column).",
        )
    chat = template.present if values.get("CHAT_TEMPLATE") is None else bool(values["CHAT_TEMPLATE"])
    if chat and not template.present:
        yield Check(
            rule="no_chat_template",
            severity="error",
            message="The evaluation asks in chat format, but the model has no chat template.",
            fix="Leave chat_template of the evaluation out.",
        )
    elif chat and values.get("SYSTEM") and template.system_role in ("refused", "dropped"):
        yield Check(
            rule="system_role",
            severity="error" if template.system_role == "refused" else "warning",
            message=f"The evaluation has a system message, which the chat template has {template.system_role}.",
            fix="Put it into the prompt of the evaluation.",
        )


def _unread() -> Check:
    return Check(
        rule="template_unread",
        severity="error",
        message="Not checked: its top does not say what it reads, or render_script knows no such trainer.",
        fix="Name MODEL, DATASET and HYPERPARAMETERS as constants, as render_script does.",
    )


def _uncounted(why: str) -> Check:
    return Check(
        rule="tokenizer_unavailable",
        severity="warning",
        message=f"Lengths were not measured: {why}",
        fix="Truncation and prompts that are too long are not seen without it.",
    )


def _broken(why: str) -> Check:
    return Check(
        rule="template_raises",
        severity="error",
        message=f"The chat template cannot be rendered at all: {why}",
        fix="Give another one: SFTConfig.chat_template_path, or a model whose template works.",
    )


def _no_rows(source: DataSource) -> Check:
    return Check(
        rule="data_unavailable",
        severity="error",
        message=f"Not checked: {source.name}, split {source.split}, has no rows.",
        fix="Choose another split.",
    )


def _unprepared() -> Check:
    return Check(
        rule="prepare_not_run",
        severity="warning",
        message="The rows were not rendered: they go through code that is more than a plain function of a row.",
        fix='Use level "dry_run", which runs it.',
    )
