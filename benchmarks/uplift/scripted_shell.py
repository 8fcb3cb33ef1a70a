"""The scripted agent of the bare arm: one training run for the time there is, written with torch and transformers.

A common choice of settings, the model saved at the end; nothing is measured and nothing else tried. It shows that the
bench works, and what the same machine gives without mlintern; it says nothing about what a model does in a shell.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 4
RATE = 5e-5
LONGEST = 128
SAVING_SECONDS = 20.0


def main() -> int:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seed = int(os.environ["UPLIFT_SEED"])
    most = int(os.environ.get("UPLIFT_STEPS", "1000000"))
    began, ends = time.time(), float(os.environ["UPLIFT_ENDS_AT"]) - SAVING_SECONDS
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained("base")
    model = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32).train()
    rows = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
    random.Random(seed).shuffle(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    step, last = 0, 0.0
    while step < most and time.time() + 1.5 * last < ends:
        started = time.time()
        batch = [rows[(step * BATCH + place) % len(rows)] for place in range(BATCH)]
        loss = model(**collate(batch, tokenizer)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = min(1.0, (time.time() - began) / max(1e-9, ends - began))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 10, 1 - share)
        optimizer.step()
        optimizer.zero_grad()
        step, last = step + 1, time.time() - started
        if step % 10 == 0:
            print(f"step {step}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    model.save_pretrained("final_model")
    tokenizer.save_pretrained("final_model")
    print(f"{step} steps of {BATCH} rows", file=sys.stderr)
    return 0


def collate(rows: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
    """A batch whose loss is that of the completions."""
    import torch

    pairs = []
    for row in rows:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str):
            asked, answered = prompt, completion
        else:
            asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            answered = completion[0]["content"] + (tokenizer.eos_token or "")
        first = tokenizer(asked, add_special_tokens=False)["input_ids"]
        pairs.append((first, tokenizer(answered, add_special_tokens=False)["input_ids"]))
    longest = min(LONGEST, max(len(first) + len(second) for first, second in pairs))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, (first, second) in enumerate(pairs):
        whole = (first + second)[-longest:]
        ids[place, : len(whole)] = torch.tensor(whole)
        mask[place, : len(whole)] = 1
        labels[place, len(whole) - len(second) : len(whole)] = torch.tensor(second)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


if __name__ == "__main__":
    sys.exit(main())
