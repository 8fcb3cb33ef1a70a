"""The account of content at the level `template`: what of the rows stands in what the model reads."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.tools.data.content import Account, add_row
from mlintern.tools.hub.chat_template import compile_template
from mlintern.tools.scripts.content_rules import content_findings
from mlintern.tools.scripts.rendered_rows import Format, read_rows

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}"
)
LOOSE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
LAST = "{{ messages[-1]['content'] }}"


def findings(rows: list[dict], *, trainer: str = "sft", template: str = CHATML) -> dict[str, str]:
    form = Format(compile_template(template), "<|im_end|>")
    reading = read_rows(trainer, rows, form=form)
    given = [rows[row.number] for row in reading.rendered]
    return {
        check.rule: check.message for check in content_findings(trainer, reading.rendered, given=given, remake=None)
    }


def talk(content: object, **more: object) -> dict:
    return {
        "messages": [
            {"role": "user", "content": "Name the next number"},
            {"role": "assistant", "content": content, **more},
        ]
    }


@pytest.mark.parametrize(
    ("content", "more", "place"),
    [
        ([{"type": "text", "text": "a text in a part"}], {}, "content[].text"),
        (1234567890123, {}, "messages[].content"),
        ("It is one since", {"reasoning_content": "a long thought of many words"}, "reasoning_content"),
    ],
)
def test_what_the_template_does_not_print_is_named(content: object, more: dict, place: str) -> None:
    assert place in findings([talk(content, **more)] * 3)["content_lost"]


def test_content_that_is_printed_as_an_object_is_named() -> None:
    found = findings([talk([{"type": "text", "text": "a text in a part"}])], template=LOOSE)
    assert "as Python has it" in found["content_as_object"]


def test_arguments_that_are_encoded_twice_are_named() -> None:
    call = {"type": "function", "function": {"name": "inc", "arguments": '{"n": 1}'}}
    template = (
        "{% for m in messages %}{{ m['content'] }}"
        "{% for c in m['tool_calls'] or [] %}{{ c | tojson }}{% endfor %}{% endfor %}"
    )
    assert "twice" in findings([talk("", tool_calls=[call])], template=template)["tool_arguments"]


def test_a_question_that_is_no_part_of_a_preference_pair_is_named() -> None:
    row = {
        "question": "What is the number after one?",
        "chosen": "The number is two.",
        "rejected": "A number is not that.",
    }
    assert "`question`" in findings([row] * 2, trainer="dpo")["content_lost"]


def test_sound_rows_have_no_finding() -> None:
    assert findings([talk("The number is two.")] * 2) == {}


WORDS = st.text(alphabet="abcdefgh", min_size=14, max_size=20)
VALUES = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), VALUES, st.sampled_from([CHATML, LOOSE, LAST]))
def test_what_is_said_to_arrive_stands_in_the_text(contents: list, extra: object, template: str) -> None:
    """The law of the account, over nested shapes and templates that print all, some or the last of it."""
    row = {"messages": [{"role": "user", "content": content} for content in contents], "notes": extra}
    reading = read_rows("sft", [row], form=Format(compile_template(template), ""))
    for rendered in reading.rendered:
        texts = list(rendered.answers.values())
        account = Account()
        add_row(account, row, made=texts)
        whole = " ".join("\n".join(texts).split())
        for place, line in account.lines.items():
            if line.lost == 0:
                assert all(text in whole for text in _texts_at(row, place)), place


def _texts_at(row: dict, place: str) -> list[str]:
    from mlintern.tools.data.content import leaves

    return [str(value) for where, _, value in leaves(row) if where == place]
