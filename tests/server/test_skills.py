"""The method as a skill over MCP, the prompts, and what is shipped to hosts and registries."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from mcp import Client, MCPError
from mcp.types import PromptReference, Request, RequestParams, Result, TextContent
from pydantic import ConfigDict

from mlintern.server.app import build_server
from mlintern.server.instructions import INSTRUCTIONS
from mlintern.server.settings import Settings
from mlintern.server.skills import FOLDER, SKILLS, front_matter
from mlintern.tools.health.findings import Kind
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from release import build
from tests.tools.runs.experiments import first_light

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SKILL = "skill://post-training/SKILL.md"
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


class Anything(Result):
    model_config = ConfigDict(extra="allow")


class Open(RequestParams):
    model_config = ConfigDict(extra="allow")


async def ask(client: Client, method: str, **params: Any) -> dict[str, Any]:
    answer = await client.session.send_request(Request[Open, str](method=method, params=Open(**params)), Anything)
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True)


@ERAS
async def test_skills_are_declared_listed_and_read_by_their_digest(era: str) -> None:
    async with Client(build_server(Settings()), mode=era) as client:
        if era == "auto":  # extensions are declared since 2026-07-28; a host of before asks all the same
            assert SKILLS in (client.server_capabilities.extensions or {})
        listed = await ask(client, "skills/list")
        [skill] = listed["skills"]
        assert skill["uri"] == SKILL and skill["frontmatter"]["name"] == "post-training"
        for resource in skill["resources"]:
            [content] = (await client.read_resource(resource["uri"])).contents
            text = getattr(content, "text", "")
            assert resource["digest"] == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.md")}
        assert {resource["uri"] for resource in skill["resources"]} == {f"skill://{name}" for name in files}
        assert (await ask(client, "skills/get", uri=SKILL))["resources"] == skill["resources"]
        assert ("ttlMs" in listed, "cacheScope" in listed) == ((True, True) if era == "auto" else (False, False))
        shown = {str(each.uri): each for each in (await client.list_resources()).resources}
        assert shown[SKILL].name == "post-training" and shown[SKILL].mime_type == "text/markdown"
        with pytest.raises(MCPError, match="There is no skill"):
            await ask(client, "skills/get", uri="skill://post-training/../../etc/passwd")


def test_the_front_matter_is_what_yaml_reads_and_the_name_is_that_of_the_folder() -> None:
    for path in FOLDER.glob("*/SKILL.md"):
        matter = front_matter(path)
        assert matter == yaml.safe_load(path.read_text().split("---\n")[1])
        assert matter["name"] == path.parent.name and 0 < len(matter["description"]) <= 1024
        assert len(path.read_text().split("\n")) < 500


async def test_the_skill_names_no_tool_file_or_finding_that_does_not_exist() -> None:
    async with Client(build_server(Settings())) as client:
        listed = (await client.list_tools()).tools
    tools = {tool.name for tool in listed}
    fields = {name for tool in listed for name in json.dumps(tool.input_schema).split('"')}
    for path in FOLDER.rglob("*.md"):
        text = path.read_text()
        for link in re.findall(r"\]\(([\w/.]+)\)", text):
            assert (path.parent / link).is_file(), link
        for name in re.findall(r"`([a-z]+_[a-z_]+)[(`]", text):
            known = tools | fields | set(get_args(Kind)) | {"approval_required", "how_to_approve", "rate_limited"}
            known |= {"no_evidence", "dry_run", "not_comparable", "max_length", "max_minutes"}
            known |= {"resume_from_checkpoint"}
            assert name in known, f"{path.name}: {name}"


def test_the_instructions_are_short_and_name_the_skill() -> None:
    assert len(INSTRUCTIONS.split()) <= 150 and SKILL in INSTRUCTIONS


# Prompts


async def test_prompts_complete_the_ids_that_they_take(workspace: Workspace, ledger: Ledger) -> None:
    first_light(workspace, ledger)
    async with Client(build_server(Settings())) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == [
            *("post_train", "review_run", "plan_experiment", "literature_review")
        ]
        review = PromptReference(type="ref/prompt", name="review_run")
        found = await client.complete(review, {"name": "job_id", "value": "job-sft"})
        assert sorted(found.completion.values) == ["job-sft1", "job-sft2"]
        plan = PromptReference(type="ref/prompt", name="plan_experiment")
        assert (await client.complete(plan, {"name": "experiment", "value": "max"})).completion.values == ["maxnum"]
        [message] = (await client.get_prompt("review_run", {"job_id": "job-sft1"})).messages
        assert isinstance(message.content, TextContent) and "job-sft1" in message.content.text


@ERAS
@pytest.mark.parametrize(
    "name, arguments, complaint",
    [
        ("review_run", {}, r"The prompt review_run needs job_id \(The job, as in list_jobs\)"),
        ("post_train", {"goal": " "}, "needs goal"),
        ("post_train", {"gaol": "x"}, "has no argument 'gaol'. Did you mean 'goal'"),
        ("review_runs", {}, "There is no prompt 'review_runs'. Did you mean 'review_run'"),
    ],
)
async def test_what_is_wrong_with_a_prompt_is_said_without_a_traceback(
    era: str, name: str, arguments: dict[str, str], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(build_server(Settings()), mode=era) as client:
        with pytest.raises(MCPError, match=complaint):
            await client.get_prompt(name, arguments)
    assert not [record for record in caplog.records if record.exc_info]


# What is shipped


def test_every_shipped_file_says_the_same_version() -> None:
    assert build.checked_version() == "0.1.0"


def test_the_bundle_holds_the_source_and_its_manifest(tmp_path: Path) -> None:
    first, second = build.build_bundle(tmp_path / "a.mcpb"), build.build_bundle(tmp_path / "b.mcpb")
    assert first.read_bytes() == second.read_bytes(), "the same source gives the same bundle"
    with zipfile.ZipFile(first) as bundle:
        names = set(bundle.namelist())
        manifest = json.loads(bundle.read("manifest.json"))
    assert manifest["manifest_version"] == "0.4" and manifest["server"]["type"] == "uv"
    assert {"pyproject.toml", manifest["server"]["entry_point"], "skills/post-training/SKILL.md"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_entry_for_the_registry_is_as_its_schema_wants() -> None:
    """The rules of the MCP registry's server.schema.json of 2025-09-29 that can go wrong here."""
    entry = json.loads((ROOT / "server.json").read_text())
    assert entry["$schema"] == "https://static.modelcontextprotocol.io/schemas/2025-09-29/server.schema.json"
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"]) and len(entry["name"]) <= 200
    assert 1 <= len(entry["description"]) <= 100
    for package in entry["packages"]:
        assert {"registryType", "identifier", "version", "transport"} <= set(package)
        assert package["version"] == entry["version"] and package["transport"] == {"type": "stdio"}
        allowed = {
            "registryType",
            "registryBaseUrl",
            "identifier",
            "version",
            "fileSha256",
            "runtimeHint",
            "transport",
        }
        assert set(package) <= allowed | {"runtimeArguments", "packageArguments", "environmentVariables"}
        for argument in package["runtimeArguments"]:
            assert argument["type"] == "positional" or argument["name"]
        for variable in package["environmentVariables"]:
            assert variable["name"] and variable.get("format", "string") in (
                "string",
                "number",
                "boolean",
                "filepath",
            )
    assert f"mcp-name: {entry['name']}" in (ROOT / "README.md").read_text(), "PyPI's page proves who owns the name"


@pytest.mark.real
def test_claude_code_takes_the_plugin() -> None:
    claude = shutil.which("claude")
    if claude is None:
        pytest.skip("Claude Code is not installed: npm install --global @anthropic-ai/claude-code")
    for what in (ROOT, ROOT / ".claude-plugin" / "plugin.json"):
        done = subprocess.run([claude, "plugin", "validate", str(what)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "Validation passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.real
def test_the_bundle_is_taken_by_its_own_program(tmp_path: Path) -> None:
    mcpb = shutil.which("mcpb")
    if mcpb is None:
        pytest.skip("mcpb is not installed: npm install --global @anthropic-ai/mcpb")
    manifest = ROOT / "release" / "manifest.json"
    done = subprocess.run([mcpb, "validate", str(manifest)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
