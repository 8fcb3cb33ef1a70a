"""The other process of `worker`: reads a request, runs the function, answers, until its standard input is closed.

python -m mlintern.tools.sandbox.worker_process MEMORY_BYTES
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import resource
import stat
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from mlintern.tools.errors import BadInput, MlinternError
from mlintern.tools.sandbox.worker import LARGEST_ANSWER, TooMuch, restored_error

_HEADER = struct.Struct("!Q")
_HARMLESS = frozenset({os.devnull, "/dev/urandom", "/dev/random"})
"""Devices that libraries open."""


def main(memory_bytes: int) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what a library prints must not pass for an answer
        os.dup2(nothing, descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow_memory(memory_bytes, most=memory_bytes)
    sys.addaudithook(_only_regular)
    while header := requests.read(_HEADER.size):
        (size,) = _HEADER.unpack(header)
        answer = serve(requests.read(size), most_memory_bytes=memory_bytes)
        _write(answers, answer)


def serve(request: bytes, *, most_memory_bytes: int) -> bytes:
    """The pickled answer: ("result", value) or ("error", an error of ours), and the most memory held so far."""
    name, args, kwargs, cpu_seconds, memory_bytes, working_directory = pickle.loads(request)
    if working_directory is not None:
        os.chdir(working_directory)
    _allow_more(cpu_seconds)
    _allow_memory(memory_bytes, most=most_memory_bytes)
    module, _, path = name.partition(":")
    function = importlib.import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    try:
        answer = _pickled("result", function(*args, **kwargs))  # type: ignore[operator]
    except MlinternError as error:
        return _pickled("error", error)
    except (MemoryError, RecursionError) as error:
        what = "memory than reading may" if isinstance(error, MemoryError) else "levels than can be read"
        return _pickled("error", TooMuch(f"It takes more {what}.", next_step="Give a part of it, or a smaller file."))
    if len(answer) > LARGEST_ANSWER:
        return _pickled("error", TooMuch("What was found is too large to show.", next_step="Give a part of it."))
    return answer


def _pickled(kind: str, value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump((kind, value, _most_held_bytes()))
    return buffer.getvalue()


def _most_held_bytes() -> int:
    """The most memory that this program has held.

    On Linux not ``ru_maxrss``: that survives ``exec``, so that a process started by a large one would count as large.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, MlinternError):
            return restored_error, (type(value), value.args, dict(value.__dict__))
        return NotImplemented


def _allow_more(seconds: int) -> None:
    """Let this call use so much processor time on top of what was used before."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _only_regular(event: str, args: tuple[Any, ...]) -> None:
    """Let nothing be opened that is no file or folder: a pipe holds its reader up, a device has no end."""
    if event != "open" or not isinstance(args[0], str | bytes | os.PathLike):
        return
    try:
        mode = Path(os.fsdecode(args[0])).stat().st_mode
    except (OSError, ValueError):
        return
    name = os.fsdecode(args[0])
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or name in _HARMLESS):
        raise BadInput(
            f"{name!r:.80} is no regular file but a device, a pipe or a socket.", next_step="Give a file or a folder."
        )


def _allow_memory(memory_bytes: int, *, most: int) -> None:
    """How much may be allocated in this call; ``most`` can never be passed."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (min(memory_bytes, most), most))


def _write(answers: BinaryIO, answer: bytes) -> None:
    answers.write(_HEADER.pack(len(answer)))
    answers.write(answer)
    answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
