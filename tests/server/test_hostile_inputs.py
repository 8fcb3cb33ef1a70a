"""Whatever is thrown at the real server: every call ends in a named error, soon, and the process stays small."""

from __future__ import annotations

import gzip
import json
import os
import socket
import sys
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

pytestmark = pytest.mark.anyio

LARGEST_SERVER = 200 << 20
SOON = 100.0
"""Seconds for one call on a loaded machine; the old code took minutes, or never came back."""


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[Client, Path]]:
    """The real program with ``folder`` as working directory, and where /proc shows it."""
    mark = folder / "server.pid"
    program = f'echo $$ > "{mark}"; exec "{sys.executable}" -m mlintern.server serve'
    environment = {**os.environ, "MLINTERN_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    parameters = StdioServerParameters(command="sh", args=["-c", program], env=environment, cwd=folder)
    async with Client(stdio_client(parameters)) as client:
        yield client, Path("/proc") / mark.read_text().strip()


def peak_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def one_long_line(path: Path, *, mebibytes: int = 1200) -> None:
    """A gzip file of members, which readers take for one text without a line break."""
    member = gzip.compress(b"a" * (16 << 20), 1)
    with path.open("wb") as file:
        for _ in range(mebibytes // 16):
            file.write(member)


def sparse(path: Path, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, 40 << 30)


def eval_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("header.json", "summaries.json"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(b'{"x": "')
                for _ in range(400):
                    member.write(b"a" * (1 << 20))
                member.write(b'"}')


def model_folder(path: Path, template: str) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))


def make_inputs(folder: Path) -> None:
    one_long_line(folder / "line.jsonl.gz")
    for name in ("sparse.jsonl", "sparse.json", "sparse.csv", "sparse.parquet", "sparse.log"):
        sparse(folder / name)
    sparse(folder / "sparse.eval", b"PK\3\4")
    eval_bomb(folder / "bomb.eval")
    model_folder(folder / "multiplying", "{{ 'x' * 10**10 }}")
    model_folder(folder / "endless", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    (folder / "pipes").mkdir()
    for name in ("a.jsonl", "README.md", "config.json", "results_1.json", "metrics.jsonl"):
        os.mkfifo(folder / "pipes" / name)
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "loop").mkdir()
    (folder / "loop" / "again").symlink_to(folder / "loop", target_is_directory=True)
    (folder / "to_device.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jsonl"))
    (folder / "fine.jsonl").write_text('{"prompt": "what is one and one", "completion": "it is two"}\n' * 3)


LONG = "ab" * 200_000
CALLS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("inspect_dataset", {"dataset": name})
        for name in (
            *("line.jsonl.gz", "sparse.jsonl", "sparse.json", "sparse.csv", "sparse.parquet", "pipe.jsonl", "pipes"),
            *("loop", "to_device.jsonl", "socket.jsonl", "/dev/zero", "/dev/random"),
        )
    ),
    *(
        ("check_contamination", {"train": name, "evaluation": "fine.jsonl"})
        for name in ("line.jsonl.gz", "sparse.jsonl", "pipe.jsonl", "to_device.jsonl")
    ),
    *(
        (tool, {"source": name})
        for tool in ("diagnose_run", "read_eval")
        for name in ("/dev/zero", "line.jsonl.gz", "sparse.eval", "sparse.log", "bomb.eval", "pipes", "loop")
    ),
    ("inspect_model", {"model": "pipes"}),
    ("inspect_model", {"model": "/dev/zero"}),
    ("edit_script", {"code": LONG, "old_text": "c" + LONG, "new_text": "x"}),
    ("edit_script", {"code": "\n".join([LONG[:400]] * 900), "old_text": "b" + LONG[:400], "new_text": "x"}),
    ("edit_script", {"code": LONG, "old_text": LONG[: len(LONG) // 2], "new_text": "x"}),
]


@pytest.mark.slow
async def test_whatever_is_thrown_at_it_is_named_soon_and_the_server_stays_small(tmp_path: Path) -> None:
    make_inputs(tmp_path)
    slow: dict[str, float] = {}
    async with server(tmp_path) as (client, process):
        await client.call_tool("inspect_dataset", {"dataset": "fine.jsonl"})
        for tool, arguments in CALLS:
            shown = f"{tool}({arguments!s:.60})"
            began = time.monotonic()
            with anyio.fail_after(SOON):
                result = await client.call_tool(tool, arguments)
            slow[shown] = time.monotonic() - began
            text = getattr(result.content[0], "text", "")
            assert result.is_error and "Error executing tool" not in text and "Traceback" not in text, (shown, text)
            assert peak_bytes(process) < LARGEST_SERVER, shown
        for name in ("multiplying", "endless"):
            with anyio.fail_after(SOON):
                result = await client.call_tool("inspect_model", {"model": name})
            assert result.is_error or (result.structured_content or {})["chat_template"]["error"], name
        fine = await client.call_tool("inspect_dataset", {"dataset": "fine.jsonl"})
        assert not fine.is_error and fine.structured_content and fine.structured_content["rows"] == 3
        assert peak_bytes(process) < LARGEST_SERVER
        print(f"\npeak {peak_bytes(process) >> 20} MiB", *sorted(slow.items(), key=lambda one: -one[1])[:6], sep="\n")
