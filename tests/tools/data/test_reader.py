"""One reader: what is inspected is what `datasets` gives for the very call that a script makes, by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.local_files import load_call, open_local
from mlintern.tools.data.table import open_table, without_nulls
from mlintern.tools.errors import BadInput
from mlintern.tools.scripts.script_inputs import first_of

CASES = Path(__file__).parent / "cases"
REFUSED = {"diffcols"}
NAMES = sorted(path.name for path in CASES.iterdir())
datasets = pytest.importorskip("datasets")


def loaded(path: Path, cache: Path) -> Any:
    """What the script's own call gives."""
    call = load_call(path)
    if call.kind in ("saved", "saved_splits"):
        found = datasets.load_from_disk(str(path))
        return found if call.kind == "saved" else found[open_local(str(path)).split(None).name]
    more = {"split": "train", "cache_dir": str(cache), **call.options}
    if call.kind == "folder":
        return datasets.load_dataset(str(path), **more)
    return datasets.load_dataset(call.kind, data_files=str(path), **more)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_the_rows_are_those_that_the_script_will_load(name: str, tmp_path: Path) -> None:
    path = CASES / name
    expected = loaded(path, tmp_path / "cache")
    split = open_local(str(path)).of(None).split(None)
    with open_table(split, scratch=tmp_path) as table:
        assert table.rows == len(expected)
        assert [column.name for column in table.columns] == expected.column_names
        rows = table.fetch(range(table.rows))
    assert [plain(row) for row in rows] == [plain(dict(row)) for row in expected]
    assert plain(first_of(split, 3)) == plain(rows[:3])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_datasets_cannot_load_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(datasets.exceptions.DatasetGenerationError):
        loaded(CASES / name, tmp_path / "cache")
    with (
        pytest.raises(BadInput, match="has columns that"),
        open_table(open_local(str(CASES / name)).of(None).split(None), scratch=tmp_path),
    ):
        pass


def test_a_parquet_map_is_refused_as_datasets_refuses_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "map.parquet"
    kind = pa.map_(pa.string(), pa.int64())
    pq.write_table(pa.table({"m": pa.array([[("a", 1)]], type=kind), "text": ["x"]}), path)
    with pytest.raises(ValueError, match="map"):
        datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="is a map"):
        first_of(open_local(str(path)).split(None), 3)
    with open_table(open_local(str(path)).split(None), scratch=tmp_path) as table:
        verdict = judge_formats(table, ("sft",))["sft"]
    assert not verdict.ok and "map" in verdict.reason


def test_the_configurations_of_a_folder_are_those_of_its_card() -> None:
    found = open_local(str(CASES / "configs"))
    assert (found.configs, found.default) == (["en", "fr"], "en")
    assert [split.name for split in found.of("fr").splits] == ["train", "test"]
    assert found.of("fr").split("train").files == (CASES / "configs" / "fr" / "train.jsonl",)
    with pytest.raises(BadInput, match=r"no configuration 'de'.*en, fr"):
        found.of("de")


def plain(value: Any) -> Any:
    """Values as both write them: objects without null fields, times and numbers by what they say."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in without_nulls(value).items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return "NaN"
    if hasattr(value, "total_seconds"):  # DuckDB has no type for a duration in parquet: microseconds
        return round(value.total_seconds() * 1e6)
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("Z", "+00:00")
    return value
