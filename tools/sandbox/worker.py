"""Functions run in another process with limits of memory, processor time and time: for what others wrote.

An archive that unpacks to everything, a template that multiplies strings or a table that breaks its library then ends
that process and not this one. The process stays for the next call, so that what it imported is paid for once; after a
call that took much memory, or failed hard, or was cancelled, another takes its place.

What is given to a function and what it returns travels pickled, and only classes of ours and plain values are
accepted as an answer.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from mlintern.common.durations import format_duration
from mlintern.common.redact import is_secret_name
from mlintern.common.text import format_bytes
from mlintern.tools.errors import BadInput, MlinternError

P = ParamSpec("P")
T = TypeVar("T")

MOST_PROCESSES = 3
MOST_LONG = 2
"""Calls with more time than `READING` at once: something small can be read while they last."""
LARGEST_ANSWER = 64 << 20
"""Bytes of a pickled answer; a result that is larger does not belong in a conversation."""
FRESH_ABOVE_BYTES = 300 << 20
"""A process that has held more than this is replaced: libraries rarely give memory back."""
_READ_BYTES = 1 << 16
_HEADER = struct.Struct("!Q")
_SAFE_BUILTINS = frozenset({"set", "frozenset", "complex", "bytearray", "range", "slice"})
_SAFE_CLASSES = frozenset(
    {("pathlib", "PosixPath"), ("pathlib", "Path"), ("pathlib._local", "PosixPath"), ("collections", "OrderedDict")}
    | {("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone")}
    | {("decimal", "Decimal"), ("types", "MappingProxyType"), ("uuid", "UUID")}
)


@dataclass(frozen=True)
class Limits:
    """What one call may use.

    Attributes:
        seconds: until it is ended, waiting for a free process not counted.
        cpu_seconds: of all its threads together.
        memory_bytes: that it may allocate.
    """

    seconds: float = 20.0
    cpu_seconds: int = 20
    memory_bytes: int = 1 << 30


READING = Limits()
DATA = Limits(seconds=240.0, cpu_seconds=480, memory_bytes=2 << 30)
"""For a table, which may be larger than memory: DuckDB is held to 400 MB, and a row is held whole."""
COMPARING = Limits(seconds=1800.0, cpu_seconds=3600, memory_bytes=2 << 30)
"""For every row of two datasets: a million rows against ten thousand take 78 s (docs/data.md)."""
MOST_MEMORY_BYTES = 2 << 30


class TooMuch(BadInput):
    """What was to be read takes more memory or time than reading may."""


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call` for the event loop; cancelling it ends the call in the other process at once."""
    return await _run(function, args, kwargs, READING)


async def run_on_data(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`run` with the limits of `DATA`."""
    return await _run(function, args, kwargs, DATA)


async def run_comparing(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`run` with the limits of `COMPARING`."""
    return await _run(function, args, kwargs, COMPARING)


async def _run(function: Callable[..., T], args: Any, kwargs: Any, limits: Limits) -> T:
    import anyio
    import anyio.to_thread

    stop = threading.Event()
    try:
        return await anyio.to_thread.run_sync(
            lambda: _pool.call(function, args, kwargs, limits=limits, stop=stop), abandon_on_cancel=True
        )
    finally:
        stop.set()


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of ``function``, a function at the top level of a module of ours, run in the other process.

    Raises:
        TooMuch: it took more memory or time than it may.
        MlinternError: what the function itself raises of our errors.
    """
    return _pool.call(function, args, kwargs, limits=READING, stop=threading.Event())


class _Process:
    """A warm process that serves one call at a time."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not is_secret_name(name)}
        # Its own allocator reserves a gibibyte in advance, which would count as taken.
        environment["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlintern.tools.sandbox.worker_process", str(MOST_MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.worn = False
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        os.set_blocking(self._requests.fileno(), False)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes, *, deadline: float, stop: threading.Event) -> bytes | None:
        """The answer; None where the process ended first. Raises TimeoutError, and _Stopped on ``stop``."""
        try:
            self._send(_HEADER.pack(len(request)) + request, deadline=deadline, stop=stop)
            header = self._receive(_HEADER.size, deadline=deadline, stop=stop)
            if header is None:
                return None
            (size,) = _HEADER.unpack(header)
            if size > LARGEST_ANSWER:
                return None
            return self._receive(size, deadline=deadline, stop=stop)
        except BrokenPipeError:
            return None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._requests.close()
        self._answers.close()

    def _send(self, data: bytes, *, deadline: float, stop: threading.Event) -> None:
        view = memoryview(data)
        while view:
            _wait(write=self._requests.fileno(), deadline=deadline, stop=stop)
            view = view[os.write(self._requests.fileno(), view) :]

    def _receive(self, size: int, *, deadline: float, stop: threading.Event) -> bytes | None:
        parts: list[bytes] = []
        while size > 0:
            _wait(read=self._answers.fileno(), deadline=deadline, stop=stop)
            part = os.read(self._answers.fileno(), min(size, _READ_BYTES))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Stopped(Exception):
    """Nobody waits for the answer any more."""


class _Pool:
    """Up to `MOST_PROCESSES` warm processes, each started when it is first needed."""

    def __init__(self) -> None:
        self._free: list[_Process] = []
        self._turn = threading.Semaphore(MOST_PROCESSES)
        self._long = threading.Semaphore(MOST_LONG)
        self._lock = threading.Lock()

    def call(self, function: Callable[..., T], args: Any, kwargs: Any, *, limits: Limits, stop: threading.Event) -> T:
        name = f"{function.__module__}:{function.__qualname__}"
        request = pickle.dumps((name, args, kwargs, limits.cpu_seconds, limits.memory_bytes, _working_directory()))
        turns = [self._long, self._turn] if limits.seconds > READING.seconds else [self._turn]
        with self._process(turns, stop) as process:
            began = time.monotonic()
            try:
                answer = process.ask(request, deadline=began + limits.seconds, stop=stop)
            except TimeoutError:
                raise _took_too_long(limits.seconds) from None
            if answer is None:
                raise _broke(time.monotonic() - began, limits)
            kind, value, held_bytes = _Unpickler(io.BytesIO(answer)).load()
            process.worn = held_bytes > FRESH_ABOVE_BYTES
        if kind == "error":
            raise cast(BaseException, value)
        return cast(T, value)

    @contextlib.contextmanager
    def _process(self, turns: list[threading.Semaphore], stop: threading.Event) -> Iterator[_Process]:
        with contextlib.ExitStack() as held:
            for turn in turns:
                while not turn.acquire(timeout=0.1):
                    if stop.is_set():
                        raise _Stopped
                held.callback(turn.release)
            process = self._take()
            kept = False
            try:
                yield process
                kept = process.alive and not process.worn
            finally:
                if kept:
                    with self._lock:
                        self._free.append(process)
                else:
                    process.kill()

    def _take(self) -> _Process:
        with self._lock:
            while self._free:
                process = self._free.pop()
                if process.alive:
                    return process
                process.kill()
        return _Process()

    def close(self) -> None:
        with self._lock:
            while self._free:
                self._free.pop().kill()


_pool = _Pool()
atexit.register(_pool.close)


def _wait(*, read: int | None = None, write: int | None = None, deadline: float, stop: threading.Event) -> None:
    while True:
        left = deadline - time.monotonic()
        if stop.is_set():
            raise _Stopped
        if left <= 0:
            raise TimeoutError
        ready = select.select([] if read is None else [read], [] if write is None else [write], [], min(left, 0.05))
        if ready[0] or ready[1]:
            return


def _working_directory() -> str | None:
    """Where relative paths begin, for a process that may have been started elsewhere; None where it is gone."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _took_too_long(seconds: float) -> TooMuch:
    return TooMuch(
        f"It could not be read within {format_duration(seconds)}.",
        next_step="Give a part of it, or a smaller file; if it is not yours, do not trust it.",
    )


def _broke(seconds: float, limits: Limits) -> TooMuch:
    return TooMuch(
        f"Reading it broke the reader after {format_duration(seconds, rounded=True)}: it is malformed, or takes more"
        f" than {format_bytes(limits.memory_bytes)} of memory or {limits.cpu_seconds} s of processor time.",
        next_step="Give a part of it, or a smaller file; if it is not yours, do not trust it.",
    )


class _Unpickler(pickle.Unpickler):
    """Takes from the other process, which may have been taken over by what it read, data and nothing that acts."""

    def find_class(self, module: str, name: str) -> Any:
        if (module == "builtins" and name in _SAFE_BUILTINS) or (module, name) in _SAFE_CLASSES:
            return super().find_class(module, name)
        found = super().find_class(module, name) if module.startswith("mlintern.") else None
        if (module, name) == (__name__, "restored_error") or (isinstance(found, type) and _holds_data(found)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is not taken from a reader")


def _holds_data(kind: type) -> bool:
    """Whether making one of ``kind`` does nothing but keep values."""
    from pydantic import BaseModel

    return is_dataclass(kind) or issubclass(kind, BaseModel | MlinternError)


def restored_error(kind: type[MlinternError], text: tuple[object, ...], fields: dict[str, Any]) -> MlinternError:
    """An error of ours as it was in the other process; its constructor takes names that pickle does not know."""
    error = kind.__new__(kind, *text)
    error.args = text
    error.__dict__.update(fields)
    return error
