"""Training loops as a person writes them, with the mathematics of TRL's trainers, to hold rendered scripts against.

    python benchmarks/hand_written.py sft|dpo|grpo MODEL ROWS.jsonl STEPS BATCH RATE [LORA_RANK]

Prints a JSON row a step: step, seconds since the first step began, loss.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup


def log_p(model: Any, rows: list[tuple[list[int], list[int]]], pad: int) -> torch.Tensor:
    """Log-probabilities of the answers' tokens, (rows, longest answer), 0 where there is none."""
    width, tail = max(len(a) + len(b) for a, b in rows), max(len(b) for _, b in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    wanted = torch.full((len(rows), tail), -100)
    for number, (prompt, answer) in enumerate(rows):  # padded on the left: answers end in the last column
        length = len(prompt) + len(answer)
        ids[number, width - length :] = torch.tensor(prompt + answer)
        mask[number, width - length :] = 1
        wanted[number, tail - len(answer) :] = torch.tensor(answer)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=tail + 1, use_cache=False)
    logits = out.logits[:, :-1].float()
    chosen = logits.gather(-1, wanted.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
    return chosen * (wanted != -100)


def sft_loss(model: Any, batch: list[Any], pad: int) -> torch.Tensor:
    pairs = [(row["prompt"], row["completion"]) for row in batch]
    return -log_p(model, pairs, pad).sum() / sum(len(answer) for _, answer in pairs)


def dpo_loss(model: Any, reference: Any, batch: list[Any], pad: int, beta: float = 0.1) -> torch.Tensor:
    pairs = [(row["prompt"], row[side]) for side in ("chosen", "rejected") for row in batch]
    now = log_p(model, pairs, pad).sum(-1)
    with torch.no_grad():
        before = reference(pairs)
    ratio = now - before
    return -logsigmoid(beta * (ratio[: len(batch)] - ratio[len(batch) :])).mean()


@torch.no_grad()
def sample(model: Any, prompts: list[list[int]], pad: int, eos: int, length: int) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
        max_new_tokens=length, pad_token_id=pad, eos_token_id=eos,
    )  # fmt: skip
    answers = []
    for row in out[:, width:].tolist():
        end = row.index(eos) + 1 if eos in row else len(row)
        answers.append(row[:end])
    return answers


def grpo_loss(model: Any, batch: list[Any], tokenizer: Any, generations: int, length: int) -> torch.Tensor:
    prompts = [row["prompt"] for row in batch for _ in range(generations)]
    answers = sample(model, prompts, tokenizer.pad_token_id, tokenizer.eos_token_id, length)
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    wanted = [row["answer"] for row in batch for _ in range(generations)]
    rewards = torch.tensor([float(text.strip() == str(right)) for text, right in zip(texts, wanted, strict=True)])
    groups = rewards.view(-1, generations)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    scores = log_p(model, list(zip(prompts, answers, strict=True)), tokenizer.pad_token_id)
    ratio = (scores - scores.detach()).exp()
    return -(ratio * advantages[:, None] * (scores != 0)).sum() / sum(map(len, answers))


def read(path: str, tokenizer: Any) -> list[dict[str, Any]]:
    rows = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        read_row: dict[str, Any] = {"prompt": tokenizer(prompt, add_special_tokens=False)["input_ids"]}
        for name in ("completion", "chosen", "rejected"):
            if name in row:
                whole = tokenizer.apply_chat_template([*row["prompt"], *row[name]], tokenize=False)
                read_row[name] = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
        rows.append({**row, **read_row})
    return rows


def main(kind: str, folder: str, data: str, steps: str, batch: str, rate: str, rank: str = "") -> None:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    if rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=int(rank), lora_alpha=2 * int(rank), target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(rate), weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, int(steps))
    rows = read(data, tokenizer)
    random.Random(0).shuffle(rows)
    pad = tokenizer.pad_token_id
    frozen: Any = None
    if kind == "dpo" and not rank:
        frozen = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def reference(pairs: list[Any]) -> torch.Tensor:
        if frozen is not None:
            return log_p(frozen, pairs, pad).sum(-1)
        with model.disable_adapter():
            return log_p(model, pairs, pad).sum(-1)

    size, began = int(batch), time.time()
    for step in range(int(steps)):
        part = [rows[(step * size + number) % len(rows)] for number in range(size)]
        if kind == "sft":
            loss = sft_loss(model, part, pad)
        elif kind == "dpo":
            loss = dpo_loss(model, reference, part, pad)
        else:
            loss = grpo_loss(model, part[: max(1, size // 4)], tokenizer, 4, 16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        print(json.dumps({"step": step + 1, "time": time.time() - began, "loss": loss.item()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
