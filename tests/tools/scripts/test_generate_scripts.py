"""A rendered script that lets a model write data: what it keeps, and what it says of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services import tiny_model
from tests.tools.scripts.conftest import Materials

pytestmark = pytest.mark.slow

Script = Callable[..., tuple[ModuleType, Path]]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, materials: Materials) -> Script:
    """Import a rendered script with an output folder of its own."""
    count = 0
    prompts = tiny_model.write_rows(tmp_path / "prompts.jsonl", tiny_model.grpo_rows(24, seed=9))

    def import_script(**recipe: Any) -> tuple[ModuleType, Path]:
        nonlocal count
        count += 1
        output = tmp_path / f"output-{count}"
        monkeypatch.setenv("MLINTERN_OUTPUT_DIR", str(output))
        full = {
            "trainer": "generate",
            "model": str(materials.model),
            "prompts": str(prompts),
            "samples": 6,
            "max_new_tokens": 4,
            "use_cpu": True,
            "verifier": "exact",
            "keep_cut": True,
            **recipe,
        }
        path = tmp_path / f"generate_{count}.py"
        path.write_text(render(parse_recipe(full)).text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module, output

    return import_script


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sample(*answers: tuple[str, float], name: str = "p") -> dict[str, Any]:
    written = [
        {"answer": text, "extracted": text, "score": score, "finish_reason": "stop", "tokens": len(text)}
        for text, score in answers
    ]
    return {"id": name, "question": "Which ?", "target": "B", "prompt": "Which ?", "answers": written}


def test_answers_are_drawn_verified_and_kept_with_a_card(script: Script) -> None:
    module, output = script(keep="all", similar=1.0, max_per_prompt=6)
    module.main()
    samples = rows(output / "samples.jsonl")
    assert len(samples) == 24 and all(len(row["answers"]) == 6 for row in samples)
    kept = rows(output / "dataset" / "train.jsonl")
    for row in kept:
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
    told = json.loads((output / "generation.json").read_text())
    right = sum(one["score"] == 1 for row in samples for one in row["answers"])
    assert (told["yield"]["answers"], told["yield"]["right"], told["yield"]["rows"]) == (144, right, len(kept))
    card = (output / "dataset" / "README.md").read_text()
    assert "| answers | 144 |" in card and "verified by `exact`" in card and "not stated" in card
    from datasets import load_dataset

    assert len(load_dataset(str(output / "dataset"), split="train")) == len(kept)


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_dataset(script: Script) -> None:
    module, output = script(keep="all", batch_size=1)
    module.main()
    whole = rows(output / "dataset" / "train.jsonl")
    lines = (output / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (output / "samples.jsonl").write_bytes(b"".join(lines[:10]) + lines[10][:20])
    (output / "generation.json").unlink()
    asked: list[Any] = []
    part = module.write_part
    module.write_part = lambda model, tokenizer, items: asked.extend(items) or part(model, tokenizer, items)
    module.main()
    assert len(asked) == 14
    assert rows(output / "dataset" / "train.jsonl") == whole


MIXED = [("B", 1.0), ("A", 0.0), ("B!", 1.0), ("B", 1.0), ("C, I think", 0.0), ("", 0.0)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("correct", [{"messages": "Which ?|B"}, {"messages": "Which ?|B!"}]),
        ("best", [{"messages": "Which ?|B"}]),
        (
            "pairs",
            [
                {"prompt": "Which ?", "chosen": "B", "rejected": "C, I think"},
                {"prompt": "Which ?", "chosen": "B!", "rejected": "A"},
            ],
        ),
        (
            "labels",
            [
                {"prompt": "Which ?", "completion": "B", "label": True},
                {"prompt": "Which ?", "completion": "C, I think", "label": False},
                {"prompt": "Which ?", "completion": "B!", "label": True},
                {"prompt": "Which ?", "completion": "A", "label": False},
            ],
        ),
    ],
)
def test_each_way_of_keeping_gives_the_shape_that_its_trainer_takes(
    script: Script, keep: str, expected: list[dict[str, Any]]
) -> None:
    module, _ = script(keep=keep)
    found = module.rows_of([sample(*MIXED)])
    as_text = [
        {
            name: "|".join(one["content"] for one in cell) if isinstance(cell, list) else cell
            for name, cell in row.items()
        }
        for row in found
    ]
    assert as_text == expected


def test_prompts_that_are_always_or_never_solved_can_be_dropped(script: Script) -> None:
    module, _ = script(pass_rate=[0.01, 0.99], keep="all", samples=2)
    samples = [
        sample(("B", 1.0), ("B ", 1.0), name="always"),
        sample(("A", 0.0), ("C", 0.0), name="never"),
        sample(("B", 1.0), ("C", 0.0), name="sometimes"),
    ]
    assert len(module.rows_of(samples)) == 2
    counts = module.counts_of(samples, [])
    assert (counts["always_solved"], counts["never_solved"]) == (1, 1)


def test_cut_short_long_and_nearly_equal_answers_are_not_kept(script: Script) -> None:
    module, _ = script(keep="all", keep_cut=False, characters=[2, 60], similar=0.9)
    one = sample(("B", 1.0), ("x" * 61, 1.0), ("the answer is certainly B", 1.0), ("the answer is certainly B.", 1.0))
    one["answers"].append({**one["answers"][2], "answer": "cut off here", "finish_reason": "length"})
    assert [row["messages"][1]["content"] for row in module.rows_of([one])] == ["the answer is certainly B"]


def test_a_prepare_that_returns_none_leaves_prompts_out_and_they_are_counted(
    script: Script,
) -> None:
    texts = [item["prompt"][0]["content"] for item in tiny_model.grpo_rows(24, seed=9)]
    kept = [text for text in dict.fromkeys(texts) if sum(map(ord, text)) % 2]
    assert 0 < len(kept) < len(texts)
    prepare = "def prepare(row):\n    return row if sum(map(ord, row['prompt'][0]['content'])) % 2 else None\n"
    module, output = script(prepare=prepare)
    output.mkdir()
    assert [item.question[0]["content"] for item in module.read_prompts()] == kept
    left_out = sum(1 for text in texts if not sum(map(ord, text)) % 2)
    assert [row["left_out"] for row in rows(output / "metrics.jsonl") if "left_out" in row] == [left_out]
    module, output = script(prepare="def prepare(row):\n    return None\n")
    output.mkdir()
    with pytest.raises(SystemExit, match="leaves out all of 24 rows"):
        module.read_prompts()


def test_prompts_that_share_their_words_with_held_out_data_are_left_out_and_counted(
    script: Script, tmp_path: Path
) -> None:
    held = tmp_path / "held.jsonl"
    items = list(tiny_model.grpo_rows(24, seed=9))
    question = items[3]["prompt"][0]["content"]
    held.write_text(json.dumps({"question": f"Please: {question} Thanks", "note": "Which is"}) + "\n")
    module, _ = script(held_out=[str(held)])
    left, shared = module.without_held_out(module.read_prompts())
    assert (len(left), shared) == (23, 1)
    assert question not in {item.question[0]["content"] for item in left}


@pytest.mark.parametrize(
    ("verifier", "gold", "right", "wrong"),
    [
        ("exact", "1,002", ["1002", "1,002.0"], ["1003", "about 1002"]),
        ("numeric", "1002 km", ["It is 1,002 km.", "1.002e3", "= 2004/2 kms"], ["1002 miles", "no idea", "1003 km"]),
        ("math_verify", "$\\frac{1}{2}$", ["$0.5$", "so $\\frac{2}{4}$"], ["$0.6$", "half"]),
        ("regex", "(?i)^paris", ["Paris, of course", "paris"], ["It is Paris"]),
        ("json", '{"a": [1, 2]}', ['{"a": [1, 2]}', 'So:\n```json\n{"a":[1,2]}\n```'], ['{"a": [2, 1]}', "{"]),
        (
            "code",
            "assert double(4) == 8",
            ["def double(x):\n    return 2 * x", "```python\ndef double(x):\n    return x + x\n```"],
            ["def double(x):\n    return x", "exit(0)", "import os\nos._exit(0)", "while True: pass", "def double(x"],
        ),
        ("def verify(answer, gold):\n    return len(answer) == len(gold)\n", "abc", ["xyz"], ["xy"]),
    ],
)
def test_a_verifier_accepts_the_right_answers_and_no_others(
    script: Script, verifier: str, gold: str, right: list[str], wrong: list[str]
) -> None:
    module, _ = script(verifier=verifier, code_seconds=2, samples=len(right + wrong))
    item = module.Item("1", "?", gold)
    written = [module.Written(text, "stop", 1) for text in right + wrong]
    scores = [one["score"] for one in module.judged(item, written)["answers"]]
    assert scores == [1.0] * len(right) + [0.0] * len(wrong)


def test_an_answers_code_sees_no_variables_and_no_network(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    module, _ = script(verifier="code", code_seconds=5)
    look = "import os\nassert 'HF_TOKEN' not in os.environ\nassert os.listdir() == ['answer.py']\n"
    assert module.passes(look)
    if module.ALONE:
        assert not module.passes("import socket\nsocket.create_connection(('127.0.0.1', 9), timeout=1)")
        assert module.passes("import os\nassert len([p for p in os.listdir('/proc') if p.isdigit()]) >= 0")


def test_a_schema_is_held(script: Script) -> None:
    schema = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
    module, _ = script(verifier="json", json_schema=schema, answer_column="nothing", samples=4)
    item = module.Item("1", "?", "")
    texts = ['{"city": "Bonn"}', '{"city": 3}', "{}", "Bonn"]
    answers = module.judged(
        item, [module.Written(text, "stop", 1) for text in texts] + [module.Written("", "stop", 0)] * 2
    )
    assert [one["score"] for one in answers["answers"]] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def reward_model(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen3ForSequenceClassification

    folder = tmp_path_factory.mktemp("reward-model")
    torch.manual_seed(4)
    config = AutoConfig.from_pretrained(materials.model, num_labels=1, pad_token_id=0)
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(materials.model).save_pretrained(folder)
    return folder


def reward_of(folder: Path, question: Any, answer: str) -> float:
    """The score of one answer, on its own."""
    from transformers import AutoTokenizer, Qwen3ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [*question, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    return float(Qwen3ForSequenceClassification.from_pretrained(folder)(**inputs).logits[0, 0])


@pytest.mark.parametrize("keep", ["best", "pairs", "all"])
def test_a_reward_model_orders_the_answers_to_a_prompt(script: Script, reward_model: Path, keep: str) -> None:
    fields: dict[str, Any] = {"max_per_prompt": 2, "similar": 1.0, "batch_size": 7}
    module, output = script(verifier="reward_model", reward_model=str(reward_model), keep=keep, **fields)
    module.main()
    samples = rows(output / "samples.jsonl")
    first = samples[0]
    for one in first["answers"][:2]:
        assert one["score"] == pytest.approx(reward_of(reward_model, first["question"], one["answer"]), abs=1e-4)
    assert not any("@" in name for name in first), "nobody knows which answers are right"
    kept = rows(output / "dataset" / "train.jsonl")
    scores = {
        (str(one["question"]), answer["answer"]): answer["score"] for one in samples for answer in one["answers"]
    }
    told = json.loads((output / "generation.json").read_text())["yield"]
    assert "right" not in told and told["mean_reward_of_the_best"] > told["mean_reward"]
    by_prompt = {str(one["question"]): sorted(answer["score"] for answer in one["answers"]) for one in samples}
    if keep == "best":
        assert len(kept) == 24
        for row in kept:
            prompt, answer = str(row["messages"][:-1]), row["messages"][-1]["content"]
            assert scores[prompt, answer] == by_prompt[prompt][-1]
    elif keep == "pairs":
        assert kept and {len(row["chosen"]) for row in kept} == {1}
        firsts = {str(row["prompt"]): row for row in reversed(kept)}
        for prompt, row in firsts.items():
            assert scores[prompt, row["chosen"][0]["content"]] == by_prompt[prompt][-1]
            assert scores[prompt, row["rejected"][0]["content"]] == by_prompt[prompt][0]
        for row in kept:
            both = [scores[str(row["prompt"]), row[side][0]["content"]] for side in ("chosen", "rejected")]
            assert both[0] > both[1]
    assert "lowest scores" in (output / "dataset" / "README.md").read_text()
