"""Level `template`: the first rows as the model would read them, and everything that is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.hub.client import HubClient
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.checking import ScriptChecker
from mlintern.tools.scripts.dry_run import DryRunner
from mlintern.tools.scripts.script_inputs import Materials
from mlintern.tools.scripts.script_results import Check, CheckResult
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.scripts.template_checks import TemplateChecker
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.services.hub import HubStandIn, Repo

pytestmark = pytest.mark.anyio

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_MARKERS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "INSIDE{% endgeneration %}OUTSIDE{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
)
GOOD_MARKERS = WITH_MARKERS.replace("INSIDE", "<|im_end|>").replace("OUTSIDE", "")
BAD_MARKERS = WITH_MARKERS.replace("INSIDE", "").replace("OUTSIDE", "<|im_end|>")
NO_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
REFUSES = (
    "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('no bad words') }}{% endif %}{% endfor %}"
)
THINKS = CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TALK = {"messages": [user("hello there"), assistant("good day")]}
PAIR = {"prompt": [user("hello there")], "completion": [assistant("good day")]}
CHOICE = {"prompt": [user("hello")], "chosen": [assistant("good")], "rejected": [assistant("bad")]}


class Desk:
    """Makes models and data, and checks recipes over them."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        clock = FakeClock()
        materials = Materials(hub=HubClient())
        self.folder = folder
        self.store = ScriptStore(workspace=workspace, ledger=Ledger(workspace.ledger), clock=clock)
        self.checker = ScriptChecker(
            store=self.store,
            template=TemplateChecker(materials=materials),
            runner=DryRunner(workspace=workspace, clock=clock, materials=materials),
        )

    def model(self, template: str | None = CHATML, *, eos: str = "<|im_end|>", context: int = 2048) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers

        folder = self.folder / "model"
        folder.mkdir(exist_ok=True)
        words = ["<unk>", "<|im_end|>", "hello", "there", "good", "day"]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {"eos_token": eos, **({"chat_template": template} if template else {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": context}))
        return folder

    def data(self, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    async def check(
        self, rows: list[dict[str, Any]], *, trainer: str = "sft", model: Path | None = None, **more: Any
    ) -> CheckResult:
        rewards: dict[str, Any] = {}
        if trainer in ("grpo", "rloo", "online_dpo"):
            rewards = {"rewards": [{"kind": "pattern", "pattern": "x"}]}
        if trainer in ("gkd", "distillation"):
            rewards = {"teacher": str(model or self.model())}
        recipe = {"trainer": trainer, "model": str(model or self.model()), "dataset": str(self.data(rows))}
        return await self.of({**recipe, **rewards, **more})

    async def of(self, recipe: dict[str, Any]) -> CheckResult:
        return await self.checker.check(self.store.render(recipe).script_id, level="template")


@pytest.fixture
def desk(workspace: Workspace, tmp_path: Path) -> Desk:
    pytest.importorskip("tokenizers")
    return Desk(workspace, tmp_path)


def found(result: CheckResult, rule: str) -> Check:
    [check] = [check for check in result.checks if check.rule == rule]
    return check


def rules(result: CheckResult) -> set[str]:
    return {check.rule for check in result.checks}


@pytest.mark.parametrize(
    ("trainer", "row"),
    [
        ("sft", TALK),
        ("sft", PAIR),
        ("sft", {"text": "hello there"}),
        ("sft", {"prompt": "hello ", "completion": "there"}),
        ("dpo", CHOICE),
        ("dpo", {"chosen": [user("hello"), assistant("a")], "rejected": [user("hello"), assistant("b")]}),
        ("grpo", {"prompt": [user("hello there")]}),
        ("grpo", {"prompt": "hello there"}),
        ("rloo", {"prompt": "hello there"}),
        ("online_dpo", {"prompt": [user("hello there")]}),
        ("distillation", {"prompt": [user("hello there")]}),
        ("gkd", TALK),
        ("orpo", CHOICE),
        ("cpo", CHOICE),
        ("kto", {**PAIR, "label": True}),
        ("kto", {"prompt": "hello ", "completion": "there", "label": False}),
        ("kto", CHOICE),
        ("reward", CHOICE),
        ("reward", {"chosen": "hello there", "rejected": "good day"}),
        ("reward", {"chosen": [user("hello"), assistant("a")], "rejected": [user("hello"), assistant("b")]}),
    ],
)
async def test_sound_rows_pass_and_it_is_said_how_many_were_seen(
    desk: Desk, trainer: str, row: dict[str, Any]
) -> None:
    result = await desk.check([row] * 8, trainer=trainer)
    assert result.ok and rules(result) == {"template"}, result.checks
    note = found(result, "template").message
    assert "first 8 rows" in note and "longest" in note


async def test_a_row_that_the_template_refuses_is_named(desk: Desk) -> None:
    rows = [TALK, TALK, {"messages": [user("bad"), assistant("x")]}]
    result = await desk.check(rows, model=desk.model(REFUSES + CHATML))
    check = found(result, "template_raises")
    assert not result.ok and "row 2" in check.message and "no bad words" in check.message


async def test_a_template_that_nothing_can_be_rendered_with_is_an_error(desk: Desk) -> None:
    result = await desk.check([TALK], model=desk.model("{% for m in %}"))
    assert not result.ok and "at all" in found(result, "template_raises").message


async def test_a_prompt_that_is_rendered_otherwise_when_alone_is_shown_where_it_differs(desk: Desk) -> None:
    result = await desk.check([PAIR], model=desk.model(THINKS))
    check = found(result, "prompt_not_prefix")
    assert "'<think>" in check.message and "'good day" in check.message


@pytest.mark.parametrize(
    ("trainer", "row"),
    [
        ("kto", {"instruction": "say what is good", "completion": "hello", "prompt": "", "label": True}),
        ("reward", {"question": "say what is good", "chosen": "hello", "rejected": "there"}),
        ("orpo", {**CHOICE, "system": "say what is good"}),
        ("distillation", {"prompt": [user("hello")], "context": "say what is good"}),
        ("rloo", {"prompt": [user("hello")], "context": "say what is good"}),
        ("gkd", {**TALK, "system": "say what is good"}),
    ],
)
async def test_every_trainer_has_an_account_of_content(desk: Desk, trainer: str, row: dict[str, Any]) -> None:
    result = await desk.check([row] * 8, trainer=trainer)
    lost = found(result, "content_lost")
    assert "8 of 8 rows" in lost.message and "say what is good" in lost.message
    assert not result.ok


async def test_each_dataset_of_a_mixture_is_looked_at_with_its_own_prepare(desk: Desk) -> None:
    talks = desk.data([TALK, TALK], "talks.jsonl")
    asked = desk.data([{"q": "hello", "a": "there", "context": "good day to you"}] * 3, "asked.jsonl")
    prepare = (
        'def prepare(row):\n    return {"messages": [{"role": "user", "content": row["q"]}, '
        '{"role": "assistant", "content": row["a"]}]}'
    )
    recipe = {"trainer": "sft", "model": str(desk.model())}
    parts: list[dict[str, Any]] = [
        {"dataset": str(talks)},
        {"dataset": str(asked), "prepare": prepare, "weight": 0.2},
    ]
    result = await desk.of({**recipe, "datasets": parts})
    lost = found(result, "content_lost")
    assert lost.message.startswith(f"datasets[1] ({asked}): `context`")
    assert [check.message.partition(" ")[0] for check in result.checks if check.rule == "template"] == [
        "datasets[0]",
        "datasets[1]",
    ]
    parts[1]["prepare"] = 'def prepare(row):\n    return {"text": row["q"] + row["a"] + row["context"]}'
    result = await desk.of({**recipe, "datasets": parts})
    assert "datasets[0] has messages; datasets[1] has text" in found(result, "mixture_columns").message
    assert not result.ok


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
async def test_an_answer_that_does_not_end_with_the_eos_token_is_found(desk: Desk, trainer: str) -> None:
    model = desk.model(eos="<|endoftext|>")
    result = await desk.check([TALK if trainer == "sft" else CHOICE], trainer=trainer, model=model)
    check = found(result, "stop_not_trained")
    assert "<|im_end|>" in check.message and "<|endoftext|>" in check.message


async def test_the_eos_token_of_the_recipe_counts(desk: Desk) -> None:
    model = desk.model(eos="<|endoftext|>")
    result = await desk.check([TALK], model=model, hyperparameters={"eos_token": "<|im_end|>"})
    assert "stop_not_trained" not in rules(result)


async def test_assistant_only_loss_needs_markers(desk: Desk) -> None:
    settings = {"assistant_only_loss": True}
    without = await desk.check([TALK], hyperparameters=settings)
    assert found(without, "generation_markers").severity in ("error", "warning")
    good = await desk.check([TALK], model=desk.model(GOOD_MARKERS), hyperparameters=settings)
    assert rules(good) == {"template"}
    bad = await desk.check([TALK], model=desk.model(BAD_MARKERS), hyperparameters=settings)
    assert "assistant_only_loss" in found(bad, "stop_not_trained").message


async def test_a_template_that_trl_mends_needs_no_markers(desk: Desk) -> None:
    trl = pytest.importorskip("trl")
    known = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    mended = await desk.check([TALK], model=desk.model(known), hyperparameters={"assistant_only_loss": True})
    assert "generation_markers" not in rules(mended)
    unknown = await desk.check([TALK], hyperparameters={"assistant_only_loss": True})
    assert not unknown.ok and found(unknown, "generation_markers").severity == "error"


async def test_system_messages_that_the_template_drops_are_found(desk: Desk) -> None:
    rows = [TALK, {"messages": [{"role": "system", "content": "be kind"}, *TALK["messages"]]}]
    result = await desk.check(rows, model=desk.model(NO_SYSTEM))
    assert not result.ok and found(result, "system_role").message.startswith("Row 1 has")
    assert "system_role" not in rules(await desk.check([TALK], model=desk.model(NO_SYSTEM)))


async def test_tools_that_the_template_drops_are_found(desk: Desk) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    result = await desk.check([{**TALK, "tools": json.dumps([tool])}])
    assert not result.ok and "tools" in found(result, "tool_calls").message
    assert "tool_calls" not in rules(await desk.check([{**TALK, "tools": "[]"}]))


async def test_speakers_that_the_template_drops_are_found(desk: Desk) -> None:
    known = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role in ['user', 'assistant'] %}")
    rows = [{"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good"}]}]
    result = await desk.check(rows, model=desk.model(known))
    assert "'human'" in found(result, "unknown_role").message


async def test_the_share_of_rows_that_are_cut_is_told_with_what_they_lose(desk: Desk) -> None:
    long = {"messages": [user("hello " * 40), assistant("good")]}
    result = await desk.check([TALK, TALK, TALK, long], hyperparameters={"max_length": 16})
    check = found(result, "truncation")
    assert check.severity == "warning" and "25% of 4 rows" in check.message and "stop token" in check.message
    assert "truncation" not in rules(await desk.check([TALK, long], hyperparameters={"max_length": None}))


async def test_rows_whose_prompt_alone_is_too_long_are_found(desk: Desk) -> None:
    long = {"prompt": [user("hello " * 40)], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    some = await desk.check([CHOICE, long], trainer="dpo", hyperparameters={"max_length": 16})
    assert some.ok and found(some, "prompt_too_long").severity == "warning"
    all_rows = await desk.check([long], trainer="dpo", hyperparameters={"max_length": 16})
    assert not all_rows.ok and "drops" in found(all_rows, "prompt_too_long").message


async def test_grpo_prompts_must_leave_room_for_a_completion(desk: Desk) -> None:
    short, long = ({"prompt": [user("hello" + " hello" * more)]} for more in (0, 89))
    rows = [short, long, short, short]
    model = desk.model(context=128)
    result = await desk.check(rows, trainer="grpo", model=model, hyperparameters={"max_completion_length": 64})
    check = found(result, "prompt_too_long")
    assert not result.ok and check.message.startswith("Row 1:") and "128" in check.message
    fits = await desk.check(rows, trainer="grpo", model=model, hyperparameters={"max_completion_length": 16})
    assert fits.ok


@pytest.mark.parametrize(
    ("trainer", "row"),
    [
        ("sft", {"messages": [user("hello"), assistant("  ")]}),
        ("sft", {"prompt": [user("hello")], "completion": [assistant("")]}),
        ("sft", {"prompt": "hello", "completion": ""}),
        ("sft", {"text": " "}),
        ("dpo", {**CHOICE, "rejected": [assistant("")]}),
    ],
)
async def test_answers_that_say_nothing_are_counted(desk: Desk, trainer: str, row: dict[str, Any]) -> None:
    alone = await desk.check([row], trainer=trainer)
    assert not alone.ok and "says nothing" in found(alone, "empty_answer").message


async def test_a_few_empty_answers_are_a_warning_with_the_first_row(desk: Desk) -> None:
    result = await desk.check([TALK, {"messages": [user("hello"), assistant("")]}])
    assert result.ok and found(result, "empty_answer").message.startswith("Row 1:")


async def test_equal_answers_are_counted(desk: Desk) -> None:
    same = {**CHOICE, "rejected": CHOICE["chosen"]}
    result = await desk.check([CHOICE, same, same], trainer="dpo")
    assert result.ok and found(result, "equal_answers").message.startswith("Row 1 (and 1 more)")
    assert not (await desk.check([same], trainer="dpo")).ok


async def test_conversations_without_a_chat_template_are_an_error(desk: Desk) -> None:
    result = await desk.check([TALK], model=desk.model(None))
    assert not result.ok and "chat_template_path" in found(result, "no_chat_template").fix
    other = desk.folder / "chatml.jinja"
    other.write_text(CHATML)
    mended = await desk.check([TALK], model=desk.model(None), hyperparameters={"chat_template_path": str(other)})
    assert mended.ok, mended.checks


async def test_rows_that_trl_refuses_are_an_error(desk: Desk) -> None:
    result = await desk.check([{"question": "hello"}])
    assert not result.ok and "row 0" in found(result, "row_refused").message


async def test_renamed_columns_are_seen_under_their_new_names(desk: Desk) -> None:
    result = await desk.check([{"chat": TALK["messages"], "id": 1}], columns={"messages": "chat"})
    assert result.ok, result.checks


async def test_columns_that_the_trainer_reads_beside_a_renamed_one_are_seen(desk: Desk) -> None:
    row = {"q": "hello", "completion": "world", "messages": "another shape", "id": 1}
    result = await desk.check([row], columns={"prompt": "q"})
    assert result.ok and not any("messages" in check.message for check in result.checks), result.checks


async def test_a_function_of_the_script_is_not_run_and_that_is_said(desk: Desk, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"def prepare(row):\n    open({str(trace)!r}, 'w').write('ran')\n    return row\n"
    result = await desk.check([TALK], prepare=code)
    assert "dry_run" in found(result, "prepare_not_run").fix and not trace.exists()


async def test_a_preparation_that_we_offered_ourselves_is_run(desk: Desk, workspace: Workspace) -> None:
    from mlintern.tools.data.formats import judge_formats
    from mlintern.tools.data.local_files import open_local
    from mlintern.tools.data.table import open_table

    rows = [{"question": "hello", "answer": "good"}, {"question": "there", "answer": ""}]
    split = open_local(str(desk.data(rows))).split(None)
    with open_table(split, scratch=workspace.folder("cache")) as table:
        offered = judge_formats(table, ("sft",))["sft"].prepare
    assert offered
    result = await desk.check(rows, prepare=offered)
    assert "1 of the first 2 rows are left out" in found(result, "rows_left_out").message


async def test_filters_over_all_rows_are_counted_as_the_script_counts_them(desk: Desk) -> None:
    rows = [TALK, {"messages": [user("hello"), assistant("day")]}, TALK, {"messages": [user("good"), assistant("a")]}]
    result = await desk.check(rows, filter=["deduplicate", "drop_rows=1"])
    assert "2 of the first 4 rows are left out" in found(result, "rows_left_out").message


async def test_an_edited_script_is_checked_by_what_stands_at_its_top(desk: Desk) -> None:
    recipe = {"trainer": "sft", "model": str(desk.model()), "dataset": str(desk.data([TALK]))}
    first = desk.store.render({**recipe, "hyperparameters": {"max_length": 1024}})
    edited = desk.store.edit(script_id=first.script_id, old_text='"max_length": 1024', new_text='"max_length": 2')
    assert "truncation" in rules(await desk.checker.check(edited.script_id, level="template"))


async def test_an_edit_that_changes_the_rows_is_not_run_and_that_is_said(desk: Desk) -> None:
    recipe = {"trainer": "sft", "model": str(desk.model()), "dataset": str(desk.data([TALK])), "limit": 5}
    first = desk.store.render(recipe)
    edited = desk.store.edit(
        script_id=first.script_id, old_text="    return rows\n", new_text="    return rows.map(dict)\n"
    )
    assert "prepare_not_run" in rules(await desk.checker.check(edited.script_id, level="template"))


async def test_a_script_that_does_not_say_what_it_reads_is_no_pass(desk: Desk) -> None:
    mine = desk.store.edit(code="print('hello')\n")
    result = await desk.checker.check(mine.script_id, level="template")
    assert not result.ok and "template_unread" in rules(result)


async def test_a_tokenizer_that_cannot_count_is_told(desk: Desk) -> None:
    model = desk.model()
    (model / "tokenizer.json").unlink()
    result = await desk.check([TALK], model=model)
    assert found(result, "tokenizer_unavailable").severity == "warning"


async def test_a_model_and_rows_of_the_hub_are_read_there(desk: Desk, hub: HubStandIn) -> None:
    files = {file.name: file.read_bytes() for file in desk.model().iterdir()}
    hub.add(Repo("org/words", files={**files, "model.safetensors": b"\0" * 64}))
    rows = "".join(json.dumps(row) + "\n" for row in [TALK, {"messages": [user("hello"), assistant("")]}])
    hub.add(Repo("org/data", kind="dataset", files={"data/train.jsonl": rows.encode()}))
    result = await desk.of({"trainer": "sft", "model": "org/words", "dataset": "org/data", "split": "train[:50%]"})
    assert found(result, "empty_answer").message.startswith("Row 1:")
    assert hub.asked("tokenizer.json") and not hub.asked("safetensors")


async def test_a_gated_model_is_named_and_is_no_pass(desk: Desk, hub: HubStandIn) -> None:
    hub.add(Repo("org/gated", files={"config.json": b"{}"}, access="gated"))
    result = await desk.of({"trainer": "sft", "model": "org/gated", "dataset": str(desk.data([TALK]))})
    assert not result.ok and "gated" in found(result, "tokenizer_unavailable").message


async def test_a_dataset_that_cannot_be_had_is_named_and_is_no_pass(desk: Desk, hub: HubStandIn) -> None:
    result = await desk.of({"trainer": "sft", "model": str(desk.model()), "dataset": "org/none"})
    assert not result.ok and "org/none" in found(result, "data_unavailable").message


async def test_without_a_network_it_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = await desk.of({"trainer": "sft", "model": "org/far", "dataset": str(desk.data([TALK]))})
    check = found(result, "tokenizer_unavailable")
    assert not result.ok and check.message.startswith("Not checked")


async def test_an_evaluation_is_checked_for_its_columns_and_its_system_message(desk: Desk) -> None:
    data = desk.data([{"question": "hello", "options": ["a"], "answer": 0}])
    recipe = {"trainer": "evaluation", "dataset": str(data), "system": "be kind", "model": str(desk.model(NO_SYSTEM))}
    result = await desk.of(recipe)
    assert "choices" in found(result, "evaluation_columns").message
    assert "dropped" in found(result, "system_role").message


OWN = """
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer
model = AutoModelForCausalLM.from_pretrained("{model}", dtype="float32")
rows = load_dataset("json", data_files="{data}", split="train").remove_columns(["text"])
args = SFTConfig(output_dir="out", assistant_only_loss=True, max_length=4, logging_nan_inf_filter=False)
SFTTrainer(model, args, train_dataset=rows, peft_config=LoraConfig(target_modules=["query_key_value"])).train()
"""


async def test_a_script_of_ones_own_is_looked_at_as_a_rendered_one_is(desk: Desk) -> None:
    model, data = desk.model(), desk.data([{**TALK, "text": "hello"}] * 4)
    script = desk.store.edit(code=OWN.format(model=model, data=data))
    result = await desk.checker.check(script.script_id, level="template")
    told = {check.rule: check for check in result.checks}
    assert told["lora_targets"].severity == "error" and "query_key_value" in told["lora_targets"].message
    assert told["generation_markers"].severity in ("error", "warning")
    assert "max_length 4" in told["truncation"].message
    assert "row_refused" not in told  # the column that it removes is not looked at
