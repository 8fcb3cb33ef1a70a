"""Level `template`: the first rows as the model would read them, by its own tokenizer and chat template.

Nothing of the script is run and torch is not needed: templates are rendered in a sandbox. What the script is set to
is read from the constants at its top, so edited scripts are checked as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlintern.tools.data.token_lengths import load_tokenizer
from mlintern.tools.errors import BadInput, MissingDependency, MlinternError
from mlintern.tools.hub.chat_template import (
    ChatTemplate,
    analyse_template,
    compile_template,
    read_template,
    template_files,
)
from mlintern.tools.hub.inspect_model import CONTEXT_KEYS, read_config
from mlintern.tools.sandbox import worker
from mlintern.tools.scripts.content_rules import Remake, as_read, content_findings, texts_of
from mlintern.tools.scripts.dry_settings import Constants
from mlintern.tools.scripts.prepared_rows import Prepared, prepared
from mlintern.tools.scripts.rendered_rows import Count, Format, read_rows
from mlintern.tools.scripts.row_rules import Settings, row_findings
from mlintern.tools.scripts.script_inputs import DataSource, Materials, unavailable
from mlintern.tools.scripts.script_results import Check
from mlintern.tools.scripts.store import Script
from mlintern.tools.scripts.trainers.schema import config_schema

ROWS = 200
TRAINERS = ("sft", "dpo", "grpo")


@dataclass(frozen=True)
class _Model:
    """Where the files of a script's model lie. ``own``: those of the tokenizer, which an adapter may bring along."""

    whole: Path
    own: Path
    other_template: Path | None

    @property
    def tokenizer(self) -> Path:
        has = (self.own / "tokenizer_config.json").is_file() or (self.own / "tokenizer.json").is_file()
        return self.own if has else self.whole


@dataclass(frozen=True)
class _Tokenizer:
    """What of a model's tokenizer is needed. ``why`` not empty: tokens cannot be counted."""

    template: str | None
    eos: str | None
    bos: str
    context: int | None
    why: str = ""


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
            tokenizer = await worker.run(_read_tokenizer, constants, model)
        except MlinternError as error:
            return [unavailable("tokenizer_unavailable", f"tokenizer of {constants.model}", error=error)]
        checks: list[Check] = []
        if tokenizer.why:
            checks.append(_uncounted(tokenizer.why))
        template = await worker.run(analyse_template, tokenizer.template, tokenizer.eos)
        if template.error:
            return [*checks, _broken(template.error)]
        checks += await worker.run(_adapter_findings, constants, model.whole)
        source = constants.data().get("DATASET")
        if source is not None:
            checks += await self._training(script, constants, source, model, tokenizer, template)
        plan = constants.data().get("EVALUATION_DATASET")
        if plan is not None:
            checks += await self._evaluation(constants, plan, template)
        return checks

    async def _training(
        self,
        script: Script,
        constants: Constants,
        source: DataSource,
        model: _Model,
        tokenizer: _Tokenizer,
        template: ChatTemplate,
    ) -> list[Check]:
        trainer = (constants.config_class or "").removesuffix("Config").lower()
        if trainer not in TRAINERS:
            return [_unread()]
        try:
            found = await self._materials.first_rows(source, ROWS)
        except MlinternError as error:
            return [unavailable("data_unavailable", f"dataset {source.name}", error=error)]
        if not found.rows:
            return [_no_rows(source)]
        folder = None if tokenizer.why else model.tokenizer
        return await worker.run_on_data(_look, script, constants, trainer, found.rows, tokenizer, template, folder)

    async def _evaluation(self, constants: Constants, source: DataSource, template: ChatTemplate) -> list[Check]:
        try:
            found = await self._materials.first_rows(source, 5)
        except MlinternError as error:
            return [unavailable("data_unavailable", f"dataset {source.name}", error=error)]
        return list(_evaluation_findings(constants, source, found.rows, template))

    async def _model(self, constants: Constants) -> _Model:
        assert constants.model is not None
        other: Path | None = None
        if isinstance(path := _hyperparameters(constants).get("chat_template_path"), str):
            file = Path(path)
            folder = str(file.absolute()) if file.is_dir() else path
            other = file if file.is_file() else await self._materials.model_files(folder, None)
        return _Model(
            whole=await self._materials.whole_model_files(constants.model, constants.revision),
            own=await self._materials.model_files(constants.model, constants.revision),
            other_template=other,
        )


def _read_tokenizer(constants: Constants, model: _Model) -> _Tokenizer:
    files = template_files(model.tokenizer)
    template, eos = read_template(files)
    if model.other_template is not None:
        # SFTConfig.chat_template_path: a jinja file, or the model whose template is taken.
        other = model.other_template
        template = other.read_text(encoding="utf-8") if other.is_file() else read_template(template_files(other))[0]
    if isinstance(chosen := _hyperparameters(constants).get("eos_token"), str):
        eos = chosen
    return _Tokenizer(template, eos, _bos(files), _context(model.whole), _counter(model.tokenizer)[1])


def _look(
    script: Script,
    constants: Constants,
    trainer: str,
    rows: list[dict[str, Any]],
    tokenizer: _Tokenizer,
    template: ChatTemplate,
    counting: Path | None,
) -> list[Check]:
    """Findings about ``rows`` as the script trains on them. ``counting``: where the tokenizer lies, if it counts."""
    made = prepared(script, trainer, constants.values.get("COLUMNS"), rows)
    count = None if counting is None else _counter(counting)[0]
    settings = _settings(constants, trainer, tokenizer, count=count)
    if made is None:
        return [_unprepared(), *row_findings(trainer, None, template=template, settings=settings)]
    if made.rows and "input_ids" in made.rows[0]:
        return list(_token_rows(made.rows, settings))
    compiled = compile_template(tokenizer.template) if tokenizer.template else None
    more = _hyperparameters(constants).get("chat_template_kwargs") or {}
    form = Format(compiled, tokenizer.eos, {"bos_token": tokenizer.bos, **more})
    reading = read_rows(trainer, made.rows, form=form)
    checks = [
        *_left_out(made, len(rows)),
        *row_findings(trainer, reading, template=template, settings=settings),
    ]
    given = [made.given[row.number] for row in reading.rendered]
    remake = None if made.rows is not made.given else _remaker(trainer, made.rows[0], form)
    checks += content_findings(trainer, reading.rendered, given=given, remake=remake)
    shown = as_read(reading.rendered, count=count)
    for check in checks:
        if check.rule == "template":
            check.message += shown
    return checks


def _hyperparameters(constants: Constants) -> Mapping[str, Any]:
    given = constants.values.get("HYPERPARAMETERS")
    return given if isinstance(given, Mapping) else {}


def _remaker(trainer: str, first: dict[str, Any], form: Format) -> Remake:
    def remake(row: dict[str, Any]) -> list[str]:
        reading = read_rows(trainer, [first, row], form=form)
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


_LLAMA = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"})
PARTS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3"), _LLAMA),
    "gpt2": frozenset({"c_attn", "c_proj", "c_fc", "lm_head"}),
    "gpt_neox": frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "embed_out"}),
}
"""Architecture -> the names of its linear layers."""


def _adapter_findings(constants: Constants, folder: Path) -> list[Check]:
    return list(_modules(constants, folder))


def _modules(constants: Constants, folder: Path) -> Iterator[Check]:
    """Whether the modules that get an adapter are in the model."""
    lora = constants.values.get("LORA")
    targets = lora.get("target_modules") if isinstance(lora, Mapping) else None
    kind = str(read_config((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
    parts = PARTS.get(kind)
    if parts is None or not isinstance(targets, list | tuple) or not targets:
        return
    if not any(str(target).rpartition(".")[2] in parts for target in targets):
        yield Check(
            rule="lora_targets",
            severity="error",
            message=f"A {kind} model has no module {', '.join(map(str, targets))}: peft finds nothing to adapt.",
            fix=f"Use 'all-linear', or some of {', '.join(sorted(parts))}.",
        )


def _counter(folder: Path) -> tuple[Count | None, str]:
    try:
        tokenizer = load_tokenizer(folder)
    except (BadInput, MissingDependency) as error:
        return None, str(error)

    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), ""


def _bos(files: Mapping[str, str]) -> str:
    try:
        settings = json.loads(files.get("tokenizer_config.json", "{}"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"tokenizer_config.json is not valid JSON: {error}.", next_step="Save it again.") from error
    bos = settings.get("bos_token") if isinstance(settings, dict) else None
    bos = bos.get("content") if isinstance(bos, Mapping) else bos
    return bos if isinstance(bos, str) else ""


def _context(folder: Path) -> int | None:
    config = read_config((folder / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config")
    sizes = inner if isinstance(inner, Mapping) else config
    return next((sizes[key] for key in CONTEXT_KEYS if isinstance(sizes.get(key), int)), None)


def _settings(constants: Constants, trainer: str, tokenizer: _Tokenizer, *, count: Count | None) -> Settings:
    fields = config_schema(constants.config_class or "").fields
    hyperparameters = _hyperparameters(constants)

    def value(name: str) -> Any:
        return hyperparameters.get(name, fields[name].default if name in fields else None)

    splits = trainer == "sft" and value("packing") and value("packing_strategy") != "bfd"
    limits = [limit for limit in (tokenizer.context, value("vllm_max_model_length")) if isinstance(limit, int)]
    return Settings(
        count=count,
        eos=tokenizer.eos,
        template=tokenizer.template,
        max_length=None if splits else value("max_length"),
        max_completion_length=value("max_completion_length"),
        context=min(limits, default=None),
        assistant_only_loss=bool(value("assistant_only_loss")),
        keeps_start=value("truncation_mode") != "keep_end",
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
        message="Not checked: it does not say at its top what it reads, or its trainer is none of SFT, DPO and GRPO.",
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
