"""What holds for every tool, prompt and resource of the assembled server, whoever wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from mcp import Client
from mcp.server import MCPServer
from mcp.types import TextContent, Tool

from mlintern.server.app import build_server
from mlintern.server.instructions import INSTRUCTIONS
from mlintern.server.recipe_schema import OTHERS
from mlintern.server.settings import CORE_TOOLS, TOOLSETS, Settings, parse_toolsets
from mlintern.tools.scripts.describe import describe_trainer
from mlintern.tools.scripts.recipe import AnyRecipe
from mlintern.tools.scripts.rendered import RENDERED

pytestmark = pytest.mark.anyio

PROMISED = {
    "scripts": ["describe_trainer", "render_script", "edit_script", "check_script"],
    "jobs": ["list_hardware", "estimate_job", "submit_job", "poll_job", "read_job_logs", "list_jobs", "cancel_job"],
    "evals": ["read_eval", "compare_evals", "chat", "diagnose_run"],
    "experiments": ["open_experiment", "run_trials", "poll_experiment", "confirm"],
    "ledger": ["list_runs", "plot_run", "write_report"],
    "papers": ["search_papers", "read_paper", "ask_papers", "walk_citations"],
    "hub": [
        "search_hub",
        "inspect_model",
        "browse_hub",
        "inspect_dataset",
        "check_contamination",
        "search_docs",
        "read_doc",
        "search_code",
        "read_code",
        "publish_to_hub",
    ],
}
"""Tools that other programs rely on, by toolset."""


@cache
def server(*toolsets: str) -> MCPServer[Any]:
    """One server for all tests that only look at it."""
    return build_server(Settings(toolsets=toolsets or TOOLSETS))


async def list_tools(*toolsets: str) -> list[Tool]:
    async with Client(server(*toolsets)) as client:
        return list((await client.list_tools()).tools)


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


async def test_every_promised_tool_is_there() -> None:
    names = {tool.name for tool in await list_tools()}
    assert names >= {name for group in PROMISED.values() for name in group}


@pytest.mark.parametrize("toolset", PROMISED)
async def test_a_toolset_can_be_offered_alone(toolset: str) -> None:
    names = [tool.name for tool in await list_tools(toolset)]
    assert set(names) >= set(PROMISED[toolset])
    assert not set(names) & {name for other, group in PROMISED.items() if other != toolset for name in group}


async def test_the_order_of_the_list_is_always_the_same() -> None:
    server.cache_clear()
    before = [tool.name for tool in await list_tools()]
    server.cache_clear()
    assert before == [tool.name for tool in await list_tools()]


async def test_every_tool_can_be_chosen_and_shown() -> None:
    for tool in await list_tools():
        assert re.fullmatch(r"[a-z][a-z0-9_]{2,63}", tool.name), tool.name
        assert tool.title and tool.title[0].isupper(), tool.name
        assert tool.description and 120 <= len(tool.description) <= 1000, (tool.name, len(tool.description or ""))
        sentences = re.findall(r"[.;:?](?:\s|$)", tool.description)
        assert len(sentences) >= 3, f"{tool.name} is described in fewer than three sentences"


async def test_every_tool_says_what_it_does_to_the_world() -> None:
    for tool in await list_tools():
        hints = tool.annotations
        assert hints is not None, tool.name
        values = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert None not in values, tool.name
        assert not (hints.read_only_hint and hints.destructive_hint), tool.name


async def test_what_asks_a_person_is_marked_as_destructive() -> None:
    tools = {tool.name: tool for tool in await list_tools()}
    for name in ("submit_job", "cancel_job", "check_script", "publish_to_hub"):
        hints = tools[name].annotations
        assert hints and hints.destructive_hint and not hints.read_only_hint, name


async def test_every_input_schema_is_legal_for_the_claude_api_and_closed() -> None:
    for tool in await list_tools():
        schema = tool.input_schema
        assert schema["type"] == "object", tool.name
        assert not {"anyOf", "oneOf", "allOf", "$ref"} & schema.keys(), tool.name
        assert schema["additionalProperties"] is False, tool.name
        for node in nodes(schema):
            reference = node.get("$ref")
            if isinstance(reference, str):
                assert reference.rpartition("/")[2] in schema["$defs"], (tool.name, reference)


async def test_every_argument_that_is_not_self_evident_is_described() -> None:
    for tool in await list_tools():
        for name, schema in tool.input_schema["properties"].items():
            assert name == "limit" or schema.get("description"), f"{tool.name}.{name} has no description"


async def test_every_tool_has_a_typed_structured_result() -> None:
    for tool in await list_tools():
        assert tool.output_schema and tool.output_schema["type"] == "object", tool.name
        assert tool.output_schema["properties"], tool.name


OUTSIDE = [
    *PROMISED["papers"],
    *(set(PROMISED["hub"]) - {"inspect_model", "publish_to_hub"}),
    "poll_job",
    "read_job_logs",
    "read_eval",
    "compare_evals",
    "chat",
    "check_script",
]
"""Tools whose results hold text that others wrote."""


async def test_text_from_outside_is_marked_as_data() -> None:
    for tool in await list_tools():
        if tool.name in OUTSIDE:
            assert "untrusted" in (tool.output_schema or {})["properties"], tool.name


async def test_no_argument_can_approve() -> None:
    for tool in await list_tools():
        names = " ".join(node_name for node in nodes(tool.input_schema) for node_name in node.get("properties", {}))
        assert not re.search(r"approv|consent|confirm(?!_rows\b)|permi|force|yes", names), tool.name


async def test_every_tool_refuses_an_argument_that_it_does_not_have() -> None:
    async with Client(server()) as client:
        for tool in (await client.list_tools()).tools:
            result = await client.call_tool(tool.name, {"no_such_argument": 1})
            assert result.is_error, tool.name
            [block] = result.content
            assert isinstance(block, TextContent)
            assert f"{tool.name} has no argument 'no_such_argument'" in block.text


async def test_every_tool_explains_arguments_of_the_wrong_kind() -> None:
    async with Client(server()) as client:
        for tool in (await client.list_tools()).tools:
            wrong = {name: {"wrong": ["kind"]} for name in tool.input_schema["properties"]}
            result = await client.call_tool(tool.name, wrong)
            assert result.is_error, tool.name
            [block] = result.content
            assert isinstance(block, TextContent)
            assert block.text != f"Error executing tool {tool.name}", f"{tool.name} crashed"


def tokens(tools: list[Any]) -> int:
    """About how many tokens of every request the list costs: names, descriptions and input schemas."""
    texts = [
        (tool.name, tool.description or "", json.dumps(tool.input_schema, separators=(",", ":"))) for tool in tools
    ]
    return sum(len(text) for each in texts for text in each) // 4


async def test_the_list_of_tools_costs_few_tokens() -> None:
    assert tokens(await list_tools()) <= 6_000


async def test_the_core_tools_cost_less_than_half_and_can_be_joined_with_a_toolset() -> None:
    async with Client(build_server(Settings(toolsets=parse_toolsets("core")))) as client:
        core = (await client.list_tools()).tools
    assert {tool.name for tool in core} == CORE_TOOLS and tokens(core) <= 2_500
    async with Client(build_server(Settings(toolsets=parse_toolsets("core,papers")))) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert names == CORE_TOOLS | set(PROMISED["papers"])


async def test_a_recipe_is_described_by_fields_that_exist_and_the_rest_is_told_by_describe_trainer() -> None:
    [render] = [tool for tool in await list_tools() if tool.name == "render_script"]
    recipe = render.input_schema["properties"]["recipe"]
    every = {name for kind in get_args(AnyRecipe) for name in kind.model_fields}
    assert set(recipe["properties"]) | set(OTHERS) <= every
    assert recipe["properties"]["trainer"]["enum"] == list(RENDERED)
    for trainer, kind in zip(RENDERED, get_args(AnyRecipe), strict=True):
        assert get_args(kind.model_fields["trainer"].annotation) == (trainer,)
        told = describe_trainer(trainer)
        named = {line.partition(":")[0] for line in told.recipe_fields} | {field.name for field in told.fields}
        assert set(kind.model_fields) <= named | {"trainer", "hyperparameters"}, trainer


async def test_the_instructions_fit_where_hosts_cut_them() -> None:
    assert len(INSTRUCTIONS.encode()) < 2_000


async def test_the_instructions_name_no_tool_that_does_not_exist() -> None:
    names = {tool.name for tool in await list_tools()}
    mentioned = {word for word in re.findall(r"\b[a-z]+_[a-z_]+\b", INSTRUCTIONS)}
    fields = {"wait_seconds", "how_to_approve", "next_cursor", "next_offset", "approval_required", "rate_limited"}
    fields |= {"dry_run"}
    assert mentioned - fields <= names


async def test_the_method_prompt_carries_what_was_given_word_for_word() -> None:
    async with Client(server()) as client:
        prompt = (await client.list_prompts()).prompts[0]
        given = {"goal": "Beat {GPQA}", "model": "Qwen/Qwen3-0.6B", "benchmark": "gpqa", "budget": "20 USD"}
        shown = await client.get_prompt(prompt.name, given)
        [message] = shown.messages
        assert isinstance(message.content, TextContent)
        for value in given.values():
            assert value in message.content.text
        assert "Target" not in message.content.text


async def test_jobs_scripts_and_runs_are_resources() -> None:
    async with Client(server()) as client:
        templates = {item.uri_template for item in (await client.list_resource_templates()).resource_templates}
        assert templates == {
            "mlintern://jobs/{job_id}",
            "mlintern://scripts/{script_id}",
            "mlintern://graphs/{walk_id}",
            "mlintern://graphs/{walk_id}/picture",
        }
        listed = {item.uri for item in (await client.list_resources()).resources}
        assert {uri for uri in listed if not uri.startswith("skill://")} == {
            "mlintern://runs",
            "ui://mlintern/approval.html",
            "ui://mlintern/plot.html",
        }


def test_toolsets_and_files_agree() -> None:
    import mlintern.server.toolsets as package

    files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == set(TOOLSETS)
