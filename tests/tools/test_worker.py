"""The process that reads what others wrote: limits hold, errors keep their names, and it is warm."""

from __future__ import annotations

import gc
import math
import operator
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from mlintern.tools.errors import BadInput, NotFound
from mlintern.tools.evals.read_files import read_path
from mlintern.tools.ledger import Ledger
from mlintern.tools.sandbox import worker
from mlintern.tools.sandbox.worker import FRESH_ABOVE_BYTES, Limits, TooMuch, _Pool, _Unpickler

pytestmark = pytest.mark.anyio


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    few = Limits(seconds=30, cpu_seconds=2, memory_bytes=400 << 20)
    monkeypatch.setattr(worker, "READING", few)
    pool = _Pool()
    monkeypatch.setattr(worker, "_pool", pool)
    return few


def test_the_result_of_a_function_comes_back() -> None:
    assert worker.call(math.hypot, 3.0, 4.0) == 5.0
    assert worker.call(os.getpid) != os.getpid()


def test_the_process_stays_for_the_next_call() -> None:
    assert worker.call(os.getpid) == worker.call(os.getpid)


def test_relative_paths_begin_where_they_do_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker.call(os.getcwd) == str(Path.cwd())
    monkeypatch.chdir(tmp_path)
    assert worker.call(os.getcwd) == str(tmp_path)


def test_the_memory_of_the_process_that_started_it_does_not_count_as_its_own(limits: Limits) -> None:
    hoard = bytearray(FRESH_ABOVE_BYTES + (64 << 20))
    hoard[:: 1 << 12] = b"x" * len(hoard[:: 1 << 12])
    assert worker.call(os.getpid) == worker.call(os.getpid)


def test_what_takes_too_much_memory_is_refused_and_the_next_call_works(limits: Limits) -> None:
    before = worker.call(os.getpid)
    with pytest.raises(TooMuch, match="more memory"):
        worker.call(operator.mul, b"x", 1 << 30)
    assert isinstance(worker.call(os.getpid), int) and before


def test_what_takes_too_long_is_ended(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with monkeypatch.context() as short:
        short.setattr(worker, "READING", replace(limits, seconds=1.5))
        with pytest.raises(TooMuch, match=r"within 1\.5 s"):
            worker.call(time.sleep, 60)
    assert time.monotonic() - began < 30
    assert worker.call(math.sqrt, 4) == 2


def test_a_reader_that_crashes_is_a_named_error(limits: Limits) -> None:
    with pytest.raises(TooMuch, match="broke the reader"):
        worker.call(os.abort)
    assert worker.call(math.sqrt, 4) == 2


def test_an_answer_that_is_too_large_does_not_come(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooMuch, match="too large to show"):
        worker.call(operator.mul, b"x", worker.LARGEST_ANSWER + 1)


async def test_a_cancelled_call_ends_the_process(limits: Limits) -> None:
    pid = await worker.run(os.getpid)
    with anyio.move_on_after(0.2) as scope:
        await worker.run(time.sleep, 60)
    assert scope.cancelled_caught
    with anyio.fail_after(20):  # before its time is over, which would end it too
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
            await anyio.sleep(0.01)


def test_errors_keep_their_kind_their_words_and_their_advice(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        worker.call(read_path, tmp_path)
    assert type(caught.value) is NotFound and caught.value.message and caught.value.next_step
    (tmp_path / "results_x.json").write_text('{"results": {')
    with pytest.raises(BadInput) as broken:
        worker.call(read_path, tmp_path / "results_x.json")
    assert str(broken.value) and broken.value.message in str(broken.value)


@pytest.mark.parametrize("action", [os.system, eval, getattr, open, worker.call, pickle.loads, Ledger])
def test_no_answer_can_make_this_process_act(action: object) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return action, ("true",)

    import io

    with pytest.raises(pickle.UnpicklingError):
        _Unpickler(io.BytesIO(pickle.dumps(("result", Evil(), 0)))).load()


def test_no_secret_is_given_to_it(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_person")
    assert worker.call(os.getenv, "HF_TOKEN") is None
    assert worker.call(os.getenv, "PATH") == os.environ["PATH"]


def test_a_warm_call_costs_little() -> None:
    worker.call(math.sqrt, 4)
    gc.collect()
    took = []
    for _ in range(50):
        began = time.perf_counter()
        worker.call(math.sqrt, 4)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.01, "ordinary reading pays at most 10 ms, where the machine does nothing else"
