"""Verdicts by trainer: against rules written down here, and against TRL's own trainers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.data.formats import judge_formats
from mlintern.tools.data.inspection_results import Format
from mlintern.tools.data.local_files import LocalSplit
from mlintern.tools.data.table import open_table
from tests.tools.data.conftest import Write
from tests.tools.data.shapes_of_data import KINDS, assistant, user


def verdicts(path: Path, tmp_path: Path) -> dict[str, Format]:
    with open_table(LocalSplit("train", (path,), "json"), scratch=tmp_path) as table:
        return judge_formats(table)


def prepared(verdict: Format, row: dict[str, Any]) -> Any:
    namespace: dict[str, Any] = {}
    exec(verdict.prepare, namespace)
    return namespace["prepare"](row)


TAKEN = {
    "text": {"sft"},
    "messages": {"sft"},
    "prompt only": {"grpo", "rloo"},
    "prompt completion": {"sft", "grpo", "rloo"},
    "preference": {"dpo", "kto", "reward", "grpo", "rloo"},
    "preference, implicit prompt": {"dpo", "kto", "reward"},
    "unpaired": {"sft", "kto", "grpo", "rloo"},
    "ShareGPT": {"sft"},
    "prompt text beside messages (UltraChat)": {"grpo", "rloo"},
    "prompt text beside conversations (UltraFeedback)": {"grpo", "rloo"},
    "question and answer": set(),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_each_documented_shape_goes_to_the_trainers_that_take_it(kind: str, jsonl: Write, tmp_path: Path) -> None:
    found = verdicts(jsonl(KINDS[kind]), tmp_path)
    assert {trainer for trainer, verdict in found.items() if verdict.ok} == TAKEN[kind]


def test_a_bad_row_far_from_the_first_is_found_and_named(jsonl: Write, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"row {i}"} for i in range(5000)]
    rows[4321] = {"text": None}
    verdict = verdicts(jsonl(rows), tmp_path)["sft"]
    assert (verdict.ok, verdict.rows_refused, verdict.first_refused_row) == (False, 1, 4321)
    assert verdict.reason == "Row 4321: `text` is null, where text is needed."


def test_sharegpt_is_taken_with_a_warning_and_a_mapping_of_the_speakers(jsonl: Write, tmp_path: Path) -> None:
    verdict = verdicts(jsonl(KINDS["ShareGPT"]), tmp_path)["sft"]
    assert verdict.ok
    assert "speakers" in verdict.warnings[0]
    assert prepared(verdict, KINDS["ShareGPT"][0]) == {"messages": [user("sky 0"), assistant("blue")]}


def test_alpaca_becomes_prompt_and_completion(jsonl: Write, tmp_path: Path) -> None:
    verdict = verdicts(jsonl(KINDS["Alpaca"]), tmp_path)["sft"]
    assert not verdict.ok
    assert prepared(verdict, KINDS["Alpaca"][1]) == {
        "prompt": [user("sky 1\n\nnow")],
        "completion": [assistant("blue")],
    }


def test_a_separate_prompt_beside_whole_conversations_is_dropped_for_dpo(jsonl: Write, tmp_path: Path) -> None:
    kind = "prompt text beside conversations (UltraFeedback)"
    verdict = verdicts(jsonl(KINDS[kind]), tmp_path)["dpo"]
    assert not verdict.ok
    assert prepared(verdict, KINDS[kind][0]) == {
        "prompt": [user("sky 0")],
        "chosen": [assistant("blue")],
        "rejected": [assistant("green")],
    }


def test_whole_preferred_conversations_become_messages_for_sft(jsonl: Write, tmp_path: Path) -> None:
    kind = "prompt text beside conversations (UltraFeedback)"
    verdict = verdicts(jsonl(KINDS[kind]), tmp_path)["sft"]
    assert prepared(verdict, KINDS[kind][0]) == {"messages": [user("sky 0"), assistant("blue")]}


def test_answers_that_repeat_the_prompt_are_taken_with_a_warning(jsonl: Write, tmp_path: Path) -> None:
    whole = {"prompt": [user("a")], "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}
    verdict = verdicts(jsonl([whole] * 3), tmp_path)["dpo"]
    assert verdict.ok
    assert "trained on twice" in verdict.warnings[0]
    assert prepared(verdict, whole) == {
        "prompt": [user("a")],
        "chosen": [assistant("b")],
        "rejected": [assistant("c")],
    }


def test_words_become_labels_for_kto(jsonl: Write, tmp_path: Path) -> None:
    verdict = verdicts(jsonl(KINDS["labels in words"]), tmp_path)["kto"]
    assert [prepared(verdict, row)["label"] for row in KINDS["labels in words"][:2]] == [False, True]


def test_a_conversation_is_split_for_grpo_and_its_answer_kept(jsonl: Write, tmp_path: Path) -> None:
    verdict = verdicts(jsonl(KINDS["messages"]), tmp_path)["grpo"]
    assert prepared(verdict, KINDS["messages"][0]) == {"prompt": [user("sky 0")], "answer": "blue"}


def test_no_fix_is_promised_where_there_is_nothing_to_make_pairs_of(jsonl: Write, tmp_path: Path) -> None:
    verdict = verdicts(jsonl(KINDS["text"]), tmp_path)["dpo"]
    assert (verdict.ok, verdict.prepare) == (False, "")
    assert "pairs of answers" in verdict.fix


def test_column_names_with_quotes_and_newlines_stay_data(jsonl: Write, tmp_path: Path) -> None:
    rows = [{"conversation": [user("a"), assistant("b")], 'x"]\nimport os #': 1} for _ in range(3)]
    verdict = verdicts(jsonl(rows), tmp_path)["sft"]
    assert prepared(verdict, rows[0]) == {"messages": [user("a"), assistant("b")]}


@pytest.mark.slow
def test_every_verdict_is_what_trl_itself_does(jsonl: Write, tmp_path: Path) -> None:
    """TRL's trainers, each on each dataset kind as it is and as prepared, in one process of their own."""
    pytest.importorskip("trl")
    jobs, expected = [], []
    for kind, rows in KINDS.items():
        for trainer, verdict in verdicts(jsonl(rows), tmp_path).items():
            jobs.append({"trainer": trainer, "kind": kind, "rows": rows, "prepare": ""})
            expected.append(verdict.ok)
            if verdict.prepare and "must be removed" not in verdict.fix:
                jobs.append(
                    {"trainer": trainer, "kind": f"{kind}, prepared", "rows": rows, "prepare": verdict.prepare}
                )
                expected.append(True)
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps(jobs))
    program = Path(__file__).with_name("trl_on_tiny_data.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(program), str(file)], capture_output=True, text=True, env=environment, timeout=540
    )
    found = [json.loads(line[9:]) for line in done.stdout.splitlines() if line.startswith("@verdict ")]
    assert len(found) == len(jobs), done.stderr[-2000:]
    wrong = [
        f"{job['trainer']} on {job['kind']}: we say {ours}, TRL: {theirs}"
        for job, ours, theirs in zip(jobs, expected, found, strict=True)
        if ours != theirs["ok"]
    ]
    assert wrong == []
