"""`inspect_dataset` on local data: what it reports, and how it refuses what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlintern.tools.data.inspect_dataset import DatasetInspector
from mlintern.tools.errors import BadInput, NotFound
from tests.tools.data.conftest import Write
from tests.tools.data.shapes_of_data import KINDS, assistant, user

pytestmark = pytest.mark.anyio

ROWS: list[dict[str, Any]] = [
    {"question": f"What is {i} plus {i}?", "answer": str(2 * i), "level": "easy" if i % 4 else "hard", "score": i / 2}
    for i in range(100)
]


async def test_the_same_rows_give_the_same_statistics_in_every_format(
    inspector: DatasetInspector, jsonl: Write, parquet: Write, tmp_path: Path
) -> None:
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    table = pa.table(columns)
    csv = tmp_path / "data.csv"
    csv.write_text(
        "question,answer,level,score\n"
        + "".join(f'"{r["question"]}",{r["answer"]},{r["level"]},{r["score"]}\n' for r in ROWS)
    )
    arrow = tmp_path / "data.arrow"
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    found = {}
    for path in (jsonl(ROWS), parquet(columns), csv, arrow):
        result = await inspector.inspect(str(path))
        found[path.suffix] = {c.name: (c.missing, c.distinct, c.mean, c.length) for c in result.columns}
        assert result.rows == 100
        assert [(s.name, s.rows) for s in result.splits] == [("train", 100)]
    assert found[".jsonl"] == found[".parquet"] == found[".arrow"]
    assert found[".csv"]["question"] == found[".jsonl"]["question"]
    assert found[".csv"]["score"] == found[".jsonl"]["score"]


async def test_numbers_carry_range_and_moments_and_texts_their_lengths(
    inspector: DatasetInspector, jsonl: Write
) -> None:
    result = await inspector.inspect(str(jsonl(ROWS)))
    by_name = {column.name: column for column in result.columns}
    score = by_name["score"]
    assert (score.type, score.min, score.max, score.mean, score.median) == ("float64", 0.0, 49.5, 24.75, 24.75)
    length = by_name["question"].length
    assert length is not None
    assert (length.unit, length.min, length.max) == (
        "characters",
        len("What is 1 plus 1?"),
        len("What is 10 plus 10?"),
    )
    assert [(v.value, v.count) for v in by_name["level"].values or []] == [("easy", 75), ("hard", 25)]


async def test_a_dataset_saved_by_datasets_is_read_with_its_splits(
    inspector: DatasetInspector, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:7])}
    )
    whole.save_to_disk(str(tmp_path / "saved"))
    result = await inspector.inspect(str(tmp_path / "saved"), split="test")
    assert result.rows == 7
    assert {split.name for split in result.splits} == {"train", "test"}
    alone = await inspector.inspect(str(tmp_path / "saved" / "train"))
    assert alone.rows == 100


async def test_a_folder_is_grouped_into_splits_by_its_file_names(inspector: DatasetInspector, parquet: Write) -> None:
    first = parquet({"text": ["a", "b"]}, "folder/data/train-00000-of-00002.parquet")
    parquet({"text": ["c"]}, "folder/data/train-00001-of-00002.parquet")
    parquet({"text": ["d"]}, "folder/data/validation-00000-of-00001.parquet")
    result = await inspector.inspect(str(first.parents[1]), sample_rows=3)
    assert {split.name: split.rows for split in result.splits} == {"train": 3, "validation": 1}
    assert [sample["values"]["text"] for sample in result.samples] == ["a", "b", "c"]


async def test_conversations_are_described(inspector: DatasetInspector, jsonl: Write) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "Be brief."}, user("Hi"), assistant("Hello")]},
        {"messages": [user("Weather?"), {"role": "assistant", "content": None, "tool_calls": [{"name": "w"}]}]},
        {"messages": [user("Bye"), assistant(" ")]},
        {"messages": [user("Still there?")]},
    ]
    result = await inspector.inspect(str(jsonl(rows)))
    [talk] = result.conversations
    assert talk.roles == {"user": 4, "assistant": 3, "system": 1}
    assert (talk.turns.min, talk.turns.max, talk.with_system_prompt, talk.with_tool_calls) == (1, 3, 1, 1)
    assert talk.last_speaker == {"assistant": 3, "user": 1}
    assert talk.empty_turns == 1
    assert {"empty_turns", "last_speaker"} <= {issue.kind for issue in result.issues}


async def test_duplicates_are_counted_exactly_and_near_copies_found(
    inspector: DatasetInspector, jsonl: Write
) -> None:
    words = "the quick brown fox jumps over the lazy dog and runs far away into the deep dark wood until nightfall"
    rows = [{"text": f"{i} {words[::-1]} {i * 7} unlike all others {i}"} for i in range(20)]
    rows += [{"text": words}, {"text": words}, {"text": words + " alone"}]
    result = await inspector.inspect(str(jsonl(rows)))
    assert result.duplicates is not None
    assert result.duplicates.exact_rows == 1
    assert result.duplicates.near_rate is not None
    assert result.duplicates.near_rate >= round(2 / 23, 4)
    assert "sample" in result.duplicates.method


async def test_rows_that_differ_only_in_text_or_only_in_a_number_are_no_duplicates(
    inspector: DatasetInspector, jsonl: Write
) -> None:
    rows = [{"n": 1, "text": "a"}, {"n": 1, "text": "b"}, {"n": 2, "text": "a"}, {"n": 1, "text": "a"}]
    result = await inspector.inspect(str(jsonl(rows)))
    assert result.duplicates is not None
    assert result.duplicates.exact_rows == 1
    numbered = await inspector.inspect(str(jsonl([{"n": i, "text": "same"} for i in range(9)])))
    assert numbered.duplicates is not None
    assert numbered.duplicates.exact_rows == 0


async def test_long_cells_are_cut_and_the_cut_is_said(inspector: DatasetInspector, jsonl: Write) -> None:
    result = await inspector.inspect(str(jsonl([{"text": "x" * 12_345, "list": list(range(50))}])))
    values = result.samples[0]["values"]
    assert values["text"].endswith("... (cut: 12,345 characters)")
    assert values["list"][-1] == "... [50 items in all]"


async def test_findings_name_what_would_hurt_a_run(inspector: DatasetInspector, jsonl: Write) -> None:
    rows = [{"prompt": "Hello there", "completion": "Fine", "label": "good"} for _ in range(97)]
    rows += [
        {"prompt": "Write to jane.doe@example.org", "completion": "\x07 beep", "label": "bad"},
        {"prompt": "Natalia sold 48/2 = <<48/2=24>>24 clips\n#### 72", "completion": "", "label": "good"},
        {"prompt": "CafÃ© Ã©tÃ©", "completion": "x", "label": "good"},
    ]
    result = await inspector.inspect(str(jsonl(rows)))
    kinds = {issue.kind for issue in result.issues}
    assert {
        "class_imbalance",
        "personal_data",
        "control_characters",
        "looks_like_benchmark",
        "encoding",
        "empty_rows",
        "exact_duplicates",
    } <= kinds


async def test_truncation_is_foreseen_at_a_given_length(inspector: DatasetInspector, jsonl: Write) -> None:
    path = jsonl([{"text": "word " * 1000} for _ in range(10)])
    result = await inspector.inspect(str(path), max_length=512)
    assert [issue.column for issue in result.issues if issue.kind == "truncation"] == ["text"]
    result = await inspector.inspect(str(path), max_length=8192)
    assert "truncation" not in {issue.kind for issue in result.issues}


async def test_lengths_come_in_tokens_when_a_model_is_given(
    inspector: DatasetInspector, jsonl: Write, tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [{"text": "one two three", "messages": [user("a b"), assistant("c")]}, {"text": "one", "messages": []}]
    result = await inspector.inspect(str(jsonl(rows)), model=str(tmp_path), max_length=2)
    text, messages = (column.tokens for column in result.columns)
    assert text is not None
    assert (text.unit, text.min, text.max, text.sampled_rows) == ("tokens", 1, 3, 2)
    assert messages is not None
    assert messages.max == 3
    assert ["3 tokens" in issue.message for issue in result.issues if issue.kind == "truncation"] == [True]
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        await inspector.inspect(str(jsonl(rows)), model=str(tmp_path / "home"))


async def test_mixed_types_in_json_lines_are_kept_and_named(inspector: DatasetInspector, jsonl: Write) -> None:
    result = await inspector.inspect(str(jsonl([{"a": 1}, {"a": "x"}, {"a": [1, 2]}])))
    assert result.columns[0].type == "json"
    assert "mixed_types" in {issue.kind for issue in result.issues}
    assert [sample["values"]["a"] for sample in result.samples] == [1, "x", [1, 2]]


async def test_only_asked_columns_are_shown_while_verdicts_see_all(inspector: DatasetInspector, jsonl: Write) -> None:
    result = await inspector.inspect(str(jsonl(KINDS["preference"])), columns=["prompt"], trainer="dpo")
    assert [column.name for column in result.columns] == ["prompt"]
    assert list(result.samples[0]["values"]) == ["prompt"]
    assert list(result.formats) == ["dpo"]
    assert result.formats["dpo"].ok


async def test_the_result_is_strict_json_even_for_nan(inspector: DatasetInspector, jsonl: Write) -> None:
    result = await inspector.inspect(str(jsonl([b'{"x": NaN}', b'{"x": Infinity}', b'{"x": 1.5}'])))
    json.loads(result.model_dump_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (result.columns[0].not_finite, result.columns[0].mean) == (2, 1.5)


async def test_malformed_lines_are_named_with_their_number_reason_and_count(
    inspector: DatasetInspector, jsonl: Write
) -> None:
    good = b'{"text": "fine"}'
    path = jsonl([good, b'{"text": ', good, b"[1, 2]", b'{"text": "\xff"}', good, b'{"a": 1, "a": 2}'])
    with pytest.raises(BadInput) as caught:
        await inspector.inspect(str(path))
    message = str(caught.value)
    assert "4 malformed lines" in message
    assert "line 2: Expecting value" in message
    assert "line 4: a JSON list, not an object" in message
    assert "line 5: not UTF-8 (byte 0xff" in message
    assert "and 1 more" in message


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "0 bytes"),
        ([b"", b"  "], "has no rows"),
        ([b"{}"], "no named column"),
        ([b'{"a": "\\ud800"}'], "surrogate"),
    ],
)
async def test_files_without_usable_rows_are_refused(
    inspector: DatasetInspector, jsonl: Write, lines: list[bytes], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        await inspector.inspect(str(jsonl(lines)))


async def test_an_empty_split_is_refused_by_name(inspector: DatasetInspector, parquet: Write) -> None:
    path = parquet(pa.table({"text": pa.array([], type=pa.string())}))
    with pytest.raises(BadInput, match=r"'train' .* has no rows"):
        await inspector.inspect(str(path))


async def test_wrong_names_are_answered_with_the_nearest_right_one(
    inspector: DatasetInspector, jsonl: Write, tmp_path: Path
) -> None:
    path = jsonl(ROWS)
    with pytest.raises(BadInput, match="Did you mean 'question'"):
        await inspector.inspect(str(path), columns=["qestion"])
    with pytest.raises(BadInput, match="Did you mean 'train'"):
        await inspector.inspect(str(path), split="trian")
    with pytest.raises(BadInput, match="Did you mean 'grpo'"):
        await inspector.inspect(str(path), trainer="gpro")
    with pytest.raises(NotFound, match=r"Did you mean .*data\.jsonl"):
        await inspector.inspect(str(tmp_path / "dta.jsonl"))
    with pytest.raises(BadInput, match="no config"):
        await inspector.inspect(str(path), config="main")


async def test_a_csv_with_a_broken_row_says_which(inspector: DatasetInspector, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n3,4,5\n")
    with pytest.raises(BadInput, match="line 3: 3 fields, but the header has 2"):
        await inspector.inspect(str(path))


async def test_words_that_pandas_reads_as_missing_are_missing_here_too(
    inspector: DatasetInspector, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    path.write_text('answer,n,n\nNone,1,x\nblue,2,\n"NA",,y\n')
    result = await inspector.inspect(str(path))
    assert [(c.name, c.type, c.missing) for c in result.columns] == [
        ("answer", "string", 2),
        ("n", "int64", 1),
        ("n.1", "string", 1),
    ]


async def test_a_cut_parquet_file_is_refused(inspector: DatasetInspector, parquet: Write) -> None:
    path = parquet({"text": ["a"] * 100})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="not a readable parquet file"):
        await inspector.inspect(str(path))


async def test_nothing_is_left_on_disk(inspector: DatasetInspector, jsonl: Write, tmp_path: Path) -> None:
    await inspector.inspect(str(jsonl(ROWS)))
    assert [path for path in (tmp_path / "home" / "cache" / "data").rglob("*") if path.is_file()] == []
