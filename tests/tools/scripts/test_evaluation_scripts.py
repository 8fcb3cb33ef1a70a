"""The evaluation script measures what it says, the same each time, and writes what read_eval reads."""

from __future__ import annotations

import base64
import csv
import gzip
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.telemetry_marks import MARK
from tests.services import tiny_model
from tests.tools.scripts.conftest import Materials, Run

pytestmark = pytest.mark.slow


@pytest.fixture
def script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, materials: Materials
) -> Callable[..., tuple[ModuleType, Path]]:
    """Import a rendered evaluation script (so that torch is imported once), with an output folder of its own."""
    count = 0

    def import_script(**recipe: Any) -> tuple[ModuleType, Path]:
        nonlocal count
        count += 1
        output = tmp_path / f"output-{count}"
        monkeypatch.setenv("MLINTERN_OUTPUT_DIR", str(output))
        path = tmp_path / f"script_{count}.py"
        full = {
            "trainer": "evaluation",
            "model": str(materials.model),
            "dataset": str(materials.questions),
            "prompt": "{question}",
            "batch_size": 32,
            "max_new_tokens": 4,
            "use_cpu": True,
            **recipe,
        }
        path.write_text(render(parse_recipe(full)).text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module, output

    return import_script


def samples(output: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    return {row["id"]: row for row in rows}


def result(output: Path, metric: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads((output / "evaluation.json").read_text())["rows"]
    return next(row for row in rows if row["metric"] == metric)


def brute_force(model: Path, prompt: str, options: list[str]) -> list[float]:
    """log p(option | prompt), one forward pass an option, without padding."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32").eval()
    given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    scores = []
    for option in options:
        whole = given + tokenizer(option, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            table = network(torch.tensor([whole])).logits[0].log_softmax(-1)
        scores.append(sum(table[place - 1, whole[place]].item() for place in range(len(given), len(whole))))
    return scores


def test_an_untrained_model_with_ten_options_stands_at_chance(
    run: Callable[[Mapping[str, Any]], Run], materials: Materials
) -> None:
    done = run(
        {
            "trainer": "evaluation",
            "model": str(materials.model),
            "dataset": str(materials.questions),
            "prompt": "{question}",
            "task": "largest",
        }
    )
    assert done.code == 0, done.log[-3000:]
    assert done.marked == done.rows
    assert [row["kind"] for row in done.rows] == ["begin", "metrics", "evaluation", "end"]
    begin, end = done.rows[0], done.rows[-1]
    assert (begin["trainer"], begin["total_steps"], begin["script"]) == ("evaluation", 200, "evaluation-model")
    assert (end["status"], end["step"], end["model_path"]) == ("completed", 200, None)
    evaluation = done.of_kind("evaluation")[0]["evaluation"]
    assert evaluation == json.loads((done.output / "evaluation.json").read_text())
    assert (evaluation["mlintern_evaluation"], evaluation["suite"], evaluation["task"]) == (1, "mlintern", "largest")
    accuracy, exact = evaluation["rows"]
    assert (accuracy["metric"], accuracy["filter"], accuracy["n"]) == ("accuracy", "likelihood", 200)
    assert abs(accuracy["value"] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 200)
    assert accuracy["stderr"] == pytest.approx(math.sqrt(accuracy["value"] * (1 - accuracy["value"]) / 200))
    assert (exact["metric"], exact["filter"]) == ("exact_match", "greedy")
    rows = samples(done.output)
    assert set(rows) == {f"item-0-{index}" for index in range(200)}
    assert sum(row["accuracy"] for row in rows.values()) / 200 == pytest.approx(accuracy["value"])


def test_where_only_the_log_is_kept_the_samples_are_printed_before_the_result_that_they_belong_to(
    script: Callable[..., tuple[ModuleType, Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLINTERN_SAMPLES", "log")
    module, output = script(limit=5)
    module.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(MARK)]
    printed = [json.loads(line.removeprefix(MARK)) for line in lines]
    assert [row["kind"] for row in printed] == ["begin", "metrics", "samples", "evaluation", "end"]
    assert gzip.decompress(base64.b64decode(printed[2]["data"])) == (output / "samples.jsonl").read_bytes()
    said = printed[3]["samples"]
    assert (said["form"], said["rows"], said["sha256"]) == ("whole", 5, printed[2]["sha256"])
    written = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert written == [row for row in printed if row["kind"] != "samples"]


def test_predictions_are_the_options_that_a_plain_computation_finds_likeliest(
    script: Callable[..., tuple[ModuleType, Path]], materials: Materials
) -> None:
    module, output = script(limit=20)
    module.main()
    items = {item["id"]: item for item in tiny_model.questions(200)}
    rows = samples(output)
    assert len(rows) == 20
    for name, row in rows.items():
        prompt = f"<|user|> {items[name]['question']} <|end|> <|assistant|>"
        scores = brute_force(materials.model, prompt, list(tiny_model.LETTERS))
        assert row["prediction"] == tiny_model.LETTERS[scores.index(max(scores))]
        assert row["target"] == tiny_model.LETTERS[items[name]["answer"]]
        assert row["accuracy"] == float(row["prediction"] == row["target"])


def test_options_of_several_tokens_are_scored_by_the_sum_over_their_tokens(
    script: Callable[..., tuple[ModuleType, Path]], materials: Materials, tmp_path: Path
) -> None:
    choices = ["A 24 B", "C", "A 24 C", "51 52", "A"]
    data = tmp_path / "long.jsonl"
    items = [
        {"question": "Which is largest ?" + " 24" * index, "choices": choices, "answer": "C"} for index in range(7)
    ]
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    module, _ = script(dataset=str(data), batch_size=3)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(materials.model)
    model = AutoModelForCausalLM.from_pretrained(materials.model, dtype="float32").eval()
    prompts = [f"<|user|> {item['question']} <|end|> <|assistant|>" for item in items]
    pairs = [module.split(f"{prompt} ", choice, tokenizer, True) for prompt in prompts for choice in choices]
    scores = module.log_likelihoods(model, tokenizer, pairs)
    expected = [score for prompt in prompts for score in brute_force(materials.model, prompt, choices)]
    assert scores == pytest.approx(expected, abs=1e-4)


def test_measuring_twice_gives_the_same_rows_and_the_batch_size_does_not_matter(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    outputs = []
    for size in (7, 7, 64):
        module, output = script(limit=60, batch_size=size)
        module.main()
        outputs.append(samples(output))
    assert outputs[0] == outputs[1]
    assert outputs[0] == outputs[2]


def test_letters_are_scored_where_the_prompt_shows_the_choices(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    data = tmp_path / "texts.csv"
    with data.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "choices", "answer"])
        writer.writerow(["Which {choices} is largest ?", json.dumps(["24", "51", "33"]), "b"])
        writer.writerow(["Which is largest ?", json.dumps(["24", "51", "33"]), "2"])
        writer.writerow(["Which is largest ?", json.dumps(["24", "51", "33"]), "24"])
    module, _ = script(dataset=str(data), prompt=None)
    items, examples = module.read_items()
    assert examples == []
    assert [item.target for item in items] == ["B", "C", "A"]
    assert items[0].question == "Which {choices} is largest ?\nA. 24\nB. 51\nC. 33\nAnswer:"
    assert items[0].options == ["A", "B", "C"]
    assert len({item.id for item in items}) == 3


def test_worked_examples_come_first_and_are_not_scored(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    from transformers import AutoTokenizer

    module, output = script(fewshot=2, limit=10, system="Be brief.")
    items, examples = module.read_items()
    assert len(items) == 10 and len(examples) == 2
    assert not {item.id for item in items} & {example.id for example in examples}
    tokenizer = AutoTokenizer.from_pretrained(module.MODEL)
    chat, _ = module.prompt_of(items[0], examples, tokenizer, True)
    assert chat.startswith("<|system|> Be brief. <|end|> <|user|>") and chat.endswith("<|assistant|>")
    assert f"<|assistant|> {examples[0].target} <|end|>" in chat
    plain, between = module.prompt_of(items[0], examples, tokenizer, False)
    assert between == " " and plain.startswith(f"{examples[0].question} {examples[0].target}\n\n")
    module.main()
    assert json.loads((output / "evaluation.json").read_text())["fewshot"] == 2


def test_a_model_without_a_chat_template_is_asked_in_plain_text(
    script: Callable[..., tuple[ModuleType, Path]], materials: Materials
) -> None:
    module, output = script(chat_template=False, limit=5)
    module.main()
    items = {item["id"]: item for item in tiny_model.questions(200)}
    for name, row in samples(output).items():
        scores = brute_force(materials.model, items[name]["question"], list(tiny_model.LETTERS))
        assert row["prediction"] == tiny_model.LETTERS[scores.index(max(scores))]


def test_exact_match_compares_what_the_pattern_extracts(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    data = tmp_path / "free.jsonl"
    data.write_text(
        json.dumps({"question": [{"role": "user", "content": "Which ?"}], "answer": "so #### 24 "}) + "\n"
    )
    module, output = script(
        dataset=str(data), kind="exact_match", extract=r"#### (.*)", ignore_case=True, chat_template=True
    )
    (item,), _ = module.read_items()
    assert item.target == "24" and module.extract("no mark ") == "no mark"
    module.main()
    (row,) = samples(output).values()
    assert {"question", "prompt", "answer", "extracted", "target", "finish_reason", "exact_match"} <= set(row)
    assert (row["extracted"], row["exact_match"]) == (None, 0.0)
    assert (result(output, "exact_match")["n"], result(output, "exact_match")["no_answer"]) == (1, 1.0)


@pytest.mark.parametrize("answer", ["K", 10, -1, "maybe", "AB", "", None])
def test_an_answer_that_is_none_of_the_choices_stops_the_script(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path, answer: Any
) -> None:
    data = tmp_path / "wrong.jsonl"
    data.write_text(json.dumps({"question": "?", "choices": list("ABCDEFGHIJ"), "answer": answer}) + "\n")
    module, _ = script(dataset=str(data))
    with pytest.raises(SystemExit, match="none of the choices"):
        module.read_items()


def test_chat_messages_do_not_fit_a_prompt_with_text_around_them(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    data = tmp_path / "chat.jsonl"
    item = {"question": [{"role": "user", "content": "Which ?"}], "choices": ["24", "51"], "answer": 0}
    data.write_text(json.dumps(item) + "\n")
    module, _ = script(dataset=str(data), prompt=None)
    with pytest.raises(SystemExit, match="need the prompt"):
        module.read_items()


def test_numbers_that_come_as_tensors_are_reported_as_numbers(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    import torch

    module, output = script()
    output.mkdir()
    module.report("metrics", values={"a": torch.tensor(float("nan")), "b": [math.inf, -math.inf, 1.5]})
    row = json.loads((output / "metrics.jsonl").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert row["values"] == {"a": "NaN", "b": ["Infinity", "-Infinity", 1.5]}


def test_a_model_whose_weights_are_nan_is_not_given_a_score(
    script: Callable[..., tuple[ModuleType, Path]], materials: Materials
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module, output = script(limit=5)
    output.mkdir()
    model = AutoModelForCausalLM.from_pretrained(materials.model, dtype="float32")
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(SystemExit, match="weights are lost"):
        module.evaluate(model, AutoTokenizer.from_pretrained(materials.model), "lost", *module.read_items())
    assert not (output / "evaluation.json").exists()


def test_a_penalty_that_the_model_was_saved_with_does_not_change_the_greedy_answer(
    script: Callable[..., tuple[ModuleType, Path]], materials: Materials
) -> None:
    """Qwen2.5 and others ship one in generation_config.json; what is meant is the likeliest token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module, _ = script()
    tokenizer = AutoTokenizer.from_pretrained(materials.model)
    prompts = [item["question"] for item in tiny_model.questions(20)]
    answers = []
    for penalty in (1.0, 50.0):
        model = AutoModelForCausalLM.from_pretrained(materials.model, dtype="float32").eval()
        model.generation_config.repetition_penalty = penalty
        written = module.write_answers(model, tokenizer, prompts, False, 4)
        answers.append([answer.text for (answer,) in written])
    assert answers[0] == answers[1]


def test_numbers_with_thousands_separators_are_the_same_numbers(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    data = tmp_path / "numbers.jsonl"
    data.write_text(json.dumps({"question": "?", "answer": "so #### 1,002"}) + "\n")
    module, _ = script(dataset=str(data), kind="exact_match", extract=r"#### (.+)")
    (item,), _ = module.read_items()
    answers = [
        "#### 1002",
        "#### 1,002.0",
        "#### $1,002",
        "#### \u20ac1,002",
        "#### 1,02",
        "#### 10,02",
        "1002",
        "#### ",
    ]
    scores = [module.judged(item, [module.Written(text, "stop", 1)])["exact_match"] for text in answers]
    assert scores == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert module.plain_number("\u22121,002") == module.plain_number("-1002"), "a minus sign is one, hyphen or not"


def test_worked_examples_keep_their_reasoning_and_come_from_another_file(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    rows = [{"question": f"{number} + 1 ?", "answer": f"add one #### {number + 1}"} for number in range(9)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[4:]))
    module, _ = script(
        dataset=str(tmp_path / "test.jsonl"),
        fewshot_dataset=str(tmp_path / "shown.jsonl"),
        fewshot=5,
        kind="exact_match",
        extract=r"#### (.+)",
    )
    items, examples = module.read_items()
    assert len(items) == 4  # the fifth is shown, so it is not asked
    assert all(example.shown.startswith("add one #### ") for example in examples)
    from transformers import AutoTokenizer

    prompt, _ = module.prompt_of(items[0], examples, AutoTokenizer.from_pretrained(module.MODEL), True)
    assert prompt.count("add one ####") == 5


def test_an_answer_may_be_as_long_as_the_options_and_the_right_answers_are(
    script: Callable[..., tuple[ModuleType, Path]], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    module, output = script(max_new_tokens=None, limit=8)
    items, _ = module.read_items()
    tokenizer = AutoTokenizer.from_pretrained(module.MODEL)
    assert module.longest_answer(items, tokenizer, True) == 3
    module.main()
    document = json.loads((output / "evaluation.json").read_text())
    assert document["environment"]["max_new_tokens"] == 3
    assert all(row["tokens"] <= 3 for row in samples(output).values())
    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"question": "?", "answer": "A " * 30 + "#### B"}) + "\n")
    module, _ = script(dataset=str(data), max_new_tokens=None, kind="exact_match", extract="#### (.+)")
    items, _ = module.read_items()
    assert module.longest_answer(items, tokenizer, True) == 32 + 256
    tokenizer.chat_template = tokenizer.chat_template + "{# <think> #}"
    assert module.longest_answer(items, tokenizer, True) == 32 + 8192


def test_the_result_says_how_it_was_measured_and_by_what(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    documents = []
    for changes in ({}, {"batch_size": 7}, {"system": "Be brief."}, {"max_new_tokens": 5}, {"chat_template": False}):
        module, output = script(limit=6, **changes)
        module.main()
        documents.append(json.loads((output / "evaluation.json").read_text()))
    first, again, *others = [document["protocol"] for document in documents]
    assert first == again
    changed = [{key for key in first if first[key] != other[key]} for other in others]
    assert changed == [{"system"}, {"max_new_tokens"}, {"chat_template"}]
    environment = documents[0]["environment"]
    assert (environment["engine"], environment["dtype"]) == ("transformers", "float32")
    assert {"torch", "transformers"} <= environment["versions"].keys()


def test_several_answers_give_their_mean_the_chance_of_one_and_the_majority(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    module, output = script(kind="exact_match", samples=4, temperature=1.0, prepare=LETTER, limit=12)
    module.main()
    rows = list(samples(output).values())
    for row in rows:
        right = sum(one["score"] for one in row["answers"])
        assert len(row["answers"]) == 4
        assert row["avg@4"] == row["pass@1"] == right / 4
        assert row["pass@4"] == float(right > 0)
    metrics = ["avg@4", "pass@1", "pass@2", "pass@4", "maj@4"]
    document = json.loads((output / "evaluation.json").read_text())
    assert [row["metric"] for row in document["rows"]] == metrics
    for metric in metrics:
        assert result(output, metric)["value"] == pytest.approx(sum(row[metric] for row in rows) / 12)
        assert result(output, metric)["n"] == 12  # items, not answers
    assert module.pass_at(2, 4, 1) == 0.5
    first = {name: row["answers"] for name, row in samples(output).items()}
    module, output = script(kind="exact_match", samples=4, temperature=1.0, prepare=LETTER, limit=12)
    module.main()
    assert {name: row["answers"] for name, row in samples(output).items()} == first


def test_a_stopped_evaluation_goes_on_where_it_stood_and_one_of_other_settings_starts_anew(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    module, output = script(limit=40, batch_size=2)
    module.main()
    whole = samples(output)
    lines = (output / "samples.jsonl").read_bytes().splitlines(keepends=True)

    def stopped() -> None:
        (output / "samples.jsonl").write_bytes(b"".join(lines[:20]) + lines[20][:30])
        (output / "evaluation.json").unlink()

    asked = []
    part = module.score_part
    module.score_part = lambda model, tokenizer, items, *more: (
        asked.extend(items) or part(model, tokenizer, items, *more)
    )
    stopped()
    module.main()
    assert len(asked) == 20
    assert samples(output) == whole
    asked.clear()
    stopped()
    module.SYSTEM = "Be brief."
    module.main()
    assert len(asked) == 40


def test_rows_for_which_prepare_returns_nothing_are_not_asked_and_counted(
    script: Callable[..., tuple[ModuleType, Path]],
) -> None:
    few = "def prepare(row):\n    return None if row['answer'] > 6 else {'mark': row['answer']}\n"
    module, output = script(prepare=few, limit=None)
    output.mkdir()
    items, _ = module.read_items()
    told = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    assert told["kind"] == "items" and told["loaded"] == 200
    assert len(items) == told["kept"] == 200 - told["left_out"] < 200
    module, output = script(prepare="def prepare(row):\n    return None\n")
    output.mkdir()
    with pytest.raises(SystemExit, match="leaves out all of 200 rows"):
        module.read_items()


LETTER = "def prepare(row):\n    return {**row, 'answer': 'ABCDEFGHIJ'[row['answer']]}\n"
