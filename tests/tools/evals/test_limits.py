"""Limits of a comparison, each from both sides: shared items, the mean of the samples, errors of 0 by formula."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlintern.tools.evals.compare import compare_rows, sure_stderr
from mlintern.tools.evals.read_files import read_path
from mlintern.tools.evals.significance import agresti_coull_stderr
from tests.tools.evals.results import row, write_own


@pytest.mark.parametrize(
    ("before", "after", "shared", "compared"),
    [
        (12, 12, 10, True),
        (12, 12, 9, False),
        (40, 40, 20, True),
        (40, 40, 19, False),
        (200, 21, 10, False),
        (200, 20, 10, True),
    ],
)
def test_ten_shared_items_and_half_of_the_smaller_side_are_enough(
    before: int, after: int, shared: int, compared: bool
) -> None:
    """Other items beside the shared ones on both sides, so that the sides were not asked the same."""

    def scores(model: str, count: int) -> dict[str, float]:
        own = {f"{model}-{at}": float(at % 2) for at in range(count - shared)}
        return {f"both-{at}": float(at % 2) for at in range(shared)} | own

    sides = {"a": scores("a", before), "b": scores("b", after)}
    rows = [row(model=one, value=sum(found.values()) / len(found), n=len(found)) for one, found in sides.items()]
    [found] = compare_rows(rows[:1], rows[1:], samples=lambda one: sides[one.model or ""]).rows
    assert (found.verdict != "not_comparable") == compared, found.reason
    assert compared or "different items" in found.reason


@pytest.mark.parametrize(("off", "paired"), [(0.9e-4, True), (1.1e-4, False), (-0.9e-4, True), (-1.1e-4, False)])
@pytest.mark.parametrize("side", ["a", "b"])
def test_samples_whose_mean_is_a_ten_thousandth_off_belong_to_something_else(
    side: str, off: float, paired: bool
) -> None:
    scores = {f"i{at}": float(at % 2) for at in range(100)}
    rows = [row(model=one, value=0.5 + (off if one == side else 0.0)) for one in "ab"]
    [found] = compare_rows(rows[:1], rows[1:], samples=lambda one: scores).rows
    assert found.method.startswith("paired") == paired
    assert paired or "The mean of the samples is not the reported value" in found.reason


@pytest.mark.parametrize("stale", ["base", "other"])
def test_a_file_of_samples_that_was_written_anew_on_one_side_is_not_paired(tmp_path: Path, stale: str) -> None:
    sides = {name: write_own(tmp_path / name, [1.0] * 12 + [0.0] * 12, model=name) for name in ("base", "other")}
    rows = {name: read_path(path).rows for name, path in sides.items()}
    samples = tmp_path / stale / "samples.jsonl"
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    samples.write_text("".join(json.dumps({**one, "accuracy": 1.0}) + "\n" for one in lines))
    [found] = compare_rows(rows["base"], rows["other"]).rows
    assert found.method.startswith("unpaired")
    assert "not the reported value" in found.reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"value": 0.0, "stderr": 0.0, "n": 50}, agresti_coull_stderr(0.0, 50)),
        ({"value": 1.0, "stderr": 0.0, "n": 50}, agresti_coull_stderr(1.0, 50)),
        ({"value": 1.0, "stderr": None, "n": 50}, agresti_coull_stderr(1.0, 50)),
        ({"value": 1.0, "stderr": 0.0, "n": None}, None),
        ({"value": 0.999, "stderr": 0.0, "n": 50}, None),
        ({"value": 1.0, "stderr": 0.0, "n": 50, "metric": "rouge1"}, None),
        ({"value": 1.0, "stderr": 0.01, "n": 50}, 0.01),
    ],
)
def test_an_error_of_zero_is_mended_only_where_it_is_known_to_be_wrong(
    changes: dict[str, object], expected: float | None
) -> None:
    assert sure_stderr(row(**changes)) == expected


def test_two_sides_of_one_file_are_told_apart_from_two_files(tmp_path: Path) -> None:
    one = read_path(write_own(tmp_path / "one", [1.0, 0.0] * 10)).rows
    other = read_path(write_own(tmp_path / "two", [1.0, 0.0] * 10, model="two")).rows
    assert "Both sides read the same result file." in compare_rows(one, one).notes
    assert compare_rows(one, other).notes == []
