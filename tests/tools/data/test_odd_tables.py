"""Whatever a table holds, an inspection ends: with a result that is strict JSON, or with an error that says why."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.tools.data.inspect_table import Request, inspect_table
from mlintern.tools.data.inspection_results import DatasetInspection
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.table import open_table
from mlintern.tools.data.trl_rules import TRAINERS, try_row
from mlintern.tools.errors import BadInput

NAMES = (
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "messages",
    "conversations",
    "text",
    "label",
    "x y",
    "Prompt",
    '"',
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=20)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "human", "", "tool"]) | st.none(),
            "content": st.none() | st.text(max_size=8) | st.lists(st.just({"type": "text", "text": "x"}), max_size=2),
            "from": st.sampled_from(["human", "gpt"]),
            "value": st.text(max_size=5),
            "tool_calls": st.none() | st.lists(st.just({"function": {"name": "f", "arguments": {}}}), max_size=1),
        },
    ),
    max_size=3,
)
VALUES = st.recursive(
    SCALARS | MESSAGES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=4), min_size=1, max_size=6)
ODD = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def inspected(write: Any, form: str) -> DatasetInspection:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data.{form}"
        write(path)
        kind = {"jsonl": "json"}.get(form, form)
        with open_table(LocalSplit("train", (path,), kind), scratch=Path(folder)) as table:
            request = Request(trainers=TRAINERS, sample_rows=3)
            result = inspect_table(table, request, name="data", split="train", scratch=Path(folder))
    json.loads(result.model_dump_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return result


def is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.slow
@ODD
@given(rows=ROWS.filter(is_text))
def test_any_json_lines_are_described_or_refused(rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    try:
        result = inspected(lambda path: path.write_text(lines), "jsonl")
    except BadInput as error:
        assert error.next_step
    else:
        assert result.rows == len(rows)
        assert set(result.formats) == set(TRAINERS)


@pytest.mark.slow
@ODD
@given(data=st.binary(max_size=200))
def test_any_bytes_are_described_or_refused(data: bytes) -> None:
    for form in ("jsonl", "csv", "parquet", "arrow"):
        try:
            inspected(lambda path: path.write_bytes(data), form)
        except BadInput as error:
            assert error.next_step


@pytest.mark.slow
@ODD
@given(cells=st.lists(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=9), min_size=2, max_size=2)))
def test_a_csv_written_by_python_is_read_with_every_row(cells: list[list[str]]) -> None:
    import csv

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([["a", "b"], *cells])

    try:
        assert inspected(write, "csv").rows == len(cells)
    except BadInput as error:
        text = "".join("".join(row) for row in cells)
        assert not cells or "\x00" in text or "\r" in text, error


@given(first=st.dictionaries(st.sampled_from(NAMES), VALUES), row=st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_the_rules_of_trl_never_fail_themselves(first: dict[str, Any], row: dict[str, Any]) -> None:
    for trainer in TRAINERS:
        for outcome in try_row(trainer, first, row=row):
            assert outcome.refusal is None or outcome.refusal


def table_of(columns: dict[str, pa.Array]) -> Any:
    return lambda path: pq.write_table(pa.table(columns), path)


def test_columns_of_nulls_bytes_maps_and_decimals_are_described() -> None:
    result = inspected(
        table_of(
            {
                "nothing": pa.nulls(2),
                "bytes": pa.array([b"\xff\x00", b"a"]),
                "map": pa.array([[("k", 1)], None], type=pa.map_(pa.string(), pa.int64())),
                "decimal": pa.array([1, 2], type=pa.decimal128(10, 2)),
                "time": pa.array([0, 1], type=pa.timestamp("s")),
                "fixed": pa.array([[1, 2], [3, 4]], type=pa.list_(pa.int64(), 2)),
                "category": pa.array(["x", "y"]).dictionary_encode(),
                "empty lists": pa.array([[], []], type=pa.list_(pa.string())),
            }
        ),
        "parquet",
    )
    assert [column.missing for column in result.columns] == [2, 0, 1, 0, 0, 0, 0, 0]
    assert {issue.kind for issue in result.issues} >= {"empty_column", "empty_rows"}


def test_two_columns_of_one_name_are_an_error_of_the_data_not_of_the_tool() -> None:
    twice = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["a", "b"])], names=["a", "a"])
    result = inspected(lambda path: pq.write_table(twice, path), "parquet")
    assert (result.issues[0].kind, result.issues[0].severity) == ("duplicate_columns", "error")


def test_text_that_is_not_utf8_is_refused_by_name() -> None:
    offsets, data = pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")
    bad = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    with pytest.raises(BadInput, match="UTF"):
        inspected(table_of({"text": bad}), "parquet")


def test_a_cell_of_thirty_megabytes_is_read_and_shown_cut() -> None:
    line = json.dumps({"text": "x" * 30_000_000}) + "\n" + json.dumps({"text": "y"}) + "\n"
    result = inspected(lambda path: path.write_text(line), "jsonl")
    assert result.columns[0].length is not None
    assert result.columns[0].length.max == 30_000_000
    assert len(result.model_dump_json()) < 20_000


def test_more_columns_than_are_shown_are_counted() -> None:
    result = inspected(table_of({f"c{i}": pa.array([i]) for i in range(300)}), "parquet")
    assert len(result.columns) == 60
    assert "240 of 300 are not shown" in result.partial[0]
