"""Candidates that make pairs of answers: preferred and rejected, two sides and a winner, lists with scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlintern.tools.data.cells import Cell, find
from mlintern.tools.data.part_names import SCORED, SCORED_TEXTS, SCORES, SIDES, VERDICTS
from mlintern.tools.data.parts import Parts
from mlintern.tools.data.prepare_code import (
    Preparation,
    Writer,
    also_used,
    answer_code,
    filled_code,
    message_code,
    plain_or_talk_code,
    question_code,
    turn_code,
    with_system,
)
from mlintern.tools.data.talks import Talk, role_of


def pair_preparations(parts: Parts) -> Iterator[Preparation]:
    if parts.chosen and parts.rejected:
        yield from _pairs_of(parts, parts.chosen, parts.rejected)
    if parts.rejected and not parts.chosen:
        rejected = parts.rejected
        if parts.talk:
            writer = Writer()
            writer.skip_unless(parts.talk.cell.access, filled_code(rejected))
            messages = writer.talk(parts.talk)
            if parts.system:
                messages = with_system(parts.system, inside=messages)
            writer.lines.append(f"messages = {messages}")
            bad = (
                writer.talk(parts.talks[rejected.name])
                if rejected.name in parts.talks
                else message_code("assistant", rejected.text())
            )
            if rejected.name in parts.talks and whole_conversation(parts.talks[rejected.name]):
                yield writer.finish(
                    f"`{parts.talk.cell.name}` is the better conversation, `{rejected.name}` the worse one.",
                    chosen="messages", rejected=bad,
                )  # fmt: skip
                return
            yield writer.finish(
                f"The last message of `{parts.talk.cell.name}` is the better answer, "
                f"`{rejected.name}` the worse one.",
                prompt="messages[:-1]", chosen="messages[-1:]", rejected=bad,
            )  # fmt: skip
        if parts.question and parts.answer:
            writer = Writer()
            writer.skip_unless(filled_code(parts.question), filled_code(parts.answer), filled_code(rejected))
            yield writer.finish(
                f"`{parts.answer.name}` is the better answer to `{parts.question.name}`, "
                f"`{rejected.name}` the worse one"
                f"{also_used(parts, parts.question, answer=parts.answer)}.",
                prompt=question_code(writer, parts, question=parts.question),
                chosen=answer_code(writer, parts, answer=parts.answer),
                rejected=turn_code(writer, parts, cell=rejected),
            )
    yield from _sides(parts)
    if (scored := scored_answers(parts, pairs=True)) is not None:
        yield scored


def _pairs_of(parts: Parts, chosen: Cell, rejected: Cell) -> Iterator[Preparation]:
    one, other = parts.talks.get(chosen.name), parts.talks.get(rejected.name)
    if one and other and whole_conversation(one):
        writer = Writer()
        writer.skip_unless(filled_code(chosen), filled_code(rejected))
        first, second = writer.talk(one), writer.talk(other)
        writer.lines += [f"chosen = {first}", f"rejected = {second}"]
        writer.lines += [
            "shared = 0",
            "while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:",
            "    shared += 1",
            "if not shared:",
            "    return None  # they share no question",
        ]
        extra = f"; a separate `{parts.question.name}` must go" if parts.question else ""
        prompt = with_system(parts.system, inside="chosen[:shared]") if parts.system else "chosen[:shared]"
        yield writer.finish(
            f"Give `chosen` and `rejected` alone: they hold whole conversations, "
            f"whose common start is the prompt{extra}.",
            prompt=prompt, chosen="chosen[shared:]", rejected="rejected[shared:]",
        )  # fmt: skip
    if parts.question:
        writer = Writer()
        writer.skip_unless(filled_code(parts.question), filled_code(chosen), filled_code(rejected))
        yield writer.finish(
            f"Make `prompt`, `chosen` and `rejected` all lists of messages, from `{parts.question.name}`, "
            f"`{chosen.name}` and `{rejected.name}`{also_used(parts, parts.question, answer=None)}.",
            prompt=question_code(writer, parts, question=parts.question),
            chosen=turn_code(writer, parts, cell=chosen),
            rejected=turn_code(writer, parts, cell=rejected),
        )
    elif parts.talk:
        writer = Writer()
        writer.skip_unless(filled_code(chosen), filled_code(rejected))
        messages = writer.talk(parts.talk)
        yield writer.finish(
            f"`{parts.talk.cell.name}` is the prompt of `{chosen.name}` and `{rejected.name}`.",
            prompt=with_system(parts.system, inside=messages) if parts.system else messages,
            chosen=turn_code(writer, parts, cell=chosen), rejected=turn_code(writer, parts, cell=rejected),
        )  # fmt: skip
    writer = Writer()
    writer.skip_unless(filled_code(chosen), filled_code(rejected))
    yield writer.finish(
        f"Name the columns `chosen` and `rejected` (here: `{chosen.name}`, `{rejected.name}`).",
        chosen=plain_or_talk_code(writer, parts, cell=chosen),
        rejected=plain_or_talk_code(writer, parts, cell=rejected),
    )


def _sides(parts: Parts) -> Iterator[Preparation]:
    """Two answers and which of them won."""
    keys = {cell.key: cell for cell in parts.cells}
    pair = next(((keys[a], keys[b]) for a, b in SIDES if a in keys and b in keys and keys[a].present), None)
    if pair is None:
        return
    verdict = find(parts.cells, VERDICTS, "text", "number", "bool", taken=[cell.name for cell in pair])
    first = _first_wins(verdict, pair) if verdict else None
    if verdict is None or first is None:
        return
    test, drop, words = first
    question = parts.question
    if all(cell.name in parts.talks and whole_conversation(parts.talks[cell.name]) for cell in pair):
        writer = Writer()
        if drop:
            writer.lines += [f"if {drop}:", "    return None  # no winner"]
        left, right = (turn_code(writer, parts, cell=cell) for cell in pair)
        writer.lines += [f"first, second = {left}, {right}", f"if not ({test}):", "    first, second = second, first"]
        yield writer.finish(
            f"The better of the conversations `{pair[0].name}` and `{pair[1].name}` by `{verdict.name}` is chosen "
            f"({words}).",
            chosen="first", rejected="second",
        )  # fmt: skip
        return
    for talk in (True, False):
        if talk and not (parts.talk and parts.talk.cell.name not in (pair[0].name, pair[1].name)):
            continue
        if not talk and question is None:
            continue
        writer = Writer()
        if drop:
            writer.lines += [f"if {drop}:", "    return None  # no winner"]
        left, right = (turn_code(writer, parts, cell=cell) for cell in pair)
        if talk:
            assert parts.talk is not None
            asked = writer.talk(parts.talk)
            asked = with_system(parts.system, inside=asked) if parts.system else asked
        else:
            assert question is not None
            writer.skip_unless(filled_code(question), filled_code(pair[0]), filled_code(pair[1]))
            asked = question_code(writer, parts, question=question)
        writer.lines += [f"first, second = {left}, {right}", f"if not ({test}):", "    first, second = second, first"]
        yield writer.finish(
            f"The better of `{pair[0].name}` and `{pair[1].name}` by `{verdict.name}` is chosen ({words}).",
            prompt=asked, chosen="first", rejected="second",
        )  # fmt: skip
        return


def _first_wins(verdict: Cell, pair: tuple[Cell, Cell]) -> tuple[str, str, str] | None:
    """Python for "the first of two won", for "neither did", and both in words."""
    seen = list(dict.fromkeys(verdict.present))
    access = verdict.access
    if verdict.kind == "bool":
        return access, "", "true: the first"
    if all(isinstance(value, str) for value in seen):
        ends = [(cell.key.rsplit("_", 1)[-1], cell.key) for cell in pair]
        firsts = [value for value in seen if _says_side(value, ends[0], "a", "first")]
        seconds = [value for value in seen if _says_side(value, ends[1], "b", "second")]
        if not firsts and not seconds:
            return None
        known = [*firsts, *seconds]
        drop = "" if set(known) >= set(seen) and verdict.always else f"{access} not in {known!r}"
        return f"{access} in {firsts!r}", drop, f"{', '.join(map(repr, firsts)) or 'nothing else'}: the first"
    numbers = sorted({float(value) for value in seen})
    if set(numbers) <= {1.0, 2.0} and 2.0 in numbers:
        return f"{access} == 1", "" if verdict.always else f"{access} is None", "1: the first, 2: the second"
    if set(numbers) <= {0.0, 1.0}:
        zero = pair[0].key.endswith("0") or verdict.key.endswith("_id")
        if zero:
            return f"{access} == 0", "" if verdict.always else f"{access} is None", "0: the first, 1: the second"
        return f"{access} == 1", "" if verdict.always else f"{access} is None", "1: the first, 0: the second"
    if verdict.key in ("overall_preference", "preference_strength") and min(numbers) < 0:  # as HelpSteer has it
        return f"{access} < 0", f"not {access}", "below 0: the first, above: the second"
    if min(numbers) < 0 < max(numbers):
        return f"{access} > 0", f"not {access}", "above 0: the first, below: the second"
    return None


def _says_side(value: str, end: tuple[str, str], letter: str, word: str) -> bool:
    text = value.strip().lower().replace(" ", "_")
    names = [end[0], end[1], word, letter if end[0] == letter else end[0], f"[[{end[0]}]]", f"{end[0]}_wins"]
    names += [f"{word}_response"]
    names += [f"{kind}_{end[0]}" for kind in ("model", "response", "option", "answer", "assistant")]
    return text in names


def scored_answers(parts: Parts, *, pairs: bool) -> Preparation | None:
    """A list of answers with scores: the best against the worst; two without scores: the first against the second."""
    for key in SCORED:
        for cell in parts.cells:
            if cell.key != key or cell.kind != "list" or cell.name in (parts.talk.cell.name if parts.talk else "",):
                continue
            found = _ranked(parts, cell)
            if found is None:
                continue
            lines, words = found
            writer = Writer()
            question = parts.question if parts.question and parts.question.name != cell.name else None
            if question is None and parts.talk is None:
                return None
            writer.skip_unless(filled_code(question) if question else parts.talk.cell.access)  # type: ignore[union-attr]
            writer.lines += lines
            asked = question_code(writer, parts, question=question) if question else writer.talk(parts.talk)  # type: ignore[arg-type]
            if not pairs:
                return writer.finish(
                    f"Train on {words[0]}.", prompt=asked, completion=message_code("assistant", "best")
                )
            return writer.finish(
                f"Take {words[0]} as chosen and {words[1]} as rejected.",
                prompt=asked, chosen=message_code("assistant", "best"), rejected=message_code("assistant", "worst"),
            )  # fmt: skip
    return None


def _ranked(parts: Parts, cell: Cell) -> tuple[list[str], tuple[str, str]] | None:
    items = [item for value in cell.present for item in value]
    if not items:
        return None
    if all(isinstance(item, Mapping) for item in items):
        keys = set.intersection(*(set(item) for item in items))
        text = next(
            (name for name in SCORED_TEXTS if name in keys and all(isinstance(item[name], str) for item in items)),
            None,
        )
        score = next(
            (name for name in SCORES if name in keys and all(isinstance(item[name], int | float) for item in items)),
            None,
        )
        if not text or not score:
            return None
        reverse = "" if score.startswith("rank") else ", reverse=True"
        lines = [f"ranked = sorted({cell.access}, key=lambda one: one[{score!r}]{reverse})"]
        last = [f"best, worst = ranked[0][{text!r}], ranked[-1][{text!r}]"]
        test = f"if len(ranked) < 2 or ranked[0][{score!r}] == ranked[-1][{score!r}]:"
        by = f"by `{score}`"
    elif all(isinstance(item, str) for item in items):
        scores = next(
            (one for one in parts.cells if one.key in SCORES and one.kind == "list" and _numbers(one)), None
        )
        if scores is not None:
            reverse = "" if scores.key.startswith("rank") else ", reverse=True"
            lines = [f"ranked = sorted(zip({scores.access}, {cell.access}), key=lambda one: one[0]{reverse})"]
            last = ["best, worst = ranked[0][1], ranked[-1][1]"]
            test = "if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:"
            by = f"by `{scores.name}`"
        elif all(len(value) == 2 for value in cell.present):
            lines = [f"best, worst = {cell.access}"]
            return lines, (f"the first of `{cell.name}`", "the second (nothing says which is better: make sure)")
        else:
            return None
    else:
        return None
    lines += [test, "    return None  # no answer is better than another", *last]
    return lines, (f"the best of `{cell.name}` {by}", "the worst")


def _numbers(cell: Cell) -> bool:
    return all(isinstance(item, int | float) for value in cell.present for item in value)


def whole_conversation(talk: Talk) -> bool:
    """Whether its conversations begin with a question."""
    return any(role_of(str(turns[0].get(talk.role))) in ("user", "system") for turns in talk.examples if turns)
