"""The rehearsal's inputs, made from nothing: a small untrained language model and a task that must be learned.

Run as a program (``python -m mlintern.orchestrator.rehearsal.inputs FOLDER``), since it needs the ``train`` extra and
torch must not live in the orchestrator's process. Everything is drawn from fixed seeds.

The task: ten options A to J, each a number from 10 to 99, all different; answer with the letter of the largest.
Chance is 10 %. Training and held-out items are disjoint: an item whose ten numbers, in order, were drawn for one
set is never drawn for the other.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJ"
TRAIN_ITEMS = 20_000
HELD_OUT_ITEMS = 1_000

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{%- else -%}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)

SPECIAL_TOKENS = ["<|pad|>", "<|unknown|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
WORDS = ["Which", "is", "largest", "?", *LETTERS, *"0123456789"]


def make_task(folder: Path, *, seed: int = 0) -> None:
    """Write ``train.jsonl`` (TRL's conversational prompt and completion) and ``held_out.jsonl`` (question, choices,
    answer, id) into ``folder``.
    """
    draw = random.Random(seed)
    seen: set[tuple[int, ...]] = set()

    def items(count: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while len(found) < count:
            numbers = tuple(draw.sample(range(10, 100), len(LETTERS)))
            if numbers in seen:
                continue
            seen.add(numbers)
            options = " ".join(f"{letter} {number}" for letter, number in zip(LETTERS, numbers, strict=True))
            found.append((f"Which is largest ? {options}", LETTERS[numbers.index(max(numbers))]))
        return found

    write_rows(
        folder / "held_out.jsonl",
        [
            {"id": f"largest-{index:04d}", "question": question, "choices": list(LETTERS), "answer": answer}
            for index, (question, answer) in enumerate(items(HELD_OUT_ITEMS))
        ],
    )
    write_rows(
        folder / "train.jsonl",
        [
            {
                "prompt": [{"role": "user", "content": question}],
                "completion": [{"role": "assistant", "content": answer}],
            }
            for question, answer in items(TRAIN_ITEMS)
        ],
    )


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_model(folder: Path, *, seed: int = 0) -> int:
    """Save an untrained Qwen3 (2 layers of width 64) with its tokenizer and chat template; returns its parameters.

    The embeddings are untied: tied ones learn the end token slowly or not at all at the learning rates used here.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=128,
    )
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocabulary),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=16,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            pad_token_id=vocabulary["<|pad|>"],
            eos_token_id=vocabulary["<|end|>"],
            bos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = vocabulary["<|end|>"]
    model.generation_config.pad_token_id = vocabulary["<|pad|>"]
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    make_task(folder)
    parameters = make_model(folder / "base")
    print(json.dumps({"parameters": parameters, "train": TRAIN_ITEMS, "held_out": HELD_OUT_ITEMS}))


if __name__ == "__main__":
    main()
