"""Scripts that nobody rendered are tried as they stand: their model, data and settings are replaced from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlintern.tools.scripts.dry_seen import read_seen, replaced_text, seen_findings
from mlintern.tools.scripts.trial_plan import can_be_tried, code_of, hub_data
from mlintern.tools.workspace import Workspace
from tests.services.hub import HubStandIn, Repo
from tests.tools.scripts.conftest import Materials as Files
from tests.tools.scripts.test_dry_run import Desk, found, serve_model

pytestmark = pytest.mark.anyio


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


PREFERENCES = """
import argparse
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
import trl


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=5e-7)
    given = parser.parse_args()
    data = load_dataset("org/prefs", split="train").select(range(1000))
    parts = data.train_test_split(test_size=100)
    tokenizer = AutoTokenizer.from_pretrained("org/served")
    model = AutoModelForCausalLM.from_pretrained(
        "org/served", dtype="bfloat16", attn_implementation="flash_attention_2", device_map="auto"
    ).to("cuda")
    args = trl.DPOConfig(
        output_dir="x", learning_rate=given.lr, max_steps=500, bf16=True, max_length=512, logging_nan_inf_filter=False
    )
    trainer = trl.DPOTrainer(
        model, None, args, train_dataset=parts["train"], eval_dataset=parts["test"], processing_class=tokenizer
    )
    trainer.train()
    trainer.save_model("x/final")
    AutoModelForCausalLM.from_pretrained("x/final", dtype="bfloat16").push_to_hub("me/x")


main()
"""


@pytest.mark.slow
async def test_a_script_on_the_hub_s_model_and_data_runs_here_and_says_what_was_replaced(
    desk: Desk, hub: HubStandIn, materials: Files
) -> None:
    serve_model(hub, "org/served", materials.model)
    hub.add(Repo("org/prefs", kind="dataset", files={"data/train.jsonl": materials.dpo.read_bytes()}))
    header = '# /// script\n# requires-python = ">=3.11"\n# dependencies = ["trl", "flash-attn"]\n# ///\n'
    mine = desk.store.edit(code=header + PREFERENCES)
    result = await desk.dry_run(mine.script_id)
    assert result.ok, result.checks
    said = found(result, "dry_run").message
    assert "2 steps" in said and "DPOConfig was made with your own values first" in said
    assert "max_steps 500 -> 2" in said and "bf16 true -> false" in said and "max_length" not in said
    assert "stood for org/served" in said and "Nothing was pushed" in said
    assert "Which is largest" in found(result, "as_read").message


REWARDED = """
import re
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer


def lost(completions, answer, **kwargs):
    return [float(text == right) for text, right in zip(completions, answer)]  # a list is never a text


def formed(completions, **kwargs):
    return [None for _ in completions]


trainer = GRPOTrainer(
    model="{model}",
    args=GRPOConfig(
        output_dir="out", use_vllm=True, bf16=True, num_generations=8, per_device_train_batch_size=8,
        model_init_kwargs={{"dtype": "bfloat16"}}, logging_nan_inf_filter=False,
    ),
    reward_funcs=[lost, formed],
    train_dataset=load_dataset("json", data_files="{data}", split="train"),
)
trainer.train()
"""


@pytest.mark.slow
async def test_rewards_that_like_no_right_answer_are_told(desk: Desk, materials: Files) -> None:
    mine = desk.store.edit(code=REWARDED.format(model=materials.model, data=materials.grpo))
    result = await desk.dry_run(mine.script_id)
    said = [check.message for check in result.checks if check.rule == "reward"]
    assert any("lost gave 0 to right answers" in one for one in said), result.checks
    assert any("formed returned None for every answer" in one for one in said)
    assert any("No reward was positive" in one and "answer" in one for one in said)
    assert "use_vllm true -> false" in found(result, "dry_run").message


CUT = """
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

SFTTrainer(
    "{model}",
    args=SFTConfig(output_dir="o", max_length=10, model_init_kwargs={{"dtype": "float32"}}),
    train_dataset=load_dataset("json", data_files="{data}", split="train"),
).train()
"""


@pytest.mark.slow
async def test_a_length_that_cuts_every_answer_is_told(desk: Desk, materials: Files) -> None:
    mine = desk.store.edit(code=CUT.format(model=materials.model, data=materials.sft))
    result = await desk.dry_run(mine.script_id)
    assert not result.ok and "max_length 10 cuts" in found(result, "nothing_trained").message


async def test_the_real_configuration_comes_first_in_rendered_scripts_too(
    desk: Desk, materials: Files, tmp_path: Path
) -> None:
    seen = tmp_path / "trial.jsonl"
    seen.write_text('{"kind": "configuration", "name": "SFTConfig"}\nno row\n{"kind": "model", "name": "org/m"}\n')
    said = replaced_text(read_seen(seen), {"max_steps": [None, 2], "bf16": [None, False], "optim": ["a", "b"]})
    assert said == (
        ' SFTConfig was made with your own values first; then replaced: max_steps -> 2, optim "a" -> "b".'
        " The tiny model stood for org/m."
    )


@pytest.mark.slow
async def test_what_only_the_real_configuration_refuses_fails_a_dry_run(desk: Desk, materials: Files) -> None:
    """A dry run replaces save_steps and eval_steps, so only the real values show that they do not go together."""
    first = desk.store.render(
        {
            "trainer": "sft",
            "model": str(materials.model),
            "dataset": str(materials.sft),
            "validation_rows": 8,
            "hyperparameters": {"load_best_model_at_end": True},
        }
    )
    edited = desk.store.edit(script_id=first.script_id, old_text='"save_steps": 0.2,', new_text='"save_steps": 0.3,')
    result = await desk.dry_run(edited.script_id)
    messages = " ".join(check.message for check in result.checks if check.severity == "error")
    assert not result.ok and "multiple" in messages


@pytest.mark.parametrize(
    ("code", "tried"),
    [
        ("import trl\ntrl.SFTTrainer('org/m', train_dataset=1)", True),
        ("from trl import SFTTrainer\nM = 'org/m'\nSFTTrainer(model=M)", True),
        ("from trl import SFTTrainer\nSFTTrainer(model=unknown())", False),
        ("print('org/m')", False),
        ("= 1", False),
    ],
)
def test_what_can_be_tried(code: str, tried: bool) -> None:
    assert can_be_tried(code) is tried


def test_data_of_the_hub_is_named_by_what_the_script_passes() -> None:
    code = code_of(
        "from datasets import load_dataset\n"
        "a = load_dataset('org/a')\nb = load_dataset('org/b', 'main', split='test[:5%]')\n"
        "c = load_dataset('json', data_files='x.jsonl')\nprint(a['train'], a['test'])\n"
    )
    assert code is not None
    loaded, whole = hub_data(code)
    assert whole
    assert [(one.key, one.source.split) for one in loaded] == [
        (json.dumps(["org/a", None]), "train+test"),
        (json.dumps(["org/b", "main"]), "test[:5%]"),
    ]


def test_scores_that_are_no_numbers_are_errors() -> None:
    rows = [{"kind": "reward", "name": "f", "gold": "answer", "wrong": [0.0], "right": [["NaN"], [1.0]]}]
    [check] = seen_findings(rows)
    assert (check.rule, check.severity) == ("reward", "error") and "NaN" in check.message


def test_a_reward_that_likes_one_form_of_the_right_answer_is_no_fault() -> None:
    rows = [{"kind": "reward", "name": "f", "gold": "answer", "wrong": [0.0], "right": [[0.0], [1.0], [0.0]]}]
    assert list(seen_findings(rows)) == []
