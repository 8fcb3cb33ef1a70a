"""Candidates for SFT whose rows ask no question in so many words: documents, translations, several whole answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlintern.tools.data.cells import find
from mlintern.tools.data.part_names import (
    CORRECTNESS,
    DOCUMENTS,
    LANGUAGES,
    SOURCE_LANGUAGES,
    SUMMARIES,
    TARGET_LANGUAGES,
)
from mlintern.tools.data.parts import Parts, truth_of
from mlintern.tools.data.prepare_code import Preparation, Writer, filled_code, message_code, question_code


def summaries(parts: Parts) -> Iterator[Preparation]:
    texts = [cell for cell in parts.cells if cell.kind == "text"]
    summary = find(texts, SUMMARIES)
    document = find(texts, DOCUMENTS, taken=[summary.name] if summary else [])
    if not summary or not document:
        return
    writer = Writer()
    writer.skip_unless(filled_code(document), filled_code(summary))
    yield writer.finish(
        f"Ask for a summary of `{document.name}`; `{summary.name}` is the completion.",
        prompt=message_code("user", f'"Summarize:\\n\\n" + {document.access}'),
        completion=message_code("assistant", summary.access),
    )


def translations(parts: Parts) -> Iterator[Preparation]:
    for cell in parts.cells:
        structs = [value for value in cell.present if isinstance(value, Mapping)]
        if cell.key not in ("translation", "translations") or not structs:
            continue
        languages = [key for key in structs[0] if isinstance(structs[0][key], str)][:2]
        if len(languages) == 2:
            one, other = languages
            writer = Writer()
            writer.skip_unless(f"{cell.access}[{one!r}]", f"{cell.access}[{other!r}]")
            yield writer.finish(
                f"Ask for a translation from {one} to {other} (`{cell.name}`).",
                prompt=message_code("user", f'"Translate from {one} to {other}:\\n\\n" + {cell.access}[{one!r}]'),
                completion=message_code("assistant", f"{cell.access}[{other!r}]"),
            )


def two_columns(parts: Parts) -> Iterator[Preparation]:
    """A text and what is to be made of it: ``source`` and ``target``, or a column for each of two languages."""
    texts = [cell for cell in parts.cells if cell.kind == "text" and "." not in cell.name]
    source, target = find(texts, ("source", "src", "source_text")), find(texts, ("target", "tgt", "target_text"))
    if source and target:
        one, other = find(texts, SOURCE_LANGUAGES), find(texts, TARGET_LANGUAGES)
        writer = Writer()
        writer.skip_unless(filled_code(source), filled_code(target))
        if one and other:
            asked = f'f"Translate from {{{one.access}}} to {{{other.access}}}:\\n\\n" + {source.access}'
            words = f"Ask for a translation of `{source.name}` from `{one.name}` to `{other.name}`"
        else:
            asked = source.access
            words = f"Ask `{source.name}` (nothing says what is to be done with it: write the task before it)"
        yield writer.finish(
            f"{words}; `{target.name}` is the completion.",
            prompt=message_code("user", asked),
            completion=message_code("assistant", target.access),
        )
        return
    known = [
        (cell, language)
        for cell in texts
        if (language := _language(cell.key)) and (cell.key != "id" or any(" " in value for value in cell.present))
    ]
    if len(known) == 2:
        (first, one_name), (second, other_name) = known
        writer = Writer()
        writer.skip_unless(filled_code(first), filled_code(second))
        yield writer.finish(
            f"Ask for a translation from {one_name} (`{first.name}`) to {other_name} (`{second.name}`).",
            prompt=message_code("user", f'"Translate from {one_name} to {other_name}:\\n\\n" + {first.access}'),
            completion=message_code("assistant", second.access),
        )


def _language(key: str) -> str | None:
    """The language that a column is named after: ``en``, ``english``, ``text_en``, ``en_text``, ``en_us``."""
    words = [word for word in key.split("_") if word not in ("text", "sentence", "translation", "src", "tgt")]
    if not words or len(words) > 2 or (len(words) == 2 and len(words[1]) != 2):
        return None
    name = words[0].capitalize()
    return LANGUAGES.get(words[0]) or (name if name in LANGUAGES.values() else None)


def one_of_several(parts: Parts) -> Preparation | None:
    """Several whole answers of a model beside the bare one: a right one, if that is known, else the first."""
    cell = next(
        (one for one in parts.cells if one.key in ("generations", "completions", "responses") and one.kind == "list"),
        None,
    )
    items = [item for value in (cell.present if cell else ()) for item in value]
    if cell is None or parts.question is None or not items or not all(isinstance(item, str) for item in items):
        return None
    truth = truth_of(parts)
    if truth is None or truth.kind not in ("text", "number"):
        return None
    verdicts = next((one for one in parts.cells if one.key in CORRECTNESS and one.kind == "list"), None)
    writer = Writer()
    writer.skip_unless(filled_code(parts.question), cell.access)
    if verdicts is not None:
        right = f"[text for text, right in zip({cell.access}, {verdicts.access} or []) if right and text]"
        writer.lines += [f"right = {right}", "if not right:", "    return None  # none is right"]
        words = f"Train on the first of `{cell.name}` that is right by `{verdicts.name}`"
    else:
        shown = truth.text()
        writer.lines += [
            f"right = [text for text in {cell.access} if {shown} in text] or {cell.access}",
        ]
        words = f"Train on the first of `{cell.name}` in which `{truth.name}` stands, else on the first"
    asked = question_code(writer, parts, question=parts.question)
    return writer.finish(
        f"{words}, not on the bare `{truth.name}`.", prompt=asked, completion=message_code("assistant", "right[0]")
    )
