"""One file must not take the machine: devices, pipes, bombs and endless templates end in a named error, soon."""

from __future__ import annotations

import gzip
import json
import os
import time
import zipfile
from pathlib import Path

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.errors import BadInput, MlinternError
from mlintern.tools.evals.service import EvalService
from mlintern.tools.health.diagnose import diagnose_source
from mlintern.tools.hub.client import HubClient
from mlintern.tools.hub.inspect_model import ModelInspector
from mlintern.tools.ledger import Ledger
from mlintern.tools.sandbox import worker
from mlintern.tools.sandbox.worker import Limits
from mlintern.tools.workspace import Workspace

pytestmark = pytest.mark.anyio

GROWTH_BYTES = 80 << 20


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what a call may take, so that the tests take half as long."""
    monkeypatch.setattr(worker, "READING", Limits(seconds=8, cpu_seconds=8, memory_bytes=512 << 20))
    monkeypatch.setattr(worker, "_pool", worker._Pool())


@pytest.fixture(params=["diagnose_run", "read_eval"])
def reading(request: pytest.FixtureRequest, workspace: Workspace, ledger: Ledger):  # type: ignore[no-untyped-def]
    if request.param == "diagnose_run":
        return lambda path: diagnose_source(str(path), workspace=workspace, ledger=ledger)
    service = EvalService(workspace=workspace, ledger=ledger, clock=SystemClock())
    return lambda path: service.read(str(path))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/random", "/dev/tty"])
async def test_a_device_is_refused_at_once(reading, path: str) -> None:  # type: ignore[no-untyped-def]
    began = time.monotonic()
    with pytest.raises(BadInput, match="no regular file"):
        await reading(path)
    assert time.monotonic() - began < worker.READING.seconds / 2, "not by the limit of time"


@pytest.mark.parametrize("inside", [False, True])
async def test_a_pipe_holds_nobody_up(reading, tmp_path: Path, inside: bool) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("results_1.json", "metrics.jsonl", "log.txt"):
        os.mkfifo(folder / name)
    with pytest.raises(MlinternError):
        await reading(folder if inside else folder / "results_1.json")


async def test_a_sparse_file_of_forty_gigabytes_is_named(reading, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.eval"
    path.write_bytes(b"PK\3\4")
    os.truncate(path, 40 << 30)
    await within_bounds(reading, path)


async def test_an_archive_that_unpacks_to_everything_is_named(reading, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "run.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("header.json", "summaries.json", "samples/1_epoch_1.json"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(b'{"x": "')
                for _ in range(512):
                    member.write(b"a" * (1 << 20))
                member.write(b'"}')
    await within_bounds(reading, path)


async def test_json_that_is_nested_without_end_is_named(reading, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "results_1.json"
    path.write_text("[" * 5_000_000)
    await within_bounds(reading, path)


async def test_json_of_a_million_objects_costs_this_process_nothing(reading, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "results_1.json"
    path.write_text(json.dumps({"results": {}, "log_history": [{}] * 8_000_000}))
    await within_bounds(reading, path)


async def test_one_line_of_a_gigabyte_in_a_small_file_is_named(reading, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "samples.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(256):
            file.write(b"a" * (1 << 20))
    await within_bounds(reading, path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10**10 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='xxxxxxxx') %}{% for a in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{{ (10 ** 10) ** (10 ** 9) }}",
    ],
)
async def test_a_template_that_multiplies_is_named(tmp_path: Path, template: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "</s>"}))
    inspector = ModelInspector(hub=HubClient())
    began, before = time.monotonic(), _resident()
    try:
        found = await inspector.inspect(str(folder))
    except MlinternError:
        pass
    else:
        assert found.chat_template.error
    assert time.monotonic() - began < 30 and _resident() - before < GROWTH_BYTES


async def within_bounds(reading, path: Path) -> None:  # type: ignore[no-untyped-def]
    """Ends in an error of ours, in time, and this process has not grown."""
    began, before = time.monotonic(), _resident()
    with pytest.raises(MlinternError):
        await reading(path)
    assert time.monotonic() - began < 30
    assert _resident() - before < GROWTH_BYTES


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
