"""Run TRL's own trainers on tiny data and print, as JSON, which of them take it. A program for the slow test.

python trl_on_tiny_data.py JOBS.json      # [{"trainer", "kind", "rows", "prepare"}]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
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
        "output_dir": str(output), "max_steps": 1, "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
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
    from datasets import Dataset

    rows = job["rows"]
    try:
        if job["prepare"]:
            namespace: dict[str, Any] = {}
            exec(job["prepare"], namespace)
            prepared = [namespace["prepare"](dict(row)) for row in rows]
            rows = [row for row in prepared if row is not None]  # a script leaves such rows out
        build(job["trainer"], model, output, Dataset.from_list(rows)).train()
    except Exception as error:  # noqa: BLE001  whatever TRL raises means that it does not take the data
        return {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
    return {"ok": True, "error": ""}


def main() -> None:
    jobs = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        tiny_model(model)
        for job in jobs:
            print("@verdict " + json.dumps(verdict(job, model, Path(folder) / "out")), flush=True)


if __name__ == "__main__":
    main()
