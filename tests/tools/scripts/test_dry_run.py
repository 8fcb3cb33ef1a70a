"""A dry run really runs the script, on a tiny model and a few rows, and says what a job would have died of."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlintern.common.clock import SystemClock
from mlintern.tools.errors import BadInput
from mlintern.tools.hub.client import HubClient
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts import tiny_model as tiny
from mlintern.tools.scripts.checking import ScriptChecker
from mlintern.tools.scripts.dry_run import DryRunner
from mlintern.tools.scripts.dry_settings import SEAM, Constants, dry_settings, small_hyperparameters
from mlintern.tools.scripts.recipe import parse_recipe
from mlintern.tools.scripts.render import render
from mlintern.tools.scripts.script_inputs import DataSource, Materials, Rows, save_as_dataset
from mlintern.tools.scripts.script_results import Check, CheckResult
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.scripts.template_checks import TemplateChecker
from mlintern.tools.workspace import Workspace
from tests.services import tiny_model
from tests.services.hub import HubStandIn, Repo
from tests.tools.scripts.conftest import Materials as Files

pytestmark = pytest.mark.anyio

LONG = 120.0
PLAIN = {"trainer": "sft", "model": "Qwen/Qwen3-0.6B", "dataset": "trl-lib/Capybara"}


class Desk:
    """A store and a checker on one workspace."""

    def __init__(self, workspace: Workspace, **limits: Any) -> None:
        clock = SystemClock()
        self.workspace = workspace
        self.store = ScriptStore(workspace=workspace, ledger=Ledger(workspace.ledger), clock=clock)
        materials = Materials(hub=HubClient())
        template = TemplateChecker(materials=materials)
        self.runner = DryRunner(
            workspace=workspace,
            clock=clock,
            materials=materials,
            python=sys.executable,
            **limits,
        )
        self.checker = ScriptChecker(store=self.store, template=template, runner=self.runner)

    async def dry_run(self, script_id: str, *, wait_seconds: float = LONG) -> CheckResult:
        return await self.checker.check(script_id, level="dry_run", wait_seconds=wait_seconds)

    async def of_recipe(self, recipe: dict[str, Any]) -> CheckResult:
        return await self.dry_run(self.store.render(recipe).script_id)


@pytest.fixture
def desk(workspace: Workspace) -> Desk:
    return Desk(workspace)


def found(result: CheckResult, rule: str) -> Check:
    [check] = [check for check in result.checks if check.rule == rule]
    return check


# Real runs

Recipes = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(materials: Files) -> Recipes:
    def of(trainer: str, **more: Any) -> dict[str, Any]:
        plan = {"dataset": str(materials.questions), "prompt": "{question}"}
        if trainer == "evaluation":
            return {"trainer": trainer, "model": str(materials.model), **plan, **more}
        data = str(getattr(materials, trainer))
        rewards = {"rewards": [{"kind": "exact_match"}]} if trainer == "grpo" else {}
        return {"trainer": trainer, "model": str(materials.model), "dataset": data, **rewards, **more}

    return of


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["sft", "dpo", "grpo", "evaluation"])
async def test_a_script_that_works_passes_and_is_told_what_was_not_seen(
    desk: Desk, recipe: Recipes, trainer: str
) -> None:
    settings = {"grpo": {"hyperparameters": {"use_vllm": True, "num_generations": 8, "bf16": True}}}
    result = await desk.of_recipe(recipe(trainer, **settings.get(trainer, {})))
    assert result.ok and result.status == "checked", result.checks
    note = found(result, "dry_run")
    assert note.severity == "note"
    assert ("4 items" if trainer == "evaluation" else "2 steps, checkpoints") in note.message
    for word in (" s, ", "MiB", "CUDA", "vLLM", "real weights"):
        assert word in note.message


@pytest.mark.slow
async def test_what_each_dataset_of_a_mixture_gives_is_told(desk: Desk, recipe: Recipes, materials: Files) -> None:
    whole = recipe("sft")
    first = {"dataset": whole.pop("dataset")}
    drop = "def keep(row):\n    return False if '1' in str(row) else True"
    second = {"dataset": str(materials.sft), "filter": drop, "weight": 0.2}
    result = await desk.of_recipe({**whole, "datasets": [first, second], "lora": {}})
    assert result.ok, result.checks
    told = found(result, "data").message
    assert f"datasets[0] ({materials.sft}): 64 of 64 rows kept" in told
    assert "tokens" in told and "of its rows stand in datasets[0] too" in told


@pytest.mark.slow
async def test_adapters_held_out_rows_and_the_evaluation_are_tried_and_nothing_is_pushed_or_resumed(
    desk: Desk, recipe: Recipes, materials: Files
) -> None:
    result = await desk.of_recipe(
        recipe(
            "sft",
            lora={},
            validation_rows=20,
            hyperparameters={"eval_strategy": "epoch"},
            evaluation={"dataset": str(materials.questions), "fewshot": 2},
            push_to_hub="me/model",
            resume_from_checkpoint="/of/another/job/checkpoint-5",
        )
    )
    assert result.ok, result.checks
    assert "2 steps, checkpoints, the evaluation" in found(result, "dry_run").message


@pytest.mark.slow
async def test_a_reward_that_raises_is_found_in_its_line(desk: Desk, recipe: Recipes) -> None:
    source = "def right(completions, **columns):\n    return [float(x) for x in columns['solution']]\n"
    given = recipe("grpo", rewards=[{"kind": "python", "source": source}])
    result = await desk.of_recipe(given)
    check = found(result, "dry_run_failed")
    assert not result.ok and "KeyError: 'solution'" in check.message
    lines = render(parse_recipe(given)).text.split("\n")
    assert check.line and "columns['solution']" in lines[check.line - 1]
    assert f"line {check.line}" in check.fix


@pytest.mark.slow
async def test_a_dataset_whose_rows_do_not_fit_together_is_found_with_its_cause(
    desk: Desk, recipe: Recipes, tmp_path: Path
) -> None:
    data = tmp_path / "odd.jsonl"
    rows = [json.dumps({"text": "a"}) for _ in range(40)] + ['{"text": {"a": 1}}', "{broken"]
    data.write_text("\n".join(rows))
    result = await desk.of_recipe(recipe("sft", dataset=str(data)))
    check = found(result, "dry_run_failed")
    assert not result.ok and "The first cause:" in check.message
    assert check.line


@pytest.mark.slow
async def test_arguments_that_only_the_library_refuses_are_found(desk: Desk, recipe: Recipes) -> None:
    result = await desk.of_recipe(recipe("sft", hyperparameters={"lr_scheduler_kwargs": {"no_such": 1}}))
    check = found(result, "dry_run_failed")
    assert "no_such" in check.message and check.line


@pytest.mark.slow
async def test_an_edited_script_is_tried_as_it_stands(desk: Desk, recipe: Recipes) -> None:
    first = desk.store.render(recipe("sft"))
    edited = desk.store.edit(
        script_id=first.script_id, old_text="    set_seed(SEED)\n", new_text="    set_seed(int('NO_SEED'))\n"
    )
    check = found(await desk.dry_run(edited.script_id), "dry_run_failed")
    assert "NO_SEED" in check.message and check.line


@pytest.mark.slow
async def test_a_call_that_ends_first_loses_nothing_and_the_next_one_has_the_result(
    desk: Desk, recipe: Recipes
) -> None:
    script_id = desk.store.render(recipe("sft")).script_id
    first = await desk.dry_run(script_id, wait_seconds=0.0)
    assert (first.status, first.ok) == ("running", False) and "again" in first.note
    second = await Desk(desk.workspace).dry_run(script_id)  # another server on the same workspace
    assert (second.status, second.ok) == ("checked", True)
    assert await desk.dry_run(script_id, wait_seconds=0.0) == second
    with desk.store._ledger.read() as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone()[0] == 0
    assert not (desk.workspace.root / "jobs").exists()


@pytest.mark.slow
async def test_new_rows_in_the_same_file_are_tried_anew(desk: Desk, recipe: Recipes, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "Which"}) + "\n")
    given = recipe("sft", dataset=str(data))
    assert not (await desk.of_recipe(given)).ok
    tiny_model.write_rows(data, tiny_model.sft_rows(20))
    assert (await desk.of_recipe(given)).ok


@pytest.mark.slow
async def test_a_run_without_end_is_ended_and_the_next_call_tries_again(
    workspace: Workspace, recipe: Recipes
) -> None:
    desk = Desk(workspace, limit_seconds=20.0)
    first = desk.store.render(recipe("sft"))
    endless = desk.store.edit(
        script_id=first.script_id,
        old_text="def main() -> None:\n",
        new_text="def main() -> None:\n    print('going round')\n    while True:\n        time.sleep(0.1)\n",
    )
    result = await desk.dry_run(endless.script_id)
    check = found(result, "dry_run_timeout")
    assert not result.ok and "20 s" in check.message and "going round" in check.message
    assert (await desk.dry_run(endless.script_id, wait_seconds=0.0)).status == "running"


@pytest.mark.slow
async def test_a_run_that_takes_all_memory_is_ended(workspace: Workspace, recipe: Recipes) -> None:
    desk = Desk(workspace, memory_limit_gib=0.1)
    result = await desk.of_recipe(recipe("sft"))
    assert not result.ok and "0.10 GiB" in found(result, "dry_run_memory").message


@pytest.mark.slow
async def test_an_architecture_that_nobody_knows_is_no_fault_of_the_script(
    desk: Desk, recipe: Recipes, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "from_next_year"}')
    result = await desk.of_recipe(recipe("sft", model=str(tmp_path / "new")))
    check = found(result, "dry_run_model")
    assert not result.ok and check.message.startswith("Not tried") and "from_next_year" in check.message


@pytest.mark.slow
async def test_the_script_sees_no_secret_and_no_network_when_all_is_local(
    workspace: Workspace, recipe: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    desk = Desk(workspace)
    first = desk.store.render(recipe("sft"))
    names = '["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"]'
    telling = desk.store.edit(
        script_id=first.script_id,
        old_text="def main() -> None:\n",
        new_text=f"def main() -> None:\n    raise SystemExit(str([os.environ.get(name) for name in {names}]))\n",
    )
    check = found(await desk.dry_run(telling.script_id), "dry_run_failed")
    assert "[None, '/dev/null', '1']" in check.message


def serve_model(hub: HubStandIn, name: str, folder: Path) -> None:
    """The weights are served as what no one could load."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".jinja")}
    hub.add(Repo(name, files={**files, "model.safetensors": b"not to be fetched"}))


@pytest.mark.slow
async def test_a_model_and_data_of_the_hub_are_tried_without_the_weights(
    desk: Desk, recipe: Recipes, hub: HubStandIn, materials: Files
) -> None:
    serve_model(hub, "org/served", materials.model)
    hub.add(Repo("org/data", kind="dataset", files={"data/train.jsonl": materials.sft.read_bytes()}))
    result = await desk.of_recipe(recipe("sft", model="org/served", dataset="org/data"))
    assert result.ok, result.checks


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["grpo", "generate"])
async def test_a_reward_model_is_not_loaded_and_that_is_said(
    desk: Desk, recipe: Recipes, hub: HubStandIn, materials: Files, trainer: str
) -> None:
    serve_model(hub, "org/large-reward", materials.model)
    if trainer == "grpo":
        given = recipe("grpo", rewards=[{"kind": "reward_model", "model": "org/large-reward"}, "length"])
    else:
        given = {"trainer": "generate", "model": str(materials.model), "prompts": ["hello", "world"], "samples": 2}
        given |= {"verifier": "reward_model", "reward_model": "org/large-reward", "keep": "best"}
    result = await desk.of_recipe(given)
    assert result.ok, result.checks
    assert "place of org/large-reward" in found(result, "dry_run").message


# What needs no run


def test_models_beside_the_trained_one_are_replaced_as_well(tmp_path: Path) -> None:
    rewards = [{"kind": "reward_model", "model": name} for name in ("org/one", "org/two")]
    teacher = {**PLAIN, "trainer": "distillation", "teacher": "org/teacher"}
    for given, names in (
        ({**PLAIN, "trainer": "grpo", "rewards": rewards}, ["REWARD_MODEL", "REWARD_MODEL_2"]),
        (teacher, ["TEACHER"]),
        (PLAIN, []),
    ):
        constants = Constants.of(render(parse_recipe(given)).text)
        assert constants is not None
        changed = dry_settings(constants, model=tmp_path, data={})
        assert [name for name in ("REWARD_MODEL", "REWARD_MODEL_2", "TEACHER") if name in changed] == names
        assert all(changed[name] == str(tmp_path) for name in names)


async def test_a_gated_model_is_named_and_is_no_pass(desk: Desk, hub: HubStandIn) -> None:
    hub.add(Repo("org/locked", files={"config.json": b"{}"}, access="gated"))
    result = await desk.of_recipe({**PLAIN, "model": "org/locked"})
    check = found(result, "tokenizer_unavailable")
    assert not result.ok and "gated" in check.message and "HF_TOKEN" in check.fix


async def test_data_that_cannot_be_had_is_named_and_is_no_pass(desk: Desk, hub: HubStandIn, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    result = await desk.of_recipe({**PLAIN, "model": str(tmp_path / "m"), "dataset": "org/none"})
    assert not result.ok and "org/none" in found(result, "data_unavailable").message


async def test_without_a_network_the_check_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, hub: HubStandIn
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = await desk.of_recipe(PLAIN)
    check = found(result, "tokenizer_unavailable")
    assert not result.ok and check.message.startswith("Not checked") and "reached" in check.message


async def test_a_script_without_the_variable_is_told_the_lines_to_add(desk: Desk) -> None:
    mine = desk.store.edit(code="print('hello')\n")
    result = await desk.dry_run(mine.script_id)
    assert not result.ok and SEAM in found(result, "dry_run_seam").fix
    assert desk.checker.to_be_run(mine.script_id) is None


async def test_a_script_with_errors_is_not_run(desk: Desk) -> None:
    mine = desk.store.edit(code=f"import json, os\n{SEAM}\n= 3\n")
    result = await desk.dry_run(mine.script_id)
    assert not result.ok and "Correct the errors first" in result.note
    assert desk.checker.to_be_run(mine.script_id) is None


async def test_an_unknown_level_is_refused_by_name(desk: Desk) -> None:
    mine = desk.store.edit(code="print('hello')\n")
    with pytest.raises(BadInput, match="Available: static, template, dry_run"):
        await desk.checker.check(mine.script_id, level="deep")


def test_what_needs_a_gpu_or_takes_long_is_replaced_and_the_rest_stays() -> None:
    given = {"learning_rate": 3e-4, "use_vllm": True, "bf16": True, "optim": "adamw_8bit", "num_generations": 16}
    small = small_hyperparameters(given, "GRPOConfig")
    assert small["learning_rate"] == 3e-4
    assert (small["use_vllm"], small["bf16"], small["optim"]) == (False, False, "adamw_torch")
    assert (small["num_generations"], small["max_steps"], small["max_completion_length"]) == (2, 2, 16)
    assert "num_generations" not in small_hyperparameters({}, "SFTConfig")


def test_only_constants_that_a_script_has_are_replaced() -> None:
    lora = {"layers_to_transform": [20], "target_modules": ["q_proj"]}
    text = render(parse_recipe({**PLAIN, "push_to_hub": "me/x", "lora": lora})).text
    constants = Constants.of(text)
    assert constants is not None
    settings = dry_settings(constants, model=Path("/tiny"), data={"DATASET": Path("/copy")})
    assert (settings["MODEL"], settings["DATASET"], settings["PUSH_TO_HUB"]) == ("/tiny", "/copy", None)
    assert "layers_to_transform" not in settings["LORA"]
    assert "EVALUATION_LIMIT" not in settings and "CHECKPOINT" not in settings


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"model": "org/m"}, True),
        ({"dataset": "org/d"}, True),
        ({"hyperparameters": {"chat_template_path": "org/m"}}, True),
    ],
)
def test_the_network_is_left_on_only_for_what_the_hub_has(more: dict[str, Any], expected: bool) -> None:
    recipe = {"trainer": "sft", "model": "/a/model", "dataset": "/a/rows.jsonl", **more}
    constants = Constants.of(render(parse_recipe(recipe)).text)
    assert constants is not None and constants.uses_hub is expected


def test_a_small_configuration_keeps_the_vocabulary_and_one_layer_of_each_kind() -> None:
    config = {
        "model_type": "x",
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "num_hidden_layers": 6,
        "layer_types": ["sliding"] * 5 + ["full"],
        "num_attention_heads": 32,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6, "short_factor": [1.0] * 64},
        "quantization_config": {"quant_method": "fp8"},
        "dtype": "bfloat16",
        "text_config": {"hidden_size": 2048, "num_hidden_layers": 3},
    }
    small = tiny.shrink(config)
    assert (small["vocab_size"], small["hidden_size"], small["num_key_value_heads"]) == (151_936, 32, 1)
    assert (small["num_hidden_layers"], small["layer_types"]) == (2, ["sliding", "full"])
    assert small["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6}
    assert "quantization_config" not in small and small["dtype"] == "float32"
    assert small["text_config"] == {"hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_a_copy_of_hub_rows_loads_under_the_names_that_the_recipe_gives(tmp_path: Path, form: str) -> None:
    datasets = pytest.importorskip("datasets")
    source = DataSource("org/data", "all", "train[:50%]+test", "v1")
    rows = Rows([{"text": 'a, "b"\n', "n": 1}, {"text": "c", "n": 2}], form)
    folder = save_as_dataset(rows, source, tmp_path / "copy")
    loaded = datasets.load_dataset(str(folder), "all", split="train[:50%]+test", revision=None)
    assert loaded[0] == {"text": 'a, "b"\n', "n": 1} and len(loaded) == 3
