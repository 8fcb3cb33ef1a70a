"""Scripts as models write them: those that fail are found, those that run are left alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlintern.tools.scripts.checks import static_checks
from mlintern.tools.scripts.script_results import Check

CASES = Path(__file__).parents[2] / "cases" / "scripts"
NOT_STATIC = {
    "assistant_only": "only the model's chat template tells; level `template` does",
    "trust_dataset": "only the Hub tells whether the data is there; a warning is given",
    "hub_push_no_id": "only the job's token tells; a warning is given",
    "lora_bad_target": "only the model's configuration tells; level `template` does",
}


def truth() -> dict[str, str]:
    """Script -> what really happens."""
    lines = (CASES / "TRUTH.md").read_text().splitlines()[4:]
    return {cells[1].strip(): cells[2].strip() for line in lines if len(cells := re.split(r"\|", line)) > 3}


def errors(text: str) -> list[Check]:
    return [check for check in static_checks(text) if check.severity == "error"]


@pytest.fixture
def beside_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)


def test_wrong_scripts_are_found_and_right_ones_are_left_alone(
    beside_the_data: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[tuple[bool, bool], list[str]] = {(a, b): [] for a in (True, False) for b in (True, False)}
    for name, happens in truth().items():
        told = errors((CASES / f"{name}.txt").read_text())
        found[happens != "runs", bool(told)].append(name)
    with capsys.disabled():
        print("\n                 error told   nothing told")
        print(f"  fails          {len(found[True, True]):10}   {len(found[True, False]):12}")
        print(f"  runs           {len(found[False, True]):10}   {len(found[False, False]):12}")
        print(f"  missed: {', '.join(found[True, False]) or 'none'}")
    assert found[False, True] == []
    assert set(found[True, False]) <= set(NOT_STATIC)
    assert len(found[True, True]) >= 0.9 * (len(found[True, True]) + len(found[True, False]))


def shipped_scripts() -> list[Path]:
    import trl

    return sorted((Path(trl.__file__).parent / "scripts").glob("*.py"))


def test_scripts_that_ship_with_trl_have_no_error_and_no_wrong_warning() -> None:
    pytest.importorskip("trl")
    scripts = shipped_scripts()
    assert len(scripts) > 8
    for path in scripts:
        text = path.read_text()
        told = [check for check in static_checks(text) if check.severity != "note"]
        assert [check for check in told if check.rule != "header"] == [], path.name
        assert bool(told) is ("# /// script" not in text)  # what has no header is told so


HEADER = """# /// script
# requires-python = ">=3.11"
# dependencies = ["trl[peft]==1.16.0", "torch==2.13.0", "mine @ git+https://example.org/mine.git@v1"]
# ///
"""
DATA = 'from datasets import load_dataset\nds = load_dataset("a/b", split="train")\n'
RIGHT = {
    "extras, addresses and what a requirement brings along count as present": """
import numpy, yaml, tqdm, peft, torch, mine, safetensors
from huggingface_hub import HfApi
""",
    "an import that the script can do without": """
try:
    import flash_attn
except ImportError:
    flash_attn = None
""",
    "a class of another package that has a name of TRL's": """
from mine import SFTConfig, SFTTrainer
SFTTrainer(anything=1, args=SFTConfig(max_seq_length=5))
""",
    "a class of the script's own": """
class GRPOConfig:
    def __init__(self, anything): ...
GRPOConfig(anything=1)
""",
    "arguments that cannot be followed": DATA
    + """
import json, sys
from trl import SFTConfig, SFTTrainer
config = SFTConfig(**json.load(open(sys.argv[1])))
SFTTrainer("a/b", config, train_dataset=ds)
""",
    "positional arguments": DATA
    + """
from trl import DPOConfig, DPOTrainer
DPOTrainer("a/b", None, DPOConfig(model_init_kwargs={"dtype": "bfloat16"}, logging_nan_inf_filter=False), None, ds)
""",
    "a trainer that is derived": DATA
    + """
from trl import SFTConfig, SFTTrainer
class Mine(SFTTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
Mine(model="a/b", train_dataset=ds)
""",
    "one split of several": """
from datasets import load_dataset
from trl import SFTTrainer
parts = load_dataset("a/b")
SFTTrainer("a/b", train_dataset=parts["train"], eval_dataset=parts["test"])
halves = load_dataset("a/b", split="train").train_test_split(0.1)
SFTTrainer("a/b", train_dataset=halves["train"], eval_dataset=halves["test"])
""",
    "rewards of many forms": """
import re
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward
ds = Dataset.from_list([{"prompt": [{"role": "user", "content": "2+2"}], "solution": "4"}])
def right(completions, solution, **kwargs):
    rewards = []
    for completion, answer in zip(completions, solution):
        text = completion[0]["content"]
        rewards.append(1.0 if re.search(re.escape(answer), text) else 0.0)
    return rewards
async def slow(prompts, completions, completion_ids, **kwargs):
    return [0.0] * len(completions)
GRPOTrainer("a/b", reward_funcs=[right, slow, accuracy_reward], train_dataset=ds,
    args=GRPOConfig(reward_weights=[1, 1, 1], logging_nan_inf_filter=False, model_init_kwargs=dict(dtype="bfloat16")))
""",
    "rows that are mapped to what the trainer needs": """
from datasets import load_dataset
from trl import SFTTrainer
ds = load_dataset("json", data_files="data/dpo_impl.jsonl", split="train")
ds = ds.map(lambda row: {"messages": row["chosen"]}, remove_columns=ds.column_names)
SFTTrainer("a/b", train_dataset=ds)
""",
    "checkpoints that were all evaluated": DATA
    + """
from trl import SFTConfig, SFTTrainer
args = SFTConfig(load_best_model_at_end=True, eval_strategy="steps", eval_steps=50, save_steps=100,
    logging_nan_inf_filter=False, model_init_kwargs={"dtype": "bfloat16"})
parts = ds.train_test_split(test_size=10)
SFTTrainer("a/b", args=args, train_dataset=parts["train"], eval_dataset=parts["test"])
""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_runs_gets_no_error_and_no_wrong_warning(name: str, beside_the_data: None) -> None:
    told = [check for check in static_checks(HEADER + RIGHT[name]) if check.severity != "note"]
    assert told == []


WRONG = {
    "trl has no module core": ("from trl.core import respond_to_batch", "missing_name", "trl.core"),
    "a misspelt name": ("from trl import SFTConfg", "missing_name", "SFTConfig"),
    "a name that moved": ("from trl import GKDTrainer", "missing_name", "trl.experimental.gkd"),
    "a name below a module": ("import transformers\ntransformers.AdamW", "missing_name", "torch.optim.AdamW"),
    "an optimizer in 8 bit": (
        'from trl import DPOConfig\nDPOConfig(optim="paged_adamw_8bit")',
        "missing_package",
        "",
    ),
    "a logger": ('from trl import SFTConfig\nSFTConfig(report_to=["wandb"])', "missing_package", "wandb"),
    "vLLM": ("from trl import GRPOConfig\nGRPOConfig(use_vllm=True)", "missing_package", "vllm"),
    "arguments of the model in the configuration": (
        'from trl import SFTConfig\nSFTConfig(model_init_kwargs={"load_in_4bit": True})',
        "removed_argument",
        "BitsAndBytesConfig",
    ),
    "merged dictionaries": (
        'from trl import SFTConfig\nbase = {"output_dir": "o"}\nSFTConfig(**base, **{"max_seq_length": 1})',
        "removed_field",
        "max_length",
    ),
    "no training data": ('from trl import SFTTrainer\nSFTTrainer("a/b")', "no_data", "train_dataset"),
    "an unknown argument": ('from trl import SFTTrainer\nSFTTrainer("a/b", datset=1)', "unknown_argument", "dataset"),
    "layers of adapters on all modules": (
        'from peft import LoraConfig\nLoraConfig(target_modules="all-linear", layers_to_transform=[1])',
        "lora_layers",
        "target_modules",
    ),
    "a file that is not there": (
        'from datasets import load_dataset\nload_dataset("json", data_files="/no/such.jsonl", split="train")',
        "absent_file",
        "/no/such.jsonl",
    ),
    "text columns for DPO": (
        "from datasets import Dataset\nfrom trl import DPOTrainer\n"
        'DPOTrainer("a/b", train_dataset=Dataset.from_dict({"text": ["x"]}))',
        "columns",
        "chosen",
    ),
    "an epoch against steps": (
        'from trl import SFTConfig\nSFTConfig(load_best_model_at_end=True, eval_strategy="epoch")',
        "cross_field",
        "save_strategy",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_fails_is_told_with_what_to_write_instead(name: str) -> None:
    source, rule, expected = WRONG[name]
    told = [check for check in static_checks(HEADER + source) if check.rule == rule]
    assert told and told[0].severity == "error"
    assert expected in f"{told[0].message} {told[0].fix}"


def test_reading_names_from_the_libraries_gives_what_is_shipped() -> None:
    """Of one small package; the whole takes a minute."""
    pytest.importorskip("trl")
    import trl

    from mlintern.tools.scripts.trainers.exports import names_in, signature
    from mlintern.tools.scripts.trainers.extract_exports import exports_of

    root = Path(trl.__file__).parents[1]
    modules, signatures = exports_of(root, "trl")
    if trl.__version__ != "1.16.0":
        pytest.skip("another version is installed")
    assert {name: frozenset(names.split()) for name, names in modules.items()} == {
        name: names_in(name) for name in modules
    }
    assert signatures["GRPOTrainer"].split() == list(signature("trl", "GRPOTrainer") or ())
