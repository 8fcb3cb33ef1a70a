"""Result files are written by others, and by processes that die: whatever is wrong in one, the answer says so."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlintern.tools.errors import BadInput, MlinternError, NotFound
from mlintern.tools.evals.documents import Reading
from mlintern.tools.evals.read_files import SampleFiles, read_path
from mlintern.tools.evals.service import EvalService
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.evals.results import inspect_header, write_lm_eval, write_own

LIGHTEVAL: dict[str, Any] = {
    "config_general": {"model_config": {"model_name": "org/base"}, "max_samples": 3},
    "results": {"gsm8k:5": {"extractive_match": 0.5, "extractive_match_stderr": 0.1}, "all": {"acc": 0.5}},
    "versions": {"gsm8k:5": 0},
    "config_tasks": {"gsm8k:5": {"effective_num_docs": 3, "metrics": [{"metric_name": "m", "higher_is_better": {}}]}},
    "summary_tasks": {"gsm8k:5": {"hashes": {"hash_examples": "ab"}}},
}
TRAINER: dict[str, Any] = {"log_history": [{"step": 5, "eval_loss": 1.5, "eval_runtime": 2.0, "eval_samples": 4}]}


def formats(folder: Path) -> dict[str, dict[str, Any]]:
    own, lm_eval = write_own(folder / "own", [1.0, 0.0]), write_lm_eval(folder / "lm_eval", [1.0, 0.0])
    return {
        "own": json.loads(own.read_text()),
        "lm_eval": json.loads(lm_eval.read_text()),
        "lighteval": LIGHTEVAL,
        "inspect": inspect_header(),
        "trainer": TRAINER,
    }


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from places(item)


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 1e300, -1e300, "NaN", "", "x" * 300, "a/../b\0", [[]], [{}], {"": None}]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)


@pytest.mark.parametrize("name", ["own", "lm_eval", "lighteval", "inspect", "trainer"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_value_anywhere_in_a_result_file_breaks_its_reader(name: str, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        document = copy.deepcopy(formats(Path(folder))[name])
        for _ in range(data.draw(st.integers(1, 2))):
            container, key = data.draw(st.sampled_from(list(places(document))))
            container[key] = copy.deepcopy(data.draw(STRANGE))
        path = Path(folder) / "results_2026-11-23T05-00-00.json"
        path.write_text(json.dumps(document))
        try:
            reading = read_path(path)
        except MlinternError as error:
            assert error.message
            return
        assert reading.rows or reading.problems, "an empty answer says nothing"
        for row in reading.rows:
            row.model_dump_json()


def own(folder: Path, **changes: Any) -> Reading:
    return read_path(write_own(folder, [1.0, 0.0], **changes))


def test_a_file_without_rows_is_a_problem_and_not_an_empty_answer(tmp_path: Path) -> None:
    [problem] = own(tmp_path, rows=[]).problems
    assert "no scores" in problem.message and problem.next_step


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, float("inf"), float("nan")])
def test_a_score_of_no_usable_size_is_named_and_not_read(value: float, tmp_path: Path) -> None:
    reading = own(tmp_path, rows=[{"metric": "loss", "value": value, "n": 2}])
    assert not reading.rows
    assert "not a finite number" in reading.problems[0].message


def test_a_number_longer_than_python_reads_is_refused_with_words(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text('{"mlintern_evaluation": 1, "n": ' + "1" * 5000 + "}")
    with pytest.raises(BadInput, match="too long"):
        read_path(path)


def test_links_that_lead_nowhere_do_not_hide_the_results_beside_them(tmp_path: Path) -> None:
    """A cleaned Hub cache is full of them."""
    write_own(tmp_path / "run", [1.0, 0.0])
    (tmp_path / "results_old.json").symlink_to(tmp_path / "gone")
    (tmp_path / "config.json").symlink_to(tmp_path / "gone")
    reading = read_path(tmp_path)
    assert len(reading.rows) == 1
    assert [Path(problem.source).name for problem in reading.problems] == ["results_old.json"]


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    write_own(tmp_path, [1.0, 0.0])
    os.mkfifo(tmp_path / "results_pipe.json")
    assert len(read_path(tmp_path).rows) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        with pytest.raises(BadInput, match="Permission denied"):
            read_path(closed)
        write_own(tmp_path / "open", [1.0])
        assert len(read_path(tmp_path).rows) == 1
    finally:
        closed.chmod(0o700)


def broken_json(path: Path) -> None:
    path.write_text('{"id": "item-0", "accuracy": 1.0}\n{"id": "item-1", "acc')


def repeated(path: Path) -> None:
    path.write_text('{"id": 1, "accuracy": 1.0}\n{"id": "1", "accuracy": 0.0}\n')


@pytest.mark.parametrize(("damage", "words"), [(broken_json, "line 2"), (repeated, "two rows with the id")])
def test_damaged_samples_are_named_rather_than_passed_over(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    [row] = own(tmp_path).rows
    damage(tmp_path / "samples.jsonl")
    with pytest.raises(BadInput, match=words):
        SampleFiles()(row)


@pytest.mark.anyio
@pytest.mark.parametrize("source", ["~no-such-user/results", "x" * 5000, "a\0b", "/dev/null", ".."])
async def test_every_unusable_source_is_refused_with_words(
    source: str,
    workspace: Workspace,
    ledger: Ledger,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "inner")
    service = EvalService(workspace=workspace, ledger=ledger, clock=clock)
    with pytest.raises((BadInput, NotFound)) as caught:
        await service.read(source)
    assert caught.value.message and caught.value.next_step
