"""``make wheel-check``: the wheel alone, without extras, in an empty environment, answers every tool once over MCP.

What a source tree hides is seen here: a module or template that is not packed, an import that no requirement brings.
An answer is a result or an error by name; a tool that ends in a bug, hangs, or has no example below fails the check.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
INSTALL_SECONDS, CALL_SECONDS = 900, 55
BUG = "Error executing tool"
"""How the server begins the answer of a tool that ended in an exception which has no name."""

RECIPE = {"trainer": "sft", "model": "{folder}/model", "dataset": "{folder}/rows.jsonl"}
EVALUATION = {"dataset": "{folder}/rows.jsonl"}

CALLS: Mapping[str, dict[str, Any]] = {
    "search_papers": {"query": "direct preference optimization", "limit": 1},
    "read_paper": {"paper_id": "2305.18290", "max_chars": 200},
    "ask_papers": {"question": "Does DPO need a reference model?", "paper_ids": ["2305.18290"], "limit": 1},
    "walk_citations": {"paper_id": "2305.18290", "limit": 1},
    "search_hub": {"kind": "datasets", "query": "gsm8k", "limit": 1},
    "inspect_model": {"model": "{folder}/model"},
    "browse_hub": {"repo_id": "openai/gsm8k", "repo_type": "dataset"},
    "inspect_dataset": {"dataset": "{folder}/rows.jsonl", "trainer": "sft"},
    "check_contamination": {"train": "{folder}/rows.jsonl", "evaluation": "{folder}/held_out.jsonl"},
    "search_docs": {"query": "SFTConfig", "library": "trl", "limit": 1},
    "read_doc": {"doc": "trl/sft_trainer"},
    "search_code": {"query": "SFTTrainer", "repo": "huggingface/trl", "limit": 1},
    "read_code": {"repo": "huggingface/trl", "path": "README.md"},
    "publish_to_hub": {"operation": "create_repo", "repo_id": "nobody/nothing"},
    "describe_trainer": {"trainer": "sft"},
    "render_script": {"recipe": RECIPE},
    "edit_script": {"code": "print('hello')\n", "name": "hello"},
    "check_script": {"script_id": "{script_id}"},
    "list_hardware": {"backend": "local"},
    "estimate_job": {"script_id": "{script_id}"},
    "submit_job": {"script_id": "{script_id}", "timeout": "1m"},
    "poll_job": {"job_id": "none"},
    "read_job_logs": {"job_id": "none"},
    "list_jobs": {},
    "cancel_job": {"job_id": "none"},
    "read_eval": {"source": "{folder}/model"},
    "compare_evals": {"baseline": "{folder}/model", "candidate": "{folder}/rows.jsonl"},
    "diagnose_run": {"source": "{folder}/metrics.jsonl"},
    "chat": {"job_id": "none", "prompts": ["Hello"]},
    "open_experiment": {"name": "x", "model": "{folder}/model", "evaluation": EVALUATION, "limits": {"hours": 1}},
    "run_trials": {"experiment": "x", "trials": [{"name": "a", "recipe": RECIPE}]},
    "poll_experiment": {"experiment": "x"},
    "cancel_trial": {"experiment": "x", "trial": "a"},
    "confirm": {"experiment": "x"},
    "list_runs": {},
    "write_report": {"experiment": "x"},
    "plot_run": {"experiment": "x"},
}
"""A small input for each tool. Those that ask the network may answer that there is none."""

FIRST = ("edit_script", "open_experiment")
"""What other calls build on."""

MUST_SUCCEED = frozenset(
    {"inspect_dataset", "check_contamination", "describe_trainer", "render_script", "edit_script", "check_script"}
    | {"list_hardware", "open_experiment", "list_jobs", "diagnose_run", "list_runs"}
)
"""What needs neither network nor training packages and must therefore answer with a result."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--drive", type=Path, help="call the tools of the server at this path; used inside the environment"
    )
    server: Path | None = parser.parse_args().drive
    if server is not None:
        import anyio

        return int(anyio.run(call_every_tool, server))
    from release.build import build_wheel

    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        if missing := undeclared(wheel):
            print(f"imported by the wheel and brought by no requirement: {missing}")
            return 1
        python = install(wheel, Path(folder) / "venv")
        command = [str(python), "-P", __file__, "--drive", str(python.with_name("mlintern-server"))]
        return subprocess.run(command, cwd=folder, timeout=4 * CALL_SECONDS).returncode


def install(wheel: Path, folder: Path) -> Path:
    """Install ``wheel`` with what it requires and nothing else; the environment's Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        str(ROOT / "constraints" / "tested.txt"),
        str(wheel),
    ]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    return python


def imports(wheel: Path) -> set[str]:
    """Top-level modules that the files in the wheel import, without the standard library and without its own."""
    found: set[str] = set()
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if not name.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(packed.read(name))):
                if isinstance(node, ast.Import):
                    found |= {each.name.partition(".")[0] for each in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"mlintern", "compression"}


def requirements(wheel: Path) -> set[str]:
    """Distributions that the wheel's metadata requires, those of its extras among them, as normalised names."""
    from email.parser import Parser

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    with zipfile.ZipFile(wheel) as packed:
        [name] = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        lines = Parser().parsestr(packed.read(name).decode()).get_all("Requires-Dist", [])
    return {str(canonicalize_name(Requirement(line).name)) for line in lines}


def undeclared(wheel: Path) -> list[str]:
    """Modules that the wheel imports and that none of its requirements brings."""
    from importlib import metadata

    from packaging.utils import canonicalize_name

    declared = requirements(wheel) | brought_by_trl()
    by_module = metadata.packages_distributions()
    return sorted(
        module
        for module in imports(wheel)
        if not {str(canonicalize_name(each)) for each in by_module.get(module, [module])} & declared
    )


def brought_by_trl() -> set[str]:
    """Packages that come with those of the extra ``train``."""
    return {"tokenizers", "safetensors"}


async def call_every_tool(server: Path) -> int:
    """Call each tool that ``server`` lists; the count of those that fail the check."""
    import anyio
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    failures: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        write_inputs(folder)
        parameters = StdioServerParameters(
            command=str(server), args=["serve", "--workspace", str(folder / "workspace"), "--data", home]
        )
        async with Client(stdio_client(parameters)) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            failures += [f"{name}: no example in {Path(__file__).name}" for name in sorted(listed - set(CALLS))]
            failures += [f"{name}: not listed by the server" for name in sorted(set(CALLS) - listed)]
            names = {"folder": str(folder), "script_id": "none"}

            async def call(name: str) -> None:
                with anyio.move_on_after(CALL_SECONDS) as scope:
                    result = await client.call_tool(name, filled(CALLS[name], names))
                    said = " ".join(block.text for block in result.content if block.type == "text")
                    if name == "edit_script" and not result.is_error:
                        names["script_id"] = (result.structured_content or {})["script_id"]
                    if said.startswith(BUG) or not said or (result.is_error and name in MUST_SUCCEED):
                        failures.append(f"{name}: {said[:300]}")
                    print(f"{'error ' if result.is_error else 'result'} {name}: {' '.join(said.split())[:100]}")
                if scope.cancelled_caught:
                    failures.append(f"{name}: no answer within {CALL_SECONDS} s")

            for name in FIRST:
                await call(name)
            async with anyio.create_task_group() as group:
                for name in sorted((listed & set(CALLS)) - set(FIRST)):
                    group.start_soon(call, name)
    for failure in failures:
        print("FAILED", failure)
    print(f"{len(CALLS) - len(failures)} of {len(CALLS)} tools answered.")
    return len(failures)


def write_inputs(folder: Path) -> None:
    """The small files that the calls name."""
    import json

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    )
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"{2 * n}"} for n in range(50)]
    (folder / "rows.jsonl").write_text(lines(rows))
    (folder / "held_out.jsonl").write_text(
        lines([{"prompt": f"Name the city number {n}.", "completion": "?"} for n in range(50)])
    )
    (folder / "metrics.jsonl").write_text(lines([{"step": n, "loss": 2.0 / (n + 1)} for n in range(30)]))


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """``value`` with ``{folder}`` and ``{script_id}`` replaced in its texts."""
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    return [filled(item, names) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
