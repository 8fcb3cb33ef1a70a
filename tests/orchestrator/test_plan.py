"""The plan tool keeps a plan that is one."""

from __future__ import annotations

from typing import Any

import pytest

from mlintern.orchestrator.compacted_message import Handover
from mlintern.orchestrator.plan import Plan

pytestmark = pytest.mark.anyio


def steps(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"steps": [{"step": text, "state": state} for text, state in pairs]}


async def test_a_plan_is_replaced_as_a_whole_and_shown() -> None:
    plan = Plan()
    await plan.call(steps(("read papers", "in_progress")))
    outcome = await plan.call(steps(("read papers", "done"), ("audit data", "in_progress"), ("train", "pending")))
    assert not outcome.is_error
    assert outcome.text == "[x] read papers\n[>] audit data\n[ ] train"
    assert plan.open_steps() == ["audit data", "train"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (steps(("a", "in_progress"), ("b", "in_progress")), "at most one"),
        (steps(("a", "in progress")), "Did you mean 'in_progress'"),
        (steps((" ", "done")), "says nothing"),
        ({"steps": [{"step": "a"}]}, "exactly a step and a state"),
        ({"steps": ["a"]}, "exactly a step and a state"),
        ({"steps": "a"}, "a list"),
        ({"steps": [], "title": "x"}, "unknown: title"),
        ({}, "a list"),
        (steps(*[(str(n), "pending") for n in range(41)]), "at most 40"),
    ],
)
async def test_what_is_no_plan_is_refused_and_the_old_one_stands(arguments: dict[str, Any], complaint: str) -> None:
    plan = Plan()
    await plan.call(steps(("keep me", "pending")))
    outcome = await plan.call(arguments)
    assert outcome.is_error and complaint in outcome.text
    assert plan.open_steps() == ["keep me"]


async def test_dropped_steps_are_not_open() -> None:
    plan = Plan()
    await plan.call(steps(("a", "done"), ("b", "dropped")))
    assert plan.open_steps() == []


async def test_a_plan_comes_back_from_the_history_and_from_its_own_rendering() -> None:
    def call(arguments: dict[str, Any]) -> dict[str, Any]:
        block = {"type": "tool_use", "id": "t", "name": "update_plan", "input": arguments}
        return {"role": "assistant", "content": [{"type": "text", "text": "so"}, block]}

    good = steps(("a", "done"), ("b", "in_progress"), ("c", "pending"), ("d", "dropped"))
    plan, again, restated = Plan(), Plan(), Plan()
    plan.restore([{"role": "user", "content": "go"}, call(good), call(steps(("x", "nonsense")))])
    again.restore_rendered(plan.render())
    assert plan.open_steps() == ["b", "c"]
    restated.restore([Handover(goal="go", plan=plan.render()).message()])
    assert plan.steps == again.steps == restated.steps
