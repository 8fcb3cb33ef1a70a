"""The mcp.json of every host: its forms, its variables, its mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mcp.types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlintern.orchestrator.mcp_config import (
    ConfigError,
    ServerEntry,
    child_environment,
    expand,
    own_server,
    read_config,
)
from mlintern.orchestrator.tool_names import MAX_NAME, for_model, hosted, legal_names, portable_schema

ENVIRONMENT = {"TOKEN": "t0k", "EMPTY": "", "HOST": "example.org"}


def config(tmp_path: Path, document: Any) -> Path:
    path = tmp_path / "mcp.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize("key", ["mcpServers", "servers"])
def test_the_files_of_claude_cursor_and_vs_code_are_read(key: str, tmp_path: Path) -> None:
    table = {
        "local": {"type": "stdio", "command": "run", "args": ["--x", "${TOKEN}"], "env": {"KEY": "${env:TOKEN}"}},
        "far": {"type": "http", "url": "https://${HOST}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "off": {"command": "x", "disabled": True},
        "also off": {"command": "x", "enabled": False},
    }
    good, bad = read_config(config(tmp_path, {key: table}), ENVIRONMENT)
    local, far = good
    assert (local.command, local.args, local.env) == ("run", ("--x", "t0k"), {"KEY": "t0k"})
    assert (far.url, far.headers) == ("https://example.org/mcp", {"Authorization": "Bearer t0k"})
    assert bad == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${TOKEN}", "t0k"),
        ("a${TOKEN}b${HOST}", "at0kbexample.org"),
        ("${NOPE:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${EMPTY}", ""),
        ("${NOPE:-}", ""),
        ("${env:TOKEN}", "t0k"),
        ("$TOKEN {x}", "$TOKEN {x}"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert expand(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "${NOPE}"}, "NOPE is not set"),
        ({"command": "x", "args": ["${input:key}"]}, r"\$\{input:key\} is not understood"),
        ({"args": []}, '"command"'),
        ({"command": "x", "args": "--y"}, '"args" is not a list'),
        ({"command": "x", "env": []}, '"env" is not an object'),
        ({"type": "sse", "url": "http://x"}, "retired"),
        ("text", "not an object"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_and_the_others_are_kept(
    entry: Any, reason: str, tmp_path: Path
) -> None:
    path = config(tmp_path, {"mcpServers": {"bad": entry, "good": {"command": "x"}}})
    good, (bad,) = read_config(path, ENVIRONMENT)
    assert [each.name for each in good] == ["good"]
    assert bad.name == "bad"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(bad.reason)


@pytest.mark.parametrize("document", ["{", "[]", {"other": {}}, {"mcpServers": []}])
def test_a_file_without_servers_says_what_a_right_one_looks_like(document: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mcp\.json"):
        read_config(config(tmp_path, document), ENVIRONMENT)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.json", ENVIRONMENT)


def test_the_repositorys_own_file_is_read() -> None:
    path = Path(__file__).parents[2] / "mcp.json"
    if not path.exists():
        pytest.skip("there is no mcp.json in this checkout")
    good, bad = read_config(path, {})
    assert [entry.name for entry in good] == ["mlintern"] and bad == ()


def test_servers_get_certificates_and_proxies_and_no_key() -> None:
    environment = {
        "SSL_CERT_FILE": "c",
        "https_proxy": "p",
        "HF_TOKEN": "s",
        "ANTHROPIC_API_KEY": "s",
        "HF_HOME": "h",
    }
    entry = ServerEntry(name="x", command="x", env={"OWN": "o"})
    assert child_environment(entry, environment) == {
        "SSL_CERT_FILE": "c",
        "https_proxy": "p",
        "HF_HOME": "h",
        "OWN": "o",
    }


def test_our_own_server_gets_its_settings_and_never_the_models_key() -> None:
    environment = {"MLINTERN_HOME": "h", "HF_TOKEN": "t", "ANTHROPIC_API_KEY": "s", "ANTHROPIC_AUTH_TOKEN": "s"}
    assert own_server(environment).env == {"MLINTERN_HOME": "h", "HF_TOKEN": "t"}


# --- names and schemas ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=80)), max_size=30, unique=True), st.randoms())
def test_names_are_legal_unique_and_do_not_depend_on_the_order(pairs: list[tuple[str, str]], random: Any) -> None:
    names = legal_names(pairs, reserved=["research"])
    assert len(set(names.values())) == len(pairs)
    for name in names.values():
        assert 0 < len(name) <= MAX_NAME
        assert all(char.isascii() and (char.isalnum() or char in "_-") for char in name)
        assert name != "research"
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert legal_names(shuffled, reserved=["research"]) == names


def test_a_name_keeps_its_form_where_nothing_is_against_it() -> None:
    assert legal_names([("a", "submit_job"), ("b", "other")])["a", "submit_job"] == "submit_job"


def tool(**fields: Any) -> types.Tool:
    return types.Tool(name="x", input_schema={"type": "object"}, **fields)


def test_a_tool_that_says_nothing_of_its_effects_may_have_any() -> None:
    assert hosted(tool(), name="x", server="s").side_effect == "side_effect"


def test_a_server_can_say_itself_that_a_tool_polls_or_does_not() -> None:
    reads = types.ToolAnnotations(read_only_hint=True)
    named = types.Tool(name="wait_for_job", input_schema={"type": "object"}, annotations=reads)
    assert hosted(named, name="wait_for_job", server="s").polls


def test_only_tools_that_a_model_may_see_are_offered() -> None:
    assert not for_model(tool(meta={"ui": {"visibility": ["app"]}}))
    assert for_model(tool(meta={"ui": {"visibility": ["model", "app"]}}))
    assert for_model(tool(meta={"ui": {}})) and for_model(tool())


def test_schemas_lose_titles_and_root_unions_and_nothing_else() -> None:
    schema = {
        "title": "Args",
        "anyOf": [{"required": ["a"]}],
        "properties": {"title": {"title": "Title", "type": "string"}, "b": {"anyOf": [{"type": "null"}]}},
        "required": ["title"],
    }
    assert portable_schema(schema) == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "b": {"anyOf": [{"type": "null"}]}},
        "required": ["title"],
    }
