"""The house: every module is on the page, says what it holds, and takes more than two parameters by keyword."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest

from tests.house.architecture_map import PAGE, ROOMS, ROOT, modules, page, summary

CAUGHT_IN_THEIR_ROOM = {"Refused"}
"""What a trainer would refuse of a row: `try_row` and `formats` turn it into a finding; no tool raises it."""
ARCHAIC = re.compile(
    r"\b(?:whoever|mend|mends|mended|mending|dearest|whence|thereof|hereby|henceforth|nought|naught|behold|forthwith"
    r"|wherein|whereby|lest|ere|betwixt|amongst|whilst|unto|thrice|in vain)\b",
    re.IGNORECASE,
)
"""Words that a reader of technical English has to look up."""
CALLED_BY_POSITION = {
    "server/asking.py:settle",
    "server/http.py:serve_http",
    "server/publishing.py:plan_publication",
    "server/strict_server.py:call_tool",
    "server/strict_server.py:get_prompt",
    "server/tasks.py:intercept_tool_call",
    "server/toolsets/experiments.py:plan_trials",
    "server/toolsets/jobs.py:plan_job",
    "server/toolsets/scripts.py:consent_to_try",
    "tools/sandbox/worker.py:restored_error",
    "tools/web/private_networks.py:connect_tcp",
}
"""Others call these by position: the SDK, httpcore2, resolvers of consent, `anyio.run` and `pickle`."""
NOT_YET = {
    "orchestrator/rehearsal/turns.py:error",
    "server/toolsets/hub.py:filtered_path",
    "server/toolsets/scripts.py:trying",
    "tools/campaigns/runner.py:keep_best",
    "tools/campaigns/runner.py:plan",
    "tools/campaigns/store.py:open_experiment",
    "tools/campaigns/work.py:keep_best",
    "tools/campaigns/work.py:plan",
    "tools/campaigns/work.py:recipe",
    "tools/data/contamination.py:compare",
    "tools/data/formats.py:kind_of",
    "tools/data/inspect_dataset.py:inspect_local",
    "tools/data/inspect_remote.py:inspect",
    "tools/data/near_copies.py:hits",
    "tools/data/ngram_index.py:hits",
    "tools/data/ngram_index.py:match",
    "tools/data/remote_rows.py:choose",
    "tools/data/sample_rows.py:sample_rows",
    "tools/data/viewer.py:look_at",
    "tools/evals/documents.py:problem",
    "tools/evals/hub_cache.py:keep",
    "tools/evals/significance.py:by_t",
    "tools/evals/significance.py:newcombe",
    "tools/evals/significance.py:unpaired",
    "tools/jobs/timing.py:duration",
    "tools/jobs/timing.py:evaluation",
    "tools/jobs/timing.py:step_of",
    "tools/papers/citations.py:__init__",
    "tools/papers/search.py:passes",
    "tools/papers/service.py:__init__",
    "tools/scripts/script_inputs.py:save_as_dataset",
    "tools/scripts/tables.py:read_table",
    "tools/scripts/tiny_model.py:main",
}
"""Still take a third parameter by position. A name may leave this set; none may come."""
LONGEST_FILE = 400
DECORATED = ("property", "overload", "override", "validator", "tool", "prompt", "resource", "fixture", "command")
"""Functions with these decorators are called by somebody else's rules."""


def test_every_module_is_on_the_page_with_what_it_says_of_itself() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "docs/architecture.md is behind the code: run make map"


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_a_module_says_in_one_line_what_it_holds(path: Path) -> None:
    assert len(summary(path)) > 10 or path.name == "__main__.py"


@pytest.mark.parametrize("path", list(modules()), ids=str)
def test_no_file_is_longer_than_its_subject(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{path} has {lines} lines: split it by subject"


@pytest.mark.parametrize("room, base", [("orchestrator", "OrchestratorError"), ("tools", "MlinternError")])
def test_every_error_of_a_room_has_its_one_base_class(room: str, base: str) -> None:
    parents = {
        node.name: {ast.unparse(parent) for parent in node.bases}
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    builtin = {
        name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    others = {name for name, above in parents.items() if above & builtin}
    assert {name for name in others if not name.startswith("_")} - CAUGHT_IN_THEIR_ROOM == {base}


@pytest.mark.parametrize("room", [*ROOMS, "docs", "skills", "release"])
def test_the_words_are_those_of_today(room: str) -> None:
    texts = [path for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".md", ".j2")]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in texts
        for word in ARCHAIC.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_more_than_two_parameters_are_taken_by_keyword() -> None:
    found: set[str] = set()
    for path in modules():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        classes = [
            node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ]
        for owner in (tree, *classes):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_public(node.name):
                    bound = isinstance(owner, ast.ClassDef) and not _is_static(node)
                    if len(node.args.posonlyargs) + len(node.args.args) - bound > 2:
                        found.add(f"{path.as_posix()}:{node.name}")
    new = sorted(found - CALLED_BY_POSITION - NOT_YET)
    assert new == [], "put `*, ` before the third parameter"
    assert sorted(NOT_YET - found) == [], "take what is done out of NOT_YET"


def test_what_make_mutants_names_is_there() -> None:
    """The tool itself needs a package that is not installed for the tests."""
    source = (ROOT / "tests" / "house" / "mutants.py").read_text(encoding="utf-8")
    [covered] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "COVERED_BY"
    ]
    assert covered is not None
    for module, tests in ast.literal_eval(covered).items():
        assert (ROOT / f"{module}.py").is_file(), module
        assert tests and all((ROOT / "tests" / test).is_file() for test in tests), module


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("staticmethod" in ast.unparse(decorator) for decorator in node.decorator_list)
