"""A language model small enough to train inside a test, with a tokenizer and chat template of its own.

    python -m tests.services.tiny_model FOLDER

The task that goes with it: ten options of two-digit numbers, name the letter of the largest; chance is 10 %.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LETTERS = string.ascii_uppercase[:10]
NUMBERS = [str(number) for number in range(10, 100)]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tiny_model(folder: Path, *, hidden: int = 16, layers: int = 2, seed: int = 0) -> Path:
    """Save an untrained Qwen3 of ``hidden`` x ``layers`` with its tokenizer into ``folder``; returns ``folder``."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<pad>", "<unk>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    words = [*special, *LETTERS, *NUMBERS, "Which", "is", "largest", "?"]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>", chat_template=TEMPLATE
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=hidden // 2,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=words.index("<|end|>"),
            bos_token_id=None,
        )
    )
    model.generation_config.eos_token_id = words.index("<|end|>")
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def questions(count: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """``count`` items: id, question (which lists the lettered numbers), choices (the letters), answer (an index)."""
    draw = random.Random(seed)
    for index in range(count):
        numbers = draw.sample(NUMBERS, len(LETTERS))
        listing = " ".join(f"{letter} {number}" for letter, number in zip(LETTERS, numbers, strict=True))
        yield {
            "id": f"item-{seed}-{index}",
            "question": f"Which is largest ? {listing}",
            "choices": list(LETTERS),
            "answer": numbers.index(max(numbers)),
        }


def sft_rows(count: int, *, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Prompt and completion as chat messages."""
    for item in questions(count, seed=seed):
        yield {"prompt": _user(item["question"]), "completion": _assistant(LETTERS[item["answer"]])}


def dpo_rows(count: int, *, seed: int = 2) -> Iterator[dict[str, Any]]:
    """Prompt, the right letter as chosen, another as rejected."""
    for item in questions(count, seed=seed):
        wrong = LETTERS[(item["answer"] + 1) % len(LETTERS)]
        right = LETTERS[item["answer"]]
        yield {"prompt": _user(item["question"]), "chosen": _assistant(right), "rejected": _assistant(wrong)}


def grpo_rows(count: int, *, seed: int = 3) -> Iterator[dict[str, Any]]:
    """Prompt, and the right letter in the column `answer`."""
    for item in questions(count, seed=seed):
        yield {"prompt": _user(item["question"]), "answer": LETTERS[item["answer"]]}


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    """``rows`` as JSON lines at ``path``, which is returned."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def _assistant(content: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": content}]


if __name__ == "__main__":
    print(make_tiny_model(Path(sys.argv[1]), hidden=int(sys.argv[2]) if len(sys.argv) > 2 else 16))
