"""An evaluation's samples come home through the log: the very file or nothing, whatever happens to the log."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlintern.tools.evals.compare import compare_rows
from mlintern.tools.evals.comparison_results import ComparedRow
from mlintern.tools.evals.read_files import read_path
from mlintern.tools.jobs import logs
from mlintern.tools.jobs.backend import LogChunk
from mlintern.tools.jobs.mirror import SAMPLES_BYTES, mirror
from mlintern.tools.jobs.spec import JobHandle
from mlintern.tools.telemetry_marks import MARK
from tests.tools.jobs import pieces
from tests.tools.jobs.distant import DistantBackend
from tests.tools.jobs.pieces import answers, kept

HANDLE = JobHandle("distant", "far-job")
NOISE = ("Loading weights\n", " 50%|###   | 1/2\r", "a warning without its end", "\x1b[1mbold\x1b[0m\r\n", "\n", "\r")


@dataclass
class InChunks(DistantBackend):
    """A log that is given out in just these chunks; a cursor counts them."""

    chunks: tuple[bytes, ...] = ()

    async def logs(self, handle: JobHandle, cursor: str | None) -> LogChunk:
        index = int(cursor or 0)
        data = self.chunks[index] if index < len(self.chunks) else b""
        return LogChunk(data, str(index + 1), complete=True)


def copy(log: str | bytes, folder: Path) -> Path:
    """The job folder of a job whose log this is; ``folder`` may hold the copy of a beginning of it."""
    data = log.encode() if isinstance(log, str) else log
    backend = DistantBackend(log=data, chunk_bytes=1 << 20)
    whole = anyio.run(partial(mirror, backend, HANDLE, folder=folder))
    assert whole
    return folder


def random_answers(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Answers that do not compress: about 35 to a piece."""
    draw = random.Random(seed)
    return [
        {"id": f"item-{n}", "exact_match": float(draw.random() < 0.5), "greedy": draw.randbytes(60).hex()}
        for n in range(count)
    ]


def evaluation_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "output" / "evaluation.json").read_text())
    return value


def compared(baseline: Path, candidate: Path) -> ComparedRow:
    [row] = compare_rows(*(read_path(folder / "output").rows for folder in (baseline, candidate))).rows
    return row


def test_two_evaluations_that_left_only_their_logs_are_compared_item_by_item(tmp_path: Path) -> None:
    before = copy(pieces.log_of(answers([False] * 30 + [True] * 70), model="a"), tmp_path / "a")
    after = copy(pieces.log_of(answers([True] * 95 + [False] * 5), model="b"), tmp_path / "b")
    row = compared(before, after)
    assert row.method.startswith("paired, exact McNemar test (30 items gained, 5 lost)")
    assert (row.verdict, row.notes) == ("improved", []) and "paired" not in row.reason


def test_the_pieces_are_in_the_copy_of_the_log_but_not_among_the_metrics(tmp_path: Path) -> None:
    log = pieces.log_of(random_answers(300))
    folder = copy(log, tmp_path / "job")
    assert log.count(MARK) > 5
    assert (folder / "log.txt").read_text() == log
    (row,) = (folder / "output" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(row)["kind"] == "evaluation"


def test_a_line_is_passed_on_in_one_piece_by_pipes_and_log_services() -> None:
    for rows in (answers([True]), random_answers(2000)):
        for line in pieces.printed(rows)[0]:
            assert line.isascii() and len(line) < 4096 and line.startswith(MARK) and line.endswith("}\n")


def test_each_line_is_one_write_so_that_nothing_else_can_be_printed_into_it() -> None:
    """The other end of such a socket sees where one write ends and the next one begins."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = f"import hashlib, json\nfrom typing import Any\n{pieces.source()}\nprint_pieces(b'', 'x' * 10_000)"
    with ours, theirs:
        command = [sys.executable, "-u", "-c", program]
        subprocess.run(command, stdout=theirs.fileno(), check=True, timeout=60)
        theirs.close()
        writes = [line for line in (ours.recv(1 << 16) for _ in range(9)) if line]  # after the end: b""
    assert [json.loads(line.removeprefix(MARK.encode()))["piece"] for line in writes] == [0, 1, 2]


def test_samples_that_are_too_large_are_cut_down_to_what_pairing_needs(tmp_path: Path) -> None:
    rows = [{**row, "greedy": random.Random(n).randbytes(3000).hex()} for n, row in enumerate(random_answers(1000))]
    lines, said = pieces.printed(rows)
    assert (said["form"], said["rows"]) == ("scores", 1000)
    assert sum(map(len, lines)) < 64 * 1024
    folder = copy(pieces.log_of(rows), tmp_path / "job")
    assert kept(folder) == pieces.file_of([{key: row[key] for key in ("id", "exact_match")} for row in rows])
    assert compared(folder, folder).method.startswith("paired")


def test_where_even_the_scores_are_too_large_nothing_is_printed_and_the_comparison_says_so(tmp_path: Path) -> None:
    rows = [{**row, "id": random.Random(n).randbytes(100).hex()} for n, row in enumerate(answers([True] * 30_000))]
    lines, said = pieces.printed(rows)
    assert (lines, said) == ([], {"form": "none", "rows": 30_000})
    large = copy(pieces.log_of(rows, model="large"), tmp_path / "large")
    other = copy(pieces.log_of(rows, model="other"), tmp_path / "other")
    row = compared(large, other)
    assert row.method.startswith("unpaired")
    assert "It is not paired. Neither side kept" in row.reason
    assert "baseline: 30000 samples were too large to print" in row.reason


def test_a_missing_piece_leaves_no_samples_and_the_comparison_says_why_it_is_unpaired(tmp_path: Path) -> None:
    rows = random_answers(200)
    lines, said = pieces.printed(rows)
    assert len(lines) > 3
    torn = "".join(lines[:2] + lines[3:]) + pieces.evaluation_line(rows, said)
    folder = copy(torn, tmp_path / "torn")
    assert kept(folder) is None
    row = compared(copy(pieces.log_of(rows), tmp_path / "whole"), folder)
    assert row.method.startswith("unpaired")
    reason = f"candidate: 1 of the {len(lines)} pieces that hold the samples are missing in the log"
    assert f"It is not paired. Only the baseline kept scores of single items ({reason})." in row.reason


def test_the_samples_of_an_evaluation_do_not_pass_for_those_of_the_next_one_in_the_same_log(tmp_path: Path) -> None:
    first, second = answers([True, False]), answers([False, True])  # with the same score
    lines, said = pieces.printed(second)
    log = pieces.log_of(first) + pieces.evaluation_line(second, said)
    assert lines and kept(copy(log, tmp_path / "lost")) is None
    assert kept(copy(pieces.log_of(first) + pieces.log_of(second), tmp_path / "whole")) == pieces.file_of(second)


def test_a_script_that_prints_no_samples_is_said_to_have_printed_none(tmp_path: Path) -> None:
    folder = copy(pieces.evaluation_line(answers([True, False]), None), tmp_path / "job")
    assert evaluation_of(folder)["samples_missing"] == "the script did not print its samples"


@pytest.mark.parametrize(
    "said",
    [
        7,
        {"form": "whole"},
        {"form": "whole", "rows": 1, "sha256": "../../x", "pieces": 10**12},
        {"form": "whole", "rows": -1, "sha256": 5, "pieces": "many"},
    ],
)
def test_whatever_a_log_says_of_samples_makes_no_file_of_it(said: object, tmp_path: Path) -> None:
    rows = answers([True, False])
    folder = copy("".join(pieces.printed(rows)[0]) + pieces.evaluation_line(rows, said), tmp_path / "job")
    assert kept(folder) is None and evaluation_of(folder)["samples_missing"]


def test_what_is_not_shown_is_not_found_either(tmp_path: Path) -> None:
    log = "before\n" + pieces.log_of(random_answers(500)) + "after\n"
    path = copy(log, tmp_path / "job") / "log.txt"
    assert logs.read_tail(path, lines=5, max_chars=9999).text == "before\nafter"
    assert logs.read_tail(path, lines=5, max_chars=9999, telemetry=True).text.count(MARK) == 1, "the evaluation"
    assert logs.read_page(path, offset=0, max_chars=1 << 20).text == "before\nafter\n"
    for pattern, words in ("samples", []), ("fore", ["before"]), ("[a-z]", ["before", "after"]):
        found = logs.search(path, pattern=pattern, limit=999, max_chars=1 << 20)
        lines = found.text.split("\n")
        assert [line for line in lines if MARK not in line] == words
        assert found.matches == len(lines) and '"data"' not in found.text


def test_pieces_are_found_in_a_log_of_which_everything_comes_at_once(tmp_path: Path) -> None:
    """Ray gives the whole log in one answer, however much was printed after the evaluation."""
    rows = random_answers(100)
    more = "a line of the training that followed\n" * (SAMPLES_BYTES // 30)
    backend = InChunks(chunks=((pieces.log_of(rows) + more).encode(),))
    anyio.run(partial(mirror, backend, HANDLE, folder=tmp_path))
    assert kept(tmp_path) == pieces.file_of(rows)


@settings(deadline=None, max_examples=150)
@given(size=st.integers(1, 5000), offset=st.integers(0, 9000))
def test_no_page_of_a_log_shows_a_part_of_a_piece(size: int, offset: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log.txt"
        lines, _ = pieces.printed(random_answers(100))
        path.write_text("before\n" + "".join(lines) + "after\n")
        shown = logs.read_page(path, offset=offset, max_chars=size).text
    for fragment in MARK, '{"v": 1, "kind": "samples"':  # a page that ends inside the mark shows its beginning
        for length in range(len(fragment), 0, -1):
            shown = shown.removesuffix(fragment[:length])
    assert set(shown) <= set("before\nafter\n")


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
rows = st.lists(
    st.fixed_dictionaries({"exact_match": st.sampled_from([0.0, 1.0]), "greedy": texts, "target": texts}), max_size=6
)


@st.composite
def evaluations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Any rows, or so many that they take several pieces; each with an id of its own."""
    few = draw(st.booleans())
    found = draw(rows) if few else random_answers(draw(st.integers(36, 120)), seed=draw(st.integers(0, 99)))
    return [{"id": f"{n}-{draw(texts) if few else ''}", **row} for n, row in enumerate(found)]


@st.composite
def in_chunks(draw: st.DrawFn, log: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(log)), max_size=8)))
    parts = [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    return [part for part in parts if part]


def copy_through_crashes(chunks: Sequence[bytes], crashes: dict[int, set[str]], folder: Path) -> None:
    """Copy a log chunk by chunk. Before the chunks in ``crashes`` are marked as copied, whoever copies them dies, and
    leaves the named files as they were before: it had not come to them yet."""
    files = ("mirror.json", "output/metrics.jsonl", "output/evaluation.json", "output/samples.jsonl")
    for number in range(1, len(chunks) + 1):
        backend = InChunks(chunks=tuple(chunks[:number]))
        with tempfile.TemporaryDirectory() as before:
            shutil.copytree(folder, before, dirs_exist_ok=True)
            anyio.run(partial(mirror, backend, HANDLE, folder=folder))
            if number - 1 not in crashes:
                continue
            for name in {"mirror.json"} | crashes[number - 1] & set(files):
                if (Path(before) / name).exists():
                    shutil.copy(Path(before) / name, folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
        anyio.run(partial(mirror, backend, HANDLE, folder=folder))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_however_the_log_is_cut_repeated_and_wherever_the_copying_dies_the_samples_are_the_scripts(
    data: st.DataObject,
) -> None:
    earlier, samples = data.draw(evaluations()), data.draw(evaluations())
    noise = st.sampled_from(NOISE)
    lines, said = pieces.printed(samples)
    repeated = data.draw(st.lists(st.sampled_from(lines), max_size=4)) if lines else []
    strays = [line for line in pieces.printed(earlier)[0] if data.draw(st.booleans())]
    inner = [data.draw(noise) + line for line in data.draw(st.permutations([*lines, *repeated, *strays]))]
    evaluation = pieces.evaluation_line(samples, said)
    log = (
        data.draw(st.sampled_from(["", pieces.log_of(earlier), *lines[:1]]))
        + "".join(inner)
        + evaluation
        + data.draw(st.sampled_from(["", "more\n", evaluation, "".join(lines) + evaluation]))
    ).encode()
    chunks = data.draw(in_chunks(log))
    names = st.sets(st.sampled_from(["output/metrics.jsonl", "output/evaluation.json", "output/samples.jsonl"]))
    crashes = data.draw(st.dictionaries(st.integers(0, len(chunks)), names, max_size=4))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_through_crashes(chunks, crashes, folder)
        assert kept(folder) == pieces.file_of(samples)
        assert (folder / "log.txt").read_bytes() == log
        assert "samples_missing" not in evaluation_of(folder)
        metrics = (folder / "output" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics) == log.count(b'"kind": "evaluation"')


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_changed_byte_never_changes_the_samples(data: st.DataObject) -> None:
    samples = data.draw(evaluations())
    log = bytearray(pieces.log_of(samples).encode())
    place = data.draw(st.integers(0, len(log) - 1))
    log[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as name:
        found = kept(copy(bytes(log), Path(name)))
    assert found in (None, pieces.file_of(samples))


def test_a_set_that_unpacks_to_something_else_is_refused(tmp_path: Path) -> None:
    one, other = answers([True, False]), answers([False, True])
    _, said = pieces.printed(one)
    lines, _ = pieces.printed(other)
    forged = "".join(lines).replace(pieces.printed(other)[1]["sha256"], said["sha256"])
    folder = copy(forged + pieces.evaluation_line(one, said), tmp_path / "job")
    assert kept(folder) is None
    assert evaluation_of(folder)["samples_missing"] == "the samples were damaged on their way through the log"
