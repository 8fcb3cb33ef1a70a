"""Tells what a trainer takes: data, the fields that matter with our advice, and every other field on request."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from mlintern.common.text import cut_line
from mlintern.tools.errors import BadInput
from mlintern.tools.evals.suites import SUITES
from mlintern.tools.scripts.generate_recipe import GenerateRecipe
from mlintern.tools.scripts.hyperparameters import CONFIG_CLASSES, SET_BY_SCRIPT
from mlintern.tools.scripts.recipe import AnyRecipe, EvaluationRecipe
from mlintern.tools.scripts.rendered import RENDERED
from mlintern.tools.scripts.trainer_description import (
    FieldDescription,
    RemovedField,
    SuiteDescription,
    TrainerDescription,
)
from mlintern.tools.scripts.trainers import removed
from mlintern.tools.scripts.trainers.advice import TRAINERS, Trainer
from mlintern.tools.scripts.trainers.schema import (
    ConfigSchema,
    FieldSchema,
    config_schema,
    did_you_mean,
    removed_field,
)

MOST_FOUND = 25
HELP_CHARACTERS = 400
BRIEF = 50
"""Characters of the help of a field of our own recipes, where nothing was asked for."""


def describe_trainer(
    trainer: str, *, search: str | None = None, fields: Sequence[str] | None = None
) -> TrainerDescription:
    """Describe ``trainer`` (sft, dpo, grpo, rloo, kto, reward, distillation, evaluation, generate).

    Without ``search`` and ``fields``: the key fields, each with our advice, and the names of the others.

    Args:
        search: words; the fields whose name or help holds all of them, at most `MOST_FOUND`.
        fields: exact names; these fields, with the whole help.

    Raises:
        BadInput: there is no such trainer or field; the message names what is near, or what replaced it.
    """
    name = trainer.strip().lower().removesuffix("trainer").removesuffix("config")
    if name in OWN:
        return _own(name, search, fields)
    if name not in TRAINERS:
        raise BadInput(f"There is no trainer {trainer!r:.60}.", next_step=_instead(name))
    known, schema = TRAINERS[name], config_schema(CONFIG_CLASSES[name])
    gone = _removed(schema.name)
    own = [field.name for field in schema.fields.values() if field.owner != "TrainingArguments"]
    notes = list(known.notes)
    if fields:
        ours = _recipe_fields(RECIPES[name]) if name in RECIPES else {}
        chosen, gone = [ours.get(field) or _named(schema, known, field) for field in fields], []
    elif search:
        chosen, cut = _found(schema, known, search)
        gone = [entry for entry in gone if _holds(f"{entry.name} {entry.use}", search)]
        notes = [f"{cut} more fields match; use more words."] if cut else []
        if not chosen and not gone:
            notes.append("No field matches. Try one word, or a part of a name.")
    else:
        chosen = [_described(schema.fields[field], known, with_help=False) for field in known.advice]
        shared = len(schema.fields) - len(own)
        notes.append(f"{shared} fields of transformers.TrainingArguments work too; `search` finds them.")
        notes.append(f"The script sets these by itself: {', '.join(sorted(SET_BY_SCRIPT))}.")
    brief = not fields and not search
    return TrainerDescription(
        trainer=name,
        summary=known.summary,
        library=f"{schema.distribution} {schema.version}",
        config_class=schema.name,
        rendered=name in RENDERED,
        data=list(known.shapes),
        fields=chosen,
        recipe_fields=list(_recipe_lines(name, search)) if not fields else [],
        other_fields=[field for field in own if field not in known.advice] if brief else [],
        removed_fields=gone,
        notes=notes,
    )


def _described(field: FieldSchema, known: Trainer, *, with_help: bool) -> FieldDescription:
    return FieldDescription(
        name=field.name,
        type=field.type,
        default=field.default,
        advice=known.advice.get(field.name, ""),
        help=field.help if with_help else "",
        choices=[choice for choice in field.choices if choice is not None],
    )


def _named(schema: ConfigSchema, known: Trainer, name: str) -> FieldDescription:
    if name in schema.fields:
        return _described(schema.fields[name], known, with_help=True)
    gone = removed_field(schema.name, name)
    if gone is not None:
        raise BadInput(f"{schema.name} has no {name}: removed in {gone.since}.", next_step=f"Use {gone.use}.")
    hint = did_you_mean(name, schema.fields) or "Use `search` to find a field by a word."
    raise BadInput(f"{schema.name} has no field {name!r:.60}.", next_step=hint)


def _found(schema: ConfigSchema, known: Trainer, search: str) -> tuple[list[FieldDescription], int]:
    """Fields that hold all words, those with a word in their name first, and how many were cut."""
    matches = [field for field in schema.fields.values() if _holds(f"{field.name} {field.help}", search)]
    matches.sort(key=lambda field: (not _holds(field.name, search), field.owner == "TrainingArguments", field.name))
    described = [_described(field, known, with_help=True) for field in matches[:MOST_FOUND]]
    for field in described:
        if len(field.help) > HELP_CHARACTERS:
            field.help = field.help[:HELP_CHARACTERS].rsplit(" ", 1)[0] + " ... (whole text: fields=[name])"
    return described, max(0, len(matches) - MOST_FOUND)


def _holds(text: str, search: str) -> bool:
    haystack = text.lower().replace("_", " ")
    return all(word in haystack for word in search.lower().replace("_", " ").split())


def _removed(class_name: str) -> list[RemovedField]:
    own = removed.FIELDS.get(class_name, {})
    shared = {name: removed.FIELDS["TrainingArguments"][name] for name in ("warmup_ratio", "evaluation_strategy")}
    return [
        RemovedField(name=name, removed_in=entry.since, use=entry.use) for name, entry in {**own, **shared}.items()
    ]


def _own(trainer: str, search: str | None, fields: Sequence[str] | None) -> TrainerDescription:
    """A recipe that is ours rather than a library's."""
    kind = OWN[trainer]
    described = _recipe_fields(kind.recipe)
    chosen = list(described.values())
    if fields:
        unknown = next((name for name in fields if name not in described), None)
        if unknown is not None:
            hint = did_you_mean(unknown, described) or f"Fields: {', '.join(described)}."
            raise BadInput(f"{kind.called} has no field {unknown!r:.60}.", next_step=hint)
        chosen = [described[name] for name in fields]
    elif search:
        chosen = [field for field in chosen if _holds(f"{field.name} {field.help}", search)]
    else:
        chosen = [field.model_copy(update={"help": cut_line(field.help, BRIEF)}) for field in chosen]
    suites = _suites(search) if trainer == "evaluation" and search and not fields else []
    return TrainerDescription(
        suites=suites,
        trainer=trainer,
        summary=kind.summary,
        library="mlintern",
        rendered=True,
        data=list(kind.data),
        fields=chosen,
        notes=list(kind.notes),
    )


def _recipe_fields(recipe: type[BaseModel]) -> dict[str, FieldDescription]:
    return {
        name: FieldDescription(
            name=name,
            type=_spelt(field.annotation),
            default=None if field.is_required() else field.default,
            help=" ".join(filter(None, (field.description, _inner_fields(field.annotation)))),
        )
        for name, field in recipe.model_fields.items()
    }


def _spelt(annotation: Any) -> str:
    """A type without what only checks values: ``tuple[float, float]``, not its bounds."""
    name = str(_bare(annotation))
    return re.sub(r"<class '([^']*)'>", r"\1", name.replace("typing.", ""))


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if isinstance(annotation, types.GenericAlias):
        return types.GenericAlias(get_origin(annotation), tuple(_bare(part) for part in get_args(annotation)))
    return annotation


def _inner_fields(annotation: Any) -> str:
    """The fields of the model inside ``annotation``, if there is one; those of an evaluation are told apart."""
    parts = [annotation, *get_args(annotation), *(deep for part in get_args(annotation) for deep in get_args(part))]
    inner = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
    if inner is None:
        return ""
    if inner.model_fields.keys() <= EvaluationRecipe.model_fields.keys():
        return "Its fields: describe_trainer(trainer='evaluation')."
    return f"Fields: {', '.join(inner.model_fields)}."


def _recipe_lines(trainer: str, search: str | None) -> Iterator[str]:
    """``name: meaning`` of each field of the trainer's recipe, or of those that hold the words."""
    for name, field in _recipe_fields(RECIPES[trainer]).items() if trainer in RECIPES else ():
        told = field.help if search else field.help.partition(". ")[0]  # the rest is there for who asks
        line = f"{name}: {told}" if told else name
        if name not in ("trainer", "hyperparameters") and (not search or _holds(line, search)):
            yield line


RECIPES: Mapping[str, type[BaseModel]] = dict(zip(RENDERED, get_args(AnyRecipe), strict=True))


def _suites(search: str) -> list[SuiteDescription]:
    """All of them for ``suite``; else those that match."""
    wanted = [
        suite
        for suite in SUITES.values()
        if _holds("suites", search) or _holds(f"{suite.name.replace('-', ' ')} {suite.summary}", search)
    ]
    return [SuiteDescription(suite=suite.name, about=suite.summary) for suite in wanted]


@dataclass(frozen=True)
class _Own:
    recipe: type[BaseModel]
    called: str
    summary: str
    data: tuple[str, ...]
    notes: tuple[str, ...]


OWN: Mapping[str, _Own] = {
    "evaluation": _Own(
        EvaluationRecipe,
        "An evaluation recipe",
        "Measure a model: multiple choice by the likelihood of the options, or answers that it writes, by a scorer.",
        (
            "question, choices (list), answer (index from 0, letter or text), id if there is one: multiple choice",
            "question, answer, id if there is one: written answers (exact, numeric, math_verify, regex, json, code, "
            "judge, or a function)",
        ),
        (
            "These are fields of the recipe itself; a training recipe takes them under `evaluation`.",
            "The whole text of a field: `fields` or `search`.",
            f"Benchmarks for `suite`: {', '.join(SUITES)}. `search` says what each is.",
        ),
    ),
    "generate": _Own(
        GenerateRecipe,
        "A recipe to generate",
        "Let a model or an endpoint answer prompts, verify the answers, and keep them as a dataset for training.",
        ("prompt (text or chat messages), answer for the verifier, id if there is one; or a list of prompts",),
        (
            "The dataset is output/dataset of the job, with a card; samples.jsonl holds every answer.",
            'Rejection sampling: keep "correct" or "best", then sft. Pairs for dpo: keep "pairs". Prompts that teach '
            "grpo something: pass_rate (0.01, 0.99).",
        ),
    ),
}


def _instead(name: str) -> str:
    if name in removed.TRAINERS:
        gone = removed.TRAINERS[name]
        return f"It is no stable trainer of {gone.since}. Use {gone.use}."
    known = [*TRAINERS, *OWN]
    return did_you_mean(name, known) or f"One of: {', '.join(known)}."
