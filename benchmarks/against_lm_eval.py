"""The transformers engine of evaluation scripts beside lm-evaluation-harness (`hf` model): speed and scores.

    python -m benchmarks.against_lm_eval

Needs `make harness`, or MLINTERN_HARNESS_PYTHON: an interpreter that has lm_eval[hf]. One random Qwen3 (4 layers of
128, 8,000 words), 192 items with prompts of 20 to 160 words, batches of 32, float32 and one thread for both, in
turns, three times each. Likelihood: six options of one to four words. Generation: greedy, at most 24 tokens; most
answers end before.

Of lm-eval only `HFLM.loglikelihood` and `HFLM.generate_until` are timed; of our script all of `evaluate`, with its
samples written. Bounds: by the best of three at least as many items a second in both; the same score for every item;
likelihoods within 0.001; writing samples takes at most 2 % of `evaluate`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' parts serve here too

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render

PYTHON = os.environ.get("MLINTERN_HARNESS_PYTHON") or str(Path(__file__).parents[1] / ".venv-harness/bin/python")
ITEMS, BATCH, TOKENS, REPEATS = 192, 32, 24, 3
MOST_WRITING = 0.02
NEAR = 1e-3
KINDS = ("likelihood", "generation")
WORDS = [f"w{number}" for number in range(7_990)]

THEIRS = """
import json, sys, time
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

folder, kind, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = HFLM(pretrained=f"{folder}/model", batch_size=batch, device="cpu", dtype="float32")
seconds = []


def timed(run):
    def wrapped(*arguments, **named):
        began = time.perf_counter()
        try:
            return run(*arguments, **named)
        finally:
            seconds.append(time.perf_counter() - began)

    return wrapped


model.loglikelihood, model.generate_until = timed(model.loglikelihood), timed(model.generate_until)
found = simple_evaluate(
    model=model, tasks=[kind], task_manager=TaskManager(include_path=f"{folder}/tasks", include_defaults=False),
    bootstrap_iters=0, log_samples=True,
)
rows = {}
for sample in found["samples"][kind]:
    said = sample["resps"]
    metric = "acc" if kind == "likelihood" else "exact_match"
    answers = [float(one[0][0]) for one in said] if kind == "likelihood" else said[0][0].strip()
    rows[sample["doc"]["id"]] = [sample[metric], answers]
print("@result " + json.dumps({"seconds": sum(seconds), "rows": rows}))
"""
OURS = """
import importlib.util, json, sys, time

folder, kind = sys.argv[1], sys.argv[2]
spec = importlib.util.spec_from_file_location("ours", f"{folder}/{kind}.py")
script = importlib.util.module_from_spec(spec)
sys.modules["ours"] = script
spec.loader.exec_module(script)
seconds = {"evaluate": 0.0, "as_lines": 0.0}


def timed(name):
    run = getattr(script, name)

    def wrapped(*arguments):
        began = time.perf_counter()
        try:
            return run(*arguments)
        finally:
            seconds[name] += time.perf_counter() - began

    setattr(script, name, wrapped)


timed("evaluate")
timed("as_lines")
script.main()
rows, lines = {}, (script.OUTPUT / "samples.jsonl").read_bytes().splitlines(keepends=True)
began = time.perf_counter()
with (script.OUTPUT / "again.jsonl").open("ab") as file:
    for start in range(0, len(lines), 8 * script.EVALUATION_BATCH_SIZE):
        file.write(b"".join(lines[start : start + 8 * script.EVALUATION_BATCH_SIZE]))
        file.flush()
writing = time.perf_counter() - began + seconds["as_lines"]
for line in lines:
    row = json.loads(line)
    answers = list(row["likelihood"].values()) if kind == "likelihood" else row["answer"]
    rows[row["id"]] = [row["accuracy" if kind == "likelihood" else "exact_match"], answers]
print("@result " + json.dumps({"seconds": seconds["evaluate"], "writing": writing, "rows": rows}))
"""
TASKS = {
    "likelihood": "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: answer\n"
    "doc_to_choice: choices\n"
    "metric_list:\n  - metric: acc\n",
    "generation": "output_type: generate_until\ndoc_to_text: question\ndoc_to_target: '{{choices[answer]}}'\n"
    f"generation_kwargs:\n  until: ['<|end|>']\n  do_sample: false\n  max_gen_toks: {TOKENS}\n"
    "metric_list:\n  - metric: exact_match\n",
}


def make_model(folder: Path) -> None:
    """A random model whose greedy answers end after different numbers of tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    vocabulary = ["<pad>", "<unk>", "<|end|>", *WORDS]
    raw = Tokenizer(models.WordLevel({word: at for at, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<|end|>"
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocabulary),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=2,
            bos_token_id=None,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[2] *= 6  # it is often the likeliest
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_inputs(folder: Path) -> None:
    """Model, items, and both sides' tasks."""
    make_model(folder / "model")
    draw = random.Random(0)
    rows = [
        {
            "id": f"item-{number}",
            "question": " ".join(draw.choices(WORDS, k=draw.randint(20, 160))),
            "choices": [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(6)],
            "answer": draw.randrange(6),
        }
        for number in range(ITEMS)
    ]
    data = folder / "items.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "tasks").mkdir()
    for kind in KINDS:
        said = f"task: {kind}\ndataset_path: json\ndataset_kwargs: {{data_files: '{data}'}}\ntest_split: train\n"
        (folder / "tasks" / f"{kind}.yaml").write_text(said + TASKS[kind])
        recipe: dict[str, Any] = {
            "trainer": "evaluation",
            "model": str(folder / "model"),
            "dataset": str(data),
            "prompt": "{question}",
            "batch_size": BATCH,
            "chat_template": False,
            "dtype": "float32",
            "use_cpu": True,
        }
        if kind == "likelihood":
            recipe |= {"scorer": "likelihood"}
        else:
            prepare = "def prepare(row):\n    return {'answer': row['choices'][row['answer']]}\n"
            recipe |= {"kind": "exact_match", "max_new_tokens": TOKENS, "prepare": prepare}
        (folder / f"{kind}.py").write_text(render(parse_recipe(recipe)).text)


def run(python: str, code: str, folder: Path, kind: str, number: int) -> dict[str, Any]:
    """What one side says of one kind."""
    done = subprocess.run(
        [python, "-c", code, str(folder), kind, str(BATCH)],
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(folder / "cache"),
            "MLINTERN_OUTPUT_DIR": str(folder / f"output-{kind}-{number}"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("@result ")]
    if not lines:
        raise SystemExit(f"{python} on {kind}:\n{(done.stdout + done.stderr)[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("@result "))
    return found


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[int, float]:
    """Items with another score or answer, and the largest difference of a likelihood."""
    assert ours.keys() == theirs.keys()
    other, most = 0, 0.0
    for name, (score, answers) in ours.items():
        their_score, their_answers = theirs[name]
        same = True
        if isinstance(answers, list):
            most = max(most, *(abs(a - b) for a, b in zip(answers, their_answers, strict=True)))
        else:
            same = answers == their_answers
        other += score != their_score or not same
    return other, most


def main() -> int:
    if not Path(PYTHON).exists():
        print("skipped: needs make harness")
        return 0
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        for kind in KINDS:
            ours, theirs = [], []
            for number in range(REPEATS):
                ours.append(run(sys.executable, OURS, folder, kind, number))
                theirs.append(run(PYTHON, THEIRS, folder, kind, number))
            rates = [ITEMS / min(one["seconds"] for one in side) for side in (ours, theirs)]
            other, most = differing(ours[0]["rows"], theirs[0]["rows"])
            writing = min(one["writing"] / one["seconds"] for one in ours)
            print(
                f"{kind:<10} {rates[0]:6.1f} items/s, lm-eval {rates[1]:6.1f}: {rates[0] / rates[1]:.2f} times; "
                f"{other} of {ITEMS} items differ (likelihoods by at most {most:.1e}); writing samples {writing:.2%}"
            )
            missed += [f"{kind} is slower"] * (rates[0] < rates[1])
            missed += [f"{kind} scores otherwise"] * (other > 0 or most > NEAR)
            missed += [f"{kind} spends {writing:.1%} on writing"] * (writing > MOST_WRITING)
    print(f"missed: {missed}" if missed else "all bounds are held")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
