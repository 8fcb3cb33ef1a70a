"""GitHub: what can be searched with and without a token, and files by line ranges."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.reference.code import LINES, Code, notebook_as_markdown, repository_of
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.github import CODE_LIMITED, LIMITED, GitHubStandIn

pytestmark = pytest.mark.anyio

NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "1" * 10_000}]},
    ],
    "metadata": {},
}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubStandIn]:
    with GitHubStandIn().running() as standin:
        assert isinstance(standin, GitHubStandIn)
        monkeypatch.setenv("MLINTERN_GITHUB_URL", standin.url)
        standin.files["huggingface/trl"] = {
            "examples/scripts/grpo_agent.py": "".join(f"line {i}\n" for i in range(1, 1001)).encode(),
            "trl/trainer/grpo_trainer.py": b"class GRPOTrainer:\n    pass\n",
            "examples/notebook.ipynb": json.dumps(NOTEBOOK).encode(),
            "logo.png": b"\x89PNG\x00\x00",
            "README.md": b"# TRL\n",
        }
        yield standin


@pytest.fixture
def code(github: GitHubStandIn, workspace: Workspace, clock: FakeClock) -> Code:
    return Code(web=Web(workspace, clock), clock=clock)


async def test_without_a_token_file_names_are_searched_and_that_is_said(code: Code) -> None:
    result = await code.search("grpo trainer", repo="https://github.com/huggingface/trl")
    assert (result.status, result.searched) == ("ok", "file names")
    assert [hit.path for hit in result.items] == ["trl/trainer/grpo_trainer.py"]
    assert "GITHUB_TOKEN" in result.note


async def test_with_a_token_contents_are_searched_and_only_github_gets_it(
    code: Code, github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_test")
    result = await code.search("class GRPOTrainer", repo="huggingface/trl")
    assert (result.searched, [hit.path for hit in result.items]) == ("contents", ["trl/trainer/grpo_trainer.py"])
    assert result.items[0].snippet == "class GRPOTrainer"
    assert github.seen[-1].headers["authorization"] == "Bearer ghp_test"


async def test_without_token_and_repository_repositories_are_found(code: Code) -> None:
    result = await code.search("trl")
    assert (result.searched, [hit.repo for hit in result.items]) == ("repositories", ["huggingface/trl"])


async def test_the_anonymous_limit_is_no_empty_answer(code: Code, github: GitHubStandIn) -> None:
    github.fail_always(LIMITED)
    result = await code.search("grpo", repo="huggingface/trl")
    assert (result.status, result.items) == ("rate_limited", [])
    assert result.sources[0].retry_after_seconds == 600


async def test_code_search_has_ten_requests_a_minute_and_the_advice_does_not_promise_more(
    code: Code, github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_test")
    github.fail_always(CODE_LIMITED, path="/search/code")
    result = await code.search("GRPOTrainer(", repo="huggingface/trl")
    (report,) = result.sources
    assert (result.status, report.retry_after_seconds) == ("rate_limited", 42)
    assert "10 code searches a minute" in report.message and "5,000" not in report.message


@pytest.mark.parametrize("token", ["", "ghp_test"])
async def test_a_query_that_github_refuses_is_refused_by_name_before_it_is_sent(
    code: Code, github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", token)
    with pytest.raises(BadInput, match="takes 256"):
        await code.search("x" * 257)
    with pytest.raises(BadInput, match="takes 5"):
        await code.search(" OR ".join("abcdefg"))
    assert github.seen == []
    await code.search(f"{'x' * 256} language:python repo:huggingface/trl")
    assert len(github.seen) == 1, "qualifiers do not count"


async def test_a_repository_that_the_token_may_not_see_is_named(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_test")
    with pytest.raises(NotFound, match="nobody/nothing"):
        await code.search("GRPOTrainer", repo="nobody/nothing")


async def test_a_file_is_read_by_lines_and_says_where_to_go_on(code: Code) -> None:
    path = "examples/scripts/grpo_agent.py"
    page = await code.read("huggingface/trl", path)
    assert (page.start_line, page.end_line, page.next_start_line, page.total_lines) == (1, LINES, LINES + 1, 1000)
    part = await code.read("huggingface/trl", path, start_line=998, end_line=5000)
    assert (part.text, part.next_start_line) == ("line 998\nline 999\nline 1000", None)
    linked = await code.read(f"https://github.com/huggingface/trl/blob/main/{path}#L10-L11")
    assert (linked.text, linked.ref) == ("line 10\nline 11", "main")


async def test_a_folder_gives_its_names(code: Code) -> None:
    assert (await code.read("huggingface/trl")).entries == ["examples/", "trl/", "README.md", "logo.png"]
    assert (await code.read("huggingface/trl", "examples")).entries == ["scripts/", "notebook.ipynb"]


async def test_a_notebook_is_markdown_without_outputs(code: Code) -> None:
    page = await code.read("huggingface/trl", "examples/notebook.ipynb")
    assert page.text == "# Title\ntext\n\n```python\nprint(1)\n```"


async def test_what_cannot_be_read_is_named(code: Code) -> None:
    with pytest.raises(NotFound):
        await code.read("huggingface/none", "x.py")
    with pytest.raises(BadInput, match="binary file"):
        await code.read("huggingface/trl", "logo.png")
    with pytest.raises(BadInput, match="has 1 lines"):
        await code.read("huggingface/trl", "README.md", start_line=5)
    with pytest.raises(BadInput, match="no range"):
        await code.read("huggingface/trl", "README.md", start_line=5, end_line=2)
    with pytest.raises(BadInput, match="no notebook"):
        notebook_as_markdown("[]")


@pytest.mark.parametrize("text", ["", "trl", "https://example.org/a/b", "a/b/c", "https://github.com/onlyowner"])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no GitHub repository"):
        repository_of(text)
