"""What a script would work with, had before a job is paid for: its model's tokenizer and the first of its rows."""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from mlintern.tools.data.contamination_inputs import find_part
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.rows import stream_rows
from mlintern.tools.data.table import open_table
from mlintern.tools.errors import BadInput, MlinternError, NotFound
from mlintern.tools.hub.client import HubClient
from mlintern.tools.sandbox import worker
from mlintern.tools.scripts.data_sources import is_local
from mlintern.tools.scripts.script_results import Check

SMALL_FILES = (
    *("config.json", "generation_config.json", "adapter_config.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab*", "merges.txt", "*.model", "*.tiktoken", "*.jinja"),
)
"""All that is fetched of a Hub model: no weights."""


@dataclass(frozen=True)
class DataSource:
    """A dataset as a recipe names it. ``split`` may be a slice or a sum, as `datasets` takes it."""

    name: str
    config: str | None
    split: str
    revision: str | None

    @property
    def first_split(self) -> str:
        return self.split.partition("+")[0].partition("[")[0].strip()


@dataclass(frozen=True)
class Rows:
    """The first rows of a split, and the format of its files: parquet, json, csv or arrow."""

    rows: list[dict[str, Any]]
    format: str


class Materials:
    """Local files are read where they lie; of Hub repositories only what is needed is fetched, through its cache."""

    def __init__(self, *, hub: HubClient) -> None:
        self._hub = hub

    async def model_files(self, model: str, revision: str | None) -> Path:
        """A folder with the configuration and the tokenizer of ``model``, a Hub id or an absolute path.

        Raises:
            NotFound: there is no saved model, or no such repository.
            Blocked, RateLimited, Offline, ServiceError: the Hub's answer.
        """
        if not is_local(model):
            return await self._fetch(model, revision)
        folder = Path(model)
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise NotFound(
                f"There is no saved model in {model}.",
                next_step="If a job makes it, check again when that job is over; else correct the path.",
            )
        return folder

    async def whole_model_files(self, model: str, revision: str | None) -> Path:
        """As `model_files`, but of the base model where ``model`` is an adapter.

        Raises:
            BadInput: the adapter does not name its base model.
            NotFound, Blocked, RateLimited, Offline, ServiceError: as `model_files`.
        """
        folder = await self.model_files(model, revision)
        if (folder / "config.json").is_file():
            return folder
        base = _base_model(folder)
        return await self.model_files(base if not Path(base).exists() else str(Path(base).absolute()), None)

    async def first_rows(self, source: DataSource, count: int) -> Rows:
        """The first ``count`` rows of ``source``, or all if there are fewer.

        Raises:
            BadInput: there is no such split or config, or the data cannot be read.
            NotFound, Blocked, RateLimited, Offline, ServiceError: as the Hub says.
        """
        part = await find_part(
            self._hub, source.name, config=source.config, split=source.first_split, revision=source.revision
        )
        if isinstance(part.split, LocalSplit):
            local = part.split
            return Rows(await worker.run_on_data(first_of, local, count), local.format)
        rows = await anyio.to_thread.run_sync(
            lambda: list(itertools.islice(stream_rows(part.split), count)), abandon_on_cancel=True
        )
        return Rows(rows, part.split.format)

    async def _fetch(self, model: str, revision: str | None) -> Path:
        found = await self._hub.call(
            f"model {model}",
            lambda api: api.snapshot_download(
                model, revision=revision, allow_patterns=list(SMALL_FILES), cache_dir=self._hub.cache()
            ),
        )
        folder = Path(found)
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise NotFound(f"{model} holds no model: it has no config.json.", next_step="browse_hub lists its files.")
        return folder


def first_of(split: LocalSplit, count: int) -> list[dict[str, Any]]:
    """The first rows of a local split, by the reader that inspects it."""
    with tempfile.TemporaryDirectory() as folder, open_table(split, scratch=Path(folder)) as table:
        if unreadable := [text for kind, text in table.notes if kind == "map_column"]:
            raise BadInput(unreadable[0], next_step="Then render again.")
        return table.fetch(range(min(count, table.rows)))


def unavailable(rule: str, what: str, *, error: MlinternError) -> Check:
    """Something that the check needs cannot be had; the check is not passed, it was not made."""
    return Check(
        rule=rule,
        severity="error",
        message=f"Not checked: the {what} cannot be had. {error.message}",
        fix=error.next_step or "Give a local path, or try again later.",
    )


def _base_model(adapter: Path) -> str:
    try:
        base = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get(
            "base_model_name_or_path"
        )
    except (ValueError, AttributeError):
        base = None
    if not isinstance(base, str) or not base:
        raise BadInput(
            f"The adapter in {adapter} does not name its base model.", next_step="Save it again with peft."
        )
    return base


def save_as_dataset(found: Rows, source: DataSource, folder: Path) -> Path:
    """Write rows as a local dataset that loads under the same config and split names as ``source`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(part.partition("[")[0].strip() for part in source.split.split("+")))
    file = folder / f"rows.{'jsonl' if found.format == 'json' else found.format}"
    _WRITERS.get(found.format, _write_parquet)(found.rows, file)
    splits = "".join(f"  - split: {name}\n    path: {file.name}\n" for name in names)
    card = f"---\nconfigs:\n- config_name: {json.dumps(source.config or 'default')}\n  data_files:\n{splits}---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def _write_parquet(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def _write_json(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


_WRITERS = {"json": _write_json, "csv": _write_csv, "parquet": _write_parquet}
