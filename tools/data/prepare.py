"""Ready `prepare` functions: Python that turns a row of this dataset into a row that a trainer takes.

A function is offered only after it was run on rows of every shape, the trainer's rules accepted what it made, and the
account of content found its text there. It returns the whole new row, or None to leave a row out; columns that it
does not return are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlintern.tools.data.cells import Cell, find, plain_key
from mlintern.tools.data.part_names import BAD, GOOD
from mlintern.tools.data.parts import Parts, index_of, truth_of
from mlintern.tools.data.prepare_code import (
    OPTIONS,
    Preparation,
    Writer,
    also_used,
    answer_code,
    answer_text,
    filled_code,
    message_code,
    option_code,
    question_code,
    tools_code,
    with_system,
)
from mlintern.tools.data.prepare_pairs import pair_preparations, scored_answers, whole_conversation
from mlintern.tools.data.prepare_texts import one_of_several, summaries, translations, two_columns
from mlintern.tools.data.talks import Talk


def preparations(trainer: str, parts: Parts) -> Iterator[Preparation]:
    """Candidates for ``trainer``, the most faithful first. The caller tries them on real rows."""
    if (kept := _as_they_are(trainer, parts)) is not None:
        yield kept
    yield from CANDIDATES[trainer](parts)


RIGHT_NAMES = {
    "sft": (("prompt", "completion"), ("text",)),
    "dpo": (("prompt", "chosen", "rejected"),),
    "reward": (("prompt", "chosen", "rejected"),),
    "kto": (("prompt", "completion", "label"), ("prompt", "chosen", "rejected")),
    "grpo": (("prompt",),),
    "rloo": (("prompt",),),
}


def _as_they_are(trainer: str, parts: Parts) -> Preparation | None:
    """Plain texts under the right names already: only what says nothing is left out."""
    columns = {cell.name: cell for cell in parts.cells if "." not in cell.name}
    for names in RIGHT_NAMES[trainer]:
        cells = [columns[name] for name in names if name in columns]
        texts = [cell for cell in cells if cell.name != "label"]
        if len(cells) < len(names) or any(
            cell.kind not in ("text", "null") or cell.name in parts.talks for cell in texts
        ):
            continue
        writer = Writer()
        writer.skip_unless(*(filled_code(cell) for cell in cells))
        words = "Keep the rows as they are; those in which one of these says nothing are left out: " + ", ".join(
            f"`{name}`" for name in names
        )
        if trainer in ("grpo", "rloo"):
            kept = "{name: value for name, value in row.items() if name not in ('prompts', 'completions')}"
            return writer.ready(f"{words}.", f"return {kept}")
        return writer.finish(f"{words}.", **{cell.name: cell.access for cell in cells})
    return None


def _sft(parts: Parts) -> Iterator[Preparation]:
    if parts.talk is not None and not (parts.question and parts.answer and parts.talk.cell.key == "input"):
        yield from _sft_on_talk(parts, parts.talk)
    if parts.choices and (index := index_of(parts)) is not None and parts.question:
        yield _multiple_choice(parts, parts.question, parts.choices, index)
    generated = one_of_several(parts)
    if generated is not None:
        yield generated  # whole answers of a model; beside them the bare answer is for a reward
    elif parts.question and parts.answer:
        yield from _sft_on_answers(parts, parts.question, parts.answer)
    yield from summaries(parts)
    yield from translations(parts)
    yield from two_columns(parts)
    if parts.chosen and (chosen := parts.talks.get(parts.chosen.name)) and whole_conversation(chosen):
        writer = Writer()
        writer.skip_unless(chosen.cell.access)
        yield writer.finish(
            f"Train on the preferred conversations: `{chosen.cell.name}` becomes `messages`.",
            messages=writer.talk(chosen),
        )
    if parts.chosen and parts.rejected:
        for made in pair_preparations(parts):
            yield Preparation(f"Train on the preferred answers. {made.fix}", made.code + _SFT_OF_PAIR)
    if (best := scored_answers(parts, pairs=False)) is not None:
        yield best
    if parts.text:
        if (title := find(parts.cells, ("title", "headline"), "text")) is not None:
            writer = Writer()
            writer.skip_unless(filled_code(parts.text))
            whole = f'{title.access} + "\\n\\n" + {parts.text.text()}'
            whole = whole if title.always else f"({whole} if {title.access} else {parts.text.text()})"
            yield writer.finish(
                f"Train on the text in `{parts.text.name}`, with `{title.name}` above it.", text=whole
            )
        writer = Writer()
        writer.skip_unless(filled_code(parts.text))
        yield writer.finish(f"Train on the text in `{parts.text.name}`.", text=parts.text.text())


_SFT_OF_PAIR = """

pair = prepare


def prepare(row):
    made = pair(row)
    if made is None:
        return None
    if "prompt" in made:
        return {"prompt": made["prompt"], "completion": made["chosen"]}
    return {"messages" if isinstance(made["chosen"], list) else "text": made["chosen"]}
"""


def _sft_on_talk(parts: Parts, talk: Talk) -> Iterator[Preparation]:
    writer = Writer()
    if not talk.cell.always:
        writer.skip_unless(talk.cell.access)
    messages = writer.talk(talk)
    if parts.system:
        messages = f"{with_system(parts.system, inside=messages)}"
    values = {"messages": messages}
    if parts.tools:
        values["tools"] = tools_code(writer, parts.tools)
    dropped = "" if parts.tools else ", and drop the other columns"
    system = f", with `{parts.system.name}` as the system message" if parts.system else ""
    reply = (
        parts.answer
        if parts.answer and parts.answer.name not in parts.talks and parts.answer.key == "ideal"
        else None
    )
    if reply:  # the input of an evaluation, and the answer beside it
        writer.skip_unless(filled_code(reply))
        yield writer.finish(
            f"Ask what `{talk.cell.name}` holds, and train on `{reply.name}`.",
            prompt=messages,
            completion=message_code("assistant", answer_text(reply)),
        )
        return
    yield writer.finish(
        f"Train on the conversation in `{talk.cell.name}`: keep it as `messages`{system}{dropped}.", **values
    )


def _sft_on_answers(parts: Parts, question: Cell, answer: Cell) -> Iterator[Preparation]:
    writer = Writer()
    writer.skip_unless(filled_code(question), filled_code(answer))
    prompt, completion = question_code(writer, parts, question=question), answer_code(writer, parts, answer=answer)
    also = also_used(parts, question, answer=answer)
    tools = {"tools": tools_code(writer, parts.tools)} if parts.tools else {}
    yield writer.finish(
        f"Make prompt and completion of `{question.name}` and `{answer.name}`{also}.",
        prompt=prompt,
        completion=completion,
        **tools,
    )


def _multiple_choice(parts: Parts, question: Cell, choices: Cell, index: Cell) -> Preparation:
    writer = Writer()
    right = option_code(writer, choices, index=index)
    asked = question_code(
        writer,
        parts,
        question=question,
        after=OPTIONS,
    )
    return writer.finish(
        f"Ask `{question.name}` with the options in `{choices.name}`; the completion is the right one, "
        f"by `{index.name}`.",
        prompt=asked,
        completion=message_code("assistant", f"f\"{{'ABCDEFGHIJKLMNOP'[{right}]}}. {{options[{right}]}}\""),
    )


def _kto(parts: Parts) -> Iterator[Preparation]:
    label = parts.label
    if label is not None and (test := _label_test(label)) is not None:
        code, words, drop = test
        if parts.talk and not (parts.question and parts.answer):
            writer = Writer()
            writer.skip_unless(parts.talk.cell.access)
            if drop:
                writer.lines += [f"if {drop}:", "    return None  # no verdict"]
            messages = writer.talk(parts.talk)
            messages = with_system(parts.system, inside=messages) if parts.system else messages
            writer.lines.append(f"messages = {messages}")
            yield writer.finish(
                f"The last message of `{parts.talk.cell.name}` is judged by `{label.name}` ({words}).",
                prompt="messages[:-1]", completion="messages[-1:]", label=code,
            )  # fmt: skip
        if parts.question and parts.answer:
            writer = Writer()
            writer.skip_unless(filled_code(parts.question), filled_code(parts.answer))
            if drop:
                writer.lines += [f"if {drop}:", "    return None  # no verdict"]
            yield writer.finish(
                f"Make `prompt`, `completion` and a true-or-false `label` of `{parts.question.name}`, "
                f"`{parts.answer.name}` and `{label.name}` ({words})"
                f"{also_used(parts, parts.question, answer=parts.answer)}.",
                prompt=question_code(writer, parts, question=parts.question),
                completion=answer_code(writer, parts, answer=parts.answer),
                label=code,
            )
    yield from pair_preparations(parts)


def _label_test(label: Cell) -> tuple[str, str, str] | None:
    """Python for a true-or-false label, its words, and Python for "says neither"."""
    access, seen = label.access, list(dict.fromkeys(label.present))
    if label.kind == "bool":
        return f"bool({access})", "true: wanted", "" if label.always else f"{access} is None"
    if label.kind == "number":
        numbers = [float(value) for value in seen]
        missing = "" if label.always else f"{access} is None"
        if set(numbers) <= {0.0, 1.0, -1.0}:
            return f"{access} > 0", "true above 0", missing
        low, high = min(numbers), max(numbers)
        middle = 0 if low < 0 < high else (low + high) / 2
        return f"{access} > {middle:g}", f"true above {middle:g}; choose your own limit", missing
    good = [value for value in seen if plain_key(value) in GOOD or value.strip() in GOOD]
    bad = [value for value in seen if plain_key(value) in BAD or value.strip() in BAD]
    if not good:
        return None
    unknown = [value for value in seen if value not in good and value not in bad]
    words = f"true: {', '.join(map(repr, good[:6]))}; false: {', '.join(map(repr, bad[:6])) or 'nothing else'}"
    drop = f"{access} not in {[*good, *bad]!r}" if unknown or not label.always else ""
    if unknown:
        words += f"; left out: {', '.join(map(repr, unknown[:6]))}"
    return f"{access} in {good!r}", words, drop


def _generating(parts: Parts) -> Iterator[Preparation]:
    truth = truth_of(parts)
    reserved = ("prompts", "completions")
    reward = f" A reward compares with `answer` (from `{truth.name}`)." if truth else ""
    if parts.choices and parts.question and (index := index_of(parts)) is not None:
        writer = Writer()
        option_code(writer, parts.choices, index=index)
        asked = question_code(
            writer,
            parts,
            question=parts.question,
            after=OPTIONS,
        )
        yield writer.finish(
            f"Ask `{parts.question.name}` with the options in `{parts.choices.name}`; `answer` is the letter of "
            "the right one, for a reward of exact match.",
            prompt=asked, answer='"ABCDEFGHIJKLMNOP"[right]',
        )  # fmt: skip
    if parts.question:
        writer = Writer()
        writer.skip_unless(filled_code(parts.question))
        asked = question_code(writer, parts, question=parts.question)
        writer.lines.append(f"kept = {{name: value for name, value in row.items() if name not in {reserved!r}}}")
        if truth and (marked := _final_of(writer, truth)):
            answer, reward = (
                ', "answer": final',
                f" `answer` is what stands {marked} of `{truth.name}`, for a reward.",
            )
            if truth.name == "answer" and all(cell.name != "solution" for cell in parts.cells):
                answer += f', "solution": {truth.access}'  # what leads to the answer stays
        else:
            answer = f', "answer": {answer_text(truth)}' if truth and truth.name != "answer" else ""
        yield writer.ready(
            f"Name the question `prompt` (from `{parts.question.name}`); the other columns stay and reach the reward"
            f" function.{reward}",
            f'return {{**kept, "prompt": {asked}{answer}}}',
        )
    source = parts.talk or (parts.talks.get(parts.chosen.name) if parts.chosen else None)
    if source:
        writer = Writer()
        writer.skip_unless(source.cell.access)
        messages = writer.talk(source)
        messages = with_system(parts.system, inside=messages) if parts.system else messages
        column = source.cell.name.split(".")[0]
        writer.lines += [
            f"messages = {messages}",
            'last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))',
            'answer = messages[last]["content"] if last < len(messages) else None',
            f"kept = {{name: value for name, value in row.items() if name not in {(column, *reserved)!r}}}",
        ]
        given = f', "answer": {answer_text(truth)}' if truth else ', "answer": answer'
        yield writer.ready(
            f"Split `{source.cell.name}`: everything before the last assistant message is the prompt, that message "
            f"is kept as `answer` for the reward function.{reward}",
            f'return {{**kept, "prompt": messages[:last]{given}}}',
        )


def _final_of(writer: Writer, truth: Cell) -> str:
    """Write ``final``, the answer in a worked solution that marks it as GSM8K or MATH do, and say where it stands."""
    if not truth.always or not all(isinstance(value, str) for value in truth.values):
        return ""
    if all("####" in value for value in truth.values):
        writer.lines.append(f'final = {truth.access}.rsplit("####", 1)[1].strip().replace(",", "")')
        return "behind `####`"
    if all("\\boxed{" in value for value in truth.values):
        writer.lines += [
            f"text = {truth.access}",
            'start = end = text.rindex("\\\\boxed{") + len("\\\\boxed{")',
            "depth = 1",
            "while depth and end < len(text):",
            '    depth += {"{": 1, "}": -1}.get(text[end], 0)',
            "    end += 1",
            "final = text[start : end - 1]",
        ]
        return "in the last `\\boxed{}`"
    return ""


CANDIDATES: dict[str, Callable[[Parts], Iterator[Preparation]]] = {
    "sft": _sft,
    "dpo": pair_preparations,
    "reward": pair_preparations,
    "kto": _kto,
    "grpo": _generating,
    "rloo": _generating,
}
