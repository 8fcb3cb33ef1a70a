from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from mlintern.server.schemas import input_schema, output_schema


class Lora(BaseModel):
    r: int = 16


class Unused(BaseModel):
    x: int


class Sft(BaseModel):
    trainer: Literal["sft"]
    model: str
    limit: int | None = Field(None, description="Rows to train on.")
    lora: Lora | None = None
    plan: Plan | None = None


class Plan(BaseModel):
    prompt: str = Field("{question}", description="What is asked.")


class Eval(Plan):
    trainer: Literal["eval"]
    model: str
    limit: int | None = Field(None, description="Items to score.")
    title: str = "plain"


class Arguments(BaseModel):
    recipe: Annotated[Sft | Eval, Field(discriminator="trainer", description="The run")]
    title: str = Field("x", description="A real argument that happens to be called title")
    note: str | None = None
    either: int | str | None = None
    table: dict[str, Any] = {"title": "kept"}


class Nested(BaseModel):
    found: Unused | None = None


def test_generated_titles_go_and_arguments_called_title_stay() -> None:
    schema = input_schema(Arguments.model_json_schema())
    assert schema["properties"]["note"] == {"type": "string"}
    assert schema["properties"]["title"]["description"].startswith("A real argument")
    assert schema["properties"]["table"]["default"] == {"title": "kept"}


def test_an_optional_argument_shows_its_type_alone() -> None:
    schema = input_schema(Arguments.model_json_schema())
    assert schema["properties"]["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def test_definitions_that_nothing_refers_to_any_more_are_left_out() -> None:
    assert set(input_schema(Arguments.model_json_schema())["$defs"]) == {"Lora", "Plan", "Sft", "Eval"}


def test_every_input_is_closed_and_no_input_is_changed_in_place() -> None:
    before = Arguments.model_json_schema()
    assert input_schema(before)["additionalProperties"] is False
    assert before == Arguments.model_json_schema()


def test_an_output_may_still_be_null() -> None:
    schema = output_schema(Nested.model_json_schema())
    assert {"type": "null"} in schema["properties"]["found"]["anyOf"]
    assert set(schema["$defs"]) == {"Unused"}


class Choices(BaseModel):
    order: Literal["newest", "oldest"] = "newest"
    other: Literal["newest", "oldest"] = "oldest"
    length: str = Field("30m", description="Default 30m, or 1h")
    place: str = Field("local", description="Where it runs")
    count: int = 20
    state: Literal["queued", "running"] | Literal["active"] | None = None
    table: dict[str, Any] | None = None


def test_a_default_that_tells_nothing_new_is_left_out() -> None:
    properties = input_schema(Choices.model_json_schema())["properties"]
    told = {name for name, schema in properties.items() if "default" in schema}
    assert told == {"other", "place"}


def test_choices_from_two_lists_are_one_list() -> None:
    properties = input_schema(Choices.model_json_schema())["properties"]
    assert properties["state"] == {"type": "string", "enum": ["queued", "running", "active"]}


def test_what_holds_anyway_is_left_out() -> None:
    assert input_schema(Choices.model_json_schema())["properties"]["table"] == {"type": "object"}
