"""Run TRL's own trainers on tiny data and print, as JSON, which of them take it. A program for the slow test.

python trl_on_tiny_data.py JOBS.json      # [{"trainer", "kind", "rows" or "load", "prepare"}]

``load`` holds the arguments of `datasets.load_dataset`, or the folder of a saved dataset. Of those jobs the texts are
told as well: what TRL's own preparation made tokens of, row by row.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_model(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
        pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)


def build(trainer: str, model: Path, output: Path, dataset: Any) -> Any:
    import trl

    common = {
        "output_dir": str(output), "max_steps": 2, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "per_device_train_batch_size": 2,
    }  # fmt: skip
    if trainer in ("grpo", "rloo"):
        more = {"num_generations": 2, "max_completion_length": 4, "max_steps": -1, "num_train_epochs": 1}
        config = {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig}[trainer](**{**common, **more})
        make = {"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[trainer]

        def reward(prompts: Any, completions: Any, **columns: Any) -> list[float]:
            return [float(i % 2) for i in range(len(completions))]

        return make(model=str(model), args=config, train_dataset=dataset, reward_funcs=reward)
    configs = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "kto": trl.KTOConfig, "reward": trl.RewardConfig}
    trainers = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "kto": trl.KTOTrainer, "reward": trl.RewardTrainer}
    return trainers[trainer](model=str(model), args=configs[trainer](**common), train_dataset=dataset)


def verdict(job: dict[str, Any], model: Path, output: Path) -> dict[str, Any]:
    """Whether the trainer is built and trains over every row (GRPO and RLOO look at rows only when they train)."""
    try:
        trainer = build(job["trainer"], model, output, training_data(job))
        trained = trainer.train()
        texts = texts_of(trainer) if "load" in job and job["trainer"] not in ("grpo", "rloo") else []
    except Exception as error:  # noqa: BLE001  whatever TRL raises means that it does not take the data
        return {"ok": False, "error": f"{type(error).__name__}: {error}"[:300], "texts": [], "steps": 0}
    return {"ok": True, "error": "", "texts": texts, "steps": trained.global_step}


def training_data(job: dict[str, Any]) -> Any:
    """The rows as a rendered script hands them to the trainer."""
    from datasets import Dataset, load_dataset, load_from_disk

    namespace: dict[str, Any] = {}
    exec(job["prepare"], namespace)
    prepare = namespace.get("prepare", dict)
    if "load" not in job:
        made = [prepare(dict(row)) for row in job["rows"]]
        return Dataset.from_list([row for row in made if row is not None])
    load = job["load"]
    loaded = load_from_disk(load["saved"]) if "saved" in load else load_dataset(**load)
    if not job["prepare"]:
        return loaded

    def prepared(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [prepare(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}

    kept = loaded.filter(lambda row: prepare(row) is not None)
    return kept.map(prepared, batched=True, remove_columns=kept.column_names, try_original_type=False)


def texts_of(trainer: Any) -> list[str]:
    """What stands in the token ids of each row that the trainer made."""
    data = trainer.train_dataset
    names = [name for name in data.column_names if name.endswith("ids")]
    return ["\n".join(trainer.processing_class.decode(row[name]) for name in names) for row in data]


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        tiny_model(model)
        for job in jobs:
            print("@verdict " + json.dumps(verdict(job, model, Path(folder) / "out")), flush=True)


if __name__ == "__main__":
    main()
