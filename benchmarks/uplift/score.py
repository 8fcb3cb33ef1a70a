"""Score a model on items, in a process of its own.

    python -m benchmarks.uplift.score MODEL BASE ITEMS ANSWERS

Tokenizer and chat template are those of the base model, so that nothing but the weights is judged. An item with
choices counts if the model finds the right one likeliest as its answer; one with a verifier, or with neither, if what
the model writes is right. ANSWERS gets a row an item: its id and 1 or 0.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.uplift.cells import Row, question, read_rows, write_rows

BATCH = 32
NEW_TOKENS = 16


def main(arguments: list[str]) -> int:
    model_folder, base, items, answers = map(Path, arguments)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(model_folder, trust_remote_code=False, dtype="float32").eval()
    rows = list(read_rows(items))
    prompts = [
        tokenizer.apply_chat_template(question(row["question"]), tokenize=False, add_generation_prompt=True)
        if tokenizer.chat_template
        else row["question"]
        for row in rows
    ]
    score = chosen if all(row.get("choices") for row in rows) else written
    write_rows(
        answers,
        [
            {"id": row["id"], "score": right}
            for row, right in zip(rows, score(model, tokenizer, rows, prompts), strict=True)
        ],
    )
    return 0


def chosen(model: Any, tokenizer: Any, rows: list[Row], prompts: list[str]) -> list[float]:
    """1 where the right choice is the likeliest continuation of the prompt."""
    import torch

    space = "" if tokenizer.chat_template else " "
    sequences = []
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        options = {
            choice: tokenizer(space + choice, add_special_tokens=False)["input_ids"] for choice in row["choices"]
        }
        if all(len(option) == 1 for option in options.values()):  # the prompt alone tells of all of them
            sequences.append((number, asked, [], options))
        else:
            sequences += [(number, asked, option, {choice: option}) for choice, option in options.items()]
    sequences.sort(key=lambda one: len(one[1]) + len(one[2]))
    likely: list[dict[str, float]] = [{} for _ in rows]
    for start in range(0, len(sequences), BATCH):
        batch = sequences[start : start + BATCH]
        longest = max(len(asked) + len(option) for _, asked, option, _ in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, (_, asked, option, _) in enumerate(batch):
            whole = asked + option
            ids[place, : len(whole)] = torch.tensor(whole)
            mask[place, : len(whole)] = 1
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
        for place, (number, asked, _, options) in enumerate(batch):
            for choice, option in options.items():
                steps = logits[place, len(asked) - 1 : len(asked) + len(option) - 1].log_softmax(-1)
                likely[number][choice] = sum(float(step[token]) for step, token in zip(steps, option, strict=True))
    best = [max(own, key=lambda choice: own[choice]) for own in likely]
    right = [row["choices"][row["answer"]] if isinstance(row["answer"], int) else str(row["answer"]) for row in rows]
    return [float(choice == answer) for choice, answer in zip(best, right, strict=True)]


def written(model: Any, tokenizer: Any, rows: list[Row], prompts: list[str]) -> list[float]:
    """1 where what the model writes, likeliest token by token, is the answer or passes the item's verifier."""
    import torch

    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    found = []
    for start in range(0, len(rows), BATCH):
        asked = tokenizer(prompts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            ids = model.generate(
                **asked, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        texts = tokenizer.batch_decode(ids[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        found += [verified(row, text.strip()) for row, text in zip(rows[start : start + BATCH], texts, strict=True)]
    return found


def verified(row: Row, text: str) -> float:
    """By the verifier of ``reasoning-gym``, of which only a full score counts; else by being the answer."""
    if "verifier" not in row:
        return float(text == str(row["answer"]))
    gym = importlib.import_module("reasoning_gym")
    judge = gym.get_score_answer_fn(row["verifier"])
    return float(judge(text, {"answer": row["answer"], "metadata": {}}) == 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
