"""Consent: what rules cover and what they never do, what reaches a person, what reaches the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import pytest

from mlintern.common.consent import Action, BadRule, Rule, covering, suggested
from mlintern.orchestrator.approvals import Approver, Decision, Request, restore
from mlintern.orchestrator.mcp_connection import Answer, Question
from mlintern.orchestrator.ui.consent import consent_lines, read_consent
from tests.orchestrator.lab import Record, Watcher

pytestmark = pytest.mark.anyio

CONSENT = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "required": ["approve"],
}


def question(
    *,
    where: str = "local",
    hours: float = 0.25,
    usd: float | None = 0.0,
    what: str = "Start script train (ab12cd)",
    tool: str = "submit_job",
    digest: str = "ab12cd34ef56",
    **arguments: Any,
) -> Question:
    """The question as our own server words it."""
    action = Action(
        kind=tool, what=what, where=where, hardware="cpu", usd_worst=usd, seconds=hours * 3600, digest=digest
    )
    message = f"{action.headline}?\nscript: train.py\nsha256: 0123"
    arguments = {"script_id": "new", "backend": where} | arguments
    meta = action.to_meta()
    return Question(server="mlintern", message=message, schema=CONSENT, tool=tool, arguments=arguments, meta=meta)


class Clerk:
    """A person who answers by script and remembers what they were shown."""

    def __init__(self, *decisions: Decision) -> None:
        self.shown: list[Request] = []
        self.decisions = list(decisions)
        self.at_once = 0

    async def decide(self, request: Request) -> Decision:
        self.at_once += 1
        assert self.at_once == 1, "two questions at the same time"
        await anyio.sleep(0)
        self.shown.append(request)
        self.at_once -= 1
        return self.decisions.pop(0)

    async def fill_in(self, question: Question) -> Answer:
        return Answer(action="accept", content={"name": "x"})


def approver(*rules: str, person: Clerk | None = None) -> Approver:
    return Approver(rules=[Rule.parse(text) for text in rules], journal=Record(), ui=Watcher(), person=person)


YES = {"approve": True}


# --- rules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "asked", "covered"),
    [
        ("submit_job:local<=30m", {"hours": 0.5}, True),
        ("submit_job:local<=30m", {"hours": 0.51}, False),
        ("submit_job:local<=2h", {"hours": 2.0}, True),
        ("submit_job:local<=30m", {"hours": 0.25, "usd": 1.0}, False),
        ("submit_job:local<=30m", {"where": "slurm"}, False),
        ("submit_job:local<=30m", {"tool": "publish_to_hub"}, False),
        ("submit_job:local", {"hours": 99.0}, True),
        ("submit_job", {"where": "slurm"}, True),
        ("local<=30m", {"hours": 0.5}, True),
        ("local<=30m", {"tool": "check_script", "hours": 0.1}, True),
        ("local<=30m", {"tool": "cancel_job", "hours": 0.1}, False),
        ("local<=1h30m", {"hours": 1.5}, True),
        ("hf<=$5", {"where": "hf_jobs", "usd": 5.0}, True),
        ("submit_job:hf<=5usd", {"where": "hf_jobs", "usd": 5.0}, True),
        ("submit_job:hf<=5usd", {"where": "hf_jobs", "usd": 5.01}, False),
        ("submit_job:hf<=5usd", {"where": "hf_jobs", "usd": None}, False),
        ("submit_job:hf<=5$", {"where": "hf_jobs", "usd": 1.0}, True),
        ("submit_job:hf", {"where": "hf_jobs", "usd": 0.01}, False),
        ("cancel_job:local", {"tool": "cancel_job", "hours": 0.0}, True),
    ],
)
async def test_a_rule_covers_what_it_says_and_nothing_else(rule: str, asked: dict[str, Any], covered: bool) -> None:
    answer = await approver(rule)(question(**asked))
    assert (answer.content == YES) is covered


async def test_a_limit_of_money_holds_for_everything_together() -> None:
    approve = approver("submit_job:hf<=5usd")
    answers = [await approve(question(where="hf_jobs", usd=2.0, digest=f"ab12cd34ef{n}0")) for n in range(4)]
    assert [answer.content == YES for answer in answers] == [True, True, False, False]


async def test_calls_at_the_same_time_cannot_jointly_pass_a_limit() -> None:
    approve = approver("submit_job:hf<=5usd")
    answers: list[Answer] = []

    async def ask(number: int) -> None:
        answers.append(await approve(question(where="hf_jobs", usd=2.0, digest=f"ab12cd34ef{number}0")))

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, number)
    assert sum(answer.content == YES for answer in answers) == 2


async def test_several_rules_for_one_backend_must_all_hold() -> None:
    approve = approver("hf<=5usd", "hf<=1h")
    assert (await approve(question(where="hf_jobs", usd=2.0, hours=1.0))).content == YES
    assert (await approve(question(where="hf_jobs", usd=2.0, hours=1.1))).content != YES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "local<=",
        "local<=30",
        "local<=30x",
        "a b",
        "local<=-3m",
        "foo",
        "foo<=30m",
        "publish_to_hub",
        "hf<=1usd2",
        "run:local",
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRule, match="--allow"):
        Rule.parse(text)


async def test_words_that_imitate_a_cheap_question_decide_nothing() -> None:
    cheap = question(hours=0.1)
    dear = question(where="hf_jobs", usd=50.0, backend="local")
    assert (await approver("local<=30m")(replace(dear, message=cheap.message))).content != YES
    assert (await approver("local<=30m")(replace(dear, message=cheap.message, meta={}))).content != YES


async def test_a_question_that_does_not_fit_the_call_is_not_covered() -> None:
    approve = approver("submit_job:local<=30m")
    assert (await approve(question(backend="hf_jobs"))).content != YES
    assert (await approve(question(hours=0.1, timeout="20h"))).content != YES
    assert (await approve(question(hours=0.1, timeout="6m"))).content == YES


async def test_a_question_in_words_of_another_server_is_covered_by_no_rule() -> None:
    other = Question(server="s", message="Shall I?", schema=CONSENT, tool="submit_job", arguments={})
    assert (await approver("submit_job")(other)).content != YES


# --- nobody there --------------------------------------------------------------------------------------------------


async def test_without_a_person_everything_else_is_denied_at_once_with_the_reason_for_the_model() -> None:
    approve = approver()
    answer = await approve(question())
    assert answer.action == "accept" and answer.content is not None
    assert answer.content["approve"] is False
    assert "--allow 'submit_job:local<=15m'" in answer.content["note"]
    assert approve.denied == [question().message.partition("\n")[0]]


async def test_a_later_approval_means_that_the_run_was_not_held_up() -> None:
    approve = approver("submit_job:local")
    await approve(question(where="hf_jobs", usd=3.0))
    await approve(question())
    assert approve.denied == []


async def test_without_a_person_forms_and_addresses_are_declined() -> None:
    form = Question(server="s", message="Your name?", schema={"properties": {"name": {"type": "string"}}})
    assert (await approver()(form)).action == "decline"
    address = Question(server="s", message="Log in", url="https://example.org", schema=CONSENT)
    assert (await approver("submit_job")(address)).action == "decline"


# --- a person ------------------------------------------------------------------------------------------------------


async def test_a_no_carries_its_reason_word_for_word() -> None:
    clerk = Clerk(Decision(approved=False, note="Too DEAR; use lora"), Decision(approved=False))
    approve = approver(person=clerk)
    assert (await approve(question())).content == {"approve": False, "note": "Too DEAR; use lora"}
    assert (await approve(question())).action == "decline"


async def test_an_allowance_holds_from_then_on_and_only_as_far_as_it_goes() -> None:
    rule = Rule.parse("submit_job:local<=30m")
    clerk = Clerk(Decision(approved=True, allowance=rule), Decision(approved=False))
    approve = approver(person=clerk)
    answers = [await approve(question(hours=hours)) for hours in (0.4, 0.3, 0.6)]
    assert [answer.content == YES for answer in answers] == [True, True, False]
    assert len(clerk.shown) == 2


async def test_questions_reach_a_person_one_after_the_other() -> None:
    clerk = Clerk(*[Decision(approved=True)] * 5)
    approve = approver(person=clerk)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(approve, question())
    assert len(clerk.shown) == 5


async def test_the_script_is_shown_whole_and_as_a_diff_to_the_last_approved_one() -> None:
    scripts = {"old": "a = 1\nb = 2\n", "new": "a = 1\nb = 3\n"}

    async def read(server: str, uri: str) -> str | None:
        return scripts.get(uri.removeprefix("mlintern://scripts/"))

    clerk = Clerk(Decision(approved=True), Decision(approved=True), Decision(approved=True))
    approve = approver(person=clerk)
    approve.read_text = read
    for script_id in ("old", "new", "gone"):
        await approve(question(script_id=script_id))
    first, second, third = clerk.shown
    assert first.script is not None and second.script is not None and third.script is not None
    assert second.changes is not None
    assert (await first.script(), first.changes) == ("a = 1\nb = 2\n", None)
    assert await second.script() == "a = 1\nb = 3\n"
    assert "-b = 2\n+b = 3" in await second.changes()
    assert "cannot be read" in await third.script()


async def test_every_answer_is_on_the_record() -> None:
    record = Record()
    approve = Approver(rules=[Rule.parse("submit_job:local")], journal=record, ui=Watcher())
    await approve(question())
    await approve(question(where="hf_jobs", usd=2.5))
    assert [(event["approved"], event["via"], event["usd_worst"]) for event in record.of("approval")] == [
        (True, "rule submit_job:local", 0.0),
        (False, "no rule", 2.5),
    ]


async def test_a_resumed_session_knows_what_a_rule_has_spent_and_forgets_what_a_person_allowed() -> None:
    clerk = Clerk(Decision(approved=True, allowance=Rule.parse("submit_job:local")))
    first = approver("submit_job:hf<=5usd", person=clerk)
    await first(question(where="hf_jobs", usd=3.0))
    await first(question())
    assert isinstance(first.journal, Record)
    second = approver("submit_job:hf<=5usd")
    restore(second, first.journal.events)
    assert (await second(question(where="hf_jobs", usd=3.0))).content != YES
    assert (await second(question())).content != YES


# --- the terminal's words ------------------------------------------------------------------------------------------


def request(**fields: Any) -> Request:
    asks = question(**fields)
    return Request(question=asks, asked=Action.from_meta(asks.meta))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("y", Decision(approved=True)),
        ("Yes", Decision(approved=True)),
        ("n", Decision(approved=False)),
        ("no Use LoRA instead", Decision(approved=False, note="Use LoRA instead")),
        ("a submit_job:local<=2h", Decision(approved=True, allowance=Rule.parse("submit_job:local<=2h"))),
        ("a", Decision(approved=True, allowance=Rule.parse("submit_job:local<=15m"))),
    ],
)
def test_answers_are_read_as_meant(typed: str, expected: Decision) -> None:
    assert read_consent(typed, request()) == expected


@pytest.mark.parametrize(
    "typed", ["", "yy", "ok", "yse", "1", "a nonsense!", "train it", "y keep it short", "yes please"]
)
def test_what_is_no_clear_answer_approves_nothing(typed: str) -> None:
    assert isinstance(read_consent(typed, request()), str)


def test_the_suggested_allowance_just_covers_what_is_asked() -> None:
    for fields in ({"hours": 0.251}, {"where": "hf_jobs", "usd": 3.456, "hours": 1.0}, {"hours": 0.0}):
        shown = request(**fields)  # type: ignore[arg-type]
        assert shown.asked is not None
        rule = suggested(shown.asked)
        assert rule is not None and covering([rule], shown.asked, usd_spent=lambda _: 0.0) == (rule,)
    unpriced = request(usd=None).asked
    assert unpriced is not None and suggested(unpriced) is None


def test_a_question_cannot_steer_the_terminal() -> None:
    lines = consent_lines(request(what="x\x1b[2J\x07y"), budget=None)
    assert all(char.isprintable() for line in lines for char in line)
