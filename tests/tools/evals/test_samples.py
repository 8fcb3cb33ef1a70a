"""read_eval(samples=...): what the model said to an item, of every harness that keeps it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.result_rows import EvalPage
from mlintern.tools.evals.service import EvalService
from mlintern.tools.ledger import Ledger
from mlintern.tools.workspace import Workspace
from tests.clock import FakeClock
from tests.tools.evals.results import inspect_header, write_inspect, write_lm_eval, write_own

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(workspace: Workspace, ledger: Ledger, clock: FakeClock) -> EvalService:
    return EvalService(workspace=workspace, ledger=ledger, clock=clock)


def own(folder: Path, scores: list[float], **changes: Any) -> Path:
    """A result whose samples hold all that the script writes."""
    path = write_own(folder, scores)
    lines = [
        {
            "id": f"item-{index}",
            "accuracy": score,
            "question": f"How much is {index} + 1?",
            "prompt": f"<user> How much is {index} + 1? <assistant>",
            "options": [],
            "answer": "long " * 2000 + str(index + score),
            "extracted": str(index + score),
            "target": str(index + 1),
            "finish_reason": "length" if index == 2 else "stop",
            "tokens": 12,
            **changes,
        }
        for index, score in enumerate(scores)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def read(service: EvalService, path: Path, which: Any, **more: Any) -> EvalPage:
    return await service.read_samples(str(path), which=which, **more)


async def test_wrong_answers_are_shown_with_what_was_asked_and_said(service: EvalService, tmp_path: Path) -> None:
    page = await read(service, own(tmp_path, [1.0, 0.0, 0.0]), "wrong")
    assert page.total == 2
    first = page.samples[0]
    assert (first.id, first.score, first.extracted, first.target) == ("item-1", 0.0, "1.0", "2")
    assert (first.question, first.finish_reason) == ("How much is 1 + 1?", "stop")
    assert first.prompt is not None and "<assistant>" in first.prompt
    assert first.answer is not None and len(first.answer) < 1700
    assert "(cut: 10,003 characters)" in first.answer and first.answer.endswith("1.0")


async def test_answers_that_were_cut_off_can_be_looked_at(service: EvalService, tmp_path: Path) -> None:
    page = await read(service, own(tmp_path, [1.0, 0.0, 1.0]), "cut")
    assert [sample.id for sample in page.samples] == ["item-2"]


async def test_flipped_items_show_both_sides(service: EvalService, tmp_path: Path) -> None:
    after, before = own(tmp_path / "after", [1.0, 0.0, 1.0]), own(tmp_path / "before", [0.0, 0.0, 1.0])
    page = await read(service, after, "flipped", against=str(before))
    [sample] = page.samples
    assert (sample.id, sample.score, sample.other_score) == ("item-0", 1.0, 0.0)
    assert sample.other_answer is not None and sample.other_answer.endswith("0.0")
    with pytest.raises(BadInput, match="against"):
        await read(service, after, "flipped")


async def test_samples_come_in_pages_and_at_random_in_the_same_order(service: EvalService, tmp_path: Path) -> None:
    path = own(tmp_path, [0.0] * 25)
    seen: list[str] = []
    cursor = None
    while True:
        page = await read(service, path, "random", limit=10, cursor=cursor)
        seen += [sample.id for sample in page.samples]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(f"item-{index}" for index in range(25)) and seen != sorted(seen)
    with pytest.raises(BadInput, match="other results"):
        await read(service, path, "all", cursor=(await read(service, path, "random")).next_cursor)


async def test_several_answers_to_an_item_are_all_shown(service: EvalService, tmp_path: Path) -> None:
    answers = [{"answer": "a", "extracted": "a", "score": 0.0, "finish_reason": "stop"}] * 3
    page = await read(service, own(tmp_path, [0.0], answers=answers), "wrong")
    assert [answer["answer"] for answer in page.samples[0].answers] == ["a", "a", "a"]


async def test_lm_eval_samples_are_shown(service: EvalService, tmp_path: Path) -> None:
    path = write_lm_eval(tmp_path, [1.0, 0.0])
    lines = [
        {
            "doc_id": index,
            "doc_hash": f"h{index}",
            "doc": {"question": f"Q{index}", "answer": "#### 2"},
            "target": "#### 2",
            "arguments": {"gen_args_0": {"arg_0": f"Question: Q{index}", "arg_1": {"until": []}}},
            "resps": [[f"It is {index}."]],
            "filtered_resps": [str(index)],
            "filter": "strict-match",
            "exact_match": score,
        }
        for index, score in enumerate([1.0, 0.0])
    ]
    samples = next(tmp_path.glob("samples_*"))
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [sample] = (await read(service, path, "wrong")).samples
    assert (sample.id, sample.question, sample.prompt) == ("1:h1", "Q1", "Question: Q1")
    assert (sample.answer, sample.extracted, sample.target) == ("It is 1.", "1", "#### 2")


async def test_inspect_samples_are_read_one_by_one_from_the_archive(service: EvalService, tmp_path: Path) -> None:
    path = write_inspect(tmp_path / "log.eval", inspect_header())
    said = {
        "messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "That."}],
        "output": {"completion": "That.", "choices": [{"stop_reason": "max_tokens"}]},
    }
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("samples/a_epoch_1.json", json.dumps(said))
    page = await read(service, path, "all", metric="accuracy")
    by_id = {sample.id: sample for sample in page.samples}
    first = by_id["a"]
    assert (first.score, first.answer, first.finish_reason) == (0.5, "That.", "length")
    assert first.prompt == "user: Which?"
    assert [answer["score"] for answer in first.answers] == [1.0, 0.0]


async def test_a_result_without_samples_says_where_harnesses_keep_them(service: EvalService, tmp_path: Path) -> None:
    path = write_own(tmp_path, [1.0])
    (tmp_path / "samples.jsonl").unlink()
    with pytest.raises(NotFound, match="no samples") as caught:
        await read(service, path, "wrong")
    assert "--log_samples" in caught.value.next_step
