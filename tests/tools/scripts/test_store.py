"""Scripts are kept by their content; an edit is a new script; what changed behind our back is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput, Conflict, NotFound
from mlintern.tools.ledger import Ledger
from mlintern.tools.scripts.store import ScriptStore
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock


@pytest.fixture
def store(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> ScriptStore:
    return ScriptStore(workspace=workspace, ledger=ledger, clock=clock)


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"text": "a"}) + "\n")
    return {"trainer": "sft", "model": "Qwen/Qwen3-0.6B", "dataset": str(data), "max_steps": 5}


def test_a_rendered_script_is_named_by_its_content(store: ScriptStore, recipe: dict[str, Any]) -> None:
    result = store.render(recipe)
    text = Path(result.path).read_bytes()
    assert hashlib.sha256(text).hexdigest().startswith(result.script_id) and len(result.script_id) == 12
    assert result.ok and result.checks == []
    assert "trl==1.16.0" in result.requirements


def test_the_same_recipe_gives_the_same_script(store: ScriptStore, recipe: dict[str, Any]) -> None:
    assert store.render(recipe) == store.render(dict(reversed(recipe.items())))


def test_another_recipe_gives_another_script(store: ScriptStore, recipe: dict[str, Any]) -> None:
    assert store.render(recipe).script_id != store.render({**recipe, "seed": 1}).script_id


def test_a_script_reads_back_with_its_recipe_and_header(store: ScriptStore, recipe: dict[str, Any]) -> None:
    script = store.get(store.render(recipe).script_id)
    assert script.recipe is not None and script.recipe["max_steps"] == 5
    assert script.python == ">=3.11" and "trl==1.16.0" in script.requirements
    assert script.path.read_text() == script.text


def test_a_script_outlives_the_process_that_stored_it(
    store: ScriptStore, recipe: dict[str, Any], workspace: Workspace, clock: FakeClock
) -> None:
    script_id = store.render(recipe).script_id
    again = ScriptStore(workspace=workspace, ledger=Ledger(workspace.ledger), clock=clock)
    assert again.get(script_id).script_id == script_id


def test_a_file_changed_on_disk_is_refused_and_rendering_restores_it(
    store: ScriptStore, recipe: dict[str, Any]
) -> None:
    result = store.render(recipe)
    Path(result.path).chmod(0o600)
    Path(result.path).write_text("print('other')\n")
    with pytest.raises(Conflict, match="changed it"):
        store.get(result.script_id)
    assert store.render(recipe) == result
    assert store.get(result.script_id).sha256.startswith(result.script_id)


def test_a_file_that_is_gone_is_said_to_be_gone(store: ScriptStore, recipe: dict[str, Any]) -> None:
    result = store.render(recipe)
    Path(result.path).unlink()
    with pytest.raises(NotFound, match="is gone"):
        store.get(result.script_id)


def test_an_unknown_script_is_not_found(store: ScriptStore) -> None:
    with pytest.raises(NotFound):
        store.get("0123456789ab")


def test_an_edit_is_a_new_script_and_the_old_one_stays(store: ScriptStore, recipe: dict[str, Any]) -> None:
    first = store.render(recipe)
    second = store.edit(script_id=first.script_id, old_text="SEED = 0", new_text="SEED = 1", name="seed 1")
    assert second.parent == first.script_id and second.name == "seed 1"
    assert "SEED = 1" in store.get(second.script_id).text
    assert "SEED = 0" in store.get(first.script_id).text
    assert store.get(second.script_id).recipe is None


def test_an_edit_that_breaks_the_script_is_stored_but_not_ok(store: ScriptStore, recipe: dict[str, Any]) -> None:
    first = store.render(recipe)
    second = store.edit(script_id=first.script_id, old_text="SEED = 0", new_text="SEED = = 0")
    assert not second.ok and second.checks[0].rule == "syntax" and second.checks[0].line


def test_code_of_ones_own_is_stored_and_checked(store: ScriptStore) -> None:
    result = store.edit(code="import trl\n\ntrl.SFTConfig(max_seq_length=5)\n", name="mine")
    assert not result.ok and result.checks[0].rule == "removed_field" and result.checks[0].line == 3
    assert store.check(result.script_id) == result


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("nowhere in the script", "x", "does not occur"),
        ("SEED = 9", "x", "is the nearest: SEED = 0"),
        ("report(", "x", "times, in lines"),
        ("", "x", "is empty"),
        ("SEED = 0", "SEED = 0", "the same"),
        ("SEED = 0", None, "new_text is missing"),
        (None, "x", "old_text is missing"),
    ],
)
def test_an_edit_must_say_exactly_what_it_replaces(
    store: ScriptStore, recipe: dict[str, Any], old: str | None, new: str | None, expected: str
) -> None:
    script_id = store.render(recipe).script_id
    with pytest.raises(BadInput) as caught:
        store.edit(script_id=script_id, old_text=old, new_text=new)
    assert expected in str(caught.value)


@pytest.mark.parametrize("arguments", [{}, {"script_id": "a", "code": "b"}, {"code": "  "}, {"code": "\ud800"}])
def test_an_edit_needs_one_source(store: ScriptStore, arguments: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        store.edit(**arguments)


@pytest.mark.parametrize("content", [None, ""])
def test_a_missing_or_empty_dataset_is_refused_before_anything_is_stored(
    store: ScriptStore, recipe: dict[str, Any], tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "other.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match="does not exist" if content is None else "is empty"):
        store.render({**recipe, "dataset": str(path)})
    assert not list(store._workspace.folder("scripts").iterdir())


def test_a_model_that_is_not_there_yet_is_a_warning(
    store: ScriptStore, recipe: dict[str, Any], tmp_path: Path
) -> None:
    result = store.render({**recipe, "model": str(tmp_path / "later")})
    assert result.ok and [check.rule for check in result.checks] == ["model_missing"]


def test_the_stored_recipe_renders_the_same_script_again(store: ScriptStore, recipe: dict[str, Any]) -> None:
    first = store.render({**recipe, "lora": {}, "hyperparameters": {"packing": True}})
    stored = store.get(first.script_id).recipe
    assert stored is not None
    assert store.render(stored) == first


def test_the_seed_of_a_run_is_kept_even_where_it_is_the_default(store: ScriptStore, recipe: dict[str, Any]) -> None:
    script = store.get(store.render(recipe).script_id)
    assert script.recipe is not None and script.recipe["seed"] == 0


def test_a_part_of_a_file_is_what_the_script_loads(store: ScriptStore, recipe: dict[str, Any]) -> None:
    """Held-out rows of the same file stay held out."""
    held_out = {"dataset": recipe["dataset"], "split": "train[90%:]", "kind": "exact_match"}
    script = store.get(store.render({**recipe, "split": "train[:90%]", "evaluation": held_out}).script_id)
    assert 'SPLIT = "train[:90%]"' in script.text and 'EVALUATION_SPLIT = "train[90%:]"' in script.text
    assert "data_files=DATASET, split=SPLIT)" in script.text
    assert "data_files=EVALUATION_DATASET, split=EVALUATION_SPLIT)" in script.text


def test_a_name_without_end_is_refused(store: ScriptStore) -> None:
    with pytest.raises(BadInput, match="at most 120"):
        store.edit(code="print(1)\n", name="n" * 121)
