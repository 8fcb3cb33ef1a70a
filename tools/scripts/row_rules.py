"""What rendered rows and the chat template say about a training run, as findings."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlintern.tools.hub.chat_template import ChatTemplate
from mlintern.tools.scripts.rendered_rows import Count, Reading, Rendered
from mlintern.tools.scripts.script_results import Check, Severity

MANY = 0.05
"""From this share of the rows on, what happens to them is a warning and not a note."""


@dataclass(frozen=True)
class Settings:
    """What a run is set to. Lengths in tokens; None: no limit. ``count`` None: tokens cannot be counted.

    Attributes:
        context: the longest text that the model reads.
        keeps_start: what is too long loses its end.
    """

    count: Count | None
    eos: str | None
    template: str | None
    max_length: int | None
    max_completion_length: int | None
    context: int | None
    assistant_only_loss: bool
    keeps_start: bool


def row_findings(
    trainer: str, reading: Reading | None, *, template: ChatTemplate, settings: Settings
) -> Iterator[Check]:
    """Findings about the template and, if there is a ``reading``, about the rows."""
    conversational = reading is None or any(row.conversational for row in reading.rendered)
    if template.present and conversational and trainer != "grpo":
        yield from _stop_findings(template, settings)
    if settings.assistant_only_loss:
        yield from _mask_findings(template, settings)
    if reading is None:
        return
    yield from _not_rendered(reading)
    rows = reading.rendered
    yield from _roles(rows, template)
    yield from _answers(trainer, rows)
    yield from _lengths(trainer, rows, settings)
    if rows:
        yield _summary(rows, settings)


def _stop_findings(template: ChatTemplate, settings: Settings) -> Iterator[Check]:
    if template.stops_with_eos is False:
        yield Check(
            rule="stop_not_trained",
            severity="warning",
            message=f"An answer ends with {template.end_of_turn or 'nothing'!r}, not with the eos token "
            f"{settings.eos!r}: the model is not trained to stop where generation stops.",
            fix="Set eos_token in hyperparameters (SFT) to the token that ends an answer, or use a model whose "
            "tokenizer and template agree.",
        )
    if not settings.eos:
        yield Check(
            rule="stop_not_trained",
            severity="warning",
            message="The tokenizer has no eos token, so no answer is ended with one.",
            fix="Set eos_token in hyperparameters (SFT), or use another tokenizer.",
        )


def _mask_findings(template: ChatTemplate, settings: Settings) -> Iterator[Check]:
    if not template.present:
        return
    if not template.generation_markers and (known := _trl_knows(settings.template or "")) is not True:
        sure = known is False
        yield Check(
            rule="generation_markers",
            severity="error" if sure else "warning",
            message="assistant_only_loss is set, but the chat template has no {% generation %} markers"
            + (
                ", and it is none of those that TRL corrects by itself." if sure else "; TRL corrects some by itself."
            ),
            fix="Give a template with markers as chat_template_path, or train on prompt and completion instead.",
        )
    elif template.stop_token_trained is False:
        yield Check(
            rule="stop_not_trained",
            severity="warning",
            message=f"Under assistant_only_loss the end of an answer, {template.end_of_turn!r}, is not trained on: "
            "the model does not learn to stop.",
            fix="Move {% endgeneration %} behind the end of the turn in the template (chat_template_path).",
        )


def _trl_knows(template: str) -> bool | None:
    """Whether ``template`` is one of those that TRL replaces by a version with markers. None: TRL is not here."""
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        return None
    files = (Path(spec.origin).parent / "chat_templates").glob("*.jinja")
    return any(file.read_text(encoding="utf-8") == template for file in files)


def _not_rendered(reading: Reading) -> Iterator[Check]:
    if reading.refused:
        number, why = next(iter(reading.refused.items()))
        yield Check(
            rule="row_refused",
            severity="error",
            message=f"TRL stops at row {number}{_others(len(reading.refused))}: {why}.",
            fix="inspect_dataset says what to change, often with a ready `prepare`.",
        )
    if reading.raised:
        number, why = next(iter(reading.raised.items()))
        yield Check(
            rule="template_raises",
            severity="error",
            message=f"The chat template refuses row {number}{_others(len(reading.raised))}: {why}",
            fix="Correct or leave out such rows, or give another template (SFTConfig.chat_template_path).",
        )
    if reading.lacks_template:
        yield Check(
            rule="no_chat_template",
            severity="error",
            message="The rows are conversations, but the model has no chat template.",
            fix="Set chat_template_path in hyperparameters (SFT), or use an instruction-tuned model.",
        )


def _roles(rows: Sequence[Rendered], template: ChatTemplate) -> Iterator[Check]:
    if not template.present:
        return
    system = [row.number for row in rows if any(message.get("role") == "system" for message in row.messages)]
    if system and template.system_role == "dropped":
        yield Check(
            rule="system_role",
            severity="error",
            message=f"Row {system[0]}{_others(len(system))} has a system message, and the chat template drops it.",
            fix="Put it into the first user message with `prepare`.",
        )
    tools = [row.number for row in rows if _uses_tools(row)]
    if tools and "dropped" in (template.tools, template.null_content):
        yield Check(
            rule="tool_calls",
            severity="error",
            message=f"Row {tools[0]}{_others(len(tools))} offers or calls tools, and the chat template drops them.",
            fix="Use a model whose template knows tools, or leave such rows out.",
        )
    usual = ("system", "user", "assistant", "tool", "developer")
    odd = [(row.number, role) for row in rows for m in row.messages if (role := m.get("role")) not in usual]
    if odd and template.other_roles == "dropped":
        yield Check(
            rule="unknown_role",
            severity="error",
            message=f"Row {odd[0][0]} has a message by {odd[0][1]!r}, and the chat template drops it.",
            fix="Name the speakers user and assistant; `prepare` of inspect_dataset does.",
        )


def _uses_tools(row: Rendered) -> bool:
    offered = row.row.get("tools")
    return (bool(offered) and offered != "[]") or any(message.get("tool_calls") for message in row.messages)


def _answers(trainer: str, rows: Sequence[Rendered]) -> Iterator[Check]:
    empty = [(row.number, names) for row in rows if (names := row.empty())]
    if empty:
        yield Check(
            rule="empty_answer",
            severity=_all_or_warning(len(empty), len(rows)),
            message=f"Row {empty[0][0]}{_others(len(empty))}: {', '.join(empty[0][1])} says nothing.",
            fix="Leave such rows out.",
        )
    if trainer == "dpo":
        equal = [row.number for row in rows if row.row.get("chosen") == row.row.get("rejected")]
        if equal:
            yield Check(
                rule="equal_answers",
                severity=_all_or_warning(len(equal), len(rows)),
                message=f"Row {equal[0]}{_others(len(equal))}: chosen and rejected are alike; that teaches nothing.",
                fix="Leave such rows out.",
            )
    yield from _prefix(rows)


def _prefix(rows: Sequence[Rendered]) -> Iterator[Check]:
    pairs = [(row.number, row.prompt or "", text) for row in rows for text in row.answers.values() if row.prompt]
    odd = [pair for pair in pairs if not pair[2].startswith(pair[1])]
    if not odd:
        return
    number, prompt, text = odd[0]
    same = next((i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), len(text))
    alone, together = prompt[same : same + 60], text[same : same + 60]
    yield Check(
        rule="prompt_not_prefix",
        severity="warning",
        message=f"Row {number}{_others(len({pair[0] for pair in odd}))}: prompt and answer together do not begin as "
        f"the prompt alone does. Alone it goes on with {alone!r}, together with {together!r}: what is trained on "
        "differs from what the model sees later.",
        fix="Give chat_template_kwargs that make both alike (Qwen3: enable_thinking), or another template.",
    )


def _lengths(trainer: str, rows: Sequence[Rendered], settings: Settings) -> Iterator[Check]:
    count, most = settings.count, settings.max_length
    if count is None or not rows:
        return
    if trainer == "grpo":
        yield from _too_long_for_model(rows, settings)
        return
    if most is None:
        return
    lengths = [max(map(count, row.answers.values())) for row in rows]
    cut = [length for length in lengths if length > most]
    if cut:
        share = len(cut) / len(rows)
        yield Check(
            rule="truncation",
            severity="warning" if share >= MANY else "note",
            message=f"{share:.0%} of {len(rows)} rows are longer than max_length {most} and lose their "
            f"{'end, the stop token with it' if settings.keeps_start else 'beginning'} (median {_median(lengths)}, "
            f"longest {max(lengths)} tokens).",
            fix=f"Set max_length in hyperparameters, to {max(lengths)} for all of these, or leave long rows out.",
        )
    prompts = [row.number for row in rows if row.prompt is not None and count(row.prompt) >= most]
    if prompts and settings.keeps_start:
        yield Check(
            rule="prompt_too_long",
            severity=_all_or_warning(len(prompts), len(rows)),
            message=f"Row {prompts[0]}{_others(len(prompts))}: the prompt alone fills max_length {most}; TRL "
            "drops such rows in silence.",
            fix="Raise max_length in hyperparameters, or leave such rows out.",
        )
    if settings.context is not None and most > settings.context and max(lengths) > settings.context:
        yield Check(
            rule="context_length",
            severity="warning",
            message=f"The longest row has {max(lengths)} tokens; the model was made for {settings.context}.",
            fix=f"Set max_length in hyperparameters to at most {settings.context}.",
        )


def _too_long_for_model(rows: Sequence[Rendered], settings: Settings) -> Iterator[Check]:
    """GRPO cuts no prompt: prompt and completion together must fit into the model's context."""
    assert settings.count is not None
    if settings.context is None:
        return
    room = settings.context - (settings.max_completion_length or 0)
    lengths = {row.number: settings.count(row.prompt or "") for row in rows}
    over = [number for number, length in lengths.items() if length > room]
    if over:
        yield Check(
            rule="prompt_too_long",
            severity="error",
            message=f"Row {over[0]}{_others(len(over))}: a prompt of {lengths[over[0]]} tokens and a completion of "
            f"{settings.max_completion_length} do not fit into the model's {settings.context}.",
            fix="Leave such rows out, or lower max_completion_length in hyperparameters.",
        )


def _summary(rows: Sequence[Rendered], settings: Settings) -> Check:
    lengths = ""
    if settings.count is not None:
        texts = [max((row.prompt or "", *row.answers.values()), key=len) for row in rows]
        tokens = list(map(settings.count, texts))
        lengths = f" Tokens a row: median {_median(tokens)}, longest {max(tokens)}."
    return Check(
        rule="template",
        severity="note",
        message=f"The first {len(rows)} rows that could be rendered were looked at, not all rows.{lengths}",
    )


def _median(values: Sequence[int]) -> int:
    return round(statistics.median(values))


def _others(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _all_or_warning(count: int, total: int) -> Severity:
    return "error" if count == total else "warning"
