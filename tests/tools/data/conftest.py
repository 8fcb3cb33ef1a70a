"""Data files in every local format, written by the libraries that people use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.hub.client import HubClient
from mlintern.tools.web import Web
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock

Write = Callable[..., Path]


@pytest.fixture
def inspector(workspace: Workspace, clock: FakeClock) -> DatasetInspector:
    return DatasetInspector(workspace=workspace, hub=HubClient(), web=Web(workspace, clock))


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    """Write rows (or raw lines) as JSON lines."""

    def write(rows: list[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Write:
    """Write columns (dict of lists, or an arrow table) as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(columns: Any, name: str = "data.parquet", **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
        return path

    return write
