"""Columns, splits, rows and methods that are not there are told; what is there gets no error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlintern.tools.scripts.checks import static_checks

TRAIN = "SFTTrainer('org/m', args=SFTConfig(output_dir='o'), train_dataset=ds)"
STREAM = "load_dataset('json', data_files=DATA, split='train', streaming=True)"


def errors(body: str, tmp_path: Path) -> list[str]:
    data = tmp_path / "rows.jsonl"
    data.write_text(f"{json.dumps({'prompt': 'a', 'completion': 'b'})}\n" * 20)
    text = (
        "from datasets import load_dataset\nfrom peft import LoraConfig\n"
        "from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer\n"
        f"DATA = {str(data)!r}\nds = load_dataset('json', data_files=DATA, split='train')\n{body}\n"
    )
    return [check.rule for check in static_checks(text) if check.severity == "error"]


GRPO = "GRPOTrainer('org/m', reward_funcs=r, args=GRPOConfig(output_dir='o'), train_dataset=ds)"


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (f"ds = ds.map(lambda x: {{'text': x['question']}})\n{TRAIN}", "absent_column"),
        (f"def f(row):\n    return row['question'] != ''\nds = ds.filter(f)\n{TRAIN}", "absent_column"),
        (f"ds = ds.remove_columns(['id'])\n{TRAIN}", "absent_column"),
        (f"ds = ds.rename_column('question', 'text')\n{TRAIN}", "absent_column"),
        (f"ds = ds.select(range(1000))\n{TRAIN}", "too_few_rows"),
        (f"ds = ds.train_test_split(test_size=20)['train']\n{TRAIN}", "too_few_rows"),
        (f"ds = load_dataset('json', data_files=DATA)['test']\n{TRAIN}", "no_split"),
        (f"ds = load_dataset('json', data_files=DATA, split='validation')\n{TRAIN}", "no_split"),
        (
            f"ds = load_dataset('json', data_files=DATA, split='train', streaming=True)\n{TRAIN}",
            "streamed_without_steps",
        ),
        (f"t = {TRAIN}\nt.train(resume=True)", "unknown_argument"),
        (f"t = {TRAIN}\nt.train()\nt.save_pretrained('o')", "no_method"),
        ("RewardTrainer(args=RewardConfig(output_dir='o'), train_dataset=ds)", "no_model"),
        (f"LoraConfig(task_type='CAUSAL')\n{TRAIN}", "wrong_choice"),
        (
            "def r(completions, **kw):\n    for c in completions:\n        score = 1.0\n    return score\n" + GRPO,
            "reward_value",
        ),
        (
            "def r(completions, **kw):\n    s = 0.0\n    for c in completions:\n        s += 1\n    return s\n"
            + GRPO,
            "reward_value",
        ),
    ],
)
def test_what_is_not_there_is_told(body: str, rule: str, tmp_path: Path) -> None:
    assert rule in errors(body, tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        f"ds = ds.map(lambda x: {{'text': x['prompt']}})\n{TRAIN}",
        f"def f(row):\n    return {{'text': row['q'] if 'q' in row else row['prompt']}}\nds = ds.map(f)\n{TRAIN}",
        f"def f(row):\n    row['new'] = 1\n    return {{'text': str(row['new'])}}\nds = ds.map(f)\n{TRAIN}",
        f"ds = ds.rename_column('prompt', 'question')\nds = ds.rename_column('question', 'prompt')\n{TRAIN}",
        f"ds = ds.select(range(min(1000, len(ds))))\n{TRAIN}",
        f"ds = ds.select(range(20))\n{TRAIN}",
        f"ds = ds.train_test_split(test_size=0.1)['train']\n{TRAIN}",
        f"ds = load_dataset('json', data_files={{'train': DATA, 'test': DATA}})['test']\n{TRAIN}",
        f"ds = load_dataset('org/hub')['test']\n{TRAIN}",
        f"t = {TRAIN}\nt.train(resume_from_checkpoint=True)\nt.save_model('o')\nt.model.save_pretrained('o')",
        f"ds = {STREAM}\nSFTTrainer('org/m', args=SFTConfig(output_dir='o', max_steps=5), train_dataset=ds)",
        "def r(completions, **kw):\n    s = []\n    for c in completions:\n        s.append(1.0)\n    return s\n"
        + GRPO,
        "def r(completions, **kw):\n    s = 1.0\n    s = [s for _ in completions]\n    return s\n" + GRPO,
    ],
)
def test_what_is_there_gets_no_error(body: str, tmp_path: Path) -> None:
    assert errors(body, tmp_path) == []
