from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from mcp.server.elicitation import render_elicitation_schema
from mcp.types import CallToolResult, ElicitResult

from mlintern.common.commands import shown_command
from mlintern.common.consent import ACTION_META, Action
from mlintern.server.asking import Approval, Gate
from mlintern.tools.allowances import Allowances
from mlintern.tools.approvals import Approvals
from mlintern.tools.errors import NotFound
from mlintern.tools.ledger import Ledger
from tests.clock import FakeClock
from tests.server.asking import CLOSED, NO, UNTICKED, YES, Person, action_for, asking_server, client

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


@dataclass
class Desk:
    """One workspace, asked over as many connections as a test likes."""

    ledger: Ledger
    clock: FakeClock
    allowances: Allowances = field(default_factory=Allowances)
    launches: list[str] = field(default_factory=list)

    @property
    def approvals(self) -> Approvals:
        return Approvals(ledger=self.ledger, clock=self.clock, allowances=self.allowances)

    async def call(self, era: str, person: Person | None, **arguments: Any) -> CallToolResult:
        server = asking_server(Gate(approvals=self.approvals, clock=self.clock), self.launches)
        async with client(server, era, person) as connection:
            return await connection.call_tool("launch", {"name": "train.py", **arguments})


@pytest.fixture
def desk(ledger: Ledger, clock: FakeClock) -> Desk:
    return Desk(ledger, clock)


def answer(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


@BOTH_ERAS
async def test_a_ticked_approval_starts_it_once(desk: Desk, era: str) -> None:
    person = Person(YES)
    result = answer(await desk.call(era, person))
    assert result["status"] == "approved"
    assert len(desk.launches) == len(person.asked) == 1
    assert [(found.state, found.via) for found in desk.approvals.list()] == [("used", "dialog")]


@BOTH_ERAS
async def test_the_first_line_of_the_question_says_cost_hardware_hours_and_digest(desk: Desk, era: str) -> None:
    person = Person(YES)
    await desk.call(era, person, hours=2.0, usd=8.0)
    first, *rest = person.asked[0].message.splitlines()
    digest = action_for("train.py", 2.0, 8.0).short_digest
    assert first == f'at most 8.00 USD on local cpu, up to 2 h (digest {digest}): Start "train.py"?'
    assert rest == ["Script: train.py, 12 lines"]


@BOTH_ERAS
async def test_the_action_travels_with_the_question_as_data(desk: Desk, era: str) -> None:
    person = Person(YES)
    await desk.call(era, person, hours=2.0, usd=8.0)
    meta = person.asked[0].meta
    assert meta is not None and ACTION_META in meta
    assert Action.from_meta(meta) == action_for("train.py", 2.0, 8.0)


@BOTH_ERAS
@pytest.mark.parametrize("reply", [NO, CLOSED, UNTICKED], ids=["declined", "cancelled", "unticked"])
async def test_anything_but_a_tick_is_a_denial_with_its_reason(desk: Desk, era: str, reply: ElicitResult) -> None:
    result = answer(await desk.call(era, Person(reply)))
    assert result["status"] == "denied"
    assert result["note"]
    assert desk.launches == []
    assert [found.state for found in desk.approvals.list()] == ["denied"]


@BOTH_ERAS
@pytest.mark.parametrize("approve", [True, False])
async def test_the_note_of_a_person_reaches_the_model_word_for_word(desk: Desk, era: str, approve: bool) -> None:
    note = 'Use LoRA r=16, NOT Qwen/Qwen3-0.6B "full"\nand {stop} at 10 %'
    person = Person(ElicitResult(action="accept", content={"approve": approve, "note": note}))
    assert answer(await desk.call(era, person))["note"] == note


@BOTH_ERAS
@pytest.mark.parametrize("content", [None, {}, {"approve": "perhaps"}, {"note": "yes"}])
async def test_an_answer_without_the_box_starts_nothing(desk: Desk, era: str, content: dict[str, Any] | None) -> None:
    result = await desk.call(era, Person(ElicitResult(action="accept", content=content)))
    assert result.is_error
    assert desk.launches == []


@BOTH_ERAS
async def test_a_host_without_dialogs_is_told_the_command_and_the_question_waits(desk: Desk, era: str) -> None:
    result = answer(await desk.call(era, None))
    digest = action_for("train.py").digest
    assert result["status"] == "approval_required"
    assert result["how_to_approve"] == shown_command("mlintern-server", "approve", digest)
    assert [found.digest for found in desk.approvals.list(state="pending")] == [digest]
    assert desk.launches == []


@BOTH_ERAS
async def test_an_approval_from_the_command_line_counts_at_the_next_call(desk: Desk, era: str) -> None:
    await desk.call(era, None)
    desk.approvals.approve(action_for("train.py").digest, note="be quick", via="command line")
    result = answer(await desk.call(era, None))
    assert (result["status"], result["note"], result["launches"]) == ("approved", "be quick", 1)


@BOTH_ERAS
async def test_an_approval_counts_for_its_own_digest_only(desk: Desk, era: str) -> None:
    await desk.call(era, None)
    desk.approvals.approve(action_for("train.py").digest, via="command line")
    assert answer(await desk.call(era, None, hours=48.0))["status"] == "approval_required"
    assert desk.launches == []


@BOTH_ERAS
async def test_asking_again_for_what_was_started_asks_nobody_and_starts_nothing(desk: Desk, era: str) -> None:
    person = Person(YES)
    await desk.call(era, person)
    result = answer(await desk.call(era, person))
    assert (result["status"], result["launches"], len(person.asked)) == ("approved", 1, 1)


@BOTH_ERAS
async def test_who_declined_in_the_dialog_is_asked_again_and_may_agree(desk: Desk, era: str) -> None:
    await desk.call(era, Person(NO))
    assert answer(await desk.call(era, Person(YES)))["status"] == "approved"


@BOTH_ERAS
async def test_a_no_from_the_command_line_stands_without_asking_again(desk: Desk, era: str) -> None:
    await desk.call(era, None)
    desk.approvals.deny(action_for("train.py").digest, note="wait for Monday", via="command line")
    person = Person(YES)
    result = answer(await desk.call(era, person))
    assert (result["status"], result["note"]) == ("denied", "wait for Monday")
    assert person.asked == []


@BOTH_ERAS
async def test_an_answer_that_came_at_once_may_not_have_been_seen(desk: Desk, era: str) -> None:
    result = answer(await desk.call(era, Person(NO)))
    assert "may not have shown" in result["note"]
    assert result["how_to_approve"].startswith(shown_command("mlintern-server", "approve"))


@BOTH_ERAS
async def test_an_answer_that_took_its_time_was_seen(desk: Desk, era: str) -> None:
    class Slow(Person):
        async def __call__(self, context: Any, params: Any) -> ElicitResult:
            desk.clock.advance(5)
            return await super().__call__(context, params)

    result = answer(await desk.call(era, Slow(NO)))
    assert (result["note"], result["how_to_approve"]) == ("The user declined.", None)


@BOTH_ERAS
async def test_what_was_allowed_in_advance_starts_without_a_question(desk: Desk, era: str) -> None:
    desk.allowances = Allowances.parse(allow=("local<=30m",))
    person = Person(NO)
    assert answer(await desk.call(era, person, hours=0.5))["status"] == "approved"
    assert person.asked == []
    assert answer(await desk.call(era, person, hours=0.6))["status"] == "denied"
    assert len(person.asked) == 1


@BOTH_ERAS
@pytest.mark.parametrize("other", [2.0, 0.5])
async def test_a_yes_counts_at_its_own_price_only(desk: Desk, era: str, other: float) -> None:
    await desk.call(era, None, usd=1.0)
    desk.approvals.approve(action_for("train.py", usd=1.0).consent_digest, via="command line")
    assert answer(await desk.call(era, None, usd=other))["status"] == "approval_required"
    assert desk.launches == []
    with pytest.raises(NotFound, match="if the price changed"):
        desk.approvals.approve(action_for("train.py", usd=1.0).consent_digest, via="command line")
    desk.approvals.approve(action_for("train.py", usd=other).consent_digest, via="command line")
    assert answer(await desk.call(era, None, usd=other))["status"] == "approved"


@BOTH_ERAS
async def test_a_yes_that_led_to_nothing_is_no_yes_to_a_higher_price(desk: Desk, era: str) -> None:
    assert answer(await desk.call(era, Person(YES), usd=1.0))["status"] == "approved"  # and the backend refused it
    person = Person(NO)
    assert answer(await desk.call(era, person, usd=1.0))["status"] == "approved" and person.asked == []
    assert answer(await desk.call(era, person, usd=50.0))["status"] == "denied"
    assert "at most 50.00 USD" in str(person.asked[0].message)


@BOTH_ERAS
async def test_past_the_budget_nobody_is_asked(desk: Desk, era: str) -> None:
    desk.allowances = Allowances.parse(budget_usd=5)
    person = Person(YES)
    result = await desk.call(era, person, usd=6.0)
    assert result.is_error and "budget of 5 USD" in str(result.content)
    assert person.asked == [] and desk.launches == []


@BOTH_ERAS
@pytest.mark.parametrize("argument", ["consent", "approve", "confirm"])
async def test_a_model_cannot_supply_the_answer(desk: Desk, era: str, argument: str) -> None:
    result = await desk.call(era, None, **{argument: {"action": "accept", "data": {"approve": True}}})
    assert result.is_error and f"no argument '{argument}'" in str(result.content)
    assert desk.launches == []


async def test_the_form_is_legal_and_its_box_is_required_and_unticked() -> None:
    schema = render_elicitation_schema(Approval)
    assert schema["required"] == ["approve"]
    assert schema["properties"]["approve"]["type"] == "boolean"
    assert "default" not in schema["properties"]["approve"]
    assert schema["properties"]["note"]["default"] == "", "a host that fills in null is refused its own answer"
