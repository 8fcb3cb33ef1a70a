"""Telemetry: read as it grows, whatever state the last line is in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlintern.tools.health.series import MOST_CURVES, MOST_POINTS
from mlintern.tools.jobs.telemetry import Telemetry, evaluation_rows, parse_row, rows_in_log


def metrics(step: int, *, time: float | None = None, **values: float | str) -> dict[str, Any]:
    return {
        "v": 1,
        "kind": "metrics",
        "time": step if time is None else time,
        "step": step,
        "total_steps": 100,
        "values": values,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def append(path: Path, *rows: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_before_the_first_row_nothing_is_known(path: Path) -> None:
    telemetry = Telemetry(path)
    assert not telemetry.update()
    assert (telemetry.progress, telemetry.metrics) == (None, {})


def test_only_what_is_new_is_read_and_the_latest_value_of_each_metric_stays(path: Path) -> None:
    telemetry = Telemetry(path)
    append(path, metrics(10, loss=2.0), metrics(20, eval_loss=1.9))
    assert telemetry.update() and not telemetry.update()
    append(path, metrics(30, loss="NaN"))
    assert telemetry.update()
    assert telemetry.metrics == {"loss": "NaN", "eval_loss": 1.9}
    assert telemetry.rows_read == 3


def test_a_link_out_of_the_folder_of_a_job_is_not_followed(tmp_path: Path) -> None:
    job = tmp_path / "job"
    for name in ("job/output", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    append(tmp_path / "elsewhere" / "metrics.jsonl", metrics(10, loss=2.0))
    rows = job / "output" / "metrics.jsonl"
    rows.symlink_to(tmp_path / "elsewhere" / "metrics.jsonl")
    assert Telemetry(rows).update() and not Telemetry(rows, within=job).update()
    rows.unlink()
    (job / "output").rmdir()
    (job / "output").symlink_to(tmp_path / "elsewhere")
    assert not Telemetry(rows, within=job).update()
    (job / "kept").mkdir()
    append(job / "kept" / "metrics.jsonl", metrics(10, loss=2.0))
    (job / "output").unlink()
    (job / "output").symlink_to(job / "kept")
    assert Telemetry(rows, within=job).update()


def test_a_line_that_is_still_being_written_waits_for_its_end(path: Path) -> None:
    telemetry = Telemetry(path)
    line = json.dumps(metrics(10, loss=2.0)) + "\n"
    path.write_text(line[:20])
    assert not telemetry.update()
    path.write_text(line)
    assert telemetry.update() and telemetry.step == 10


def test_rubbish_between_rows_is_passed_over(path: Path) -> None:
    path.write_text('not json\n[1]\n{"v":2,"kind":"metrics"}\n\n' + json.dumps(metrics(5, loss=1.0)) + "\n")
    telemetry = Telemetry(path)
    telemetry.update()
    assert telemetry.rows_read == 1


def test_a_file_written_anew_is_read_from_its_start(path: Path) -> None:
    telemetry = Telemetry(path)
    append(path, *(metrics(step, loss=1.0) for step in range(50)))
    telemetry.update()
    path.write_text(json.dumps(metrics(1, loss=9.0)) + "\n")
    telemetry.update()
    assert (telemetry.step, telemetry.metrics, telemetry.rows_read) == (1, {"loss": 9.0}, 1)


def test_the_time_left_follows_the_pace_of_the_latest_steps(path: Path) -> None:
    telemetry = Telemetry(path)
    append(path, *(metrics(step, time=1000 + 2 * step, loss=1.0) for step in range(10, 50, 10)))
    telemetry.update()
    assert telemetry.progress is not None
    assert (telemetry.progress.step, telemetry.progress.total, telemetry.progress.eta_seconds) == (40, 100, 120.0)


def test_a_clock_that_was_set_back_gives_no_time_left_rather_than_a_wrong_one(path: Path) -> None:
    telemetry = Telemetry(path)
    append(path, metrics(10, time=5000, loss=1.0), metrics(20, time=100, loss=1.0))
    telemetry.update()
    assert telemetry.progress is not None and telemetry.progress.eta_seconds is None


def test_checkpoints_evaluations_and_the_model_are_kept(path: Path) -> None:
    evaluation = {"task": "maxmc", "model": "m", "rows": [{"metric": "accuracy", "value": 0.5, "n": 10, "x": 1}]}
    append(
        path,
        {"v": 1, "kind": "begin", "time": 1, "total_steps": 7},
        {"v": 1, "kind": "checkpoint", "time": 1, "step": 5, "path": "checkpoint-5"},
        {"v": 1, "kind": "evaluation", "time": 1, "path": "evaluation.json", "evaluation": evaluation},
        {"v": 1, "kind": "end", "time": 1, "step": 7, "status": "completed", "model_path": "model"},
    )
    telemetry = Telemetry(path)
    telemetry.update()
    assert (telemetry.checkpoints, telemetry.model_path, telemetry.step) == (["checkpoint-5"], "model", 7)
    assert evaluation_rows(telemetry.evaluations[0]) == [
        {"task": "maxmc", "model": "m", "metric": "accuracy", "filter": None, "value": 0.5, "stderr": None, "n": 10}
    ]


def test_marked_lines_are_found_also_behind_a_progress_bar() -> None:
    row = metrics(3, loss=1.0)
    text = f" 3%|#  |\r@mlintern {json.dumps(row)}\nplain\n 4%|#|@mlintern {json.dumps(row)}\n@mlintern {{torn"
    assert list(rows_in_log(text)) == [row, row]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_however_the_file_grows_every_row_is_read_once(path: Path, data: st.DataObject) -> None:
    rows = [metrics(step, loss=step * 0.5) for step in range(data.draw(st.integers(0, 12)))]
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    path.write_bytes(b"")
    telemetry = Telemetry(path)
    for end in [*cuts, len(whole)]:
        path.write_bytes(whole[:end])
        telemetry.update()
    assert telemetry.rows_read == len(rows)


def test_memory_does_not_grow_with_the_run(path: Path) -> None:
    import tracemalloc

    append(path, *(metrics(step, loss=1.0, grad_norm=0.5) for step in range(20_000)))
    telemetry = Telemetry(path)
    tracemalloc.start()
    telemetry.update()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert telemetry.rows_read == 20_000 and held < 100_000


def test_a_line_nested_without_end_is_no_row() -> None:
    assert parse_row("[" * 100_000) is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "Infinity"),
        ("1" + "0" * 400, "Infinity"),
        ("1" + "0" * 30, 1e30),
        ('"\\ud800"', "?"),
        ("true", True),
    ],
)
def test_a_value_that_json_cannot_hold_is_read_as_the_word_for_it(path: Path, written: str, read: object) -> None:
    path.write_text(f'{{"v":1,"kind":"metrics","step":1,"time":{written},"values":{{"loss":{written}}}}}\n')
    telemetry = Telemetry(path)
    assert telemetry.update() and telemetry.metrics == {"loss": read}
    assert json.loads(json.dumps(parse_row(path.read_bytes()), allow_nan=False))["values"] == {"loss": read}


def test_steps_beyond_measure_give_no_time_left_and_no_error(path: Path) -> None:
    row = '{{"v":1,"kind":"metrics","step":{0}{1},"total_steps":9{1},"time":{0},"values":{{}}}}\n'
    path.write_text("".join(row.format(step, "0" * 400) for step in (1, 2, 3)))
    telemetry = Telemetry(path)
    assert telemetry.update() and telemetry.progress is None


def test_times_at_the_edge_of_what_a_number_holds_give_no_time_left(path: Path) -> None:
    append(path, metrics(1, time=-1e308), metrics(2, time=1e308))
    telemetry = Telemetry(path)
    assert telemetry.update() and telemetry.progress is not None and telemetry.progress.eta_seconds is None


def test_a_script_cannot_make_the_digest_grow_without_end(path: Path) -> None:
    append(
        path,
        *({**metrics(1), "values": {f"m{row}_{index}": "x" * 2_000 for index in range(100)}} for row in range(30)),
    )
    append(path, metrics(2, m0_0=1.0))
    telemetry = Telemetry(path)
    telemetry.update()
    assert len(telemetry.metrics) == 1_000 and len(str(telemetry.metrics)) < 1_000_000
    assert telemetry.metrics["m0_0"] == 1.0


def test_the_curves_of_a_script_that_invents_names_and_logs_for_ever_stay_small(path: Path) -> None:
    append(path, *({**metrics(1), "values": {f"m{row}_{index}": 1.0 for index in range(100)}} for row in range(30)))
    append(path, *(metrics(step, m0_0=1.0) for step in range(2, 9_000)))
    telemetry = Telemetry(path)
    telemetry.update()
    run = telemetry.curves.run()
    assert len(run.curves) == MOST_CURVES and len(run["m0_0"]) <= MOST_POINTS


def test_the_curves_of_a_file_that_was_written_anew_begin_anew(path: Path) -> None:
    append(path, *(metrics(step, loss=9.0) for step in range(50)))
    telemetry = Telemetry(path)
    telemetry.update()
    path.write_text(json.dumps(metrics(1, loss=2.0)) + "\n")
    telemetry.update()
    assert telemetry.curves.run()["loss"].values == (2.0,)


def test_a_line_of_gigabytes_is_passed_over_and_what_follows_is_read(path: Path) -> None:
    with path.open("wb") as file:
        file.seek(200 << 20)  # a hole: it takes no room
        file.write(b"\n" + json.dumps(metrics(7, loss=1.0)).encode() + b"\n")
    telemetry = Telemetry(path)
    assert telemetry.update() and (telemetry.rows_read, telemetry.step) == (1, 7)
    assert telemetry.curves.run()["loss"].steps == (7.0,)


def test_what_stands_in_the_place_of_the_file_neither_blocks_nor_fails(path: Path) -> None:
    for make in (os.mkfifo, os.mkdir, lambda place: place.symlink_to(place)):
        make(path)
        assert not Telemetry(path).update()
        (path.rmdir if path.is_dir() else path.unlink)()
