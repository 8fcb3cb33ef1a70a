"""Every tool, called 200 times with arguments made from its schema while the services answer garbage.

No answer is a crash or an error without a name, nothing is written outside of the workspace, and every call ends.
The cases follow from the seed and the tool's name.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import random
import re
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestParams, ElicitResult, Tool

from mlintern.server.app import build_server
from mlintern.server.services import Lab
from mlintern.server.settings import Settings
from mlintern.tools.scripts import describe
from tests.server.asking import CLOSED, NO, UNTICKED, YES
from tests.server.test_bad_input import CASES as BAD_INPUT
from tests.services.arxiv import ArxivApi, ArxivSite
from tests.services.corpus import Corpus
from tests.services.garbled import Garbled, damaged, garble
from tests.services.github import GitHubStandIn
from tests.services.hf_papers import HuggingFacePapers
from tests.services.hub import Repo
from tests.services.hub_git import WritableHub
from tests.services.openalex import OpenAlex
from tests.services.semantic_scholar import SemanticScholar
from tests.services.viewer import ViewerStandIn
from tests.tools.evals.results import add_job, write_own

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CASES = int(os.environ.get("MLINTERN_FUZZ_CASES", "200"))
SEED = "1"
AT_ONCE = 4
NAMELESS = re.compile(
    r"Traceback|Error executing tool|object has no attribute|object is not (iterable|subscriptable|callable)"
    r"|NoneType|takes \d+ positional|unexpected keyword|list indices must|string indices must|unhashable type"
    r"|\b(Key|Type|Attribute|Index|Recursion|Unicode\w+|Assertion|JSONDecode)Error\b"
)
HOSTILE: tuple[Any, ...] = (
    "",
    " ",
    "\n",
    "\x00",
    "../../etc/passwd",
    "/",
    ".",
    "~",
    "~nobody",
    "a" * 5000,
    "/" + "a/" * 2500,
    "\u202e{x}",
    "\U0001f4a5",
    "\ud800",
    "%00%2e%2e",
    "'; DROP TABLE jobs; --",
    "{{ 7 * 7 }}",
    "${HOME}",
    "-rf",
    "--help",
    "*",
    "[",
    "(a+)+$",
    "null",
    "NaN",
    "1e999",
    "https://",
    "http://[::bad",
    "hf://",
    "hf://datasets/org/data@main/x",
    "file://",
    "data:text/html,x",
    "javascript:x",
    "https://huggingface.co/org/model/tree/main/../..",
    "arxiv:",
    "10.1/",
    "W0",
    "@",
)
NUMBERS: tuple[Any, ...] = (0, 1, 2, 3, 5, 10, -1, 2**31, 2**63, 10**30, 0.5, 1e308, -0.0, True, "3", None)
STARTS = frozenset({"submit_job", "check_script", "run_trials", "confirm"})
OF_FILES = frozenset({"dataset", "model", "source", "train", "evaluation", "against", "baseline", "candidate"})
CODE = "import os\n\nprint(os.name)\n"
RECIPE_FIELDS = (
    "trainer",
    "model",
    "dataset",
    "datasets",
    "hyperparameters",
    "lora",
    "name",
    "limit",
    "filter",
    "prepare",
)
KNOWN: dict[str, list[Any]] = {
    "word": ["x", "learning_rate", "main", "train", "test", "accuracy", "a-name", "exp", "reward"],
    "query": ["reward modelling", "all:reward AND cat:cs.CL", "GRPOTrainer(", "packing"],
    "paper_id": [
        "2001.00001",
        "https://arxiv.org/abs/2001.00001v2",
        "10.1000/x",
        "W4000000001",
        "s2:CorpusId:900001",
    ],
    "paper_ids": ["2001.00001", "2001.00002"],
    "cursor": ["eyJ2IjoxfQ", "bm9uc2Vuc2U="],
    "model": ["org/model", "org/none", "job-000000000000"],
    "dataset": ["org/data", "org/none", "job-000000000000"],
    "prompts": ["org/data"],
    "source": ["org/model", "job-000000000000", "job-000000000001", "hf://datasets/org/data", "org/none"],
    "train": ["org/data"],
    "evaluation": [{"dataset": "org/data", "prompt": "{prompt}", "answer": "completion"}, {"dataset": "org/data"}],
    "baseline": ["org/model", "job-000000000000"],
    "candidate": ["org/model", "job-000000000001"],
    "repo_id": [
        "org/model",
        "org/data",
        "org/space",
        "me/new",
        "https://huggingface.co/org/model/blob/main/README.md",
    ],
    "repo": ["owner/name", "https://github.com/owner/name/blob/main/train.py#L1-L9", "owner/none"],
    "path": ["README.md", "train.py", "train.jsonl", "nothing"],
    "library": ["trl", "transformers", "nothing"],
    "doc": ["trl/sft_trainer", "trl/nothing#x"],
    "trainer": ["sft", "grpo", "evaluation", "generate", "sftt"],
    "operation": ["upload", "create_repo"],
    "job_id": [f"job-00000000000{number}" for number in range(5)]
    + ["slurm:1", "ray:x", "hf_jobs:me/0123456789abcdef01234567"],
    "experiment": ["exp", "none"],
    "name": ["exp", "a-name"],
    "trial": ["a", "base"],
    "limits": [{"hours": 1}, {"hours": 1, "usd": 5, "parallel": 2}],
    "search": [{"kind": "grid", "base": "a", "space": {"seed": [1, 2]}, "trials": 2}],
    "trials": [
        {"name": "a", "recipe": {"trainer": "sft", "model": "org/model", "dataset": "org/data"}},
        {"base": "a", "change": {"seed": 1}},
    ],
    "env": [{"A": "1"}, {"HF_ENDPOINT": "http://elsewhere"}],
    "secrets": ["HF_TOKEN", "NONE"],
    "backend": ["local", "hf_jobs", "slurm", "ray"],
    "hardware": ["cpu", "gpu", "a100"],
    "timeout": ["30m", "90s", "1h30m"],
    "level": ["static", "template", "dry_run"],
    "schedule": ["@hourly", "0 0 * * *"],
    "recipe": [
        {"trainer": "sft", "model": "org/model", "dataset": "org/data"},
        {"trainer": "dpo", "model": "org/model", "datasets": [{"dataset": "org/data", "weight": 1}]},
        {"trainer": "grpo", "model": "org/model", "dataset": "org/data", "rewards": ["accuracy"]},
        {
            "trainer": "evaluation",
            "model": "org/model",
            "dataset": "org/data",
            "prompt": "{prompt}",
            "answer": "completion",
        },
        {"trainer": "generate", "model": "org/model", "prompts": "org/data", "keep": "all"},
    ],
}
WRONG: tuple[Any, ...] = (None, 3, -1.5, True, "text", [], {}, [[]], [None], {"a": {"b": None}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def files(root: Path) -> list[str]:
    """Data, models, results and logs: some as they should be, most of them damaged."""
    folder = root / "data"
    rng = random.Random(SEED)
    rows = [{"prompt": f"What is {n} and one?", "completion": str(n + 1), "id": n} for n in range(30)]
    good = "".join(json.dumps(row) + "\n" for row in rows).encode()
    write_own(folder / "result", [1.0, 0.0, 1.0])
    write_own(folder / "result2", [1.0, 1.0, 1.0])
    state = {
        "log_history": [{"step": n, "loss": 2.0 / (n + 1), "epoch": 0.1 * n} for n in range(20)],
        "global_step": 20,
    }
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    contents = {
        "rows.jsonl": good,
        "rows.json": json.dumps(rows).encode(),
        "rows.csv": b"prompt,completion\n1,2\n3,4\n",
        "rows.jsonl.gz": gzip.compress(good),
        "rows.parquet": b"PAR1" + bytes(100) + b"PAR1",
        "trainer_state.json": json.dumps(state).encode(),
        "metrics.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in state["log_history"]),  # type: ignore[union-attr]
        "train.log": b"{'loss': 1.0, 'epoch': 0.1}\n",
        "logs.eval": b"PK\x03\x04garbage",
        "model/config.json": json.dumps(config).encode(),
        "model/tokenizer_config.json": json.dumps({"chat_template": "{{ messages[0]['content'] }}"}).encode(),
        "model/model.safetensors": (8).to_bytes(8, "little") + b"{}      ",
        "saved/state.json": b'{"_data_files": [{"filename": "a.arrow"}]}',
        "saved/dataset_info.json": b"{}",
        "saved/a.arrow": b"ARROW1",
        "README.md": b"---\nlicense: [\n---\n",
    }
    for name, content in contents.items():
        for copy in range(4):
            place = folder / (name if copy == 0 else f"damaged{copy}/{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content if copy == 0 else damaged(content, rng))
    for copy in range(1, 6):
        for source in ("evaluation.json", "samples.jsonl"):
            place = folder / f"result_damaged{copy}" / source
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(damaged((folder / "result" / source).read_bytes(), rng))
    (folder / "nothing").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.jsonl")
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def services(root: Path) -> Iterator[dict[str, str]]:
    """Every service that a tool asks, each answering garbage; their addresses by variable."""
    corpus = Corpus(size=20, fan_out=3)
    hub, papers, viewer, code = WritableHub(), HuggingFacePapers(corpus), ViewerStandIn(), GitHubStandIn()
    rows = b"".join(json.dumps({"prompt": str(n), "completion": "y"}).encode() + b"\n" for n in range(20))
    hub.add(Repo("org/model", files={"config.json": b'{"hidden_size": 8}', "README.md": b"---\nlicense: mit\n---\n"}))
    hub.add(Repo("org/data", kind="datasets", files={"train.jsonl": rows, "README.md": b"# data"}))
    hub.add(Repo("org/space", kind="spaces", files={"app.py": b"x = 1\n"}))
    for endpoint in ("splits", "size", "parquet", "statistics", "first-rows", "presidio-entities"):
        split = {"dataset": "org/data", "config": "default", "split": "train"}
        viewer.answers[(endpoint, "org/data")] = {
            "splits": [split],
            "size": {"splits": [{**split, "num_rows": 20, "num_bytes_memory": 9}], "configs": []},
            "parquet_files": [{**split, "url": "x", "filename": "0.parquet", "size": 3}],
            "num_examples": 20,
            "statistics": [
                {"column_name": "prompt", "column_type": "string_text", "column_statistics": {"nan_count": 0}}
            ],
            "features": [{"name": "prompt", "type": {"dtype": "string"}}],
            "rows": [{"row": {"prompt": "x"}}],
        }
    code.files["owner/name"] = {"README.md": b"# name\n", "train.py": b"GRPOTrainer(\n"}
    others = {
        "MLINTERN_ARXIV_API_URL": ArxivApi(corpus),
        "MLINTERN_ARXIV_URL": ArxivSite(corpus, has_html=range(20)),
        "MLINTERN_AR5IV_URL": ArxivSite(corpus),
        "MLINTERN_S2_URL": SemanticScholar(corpus),
        "MLINTERN_OPENALEX_URL": OpenAlex(corpus),
        "MLINTERN_DATASETS_SERVER_URL": viewer,
        "MLINTERN_GITHUB_URL": code,
    }
    garble(list(others.values()), seed=SEED)
    hub._app = Garbled(  # type: ignore[assignment]
        {"": hub._app, "/api/papers": papers._app, "/api/daily_papers": papers._app, "/papers/": papers._app},
        seed=SEED,
    )
    with contextlib.ExitStack() as stack:
        for service in (hub, *others.values()):
            stack.enter_context(service.running())
        yield {"HF_ENDPOINT": hub.url, **{name: service.url for name, service in others.items()}}


@pytest.fixture
def environment(root: Path, services: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "scratch").mkdir(exist_ok=True)
    (root / "working").mkdir(exist_ok=True)
    (root / "person").mkdir(exist_ok=True)
    variables = {
        "HOME": root / "person",
        "MLINTERN_HOME": root / "home",
        "HF_HOME": root / "hf",
        "TMPDIR": root / "scratch",
        "HF_TOKEN": "hf_good",
    }
    for name, value in {**services, **variables}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(root / "working")


@asynccontextmanager
async def desk(root: Path, tool: str) -> AsyncIterator[tuple[Client, dict[str, list[Any]]]]:
    """A server with a few jobs and scripts, and what a caller may know of it by the names of parameters.

    Its person says yes to what starts no process here, and else no, nothing, or something that is no answer.
    """
    rng = random.Random(f"{SEED} person {tool}")
    answers = [
        NO,
        UNTICKED,
        CLOSED,
        ElicitResult(action="accept", content={"approve": "yes"}),
        ElicitResult(action="accept"),
    ]

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return rng.choice(answers if tool in STARTS else [*answers, YES, YES, YES])

    lab = Lab(Settings(workspace=root / "home", data=(root,)))
    async with Client(build_server(lab.settings, lab=lab), elicitation_callback=person) as client:
        stored = await client.call_tool("edit_script", {"code": CODE})
        known: dict[str, list[Any]] = {key: list(values) for key, values in KNOWN.items()}
        assert stored.structured_content is not None
        known["script_id"] = [stored.structured_content["script_id"], "0123456789ab"]
        with contextlib.suppress(sqlite3.IntegrityError):  # the tool before left them
            for number, state in enumerate(("succeeded", "failed", "running", "queued")):
                add_job(
                    lab.ledger, f"job-00000000000{number}", state=state, experiment="exp", recipe={"trainer": "sft"}
                )
        yield client, known


def calls(tool: Tool, known: dict[str, list[Any]], files: list[str]) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"{SEED} {tool.name}")
    known = {**known, "file": files}
    schema = tool.input_schema
    for _ in range(CASES):
        chosen = {
            name: made(name, part, rng, known=known)
            for name, part in schema["properties"].items()
            if rng.random() < (0.95 if name in schema.get("required", ()) else 0.3)
        }
        if rng.random() < 0.02:
            chosen["no_such_argument"] = rng.choice(WRONG)
        yield chosen


def made(name: str, schema: dict[str, Any], rng: random.Random, *, known: dict[str, list[Any]]) -> Any:
    """A value for the parameter ``name``: mostly of its type and something that this server knows."""
    if rng.random() < 0.07:
        return rng.choice(WRONG)
    if "anyOf" in schema:
        return made(name, rng.choice(schema["anyOf"]), rng, known=known)
    if "enum" in schema:
        return rng.choice([*schema["enum"], *schema["enum"], "none of these"])
    kind = schema.get("type")
    if kind == "array":
        return [
            made(name, schema.get("items") or {"type": "string"}, rng, known=known) for _ in range(rng.randint(0, 3))
        ]
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "number"):
        return rng.choice(NUMBERS)
    if kind == "object":
        return _object(name, rng, known=known)
    pool = [*known.get(name, ()), *(known["file"] if name in OF_FILES else ())] or known["word"]
    return rng.choice(HOSTILE) if rng.random() < 0.25 else rng.choice(pool)


def _object(name: str, rng: random.Random, *, known: dict[str, list[Any]]) -> dict[str, Any]:
    """One of the objects that are known for ``name``, with perhaps one of its values changed, added or taken out."""
    found = json.loads(json.dumps(rng.choice(known.get(name) or [{}])))
    for key in ("model", "dataset", "prompts"):
        if key in found and rng.random() < 0.8:
            found[key] = rng.choice([*known["file"], *known[key]])
    if rng.random() < 0.6:
        key = rng.choice([*found, *RECIPE_FIELDS])
        found[key] = rng.choice([*WRONG, *HOSTILE, *NUMBERS, *known["file"]])
    return dict(found)


def listing(root: Path) -> dict[str, int]:
    """Files outside of the places that tools may write, with their sizes."""
    own = {root / name for name in ("home", "hf", "scratch")}
    found = (path for path in root.rglob("*") if not own & {path, *path.parents})
    return {str(path): path.lstat().st_size for path in found}


@pytest.mark.parametrize("name", sorted({tool for tool, _, _ in BAD_INPUT}))
@pytest.mark.usefixtures("environment")
async def test_no_call_crashes_fails_without_a_name_or_writes_elsewhere(
    name: str, root: Path, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = listing(root)
    wrong: list[str] = []
    async with desk(root, name) as (client, known):
        [tool] = [tool for tool in (await client.list_tools()).tools if tool.name == name]
        send, receive = anyio.create_memory_object_stream[dict[str, Any]](CASES)
        for arguments in calls(tool, known, files):
            send.send_nowait(arguments)
        send.close()

        async def work() -> None:
            async for arguments in receive:
                if complaint := await _complaint(client, name, arguments):
                    wrong.append(f"{complaint}\n    {arguments!r:.600}")

        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(work)
    assert not wrong, f"{len(wrong)} of {CASES}:\n" + "\n".join(wrong[:12])
    assert not [
        record.getMessage() for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR
    ]
    assert listing(root) == before


async def _complaint(client: Client, name: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the answer to a call; None: nothing."""
    try:
        with anyio.fail_after(60):
            result = await client.call_tool(name, arguments)
    except TimeoutError:
        return "no answer in 60 s"
    except MCPError as error:
        return f"a protocol error: {error}"
    text = " ".join(getattr(block, "text", "") for block in result.content)
    if result.is_error and len(text) < 12:
        return f"an error that says nothing: {text!r}"
    if found := NAMELESS.search(text):
        return f"an error without a name: ...{text[max(0, found.start() - 200) : found.end() + 200]}"
    return None


async def test_the_fuzz_notices_a_crash(root: Path, environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(trainer: str, **_: Any) -> None:
        raise KeyError(trainer)

    monkeypatch.setattr(describe, "describe_trainer", broken)
    async with desk(root, "describe_trainer") as (client, _):
        assert await _complaint(client, "describe_trainer", {"trainer": "sft"})
