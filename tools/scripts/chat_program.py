"""Lets models answer a few prompts, one model after another, and writes what each says.

    python chat_program.py '{"models": [...], "prompts": [...], "max_new_tokens": N}'

``answers.json`` goes to $MLINTERN_OUTPUT_DIR. It runs in an environment where mlintern may be missing: it uses the
standard library, torch and transformers. Weights are read from safetensors alone, and no code of a model is run.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SECONDS = 40.0
"""For one answer; what is written by then stands."""


def main() -> None:
    asked = json.loads(sys.argv[1])
    output = Path(os.environ["MLINTERN_OUTPUT_DIR"])
    told: dict[str, Any] = {}
    for model in asked["models"]:
        told[model] = answers(model, asked["prompts"], most=asked["max_new_tokens"])
        part = output / "answers.part"
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(output / "answers.json")


def answers(name: str, prompts: list[str], *, most: int) -> list[dict[str, Any]]:
    """The likeliest answer to each prompt, in chat format where the model has one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = Path(name) / "adapter_config.json"
    lacks = adapter.is_file() and not (Path(name) / "tokenizer_config.json").is_file()
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if lacks else name
    tokenizer = AutoTokenizer.from_pretrained(base)
    on_gpu = torch.accelerator.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype="bfloat16" if on_gpu else "float32", device_map="auto" if on_gpu else "cpu", use_safetensors=True
    )
    said = []
    for prompt in prompts:
        chat = tokenizer.chat_template is not None
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) if chat else prompt
        given = tokenizer(text, add_special_tokens=not chat, return_tensors="pt").to(model.device)
        given.pop("token_type_ids", None)
        with torch.inference_mode():
            written = model.generate(
                **given,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=most,
                max_time=SECONDS,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )[0, given["input_ids"].shape[1] :].tolist()
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
        answer = tokenizer.decode(written, skip_special_tokens=True).strip()
        said.append({"answer": answer, "cut": not ends & set(written), "tokens": len(written)})
    return said


if __name__ == "__main__":
    main()
