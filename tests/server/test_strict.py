from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Literal

import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from mlintern.server.registry import Registry
from mlintern.server.strict_server import StrictServer
from mlintern.tools.errors import BadInput, NotFound, Offline

pytestmark = pytest.mark.anyio


class Sft(BaseModel):
    model_config = ConfigDict(extra="forbid")
    trainer: Literal["sft"]
    learning_rate: float = 1e-4
    lora: dict[str, int] | None = None


class Dpo(BaseModel):
    model_config = ConfigDict(extra="forbid")
    trainer: Literal["dpo"]
    beta: float = Field(0.1, gt=0)


class Answer(BaseModel):
    value: int
    nothing: str | None = None
    parts: list[dict[str, int | None]] = []
    text: str = ""


def server() -> StrictServer:
    registry = Registry()

    @registry.tool(title="Count", read_only=True, open_world=False)
    async def count(number: int, search_text: str = "") -> Answer:
        """Count."""
        if number == 0:
            raise BadInput("Nothing to count.", next_step="Give a number above 0.")
        if number == 1:
            raise Offline("No answer.", service="arxiv", next_step="Try later.")
        if number < 0:
            raise RuntimeError("secret detail of a bug")
        return Answer(value=number, parts=[{"a": 1, "b": None}], text='größer\n"quoted"')

    @registry.tool(title="Render", read_only=False, open_world=False)
    async def render(recipe: Annotated[Sft | Dpo, Field(discriminator="trainer")]) -> Answer:
        """Render."""
        return Answer(value=1)

    built = StrictServer("strict", tools=registry.tools)

    @built.resource("mlintern://things/{name}")
    async def thing(name: str) -> str:
        if name == "bug":
            raise RuntimeError("secret detail of a bug")
        raise NotFound(f"There is no thing {name!r}.", next_step="List them.")

    return built


async def call(name: str, arguments: dict[str, Any]) -> CallToolResult:
    async with Client(server()) as client:
        return await client.call_tool(name, arguments)


def text_of(result: CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, TextContent)
    return block.text


async def test_an_unknown_argument_is_refused_by_name_with_what_was_meant() -> None:
    result = await call("count", {"number": 5, "searchtext": "x", "verbose": True})
    assert result.is_error
    assert "count has no argument 'searchtext'. Did you mean 'search_text'?" in text_of(result)
    assert "no argument 'verbose'" in text_of(result)
    assert "Its arguments are: number, search_text." in text_of(result)


async def test_the_schema_says_that_nothing_else_is_taken() -> None:
    async with Client(server()) as client:
        for tool in (await client.list_tools()).tools:
            assert tool.input_schema["additionalProperties"] is False


async def test_an_unknown_field_inside_a_recipe_is_refused_with_what_was_meant() -> None:
    message = text_of(await call("render", {"recipe": {"trainer": "sft", "learning_rte": 1e-3}}))
    assert "recipe.sft.learning_rte: there is no such field. Did you mean 'learning_rate'?" in message
    assert "Known: learning_rate, lora, trainer." in message
    assert "errors.pydantic.dev" not in message


async def test_a_recipe_given_as_a_json_string_is_understood() -> None:
    assert not (await call("render", {"recipe": json.dumps({"trainer": "dpo", "beta": 0.2})})).is_error


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({}, "number: required, and not given"),
        ({"number": "many"}, "number: Input should be a valid integer"),
        ({"number": 1.5}, "number: Input should be a valid integer"),
        ({"number": None}, "number"),
    ],
)
async def test_an_argument_of_the_wrong_kind_is_explained(arguments: dict[str, Any], complaint: str) -> None:
    result = await call("count", arguments)
    assert result.is_error and complaint in text_of(result)


async def test_a_long_wrong_value_is_cut_and_the_cut_is_said() -> None:
    message = text_of(await call("count", {"number": "x" * 5000}))
    assert len(message) < 400 and "(cut: 5,002 characters)" in message


async def test_an_error_of_ours_reaches_the_model_with_what_to_do_next() -> None:
    assert text_of(await call("count", {"number": 0})) == "Nothing to count. Give a number above 0."
    assert text_of(await call("count", {"number": 1})) == "No answer. Try later."


async def test_a_bug_shows_as_one_and_its_traceback_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        result = await call("count", {"number": -1})
    assert result.is_error and text_of(result) == "Error executing tool count"
    assert "secret detail of a bug" in caplog.text


async def test_an_unknown_tool_is_answered_with_what_was_meant() -> None:
    assert text_of(await call("cuont", {})) == "There is no tool 'cuont'. Did you mean 'count'?"


async def test_text_and_structure_carry_the_same_answer() -> None:
    result = await call("count", {"number": 5})
    assert result.structured_content == {
        "value": 5,
        "nothing": None,
        "parts": [{"a": 1, "b": None}],
        "text": 'größer\n"quoted"',
    }
    assert text_of(result) == '{"value":5,"parts":[{"a":1}],"text":"größer\\n\\"quoted\\""}'


async def test_a_missing_resource_is_named_and_a_bug_in_one_is_not_detailed() -> None:
    async with Client(server()) as client:
        with pytest.raises(MCPError, match=r"There is no thing 'x'\. List them\."):
            await client.read_resource("mlintern://things/x")
        with pytest.raises(MCPError) as caught:
            await client.read_resource("mlintern://things/bug")
    assert "secret" not in str(caught.value)
